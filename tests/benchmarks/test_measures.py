"""Measures that benchmarks compare samplers by: scores, texture by depth, seams, comparisons."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from measures import (
    DrawTable,
    absolute,
    compare,
    depth_bands,
    distances,
    figure,
    grain,
    grey_levels,
    log_spectrum,
    masked_blur,
    null_band,
    polar,
    rms,
    seam_gradient,
    seam_steps,
    speckle_correlation,
)
from measures.compare import all_draws, holm, standard_error
from scipy import ndimage

from echogen.errors import UsageError

SIDE = 128
SHAPE = (SIDE, SIDE)
SECTOR = np.array([-1.0, 63.5, -0.65, 0.65, 0.0, 127.0])
ASPECT = 1.2
# So far away that beams run straight down, a row apart.
STRAIGHT = np.array([-1e6, 63.5, -6.35e-5, 6.35e-5, 1e6, 1e6 + 128])


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def speckled(seed: int, sigma: float | tuple[float, float] = 1.0) -> np.ndarray:
    """Grey levels with mean 100 and standard deviation 20, correlated over `sigma` pixels."""
    texture = ndimage.gaussian_filter(noise(seed), sigma, mode="wrap")
    return 100 + 20 * texture / texture.std()


def blob(seed: int) -> np.ndarray:
    """A region with a ragged edge, about half of the image."""
    return np.asarray(ndimage.gaussian_filter(noise(seed), 8, mode="wrap") > 0)


WHOLE = np.ones(SHAPE, bool)
RIGHT_HALF = np.zeros(SHAPE, bool)
RIGHT_HALF[:, SIDE // 2 :] = True


# Scores.


def mean_score(sigma: float, samples: int, dimension: int, metric: Callable[..., float]) -> float:
    """Over 800 truths from the standard normal, samples from one `sigma` times as wide."""
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(800):
        truth, drawn = rng.normal(size=dimension), sigma * rng.normal(size=(samples, dimension))
        scores.append(distances(list(drawn), truth, metric).score)
    return float(np.mean(scores))


@pytest.mark.parametrize("metric", [rms, absolute])
def test_the_true_distribution_scores_best(metric: Callable[..., float]) -> None:
    right = mean_score(1.0, 4, 8, metric)
    for wrong in (0.1, 0.6, 1.5):
        assert mean_score(wrong, 4, 8, metric) > right + 0.01


def test_the_crps_of_a_normal_is_the_known_one() -> None:
    assert mean_score(1.0, 8, 1, absolute) == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)


def test_the_number_of_samples_favours_nobody() -> None:
    two, twelve = mean_score(1.0, 2, 8, rms), mean_score(1.0, 12, 8, rms)
    assert two == pytest.approx(twelve, abs=0.02)


def test_distances_skip_what_is_not_finite_on_either_side() -> None:
    a, b = np.array([1.0, np.nan, 3.0, 9.0]), np.array([1.0, 2.0, 7.0, np.nan])
    assert rms(a, b) == pytest.approx(math.sqrt(8))
    assert absolute(a, b) == 2
    assert math.isnan(rms(a[1:2], b[1:2]))


def test_grey_levels_compare_histograms_of_any_size_and_order() -> None:
    levels = np.arange(50.0)
    assert grey_levels(levels, levels[::-1] + 10) == pytest.approx(10)
    assert grey_levels(levels, np.repeat(levels, 3)) == pytest.approx(0)


def test_scores_of_one_sample_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="two samples"):
        _ = distances([np.zeros(3)], np.zeros(3), rms).score
    with pytest.raises(UsageError, match="equal shapes"):
        rms(np.zeros(3), np.zeros(4))
    with pytest.raises(UsageError, match="found 0 and 3"):
        grey_levels(np.zeros(0), np.zeros(3))
    with pytest.raises(UsageError, match="bool"):
        masked_blur(np.zeros(SHAPE), np.ones(SHAPE), 1.0)


# Regions.


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_outside_the_region_changes_nothing(seed: int) -> None:
    image, region = speckled(seed), blob(seed + 10)
    outside = np.where(region, image, np.nan)
    bands = depth_bands(SHAPE, SECTOR, ASPECT, 3)
    measures: list[Callable[[np.ndarray], object]] = [
        lambda x: masked_blur(x, region, 3.0),
        lambda x: polar(x, region, SECTOR, ASPECT, (40.0, 80.0))[0],
        lambda x: grain(x, region),
        lambda x: log_spectrum(x, region, bands),
        lambda x: speckle_correlation(x, region, SECTOR, ASPECT),
    ]
    for measure in measures:
        found = np.asarray(measure(image))
        assert np.isfinite(found).any()
        np.testing.assert_array_equal(measure(outside), found)


def test_the_seam_looks_at_nothing_outside_the_fan() -> None:
    image, fan = speckled(0), blob(4)
    outside = np.where(fan, image, np.nan)
    assert seam_gradient(outside, RIGHT_HALF, fan) == seam_gradient(image, RIGHT_HALF, fan) > 0
    steps = seam_steps(image, RIGHT_HALF, fan)
    assert len(steps) > 0
    np.testing.assert_array_equal(seam_steps(outside, RIGHT_HALF, fan), steps)


def test_polar_rows_are_depths_and_columns_are_beams() -> None:
    rows, cols = np.indices(SHAPE)
    down, across = rows - SECTOR[0], (cols - SECTOR[1]) * ASPECT
    depths, valid = polar(np.hypot(down, across), WHOLE, SECTOR, ASPECT, (40.0, 80.0))
    beams, _ = polar(np.arctan2(across, down), WHOLE, SECTOR, ASPECT, (40.0, 80.0))
    assert valid.all()
    np.testing.assert_allclose(
        depths, np.broadcast_to(np.arange(40, 80)[:, None], depths.shape), atol=0.02
    )
    assert np.ptp(beams, axis=0).max() < 0.001
    # One row apart along the arc in the middle of the range.
    np.testing.assert_allclose(np.diff(beams[20]) * 60, 1, atol=0.02)


def test_polar_interpolates_no_pixel_outside_the_region() -> None:
    region = blob(2)
    values, valid = polar(np.full(SHAPE, 50), region, SECTOR, ASPECT, (40.0, 80.0))
    assert valid.any()
    assert not valid.all()
    np.testing.assert_allclose(values, np.where(valid, 50, 0))


def test_depth_bands_follow_the_beams() -> None:
    bands = depth_bands(SHAPE, np.array([0.0, 64.0, -1.0, 1.0, 10.0, 100.0]), 2.0, 3)
    assert [bands[row, 64] for row in (9, 10, 39, 41, 71, 100, 101)] == [-1, 0, 0, 1, 2, 2, -1]
    assert bands[0, 64 + 21] == 1  # 21 columns are 42 rows wide


# The seam.


def test_a_planted_seam_is_seen_by_gradient_and_step() -> None:
    truth = speckled(0, 2.0)
    seamed = np.where(RIGHT_HALF, truth + 30, truth)
    assert seam_gradient(seamed, RIGHT_HALF, WHOLE) > 2 * seam_gradient(truth, RIGHT_HALF, WHOLE)
    gained = seam_steps(seamed, RIGHT_HALF, WHOLE) - seam_steps(truth, RIGHT_HALF, WHOLE)
    np.testing.assert_allclose(gained, 30)


def test_a_border_outside_the_fan_is_no_seam() -> None:
    fan = RIGHT_HALF.copy()
    assert math.isnan(seam_gradient(speckled(0), RIGHT_HALF, fan))
    assert seam_steps(speckled(0), RIGHT_HALF, fan).size == 0


# Texture.


def test_the_log_spectrum_is_in_decibels_and_finest_first() -> None:
    bands = depth_bands(SHAPE, STRAIGHT, 1.0, 2)
    fine, coarse = speckled(0, 0.5), speckled(0, 4.0)
    power = log_spectrum(fine, WHOLE, bands)
    assert power.shape == (2, 4)
    np.testing.assert_allclose(log_spectrum(2 * fine, WHOLE, bands) - power, 20 * math.log10(2))
    assert (np.diff(power, axis=1) < 0).all()
    assert (np.diff(log_spectrum(coarse, WHOLE, bands), axis=1) > 0).all()


def test_a_band_with_too_few_pixels_is_not_measured() -> None:
    bands = depth_bands(SHAPE, STRAIGHT, 1.0, 2)
    top = WHOLE.copy()
    top[SIDE // 2 :] = False
    spectrum = log_spectrum(speckled(0), top, bands)
    correlation = speckle_correlation(speckled(0), top, STRAIGHT, 1.0, bands=2)
    assert np.isfinite(spectrum[0]).all()
    assert np.isnan(spectrum[1]).all()
    assert np.isfinite(correlation[:, 0]).all()
    assert np.isnan(correlation[:, 1]).all()


def test_speckle_correlation_tells_white_from_correlated_and_along_from_across() -> None:
    white = speckle_correlation(100 + 20 * noise(1), WHOLE, STRAIGHT, 1.0, bands=1)
    np.testing.assert_allclose(white[:, 0, 2:], 0, atol=0.06)
    sigma = 1.5
    long = speckle_correlation(speckled(1, (sigma, 0)), WHOLE, STRAIGHT, 1.0, bands=1)
    expected = np.exp(-(np.arange(1, 4) ** 2) / (4 * sigma**2))
    np.testing.assert_allclose(long[0, 0, :3], expected, atol=0.1)
    np.testing.assert_allclose(long[1, 0, 2:], 0, atol=0.1)


def test_pairs_that_leave_the_region_do_not_dilute_the_correlation() -> None:
    rows = np.indices(SHAPE)[0]
    image, stripes = 100 + 20.0 * (rows % 2), rows % 16 < 8
    axial = speckle_correlation(image, stripes, STRAIGHT, 1.0, bands=1)[0, 0]
    np.testing.assert_allclose(axial[:4], [-1, 1, -1, 1], atol=0.1)


def test_along_and_across_are_those_of_the_beams_at_the_flanks_too() -> None:
    rows, cols = np.indices(SHAPE)
    down, across = rows - SECTOR[0], (cols - SECTOR[1]) * ASPECT
    beams = ndimage.gaussian_filter(noise(2, (200, 600)), (3.0, 0))
    at = [np.hypot(down, across), 300 + np.arctan2(across, down) * 100]
    image = 100 + 20 * ndimage.map_coordinates(beams, at, order=1)
    flank = (np.arctan2(across, down) > 0.35) & (np.arctan2(across, down) < 0.65) & (rows > 40)
    axial, lateral = speckle_correlation(image, flank, SECTOR, ASPECT, bands=1)[:, 0]
    assert axial[2] > 0.5
    assert lateral[2] < 0.2


# Comparing samplers.


def table(seed: int, worse: float = 0.0, frames: int = 10, draws: int = 12) -> DrawTable:
    """Draws of which the last four are `worse`; frames differ far more than draws do."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(50, 150, frames)
    values = truth[:, None] + rng.normal(size=(frames, draws))
    values[:, -4:] += worse
    return DrawTable("difference", values, truth, np.empty(0))


def test_the_same_sampler_is_found_worse_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    p = [compare(table(seed), 8, rng, 99).p_worse for seed in range(300)]
    assert 0.06 < np.mean(np.array(p) <= 0.1) < 0.14
    assert 0.42 < np.mean(p) < 0.58


def test_a_worse_sampler_is_found_and_the_reference_is_better_than_it() -> None:
    found = compare(table(0, worse=2.0), 8, np.random.default_rng(0), 999)
    assert found.p_worse == pytest.approx(1 / 1000)
    assert found.p_better == 1
    assert 0 < found.low < found.difference < found.high
    swapped = table(0, worse=2.0)
    turned = DrawTable("difference", swapped.draws[:, ::-1], swapped.truth, np.empty(0))
    assert compare(turned, 4, np.random.default_rng(0), 999).p_better == pytest.approx(1 / 1000)


def test_samplers_that_paint_the_same_are_neither_worse_nor_better() -> None:
    values, truth = np.ones((5, 8)), np.zeros(5)
    same = DrawTable("difference", values, truth, np.empty(0))
    found = compare(same, 4, np.random.default_rng(0), 99)
    assert (found.difference, found.p_worse, found.p_better) == (0, 1, 1)


def test_the_null_band_holds_the_same_sampler_and_no_other() -> None:
    same = table(1)
    band = null_band(same, 8, np.random.default_rng(0), 2000)
    assert band.low < float(figure(same, all_draws(10, 0, 8))) < band.high
    assert band.low < float(figure(same, all_draws(10, 8, 12))) < band.high
    assert float(figure(table(1, worse=2.0), all_draws(10, 8, 12))) > band.high
    # Two means of 4 draws in 10 frames, standard deviation 1: 1.96 sqrt(2 / 40).
    assert band.difference == pytest.approx(0.44, rel=0.35)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_ratio_is_worse_on_either_side_of_one(factor: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 2, 8)
    values = truth[:, None] * rng.normal(1, 0.05, (8, 8))
    values[:, 4:] *= factor
    measured = DrawTable("ratio", values, truth, np.empty(0))
    found = compare(measured, 4, rng, 199)
    assert found.p_worse == pytest.approx(1 / 200)
    assert found.difference == pytest.approx(math.log(2), abs=0.1)


def test_figures_of_chosen_draws_are_the_scores_of_those_draws() -> None:
    rng = np.random.default_rng(0)
    frames = [(rng.normal(size=(5, 6)), rng.normal(size=6)) for _ in range(3)]
    all_of = [distances(list(drawn), truth, rms) for drawn, truth in frames]
    to_truth, between = (
        np.stack([d.to_truth for d in all_of]),
        np.stack([d.between for d in all_of]),
    )
    choice = np.array([[0, 3, 4], [2, 1, 0], [4, 2, 3]])
    chosen = [
        distances(list(drawn[picked]), truth, rms)
        for (drawn, truth), picked in zip(frames, choice, strict=True)
    ]
    score = figure(DrawTable("score", to_truth, np.empty(0), between), choice)
    spread = figure(DrawTable("spread", to_truth, np.empty(0), between), choice)
    assert float(score) == pytest.approx(np.mean([d.score for d in chosen]))
    mean_distance = np.mean([d.to_truth.mean() for d in chosen])
    assert float(spread) == pytest.approx(np.mean([d.spread for d in chosen]) / mean_distance)


def test_the_standard_error_of_a_mean_is_the_known_one() -> None:
    measured = table(0, draws=4)
    means = (measured.draws - measured.truth[:, None]).mean(axis=1)
    expected = means.std(ddof=1) / math.sqrt(len(means))
    assert standard_error(measured, all_draws(10, 0, 4)) == pytest.approx(expected)


def test_holm_adjusts_for_the_number_of_questions() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_a_comparison_with_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="two samplers"):
        compare(table(0), 12, np.random.default_rng(0), 9)
    with pytest.raises(UsageError, match="two draws"):
        figure(
            DrawTable("score", np.ones((2, 3)), np.empty(0), np.ones((2, 3, 3))),
            np.array([[0], [1]]),
        )
