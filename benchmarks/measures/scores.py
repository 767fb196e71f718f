"""Proper scores of samples against the one truth that is known (Gneiting & Raftery 2007).

For a distance d of negative type, samples X_i and the truth y,

    S = mean_i d(X_i, y) - 1/2 mean_{i != j} d(X_i, X_j)

is least in expectation when the samples come from the distribution of the truth. The second mean
leaves out i = j, which makes S unbiased for any number of samples ("fair", Ferro 2014): four
samples are neither favoured nor punished against eight. With d the Euclidean distance of images
S is the energy score, with the absolute difference of a pixel it is the CRPS, and with the
distance of a statistic (a spectrum, a histogram) it is the energy score of that statistic. The
plain distance to the truth is not proper: it rewards samples that are all alike.

Gneiting & Raftery, JASA 102 (2007) 359-378, section 5.1; Ferro, QJRMS 140 (2014) 1917-1923.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from echogen.errors import UsageError
from echogen.measures.texture import Floats, Image

Feature = TypeVar("Feature")


@dataclass(frozen=True)
class Distances:
    """Distances of the samples of one frame.

    Attributes:
        to_truth: (m,) of each sample to the truth.
        between: (m, m) of the samples to each other, symmetric, zero on the diagonal.
    """

    to_truth: Floats
    between: Floats

    @property
    def spread(self) -> float:
        """Mean distance of two different samples.

        Raises:
            UsageError: there are fewer than two.
        """
        count = len(self.to_truth)
        if count < 2:
            raise UsageError(f"a score needs two samples of a frame or more, found {count}")
        return float(self.between.sum() / (count * (count - 1)))

    @property
    def score(self) -> float:
        """The fair energy score; lower is better, and its unit is that of the distance."""
        return float(self.to_truth.mean()) - 0.5 * self.spread


def distances(
    samples: Sequence[Feature], truth: Feature, metric: Callable[[Feature, Feature], float]
) -> Distances:
    """Every distance among samples and truth.

    Args:
        samples: m images, or statistics of images.
        truth: the same of the truth.
        metric: symmetric, of negative type for the score to be proper: `rms`, `absolute` and
            `grey_levels` are.
    """
    count = len(samples)
    between = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            between[i, j] = between[j, i] = metric(samples[i], samples[j])
    return Distances(np.array([metric(sample, truth) for sample in samples]), between)


def rms(a: Image, b: Image) -> float:
    """Root mean square difference: the Euclidean distance over sqrt(number of values).

    Values that are not finite in either are left out; nan where nothing is left.
    """
    difference = _differences(a, b)
    return float(np.sqrt((difference**2).mean())) if difference.size else float("nan")


def absolute(a: Image, b: Image) -> float:
    """Mean absolute difference; of pixels, it makes the score the mean CRPS over the pixels.

    Values that are not finite in either are left out; nan where nothing is left.
    """
    difference = _differences(a, b)
    return float(np.abs(difference).mean()) if difference.size else float("nan")


def grey_levels(a: Image, b: Image) -> float:
    """Wasserstein-1 distance of two sets of grey levels, whatever their number and order.

    Raises:
        UsageError: a set is empty.
    """
    if not a.size or not b.size:
        raise UsageError(f"grey levels: expected two regions, found {a.size} and {b.size} pixels")
    return float(stats.wasserstein_distance(a.ravel(), b.ravel()))


def _differences(a: Image, b: Image) -> Floats:
    if a.shape != b.shape:
        raise UsageError(f"distance: expected equal shapes, found {a.shape} and {b.shape}")
    difference = a.astype(np.float64) - b.astype(np.float64)
    return np.asarray(difference[np.isfinite(difference)], dtype=np.float64)
