"""The border between kept and painted pixels, within the fan.

The fan's own edge is a border of the anatomy of the image, not of the painting, and is left out.
"""

import numpy as np
from scipy import ndimage

from echogen.measures.regions import Bools, Floats, Image, check_region, masked_blur


def seam_gradient(image: Image, hidden: Bools, fan: Bools) -> float:
    """Mean absolute difference of neighbours of which one is kept and one is painted.

    Neighbours share a side, so every pair crosses the border and none runs along it; a slanted
    border is crossed by pairs in rows and pairs in columns. Divide by the same of the truth: 1 is
    right, more is a visible seam, less is a border smoother than tissue is.

    Args:
        image: (h, w) grey levels.
        hidden: (h, w) bool, True where painted.
        fan: (h, w) bool; pairs with a pixel outside do not count.

    Returns:
        Grey levels; nan where no pair is left.

    Raises:
        UsageError: the shapes differ.
    """
    _check(image, hidden, fan)
    levels = image.astype(np.float64)
    crossings = []
    for axis in (0, 1):
        crosses = np.diff(hidden.astype(np.int8), axis=axis) != 0
        both = np.delete(fan, -1, axis) & np.delete(fan, 0, axis)
        crossings.append(np.abs(np.diff(levels, axis=axis))[crosses & both])
    found = np.concatenate(crossings)
    return float(found.mean()) if found.size else float("nan")


def seam_steps(image: Image, hidden: Bools, fan: Bools, width: float = 3.0) -> Floats:
    """Steps of mean brightness across the border, painted minus kept, one for each place on it.

    Each side's brightness is its blur alone (Gaussian of `width`), so speckle is averaged away
    and what is left is a change of brightness over a few pixels.

    Args:
        image, hidden, fan: as in `seam_gradient`.
        width: of the Gaussian, pixels.

    Returns:
        (K,) grey levels at the painted pixels that touch a kept one, in row-major order.

    Raises:
        UsageError: the shapes differ.
    """
    _check(image, hidden, fan)
    painted, kept = hidden & fan, ~hidden & fan
    border = painted & ndimage.binary_dilation(kept)
    inner = masked_blur(image, painted, width, at=border)
    outer = masked_blur(image, kept, width, at=border)
    return np.asarray((inner - outer)[border], dtype=np.float64)


def _check(image: Image, hidden: Bools, fan: Bools) -> None:
    check_region(image, hidden)
    check_region(image, fan)
