"""Letters and lines that a scanner drew into its fan, as far as a clip tells them from the heart.

They stand still, bright and thin, while all around them moves. Near the probe tissue stands still,
too, and is bright and thin: nothing is told there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.geometry.sector import Sector

LEAST_FRAMES, MOST_FRAMES = 8, 48
BRIGHT = 100
"""Grey level that a letter has at least."""
FLICKER, CONTRAST = 0.25, 0.7
"""Shares of its level: by how much compression lets it vary at most; by how much it stands out of
what is wider at least."""
MOTION = 20.0
"""Grey levels by which the pixels around it vary on average at least."""
LEAST_STROKE, LEAST_PIXELS = 3, 12
NEAR = 0.2
"""Share of the fan's depth, from the probe, that is left out."""
EDGE = 1 / 60
"""Share of the picture's shorter side, along the fan's edge, that is left out: rulers lie there."""


@dataclass(frozen=True)
class Overlay:
    """What was drawn into a fan.

    Attributes:
        pixels: how many it covers at least.
        box: (row0, col0, row1, col1) of the picture, around all of it.
    """

    pixels: int
    box: tuple[int, int, int, int]


def find_overlay(
    clip: npt.NDArray[Any], sector: Sector, spacing: tuple[float, float]
) -> Overlay | None:
    """What stands still in the fan of a recording, bright and thin, while all around it moves.

    Args:
        clip: (N, H, W) uint8; fewer than `LEAST_FRAMES` images tell nothing.
        sector: of its pictures.
        spacing: (row, col) of a pixel, in the sector's unit.

    Returns:
        None where there is nothing of the kind.
    """
    if len(clip) < LEAST_FRAMES:
        return None
    chosen = np.linspace(0, len(clip) - 1, min(len(clip), MOST_FRAMES)).round().astype(int)
    low, high = _extremes(clip[chosen])
    extent = high - low
    size = 2 * (min(low.shape) // 256) + 5
    strokes = low - ndimage.grey_opening(low, (size, size))
    around = ndimage.uniform_filter(extent, 2 * size + 1)
    found = (low >= BRIGHT) & (extent <= FLICKER * low) & (strokes >= CONTRAST * low)
    found &= (around >= MOTION) & _looked_at(sector, (low.shape[0], low.shape[1]), spacing)
    named, count = ndimage.label(found, np.ones((3, 3)))
    area = np.bincount(named.ravel(), minlength=count + 1)
    area[0] = 0
    kept = (area >= LEAST_STROKE)[named]
    if int(kept.sum()) < LEAST_PIXELS:
        return None
    rows, cols = np.nonzero(kept)
    box = (int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
    return Overlay(len(rows), box)


def _extremes(
    images: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The 5th and 95th percentile of each pixel: one frame may have anything there."""
    out = len(images) // 20
    ends = np.partition(images, (out, len(images) - 1 - out), axis=0)
    return ends[out].astype(np.float32), ends[-1 - out].astype(np.float32)


def _looked_at(
    sector: Sector, shape: tuple[int, int], spacing: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """(H, W) the fan without its edges and what is near the probe."""
    rows = (np.arange(shape[0]) + 0.5)[:, None] * spacing[0] - sector.apex_row
    cols = (np.arange(shape[1]) + 0.5)[None, :] * spacing[1] - sector.apex_col
    near = sector.radius_near + NEAR * (sector.radius_far - sector.radius_near)
    inside = ndimage.binary_erosion(
        sector.mask(shape, spacing), iterations=max(2, round(EDGE * min(shape)))
    )
    return np.asarray(inside & (np.hypot(rows, cols) > near))
