import numpy as np
import pytest

from echogen.geometry.network import SIDE, distances, fan_through, letterbox, opinion
from echogen.phantom import make_frame

FAN = np.array([8.0, 60.0, -0.7, 0.6, 12.0, 108.0])


@pytest.fixture(scope="module")
def phantom():
    return make_frame(3, "4CH", "ED", seed=5)


def test_a_picture_is_averaged_into_the_middle_of_the_square():
    image = np.zeros((100, 400), np.uint8)
    image[:50] = 200
    small, scale, origin = letterbox(image, (2.0, 1.0))

    assert scale == SIDE / 400
    assert origin == (32, 0)
    assert (small[32:64] == 200).all()
    assert not small[:32].any()
    assert not small[64:].any()
    fine, _, _ = letterbox(np.full((1, 300), 90, np.uint8), (300.0, 1.0))
    assert (fine == 90).all(), "an area's mean is that of what it covers"


def test_a_fan_is_laid_through_its_own_distances():
    fan, misfit = fan_through(distances(FAN))

    assert fan is not None
    found = [fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right, fan.radius_near]
    np.testing.assert_allclose([*found, fan.radius_far], FAN, atol=0.02)
    assert misfit < 0.001


def test_noise_in_the_maps_is_averaged_away_and_told():
    noise = np.random.default_rng(0).normal(0, 0.2, (4, 32, 32))
    fan, misfit = fan_through(distances(FAN) + noise)

    assert fan is not None
    assert np.hypot(fan.apex_row - FAN[0], fan.apex_col - FAN[1]) < 2
    assert 0.05 < misfit < 0.3


def test_maps_that_are_no_fans_give_none():
    assert fan_through(np.ones((4, 32, 32))) == (None, 2.0)
    crossed = distances(FAN)[[1, 0, 2, 3]]
    assert fan_through(crossed)[0] is None


def test_the_fan_of_a_phantom_is_found_though_an_edge_is_black(phantom):
    fan, image = phantom.sector, phantom.image.copy()
    rows = np.arange(image.shape[0])[:, None] * phantom.spacing_mm[0]
    cols = np.arange(image.shape[1])[None, :] * phantom.spacing_mm[1]
    angle = np.arctan2(cols - fan.apex_col, rows - fan.apex_row)
    depth = np.hypot(rows - fan.apex_row, cols - fan.apex_col) / fan.radius_far
    image[(angle < fan.angle_left + 0.2) & (depth > 0.4) & (depth < 0.8)] = 0

    found = opinion(image, phantom.spacing_mm)

    assert found.likelihood > 0.9
    assert found.misfit < 0.1
    assert found.fan is not None
    apart = np.hypot(found.fan.apex_row - fan.apex_row, found.fan.apex_col - fan.apex_col)
    assert apart < 0.03 * fan.radius_far
    assert abs(found.fan.angle_left - fan.angle_left) < np.deg2rad(3)
    assert abs(found.fan.angle_right - fan.angle_right) < np.deg2rad(3)


def test_millimetres_follow_the_spacing(phantom):
    one = opinion(phantom.image, phantom.spacing_mm).fan
    row, col = phantom.spacing_mm
    twice = opinion(phantom.image, (2 * row, 2 * col)).fan

    assert one is not None
    assert twice is not None
    assert twice.apex_col == pytest.approx(2 * one.apex_col)
    assert twice.radius_far == pytest.approx(2 * one.radius_far)
    assert twice.angle_left == pytest.approx(one.angle_left)
    fine = opinion(np.kron(phantom.image, np.ones((2, 2), np.uint8)), (row / 2, col / 2))
    assert fine.fan is not None
    assert fine.fan.apex_col == pytest.approx(one.apex_col, abs=0.2)


def test_what_is_no_fan_is_unlikely_to_be_one(phantom):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 260), dtype=np.uint8)
    box = np.zeros((200, 260), np.uint8)
    box[30:170, 40:220] = rng.integers(40, 160, (140, 180))
    nothing = np.zeros((200, 200), np.uint8)

    for image in (noise, box, nothing, phantom.image[::-1], np.rot90(phantom.image)):
        assert opinion(np.ascontiguousarray(image), (1.0, 1.0)).likelihood < 0.5
