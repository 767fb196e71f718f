"""A fan placed on the image's outline, at full resolution, by robust least squares.

The foreground is cut from the background near a fan that is roughly known, its outline read row by
row and column by column, and apex, angles and far radius fitted together.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.geometry.foreground import components
from echogen.geometry.sector import Sector

Array = npt.NDArray[np.float64]
BoolHW = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]
Spacing = tuple[float, float]

_AROUND = 4.0
"""Foreground up to so many reduced pixels outside of the rough fan counts."""
_HALO, _INWARD = 0.4, 12
_STEEPEST = np.deg2rad(85.0)
_ROUNDS = 40
_LOW, _ARC_SEEN, _ROUNDER = 0.5, 0.7, 0.7
_FEW = 0.2
"""Where an edge has fewer points than this share of the other's, it is held to be symmetric."""
_SYMMETRY = 1.0
"""What that weighs, in points."""


@dataclass(frozen=True)
class _Points:
    """Where the foreground begins and ends, as (n, 2) points in mm, image borders left out."""

    left: Array
    right: Array
    bottom: Array


@dataclass(frozen=True)
class Picture:
    """An image whose fan is roughly known.

    Attributes:
        image: (H, W) uint8 without bars.
        level: up to which a pixel is background.
        spacing_mm: (row, col) mm per pixel.
        unit: how far off the rough fan may be, mm.
    """

    image: UInt8
    level: int
    spacing_mm: Spacing
    unit: float


def refined(fan: Sector, picture: Picture) -> Sector:
    """The fan (mm) on the outline that lies near it."""
    filled = _filled(picture, fan)
    points = _points(filled, picture.spacing_mm)
    pixel, unit = max(picture.spacing_mm), picture.unit
    rough = _placed(fan, points, 0.7 * unit, 2.5 * unit + 2 * pixel)
    fine = _placed(rough, points, 0.5 * pixel, 3.0 * pixel)
    return _with_near(fine, filled, picture.spacing_mm)


def stretch(fan: Sector, picture: Picture) -> float:
    """The factor on the row spacing that makes the far arc round; 1 where too little is seen."""
    bottom = _between(_points(_filled(picture, fan), picture.spacing_mm).bottom, fan)
    down, across = bottom[:, 0] - fan.apex_row, bottom[:, 1] - fan.apex_col
    far = np.hypot(down, across)
    low = far > _LOW * fan.radius_far
    down, across, far = down[low], across[low], far[low]
    if len(down) < 20:
        return 1.0
    # A half-ellipse about the apex: factor^2 down^2 + across^2 = far^2, robustly.
    factor, radius, scale = 1.0, fan.radius_far, 4 * picture.unit
    for _ in range(_ROUNDS):
        distance = np.hypot(factor * down, across)
        weight = 1.0 / (1.0 + ((distance - radius) / scale) ** 2)
        terms = np.stack([factor * down**2 / distance, -np.ones_like(down)], axis=1)
        normal = terms.T @ (weight[:, None] * terms)
        if np.linalg.cond(normal) > 1e12:
            return 1.0
        step = np.linalg.solve(normal, terms.T @ (weight * (radius - distance)))
        factor, radius = float(np.clip(factor + step[0], 0.4, 2.5)), radius + float(step[1])
        scale = max(0.8 * scale, max(picture.spacing_mm))
    pixel = max(picture.spacing_mm)
    off = np.minimum(np.abs(np.hypot(factor * down, across) - radius) / pixel, 2.0)
    as_it_is = np.minimum(np.abs(far - fan.radius_far) / pixel, 2.0)
    share = (np.arctan2(across, down) - fan.angle_left) / (fan.angle_right - fan.angle_left)
    on = np.clip(share[off < 1.5] * 20, 0, 19).astype(int)
    seen = np.bincount(on, minlength=20) > 0
    if seen.mean() < _ARC_SEEN or not (seen[:5].any() and seen[-5:].any()):
        return 1.0
    return factor if (off**2).mean() < _ROUNDER * (as_it_is**2).mean() else 1.0


def bend(fan: Sector, picture: Picture) -> float:
    """How far the outline curves inwards along the straighter edge, in reduced pixels.

    About 0 for a fan; what is round, such as a disc, touches an edge in its middle alone.
    """
    points = _points(_filled(picture, fan), picture.spacing_mm)
    found = []
    for some, angle, inward in (
        (points.left, fan.angle_left, 1),
        (points.right, fan.angle_right, -1),
    ):
        down, across = some[:, 0] - fan.apex_row, some[:, 1] - fan.apex_col
        depth = inward * (np.cos(angle) * across - np.sin(angle) * down) / picture.unit
        along = np.cos(angle) * down + np.sin(angle) * across
        close = (np.abs(depth) < 4) & (along > fan.radius_near) & (along < fan.radius_far)
        if close.sum() < 8:
            continue
        depth, along = depth[close], along[close]
        half = np.ptp(along) / 2
        along = (along - along.mean()) / max(half, 1e-9)
        found.append(float(np.polyfit(along, depth, 2)[0]))
    return max(0.0, min(found)) if found else 0.0


def grown(fan: Sector, shape: tuple[int, ...], spacing_mm: Spacing, by: float) -> BoolHW:
    """(H, W) which pixels lie within a fan's edges and far arc, or at most `by` mm outside."""
    down = ((np.arange(shape[0]) + 0.5) * spacing_mm[0] - fan.apex_row)[:, None]
    across = ((np.arange(shape[1]) + 0.5) * spacing_mm[1] - fan.apex_col)[None, :]
    inside = np.cos(fan.angle_left) * across - np.sin(fan.angle_left) * down > -by
    inside &= np.cos(fan.angle_right) * across - np.sin(fan.angle_right) * down < by
    inside &= down > -2 * by
    return np.asarray(inside & (down**2 + across**2 < (fan.radius_far + by) ** 2))


def _filled(picture: Picture, fan: Sector) -> BoolHW:
    """The foreground near a fan, its columns filled; of a halo, only what is bright."""
    by, level = _AROUND * picture.unit, picture.level
    image = np.where(grown(fan, picture.image.shape, picture.spacing_mm, by), picture.image, 0)
    filled = _filled_above(image, level)
    rows = np.flatnonzero(filled.sum(axis=1) > 3 * _INWARD)
    if not len(rows):
        return filled
    first = filled[rows].argmax(axis=1)
    last = image.shape[1] - 1 - filled[rows, ::-1].argmax(axis=1)
    left, right = first > 0, last < image.shape[1] - 1
    ends = ((rows[left], first[left], 1), (rows[right], last[right], -1))
    outer = np.concatenate([image[r, c + inward * k] for r, c, inward in ends for k in (0, 1)])
    inner = np.concatenate([image[r, c + inward * _INWARD] for r, c, inward in ends])
    if not len(inner):
        return filled
    step = float(np.median(inner)) - level
    if float(np.median(outer)) - level < _HALO * step:
        return _filled_above(image, level + int(_HALO * step))
    return filled


def _filled_above(image: UInt8, level: int) -> BoolHW:
    bright = image > level
    if level > 0:
        bright = ndimage.uniform_filter(bright.astype(np.float32), 3) > 0.5
    solid = components(components(bright, 0.01) & _thick(bright), 0.01)
    down = np.maximum.accumulate(solid, axis=0)
    up = np.maximum.accumulate(solid[::-1], axis=0)[::-1]
    return np.asarray(down & up)


def _thick(bright: BoolHW) -> BoolHW:
    """Where the column-filled shape is more than a stroke: opened by 5 x 5, then grown.

    The growth, 3 pixels and 8 upwards, gives a pointed apex back, which the opening blunts.
    """
    down = np.maximum.accumulate(bright, axis=0) & np.maximum.accumulate(bright[::-1], axis=0)[::-1]
    opened = down
    for axis in (0, 1):
        eroded = ndimage.minimum_filter1d(opened.view(np.uint8), 5, axis=axis, mode="nearest")
        opened = ndimage.maximum_filter1d(eroded, 5, axis=axis, mode="nearest").view(np.bool_)
    return np.asarray(
        ndimage.maximum_filter(opened.view(np.uint8), (12, 7), origin=(-3, 0)).view(np.bool_)
    )


def _points(filled: BoolHW, spacing_mm: Spacing) -> _Points:
    height, width = filled.shape
    rows = np.flatnonzero(filled.any(axis=1))
    cols = np.flatnonzero(filled.any(axis=0))
    first = filled[rows].argmax(axis=1)
    last = width - filled[rows, ::-1].argmax(axis=1)
    foot = height - filled[::-1, cols].argmax(axis=0)

    def points(row: npt.NDArray[Any], col: npt.NDArray[Any], inside: BoolHW) -> Array:
        # A pixel is inside by its centre, so the edge lies half a pixel outside the outermost
        # centre on average: on that pixel's border.
        mm = np.stack([row * spacing_mm[0], col * spacing_mm[1]], axis=1)
        return np.asarray(mm[inside], dtype=np.float64)

    return _Points(
        left=points(rows + 0.5, first, first > 0),
        right=points(rows + 0.5, last, last < width),
        bottom=points(foot, cols + 0.5, foot < height),
    )


def _between(points: Array, fan: Sector) -> Array:
    """The points whose angle lies in the fan, 2% of its width away from the edges."""
    margin = 0.02 * (fan.angle_right - fan.angle_left)
    angle = np.arctan2(points[:, 1] - fan.apex_col, points[:, 0] - fan.apex_row)
    inside = (angle > fan.angle_left + margin) & (angle < fan.angle_right - margin)
    return np.asarray(points[inside], dtype=np.float64)


def _placed(start: Sector, points: _Points, scale: float, reach: float) -> Sector:
    """Apex, angles and far radius together, Cauchy loss of width `scale` mm.

    Points farther than `reach` from the start's edges, or twice that from its arc, are left out.
    """

    def edge(points: Array, angle: float) -> Array:
        across, down = points[:, 1] - start.apex_col, points[:, 0] - start.apex_row
        distance = np.abs(np.cos(angle) * across - np.sin(angle) * down)
        close = (distance < reach) & (np.hypot(across, down) < start.radius_far - reach)
        return np.asarray(points[close], dtype=np.float64)

    left, right = edge(points.left, start.angle_left), edge(points.right, start.angle_right)
    bottom = _between(points.bottom, start)
    radius = np.hypot(bottom[:, 0] - start.apex_row, bottom[:, 1] - start.apex_col)
    bottom = bottom[np.abs(radius - start.radius_far) < 2 * reach]
    if len(bottom) < 8:
        bottom = bottom[:0]
    if min(len(left), len(right)) < 2 or max(len(left), len(right)) < 8:
        return start
    few = min(len(left), len(right)) < _FEW * max(len(left), len(right))
    even = _SYMMETRY * start.radius_far if few else 0.0
    n, m, end = len(left), len(left) + len(right), len(left) + len(right) + len(bottom)

    def linearised(p: Array) -> tuple[Array, Array]:
        row, col, a, b, far = p
        rest, slope = np.zeros(end + 1), np.zeros((end + 1, 5))
        for part, some, angle, k in ((slice(0, n), left, a, 2), (slice(n, m), right, b, 3)):
            across, down = some[:, 1] - col, some[:, 0] - row
            sin, cos = np.sin(angle), np.cos(angle)
            rest[part] = cos * across - sin * down
            slope[part, 0], slope[part, 1], slope[part, k] = sin, -cos, -sin * across - cos * down
        down, across = bottom[:, 0] - row, bottom[:, 1] - col
        distance = np.maximum(np.hypot(down, across), 1e-9)
        rest[m:end] = distance - far
        slope[m:end, 0], slope[m:end, 1], slope[m:end, 4] = -down / distance, -across / distance, -1
        rest[end], slope[end, 2], slope[end, 3] = even * (a + b), even, even
        return rest, slope

    p = np.array(
        [start.apex_row, start.apex_col, start.angle_left, start.angle_right, start.radius_far]
    )
    size = np.array([1.0, 1.0, start.radius_far, start.radius_far, 1.0])
    for _ in range(_ROUNDS):
        rest, slope = linearised(p)
        slope = slope / size
        weight = 1.0 / (1.0 + (rest / scale) ** 2)  # Cauchy
        normal = slope.T @ (weight[:, None] * slope)
        normal[np.diag_indices(5)] += 1e-6 * (1.0 + np.trace(normal))
        step = -np.linalg.solve(normal, slope.T @ (weight * rest))
        p += step / size
        if np.abs(step).max() < 1e-3 * scale:
            break
    row, col, a, b, far = (float(value) for value in p)
    if not (-_STEEPEST < a < b < _STEEPEST and far > 0 and np.isfinite(p).all()):
        return start
    return Sector(row, col, a, b, 0.0, far)


def _with_near(fan: Sector, filled: BoolHW, spacing_mm: Spacing) -> Sector:
    """The near radius at which most of what is nearer is empty, and most beyond it is not."""
    height, width = filled.shape
    down = ((np.arange(height) + 0.5) * spacing_mm[0] - fan.apex_row)[:, None]
    across = ((np.arange(width) + 0.5) * spacing_mm[1] - fan.apex_col)[None, :]
    wedge = (down > 0) & (across >= down * np.tan(fan.angle_left))
    wedge &= across <= down * np.tan(fan.angle_right)
    radius = np.hypot(down, across)
    wedge &= radius <= fan.radius_far
    step = 0.25 * min(spacing_mm)
    bins = (radius[wedge] / step).astype(np.int64)
    if not len(bins):
        return fan
    good = np.bincount(bins, weights=filled[wedge])
    every = np.bincount(bins)
    gain = np.cumsum(2 * good - every)
    near_bin = int(np.argmin(np.concatenate([[0.0], gain])))
    # Where shadows leave the top hollow, the fan still begins where something is seen.
    wide = max(1, round(max(spacing_mm) / step))
    ring = np.convolve(good, np.ones(4 * wide), "same") / np.maximum(
        np.convolve(every, np.ones(4 * wide), "same"), 1
    )
    seen = np.flatnonzero((ring > 0.3) & (every > 0))
    if len(seen):
        near_bin = min(near_bin, int(seen[0]) + 2 * wide)
    near = near_bin * step if near_bin * step > 1.5 * min(spacing_mm) else 0.0
    return Sector(
        fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right,
        min(near, 0.9 * fan.radius_far), fan.radius_far,
    )  # fmt: skip
