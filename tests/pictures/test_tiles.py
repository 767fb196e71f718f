import numpy as np
import pytest

from echogen.datasets.fans import FoundFan
from echogen.geometry.sector import fan_mask
from echogen.pictures.colours import CAVITY, FANS, MISSING
from echogen.pictures.tiles import contoured, displayed_size, hatched, outlined, tile


def test_a_tile_has_the_images_true_aspect() -> None:
    assert displayed_size((200, 100), 1.5, 80) == (60, 80)
    assert displayed_size((200, 100), float("nan"), 80) == (40, 80)
    image = np.tile(np.arange(0, 100, dtype=np.uint8), (200, 1))
    shown = np.asarray(tile(image, displayed_size(image.shape, 1.5, 80)))
    assert shown.shape == (80, 60, 3)
    assert (np.diff(shown[40, :, 0].astype(int)) >= 0).all()


def test_what_is_missing_is_hatched_and_the_rest_is_left_alone() -> None:
    missing = np.zeros((64, 64), np.bool_)
    missing[:, 32:] = True
    shown = tile(np.full((64, 64), 90, np.uint8), (64, 64))
    marked = np.asarray(hatched(shown, missing))
    np.testing.assert_array_equal(marked[:, :31], np.asarray(shown)[:, :31])
    inside = marked[:, 34:].reshape(-1, 3)
    assert {tuple(colour) for colour in inside.tolist()} == {
        MISSING,
        tuple(channel + 46 for channel in MISSING),
    }


def test_contours_follow_the_label_between_its_pixels() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[16:48, 20:40] = 1
    shown = tile(np.zeros((64, 64), np.uint8), (256, 256))
    drawn = np.asarray(contoured(shown, label, {1: CAVITY})).astype(int)
    row = drawn[128]
    near = np.abs(row - CAVITY).sum(axis=1) < 60
    assert np.flatnonzero(near).min() == pytest.approx(20 * 4, abs=2)
    assert np.flatnonzero(near).max() == pytest.approx(40 * 4, abs=2)
    assert (drawn[:40] == 0).all()
    assert drawn[128, 120].sum() > 0  # lightly filled


def test_an_outline_is_the_fans_border_where_pixels_are_not_square() -> None:
    values, aspect = (4.0, 30.0, -30.0, 40.0, 10.0, 70.0), 0.8
    fan = FoundFan("x", "x", (80, 64), values, aspect, 1.0, "given", "")
    size = displayed_size(fan.size, aspect, 320)
    drawn = np.asarray(outlined(tile(np.zeros(fan.size, np.uint8), size), fan)).astype(int)
    near = np.abs(drawn - FANS["given"]).sum(axis=2) < 60
    stored = np.array(values)
    stored[2:4] = np.deg2rad(stored[2:4])
    inside = fan_mask(stored, aspect, fan.size)
    for row, side, step in ((30, "left", 0), (30, "right", -1)):
        expected = np.flatnonzero(inside[row])[step] + (0.0 if side == "left" else 1.0)
        found = np.flatnonzero(near[4 * row + 2])[step] / size[0] * 64
        assert found == pytest.approx(expected, abs=1.2)
    lowest = np.flatnonzero(near.any(axis=1)).max() / 4
    assert lowest == pytest.approx(4.5 + 70, abs=1)


def test_a_picture_without_a_fan_is_framed() -> None:
    fan = FoundFan("x", "x", (64, 64), None, 1.0, 0.0, "frame", "none")
    drawn = np.asarray(outlined(tile(np.zeros((64, 64), np.uint8), (128, 128)), fan))
    assert (np.abs(drawn[0, 20:100].astype(int) - FANS["refused"]) < 10).all()
    assert (drawn[10:100, 10:100] == 0).all()
