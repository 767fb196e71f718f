"""Grey levels of tissue: contrast between cavity and wall, and the speckle of the wall.

Images are log-compressed grey levels, whose scale differs between scanners: compare within one.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 64
LEAST_PIXELS = 50

Grey = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


def gcnr(image: Grey, first: Bools, second: Bools) -> float:
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


def speckle_snr(image: Grey, region: Bools) -> float:
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
