"""Which part of a picture shows tissue, and how many millimetres a pixel has there.

DICOM states both in the Sequence of Ultrasound Regions (PS3.3, C.8.5.5), and files state it
wrongly: deltas are centimetres; regions of an ECG, a Doppler spectrum or an M-mode lie beside the
tissue's; and a picture that was scaled after the scan often keeps the regions of the larger one. So
what is stated is held against the picture, and its spacing is not believed where they disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.types import UInt8HW

PLANE = 1  # RegionSpatialFormat: 2D
TISSUE, COLOUR_FLOW = 1, 2  # RegionDataType
CENTIMETRES = 3  # PhysicalUnits
SLACK = 2
"""Pixels that a region may reach beyond the picture: some state the corner after the last."""
DEPTH_MM = (10.0, 600.0)
"""Height of a region; outside of it, its delta is not in centimetres."""
SAME_DELTA = 0.02
SAME_PLACE = 0.8
LARGEST = 4.0
DARK = 12
"""Grey levels that are hardly background."""
ROUGH = 2.0
"""Standard deviation of speckle, grey levels: more than that of a panel or a smooth background."""
CUT_SHARE, CUT_PIXELS = 0.08, 12
LEAST_INSIDE = 0.3

Window = tuple[int, int, int, int]
"""First row and column, and the row and column after the last."""


@dataclass(frozen=True)
class Region:
    """A region of a picture, as its file states it.

    Attributes:
        spatial: 1 is a plane (2D), 2 M-mode, 3 spectral, 4 a waveform, 5 graphics.
        kind: 1 is tissue, 2 colour flow; others are spectra, traces and signals, such as an ECG.
        low_priority: whether others lie over it.
        first, last: (row, column) of its corners, both in it.
        units: of `delta`; 3 is centimetres.
        delta: (row, col) a pixel; None where it is not stated.
    """

    spatial: int
    kind: int
    low_priority: bool
    first: tuple[int, int]
    last: tuple[int, int]
    units: tuple[int, int]
    delta: tuple[float, float] | None


@dataclass(frozen=True)
class Tissue:
    """Where a picture shows tissue.

    Attributes:
        window: its rectangle; None where the file does not say, and the whole picture is taken.
        others: rectangles of regions that show something else.
        covered: those of `others` that lie over the tissue.
        spacing_mm: (row, col), or None where it is unknown or not believed.
        doubt: why it is not, one line; empty where there was nothing to believe.
        problem: why the picture cannot be used, one line; empty where it can.
    """

    window: Window | None = None
    others: tuple[Window, ...] = ()
    covered: tuple[Window, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    doubt: str = ""
    problem: str = ""


def tissue_of(regions: Sequence[Region], shape: tuple[int, int]) -> Tissue:
    """Where the tissue is by what the file states alone.

    Args:
        regions: as stated; may be empty.
        shape: rows and columns of the picture.
    """
    if not regions:
        return Tissue()
    planes = [one for one in regions if one.spatial == PLANE]
    tissue = [one for one in planes if one.kind == TISSUE]
    tissue = tissue or [one for one in planes if one.kind == COLOUR_FLOW]
    if not tissue:
        return Tissue(problem="shows no 2D tissue: its regions are of spectra, traces or signals.")
    beyond = [one for one in tissue if _beyond(one, shape)]
    if beyond:
        row, col = beyond[0].last
        return Tissue(
            doubt=f"its tissue region reaches to row {row} and column {col}, but the picture has "
            f"{shape[0]} x {shape[1]} pixels: the picture was scaled or cut after the scan, so "
            "region and spacing are not used."
        )
    tissue.sort(key=_area, reverse=True)
    main = tissue[0]
    for one in tissue[1:]:
        if _shared(main, one) < SAME_PLACE and _area(one) * LARGEST > _area(main):
            return Tissue(
                problem=f"shows {len(tissue)} tissue regions side by side (dual display); export "
                "one view at a time."
            )
    others = [one for one in regions if one not in planes]
    delta = main.delta or (0.0, 0.0)
    doubt = _doubt(main, [one for one in tissue if _shared(main, one) >= SAME_PLACE])
    return Tissue(
        window=_window(main, shape),
        others=tuple(_window(one, shape) for one in others if not _beyond(one, shape)),
        covered=tuple(
            _window(one, shape)
            for one in others
            if main.low_priority and not one.low_priority and not _beyond(one, shape)
        ),
        spacing_mm=None if doubt else (round(10 * delta[0], 9), round(10 * delta[1], 9)),
        doubt=doubt,
    )


def disbelieved(picture: UInt8HW, tissue: Tissue) -> str:
    """Why the picture contradicts the tissue's rectangle, one line; empty where it does not.

    A rectangle that was stated for this picture holds the whole fan. One that was stated for a
    larger or smaller picture cuts through the speckle, or holds little of what there is.

    Args:
        picture: (H, W) grey levels, nothing blackened yet; of a clip, the brightest of some frames.
        tissue: of `tissue_of`.
    """
    if tissue.window is None:
        return ""
    row0, col0, row1, col1 = tissue.window
    rough = _rough(picture)
    for row_a, col_a, row_b, col_b in tissue.others:
        rough[row_a:row_b, col_a:col_b] = False
    whole, inside = int(rough.sum()), int(rough[row0:row1, col0:col1].sum())
    said = f"rows {row0} to {row1 - 1} and columns {col0} to {col1 - 1}"
    so = "it was stated for a picture of another size, so region and spacing are not used."
    if whole and inside < LEAST_INSIDE * whole:
        return f"its tissue region ({said}) holds {inside / whole:.0%} of what is scanned: {so}"
    for side in _sides(rough, tissue.window):
        if side.sum() > max(CUT_PIXELS, CUT_SHARE * side.size):
            return f"its tissue region ({said}) cuts through what is scanned: {so}"
    return ""


def blacken(picture: UInt8HW, tissue: Tissue) -> UInt8HW:
    """The picture with 0 wherever it shows no tissue; a new array where anything changes."""
    if tissue.window is None:
        return picture
    row0, col0, row1, col1 = tissue.window
    black = np.zeros_like(picture)
    black[row0:row1, col0:col1] = picture[row0:row1, col0:col1]
    for row_a, col_a, row_b, col_b in tissue.covered:
        black[row_a:row_b, col_a:col_b] = 0
    return black


def _doubt(main: Region, alike: Sequence[Region]) -> str:
    """Why the main region's delta is not believed, one line; others at its place have theirs."""
    if main.delta is None or not all(main.delta):
        return "its tissue region states no physical delta: the spacing is unknown."
    if main.units != (CENTIMETRES, CENTIMETRES):
        return "its tissue region is not in centimetres: the spacing is unknown."
    height = 10 * main.delta[0] * (main.last[0] - main.first[0] + 1)
    low, high = DEPTH_MM
    if not low <= height <= high:
        return (
            f"by its physical delta the tissue region is {height:,.4g} mm high; expected {low:g} "
            f"to {high:g} mm, so the spacing is not used."
        )
    for one in alike:
        if one.delta is not None and not np.allclose(one.delta, main.delta, rtol=SAME_DELTA):
            return "its tissue regions disagree on the spacing, so it is not used."
    return ""


def _beyond(one: Region, shape: tuple[int, int]) -> bool:
    return any(last >= size + SLACK for last, size in zip(one.last, shape, strict=True))


def _window(one: Region, shape: tuple[int, int]) -> Window:
    return (*one.first, min(one.last[0] + 1, shape[0]), min(one.last[1] + 1, shape[1]))


def _area(one: Region) -> int:
    return math.prod(last - first + 1 for first, last in zip(one.first, one.last, strict=True))


def _shared(main: Region, one: Region) -> float:
    """The part of the smaller region that lies in the larger one."""
    sides = [
        min(main.last[axis], one.last[axis]) - max(main.first[axis], one.first[axis]) + 1
        for axis in (0, 1)
    ]
    return max(sides[0], 0) * max(sides[1], 0) / min(_area(main), _area(one))


def _rough(picture: UInt8HW) -> npt.NDArray[np.bool_]:
    """Where grey levels vary as speckle does, over 5 x 5 pixels."""
    levels = picture.astype(np.float32)
    from scipy import ndimage

    mean = ndimage.uniform_filter(levels, 5)
    spread = ndimage.uniform_filter(levels * levels, 5) - mean * mean
    rough: npt.NDArray[np.bool_] = (mean > DARK) & (spread > ROUGH * ROUGH)
    return rough


def _sides(rough: npt.NDArray[np.bool_], window: Window) -> list[npt.NDArray[np.bool_]]:
    """Along each side of the window within the picture: where speckle goes on across it.

    Lines three pixels to either side of it are compared, so that neither sees the other's pixels.
    """
    row0, col0, row1, col1 = window
    height, width = rough.shape
    return [
        lines[outside, first:stop] & lines[inside, first:stop]
        for lines, outside, inside, size, first, stop in (
            (rough, row0 - 4, row0 + 3, height, col0, col1),
            (rough, row1 + 3, row1 - 4, height, col0, col1),
            (rough.T, col0 - 4, col0 + 3, width, row0, row1),
            (rough.T, col1 + 3, col1 - 4, width, row0, row1),
        )
        if 0 <= outside < size and 0 <= inside < size
    ]
