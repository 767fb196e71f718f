"""Does a model repeat its training images? Nearest neighbours, and traces of space-to-depth.

A sample that is a copy lies much nearer to a training frame than frames of other patients do; so
the distances of samples are set beside those of held-out frames, which cannot be copies.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
"""(N, S, S) grey levels."""

SIDE = 64


@dataclass(frozen=True)
class Neighbours:
    """Each image's nearest of a set.

    Attributes:
        rms: (N,) least root mean square difference in grey levels of 0..255, at 64 x 64.
        correlation: (N,) greatest correlation within the fans, at 64 x 64.
        nearest: (N,) index of the one with the least difference.
    """

    rms: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64]
    nearest: npt.NDArray[np.int64]


def shrink(images: Images) -> npt.NDArray[np.float64]:
    """(N, 64, 64) means over blocks; the side must be a multiple of 64."""
    count, side, _ = images.shape
    block = side // SIDE
    blocks = images.reshape(count, SIDE, block, SIDE, block)
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float64)


def nearest_neighbours(images: Images, known: Images, *, same: bool = False) -> Neighbours:
    """The nearest of `known` to each of `images`; `same` leaves out an image's own index.

    Correlation is taken over the pixels that lie in the fan of either of the two, a pixel's mean
    over all of `known` subtracted first, so that the shape and shading that all share count little.
    """
    a, b = (shrink(x).reshape(len(x), -1) for x in (images, known))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    rms = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    mean = b.mean(axis=0)
    residuals = [(x - mean) * (mean > 1) for x in (a, b)]
    unit = [r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-9) for r in residuals]
    correlation = unit[0] @ unit[1].T
    if same:
        np.fill_diagonal(rms, np.inf)
        np.fill_diagonal(correlation, -1)
    return Neighbours(rms.min(1), correlation.max(1), rms.argmin(1))


def grid_amplitude(images: Images, period: int) -> float:
    """Root mean square, in grey levels, of the pattern of this period that all images share.

    Taken in a window in the middle, after subtracting each pixel's mean over a `period` x `period`
    neighbourhood: that removes the anatomy and leaves such a pattern whole. What is left without a
    pattern shrinks with the number of images, so compare equal numbers.
    """
    side = images.shape[1]
    size = side // 2 // period * period
    grey = images.astype(np.float64)
    sums = np.pad(grey.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    p = period
    box = (sums[:, p:, p:] - sums[:, :-p, p:] - sums[:, p:, :-p] + sums[:, :-p, :-p]) / p**2
    half = p // 2
    fine = grey[:, half : half + box.shape[1], half : half + box.shape[2]] - box
    top, left = side * 5 // 16 - half, side // 4 - half
    fine = fine[:, top : top + size, left : left + size]
    blocks = fine.reshape(len(images), size // p, p, size // p, p)
    return float(blocks.mean(axis=(0, 1, 3)).std())
