"""Find the fan in an ultrasound image: two edge lines, two arcs, one apex.

The foreground is cut from the background at the noise of the image's corners, its outline is read
row by row and column by column, and lines and arcs are placed on the outline by consensus
(Fischler and Bolles 1981, RANSAC) and refined together by robust least squares. Blood is black at
the fan's edges too, so an outline point inside the fan costs less than one outside of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from echogen.errors import DatasetError
from echogen.geometry.sector import Sector

Array = npt.NDArray[np.float64]
BoolHW = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]

MIN_AREA = 0.02
"""A fan covers at least this share of the image."""
MIN_AGREEMENT = 0.85
"""A fit that agrees less than this with the filled foreground is not a sector."""
_FEW, _VIDEO_FRAMES = 4, 24
_INWARD, _HALO = 12, 0.4
_MAX_ANGLE = np.deg2rad(85.0)


@dataclass(frozen=True)
class _Outline:
    """Where the foreground begins and ends, as (n, 2) points in mm, image borders left out."""

    left: Array
    right: Array
    top: Array
    bottom: Array


def fit_sector(images: Sequence[UInt8], spacing_mm: tuple[float, float]) -> Sector:
    """The fan of one image, or of several images of the same recording.

    Args:
        images: one or more (H, W) uint8 images of equal shape, apex up. Up to four are joined by
            their maximum, more by the 90th percentile of at most 24 of them.
        spacing_mm: (row, col) mm per pixel.

    Returns:
        The sector in mm. Where the image's border cuts the fan off, the missing part continues the
        lines and arcs that are seen.

    Raises:
        DatasetError: no image, shapes that differ, an empty image, or no fan in it. The message
            names no file: the caller knows it.
    """
    joined = _join(images)
    if not (spacing_mm[0] > 0 and spacing_mm[1] > 0):
        raise DatasetError(f"spacing must be positive (row, col) mm, found {spacing_mm}")
    filled = filled_foreground(joined)
    share = float(filled.mean())
    if share < MIN_AREA:
        raise DatasetError(
            f"expected a fan covering at least {MIN_AREA:.0%} of the image, found {share:.1%} of "
            "it brighter than the background"
        )
    outline = _outline(filled, spacing_mm)
    pixel = max(spacing_mm)
    start = _initial(outline, pixel)
    candidates = []
    for scale in (0.5 * pixel, 2.0 * pixel):
        sector = _with_radii(_refine(start, outline, scale, pixel), filled, spacing_mm)
        candidates.append((_iou(sector, filled, spacing_mm), sector))
        if candidates[-1][0] > 0.995:
            break
    best, sector = max(candidates, key=lambda found: found[0])
    if best < MIN_AGREEMENT:
        raise DatasetError(
            f"expected a fan, apex up; the best fan has an IoU of only {best:.2f} with the image's "
            f"foreground (at least {MIN_AGREEMENT} is needed)"
        )
    return sector


def agreement(sector: Sector, image: UInt8, spacing_mm: tuple[float, float]) -> float:
    """Intersection over union, 0 to 1, of the fan on the image with its filled foreground.

    Args:
        sector: the fan, mm.
        image: (H, W) uint8, apex up.
        spacing_mm: (row, col) mm per pixel.
    """
    return _iou(sector, filled_foreground(image), spacing_mm)


def filled_foreground(image: UInt8) -> BoolHW:
    """The image's foreground without its dark holes, as a shape to compare a fan with.

    Pixels above the `background_level`, by a 3 x 3 majority where that is not zero. Of these the
    largest connected component, and every other one of at least a tenth of its area (shadows may
    split a fan), thin strokes opened away. Then each column is filled between its first and last
    pixel, because every column of a fan, whatever its near radius, is one interval. Dark gaps that
    touch the fan's edge stay gaps.

    Compression surrounds a fan with a dim halo. Where the outermost two pixels are darker than four
    tenths of what lies 12 pixels further in (medians over all rows), the shape is taken again, at
    that level.

    Args:
        image: (H, W) uint8, apex up.

    Returns:
        (H, W) bool, all False for an empty image.
    """
    level = background_level(image)
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


def background_level(image: UInt8) -> int:
    """The grey level up to which a pixel is background: 0 where the background is black.

    The median plus three times the upper quartile's distance from it, over the two darkest corners
    of an eighth of the height and width; 64 at most.
    """
    rows, cols = (max(1, size // 8) for size in image.shape)
    corners = [
        image[np.ix_(r, c)].ravel()
        for r in (range(rows), range(image.shape[0] - rows, image.shape[0]))
        for c in (range(cols), range(image.shape[1] - cols, image.shape[1]))
    ]
    corners.sort(key=lambda values: float(np.mean(values)))
    median, upper = np.percentile(np.concatenate(corners[:2]), (50, 75))
    return int(min(np.ceil(median + 3 * (upper - median)), 64))


def _filled_above(image: UInt8, level: int) -> BoolHW:
    bright = image > level
    if level > 0:
        bright = ndimage.uniform_filter(bright.astype(np.float32), 3) > 0.5
    solid = _large_components(_large_components(bright) & _thick(bright))
    down = np.maximum.accumulate(solid, axis=0)
    up = np.maximum.accumulate(solid[::-1], axis=0)[::-1]
    return np.asarray(down & up)


def _floats(values: npt.NDArray[Any]) -> Array:
    return np.asarray(values, dtype=np.float64)


def _join(images: Sequence[UInt8]) -> UInt8:
    shapes = sorted({image.shape for image in images})
    if len(shapes) != 1 or len(shapes[0]) != 2 or min(shapes[0]) < 8:
        found = ", ".join(map(str, shapes)) or "no image"
        raise DatasetError(
            "expected (H, W) images of one shape, at least 8 x 8, to fit a sector to: " + found
        )
    if any(image.dtype != np.uint8 for image in images):
        raise DatasetError("expected uint8 images to fit a sector to, found another type")
    if len(images) <= _FEW:
        return np.asarray(np.max(np.stack(images), axis=0))
    chosen = np.linspace(0, len(images) - 1, min(len(images), _VIDEO_FRAMES)).round().astype(int)
    stack = np.stack([images[i] for i in chosen])
    rank = int(0.9 * (len(stack) - 1))
    return np.asarray(np.partition(stack, rank, axis=0)[rank])


def _large_components(solid: BoolHW) -> BoolHW:
    named, count = ndimage.label(solid)
    if count <= 1:
        return solid
    area = np.bincount(named.ravel())
    area[0] = 0
    return np.asarray((area >= 0.1 * area.max())[named])


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


def _outline(filled: BoolHW, spacing_mm: tuple[float, float]) -> _Outline:
    height, width = filled.shape
    row_mm, col_mm = spacing_mm
    rows = np.flatnonzero(filled.any(axis=1))
    cols = np.flatnonzero(filled.any(axis=0))
    first = filled[rows].argmax(axis=1)
    last = width - filled[rows, ::-1].argmax(axis=1)
    head = filled[:, cols].argmax(axis=0)
    foot = height - filled[::-1, cols].argmax(axis=0)

    def points(row: npt.NDArray[Any], col: npt.NDArray[Any], inside: BoolHW) -> Array:
        # A pixel is inside by its centre, so the edge lies half a pixel outside the outermost
        # centre on average: on that pixel's border.
        return _floats(np.stack([row * row_mm, col * col_mm], axis=1)[inside])

    return _Outline(
        left=points(rows + 0.5, first, first > 0),
        right=points(rows + 0.5, last, last < width),
        top=points(head, cols + 0.5, head > 0),
        bottom=points(foot, cols + 0.5, foot < height),
    )


def _consensus_line(points: Array, side: int, pixel: float) -> tuple[float, float]:
    """(angle, offset) of the edge line: cos(angle) * col - sin(angle) * row = offset.

    `side` is -1 for the left edge and 1 for the right; points beyond the line count against it.
    """
    points = points[np.linspace(0, len(points) - 1, min(len(points), 200)).astype(int)]
    pair = np.random.default_rng(0).integers(0, len(points), (600, 2))
    step = points[pair[:, 1]] - points[pair[:, 0]]
    step *= np.where(step[:, :1] < 0, -1.0, 1.0)
    far = step[:, 0] > 0.1 * np.ptp(points[:, 0])
    angle = np.arctan2(step[far, 1], step[far, 0])
    anchor = points[pair[far, 0]]
    offset = np.cos(angle) * anchor[:, 1] - np.sin(angle) * anchor[:, 0]
    beyond = side * (
        np.cos(angle)[:, None] * points[:, 1]
        - np.sin(angle)[:, None] * points[:, 0]
        - offset[:, None]
    )
    score = _support(beyond, 1.5 * pixel)
    if not score.size:
        raise _no_edges()
    score[np.abs(angle) > _MAX_ANGLE] = -np.inf
    best = int(np.argmax(score))
    return float(angle[best]), float(offset[best])


def _support(beyond: Array, tolerance: float) -> Array:
    """Points near the curve less points beyond it, over the last axis."""
    near = np.clip(1.0 - np.abs(beyond) / tolerance, 0.0, None)
    return np.asarray((near - 0.5 * (beyond > 2 * tolerance)).sum(axis=-1))


def _no_edges() -> DatasetError:
    return DatasetError(
        "expected two straight edges that meet above the image's content, found none"
    )


def _initial(outline: _Outline, pixel: float) -> Sector:
    if min(len(outline.left), len(outline.right)) < 8:
        raise _no_edges()
    left, left_offset = _consensus_line(outline.left, -1, pixel)
    right, right_offset = _consensus_line(outline.right, 1, pixel)
    if right - left < np.deg2rad(5.0):
        raise _no_edges()
    lines = np.array([[-np.sin(left), np.cos(left)], [-np.sin(right), np.cos(right)]])
    row, col = np.linalg.solve(lines, [left_offset, right_offset])
    everything = np.concatenate([outline.left, outline.right, outline.top, outline.bottom])
    longest = float(np.hypot(*(everything - (row, col)).T).max())
    if row > np.median(everything[:, 0]):
        raise _no_edges()
    sector = Sector(float(row), float(col), left, right, 0.0, longest)
    bottom = _between(outline.bottom, sector)
    if len(bottom) < 8:
        return sector
    radius = np.hypot(*(bottom - (row, col)).T)
    trial = np.unique(radius)[-400:]
    score = _support(radius[None, :] - trial[:, None], 1.5 * pixel)
    return Sector(float(row), float(col), left, right, 0.0, float(trial[np.argmax(score)]))


def _between(points: Array, sector: Sector) -> Array:
    """The points whose angle lies in the fan, 2% of its width away from the edges."""
    margin = 0.02 * (sector.angle_right - sector.angle_left)
    angle = np.arctan2(points[:, 1] - sector.apex_col, points[:, 0] - sector.apex_row)
    inside = (angle > sector.angle_left + margin) & (angle < sector.angle_right - margin)
    return _floats(points[inside])


def _refine(start: Sector, outline: _Outline, scale: float, pixel: float) -> Sector:
    """Apex, angles and far radius together, Cauchy loss of width `scale` mm."""
    reach = max(3.0 * pixel, 3.0 * scale)

    def edge(points: Array, angle: float) -> Array:
        across, down = points[:, 1] - start.apex_col, points[:, 0] - start.apex_row
        distance = np.abs(np.cos(angle) * across - np.sin(angle) * down)
        close = (distance < reach) & (np.hypot(across, down) < start.radius_far - reach)
        return _floats(points[close])

    left, right = edge(outline.left, start.angle_left), edge(outline.right, start.angle_right)
    bottom = _between(outline.bottom, start)
    radius = np.hypot(bottom[:, 0] - start.apex_row, bottom[:, 1] - start.apex_col)
    bottom = bottom[np.abs(radius - start.radius_far) < 2 * reach]
    if len(bottom) < 8:
        bottom = bottom[:0]
    if min(len(left), len(right)) < 8:
        return start

    def residuals(p: Array) -> Array:
        row, col, a, b, far = p
        return np.concatenate(
            [
                np.cos(a) * (left[:, 1] - col) - np.sin(a) * (left[:, 0] - row),
                np.cos(b) * (right[:, 1] - col) - np.sin(b) * (right[:, 0] - row),
                np.hypot(bottom[:, 0] - row, bottom[:, 1] - col) - far,
            ]
        )

    def jacobian(p: Array) -> Array:
        row, col, a, b, _ = p
        out = np.zeros((len(left) + len(right) + len(bottom), 5))
        n, m = len(left), len(left) + len(right)
        for part, points, angle, k in (
            (slice(0, n), left, a, 2),
            (slice(n, m), right, b, 3),
        ):
            out[part, 0], out[part, 1] = np.sin(angle), -np.cos(angle)
            across, down = points[:, 1] - col, points[:, 0] - row
            out[part, k] = -np.sin(angle) * across - np.cos(angle) * down
        distance = np.maximum(np.hypot(bottom[:, 0] - row, bottom[:, 1] - col), 1e-9)
        out[m:, 0], out[m:, 1] = (row - bottom[:, 0]) / distance, (col - bottom[:, 1]) / distance
        out[m:, 4] = -1.0
        return out

    first = np.array(
        [start.apex_row, start.apex_col, start.angle_left, start.angle_right, start.radius_far]
    )
    found = optimize.least_squares(
        residuals, first, jac=jacobian, loss="cauchy", f_scale=scale, x_scale="jac", max_nfev=60
    ).x
    row, col, a, b, far = (float(value) for value in found)
    if not (-_MAX_ANGLE < a < b < _MAX_ANGLE and far > 0):
        return start
    return Sector(row, col, a, b, 0.0, far)


def _with_radii(sector: Sector, filled: BoolHW, spacing_mm: tuple[float, float]) -> Sector:
    """The near and far radius of highest IoU with the filled foreground, apex and angles given."""
    height, width = filled.shape
    down = ((np.arange(height) + 0.5) * spacing_mm[0] - sector.apex_row)[:, None]
    across = ((np.arange(width) + 0.5) * spacing_mm[1] - sector.apex_col)[None, :]
    wedge = (down > 0) & (across >= down * np.tan(sector.angle_left))
    wedge &= across <= down * np.tan(sector.angle_right)
    radius = np.hypot(down, across)[wedge]
    inside = filled[wedge]
    step = 0.25 * min(spacing_mm)
    bins = (radius / step).astype(np.int64)
    good = np.bincount(bins, weights=inside)
    bad = np.bincount(bins) - good
    gain = np.cumsum(good - bad)
    far_bin = int(np.argmax(gain))
    near_bin = int(np.argmin(np.concatenate([[0.0], gain[: far_bin + 1]])))
    far = max((far_bin + 1) * step, step)
    if far_bin >= len(gain) - 2 or abs(far - sector.radius_far) < min(spacing_mm):
        # The border cuts the arc off, or the outline placed it finer than the pixels can.
        far = sector.radius_far
    near = near_bin * step if near_bin * step > 1.5 * min(spacing_mm) else 0.0
    return Sector(
        sector.apex_row, sector.apex_col, sector.angle_left, sector.angle_right,
        min(near, 0.9 * far), far,
    )  # fmt: skip


def _iou(sector: Sector, filled: BoolHW, spacing_mm: tuple[float, float]) -> float:
    fan = sector.mask((filled.shape[0], filled.shape[1]), spacing_mm)
    union = int((fan | filled).sum())
    return float((fan & filled).sum() / union) if union else 0.0
