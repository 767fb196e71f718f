"""Where a labelled part lies in the fan, how large it is, and how it is turned.

Lengths and areas are of the heart, in mm by a sample's own spacing, or in pixels without one.
Places and angles are as displayed, in the fan's polar coordinates, whatever the spacing.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fan:
    """A fan as a store holds it.

    Attributes:
        row, col: the apex, in pixel indices.
        left, right: angles of the edges, radians from straight down.
        near, far: radii, rows.
        aspect: displayed width of a pixel over its height.
    """

    row: float
    col: float
    left: float
    right: float
    near: float
    far: float
    aspect: float

    @classmethod
    def of(cls, sector: npt.NDArray[np.floating], aspect: float) -> "Fan":
        """From the columns `sector` (6,) and `aspect`."""
        row, col, left, right, near, far = (float(value) for value in sector)
        return cls(row, col, left, right, near, far, float(aspect))

    @property
    def area(self) -> float:
        """Displayed area, square rows."""
        return (self.right - self.left) / 2 * (self.far**2 - self.near**2)


@dataclass(frozen=True)
class Shape:
    """One labelled part of one sample.

    Attributes:
        area: mm2, or pixels.
        share: of the fan's displayed area, 0 to 1.
        radius: of the centroid: 0 at the fan's near arc, 1 at its far one.
        angle_deg: of the centroid from the fan's axis, positive towards larger columns.
        axis_deg: of the longest principal axis from straight down, as displayed, -90 to 90.
        distance: from the fan's apex to the centroid, mm (pixels without a spacing).
        width: displayed extent across the fan's axis over the extent along it.
    """

    area: float
    share: float
    radius: float
    angle_deg: float
    axis_deg: float
    distance: float
    width: float


def shape_of(part: Bools, fan: Fan, spacing: tuple[float, float]) -> Shape | None:
    """Measures of a part; None where it is empty.

    Args:
        part: (h, w) bool.
        fan: on the same pixels.
        spacing: (row, col) mm of heart a pixel, or (1, 1).
    """
    index = np.argwhere(part).astype(np.float64)
    if not len(index):
        return None
    shown = (index - (fan.row, fan.col)) * (1.0, fan.aspect)
    down, across = shown.mean(axis=0)
    radius = math.hypot(down, across)
    in_mm = (index.mean(axis=0) - (fan.row, fan.col)) * spacing
    height, width = np.ptp(shown, axis=0) + np.array([1.0, fan.aspect])
    return Shape(
        area=len(index) * spacing[0] * spacing[1],
        share=len(index) * fan.aspect / fan.area if fan.area > 0 else math.nan,
        radius=(radius - fan.near) / (fan.far - fan.near) if fan.far > fan.near else math.nan,
        angle_deg=math.degrees(math.atan2(across, down) - (fan.left + fan.right) / 2),
        axis_deg=axis_deg(shown),
        distance=math.hypot(*in_mm),
        width=float(width / height),
    )


def axis_deg(points: Points) -> float:
    """Angle of the longest principal axis of (n, 2) points (down, across), degrees, -90 to 90.

    0 is straight down, positive leans towards larger columns; nan for fewer than three points.
    """
    if len(points) < 3:
        return math.nan
    values, vectors = np.linalg.eigh(np.cov(points.T))
    down, across = vectors[:, int(np.argmax(values))]
    if down < 0:
        down, across = -down, -across
    return math.degrees(math.atan2(across, down)) if down > 0 else 90.0
