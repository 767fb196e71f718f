"""How far a found fan is from the true one, and how well it covers an image's foreground."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.geometry.sector import Sector

_INWARD, _HALO = 12, 0.4


@dataclass(frozen=True)
class FanError:
    """Between two fans.

    Attributes:
        apex: distance between the apexes, a share of the true far radius.
        angle: the larger difference of the edge rays' angles, degrees.
        far: difference of the far radii, a share of the true one.
    """

    apex: float
    angle: float
    far: float


def fan_error(found: Sector, truth: Sector) -> FanError:
    away = np.hypot(found.apex_row - truth.apex_row, found.apex_col - truth.apex_col)
    turned = (found.angle_left - truth.angle_left, found.angle_right - truth.angle_right)
    return FanError(
        apex=float(away / truth.radius_far),
        angle=float(np.rad2deg(np.abs(turned).max())),
        far=float(abs(found.radius_far - truth.radius_far) / truth.radius_far),
    )


def foreground_iou(
    sector: Sector, image: npt.NDArray[np.uint8], spacing: tuple[float, float]
) -> float:
    """Intersection over union, 0 to 1, of a fan with a clean image's filled foreground."""
    fan, filled = sector.mask(image.shape, spacing), filled_foreground(image)  # type: ignore[arg-type]
    union = int((fan | filled).sum())
    return float((fan & filled).sum() / union) if union else 0.0


def filled_foreground(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """The shape of a scan on a dark background: what is brighter, each column filled.

    A yardstick of its own, whatever a fit may look at. It holds for clean fans with full echoes
    alone: dropout at an edge hollows it out, and a burnt-in overlay grows it. Thin strokes are
    opened away. Compression surrounds a fan with a dim halo: where the outermost two pixels are
    darker than four tenths of what lies 12 pixels further in (medians over all rows), the shape is
    taken again, at that level.

    Args:
        image: (H, W) uint8, apex up.

    Returns:
        (H, W) bool.
    """
    level = _background(image)
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
    step = float(np.median(inner)) - level if len(inner) else 0.0
    if step > 0 and float(np.median(outer)) - level < _HALO * step:
        return _filled_above(image, level + int(_HALO * step))
    return filled


def _background(image: npt.NDArray[np.uint8]) -> int:
    rows, cols = (max(1, size // 8) for size in image.shape)
    corners = [image[r, c] for r in (slice(rows), slice(-rows, None))
               for c in (slice(cols), slice(-cols, None))]  # fmt: skip
    darkest = sorted(corners, key=np.mean)[:2]
    median, upper = np.percentile(np.concatenate([corner.ravel() for corner in darkest]), (50, 75))
    return int(min(np.ceil(median + 3 * (upper - median)), 64))


def _filled_above(image: npt.NDArray[np.uint8], level: int) -> npt.NDArray[np.bool_]:
    bright = image > level
    if level > 0:
        bright = ndimage.uniform_filter(bright.astype(np.float32), 3) > 0.5
    opened = ndimage.binary_opening(_column_filled(bright), np.ones((5, 5)))
    near = ndimage.binary_dilation(opened, np.ones((7, 7)))
    for _ in range(8):  # gives a pointed apex back, which the opening blunts
        near[:-1] |= near[1:]
    return _column_filled(_large(_large(bright) & near))


def _column_filled(bright: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    down = np.maximum.accumulate(bright, axis=0)
    return np.asarray(down & np.maximum.accumulate(bright[::-1], axis=0)[::-1])


def _large(bright: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    named, count = ndimage.label(bright)
    if count <= 1:
        return bright
    area = np.bincount(named.ravel())
    area[0] = 0
    return np.asarray((area >= 0.1 * area.max())[named])
