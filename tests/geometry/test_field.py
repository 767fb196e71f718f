"""The field of a frame: its fan's box, black around the fan, whatever the picture has beside it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echogen.config import TransformConfig
from echogen.errors import DatasetError
from echogen.geometry.field import AT_BORDER_PX, MOST_BEYOND, Field, field_grid, field_of, seen_on
from echogen.geometry.render import frame_grid, render, render_original
from echogen.geometry.sector import Sector, fan_mask
from echogen.geometry.transforms import TransformParams, assess, model_grid, sector_on_grid
from echogen.types import Sample
from tests.support.hearts import SPACING
from tests.support.screenshots import BRIGHTEST, WHITE, screenshot, tight_scan

TIGHT, TIGHT_FAN = tight_scan()
MOVES = st.builds(
    TransformParams,
    depth=st.floats(1, 1.5),
    tilt_deg=st.floats(-25, 25),
    width=st.floats(0.6, 1.4),
    shift_x=st.floats(-0.1, 0.1),
    shift_y=st.floats(-0.1, 0.1),
)


def sample_of(field: Field, move: TransformParams, config: TransformConfig) -> Sample:
    grid = frame_grid(field.frame)
    target = model_grid(grid.shape, SPACING, 64)
    return render(field.frame, field.sector, move, target, config)


def test_the_bounds_of_a_fan_hold_it_and_touch_it() -> None:
    for fan in (
        TIGHT_FAN,
        Sector(0.0, 0.0, 0.1, 0.7, 20.0, 90.0),
        Sector(0.0, 0.0, -2.0, 1.9, 10.0, 50.0),
        Sector(0.0, 0.0, -1.2, -0.3, 0.0, 70.0),
    ):
        angle = np.linspace(fan.angle_left, fan.angle_right, 2001)
        down = np.concatenate([r * np.cos(angle) for r in (fan.radius_near, fan.radius_far)])
        across = np.concatenate([r * np.sin(angle) for r in (fan.radius_near, fan.radius_far)])
        (top, bottom), (left, right) = fan.bounds
        seen = [down.min(), down.max(), across.min(), across.max()]
        apex = [fan.apex_row, fan.apex_row, fan.apex_col, fan.apex_col]
        np.testing.assert_allclose(
            [top, bottom, left, right], np.add(apex, seen), atol=1e-4 * fan.radius_far
        )


def test_where_picture_and_fan_coincide_nothing_changes() -> None:
    field = field_of(TIGHT, TIGHT_FAN)
    assert field.crop == (0, 0, *TIGHT.image.shape)
    assert field.sector == TIGHT_FAN
    np.testing.assert_array_equal(field.frame.image, TIGHT.image)
    np.testing.assert_array_equal(field.frame.label, TIGHT.label)


@pytest.mark.parametrize("margin", [1, 2, 9])
def test_a_side_as_near_as_a_fit_can_tell_is_the_pictures_own(margin: int) -> None:
    frame, fan = screenshot((margin, 0, 0, 0))
    # The fan ends some way into its outermost pixel, so 1 pixel is less than 2 and 2 are more.
    assert field_of(frame, fan).crop[0] == (0 if margin < AT_BORDER_PX else margin)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(2, 60)] * 4), MOVES)
def test_a_screenshot_and_a_tight_crop_give_the_same_sample(
    margins: tuple[int, int, int, int], move: TransformParams
) -> None:
    frame, fan = screenshot(margins)
    there, here = field_of(frame, fan), field_of(TIGHT, TIGHT_FAN)
    (top, _, left, _), (rows, cols) = margins, TIGHT.image.shape
    assert there.crop == (top, left, top + rows, left + cols)
    np.testing.assert_array_equal(there.frame.image, here.frame.image)
    np.testing.assert_array_equal(there.frame.label, here.frame.label)
    for config in (TransformConfig(), TransformConfig(outside="inpaint", border=0.0)):
        a, b = sample_of(there, move, config), sample_of(here, move, config)
        np.testing.assert_allclose(a.image.astype(int), b.image, atol=1)
        assert (a.keep != b.keep).mean() < 0.001
        assert (a.label != b.label).mean() < 0.001
    points = np.argwhere(TIGHT.label > 0) * np.array(SPACING)
    judged = [
        assess(move, field.sector, frame_grid(field.frame), points, TransformConfig())
        for field in (there, here)
    ]
    assert judged[0].label_inside == pytest.approx(judged[1].label_inside, abs=1e-3)
    assert judged[0].hole == pytest.approx(judged[1].hole, abs=1e-3)


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (17, 4, 33, 8), (60, 90, 120, 40)])
@pytest.mark.parametrize("outside", ["background", "inpaint"])
def test_no_letter_beside_the_fan_is_left_in_a_sample(
    margins: tuple[int, int, int, int], outside: str
) -> None:
    frame, fan = screenshot(margins)
    assert (frame.image == WHITE).sum() > 500
    field = field_of(frame, fan)
    assert field.frame.image.max() < BRIGHTEST
    target = model_grid(field.frame.image.shape, SPACING, 512)
    assert render_original(field.frame, target).image.max() < BRIGHTEST
    for move in (TransformParams(depth=1.4), TransformParams(tilt_deg=20, width=0.7)):
        for border in (0.0, 5 / 256):
            config = TransformConfig(outside=outside, border=border)
            assert render(field.frame, field.sector, move, target, config).image.max() < BRIGHTEST


def test_a_fan_that_the_picture_cuts_gives_the_picture() -> None:
    part = replace(TIGHT, image=TIGHT.image[:100, 30:], label=TIGHT.label[:100, 30:])
    fan = replace(TIGHT_FAN, apex_col=TIGHT_FAN.apex_col - 30 * SPACING[1])
    assert field_of(part, fan).crop == (0, 0, *part.image.shape)


def test_labels_beyond_the_field_are_lost_and_those_in_it_are_whole() -> None:
    frame, fan = screenshot((20, 30, 20, 20))
    frame.label[-5:] = 1
    frame.label[19 + TIGHT.label.shape[0], 60] = 3  # the last row of the field
    field = field_of(frame, fan)
    assert (field.frame.label == 1).sum() == (TIGHT.label == 1).sum()
    assert field.frame.label[-1, 40] == 3


def test_a_fan_beside_the_picture_is_refused() -> None:
    far = replace(TIGHT_FAN, apex_row=400.0)
    with pytest.raises(DatasetError, match=r"it runs from 40\d to 5\d\d of 13\d pixels"):
        field_of(TIGHT, far)


CUT_FAN = Sector(-6.0, 60.0, -0.8, 0.8, 0.0, 118.0)  # both corners and the arc beyond the picture


def cut_field() -> Field:
    shape = (200, 240)
    inside = CUT_FAN.mask(shape, SPACING)
    image = np.where(inside, 90, 0).astype(np.uint8)
    frame = replace(TIGHT, image=image, label=(image > 0).astype(np.uint8), spacing_mm=SPACING)
    return field_of(frame, CUT_FAN)


def test_the_grid_of_a_whole_fan_is_its_fields() -> None:
    field = field_of(TIGHT, TIGHT_FAN)
    source = frame_grid(field.frame)
    for resize in ("stretch", "letterbox"):
        grid = field_grid(field.sector, source, 64, resize)  # type: ignore[arg-type]
        whole = model_grid(source.shape, source.spacing_mm, 64, resize)  # type: ignore[arg-type]
        np.testing.assert_allclose(grid.spacing_mm, whole.spacing_mm)
        np.testing.assert_allclose(grid.origin_mm, whole.origin_mm, atol=1e-9)


def test_the_grid_reaches_over_a_fan_that_the_picture_cuts_but_not_far() -> None:
    field = cut_field()
    source = frame_grid(field.frame)
    grid = field_grid(field.sector, source, 64)
    (top, bottom), (left, right) = field.sector.bounds
    height, width = source.size_mm
    for first, last, of, origin, size in (
        (top, bottom, height, grid.origin_mm[0], grid.size_mm[0]),
        (left, right, width, grid.origin_mm[1], grid.size_mm[1]),
    ):
        assert origin == pytest.approx(max(min(first, 0.0), -MOST_BEYOND * of), abs=0.7)
        assert origin + size == pytest.approx(min(max(last, of), (1 + MOST_BEYOND) * of), abs=0.7)


def test_a_fan_beyond_the_picture_is_black_and_kept_and_told() -> None:
    field = cut_field()
    source = frame_grid(field.frame)
    grid = field_grid(field.sector, source, 64)
    sample = render(field.frame, field.sector, TransformParams(depth=1.3), grid, TransformConfig())
    assert sample.beyond is not None
    assert sample.real is not None
    assert sample.beyond.sum() > 50
    assert sample.keep[sample.beyond].all()
    assert not sample.image[sample.beyond].any()
    assert not (sample.real & sample.beyond).any()
    fan = fan_mask(*sector_on_grid(field.sector, grid), grid.shape, seen_on(grid, source))
    np.testing.assert_array_equal(fan & sample.keep, sample.real)
    whole = fan_mask(*sector_on_grid(field.sector, grid), grid.shape)
    np.testing.assert_array_equal(whole & ~fan, sample.beyond)
    painted_whole = render(
        field.frame, field.sector, TransformParams(depth=1.3), grid,
        TransformConfig(outside="inpaint"),
    )  # fmt: skip
    assert painted_whole.beyond is not None
    assert not painted_whole.beyond.any()
