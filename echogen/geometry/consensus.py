"""Fans that an image may show: lines and arcs on which many points of its outline lie.

All in pixels of a reduced image; a candidate costs little, so many are proposed, and the judge
decides (`geometry.judge`). Lines and arcs are placed by consensus (Fischler and Bolles 1981,
RANSAC): points of the outline near a curve count for it, points beyond it against it. Outlines are
taken at several grey levels; at a sharp edge they coincide.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.geometry.sector import Sector

Array = npt.NDArray[np.float64]
BoolHW = npt.NDArray[np.bool_]

TOLERANCE = 1.6
_PAIRS = 500
_LINES = 7
_STEEPEST = np.deg2rad(80.0)
_NARROWEST, _WIDEST = np.deg2rad(22.0), np.deg2rad(150.0)
_MOST_TILT = np.deg2rad(30.0)
_BEYOND = 0.6


@dataclass(frozen=True)
class Outline:
    """Where the foreground begins and ends, in units of a reduced pixel.

    Attributes:
        left, right: (n, 2) points that may lie on the left and right edge.
        bottom: (n, 2) points that may lie on the far arc.
        all: (n, 2) these, and where the picture's border cuts the fan off.
    """

    left: Array
    right: Array
    bottom: Array
    all: Array


def outline(masks: list[BoolHW], size: tuple[float, float]) -> Outline:
    """The outlines of several masks together.

    Args:
        masks: (H, W) bool.
        size: (row, col) of a pixel in the unit of the points.
    """
    parts: dict[str, list[Array]] = {"left": [], "right": [], "bottom": [], "all": []}
    for mask in masks:
        height, width = mask.shape
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        first = mask[rows].argmax(axis=1)
        last = width - mask[rows, ::-1].argmax(axis=1)
        head = mask[:, cols].argmax(axis=0)
        foot = height - mask[::-1, cols].argmax(axis=0)
        west, east = _points(rows + 0.5, first, size), _points(rows + 0.5, last, size)
        north, south = _points(head, cols + 0.5, size), _points(foot, cols + 0.5, size)
        parts["left"] += [west[first > 0], north[head > 0]]
        parts["right"] += [east[last < width], north[head > 0]]
        parts["bottom"] += [south[foot < height], west[first > 0], east[last < width]]
        parts["all"] += [west, east, north, south]
    return Outline(
        **{name: np.concatenate(some) if some else np.zeros((0, 2)) for name, some in parts.items()}
    )


def _points(row: npt.NDArray[Any], col: npt.NDArray[Any], size: tuple[float, float]) -> Array:
    return np.stack([row * size[0], col * size[1]], axis=1).astype(np.float64)


def candidates(found: Outline, shape: tuple[float, float]) -> list[Sector]:
    """Fans whose edges lie on the outline; of one side's edges, those that are symmetric, too.

    Near radii are 0, and far ones reach down as far as the outline (`with_arc` finds the arc).

    Args:
        found: of the image.
        shape: (rows, cols) of the image in the outline's unit.
    """
    left, right = _lines(found, -1), _lines(found, 1)
    pairs = [(one, other) for one in left for other in right]
    pairs += [(one, mirrored) for one in left for mirrored in _mirrored(one, found, 1)]
    pairs += [(mirrored, one) for one in right for mirrored in _mirrored(one, found, -1)]
    fans: list[Sector] = []
    if not len(found.all):
        return fans
    middle, end = float(np.median(found.all[:, 0])), float(found.all[:, 0].max())
    for (a, first), (b, second) in pairs:
        if not _NARROWEST < b - a < _WIDEST or abs(a + b) / 2 > _MOST_TILT:
            continue
        row, col = _crossing(a, first, b, second)
        if row < middle and -0.1 * shape[1] < col < 1.1 * shape[1] and row > -1.5 * shape[0]:
            fans.append(Sector(row, col, a, b, 0.0, end - row))
    return fans


def _crossing(a: float, first: float, b: float, second: float) -> tuple[float, float]:
    """Where two lines cos(angle) * col - sin(angle) * row = offset meet."""
    turn = np.sin(b - a)
    row = (first * np.cos(b) - second * np.cos(a)) / turn
    col = (first * np.sin(b) - second * np.sin(a)) / turn
    return float(row), float(col)


def _offset(angle: Any, points: Array) -> Array:
    return np.asarray(np.cos(angle) * points[:, 1] - np.sin(angle) * points[:, 0])


def _thinned(points: Array, most: int) -> Array:
    return np.asarray(points[np.linspace(0, len(points) - 1, min(len(points), most)).astype(int)])


def _score(beyond: Array, near: Array) -> Array:
    """Points near the curve, less points beyond it, over the last axis of signed distances.

    Args:
        beyond: of all points.
        near: of those that may lie on the curve.
    """
    on = np.clip(1.0 - (near / TOLERANCE) ** 2, 0.0, None).sum(axis=-1)
    return np.asarray(on - _BEYOND * (np.clip(beyond - TOLERANCE, 0, TOLERANCE).sum(axis=-1)))


def _lines(found: Outline, side: int) -> list[tuple[float, float]]:
    """(angle, offset) of up to seven lines for the left (-1) or right (1) edge, best first."""
    points = found.left if side < 0 else found.right
    if len(points) < 8:
        return []
    points = _thinned(points, 300)
    rng = np.random.default_rng(0)
    pair = rng.integers(0, len(points), (4 * _PAIRS, 2))
    step = points[pair[:, 1]] - points[pair[:, 0]]
    step *= np.where(step[:, :1] < 0, -1.0, 1.0)
    long = np.hypot(step[:, 0], step[:, 1]) > 0.08 * np.ptp(found.all[:, 0])
    angle = np.arctan2(step[:, 1], step[:, 0])
    fits = long & (side * angle > -0.2) & (np.abs(angle) < _STEEPEST)
    angle, anchor = angle[fits][:_PAIRS], points[pair[fits, 0]][:_PAIRS]
    if not len(angle):
        return []
    offset = _offset(angle, anchor)
    score = _line_scores(angle, offset, points, _thinned(found.all, 300), side)
    return _distinct(angle, offset, score, anchor)


def _line_scores(angle: Array, offset: Array, near: Array, every: Array, side: int) -> Array:
    def beyond(points: Array) -> Array:
        across = np.outer(np.cos(angle), points[:, 1]) - np.outer(np.sin(angle), points[:, 0])
        return np.asarray(side * (across - offset[:, None]))

    return _score(beyond(every), beyond(near))


def _distinct(
    angle: Array, offset: Array, score: Array, anchor: Array
) -> list[tuple[float, float]]:
    lines: list[tuple[float, float]] = []
    for i in np.argsort(-score, kind="stable"):
        same = any(
            abs(angle[i] - a) < 0.035
            and abs(np.cos(a) * anchor[i, 1] - np.sin(a) * anchor[i, 0] - o) < 2.5
            for a, o in lines
        )
        if not same:
            lines.append((float(angle[i]), float(offset[i])))
        if len(lines) == _LINES:
            break
    return lines


def _mirrored(line: tuple[float, float], found: Outline, side: int) -> list[tuple[float, float]]:
    """Up to two lines of the other side with the mirrored angle."""
    angle = -line[0]
    points = found.left if side < 0 else found.right
    if len(points) < 2:
        return []
    trial = np.unique(np.round(_offset(angle, points)))
    across, every = _offset(angle, points), _offset(angle, _thinned(found.all, 300))
    score = _score(side * (every - trial[:, None]), across - trial[:, None])
    order = np.argsort(-score, kind="stable")
    best = [order[0], *(i for i in order if abs(trial[i] - trial[order[0]]) > 3)][:2]
    return [(angle, float(trial[i])) for i in best]


def with_arc(fan: Sector, found: Outline) -> Sector:
    """The fan with the far radius on which most of the outline's lower points lie.

    Where none is seen, the fan reaches as far as the foreground.
    """
    near, every = _polar(found.bottom, fan, 0.02), _polar(found.all, fan, -0.01)
    if not len(every):
        return fan
    size = int(every.max()) + 4
    on = np.bincount(np.clip(near, 0, size - 1).astype(int), minlength=size)[:size].astype(float)
    on = np.convolve(on, [0.5, 1.0, 1.0, 0.5], "same")
    count = np.bincount(np.clip(every, 0, size - 1).astype(int), minlength=size)
    beyond = np.cumsum(count[::-1])[::-1]
    beyond = np.append(beyond[3:], [0, 0, 0])
    score = on - 0.5 * beyond
    best = int(np.argmax(score))
    seen = on[best] >= 8 and score[best] > 0
    total = np.cumsum(count)
    reach = int(np.searchsorted(total, 0.995 * total[-1])) + 1.0
    far = float(best) if seen else reach
    return Sector(fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right, 0.0, max(far, 4.0))


def _polar(points: Array, fan: Sector, margin: float) -> Array:
    """Distances from the apex of the points whose angle lies in the fan."""
    across, down = points[:, 1] - fan.apex_col, points[:, 0] - fan.apex_row
    angle = np.arctan2(across, down)
    inside = (angle > fan.angle_left + margin) & (angle < fan.angle_right - margin)
    return np.asarray(np.hypot(across, down)[inside])
