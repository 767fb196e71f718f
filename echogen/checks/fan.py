"""The fan of a stored sample as a mask, from the columns `sector` and `aspect`."""

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
        (h, w) bool.
    """
    if not (np.isfinite(sector).all() and np.isfinite(aspect)):
        return np.zeros(shape, np.bool_)
    row, col, left, right, near, far = (float(value) for value in sector)
    fan = Sector(row + 0.5, (col + 0.5) * float(aspect), left, right, near, far)
    return fan.mask(shape, (1.0, float(aspect)))
