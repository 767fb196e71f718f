"""Grey levels as a network has learned them, and the way there and back for other images.

Scanners show the same echo differently: CAMUS' blood is dark grey, that of most others black. A
network paints what it has learned, fog beside black blood. So where the known part of an image lies
outside of what was usual in training, one curve with two numbers, a lift of black and a gamma,
brings it to the middle of that; what is painted comes back by the same curve, and known pixels stay
as they were.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.diffusion.checkpoint import GreyLevels

UInt8 = npt.NDArray[np.uint8]

DARK, MIDDLE = 5, 50
"""Percentiles of an image's grey levels above 0: of blood, and of what is between it and tissue."""
USUAL = (1, 50, 99)
"""Percentiles over training images: from where to where an image is usual, and the middle."""
FEWEST = 500
"""Pixels; fewer say too little of an image."""
LEAST_GAMMA, MOST_GAMMA = 0.4, 1.2
"""A higher gamma would make steps of what is painted just above black."""
MOST_LIFT = 64.0
HALVINGS = 40


@dataclass(frozen=True)
class LevelCurve:
    """Grey levels to those a network knows: lift + (255 - lift) (v / 255)^gamma."""

    lift: float
    gamma: float

    @property
    def table(self) -> npt.NDArray[np.float64]:
        """(256,) what each grey level becomes; strictly rising."""
        shares = np.arange(256) / 255.0
        return np.asarray(self.lift + (255.0 - self.lift) * shares**self.gamma)

    def apply(self, image: UInt8, real: npt.NDArray[np.bool_]) -> UInt8:
        """The image with its real pixels, (h, w) bool, on the curve; the others as they are."""
        table = np.rint(self.table).astype(np.uint8)
        return np.where(real, table[image], image)

    def undo(self, painted: UInt8) -> UInt8:
        """Painted grey levels, of any shape, as the image would show them."""
        back = np.interp(np.arange(256), self.table, np.arange(256))
        return np.rint(back).astype(np.uint8)[painted]


def usual_levels(images: Iterable[UInt8]) -> GreyLevels | None:
    """Of training images, (h, w) uint8, black outside of their fans; None where all are black."""
    found = [levels for image in images if (levels := _levels(image[image > 0])) is not None]
    if not found:
        return None
    dark, middle = np.percentile(found, USUAL, axis=0).round(1).T.tolist()
    return GreyLevels(dark=tuple(dark), middle=tuple(middle))


def curve_to(usual: GreyLevels, image: UInt8, real: npt.NDArray[np.bool_]) -> LevelCurve | None:
    """The curve that brings an image to the middle; None where it is usual, or shows too little.

    Args:
        usual: of the network.
        image: (h, w) uint8.
        real: (h, w) bool, True where it shows ultrasound.
    """
    levels = _levels(image[real & (image > 0)])
    if levels is None:
        return None
    dark, middle = levels
    (dark_low, dark_wanted, dark_high), (low, wanted, high) = usual.dark, usual.middle
    if dark_low <= dark <= dark_high and low <= middle <= high:
        return None
    return _curve(dark, middle, dark_wanted, wanted)


def _levels(shown: UInt8) -> tuple[float, float] | None:
    """(dark, middle) of grey levels; None where there are too few."""
    if shown.size < FEWEST:
        return None
    dark, middle = np.percentile(shown, (DARK, MIDDLE))
    return min(float(dark), 254.0), min(float(middle), 254.0)


def _curve(dark: float, middle: float, wanted_dark: float, wanted_middle: float) -> LevelCurve:
    """The curve through both levels; where its numbers would be extreme, one that is nearer to
    the dark one, and moves the middle one no further away.
    """

    def lift_at(gamma: float, level: float, wanted: float) -> float:
        share: float = (level / 255.0) ** gamma
        return (wanted - 255.0 * share) / (1.0 - share)

    low, high = LEAST_GAMMA, MOST_GAMMA
    for _ in range(HALVINGS):  # of curves through the middle, a higher gamma is brighter below it
        gamma = (low + high) / 2
        lift = lift_at(gamma, middle, wanted_middle)
        brighter = lift + (255.0 - lift) * (dark / 255.0) ** gamma > wanted_dark
        low, high = (low, gamma) if brighter else (gamma, high)
    lift = min(lift_at(high, dark, wanted_dark), lift_at(high, middle, max(middle, wanted_middle)))
    return LevelCurve(min(max(lift, 0.0), MOST_LIFT), high)
