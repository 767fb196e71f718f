"""Polygons as masks, without a library whose fill might change with its version."""

from typing import Any

import numpy as np
import numpy.typing as npt


def fill_polygon(corners: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) bool, True where a pixel's centre lies in the polygon or on its edge.

    Where the outline crosses itself, a point is inside after an odd number of crossings.

    Args:
        corners: (n, 2) whole numbers, (row, col) of pixel centres; the last is joined to the first,
            and any may lie outside of the image.
        shape: (H, W).
    """
    row, col = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    inside = np.zeros(shape, dtype=np.bool_)
    edge = np.zeros(shape, dtype=np.bool_)
    points = np.asarray(corners, dtype=np.int64)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        side = (col - c0) * (r1 - r0) - (row - r0) * (c1 - c0)
        crossed = ((row < r0) != (row < r1)) & (side < 0 if r1 > r0 else side > 0)
        inside ^= crossed
        between = (row >= min(r0, r1)) & (row <= max(r0, r1))
        edge |= (side == 0) & between & (col >= min(c0, c1)) & (col <= max(c0, c1))
    return inside | edge


def polygon_area(corners: npt.NDArray[Any]) -> float:
    """The area within an (n, 2) outline, in the square of its unit (Gauss' formula)."""
    row, col = np.asarray(corners, dtype=np.float64).T
    return abs(float(np.dot(row, np.roll(col, -1)) - np.dot(col, np.roll(row, -1)))) / 2
