"""What of an ultrasound picture is scanned, and what was drawn around it.

Around a fan lie black or grey background, bars of a screen, text, depth ticks, an ECG trace, and
the halo of compression. Of a clip, only what moves is taken.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import DatasetError

BoolHW = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]

_FEW, _MOST_FRAMES = 4, 64
_MOVES = 8
"""From this number of frames on, what stands still is told from what moves."""
_STILL = 0.3
"""A pixel whose range over the clip is a smaller share of its brightness is drawn darker."""
_EVEN = 0.85
"""Share of a row's pixels at its median grey, from which on it is even."""
_ENOUGH = 50
"""Pixels outside of the fan that its background is told from, at least."""
_FLAT = 2
"""Grey levels within 5 x 5 pixels that a drawn surface, compressed, varies by at most."""


def joined(images: Sequence[UInt8]) -> UInt8:
    """(H, W) one image of all that several images of one recording show.

    Up to four are joined by their maximum, more by the 90th percentile of at most 64 of them,
    evenly spaced. Of eight or more, what stands still (text, ticks) is darkened; compression makes
    still pixels flicker a little, so they are told by their range relative to their brightness.

    Raises:
        DatasetError: no image, shapes that differ, or another type than uint8.
    """
    shapes = sorted({image.shape for image in images})
    if len(shapes) != 1 or len(shapes[0]) != 2 or min(shapes[0]) < 8:
        found = ", ".join(map(str, shapes)) or "no image"
        raise DatasetError(
            "expected (H, W) images of one shape, at least 8 x 8, to fit a sector to: " + found
        )
    if any(image.dtype != np.uint8 for image in images):
        raise DatasetError("expected uint8 images to fit a sector to, found another type")
    if len(images) <= _FEW:
        return np.asarray(np.max(np.stack(list(images)), axis=0))
    chosen = np.linspace(0, len(images) - 1, min(len(images), _MOST_FRAMES)).round().astype(int)
    stack = np.stack([images[i] for i in chosen])
    rank = int(0.9 * (len(stack) - 1))
    bright = np.asarray(np.partition(stack, rank, axis=0)[rank])
    if len(stack) < _MOVES:
        return bright
    extent = (stack.max(axis=0) - stack.min(axis=0)).astype(np.float32)
    moving = ndimage.maximum_filter(extent, 3)
    if np.percentile(moving, 90) < 16:  # a still picture
        return bright
    shown = np.clip(moving / (_STILL * np.maximum(bright, 1)), 0, 1)
    return np.asarray((bright * shown).astype(np.uint8))


def without_background(image: UInt8, outside: BoolHW) -> tuple[UInt8, int]:
    """The image with bars, margins and a grey background made black, and the level of what is left.

    Even surfaces that touch the border are taken out; then, within the rows and columns that are
    not even, a plane is fitted to what lies outside of the fan, and subtracted. An image on black
    stays as it is, and its level is 0.

    Args:
        image: (H, W) uint8.
        outside: (H, W) bool, what surely is not the fan's.
    """
    image = _without_bars(image)
    r0, r1, c0, c1 = _uneven(image)
    if min(r1 - r0, c1 - c0) < 8:
        return image, background_level(image)
    box, around = image[r0:r1, c0:c1], outside[r0:r1, c0:c1]
    if around.sum() < _ENOUGH:
        return image, background_level(box)
    plane = _background_plane(box, around)
    if plane is not None:
        box = np.clip(np.rint(box - plane), 0, 255).astype(np.uint8)
    out = image.copy()
    out[r0:r1, c0:c1] = box
    for part in (np.s_[:r0], np.s_[r1:], np.s_[r0:r1, :c0], np.s_[r0:r1, c1:]):
        some = out[part]
        if some.size and (grey := int(np.median(some))) > 0:
            out[part] = np.where(some <= grey + 6, 0, some)
    return out, _level(box[around])


def _without_bars(image: UInt8) -> UInt8:
    high = ndimage.maximum_filter(image, 5, mode="nearest")
    low = ndimage.minimum_filter(image, 5, mode="nearest")
    flat = (high - low <= _FLAT) & (low > _FLAT)
    if not flat.any():
        return image
    named, count = ndimage.label(flat)
    border = np.zeros(count + 1, np.bool_)
    for line in (named[0], named[-1], named[:, 0], named[:, -1]):
        border[line] = True
    border[0] = False
    area = np.bincount(named.ravel(), minlength=count + 1)
    bars = np.flatnonzero(border & (area >= 0.003 * image.size))
    if not len(bars):
        return image
    inner = np.isin(named, bars)
    grown = ndimage.maximum_filter(inner.view(np.uint8), 7).view(np.bool_)
    # Up to three pixels around: of the bar's own grey, or on the way from it to black.
    top = ndimage.maximum_filter(np.where(inner, image, 0), 7)
    out = image.copy()
    out[grown & (image <= top + _FLAT)] = 0
    return out


def _uneven(image: UInt8) -> tuple[int, int, int, int]:
    """(row from, to, col from, to) of the image without border rows and columns of one grey."""
    bounds = []
    for lines in (image, image.T):
        middle = np.median(lines, axis=1)[:, None]
        even = (np.abs(lines - middle) <= 3).mean(axis=1) > _EVEN
        rest = np.flatnonzero(~even)
        bounds += [int(rest[0]), int(rest[-1]) + 1] if len(rest) else [0, 0]
    return bounds[0], bounds[1], bounds[2], bounds[3]


def _background_plane(box: UInt8, around: BoolHW) -> npt.NDArray[np.float64] | None:
    """(H, W) grey of the background; None where it is black."""
    height, width = box.shape
    rows, cols = np.nonzero(around)
    step = max(1, len(rows) // 4000)
    rows, cols = rows[::step], cols[::step]
    levels = box[rows, cols].astype(np.float64)
    terms = np.stack([np.ones(len(rows)), rows / height, cols / width], axis=1)
    plane = np.array([np.median(levels), 0.0, 0.0])
    if plane[0] <= 2:
        return None
    for _ in range(8):
        rest = levels - terms @ plane
        near = np.abs(rest) <= max(4.0, 2.5 * 1.48 * float(np.median(np.abs(rest))))
        if near.sum() < 12:
            return None
        plane = np.linalg.lstsq(terms[near], levels[near], rcond=None)[0]
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    return np.asarray(plane[0] + plane[1] * down + plane[2] * across)


def background_level(image: UInt8) -> int:
    """The grey level up to which a pixel is background: 0 where the background is black.

    From the two darkest corners of an eighth of the height and width; 64 at most.
    """
    rows, cols = (max(1, size // 8) for size in image.shape)
    corners = [
        image[np.ix_(r, c)].ravel()
        for r in (range(rows), range(image.shape[0] - rows, image.shape[0]))
        for c in (range(cols), range(image.shape[1] - cols, image.shape[1]))
    ]
    corners.sort(key=lambda values: float(np.mean(values)))
    return _level(np.concatenate(corners[:2]))


def _level(background: UInt8) -> int:
    """The median plus three times the upper quartile's distance from it; 64 at most."""
    median, upper = np.percentile(background, (50, 75))
    return int(min(np.ceil(median + 3 * (upper - median)), 64))


def components(mask: BoolHW, least: float) -> BoolHW:
    """The connected parts (diagonals count) of at least `least` of the largest one's area."""
    named, count = ndimage.label(mask, np.ones((3, 3)))
    if count <= 1:
        return mask
    area = np.bincount(named.ravel())
    area[0] = 0
    return np.asarray((area >= least * area.max())[named])


def opened(mask: BoolHW, size: int = 3) -> BoolHW:
    """Without strokes thinner than `size` pixels."""
    low = ndimage.minimum_filter(mask.view(np.uint8), size, mode="nearest")
    return np.asarray(ndimage.maximum_filter(low, size, mode="nearest").view(np.bool_))


def reduced(image: UInt8, factors: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The means of blocks of (rows, cols) pixels; what fills no block at the end is left out."""
    fr, fc = factors
    rows, cols = image.shape[0] // fr * fr, image.shape[1] // fc * fc
    if factors == (1, 1):
        return image.astype(np.float32)
    first: npt.NDArray[Any] = image[:rows, :cols].reshape(rows // fr, fr, cols)
    summed = first.sum(axis=1, dtype=np.uint32).reshape(rows // fr, cols // fc, fc).sum(axis=2)
    return np.asarray(summed / np.float32(fr * fc), dtype=np.float32)
