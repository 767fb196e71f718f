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

from echogen.errors import DatasetError
from echogen.geometry.sector import Sector
from echogen.types import Frame

Crop = tuple[int, int, int, int]
"""(row0, col0, row1, col1) in pixels of the picture; the last row and column are not in it."""

AT_BORDER_PX = 2.0
"""A fan that ends this near the picture's border ends there: no fit tells them apart."""
LEAST_SIDE_PX = 8
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
