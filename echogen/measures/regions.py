"""Filters and coordinates for a region of any shape: what lies outside it is never looked at.

A fan is given as in the store: six values on the image's own grid (apex row and col in pixel
indices, angles left and right in radians, radii near and far in rows) and the pixel aspect, the
displayed width of a pixel over its height. Lengths along and across beams are in rows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import UsageError

Image = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
