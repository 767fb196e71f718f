"""Grey levels of regions of any shape: contrast, speckle, grain, and the border of paint.

Images are log-compressed, and their scale differs between scanners: compare within one. What lies
outside of a region is never looked at. The fan's own edge is a border of the anatomy, not of the
painting, and is left out.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import UsageError

Image = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 64
LEAST_PIXELS = 50


def masked_blur(image: Image, mask: Bools, sigma: float, at: Bools | None = None) -> Floats:
    """A Gaussian blur of a region alone: blur(image * mask) / blur(mask).

    Args:
        image: (h, w).
        mask: (h, w) bool, the region that is averaged over.
        sigma: of the Gaussian, pixels.
        at: (h, w) bool, where the blur is wanted, near the region; the region itself if None.

    Returns:
        (h, w) float64, 0 where the blur is not wanted or the region is out of reach (4 sigma).

    Raises:
        UsageError: the shapes differ.
    """
    check_region(image, mask)
    values = np.where(mask, image, 0).astype(np.float64)
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma, mode="constant")
    blurred = ndimage.gaussian_filter(values, sigma, mode="constant")
    wanted = (mask if at is None else at) & (weight > 0)
    values[:] = 0
    np.divide(blurred, weight, out=values, where=wanted)
    return values


def grain(image: Image, mask: Bools, sigma: float = 2.0) -> float:
    """Power of what a small blur removes, within a region.

    Divide the painted by the true: 1 is right, less is too smooth.

    Args:
        image: (h, w) grey levels.
        mask: (h, w) bool, the region.
        sigma: of the blur, pixels.

    Returns:
        Grey levels squared; nan for an empty region.
    """
    removed = (image - masked_blur(image, mask, sigma))[mask]
    return float((removed**2).mean()) if removed.size else float("nan")


def seam_gradient(image: Image, hidden: Bools, fan: Bools) -> float:
    """Mean absolute difference of neighbours of which one is kept and one is painted.

    Neighbours share a side, so every pair crosses the border and none runs along it; a slanted
    border is crossed by pairs in rows and pairs in columns. Divide by the same of the truth: 1 is
    right, more is a visible seam, less is a border smoother than tissue is.

    Args:
        image: (h, w) grey levels.
        hidden: (h, w) bool, True where painted.
        fan: (h, w) bool; pairs with a pixel outside do not count.

    Returns:
        Grey levels; nan where no pair is left.

    Raises:
        UsageError: the shapes differ.
    """
    check_region(image, hidden)
    check_region(image, fan)
    levels = image.astype(np.float64)
    crossings = []
    for axis in (0, 1):
        crosses = np.diff(hidden.astype(np.int8), axis=axis) != 0
        both = np.delete(fan, -1, axis) & np.delete(fan, 0, axis)
        crossings.append(np.abs(np.diff(levels, axis=axis))[crosses & both])
    steps = np.concatenate(crossings)
    return float(steps.mean()) if steps.size else float("nan")


def check_region(image: Image, mask: Bools) -> None:
    """Refuses an image and a region that do not fit.

    Raises:
        UsageError: the shapes differ, or the region is not bool.
    """
    if image.ndim != 2 or mask.shape != image.shape or mask.dtype != np.bool_:
        raise UsageError(
            "image and region: expected (h, w) and (h, w) bool, "
            f"found {image.shape} and {mask.shape} {mask.dtype}"
        )


def gcnr(image: Image, first: Bools, second: Bools) -> float:
    """Generalised contrast-to-noise ratio: 1 - the overlap of two regions' histograms.

    Rodriguez-Molares et al., "The Generalized Contrast-to-Noise Ratio: A Formal Definition for
    Lesion Detectability", IEEE TUFFC 67 (2020) 745-759. It does not change under monotonic
    compression, but for the width of the 64 bins.

    Args:
        image: (h, w) grey levels, 0 to 255.
        first, second: (h, w) bool.

    Returns:
        0 (alike) to 1 (apart); nan where a region has fewer than LEAST_PIXELS pixels.
    """
    if min(first.sum(), second.sum()) < LEAST_PIXELS:
        return math.nan
    edges = np.linspace(0, 256, BINS + 1)
    a, b = (np.histogram(image[region], edges)[0] / region.sum() for region in (first, second))
    return float(1 - np.minimum(a, b).sum())


def speckle_snr(image: Image, region: Bools) -> float:
    """Mean over standard deviation of a region's grey levels.

    Fully developed speckle has 1.91 before log compression; after it the value depends on the
    scanner's settings.

    Returns:
        nan where the region has fewer than LEAST_PIXELS pixels, or one grey level.
    """
    if region.sum() < LEAST_PIXELS:
        return math.nan
    levels = image[region].astype(np.float64)
    spread = float(levels.std())
    return float(levels.mean()) / spread if spread > 0 else math.nan
