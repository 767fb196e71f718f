import numpy as np
import pytest
import torch
from fan_network import Network, folded, losses, true_maps, varied
from fan_pictures import BEAMS, DEPTHS, phantom_beams, picture

from echogen.geometry import network
from echogen.geometry.network import SIDE, distances

FAN = [8.0, 60.0, -0.7, 0.6, 12.0, 108.0]


@pytest.fixture(scope="module")
def beams():
    return phantom_beams(2, seed=3)


def test_the_trained_network_is_the_one_that_is_run(monkeypatch):
    torch.manual_seed(0)
    trained = Network()
    for _ in range(3):
        trained(torch.rand(4, 1, SIDE, SIDE))  # moves the normalisations' means
    weights = {k: v.astype(np.float32) for k, v in folded(trained.state_dict()).items()}
    monkeypatch.setattr(network, "_weights", lambda: weights)
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)

    maps, logit = network.answer(image)
    with torch.no_grad():
        true, likely = trained.eval()(torch.from_numpy(image / 255).float().sqrt()[None, None])

    np.testing.assert_allclose(maps, true[0], atol=2e-3)
    assert logit == pytest.approx(float(likely), abs=2e-3)
    assert sum(weight.nbytes for weight in folded(trained.state_dict()).values()) < 300_000


def test_the_maps_to_learn_are_the_distances_that_a_fan_is_laid_through():
    maps = true_maps(torch.tensor([FAN]))[0].numpy()

    np.testing.assert_allclose(maps, distances(np.array(FAN)), atol=1e-4)


def test_variations_move_the_fan_with_the_picture(beams):
    rng = np.random.default_rng(1)
    made = next(one for one in (picture(rng, beams) for _ in range(50)) if one.fan is not None)
    fan = made.fan
    inside = fan.mask((SIDE, SIDE), (1.0, 1.0))
    image = torch.from_numpy(np.where(inside, 255, 0).astype(np.uint8))
    row = [fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right]
    fans = torch.tensor([[*row, fan.radius_near, fan.radius_far, 1.0]]).repeat(8, 1)

    x, moved = varied(image.repeat(8, 1, 1), fans, torch.Generator().manual_seed(0))

    assert len({tuple(one) for one in moved.tolist()}) > 4
    for shown, one in zip(x[:, 0].numpy(), moved.tolist(), strict=True):
        there = type(fan)(*one[:6]).mask((SIDE, SIDE), (1.0, 1.0))
        wrong = (shown > 0) != there
        wrong[:9], wrong[-9:], wrong[:, :9], wrong[:, -9:] = False, False, False, False
        assert wrong.mean() < 0.001, "apart from what the shift brings in at the border"


def test_only_pictures_with_a_fan_count_for_the_maps():
    fans = torch.tensor([[*FAN, 1.0], [0.0] * 7])
    maps = torch.stack([true_maps(fans)[0], torch.full((4, 32, 32), 9.0)])

    apart, unlike = losses(maps, torch.tensor([20.0, -20.0]), fans)

    assert float(apart) == 0
    assert float(unlike) < 1e-6


def test_a_seed_gives_a_picture_and_one_in_four_has_no_fan(beams):
    assert beams.shape[1:] == (DEPTHS, BEAMS)
    first, again = (picture(np.random.default_rng(7), beams) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.fan == again.fan

    made = [picture(np.random.default_rng([1, i]), beams) for i in range(120)]
    empty = sum(one.fan is None for one in made)
    assert 15 < empty < 45
    for one in made:
        assert one.image.shape == (SIDE, SIDE)
        assert one.image.dtype == np.uint8
