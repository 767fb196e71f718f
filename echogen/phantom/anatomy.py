"""A heart as a handful of smooth closed shapes in millimetres, seen in an apical view.

The heart's own axes: s runs along the left ventricle's long axis from its apex (0) to the mitral
annulus (`length`) and on into the atrium; u runs across, positive to the right of the image. Every
shape is an oval given by its signed distance, negative inside. Volumes are those of biplane discs.

Sources of the numbers below: [Lang] adult reference values, doi 10.1016/j.echo.2014.10.003;
[Rudski] the right heart, doi 10.1016/j.echo.2010.05.010; [Stoylen] deformation in systole, doi
10.1136/openhrt-2019-001050. [eye]: no source; set by eye so that frames resemble those of CAMUS.
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

Range = tuple[float, float]
"""The bounds of a uniform draw."""

# The left ventricle, end-diastole.
VIEW_LENGTH: Range = (0.97, 1.03)  # of the patient's length: how much views differ [eye]
VIEW_WIDTH: Range = (0.95, 1.05)  # of the patient's width, alike [eye]
WALL_MM: Range = (8.0, 11.0)  # normal: 6 to 10 in men, 6 to 9 in women [Lang]; patients have more
BEND_MM: Range = (-3.0, 1.0)  # [eye]
RIPPLES: tuple[Range, Range] = ((0.0, 0.03), (0.0, 0.025))  # of the radius; 2nd, 3rd harmonic [eye]
CAVITY_CENTRE = 0.6  # of the length, from the apex: where the cavity is widest [eye]
APEX_WALL = 0.85  # of the wall's thickness: the apex is thinner [eye]
FLARE = 0.25  # mm along the axis for each mm off the cavity: how the wall ends at the base [eye]

# The left atrium and the mitral valve, end-diastole.
ATRIUM_LENGTH_MM: Range = (32.0, 46.0)  # [eye]
ATRIUM_HALF_WIDTH_MM: Range = (17.0, 22.0)  # normal diameters: 30 to 40 in men, 27 to 38 [Lang]
ATRIUM_CENTRE, ATRIUM_SEMI = 0.8, 1.2  # of half its length; the rest lies above the base [eye]
ATRIUM_RIPPLES = (0.06, 0.05)  # of the radius; 2nd, 3rd harmonic [eye]
ATRIUM_TURN = 1.0  # radians between the ripples of the atrium and of the ventricle [eye]
LEAFLET: Range = (0.15, 0.95)  # radians from the annulus [eye]

# The right heart of a four-chamber view, for a size of 1. Half widths of 17 mm are diameters of 34:
# normal is 25 to 41 for the ventricle [Lang], up to 44 for the atrium [Rudski].
RIGHT_HEART: Range = (0.8, 1.15)  # size [eye]
RV_CENTRE, RV_SEMI = 0.66, 0.46  # of the left ventricle's length [eye]
RV_HALF_WIDTH_MM, RV_OFFSET_MM = 17.0, 14.0  # the offset is from the epicardium [eye]
RV_LEAN = 0.12  # mm across for each mm along [eye]
RA_HALF_LENGTH_MM, RA_HALF_WIDTH_MM = 19.0, 17.0
RA_DEPTH_MM, RA_OFFSET_MM = 21.0, 18.0  # beyond the base, and from the septum [eye]
ATRIAL_SEPTUM_MM = 5.0  # between the atria [eye]

# From end-diastole to end-systole.
THICKENING = 1.1  # of the wall over narrowing: 15 to 35% [eye]; measured were 56% [Stoylen]
ATRIUM_FILLING = 0.9  # mm of atrial length for each mm that the annulus descends [eye]
ATRIUM_WIDENING = 1.07  # [eye]
LEAFLET_SHUT, LEAFLET_SLACK = 0.12, 0.2  # radians; part of the open angle that stays [eye]
RIGHT_HEART_SYSTOLE = 0.92  # of its size [eye]

# `_oval` takes |x| ** OVAL_POWER by square roots: quick, and exact on every processor.
OVAL_POWER = 2.25  # 2 is an ellipse; a little more is fuller [eye]
NOWHERE_MM = 1e3  # the distance to a shape that is not there
SEARCH_MM, SEARCH_STEP_MM = 60.0, 0.05  # to each side of the axis: wider than any cavity
MM3_PER_ML = 1000.0


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
    second, third = RIPPLES
    return Heart(
        length=length * rng.uniform(*VIEW_LENGTH),
        half_width=half_width * rng.uniform(*VIEW_WIDTH),
        wall=rng.uniform(*WALL_MM),
        bend=rng.uniform(*BEND_MM),
        ripple=(
            rng.uniform(*second),
            rng.uniform(-np.pi, np.pi),
            rng.uniform(*third),
            rng.uniform(-np.pi, np.pi),
        ),
        atrium_length=rng.uniform(*ATRIUM_LENGTH_MM),
        atrium_half_width=rng.uniform(*ATRIUM_HALF_WIDTH_MM),
        leaflet=rng.uniform(*LEAFLET),
        right_heart=rng.uniform(*RIGHT_HEART) if view == "4CH" else 0.0,
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
        wall=heart.wall * (1.0 + THICKENING * narrowing),
        atrium_length=heart.atrium_length + ATRIUM_FILLING * heart.length * shortening,
        atrium_half_width=heart.atrium_half_width * ATRIUM_WIDENING,
        leaflet=LEAFLET_SHUT + LEAFLET_SLACK * heart.leaflet,
        right_heart=heart.right_heart * RIGHT_HEART_SYSTOLE,
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
    powers = a * a * np.sqrt(np.sqrt(np.abs(a))) + b * b * np.sqrt(np.sqrt(np.abs(b)))
    size = powers ** (1.0 / OVAL_POWER)
    turn = np.arctan2(b, a)
    size = size * (
        1.0 + ripple[0] * np.cos(2 * turn + ripple[1]) + ripple[2] * np.cos(3 * turn + ripple[3])
    )
    distance: FloatArray = np.hypot(s, u) * (1.0 - 1.0 / np.maximum(size, 1e-6))
    return distance


def _cavity(heart: Heart, along: FloatArray, across: FloatArray, grow: float) -> FloatArray:
    bowed = across - heart.bend * np.sin(np.pi * np.clip(along / heart.length, 0.0, 1.0))
    centre = CAVITY_CENTRE * heart.length
    return _oval(
        along,
        bowed,
        (centre, 0.0),
        (centre + APEX_WALL * grow, heart.half_width + grow),
        heart.ripple,
    )


def shapes(heart: Heart, pose: Pose, rows_mm: FloatArray, cols_mm: FloatArray) -> Shapes:
    """Every shape's signed distance at points given by their mm; the inputs broadcast."""
    down, right = rows_mm - pose.apex_row, cols_mm - pose.apex_col
    cos, sin = np.cos(pose.tilt), np.sin(pose.tilt)
    along, across = down * cos + right * sin, right * cos - down * sin
    beyond = along - heart.length
    half = heart.atrium_length / 2
    second, third = ATRIUM_RIPPLES
    outer = heart.half_width + heart.wall
    septum = -heart.atrium_half_width - ATRIAL_SEPTUM_MM
    size = heart.right_heart
    far = np.full_like(along, NOWHERE_MM)
    return Shapes(
        along=along,
        across=across,
        cavity=_cavity(heart, along, across, 0.0),
        epicardium=_cavity(heart, along, across, heart.wall),
        atrium=_oval(
            along,
            across,
            (heart.length + ATRIUM_CENTRE * half, 0.0),
            (ATRIUM_SEMI * half, heart.atrium_half_width),
            (second, heart.ripple[1] - ATRIUM_TURN, third, heart.ripple[3] + ATRIUM_TURN),
        ),
        right_ventricle=far
        if size == 0
        else _oval(
            along,
            across + RV_LEAN * (along - heart.length),
            (RV_CENTRE * heart.length, -outer - RV_OFFSET_MM * size),
            (RV_SEMI * heart.length * size, RV_HALF_WIDTH_MM * size),
        ),
        right_atrium=far
        if size == 0
        else _oval(
            along,
            across,
            (heart.length + RA_DEPTH_MM * size, septum - RA_OFFSET_MM * size),
            (RA_HALF_LENGTH_MM * size, RA_HALF_WIDTH_MM * size),
        ),
        beyond_base=beyond,
    )


def label_map(at: Shapes) -> UInt8HW:
    """Class ids at the points of `at`: cavity, myocardium down to the annulus, left atrium."""
    label = np.full(at.along.shape, BACKGROUND, dtype=np.uint8)
    label[(at.atrium < 0) & (at.beyond_base >= 0)] = LEFT_ATRIUM
    flare = FLARE * np.maximum(at.cavity, 0.0)
    label[(at.epicardium < 0) & (at.beyond_base < flare)] = MYOCARDIUM
    label[(at.cavity < 0) & (at.beyond_base < 0)] = LV_CAVITY
    return label


def annulus(heart: Heart) -> tuple[float, float]:
    """Where the cavity's contour meets the base: u of its left and right end, mm."""
    across = np.arange(-SEARCH_MM, SEARCH_MM, SEARCH_STEP_MM)
    inside = across[_cavity(heart, np.full_like(across, heart.length), across, 0.0) < 0]
    return float(inside[0]), float(inside[-1])


def biplane_volume(first: Heart, second: Heart, discs: int = 200) -> float:
    """Volume of the cavity in ml by the method of discs from two orthogonal views.

    V = pi / 4 * sum(d1 * d2) * L / discs, with L the longer of the two axes.
    """
    across = np.arange(-SEARCH_MM, SEARCH_MM, SEARCH_STEP_MM)[None, :]
    diameters = []
    for heart in (first, second):
        along = (np.arange(discs, dtype=np.float64) + 0.5)[:, None] * (heart.length / discs)
        inside = _cavity(heart, along, across, 0.0) < 0
        diameters.append(inside.sum(axis=1) * SEARCH_STEP_MM)
    height = max(first.length, second.length) / discs
    return float(np.pi / 4 * (diameters[0] * diameters[1]).sum() * height / MM3_PER_ML)
