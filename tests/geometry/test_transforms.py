import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echogen.config import TransformConfig
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import (
    IDENTITY,
    Grid,
    TransformParams,
    assess,
    draw,
    inverse,
    matrix,
    model_grid,
    sample_spacing,
    sector_on_grid,
)

SECTOR = Sector(5.0, 60.0, math.radians(-40), math.radians(38), 4.0, 110.0)
HEIGHT_MM = 120.0

params = st.builds(
    TransformParams,
    depth=st.floats(1, 1.6),
    tilt_deg=st.floats(-30, 30),
    width=st.floats(0.5, 1.5),
    shift_x=st.floats(-0.2, 0.2),
    shift_y=st.floats(-0.2, 0.2),
)
points = st.lists(st.tuples(st.floats(0, 120), st.floats(0, 120)), min_size=2, max_size=6).map(
    np.array
)


def apply(move: np.ndarray, at: np.ndarray) -> np.ndarray:
    return at @ move[:2, :2].T + move[:2, 2]


def test_identity_moves_nothing() -> None:
    np.testing.assert_allclose(matrix(IDENTITY, SECTOR, HEIGHT_MM), np.eye(3), atol=1e-12)


@given(params, points)
def test_composition_equals_the_sequence_of_single_moves(
    p: TransformParams, at: np.ndarray
) -> None:
    singles = [
        TransformParams(depth=p.depth),
        TransformParams(tilt_deg=p.tilt_deg),
        TransformParams(width=p.width),
        TransformParams(shift_x=p.shift_x, shift_y=p.shift_y),
    ]
    stepwise = at
    for single in singles:
        stepwise = apply(matrix(single, SECTOR, HEIGHT_MM), stepwise)
    np.testing.assert_allclose(apply(matrix(p, SECTOR, HEIGHT_MM), at), stepwise, atol=1e-9)


@given(params, points)
def test_inverse_restores(p: TransformParams, at: np.ndarray) -> None:
    move = matrix(p, SECTOR, HEIGHT_MM)
    np.testing.assert_allclose(apply(inverse(move), apply(move, at)), at, atol=1e-8)


@given(st.floats(-30, 30), st.floats(-0.2, 0.2), points)
def test_tilt_and_shift_keep_distances_in_mm(tilt: float, shift: float, at: np.ndarray) -> None:
    p = TransformParams(tilt_deg=tilt, shift_x=shift, shift_y=-shift)
    moved = apply(matrix(p, SECTOR, HEIGHT_MM), at)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(moved, axis=0), axis=1),
        np.linalg.norm(np.diff(at, axis=0), axis=1),
        atol=1e-9,
    )


def test_depth_and_tilt_leave_the_apex_where_it_is() -> None:
    apex = np.array([[SECTOR.apex_row, SECTOR.apex_col]])
    move = matrix(TransformParams(depth=1.4, tilt_deg=17, width=0.7), SECTOR, HEIGHT_MM)
    np.testing.assert_allclose(apply(move, apex), apex, atol=1e-12)


def test_positive_tilt_turns_towards_larger_columns() -> None:
    below = np.array([[SECTOR.apex_row + 50, SECTOR.apex_col]])
    moved = apply(matrix(TransformParams(tilt_deg=10), SECTOR, HEIGHT_MM), below)
    assert moved[0, 1] > below[0, 1]


def test_shift_is_a_fraction_of_the_height() -> None:
    at = np.array([[10.0, 10.0]])
    moved = apply(matrix(TransformParams(shift_x=0.1, shift_y=0.2), SECTOR, HEIGHT_MM), at)
    np.testing.assert_allclose(moved - at, [[0.2 * HEIGHT_MM, 0.1 * HEIGHT_MM]])


@given(params)
def test_area_measured_with_the_samples_own_spacing_is_the_sources(p: TransformParams) -> None:
    # A unit square of heart covers det(move) of display; its pixels count depth^2 / width each.
    grid = Grid((256, 256), (0.5, 0.4))
    row, col = sample_spacing(p, grid)
    shrink = abs(np.linalg.det(matrix(p, SECTOR, HEIGHT_MM)[:2, :2]))
    assert shrink * (row * col) / (0.5 * 0.4) == pytest.approx(1.0)


def test_draws_lie_in_their_ranges_and_happen_with_their_probability() -> None:
    config = TransformConfig()
    rng = np.random.Generator(np.random.PCG64(7))
    drawn = [draw(rng, config) for _ in range(4000)]
    for name in ("depth", "tilt_deg", "width"):
        values = np.array([getattr(p, name) for p in drawn])
        low, high = getattr(config, name)
        rest = getattr(IDENTITY, name)
        moved = values[values != rest]
        assert moved.min() >= np.float32(low)
        assert moved.max() <= np.float32(high)
        assert moved.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
        assert (values != rest).mean() == pytest.approx(0.5, abs=0.04)
    radius = np.array([math.hypot(p.shift_x, p.shift_y) for p in drawn])
    assert radius.max() <= 50 / 256 + 1e-6
    assert (radius > 0).mean() == pytest.approx(0.5, abs=0.04)


def test_one_range_does_not_disturb_the_other_parameters() -> None:
    def drawn(config: TransformConfig) -> TransformParams:
        return draw(np.random.Generator(np.random.PCG64(3)), config)

    always = TransformConfig(probability=1)
    narrow = TransformConfig(probability=1, depth=(1.0, 1.0))
    assert drawn(always).tilt_deg == drawn(narrow).tilt_deg
    assert drawn(always).shift_x == drawn(narrow).shift_x


def test_drawn_values_are_exact_in_float32() -> None:
    p = draw(np.random.Generator(np.random.PCG64(1)), TransformConfig(probability=1))
    for value in vars(p).values():
        assert float(np.float32(value)) == value


def test_a_draw_that_moves_nothing_leaves_nothing_to_paint() -> None:
    grid = Grid((240, 240), (0.5, 0.5))
    heart = np.array([[60.0, 60.0]])
    config = TransformConfig()
    still = assess(IDENTITY, SECTOR, grid, heart, config)
    assert still.hole == 0
    assert still.label_inside == 1
    assert not still.accepted(config)
    assert assess(TransformParams(depth=1.3), SECTOR, grid, heart, config).accepted(config)


def test_a_draw_that_loses_the_heart_is_not_valid() -> None:
    grid = Grid((240, 240), (0.5, 0.5))
    heart = np.array([[60.0, 100.0], [64.0, 104.0]])
    lost = assess(TransformParams(tilt_deg=30), SECTOR, grid, heart, TransformConfig())
    assert lost.label_inside == 0
    assert lost.hole > 0.1
    assert not lost.accepted(TransformConfig())


def test_a_hole_can_be_too_large() -> None:
    grid = Grid((240, 240), (0.5, 0.5))
    heart = np.array([[60.0, 60.0]])
    halved = assess(TransformParams(depth=1.5), SECTOR, grid, heart, TransformConfig())
    assert 0.4 < halved.hole < 0.7
    assert halved.accepted(TransformConfig())
    assert not halved.accepted(TransformConfig(max_hole=0.4))


def test_stretch_fills_the_square_and_letterbox_keeps_the_aspect() -> None:
    stretch = model_grid((400, 300), (0.3, 0.3), 256, "stretch")
    assert stretch.spacing_mm == pytest.approx((400 * 0.3 / 256, 300 * 0.3 / 256))
    letterbox = model_grid((400, 300), (0.3, 0.3), 256, "letterbox")
    assert letterbox.spacing_mm[0] == letterbox.spacing_mm[1]
    assert letterbox.origin_mm == pytest.approx((0, -15.0))


@given(st.sampled_from(["stretch", "letterbox"]), st.floats(0.15, 0.6), st.floats(0.15, 0.6))
def test_recorded_sector_draws_the_same_fan(resize: str, row: float, col: float) -> None:
    sector = Sector(5 * row, 50 * col, -0.6, 0.7, 8 * row, 90 * row)
    grid = model_grid((100, 100), (row, col), 64, resize)  # type: ignore[arg-type]
    fan, aspect = sector_on_grid(sector, grid)
    rows = np.arange(64)[:, None] - fan[0]
    cols = (np.arange(64)[None, :] - fan[1]) * aspect
    radius, angle = np.hypot(rows, cols), np.arctan2(cols, rows)
    drawn = (angle >= fan[2]) & (angle <= fan[3]) & (radius >= fan[4]) & (radius <= fan[5])
    assert (drawn != sector.mask(grid.shape, grid.spacing_mm, grid.origin_mm)).mean() < 0.002
