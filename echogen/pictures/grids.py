"""Grids of images as they are, pixel for pixel, and the colours of all pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from echogen.types import IGNORE

Rgb = npt.NDArray[np.uint8]

Colour = tuple[int, int, int]

MISSING: Colour = (70, 40, 110)
COLOURS: Mapping[int, Colour] = {
    1: (255, 112, 82),
    2: (64, 214, 168),
    3: (110, 170, 255),
    IGNORE: (245, 214, 70),
}
"""By class id; told apart without red and green, too, since their brightness differs."""
OTHER: Colour = (235, 235, 235)
GAP = 4
SHEET_GREY = 40


def image_sheet(images: npt.NDArray[np.uint8], columns: int = 8) -> Rgb:
    """Images alone, in rows of `columns`, with a small dark gap between and around them.

    Args:
        images: (N, h, w) grey levels, N at least 1.
        columns: images in a row; a last row that is not full ends in the gap's colour.

    Returns:
        (H, W, 3) uint8.
    """
    count, height, width = images.shape
    columns = min(columns, count)
    lines = -(-count // columns)
    shape = (lines * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    sheet = np.full(shape, SHEET_GREY, np.uint8)
    for number, image in enumerate(images):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return grey(sheet)


def grey(image: npt.NDArray[np.uint8]) -> Rgb:
    """(H, W) grey levels as (H, W, 3)."""
    return np.repeat(image[..., None], 3, axis=2)


def join(tiles: Sequence[Rgb], axis: int) -> Rgb:
    """Tiles of one size in a row (axis 1) or a column (axis 0), with white gaps."""
    spaced: list[Rgb] = []
    for tile in tiles:
        shape = list(tile.shape)
        shape[axis] = GAP
        spaced += [tile, np.full(shape, 255, np.uint8)]
    return np.concatenate(spaced[:-1], axis=axis)
