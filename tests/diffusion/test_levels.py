"""Grey levels: what is usual, and images brought there and back."""

from pathlib import Path

import numpy as np
import pytest

from echogen.diffusion.checkpoint import GreyLevels, read_info
from echogen.diffusion.levels import (
    FEWEST,
    MOST_GAMMA,
    LevelCurve,
    curve_to,
    usual_levels,
)

USUAL = GreyLevels(dark=(12, 40, 80), middle=(35, 80, 150))
REAL = np.ones((64, 64), np.bool_)


def image(low: int, high: int) -> np.ndarray:
    levels = np.linspace(low, high, REAL.size).round().astype(np.uint8)
    return np.random.default_rng(0).permutation(levels).reshape(REAL.shape)


def test_a_usual_image_is_left_as_it_is() -> None:
    assert curve_to(USUAL, image(20, 180), REAL) is None


@pytest.mark.parametrize(("low", "high"), [(0, 80), (0, 200), (100, 255), (1, 40)])
def test_an_unusual_image_is_brought_to_the_middle(low: int, high: int) -> None:
    shown = image(low, high)
    curve = curve_to(USUAL, shown, REAL)
    assert curve is not None
    moved = curve.apply(shown, REAL)
    for percentile, wanted in ((5, 40), (50, 80)):
        before, after = (np.percentile(of, percentile) for of in (shown, moved))
        assert abs(after - wanted) <= max(abs(before - wanted), 2)
    if curve.gamma < MOST_GAMMA:
        assert np.percentile(moved, 50) == pytest.approx(80, abs=2)


@pytest.mark.parametrize("curve", [LevelCurve(30, 0.7), LevelCurve(0, 1.6), LevelCurve(64, 1.0)])
def test_the_way_back_inverts_the_way_there(curve: LevelCurve) -> None:
    levels = np.arange(256, dtype=np.uint8)
    there = curve.apply(levels, np.ones(256, np.bool_))
    assert (np.diff(curve.table) > 0).all()
    steep = np.gradient(curve.table) > 0.5  # elsewhere several levels become one
    away = np.abs(curve.undo(there).astype(int) - levels)
    assert away[steep].max() <= 1
    assert away.max() <= 8


def test_a_picture_of_black_and_white_has_a_curve_too() -> None:
    assert curve_to(USUAL, np.full(REAL.shape, 255, np.uint8), REAL) is not None


def test_only_real_pixels_are_put_on_the_curve() -> None:
    real = np.zeros((4, 4), np.bool_)
    real[0] = True
    moved = LevelCurve(30, 1.0).apply(np.zeros((4, 4), np.uint8), real)
    assert moved[0].tolist() == [30] * 4
    assert not moved[1:].any()


def test_a_sliver_says_too_little() -> None:
    real = np.zeros_like(REAL)
    real.flat[: FEWEST - 1] = True
    assert curve_to(USUAL, image(1, 40), real) is None


def test_usual_levels_are_those_of_the_images_within_their_fans() -> None:
    images = np.stack([image(10 * k, 10 * k + 90) for k in range(1, 10)])
    images[:, :20] = 0
    found = usual_levels(images)
    assert found is not None
    assert found.dark[1] == pytest.approx(54.5, abs=2)
    assert found.middle[0] < found.middle[1] < found.middle[2]
    assert usual_levels(np.zeros((2, 64, 64), np.uint8)) is None


def test_the_built_in_model_knows_what_is_usual() -> None:

    info = read_info("builtin")
    assert info.grey_levels is not None
    assert info.model_copy(update={"grey_levels": None}).sha256 != info.sha256
    assert Path(info.name).name == "camus-256-small"
