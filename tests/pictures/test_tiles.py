import numpy as np
import pytest

from echogen.pictures.colours import CAVITY, MISSING
from echogen.pictures.tiles import contoured, displayed_size, hatched, tile


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
