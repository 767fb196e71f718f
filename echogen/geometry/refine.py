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
_STROKE = 2.6
"""What is drawn in strokes of fewer reduced pixels is no part of the fan."""
_ALONG, _SMOOTH, _LEAST_STEP = 96, 9, 4.0
_INNER, _OUTER = np.array([1.0, 1.75, 2.5, 3.25]), np.array([-1.75, -2.5, -3.25])
_CLOSE = np.array([-0.9, -1.3, -1.75])
"""Where the levels inside of an edge, outside and close to it are taken, in reduced pixels."""
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


def grown(fan: Sector, shape: tuple[int, ...], spacing_mm: Spacing, by: float) -> BoolHW:
    """(H, W) which pixels lie within a fan's edges and far arc, or at most `by` mm outside."""
    down = ((np.arange(shape[0]) + 0.5) * spacing_mm[0] - fan.apex_row)[:, None]
    across = ((np.arange(shape[1]) + 0.5) * spacing_mm[1] - fan.apex_col)[None, :]
    inside = np.cos(fan.angle_left) * across - np.sin(fan.angle_left) * down > -by
    inside &= np.cos(fan.angle_right) * across - np.sin(fan.angle_right) * down < by
    inside &= down > -2 * by
    return np.asarray(inside & (down**2 + across**2 < (fan.radius_far + by) ** 2))


def _filled(picture: Picture, fan: Sector) -> BoolHW:
    """The foreground near a fan, strokes taken away and columns filled."""
    near = grown(fan, picture.image.shape, picture.spacing_mm, _AROUND * picture.unit)
    stroke = 2 * round(_STROKE * picture.unit / max(picture.spacing_mm) / 2) + 1
    threshold = _threshold(picture, fan)
    if threshold is None:
        bright = near & (picture.image > picture.level)
    else:
        smooth = ndimage.uniform_filter(picture.image.astype(np.float32), 3, mode="nearest")
        bright = near & (smooth > threshold)
    solid = components(components(bright, 0.01) & _thick(bright, stroke), 0.01)
    down = np.maximum.accumulate(solid, axis=0)
    up = np.maximum.accumulate(solid[::-1], axis=0)[::-1]
    return np.asarray(down & up)


def _threshold(picture: Picture, fan: Sector) -> Array | None:
    """(H, W) grey level halfway between what lies outside of the nearest edge and inside of it.

    Compression blurs edges and surrounds a fan with a dim halo; flanks may be dark. None where the
    background is black right up to the fan: there every pixel that is not black is the fan's.
    """
    share = (np.arange(_ALONG) + 0.5) / _ALONG
    radius = fan.radius_near + share * (fan.radius_far - fan.radius_near)
    turn = fan.angle_left + share * (fan.angle_right - fan.angle_left)
    curves = (
        (fan.angle_left, radius, np.cos(fan.angle_left), -np.sin(fan.angle_left)),
        (fan.angle_right, radius, -np.cos(fan.angle_right), np.sin(fan.angle_right)),
        (turn, fan.radius_far, -np.sin(turn), -np.cos(turn)),
    )
    places: list[tuple[Array, Array]] = []
    inner: list[Array] = []
    outer: list[Array] = []
    close: list[Array] = []
    for angle, far, inward_col, inward_row in curves:
        row = fan.apex_row + far * np.cos(angle) + np.zeros(_ALONG)
        col = fan.apex_col + far * np.sin(angle) + np.zeros(_ALONG)
        places.append((row, col))
        for levels, offsets in ((inner, _INNER), (outer, _OUTER), (close, _CLOSE)):
            away = picture.unit * offsets
            levels.append(
                _levels(picture, row[:, None] + np.outer(inward_row + 0 * row, away),
                        col[:, None] + np.outer(inward_col + 0 * col, away))
            )  # fmt: skip
    around = np.concatenate([one.ravel() for one in close])
    around = around[np.isfinite(around)]
    if picture.level == 0 and len(around) and np.percentile(around, 85) == 0:
        return None
    left, right, arc = (
        _halfway(inside, outside, picture.level)
        for inside, outside in zip(inner, outer, strict=True)
    )
    rows, cols = picture.image.shape
    at_row = (np.arange(rows) + 0.5) * picture.spacing_mm[0]
    at_col = (np.arange(cols) + 0.5) * picture.spacing_mm[1]
    left, right = np.interp(at_row, places[0][0], left), np.interp(at_row, places[1][0], right)
    arc = np.interp(at_col, places[2][1], arc)
    down, across = (at_row - fan.apex_row)[:, None], (at_col - fan.apex_col)[None, :]
    west = np.cos(fan.angle_left) * across - np.sin(fan.angle_left) * down
    east = np.sin(fan.angle_right) * down - np.cos(fan.angle_right) * across
    south = fan.radius_far - np.hypot(down, across)
    sides = np.where(west < east, left[:, None], right[:, None])
    return np.asarray(np.where(south < np.minimum(west, east), arc[None, :], sides))


def _levels(picture: Picture, row: Array, col: Array) -> Array:
    """The image's grey levels at mm, NaN outside of it."""
    i = np.floor(row / picture.spacing_mm[0]).astype(int)
    j = np.floor(col / picture.spacing_mm[1]).astype(int)
    height, width = picture.image.shape
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    found = picture.image[np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
    return np.where(inside, found, np.nan)


def _halfway(inside: Array, outside: Array, level: int) -> Array:
    """(n,) between the levels inside and outside of each point of a curve, smoothed along it."""
    found = []
    for levels in (inside, outside):
        seen = np.isfinite(levels)
        total = ndimage.uniform_filter1d(np.where(seen, levels, 0).sum(axis=1), _SMOOTH)
        count = ndimage.uniform_filter1d(seen.sum(axis=1).astype(np.float64), _SMOOTH)
        found.append(np.where(count > 0, total / np.maximum(count, 1e-9), level))
    bright, dark = found
    return np.asarray(dark + 0.5 * np.maximum(bright - dark, _LEAST_STEP))


def _thick(bright: BoolHW, stroke: int) -> BoolHW:
    """Where the shape, its small holes closed, is more than a stroke: opened, then grown.

    The growth, 3 pixels and further upwards, gives a pointed apex back, which the opening blunts.
    """
    shape = bright.view(np.uint8)
    for size, first, second in (
        (3, ndimage.maximum_filter1d, ndimage.minimum_filter1d),
        (stroke, ndimage.minimum_filter1d, ndimage.maximum_filter1d),
    ):
        for turn in (first, second):
            for axis in (0, 1):
                shape = turn(shape, size, axis=axis, mode="nearest")
    up = stroke + 7
    grown = ndimage.maximum_filter(shape, (up, 7), origin=(-(up // 2 - 3), 0))
    return np.asarray(grown.view(np.bool_))


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
    around = ndimage.uniform_filter1d(every.astype(np.float64), 4 * wide, mode="constant")
    ring = ndimage.uniform_filter1d(good, 4 * wide, mode="constant") / np.maximum(around, 1e-9)
    seen = np.flatnonzero((ring > 0.3) & (every > 0))
    if len(seen):
        near_bin = min(near_bin, int(seen[0]) + 2 * wide)
    near = near_bin * step if near_bin * step > 1.5 * min(spacing_mm) else 0.0
    return Sector(
        fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right,
        min(near, 0.9 * fan.radius_far), fan.radius_far,
    )  # fmt: skip
