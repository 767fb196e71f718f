"""Contact sheets: of copies beside their originals, and of images alone."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import StoreError
from echogen.store import StoreReader
from echogen.types import BACKGROUND, IGNORE

Rgb = npt.NDArray[np.uint8]

MISSING = (70, 40, 110)
COLOURS = {1: (230, 80, 70), 2: (80, 200, 120), 3: (80, 150, 240), IGNORE: (240, 210, 60)}
GAP = 4
SHEET_GREY = 40


def contact_sheet(store: StoreReader, rows: Sequence[int], scale: int = 1) -> Rgb:
    """One line a sample: its original, the moved source, the painted image, the label's outline.

    Args:
        store: with originals.
        rows: of the store.
        scale: pixels a pixel.

    Returns:
        (H, W, 3) uint8.
    """
    columns = store.columns
    originals = {str(columns["frame_id"][i]): int(i) for i in np.flatnonzero(columns["copy"] == 0)}
    lines = []
    for row in rows:
        original = originals[str(columns["frame_id"][row])]
        image, keep = store.images[row], store.keep[row]
        moved = grey(image)
        moved[~keep] = MISSING
        tiles = [
            outlined(grey(store.images[original]), store.masks[original]),
            moved,
            grey(image),
            outlined(grey(image), store.masks[row]),
        ]
        lines.append(join(tiles, axis=1))
    return np.asarray(np.kron(join(lines, axis=0), np.ones((scale, scale, 1), np.uint8)))


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


def outlined(image: Rgb, label: npt.NDArray[np.uint8]) -> Rgb:
    """The outline of each class drawn over an (H, W, 3) image, one pixel wide."""
    drawn = image.copy()
    for class_id in np.unique(label):
        if class_id != BACKGROUND:
            region = label == class_id
            drawn[region & ~ndimage.binary_erosion(region)] = COLOURS.get(
                int(class_id), (255, 255, 255)
            )
    return drawn


def save_png(image: Rgb, path: Path) -> None:
    """Write an (H, W, 3) uint8 image, whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    import SimpleITK

    writing = path.with_name(f".{path.name}.{os.getpid()}.png")
    try:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image, isVector=True), str(writing))
        writing.replace(path)
    except (RuntimeError, OSError) as error:
        writing.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written. Choose a .png file in a folder that you may write to."
        ) from error


def join(tiles: Sequence[Rgb], axis: int) -> Rgb:
    """Tiles of one size in a row (axis 1) or a column (axis 0), with white gaps."""
    spaced: list[Rgb] = []
    for tile in tiles:
        shape = list(tile.shape)
        shape[axis] = GAP
        spaced += [tile, np.full(shape, 255, np.uint8)]
    return np.concatenate(spaced[:-1], axis=axis)
