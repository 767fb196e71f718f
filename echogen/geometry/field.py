"""A frame's field: the part of the picture that its fan fills, black outside of the fan.

A screenshot has margins, rulers, a patient's name and an ECG around the fan, and another program
crops the same scan tightly. All that is made of a frame is made of its field, so that both give the
same samples and nothing that is written beside the fan ends up in one.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.config import Resize
from echogen.errors import DatasetError
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, model_grid
from echogen.types import Frame

Crop = tuple[int, int, int, int]
"""(row0, col0, row1, col1) in pixels of the picture; the last row and column are not in it."""

AT_BORDER_PX = 2.0
"""A fan that ends this near the picture's border ends there: no fit tells them apart."""
LEAST_SIDE_PX = 8
MOST_BEYOND = 0.25
"""The grid reaches at most this share of the picture's height or width beyond it on each side."""
_EVEN = 1e-6  # pixels: what rounding makes of a side that lies between two pixels


@dataclass(frozen=True)
class Field:
    """A frame cut to its fan.

    Attributes:
        frame: image and label of the crop; the image is 0 outside of the fan, but for the pixels
            that touch it.
        sector: measured from the crop's corner; mm, or pixels without a spacing.
        crop: where it lay in the picture.
    """

    frame: Frame
    sector: Sector
    crop: Crop


def field_of(frame: Frame, sector: Sector) -> Field:
    """A frame's field: its fan's bounding box, grown to whole pixels, as far as the picture goes.

    Args:
        frame: as it was read.
        sector: of it, measured from the picture's corner.

    Raises:
        DatasetError: the fan lies outside of the picture.
    """
    crop = crop_of(frame, sector)
    row_mm, col_mm = frame.unit_spacing
    moved = replace(
        sector,
        apex_row=sector.apex_row - crop[0] * row_mm,
        apex_col=sector.apex_col - crop[1] * col_mm,
    )
    return Field(cut_to_field(frame, crop, moved), moved, crop)


def cut_to_field(frame: Frame, crop: Crop, sector: Sector) -> Frame:
    """The part of a frame that a field was found to be, black outside of the fan.

    Pixels that touch the fan, corners included, are left as they are: a fan's edge runs through
    them.

    Args:
        frame: as it was read.
        crop: of the field.
        sector: measured from the crop's corner.
    """
    part = np.s_[crop[0] : crop[2], crop[1] : crop[3]]
    label: npt.NDArray[np.uint8] = frame.label[part]
    inside = sector.mask((label.shape[0], label.shape[1]), frame.unit_spacing)
    shown = ndimage.maximum_filter(inside.view(np.uint8), 3, mode="constant")
    image: npt.NDArray[np.uint8] = frame.image[part] * shown
    return replace(frame, image=image, label=label)


def crop_of(frame: Frame, sector: Sector) -> Crop:
    """Where the field of a frame lies; see `field_of`."""
    sides = []
    for size, step, (low, high) in zip(
        frame.image.shape, frame.unit_spacing, sector.bounds, strict=True
    ):
        first, last = math.floor(low / step + _EVEN), math.ceil(high / step - _EVEN)
        first = 0 if low / step < AT_BORDER_PX else first
        last = size if size - high / step < AT_BORDER_PX else last
        if last - first < LEAST_SIDE_PX:
            raise DatasetError(
                f"its fan lies outside of the picture: it runs from {low / step:.0f} to "
                f"{high / step:.0f} of {size} pixels"
            )
        sides.append((first, last))
    (row0, row1), (col0, col1) = sides
    return row0, col0, row1, col1


def field_grid(sector: Sector, source: Grid, size: int, resize: Resize = "stretch") -> Grid:
    """The model's `size` x `size` grid over the whole fan, also where the picture cuts it off.

    A network has learned whole fans. Shown a cut one that fills its grid, it paints the corners
    black, because its own fans end there.

    Args:
        sector: of a field.
        source: the field's own pixels.
        size: rows and columns of the grid.
        resize: as in `model_grid`.
    """
    box = []
    for length, step, (low, high) in zip(
        source.size_mm, source.spacing_mm, sector.bounds, strict=True
    ):
        most, least = MOST_BEYOND * length, AT_BORDER_PX * step
        before, after = (min(beyond, most) for beyond in (-low, high - length))
        box.append((before if before > least else 0.0, after if after > least else 0.0))
    (top, bottom), (left, right) = box
    height, width = source.size_mm
    grid = model_grid((1, 1), (height + top + bottom, width + left + right), size, resize)
    row, col = grid.origin_mm
    return replace(grid, origin_mm=(row - top, col - left))


def seen_on(grid: Grid, source: Grid) -> npt.NDArray[np.float32]:
    """(4,) the part of a grid that the source's picture covers, as the store records it.

    Returns:
        first row, first col, last row, last col in the grid's pixels, from the outer corner of its
        first pixel to the outer corner of its last one.
    """
    edges = []
    for far in (0.0, 1.0):
        for origin, step, length, pixels in zip(
            grid.origin_mm, grid.spacing_mm, source.size_mm, grid.shape, strict=True
        ):
            edges.append(min(max((far * length - origin) / step, 0.0), float(pixels)))
    return np.array(edges, dtype=np.float32)
