"""The fan of an ultrasound image, as a shape in millimetres.

Millimetres are measured from the image's outer corner: the centre of pixel (i, j) lies at
((i + 0.5) * row spacing, (j + 0.5) * col spacing). So a point keeps its millimetres on every grid
that covers the same field. Where a frame was cut to its field, they are measured from the corner of
that (`geometry.field`). Angles are radians from straight down, positive towards larger columns.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sector:
    """A fan: the points between two rays and two arcs around one apex.

    Attributes:
        apex_row, apex_col: where the edge rays meet, mm; may lie outside the image.
        angle_left, angle_right: the edge rays, radians, left < right.
        radius_near, radius_far: mm from the apex, 0 <= near < far.
    """

    apex_row: float
    apex_col: float
    angle_left: float
    angle_right: float
    radius_near: float
    radius_far: float

    @property
    def area(self) -> float:
        """Of the whole fan, also where an image's border cuts it; radii's unit squared."""
        return (self.angle_right - self.angle_left) / 2 * (self.radius_far**2 - self.radius_near**2)

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """((first row, last row), (first col, last col)) of the smallest box around it, mm."""
        turns = range(math.ceil(2 * self.angle_left / math.pi), 5)
        straight = (turn * math.pi / 2 for turn in turns)
        angles = [self.angle_left, *(a for a in straight if a < self.angle_right)]
        corners = [
            (radius * math.cos(angle), radius * math.sin(angle))
            for angle in (*angles, self.angle_right)
            for radius in (self.radius_near, self.radius_far)
        ]
        down, across = zip(*corners, strict=True)
        return (
            (self.apex_row + min(down), self.apex_row + max(down)),
            (self.apex_col + min(across), self.apex_col + max(across)),
        )

    def contains(
        self, rows_mm: npt.NDArray[np.floating[Any]], cols_mm: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.bool_]:
        """Which points, given by their mm, lie in the fan; the inputs broadcast."""
        down = np.asarray(rows_mm, dtype=np.float64) - self.apex_row
        across = np.asarray(cols_mm, dtype=np.float64) - self.apex_col
        radius = np.hypot(down, across)
        angle = np.arctan2(across, down)
        return (
            (radius >= self.radius_near)
            & (radius <= self.radius_far)
            & (angle >= self.angle_left)
            & (angle <= self.angle_right)
        )

    def mask(
        self,
        shape: tuple[int, int],
        spacing_mm: tuple[float, float],
        origin_mm: tuple[float, float] = (0.0, 0.0),
    ) -> npt.NDArray[np.bool_]:
        """The fan on a grid of (rows, cols) pixels whose outer corner lies at `origin_mm`.

        Args:
            shape: (rows, cols) of the grid.
            spacing_mm: (row, col) mm per pixel.
            origin_mm: (row, col) mm of the grid's outer corner.

        Returns:
            (rows, cols) bool, True where a pixel's centre lies in the fan.
        """
        rows = origin_mm[0] + (np.arange(shape[0]) + 0.5) * spacing_mm[0]
        cols = origin_mm[1] + (np.arange(shape[1]) + 0.5) * spacing_mm[1]
        return self.contains(rows[:, None], cols[None, :])


def fan_mask(
    sector: npt.NDArray[np.floating],
    aspect: float,
    shape: tuple[int, int],
    seen: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which pixels of a stored sample show its fan; none where it is not known.

    Args:
        sector: (6,) as in the store: apex row and col in pixel indices, angles left and right in
            radians, radii near and far in rows.
        aspect: displayed width of a pixel over its height.
        shape: (h, w).
        seen: (4,) as in the store: the part of the grid that the source's picture covers; None or
            NaN where that is all of it.

    Returns:
        (h, w) bool, read-only: copies of a frame share it.
    """
    part = () if seen is None or not np.isfinite(seen).all() else tuple(map(float, seen))
    return _fan_mask(tuple(float(value) for value in sector), float(aspect), shape, part)


@lru_cache(maxsize=8)
def _fan_mask(
    sector: tuple[float, ...], aspect: float, shape: tuple[int, int], seen: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    if np.isfinite([*sector, aspect]).all():
        row, col, left, right, near, far = sector
        fan = Sector(row + 0.5, (col + 0.5) * aspect, left, right, near, far)
        mask = fan.mask(shape, (1.0, aspect))
    if seen:
        rows, cols = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
        mask &= ((rows >= seen[0]) & (rows <= seen[2]))[:, None]
        mask &= (cols >= seen[1]) & (cols <= seen[3])
    mask.flags.writeable = False
    return mask
