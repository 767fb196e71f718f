"""Volumes of the left ventricle by the method of discs, and the ejection fraction.

Lang et al., "Recommendations for Cardiac Chamber Quantification by Echocardiography in Adults",
J Am Soc Echocardiogr 28 (2015) 1-39: the long axis runs from the middle of the base to the apex,
the cavity is cut across it into 20 discs of equal height, and each disc is an ellipse whose
diameters two orthogonal views give; with one view it is a circle.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.measures.shape import Bools, Points

DISCS = 20
LEAST_PIXELS = 30
LEAST_BASE = 3
_TOUCHING = 2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Discs:
    """The cavity cut across its long axis.

    Attributes:
        length: of the axis, from base to apex, mm.
        diameters: (20,) mm across, from the base to the apex.
        in_mm: False where the spacing is unknown, and both are in displayed pixels: then only
            ratios of volumes mean something.
    """

    length: float
    diameters: Floats
    in_mm: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class LongAxis(Discs):
    """The cavity along its long axis.

    Attributes:
        base: (2,) its middle, mm (row, col).
        apex: (2,) mm, of the heart.
    """

    base: Points
    apex: Points


def long_axis(
    cavity: Bools,
    spacing: tuple[float, float],
    myocardium: Bools | None = None,
    probe: tuple[float, float] = (-1e6, 0.0),
) -> LongAxis | None:
    """The axis and the discs of a cavity, or None where it is too small.

    The base is where the cavity opens: the part of its border that no myocardium is next to. Its
    middle lies between its two ends. The apex is the point of the cavity that is farthest from it.
    Without myocardium the base is the end of the principal axis that lies away from the probe.

    Args:
        cavity: (h, w) bool.
        spacing: (row, col) mm.
        myocardium: (h, w) bool, or None.
        probe: (row, col) mm of the fan's apex.

    Returns:
        None where there are fewer than LEAST_PIXELS pixels.
    """
    if cavity.sum() < LEAST_PIXELS:
        return None
    cavity = _largest(cavity)
    points = _places(cavity, spacing)
    base = _opening(cavity, myocardium, spacing)
    if base is None:
        base = _far_end(points, np.array(probe))
    border = _places(cavity & ~ndimage.binary_erosion(cavity), spacing)
    apex = np.asarray(border[int(np.argmax(np.hypot(*(border - base).T)))], dtype=np.float64)
    length = float(np.hypot(*(apex - base)))
    if length <= 0:
        return None
    along = (apex - base) / length
    place = (points - base) @ along
    disc = np.clip(np.floor(place / length * DISCS), 0, DISCS - 1).astype(int)
    inside = (place >= -spacing[0]) & (place <= length + spacing[0])
    areas = np.bincount(disc[inside], minlength=DISCS) * spacing[0] * spacing[1]
    diameters = np.asarray(areas / (length / DISCS), dtype=np.float64)
    return LongAxis(length, diameters, base, apex)


def volume_ml(first: Discs, second: Discs | None = None) -> float:
    """Of one view, or of two that are orthogonal; of two, the longer axis counts.

    Returns:
        Millilitres: pi / 4 * sum of the products of diameters * length / 20.
    """
    other = first if second is None else second
    length = max(first.length, other.length)
    total = float((first.diameters * other.diameters).sum())
    return math.pi / 4 * total * length / DISCS / 1000


def ejection_fraction(edv_ml: float, esv_ml: float) -> float:
    """Percent of the end-diastolic volume; nan where that is 0."""
    return 100 * (edv_ml - esv_ml) / edv_ml if edv_ml > 0 else math.nan


def touches_border(part: Bools) -> bool:
    """Whether a part reaches the edge of the image, so that some of it may be missing."""
    return bool(part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any())


def _places(part: Bools, spacing: tuple[float, float]) -> Points:
    """(n, 2) mm of the pixels' centres."""
    return np.asarray((np.argwhere(part) + 0.5) * np.array(spacing), dtype=np.float64)


def _largest(part: Bools) -> Bools:
    pieces, count = ndimage.label(part)
    if count < 2:
        return part
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(np.argmax(sizes)), dtype=np.bool_)


def _opening(cavity: Bools, wall: Bools | None, spacing: tuple[float, float]) -> Points | None:
    """The middle of the cavity's border that no wall is next to; None without a wall."""
    if wall is None or not wall.any():
        return None
    border = cavity & ~ndimage.binary_erosion(cavity)
    near = ndimage.binary_dilation(wall, np.ones((3, 3), np.bool_), _TOUCHING)
    pieces, count = ndimage.label(border & ~near, np.ones((3, 3)))
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if sizes.max() < LEAST_BASE:
        return None
    ends = _places(np.asarray(pieces == int(np.argmax(sizes))), spacing)
    middle = ends.mean(axis=0)
    one = ends[int(np.argmax(np.hypot(*(ends - middle).T)))]
    two = ends[int(np.argmax(np.hypot(*(ends - one).T)))]
    return np.asarray((one + two) / 2, dtype=np.float64)


def _far_end(points: Points, probe: Points) -> Points:
    """Where the principal axis leaves the points, on the side that lies away from the probe."""
    middle = points.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    along = vectors[:, int(np.argmax(values))]
    if (middle - probe) @ along < 0:
        along = -along
    place = (points - middle) @ along
    return np.asarray(middle + along * np.quantile(place, 0.995), dtype=np.float64)
