"""Regions of ultrasound pictures: what is tissue, what is a spacing, and what is not believed."""

import numpy as np
import pytest
from scipy import ndimage

from echogen.datasets.dicom_regions import (
    Region,
    Tissue,
    blacken,
    disbelieved,
    tissue_of,
)

SHAPE = (240, 320)


def a_region(
    first: tuple[int, int] = (20, 40),
    last: tuple[int, int] = (219, 279),
    *,
    spatial: int = 1,
    kind: int = 1,
    low: bool = False,
    units: int = 3,
    delta: tuple[float, float] | None = (0.08, 0.06),
) -> Region:
    return Region(spatial, kind, low, first, last, (units, units), delta)


ECG = a_region((200, 0), (239, 319), spatial=4, kind=10, units=4)


def a_screen(scale: float = 1.0) -> np.ndarray:
    """A speckled fan in rows 20 to 219 and columns 40 to 279, text and a panel around it."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = np.arctan2(cols - 160, rows - 20)
    radius = np.hypot(cols - 160, rows - 20)
    rng = np.random.default_rng(3)
    speckle = ndimage.gaussian_filter(rng.gamma(2, 40, SHAPE), 0.8)
    picture = np.where((abs(angle) < 0.6) & (radius < 199), speckle, 0)
    picture[2:12, 4:120] = rng.integers(0, 2, (10, 116)) * 230  # text
    picture[225:, :] = 60  # a panel of one grey
    picture[20:220:20, 283:287] = 200  # ticks
    return np.clip(ndimage.zoom(picture, scale, order=1), 0, 255).astype(np.uint8)


def test_centimetres_become_millimetres_and_outside_becomes_black() -> None:
    tissue = tissue_of([a_region(), ECG], SHAPE)
    assert tissue.spacing_mm == (0.8, 0.6)
    assert tissue.window == (20, 40, 220, 280)
    assert tissue.doubt == tissue.problem == ""
    picture = a_screen()
    black = blacken(picture, tissue)
    assert (black[20:220, 40:280] == picture[20:220, 40:280]).all()
    assert black.sum() == picture[20:220, 40:280].sum(dtype=np.int64)


def test_without_regions_nothing_is_known_and_nothing_is_blackened() -> None:
    assert tissue_of([], SHAPE) == Tissue()
    picture = a_screen()
    assert blacken(picture, Tissue()) is picture


def test_an_ecg_lies_over_the_tissue_only_with_the_higher_priority() -> None:
    picture = np.full(SHAPE, 9, np.uint8)
    below = tissue_of([a_region(low=True), ECG], SHAPE)
    above = tissue_of([a_region(low=False), ECG], SHAPE)
    assert blacken(picture, below)[200:, :].max() == 0
    assert blacken(picture, above)[200:220, 40:280].min() == 9


@pytest.mark.parametrize(
    "others",
    [
        [a_region(spatial=3, kind=3)],  # a spectrum of pulsed waves
        [a_region(spatial=2, kind=1)],  # an M-mode of tissue
        [ECG],
    ],
)
def test_pictures_of_other_things_are_no_tissue(others: list[Region]) -> None:
    assert "no 2D tissue" in tissue_of(others, SHAPE).problem


def test_tissue_is_found_beside_an_m_mode_and_before_colour_flow() -> None:
    flow = a_region(kind=2, first=(60, 80), last=(120, 160))
    m_mode = a_region((120, 0), (239, 319), spatial=2)
    tissue = tissue_of([flow, m_mode, a_region((0, 100), (110, 219))], SHAPE)
    assert (tissue.window, tissue.problem) == ((0, 100, 111, 220), "")
    assert tissue_of([flow], SHAPE).window == (60, 80, 121, 161)


def test_two_views_side_by_side_are_refused_and_a_small_inset_is_not() -> None:
    left, right = a_region((0, 0), (239, 150)), a_region((0, 160), (239, 319))
    assert "side by side" in tissue_of([left, right], SHAPE).problem
    inset = a_region((0, 250), (40, 319))
    assert tissue_of([inset, left], SHAPE).window == (0, 0, 240, 151)
    assert tissue_of([left, left], SHAPE).spacing_mm == (0.8, 0.6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"units": 0}, "not in centimetres"),
        ({"delta": None}, "no physical delta"),
        ({"delta": (0.0, 0.0)}, "no physical delta"),
        ({"delta": (0.8, 0.6)}, "1,600 mm high"),  # millimetres, called centimetres
        ({"delta": (0.0008, 0.0006)}, "1.6 mm high"),
    ],
)
def test_a_delta_that_cannot_be_is_refused_with_its_reason(
    changes: dict[str, object], expected: str
) -> None:
    tissue = tissue_of([a_region(**changes)], SHAPE)  # type: ignore[arg-type]
    assert tissue.spacing_mm is None
    assert expected in tissue.doubt
    assert tissue.window == (20, 40, 220, 280)


def test_regions_at_one_place_with_two_deltas_give_no_spacing() -> None:
    tissue = tissue_of([a_region(), a_region(delta=(0.04, 0.03))], SHAPE)
    assert (tissue.spacing_mm, "disagree" in tissue.doubt) == (None, True)


def test_a_region_beyond_the_picture_was_stated_for_another() -> None:
    tissue = tissue_of([a_region(last=(414, 595))], SHAPE)
    assert (tissue.spacing_mm, tissue.window) == (None, None)
    assert "reaches to row 414 and column 595" in tissue.doubt
    edge = tissue_of([a_region(last=(240, 320))], SHAPE)  # the corner after the last
    assert (edge.window, edge.doubt) == ((20, 40, 240, 320), "")


def test_a_true_region_is_believed_beside_text_ticks_and_a_panel() -> None:
    picture = a_screen()
    assert disbelieved(picture, tissue_of([a_region()], SHAPE)) == ""
    whole = tissue_of([a_region((0, 0), (239, 319))], SHAPE)
    assert disbelieved(picture, whole) == ""
    dark = np.where(picture > 90, picture, 0).astype(np.uint8)  # dropout
    assert disbelieved(dark, tissue_of([a_region()], SHAPE)) == ""
    assert disbelieved(np.zeros(SHAPE, np.uint8), tissue_of([a_region()], SHAPE)) == ""


def test_a_region_beside_what_is_scanned_is_not_believed() -> None:
    corner = np.zeros(SHAPE, np.uint8)
    corner[20:100, 20:100] = np.random.default_rng(1).integers(0, 255, (80, 80))
    beside = tissue_of([a_region((120, 120), (219, 279))], SHAPE)
    assert "holds 0% of what is scanned" in disbelieved(corner, beside)


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.75, 1.25, 1.5, 2.0])
def test_a_region_of_a_picture_of_another_size_is_told_from_the_fan(scale: float) -> None:
    picture = a_screen(scale)
    shape = (picture.shape[0], picture.shape[1])
    stated = tissue_of([a_region()], shape)
    doubt = stated.doubt or disbelieved(picture, stated)
    assert "region and spacing are not used" in doubt
    assert disbelieved(a_screen(), tissue_of([a_region()], SHAPE)) == ""
