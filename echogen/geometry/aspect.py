"""The fan of an image whose pixels' shape is unknown, such as a generated one.

A frame that was stretched to a square shows its fan as an ellipse, which no fan fits on square
pixels. The aspect at which one fits best is therefore fitted, too: uphill in steps, then at the top
of the parabola through the best three.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from echogen.errors import DatasetError
from echogen.geometry.fit import background_level, filled_foreground, fit_sector
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, sector_on_grid

START, STEP = 1.2, 0.2
"""The first aspect ratio to try, and the step to the next; stretched to a square, most CAMUS
frames lie near 1.2."""
NARROWEST, WIDEST = 0.5, 2.0
MOST_OUTSIDE = 0.01
"""A fan that leaves more than this share of the foreground outside is rejected."""

SHOWN = 0.25
"""At this share of bright pixels or more, the area nearer than the near arc belongs to the fan."""


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

    def mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(rows, cols) bool, True in the fan."""
        return self.sector.mask((shape[0], shape[1]), (1.0, self.aspect))

    def on_grid(self) -> npt.NDArray[np.float32]:
        """(6,) the fan as the store records it: pixels whose centres are whole numbers, radians."""
        return sector_on_grid(self.sector, Grid((1, 1), (1.0, self.aspect)))[0]


def fit_fan(image: npt.NDArray[np.uint8], aspect: float | None = None) -> FittedFan | None:
    """The fan of one image, or None where none fits or too much of the image lies outside of it.

    Args:
        image: (H, W) uint8, apex up.
        aspect: width of a pixel over its height; None where that is unknown, and fitted.
    """
    filled = filled_foreground(image)
    best = _fit(image, filled, aspect) if aspect is not None else _climb(image, filled)
    return _to_apex(best, image) if best and best.outside <= MOST_OUTSIDE else None


def _climb(image: npt.NDArray[np.uint8], filled: npt.NDArray[np.bool_]) -> FittedFan | None:
    """The fan at the aspect at which it agrees best, going up from `START`."""
    tried: dict[int, FittedFan | None] = {}

    def at(step: int) -> float:
        if step not in tried:
            tried[step] = _fit(image, filled, START + step * STEP)
        fan = tried[step]
        return fan.agreement if fan else 0.0

    here = 0
    while NARROWEST < START + here * STEP < WIDEST:
        better = max((here - 1, here, here + 1), key=at)
        if at(better) <= at(here):
            break
        here = better
    aspect = START + STEP * (here + _top(at(here - 1), at(here), at(here + 1)))
    found = [*tried.values(), _fit(image, filled, aspect)]
    return max(found, key=lambda fan: fan.agreement if fan else 0.0)


def _to_apex(fan: FittedFan, image: npt.NDArray[np.uint8]) -> FittedFan:
    """The fan up to its apex, where not all that lies nearer than its arc is black.

    A dark band below the apex parts it from the foreground, which then begins below the band.
    """
    whole = replace(fan, sector=replace(fan.sector, radius_near=0.0))
    nearer = whole.mask(image.shape) & ~fan.mask(image.shape)
    bright = image[nearer] > background_level(image)
    return whole if nearer.any() and bright.mean() > SHOWN else fan


def _fit(
    image: npt.NDArray[np.uint8], filled: npt.NDArray[np.bool_], aspect: float
) -> FittedFan | None:
    try:
        sector = fit_sector([image], (1.0, aspect))
    except DatasetError:
        return None
    fan = sector.mask((image.shape[0], image.shape[1]), (1.0, aspect))
    agreement = float((fan & filled).sum() / (fan | filled).sum())
    return FittedFan(sector, aspect, agreement, float((filled & ~fan).sum() / filled.sum()))


def _top(before: float, here: float, after: float) -> float:
    """Where the parabola through three values has its top, in steps from the middle one."""
    bend = before - 2.0 * here + after
    return min(max(0.5 * (before - after) / bend, -1.0), 1.0) if bend < 0 else 0.0
