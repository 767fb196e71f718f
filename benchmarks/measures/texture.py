"""Spectrum and speckle of a region by depth, and steps of brightness across the edge of paint.

The regions that are painted have no room for the rectangles of a periodogram, so powers are those
of differences of masked Gaussian blurs, one octave each, and correlations are sums over the pairs
of pixels that lie in the region. Depth changes ultrasound's texture: bands of depth are kept
apart. A band with too few pixels is nan.

A fan is given as in the store: six values on the image's own grid (apex row and col in pixel
indices, angles left and right in radians, radii near and far in rows) and the pixel aspect, the
displayed width of a pixel over its height. Lengths along and across beams are in rows.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.measures.texture import Bools, Floats, Image, check_region, masked_blur

OCTAVES = (1.0, 2.0, 4.0, 8.0)
LEAST_PIXELS = 200
LEAST_POWER = 1.0 / 12.0


def depth_bands(shape: tuple[int, int], sector: Floats, aspect: float, count: int) -> Image:
    """Which of `count` equal ranges of depth each pixel lies in.

    Args:
        shape: (h, w).
        sector: (6,) the fan.
        aspect: of a pixel.
        count: bands between the near and the far radius.

    Returns:
        (h, w) int, 0 the shallowest; -1 above the near or below the far radius.
    """
    rows, cols = np.indices(shape, dtype=np.float64)
    radius = np.hypot(rows - sector[0], (cols - sector[1]) * aspect)
    near, far = float(sector[4]), float(sector[5])
    band = np.floor((radius - near) / (far - near) * count)
    inside = (radius >= near) & (radius <= far)
    return np.where(inside, np.minimum(band, count - 1), -1).astype(np.int64)


def polar(
    image: Image, mask: Bools, sector: Floats, aspect: float, radii: tuple[float, float]
) -> tuple[Floats, Bools]:
    """A range of depths resampled along beams: rows are depths, columns are beams.

    Linear interpolation, one row apart in depth, and one row apart along the arc in the middle of
    the range, so that lags along and across beams are in the same unit.

    Args:
        image: (h, w).
        mask: (h, w) bool, the region.
        sector: (6,) the fan.
        aspect: of a pixel.
        radii: nearest and farthest depth, rows.

    Returns:
        (depths, beams) values, 0 where not valid, and (depths, beams) bool, True where all four
        pixels that were interpolated lie in the region.

    Raises:
        UsageError: the shapes differ.
    """
    check_region(image, mask)
    depth = np.arange(radii[0], radii[1])
    angle = np.arange(float(sector[2]), float(sector[3]), 2.0 / max(sum(radii), 2.0))
    rows = sector[0] + depth[:, None] * np.cos(angle)
    cols = sector[1] + depth[:, None] * np.sin(angle) / aspect
    share = ndimage.map_coordinates(
        mask.astype(np.float64), [rows, cols], order=1, mode="grid-constant"
    )
    valid = share > 1.0 - 1e-9
    values = np.where(mask, image, 0).astype(np.float64)
    sampled = ndimage.map_coordinates(values, [rows, cols], order=1, mode="grid-constant")
    return np.where(valid, sampled, 0.0), valid


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


def seam_steps(image: Image, hidden: Bools, fan: Bools, width: float = 3.0) -> Floats:
    """Steps of mean brightness across the border, painted minus kept, one for each place on it.

    Each side's brightness is its blur alone (Gaussian of `width`), so speckle is averaged away
    and what is left is a change of brightness over a few pixels.

    Args:
        image, hidden, fan: as in `seam_gradient`.
        width: of the Gaussian, pixels.

    Returns:
        (K,) grey levels at the painted pixels that touch a kept one, in row-major order.

    Raises:
        UsageError: the shapes differ.
    """
    check_region(image, hidden)
    check_region(image, fan)
    painted, kept = hidden & fan, ~hidden & fan
    border = painted & ndimage.binary_dilation(kept)
    inner = masked_blur(image, painted, width, at=border)
    outer = masked_blur(image, kept, width, at=border)
    return np.asarray((inner - outer)[border], dtype=np.float64)
