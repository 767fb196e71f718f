"""The fan of a stored sample as a mask, from the columns `sector` and `aspect`."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from echogen.geometry.sector import Sector


def fan_mask(
    sector: npt.NDArray[np.floating], aspect: float, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Which pixels lie in the fan; none where it is not known.

    Args:
        sector: (6,) as in the store: apex row and col in pixel indices, angles left and right in
            radians, radii near and far in rows.
        aspect: displayed width of a pixel over its height.
        shape: (h, w).

    Returns:
        (h, w) bool, read-only: copies of a frame share it.
    """
    return _fan_mask(tuple(float(value) for value in sector), float(aspect), shape)


@lru_cache(maxsize=8)
def _fan_mask(
    sector: tuple[float, ...], aspect: float, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    if np.isfinite([*sector, aspect]).all():
        row, col, left, right, near, far = sector
        fan = Sector(row + 0.5, (col + 0.5) * aspect, left, right, near, far)
        mask = fan.mask(shape, (1.0, aspect))
    mask.flags.writeable = False
    return mask
