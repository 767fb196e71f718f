import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echogen.config import TransformConfig
from echogen.geometry.render import (
    cut_pixels,
    frame_grid,
    render,
    render_original,
    warp_image,
    warp_label,
)
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import (
    Grid,
    TransformParams,
    footprint,
    inverse,
    matrix,
    model_grid,
    sample_spacing,
)
from echogen.types import IGNORE, Frame, FrameKey

SECTOR = Sector(2.0, 50.0, math.radians(-38), math.radians(38), 3.0, 112.0)
SPACING = (0.5, 0.4)
SHAPE = (240, 250)


def ellipse(row: float, col: float, height: float, width: float) -> np.ndarray:
    rows = (np.arange(SHAPE[0]) + 0.5)[:, None] * SPACING[0]
    cols = (np.arange(SHAPE[1]) + 0.5)[None, :] * SPACING[1]
    return ((rows - row) / height) ** 2 + ((cols - col) / width) ** 2 <= 1


def make_frame(atrium_row: float = 88.0) -> Frame:
    """A heart in a fan; with `atrium_row` near 110 the atrium is cut by the far arc."""
    label = np.zeros(SHAPE, np.uint8)
    label[ellipse(52, 50, 30, 18)] = 2
    label[ellipse(52, 50, 24, 12)] = 1
    label[ellipse(atrium_row, 50, 14, 12)] = 3
    rng = np.random.default_rng(0)
    grey = np.where(label == 2, 150, np.where(label > 0, 25, 70))
    image = np.clip(grey * rng.gamma(6, 1 / 6, SHAPE), 1, 255)
    image = np.where(SECTOR.mask(SHAPE, SPACING), image, 0).astype(np.uint8)
    key = FrameKey("p_4CH_ED", "p", "4CH", "ED", "", (Path("p.png"),))
    return Frame(key, image, label, SPACING)


FRAME = make_frame()
TARGET = model_grid(SHAPE, SPACING, 128)
params = st.builds(
    TransformParams,
    depth=st.floats(1, 1.5),
    tilt_deg=st.floats(-25, 25),
    width=st.floats(0.6, 1.4),
    shift_x=st.floats(-0.1, 0.1),
    shift_y=st.floats(-0.1, 0.1),
)


def test_identity_on_the_same_grid_returns_the_input() -> None:
    grid = frame_grid(FRAME)
    np.testing.assert_array_equal(warp_image(FRAME.image, grid, np.eye(3), grid), FRAME.image)
    np.testing.assert_array_equal(warp_label(FRAME.label, grid, np.eye(3), grid), FRAME.label)


def test_shrinking_is_anti_aliased() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    fine, coarse = Grid((256, 256), (1, 1)), Grid((64, 64), (4, 4))
    inner = warp_image(noise, fine, np.eye(3), coarse)[4:-4, 4:-4]
    # A Gaussian of variance (16 - 1) / 6 lets 1 / (2 sqrt(pi) sigma) = 0.18 of white noise's
    # standard deviation through in two dimensions, and interpolation takes a little more; without
    # it, half of it would pass.
    assert inner.std() / noise.std() == pytest.approx(0.16, abs=0.02)


def test_a_moved_point_lands_where_the_matrix_says() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[118:123, 128:133] = 255
    p = TransformParams(depth=1.2, tilt_deg=12, width=0.8, shift_x=0.05, shift_y=-0.03)
    move = matrix(p, SECTOR, SHAPE[0] * SPACING[0])
    source = Grid(SHAPE, SPACING)
    moved = warp_image(image, source, move, TARGET).astype(float)
    rows, cols = np.indices(TARGET.shape)
    centre = np.array([(rows * moved).sum(), (cols * moved).sum()]) / moved.sum()
    expected = inverse(TARGET.index_to_mm) @ move @ source.index_to_mm @ np.array([120, 130, 1])
    np.testing.assert_allclose(centre, expected[:2], atol=0.15)


@settings(max_examples=25, deadline=None)
@given(params)
def test_the_label_set_never_grows(p: TransformParams) -> None:
    sample = render(FRAME, SECTOR, p, TARGET, TransformConfig())
    assert set(np.unique(sample.label)) <= {0, 1, 2, 3}
    two = Frame(FRAME.key, FRAME.image, np.where(FRAME.label == 3, 3, 0).astype(np.uint8), SPACING)
    assert set(np.unique(render(two, SECTOR, p, TARGET, TransformConfig()).label)) <= {0, 3}


@settings(max_examples=25, deadline=None)
@given(params)
def test_label_areas_in_mm_survive_with_the_samples_own_spacing(p: TransformParams) -> None:
    big = model_grid(SHAPE, SPACING, 256)
    move = matrix(p, SECTOR, SHAPE[0] * SPACING[0])
    corners = np.argwhere(FRAME.label > 0)[:, :2] * np.array(SPACING)
    moved = corners @ move[:2, :2].T + move[:2, 2]
    field = np.array([SHAPE[0] * SPACING[0], SHAPE[1] * SPACING[1]])
    if (moved < 0).any() or (moved > field).any():
        return
    label = warp_label(FRAME.label, frame_grid(FRAME), move, big)
    row, col = sample_spacing(p, big)
    for class_id in (1, 2, 3):
        area = (label == class_id).sum() * row * col
        truth = (FRAME.label == class_id).sum() * SPACING[0] * SPACING[1]
        assert area == pytest.approx(truth, rel=0.04)


def test_original_keeps_everything() -> None:
    sample = render_original(FRAME, TARGET)
    assert sample.keep.all()
    assert sample.label_on_paint == 0
    np.testing.assert_array_equal(
        sample.image, warp_image(FRAME.image, frame_grid(FRAME), np.eye(3), TARGET)
    )


@settings(max_examples=25, deadline=None)
@given(params)
def test_kept_pixels_are_the_warped_source_and_the_rest_is_empty(p: TransformParams) -> None:
    sample = render(FRAME, SECTOR, p, TARGET, TransformConfig())
    move = matrix(p, SECTOR, SHAPE[0] * SPACING[0])
    warped = warp_image(FRAME.image, frame_grid(FRAME), move, TARGET)
    shown = footprint(SECTOR, frame_grid(FRAME), *TARGET.centres_mm())
    real = sample.keep & shown
    np.testing.assert_array_equal(sample.image[real], warped[real])
    assert (sample.image[~real] == 0).all()


@settings(max_examples=25, deadline=None)
@given(params)
def test_what_is_painted_lies_in_the_sector_only(p: TransformParams) -> None:
    sample = render(FRAME, SECTOR, p, TARGET, TransformConfig())
    shown = footprint(SECTOR, frame_grid(FRAME), *TARGET.centres_mm())
    assert sample.keep[~shown].all()


def test_painting_the_background_is_possible_as_published() -> None:
    sample = render(
        FRAME, SECTOR, TransformParams(depth=1.3), TARGET, TransformConfig(outside="inpaint")
    )
    shown = footprint(SECTOR, frame_grid(FRAME), *TARGET.centres_mm())
    assert not sample.keep[~shown].any()


def test_dark_blood_is_kept() -> None:
    black = np.where(FRAME.label == 1, 0, FRAME.image).astype(np.uint8)
    frame = Frame(FRAME.key, black, FRAME.label, SPACING)
    sample = render(frame, SECTOR, TransformParams(depth=1.1), TARGET, TransformConfig())
    assert sample.keep[sample.label == 1].all()


def test_the_border_of_the_moved_sector_is_not_kept() -> None:
    p = TransformParams(tilt_deg=15)
    wide = render(FRAME, SECTOR, p, TARGET, TransformConfig(border=0.0))
    narrow = render(FRAME, SECTOR, p, TARGET, TransformConfig(border=0.05))
    assert (narrow.keep <= wide.keep).all()
    lost = wide.keep & ~narrow.keep
    # 5% of 120 mm along the two flanks and the arcs.
    assert lost.sum() > 500


def test_cut_labels_are_found() -> None:
    whole = cut_pixels(FRAME.label, SECTOR, frame_grid(FRAME))
    assert not whole
    cut = make_frame(atrium_row=108.0)
    assert set(cut_pixels(cut.label, SECTOR, frame_grid(cut))) == {3}


def test_the_three_policies_on_labels_that_land_on_paint() -> None:
    frame = make_frame(atrium_row=108.0)
    p = TransformParams(depth=1.3)
    samples = {
        policy: render(frame, SECTOR, p, TARGET, TransformConfig(labels_on_paint=policy))
        for policy in ("keep", "clip", "ignore")
    }
    kept = samples["keep"]
    assert kept.label_on_paint > 0
    assert ((kept.label == 3) & ~kept.keep).any()

    clipped = samples["clip"]
    assert clipped.label_on_paint == 0
    assert not ((clipped.label > 0) & ~clipped.keep).any()
    np.testing.assert_array_equal(clipped.label[clipped.keep], kept.label[kept.keep])

    ignored = samples["ignore"]
    is_ignored = ignored.label == IGNORE
    assert is_ignored.any()
    assert not (is_ignored & ignored.keep).any()
    np.testing.assert_array_equal(ignored.label[~is_ignored], kept.label[~is_ignored])
    # Within 15 mm of the heart, that is 15 / 1.3 on the display, of the moved far arc.
    rows = (np.argwhere(is_ignored)[:, 0] + 0.5) * TARGET.spacing_mm[0]
    arc = SECTOR.apex_row + SECTOR.radius_far / 1.3
    assert rows.max() <= arc + 15 / 1.3 + 4


def test_a_frame_whose_labels_are_whole_has_nothing_to_ignore() -> None:
    p = TransformParams(depth=1.3)
    sample = render(FRAME, SECTOR, p, TARGET, TransformConfig(labels_on_paint="ignore"))
    assert not (sample.label == IGNORE).any()


def test_labels_outside_the_target_sector_are_kept_or_clipped() -> None:
    p = TransformParams(shift_y=0.19)
    shown = footprint(SECTOR, frame_grid(FRAME), *TARGET.centres_mm())
    kept = render(FRAME, SECTOR, p, TARGET, TransformConfig(label_outside="keep"))
    clipped = render(FRAME, SECTOR, p, TARGET, TransformConfig(label_outside="clip"))
    assert (kept.label[~shown] > 0).any()
    assert not (clipped.label[~shown] > 0).any()
    np.testing.assert_array_equal(kept.label[shown], clipped.label[shown])
