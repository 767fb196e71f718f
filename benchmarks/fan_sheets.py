"""Contact sheets of found fans, to look at: thirty pictures a page, the least certain first.

They show patients: never commit them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from echogen.geometry.sector import Sector

_SIDE, _ACROSS, _DOWN = 300, 6, 5


@dataclass(frozen=True)
class Shown:
    """A picture with what was found in it.

    Attributes:
        title: two short lines.
        image: (H, W) uint8.
        spacing: (row, col).
        sector: what was found; None where the picture was refused.
        truth: the true fan, where it is known.
        order: pictures are shown by it, the least first.
    """

    title: str
    image: npt.NDArray[np.uint8]
    spacing: tuple[float, float]
    sector: Sector | None
    truth: Sector | None = None
    order: float = 0.0


def write_sheets(folder: Path, name: str, shown: Sequence[Shown]) -> None:
    """Pages `NAME-accepted-01.png` and `NAME-refused-01.png`, as many as are needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*-[0-9][0-9].png"):
        old.unlink()
    for kind, chosen in (
        ("accepted", [one for one in shown if one.sector is not None]),
        ("refused", [one for one in shown if one.sector is None]),
    ):
        ordered = sorted(chosen, key=lambda one: one.order)
        for page, first in enumerate(range(0, len(ordered), _ACROSS * _DOWN), start=1):
            sheet = Image.new("RGB", (_ACROSS * _SIDE, _DOWN * (_SIDE + 24)), (10, 10, 40))
            for place, one in enumerate(ordered[first : first + _ACROSS * _DOWN]):
                corner = (place % _ACROSS * _SIDE, place // _ACROSS * (_SIDE + 24))
                sheet.paste(_tile(one), corner)
            sheet.save(folder / f"{name}-{kind}-{page:02}.png")


def _tile(one: Shown) -> Image.Image:
    height, width = one.image.shape
    factor = _SIDE / max(height * one.spacing[0], width * one.spacing[1])
    size = tuple(
        max(1, round(n * s * factor))
        for n, s in zip((width, height), one.spacing[::-1], strict=True)
    )
    image = np.asarray(Image.fromarray(one.image).resize(size))
    colour = np.repeat(image[..., None], 3, axis=2)
    for sector, paint in ((one.truth, (0, 220, 0)), (one.sector, (255, 60, 60))):
        if sector is not None:
            fan = sector.mask(image.shape, (1 / factor, 1 / factor))
            padded = np.pad(fan, 1)
            colour[(fan & ~ndimage.binary_erosion(padded)[1:-1, 1:-1])] = paint
    tile = Image.new("RGB", (_SIDE, _SIDE + 24), (10, 10, 40))
    tile.paste(Image.fromarray(colour))
    ImageDraw.Draw(tile).multiline_text(
        (1, _SIDE), one.title, (255, 230, 0), ImageFont.load_default(9), spacing=1
    )
    return tile
