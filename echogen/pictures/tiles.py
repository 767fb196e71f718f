"""One image as it is shown: at its true aspect, with the missing part hatched, with contours.

A tile is a Pillow image; what it shows comes as arrays on the image's own grid. Contours are drawn
between pixels, at three times the size, so that they are as smooth as the label allows.
"""

from collections.abc import Mapping
from functools import cache

import contourpy
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from echogen.datasets.fans import FoundFan
from echogen.pictures.colours import FANS, MISSING, OTHER, Colour
from echogen.types import BACKGROUND

FINER = 3
FILL = 34  # of 255
HATCH = 11  # pixels from line to line

Bools = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.uint8]


def displayed_size(shape: tuple[int, int], aspect: float, height: int) -> tuple[int, int]:
    """(width, height) of a tile.

    Args:
        shape: (h, w) of the image.
        aspect: displayed width of a pixel over its height; 1 is taken where it is unknown.
        height: of the tile.
    """
    known = aspect if np.isfinite(aspect) and aspect > 0 else 1.0
    return max(1, round(height * shape[1] * known / shape[0])), height


def tile(image: Levels, size: tuple[int, int]) -> Image.Image:
    """(h, w) grey levels at a size."""
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def hatched(shown: Image.Image, missing: Bools) -> Image.Image:
    """A tile with the missing part tinted and hatched.

    Args:
        shown: the tile.
        missing: (h, w) bool on the image's grid.
    """
    where = Image.fromarray(missing.astype(np.uint8) * 255)
    where = where.resize(shown.size, Image.Resampling.BILINEAR)
    return Image.composite(_pattern(shown.size), shown, where)


def contoured(shown: Image.Image, label: Levels, colours: Mapping[int, Colour]) -> Image.Image:
    """A tile with each class lightly filled, and its contour.

    Args:
        shown: the tile.
        label: (h, w) class ids on the image's grid.
        colours: {class id: colour}; other ids are drawn in `OTHER`.
    """
    finer = (shown.width * FINER, shown.height * FINER)
    drawn = Image.new("RGBA", finer)
    pen = ImageDraw.Draw(drawn)
    thick = max(2, round(shown.height / 256 * 1.7 * FINER))
    for class_id in np.unique(label).tolist():
        if class_id == BACKGROUND:
            continue
        colour = colours.get(class_id, OTHER)
        fill = Image.new("RGBA", finer, (*colour, 0))
        inside = Image.fromarray((label == class_id).astype(np.uint8) * FILL)
        fill.putalpha(inside.resize(finer, Image.Resampling.BILINEAR))
        drawn.alpha_composite(fill)
        for line in _contours(label == class_id, finer):
            pen.line(line, (0, 0, 0, 150), thick + 2 * FINER, joint="curve")
            pen.line(line, (*colour, 255), thick, joint="curve")
    over = drawn.resize(shown.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(shown.convert("RGBA"), over).convert("RGB")


def outlined(shown: Image.Image, fan: FoundFan) -> Image.Image:
    """A tile with its fan's outline, or with a frame around it where there is none.

    Args:
        shown: the tile, of the whole picture.
        fan: as it was found.
    """
    size = (shown.width * FINER, shown.height * FINER)
    drawn = Image.new("RGBA", size)
    pen = ImageDraw.Draw(drawn)
    thick, colour = max(2, round(shown.height / 256 * 1.2 * FINER)), FANS[fan.outcome]
    if fan.values is None:
        pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(*colour, 255), width=2 * thick)
    else:
        line = [(float(x), float(y)) for x, y in _outline(fan, size)]
        pen.line(line, (0, 0, 0, 150), thick + 2 * FINER, joint="curve")
        pen.line(line, (*colour, 255), thick, joint="curve")
    over = drawn.resize(shown.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(shown.convert("RGBA"), over).convert("RGB")


def _outline(fan: FoundFan, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(n, 2) x and y of a fan's closed outline, in the pixels of a picture of (width, height)."""
    row, col, left, right, near, far = fan.values or (0.0,) * 6
    angles = np.deg2rad(np.linspace(left, right, 60))
    radii = np.repeat([near, far], len(angles))
    around = np.concatenate([angles, angles[::-1]])
    down, across = radii * np.cos(around), radii * np.sin(around) / fan.aspect
    (rows, cols), (width, height) = fan.size, size
    x, y = (col + across + 0.5) * width / cols, (row + down + 0.5) * height / rows
    corners = np.stack([x, y], axis=1)
    return np.concatenate([corners, corners[:1]])


def _contours(inside: Bools, size: tuple[int, int]) -> list[list[tuple[float, float]]]:
    """Closed lines around a region, in the pixels of a picture of (width, height)."""
    height, width = inside.shape
    smooth = ndimage.gaussian_filter(np.pad(inside, 2).astype(np.float32), 0.8)
    lines = contourpy.contour_generator(z=smooth).lines(0.5)
    scale = np.array([size[0] / width, size[1] / height])
    return [
        [(float(x), float(y)) for x, y in (np.asarray(line) - 1.5) * scale]
        for line in lines
        if len(line) > 2
    ]


@cache
def _pattern(size: tuple[int, int]) -> Image.Image:
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    line = (across + down) % HATCH < 2
    shades = np.array([MISSING, [channel + 46 for channel in MISSING]], np.uint8)
    return Image.fromarray(shades[line.astype(int)])
