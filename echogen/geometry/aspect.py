"""The fan of an image whose pixels' shape is unknown, such as a generated one.

A frame that was stretched to a square shows its fan as an ellipse, which no fan fits on square
pixels. The aspect at which one fits best is therefore fitted, too: at a few values, then at the top
of the parabola through the best three.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.errors import DatasetError
from echogen.geometry.fit import agreement, filled_foreground, fit_sector
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, sector_on_grid

ASPECTS = (0.75, 0.9, 1.05, 1.2, 1.35, 1.5)
"""Tried first; the frames of CAMUS, stretched to a square, lie between 1.0 and 1.42."""
MOST_OUTSIDE = 0.01
"""A fan that leaves more than this share of the foreground outside is not taken for the image's."""


@dataclass(frozen=True)
class FittedFan:
    """A fan with the shape of the pixels that it was found on.

    Attributes:
        sector: in heights of a pixel, from the image's outer corner.
        aspect: width of a pixel over its height.
        agreement: IoU with the filled foreground, 0 to 1. Dark parts of a fan lower it.
        outside: share of the filled foreground that lies outside of the fan, 0 to 1.
    """

    sector: Sector
    aspect: float
    agreement: float
    outside: float

    def mask(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(rows, cols) bool, True in the fan."""
        return self.sector.mask(shape, (1.0, self.aspect))

    def on_grid(self) -> npt.NDArray[np.float32]:
        """(6,) the fan as the store records it: pixels whose centres are whole numbers, radians."""
        return sector_on_grid(self.sector, Grid((1, 1), (1.0, self.aspect)))[0]


def fit_fan(image: npt.NDArray[np.uint8], aspect: float | None = None) -> FittedFan | None:
    """The fan of one image, or None where none fits or too much of the image lies outside of it.

    Args:
        image: (H, W) uint8, apex up.
        aspect: width of a pixel over its height; None where that is unknown, and fitted.
    """
    if aspect is not None:
        best = _fit(image, aspect)
    else:
        found = [_fit(image, tried) for tried in ASPECTS]
        best = max(found, key=lambda fan: fan.agreement if fan else 0.0)
        refined = _fit(image, _top([fan.agreement if fan else 0.0 for fan in found]))
        if best and refined and refined.agreement > best.agreement:
            best = refined
    return best if best and best.outside <= MOST_OUTSIDE else None


def _fit(image: npt.NDArray[np.uint8], aspect: float) -> FittedFan | None:
    spacing = (1.0, aspect)
    try:
        sector = fit_sector([image], spacing)
    except DatasetError:
        return None
    fan, filled = sector.mask((image.shape[0], image.shape[1]), spacing), filled_foreground(image)
    outside = float((filled & ~fan).sum() / filled.sum())
    return FittedFan(sector, aspect, agreement(sector, image, spacing), outside)


def _top(values: list[float]) -> float:
    """The aspect at the top of the parabola through the largest value and its neighbours."""
    best = min(max(int(np.argmax(values)), 1), len(ASPECTS) - 2)
    before, here, after = values[best - 1 : best + 2]
    bend = before - 2.0 * here + after
    step = ASPECTS[best] - ASPECTS[best - 1]
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return ASPECTS[best] + step * min(max(shift, -1.0), 1.0)
