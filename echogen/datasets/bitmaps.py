"""PNG, JPEG, TIFF and BMP files as arrays, and what is grey in a picture stored in colours.

Pillow reads them. They carry no millimetres: a TIFF's resolution is that of a print.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.integrity import FORMATS, IMAGE_IO, suffix_of
from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.support.reading import open_regular, quiet, reason
from echogen.support.words import one_line
from echogen.types import UInt8HW

Array = npt.NDArray[Any]

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError,
          MemoryError, struct.error)  # fmt: skip
"""What Pillow raises at damaged files."""
TINT_POWERS = 3
COLOURED = 40
"""How far apart a grey pixel's channels may lie: EchoNet-Dynamic's compressed videos reach 40."""


@dataclass(frozen=True)
class Bitmap:
    """A picture as its file holds it.

    Attributes:
        pixels: (H, W) of one channel, or (H, W, 3) uint8 of colours.
        indices: (H, W) uint8 into a palette, whose colours `pixels` holds; None without one.
    """

    pixels: Array
    indices: UInt8HW | None = None


def read_bitmap(path: Path, name: str, *, see_through: bool = False) -> Bitmap:
    """A picture, decoded whole.

    Args:
        path: of a file that `integrity.check_file` finds whole.
        name: how messages call it.
        see_through: whether transparent pixels are read, as black; else they are refused.

    Raises:
        DatasetError: it is damaged, too large, of several pictures, transparent, or of a kind of
            pixels that is not known.
    """
    from PIL import Image

    kind = FORMATS[IMAGE_IO[suffix_of(path.name)]]
    try:
        with quiet(), open_regular(path) as file, Image.open(file, formats=[kind]) as picture:
            count = getattr(picture, "n_frames", 1)
            if count > 1:
                raise DatasetError(
                    f"{name}: holds {count} pictures; expected one, store each frame in its own "
                    "file."
                )
            if problem := too_large(picture.height, picture.width):
                raise DatasetError(f"{name}: states {problem}")
            picture.load()
            return _bitmap(picture, name, see_through)
    except DatasetError:
        raise
    except (*DAMAGE, Image.DecompressionBombError) as error:
        why = one_line(reason(error), 100)
        raise DatasetError(f"{name}: cannot be read; truncated or damaged ({why}).") from error


def _bitmap(picture: Any, name: str, see_through: bool) -> Bitmap:
    from PIL import Image

    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("LA", "RGBA", "PA"):
        if see_through:
            picture = picture.convert("RGBA")
            clear = picture.getchannel("A").point(lambda alpha: 255 * (alpha < 128))
            picture.paste(Image.new("RGBA", picture.size, (0, 0, 0, 255)), mask=clear)
        elif picture.getchannel("A").getextrema()[0] != 255:
            raise DatasetError(f"{name}: has transparent pixels; store grey levels without alpha.")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    if picture.mode == "1":
        return Bitmap(np.asarray(picture.convert("L")))
    if picture.mode == "P":
        return Bitmap(_plain(np.asarray(picture.convert("RGB"))), np.asarray(picture))
    if picture.mode == "RGB":
        return Bitmap(_plain(np.asarray(picture)))
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        return Bitmap(np.asarray(picture))
    raise DatasetError(f"{name}: pixels of the kind {picture.mode}; store one grey channel.")


def _plain(colours: Array) -> Array:
    """(H, W) where all three channels are equal."""
    first = colours[..., 0]
    return first if (colours == first[..., None]).all() else colours


def grey_of(colours: Array, name: str, most: float) -> UInt8HW:
    """The luminance of a picture that is grey but for little of it.

    Compression leaves a trace of colour, a scanner may tint its grey scale (each grey level one
    colour), and logos and ECG traces have colours of their own: all that is read. A picture is
    refused where more pixels than that are farther than `COLOURED` from grey, tint taken away.

    Args:
        colours: (H, W, 3) uint8.
        name: how messages call it.
        most: share of its pixels that may be coloured.

    Raises:
        DatasetError: more of them are.
    """
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    # Rec. 601 in 16 bits, rounded: as Pillow's and video decoders' grey.
    grey = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)
    offsets = [channel - grey.astype(np.int32) for channel in (red, green, blue)]
    share = float((_spread(offsets) > COLOURED).mean())
    if share > most:
        untinted = [offset - _tint(grey, offset)[grey] for offset in offsets]
        share = min(share, float((_spread(untinted) > COLOURED).mean()))
    if share > most:
        raise DatasetError(
            f"{name}: a colour picture: {share:.1%} of its pixels are coloured, expected at most "
            f"{most:.1%}. Colour Doppler and drawn outlines cannot be used: store the frame "
            f"without them, or leave it out. Where the colour is but a large logo or ECG trace, "
            f"max_colour = {np.ceil(share * 100) / 100:g} in [dataset] lets it be read as grey."
        )
    return grey


def _tint(grey: UInt8HW, offset: Array) -> Array:
    """(256,) how far one channel lies from grey at each level: a smooth curve through all pixels,
    which colours of a part of them cannot follow.
    """
    count = np.bincount(grey.ravel(), minlength=256)
    total = np.bincount(grey.ravel(), offset.ravel(), 256)
    weight = np.sqrt(count)
    powers = (np.arange(256)[:, None] / 255) ** np.arange(1, TINT_POWERS + 1)
    mean = np.divide(total, weight, out=np.zeros(256), where=count > 0)
    factors = np.linalg.lstsq(powers * weight[:, None], mean, rcond=None)[0]
    curve: Array = powers @ factors
    return curve


def _spread(channels: list[Array]) -> Array:
    stack = np.stack(channels)
    spread: Array = stack.max(axis=0) - stack.min(axis=0)
    return spread
