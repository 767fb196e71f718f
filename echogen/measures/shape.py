"""Where a labelled part lies in the fan, how large it is, and how it is turned.

Lengths and areas are of the heart, in mm by a sample's own spacing, or in pixels without one.
Places and angles are as displayed, in the fan's polar coordinates, whatever the spacing.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.geometry.sector import Sector

Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


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


def shape_of(part: Bools, fan: Sector, aspect: float, spacing: tuple[float, float]) -> Shape | None:
    """Measures of a part; None where it is empty.

    Args:
        part: (h, w) bool.
        fan: on the same pixels, as a store holds it: the apex in pixel indices, radii in rows.
        aspect: displayed width of a pixel over its height.
        spacing: (row, col) mm of heart a pixel, or (1, 1).
    """
    index = np.argwhere(part).astype(np.float64)
    if not len(index):
        return None
    apex = (fan.apex_row, fan.apex_col)
    shown = (index - apex) * (1.0, aspect)
    down, across = shown.mean(axis=0)
    radius, near, far = math.hypot(down, across), fan.radius_near, fan.radius_far
    in_mm = (index.mean(axis=0) - apex) * spacing
    height, width = np.ptp(shown, axis=0) + np.array([1.0, aspect])
    return Shape(
        area=len(index) * spacing[0] * spacing[1],
        share=len(index) * aspect / fan.area if fan.area > 0 else math.nan,
        radius=(radius - near) / (far - near) if far > near else math.nan,
        angle_deg=math.degrees(math.atan2(across, down) - (fan.angle_left + fan.angle_right) / 2),
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
