"""The colours of classes: the same in every picture of a dataset, however many classes it has.

The LV cavity, the myocardium and the left atrium, told by their names, look the same in every
dataset. Each further class takes the colour that lies farthest from all that are taken, to the eye
with and without red-green vision.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from echogen.measures.classes import classes_of
from echogen.types import BACKGROUND, IGNORE

Colour = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

MISSING: Colour = (70, 40, 110)
IGNORED: Colour = (245, 214, 70)
OTHER: Colour = (235, 235, 235)
"""Of ids that no class has."""
CAVITY, MYOCARDIUM, ATRIUM = (255, 112, 82), (64, 214, 168), (110, 170, 255)
FANS: Mapping[str, Colour] = {
    "clip": MYOCARDIUM,
    "frame": MYOCARDIUM,
    "given": ATRIUM,
    "refused": CAVITY,
}
"""Of fans, by how they were found."""
BRIGHT, COLOURED = 50.0, 30.0
"""The least lightness and chroma (CIELAB): what is darker or greyer is lost on an ultrasound."""
LEVELS = (0, 36, 72, 108, 144, 180, 216, 255)
D65 = (0.95047, 1.0, 1.08883)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WITHOUT_GREEN = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
"""Deuteranopia on linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009."""


def colours_of(labels: Mapping[int, str]) -> dict[int, Colour]:
    """{class id: its colour} of every class but the background, and of `IGNORE`.

    Args:
        labels: {class id: name}, all that a dataset declares.
    """
    parts = classes_of(labels)
    known = {parts.cavity: CAVITY, parts.myocardium: MYOCARDIUM, parts.atrium: ATRIUM}
    found = {label: known[label] for label in labels if label in known}
    others = [label for label in sorted(labels) if label not in {*found, BACKGROUND, IGNORE}]
    return {**found, **dict(zip(others, _further(len(others)), strict=True)), IGNORE: IGNORED}


@cache
def _further(count: int) -> tuple[Colour, ...]:
    """Colours that differ most from those that are taken, and from each other, in this order."""
    every = np.array(np.meshgrid(LEVELS, LEVELS, LEVELS)).reshape(3, -1).T
    light, *chroma = lab(every).T
    every = every[(light >= BRIGHT) & (np.hypot(*chroma) >= COLOURED)]
    taken = np.array([CAVITY, MYOCARDIUM, ATRIUM, IGNORED, MISSING, OTHER])
    apart = apart_from(every, taken).min(axis=1)
    found = []
    for _ in range(count):
        best = int(np.argmax(apart))
        found.append((int(every[best][0]), int(every[best][1]), int(every[best][2])))
        apart = np.minimum(apart, apart_from(every, every[best : best + 1])[:, 0])
    return tuple(found)


def apart_from(some: npt.NDArray[np.int_], others: npt.NDArray[np.int_]) -> Floats:
    """(n, m) how far colours are from others in CIELAB, a mean of with and without green."""
    weighed = [
        share * np.linalg.norm(lab(some, sight)[:, None] - lab(others, sight)[None], axis=2)
        for share, sight in ((0.7, None), (0.3, WITHOUT_GREEN))
    ]
    return np.asarray(sum(weighed), dtype=np.float64)


def lab(colours: npt.NDArray[np.int_], sight: Floats | None = None) -> Floats:
    """(n, 3) CIELAB of sRGB colours 0..255; `sight` is a matrix on linear RGB."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear if sight is None else linear @ sight.T, 0, 1)
    ratio = seen @ TO_XYZ.T / D65
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
