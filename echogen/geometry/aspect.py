"""The fan of an image whose pixels' shape is unknown, such as a generated one.

A frame that was stretched to a square shows its fan as an ellipse. Its edges are straight whatever
the stretch, so that the fan is found at a rough aspect, and the far arc tells the right one.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from echogen.errors import DatasetError
from echogen.geometry.fit import FanFit, find_fan
from echogen.geometry.foreground import background_level
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, sector_on_grid

STARTS = (1.2, 0.8, 1.7)
"""Aspect ratios to begin with; stretched to a square, most CAMUS frames lie near 1.2."""
NARROWEST, WIDEST = 0.5, 2.0
_ROUNDS, _ROUND = 4, 0.002
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
        confidence: 0 to 1, how sure the fan is.
        outside: share of the foreground that lies outside of the fan, 0 to 1.
    """

    sector: Sector
    aspect: float
    confidence: float
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
    found = _fit(image, aspect) if aspect is not None else _round(image)
    if found is None or found[0].outside > MOST_OUTSIDE:
        return None
    fan, aspect = found
    return _to_apex(FittedFan(fan.sector, aspect, fan.confidence, fan.outside), image)


def _fit(image: npt.NDArray[np.uint8], aspect: float) -> tuple[FanFit, float] | None:
    try:
        return find_fan([image], (1.0, aspect)), aspect
    except DatasetError:
        return None


def _round(image: npt.NDArray[np.uint8]) -> tuple[FanFit, float] | None:
    """The fan at the aspect at which its far arc is round, or at the first that finds one."""
    for start in STARTS:
        found = _fit(image, start)
        for _ in range(_ROUNDS):
            if found is None or abs(found[0].stretch - 1) < _ROUND:
                break
            aspect = min(max(found[1] / found[0].stretch, NARROWEST), WIDEST)
            found = _fit(image, aspect) or found
        if found is not None:
            return found
    return None


def _to_apex(fan: FittedFan, image: npt.NDArray[np.uint8]) -> FittedFan:
    """The fan up to its apex, where not all that lies nearer than its arc is black.

    A dark band below the apex parts it from the foreground, which then begins below the band.
    """
    whole = replace(fan, sector=replace(fan.sector, radius_near=0.0))
    nearer = whole.mask(image.shape) & ~fan.mask(image.shape)
    bright = image[nearer] > background_level(image)
    return whole if nearer.any() and bright.mean() > SHOWN else fan
