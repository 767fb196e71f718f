"""Texture of a region of any shape: its grain, its spectrum, its speckle's correlation.

The regions that are painted have no room for the rectangles of a periodogram, so powers are those
of differences of masked Gaussian blurs, one octave each, and correlations are sums over the pairs
of pixels that lie in the region. Depth changes ultrasound's texture: bands of depth are kept
apart. A band with too few pixels is nan.
"""

import numpy as np
import numpy.typing as npt

from echogen.measures.regions import Bools, Floats, Image, masked_blur, polar

OCTAVES = (1.0, 2.0, 4.0, 8.0)
LEAST_PIXELS = 200
LEAST_POWER = 1.0 / 12.0


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


def log_spectrum(image: Image, mask: Bools, bands: npt.NDArray[np.int64]) -> Floats:
    """Power by octave of spatial frequency and by depth, in decibels.

    Octave k is what a masked Gaussian blur of OCTAVES[k] pixels removes from the blur before it;
    the finest comes first. Compare two with `scores.rms`: the log-spectrum distance.

    Args:
        image: (h, w) grey levels.
        mask: (h, w) bool, the region.
        bands: (h, w) of `depth_bands`.

    Returns:
        (bands, octaves) dB of grey levels squared, not below that of rounding to whole levels;
        nan where a band has fewer than LEAST_PIXELS pixels of the region.
    """
    count = int(bands.max()) + 1
    powers = np.full((count, len(OCTAVES)), np.nan)
    finer = image.astype(np.float64)
    for octave, sigma in enumerate(OCTAVES):
        coarser = masked_blur(image, mask, sigma)
        for band in range(count):
            inside = mask & (bands == band)
            if inside.sum() >= LEAST_PIXELS:
                power = ((finer - coarser)[inside] ** 2).mean()
                powers[band, octave] = 10 * np.log10(max(float(power), LEAST_POWER))
        finer = coarser
    return powers


def speckle_correlation(
    image: Image, mask: Bools, sector: Floats, aspect: float, bands: int = 3, lags: int = 8
) -> Floats:
    """Autocorrelation of speckle along the beams and across them, by depth.

    Structure is removed first (a masked blur of 4 pixels); the rest is resampled in (depth, beam),
    since a row of the image is not across the beams at the flanks, and correlated over the pairs
    of the region: r(k) = sum f(p) f(p + k) / sqrt(sum f(p)^2 sum f(p + k)^2).

    Args:
        image: (h, w) grey levels.
        mask: (h, w) bool, the region.
        sector: (6,) the fan, in the image's pixels.
        aspect: displayed width of a pixel over its height.
        bands: equal ranges of depth.
        lags: the largest lag, rows.

    Returns:
        (2, bands, lags): axial and lateral, lag 1 first; nan where there are fewer than
        LEAST_PIXELS pairs. Compare two with `scores.rms`.
    """
    fluctuation = np.where(mask, image - masked_blur(image, mask, 4.0), 0.0)
    edges = np.linspace(float(sector[4]), float(sector[5]), bands + 1)
    found = np.full((2, bands, lags), np.nan)
    for band in range(bands):
        radii = (float(edges[band]), float(edges[band + 1]))
        values, valid = polar(fluctuation, mask, sector, aspect, radii)
        for axis, (v, ok) in enumerate(((values, valid), (values.T, valid.T))):
            found[axis, band] = [_correlation(v, ok, lag) for lag in range(1, lags + 1)]
    return found


def _correlation(values: Floats, valid: Bools, lag: int) -> float:
    """Of pairs `lag` rows apart; values are 0 where not valid."""
    pairs = valid[:-lag] & valid[lag:]
    if pairs.sum() < LEAST_PIXELS:
        return float("nan")
    first, second = values[:-lag][pairs], values[lag:][pairs]
    power = float((first**2).sum() * (second**2).sum())
    return float((first * second).sum()) / power**0.5 if power > 0 else 0.0
