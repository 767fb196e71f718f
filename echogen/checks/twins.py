"""Near copies among painted images: what a model paints when it has collapsed.

Each image is looked at through the part that was painted, on a coarse grid and without its broad
shading, which all echocardiograms share. Speckle and structure painted from different noise have
little in common there; the same painting twice correlates fully, however bright it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIDE = 48
SHADING = 3.0  # cells
LEAST_SHARED = 80  # cells
TWIN = 0.93
_BLOCK = 256


@dataclass(frozen=True)
class Fingerprint:
    """An image's painted part, coarsely.

    Attributes:
        pattern: (SIDE * SIDE,) float16, without shading, 0 where it is not painted.
        painted: (SIDE * SIDE,) bool.
    """

    pattern: npt.NDArray[np.float16]
    painted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Twins:
    """Two images that are nearly one.

    Attributes:
        first, second: their places.
        correlation: of their patterns, where both were painted.
    """

    first: int
    second: int
    correlation: float


def fingerprint(image: npt.NDArray[np.uint8], hidden: npt.NDArray[np.bool_]) -> Fingerprint:
    """The pattern of the painted part.

    Args:
        image: (h, w) grey levels.
        hidden: (h, w) bool, True where painted.
    """
    weight = _cells(hidden.astype(np.float64))
    total = _cells(np.where(hidden, image, 0).astype(np.float64))
    mean = total / np.maximum(weight, 1e-9)
    painted = weight > 0.5
    level = np.where(painted, mean, 0)
    near = ndimage.gaussian_filter(painted.astype(np.float64), SHADING, mode="constant")
    shading = ndimage.gaussian_filter(level, SHADING, mode="constant") / np.maximum(near, 1e-9)
    pattern = np.where(painted, level - shading, 0.0)
    return Fingerprint(pattern.ravel().astype(np.float16), painted.ravel())


def find_twins(prints: Sequence[Fingerprint], least: float = TWIN) -> Iterator[Twins]:
    """Pairs whose patterns correlate by `least` or more, a block at a time.

    Args:
        prints: of N images; memory and time grow with N and N squared: 4,000 take seconds.
        least: correlation in [-1, 1].
    """
    if not prints:
        return
    pattern = np.stack([one.pattern for one in prints]).astype(np.float32)
    painted = np.stack([one.painted for one in prints]).astype(np.float32)
    squared = pattern**2
    for start in range(0, len(prints), _BLOCK):
        rows = slice(start, start + _BLOCK)
        product = pattern[rows] @ pattern.T
        power = (squared[rows] @ painted.T) * (painted[rows] @ squared.T)
        shared = painted[rows] @ painted.T
        alike = product / np.sqrt(np.maximum(power, 1e-6))
        alike[(shared < LEAST_SHARED)] = 0
        for i, j in np.argwhere(alike >= least).tolist():
            if j > start + i:
                yield Twins(start + i, j, float(alike[i, j]))


def _cells(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over a grid of SIDE x SIDE cells, by the nearest cell of each pixel."""
    rows = np.arange(values.shape[0]) * SIDE // values.shape[0]
    cols = np.arange(values.shape[1]) * SIDE // values.shape[1]
    place = (rows[:, None] * SIDE + cols[None, :]).ravel()
    total = np.bincount(place, values.ravel(), SIDE * SIDE)
    count = np.bincount(place, minlength=SIDE * SIDE)
    return np.asarray(total / np.maximum(count, 1)).reshape(SIDE, SIDE)
