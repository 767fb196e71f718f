"""A heart as a handful of smooth closed shapes in millimetres, seen in an apical view.

The heart's own axes: s runs along the left ventricle's long axis from its apex (0) to the mitral
annulus (`length`) and on into the atrium; u runs across, positive to the right of the image. Every
shape is an oval given by its signed distance, negative inside. Sizes follow adult reference values
(Lang et al. 2015, doi 10.1016/j.echo.2014.10.003), and so does the volume: biplane discs.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from echogen.types import BACKGROUND, LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM, UInt8HW

FloatArray = npt.NDArray[np.float64]
View = Literal["2CH", "4CH"]
Phase = Literal["ED", "ES"]
VIEWS: tuple[View, ...] = ("2CH", "4CH")
PHASES: tuple[Phase, ...] = ("ED", "ES")

_OVAL_CENTRE = 0.6


@dataclass(frozen=True)
class Heart:
    """One view of one heart at one phase.

    Attributes:
        length: of the left ventricle's cavity, apex to annulus, mm.
        half_width: the cavity's largest, mm.
        wall: thickness of the myocardium, mm.
        bend: how far the long axis bows sideways, mm.
        ripple: amplitudes and phases of the contour's second and third harmonic.
        atrium_length, atrium_half_width: of the left atrium, mm.
        leaflet: angle of the mitral leaflets from the annulus towards the apex, radians.
        right_heart: size of the right chambers relative to the usual; 0 leaves them out.
    """

    length: float
    half_width: float
    wall: float
    bend: float
    ripple: tuple[float, float, float, float]
    atrium_length: float
    atrium_half_width: float
    leaflet: float
    right_heart: float


@dataclass(frozen=True)
class Pose:
    """Where the cavity's apex lies in the image (mm) and how the long axis leans (radians)."""

    apex_row: float
    apex_col: float
    tilt: float


@dataclass(frozen=True)
class Shapes:
    """Signed distances (mm, negative inside) and heart axes at a set of points.

    Attributes:
        along, across: s and u of each point.
        cavity, epicardium, atrium, right_ventricle, right_atrium: whole ovals, not cut at the base.
        beyond_base: along minus the cavity's length.
    """

    along: FloatArray
    across: FloatArray
    cavity: FloatArray
    epicardium: FloatArray
    atrium: FloatArray
    right_ventricle: FloatArray
    right_atrium: FloatArray
    beyond_base: FloatArray


def draw_heart(rng: np.random.Generator, view: View, length: float, half_width: float) -> Heart:
    """The end-diastolic heart of one view, around the patient's `length` and `half_width` (mm)."""
    return Heart(
        length=length * rng.uniform(0.97, 1.03),
        half_width=half_width * rng.uniform(0.95, 1.05),
        wall=rng.uniform(8.0, 11.0),
        bend=rng.uniform(-3.0, 1.0),
        ripple=(
            rng.uniform(0.0, 0.03),
            rng.uniform(-np.pi, np.pi),
            rng.uniform(0.0, 0.025),
            rng.uniform(-np.pi, np.pi),
        ),
        atrium_length=rng.uniform(32.0, 46.0),
        atrium_half_width=rng.uniform(17.0, 22.0),
        leaflet=rng.uniform(0.15, 0.95),
        right_heart=rng.uniform(0.8, 1.15) if view == "4CH" else 0.0,
    )


def contract(heart: Heart, shortening: float, narrowing: float) -> Heart:
    """The same heart at end-systole.

    The cavity loses the fractions `shortening` of its length and `narrowing` of its width, the wall
    thickens, the atrium fills, the mitral valve is shut.
    """
    return replace(
        heart,
        length=heart.length * (1.0 - shortening),
        half_width=heart.half_width * (1.0 - narrowing),
        wall=heart.wall * (1.0 + 1.1 * narrowing),
        atrium_length=heart.atrium_length + 0.9 * heart.length * shortening,
        atrium_half_width=heart.atrium_half_width * 1.07,
        leaflet=0.12 + 0.2 * heart.leaflet,
        right_heart=heart.right_heart * 0.92,
    )


def _oval(
    along: FloatArray,
    across: FloatArray,
    centre: tuple[float, float],
    semi: tuple[float, float],
    ripple: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> FloatArray:
    s, u = along - centre[0], across - centre[1]
    a, b = s / semi[0], u / semi[1]
    # |x| ** 2.25 by square roots, which are exact on every processor and quick
    powers = a * a * np.sqrt(np.sqrt(np.abs(a))) + b * b * np.sqrt(np.sqrt(np.abs(b)))
    size = powers ** (1.0 / 2.25)
    turn = np.arctan2(b, a)
    size = size * (
        1.0 + ripple[0] * np.cos(2 * turn + ripple[1]) + ripple[2] * np.cos(3 * turn + ripple[3])
    )
    distance: FloatArray = np.hypot(s, u) * (1.0 - 1.0 / np.maximum(size, 1e-6))
    return distance


def _cavity(heart: Heart, along: FloatArray, across: FloatArray, grow: float) -> FloatArray:
    bowed = across - heart.bend * np.sin(np.pi * np.clip(along / heart.length, 0.0, 1.0))
    centre = _OVAL_CENTRE * heart.length
    return _oval(
        along,
        bowed,
        (centre, 0.0),
        (centre + 0.85 * grow, heart.half_width + grow),
        heart.ripple,
    )


def shapes(heart: Heart, pose: Pose, rows_mm: FloatArray, cols_mm: FloatArray) -> Shapes:
    """Every shape's signed distance at points given by their mm; the inputs broadcast."""
    down, right = rows_mm - pose.apex_row, cols_mm - pose.apex_col
    cos, sin = np.cos(pose.tilt), np.sin(pose.tilt)
    along, across = down * cos + right * sin, right * cos - down * sin
    beyond = along - heart.length
    half = heart.atrium_length / 2
    outer = heart.half_width + heart.wall
    size = heart.right_heart
    far = np.full_like(along, 1e3)
    return Shapes(
        along=along,
        across=across,
        cavity=_cavity(heart, along, across, 0.0),
        epicardium=_cavity(heart, along, across, heart.wall),
        atrium=_oval(
            along,
            across,
            (heart.length + 0.8 * half, 0.0),
            (1.2 * half, heart.atrium_half_width),
            (0.06, heart.ripple[1] - 1.0, 0.05, heart.ripple[3] + 1.0),
        ),
        right_ventricle=far
        if size == 0
        else _oval(
            along,
            across + 0.12 * (along - heart.length),
            (0.66 * heart.length, -outer - 14.0 * size),
            (0.46 * heart.length * size, 17.0 * size),
        ),
        right_atrium=far
        if size == 0
        else _oval(
            along,
            across,
            (heart.length + 21.0 * size, -heart.atrium_half_width - 5.0 - 18.0 * size),
            (19.0 * size, 17.0 * size),
        ),
        beyond_base=beyond,
    )


def label_map(at: Shapes) -> UInt8HW:
    """Class ids at the points of `at`: cavity, myocardium down to the annulus, left atrium."""
    label = np.full(at.along.shape, BACKGROUND, dtype=np.uint8)
    label[(at.atrium < 0) & (at.beyond_base >= 0)] = LEFT_ATRIUM
    flare = 0.25 * np.maximum(at.cavity, 0.0)
    label[(at.epicardium < 0) & (at.beyond_base < flare)] = MYOCARDIUM
    label[(at.cavity < 0) & (at.beyond_base < 0)] = LV_CAVITY
    return label


def annulus(heart: Heart) -> tuple[float, float]:
    """Where the cavity's contour meets the base: u of its left and right end, mm."""
    across = np.arange(-60.0, 60.0, 0.05)
    inside = across[_cavity(heart, np.full_like(across, heart.length), across, 0.0) < 0]
    return float(inside[0]), float(inside[-1])


def biplane_volume(first: Heart, second: Heart, discs: int = 200) -> float:
    """Volume of the cavity in ml by the method of discs from two orthogonal views.

    V = pi / 4 * sum(d1 * d2) * L / discs, with L the longer of the two axes.
    """
    across = np.arange(-60.0, 60.0, 0.05, dtype=np.float64)[None, :]
    diameters = []
    for heart in (first, second):
        along = (np.arange(discs, dtype=np.float64) + 0.5)[:, None] * (heart.length / discs)
        inside = _cavity(heart, along, across, 0.0) < 0
        diameters.append(inside.sum(axis=1) * 0.05)
    height = max(first.length, second.length) / discs
    return float(np.pi / 4 * (diameters[0] * diameters[1]).sum() * height / 1000.0)
