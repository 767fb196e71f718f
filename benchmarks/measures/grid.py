"""Traces of space-to-depth: a pattern of the patch's period that all of a model's images share."""

import numpy as np
import numpy.typing as npt


def grid_amplitude(images: npt.NDArray[np.uint8], period: int) -> float:
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
