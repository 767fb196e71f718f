"""How strongly each point of the body scatters, in decibels below full white.

Blood is dark, the myocardium brighter and brightest where it faces the beam, the valve plane, the
pericardium and the walls of the atria brighter still; the rest of the chest is uneven. Everything
is given on the beam's own grid (depth, angle), so that structures may follow the beam.

The order of the levels is that of any B-mode image of a heart. How many decibels lie between them,
and how large and strong the unevenness is, has no source: both were set by eye, under the display
of `beam`, so that frames resemble those of CAMUS. Decibels add to a level; shares lie in [0, 1];
`..._ROUGH` multiplies how far outlines wander, `..._SOFT_MM` is half the width of an edge.
"""

from dataclasses import dataclass

import numpy as np

from echogen.phantom.anatomy import FLARE, FloatArray, Heart, Shapes, annulus

BLOOD_DB = -39.0
MYOCARDIUM_DB = -29.5
CHEST_DB = -30.0
FIBROUS_DB = -17.0

# Patches of unevenness: sizes along and across the beam, at MIDDLE of full depth; their widths are
# angles, so they grow with depth.
BROAD_MM, ARCS_MM, FINE_MM = (30.0, 28.0), (7.0, 34.0), (2.5, 8.0)
WALL_BROAD_MM, WALL_ARCS_MM = (22.0, 20.0), (2.6, 8.0)
BLOOD_MM, BLOOD_UNEVEN_DB = (28.0, 24.0), 3.5
ROUGH_MM, OUTLINE_MM = (14.0, 14.0), 2.5  # patches by which outlines wander, and how far
MIDDLE = 0.6
OCTAVES = ((1.0, 0.65), (0.5, 0.35))  # size of a patch and share of the field
PATCH_GAIN = 1.6  # brings the sum of octaves to about [-1, 1]

# The chest around the heart, and what lies behind it.
CHEST_BROAD_DB, CHEST_ARCS_DB, CHEST_FINE_DB = 7.0, 3.5, 2.0
BEHIND_FROM, BEHIND_RAMP_MM = 0.45, 22.0  # of the atrium's length; and on to where it is full
BEHIND_DB, BEHIND_ARCS_DB, BEHIND_LEAST = 9.0, 14.0, -0.25  # LEAST: arcs darken no further

# The pericardium: a bright line outside the epicardium that fades towards the apex.
PERICARDIUM_FROM = 0.6  # of the ventricle's length: full from here to the base
PERICARDIUM_DB, PERICARDIUM_BROAD_DB, PERICARDIUM_FINE_DB = 3.0, 7.0, 5.0  # over FIBROUS_DB
PERICARDIUM_MM, PERICARDIUM_ROUGH = 3.5, 1.6  # off the epicardium; times the outline's wandering
PERICARDIUM_WIDTH_MM, PERICARDIUM_WIDER_MM = 2.6, 1.5  # standard deviation; more where it is full
PERICARDIUM_SHARE, PERICARDIUM_UNEVEN = 0.75, 0.7

# The thin walls of the right chambers and the left atrium.
RIM_SHARE, RIM_UNEVEN, RIM_MOST = 0.5, 0.8, 0.9
RIM_DB, RIM_ARCS_DB = -7.0, 5.0  # over FIBROUS_DB
RIM_ROUGH, RIM_SOFT_MM = 0.6, 2.0
RV_RIM_MM, RA_RIM_MM, ATRIUM_RIM_MM = 4.0, 2.5, 3.0

# Their blood; in the right chambers with bright strands where arcs are above STRANDS_FROM.
RIGHT_BLOOD_DB, STRANDS_DB, STRANDS_FROM = 1.0, 9.0, 0.35  # over blood
RIGHT_ROUGH, ATRIUM_ROUGH, CHAMBER_SOFT_MM = 0.8, 0.3, 2.5
OVERLAP_MM, OVERLAP_SOFT_MM = 5.0, 2.0  # atrium under the cavity's end, or a line would stay

# The left ventricle's wall and cavity.
WALL_BROAD_DB, WALL_ARCS_DB, FACING_DB = 9.0, 4.5, 7.0
DROPOUT_SOFT_MM = 8.0  # about the long axis: dropout is on its left
BASE_SOFT_MM, EPICARDIUM_SOFT_MM, CAVITY_SOFT_MM = 2.0, 1.8, 2.0
LINING_MM = 8.0  # depth of the trabeculae
TRABECULAE_DB, TRABECULAE_ARCS_DB, TRABECULAE_LEAST = 3.0, 7.0, -0.3  # over blood
NEAREST_MM = 5.0  # radius: nearer than this, angles are not turned into mm

# The mitral valve; lengths of the leaflets are parts of the annulus's width.
ANTERIOR_LENGTH, POSTERIOR_LENGTH = 0.62, 0.42
SAG, SAG_MM = 0.07, 4.0  # a leaflet bows by SAG * angle * (mm to hinge * mm to tip) / SAG_MM
LEAFLET_SHARE, LEAFLET_MM, LEAFLET_SOFT_MM = 0.85, 1.0, 1.5  # MM: standard deviation across
RING_MM, RING_OFFSET_MM = 2.6, 1.5  # standard deviation; outwards from a leaflet's hinge
VALVE_SHARE, VALVE_UNEVEN = 0.6, 1.1
VALVE_DB, VALVE_ARCS_DB = 2.0, 4.0  # over FIBROUS_DB


@dataclass(frozen=True)
class Look:
    """How one recording looks: what differs between patients and windows, decibels.

    Attributes:
        contrast: what the myocardium has over the usual.
        atrium: what the left atrium's blood has over the ventricle's: haze of the valve.
        pericardium: what the bright lines around the heart have over the usual.
        clutter: level of the haze near the probe.
        clutter_fade: how fast that haze fades, a millimetre.
        haze: level of the even haze over everything.
        noise: level of the receiver's noise at full depth.
        gain: overall.
        dropout: how much a wall parallel to the beam loses.
        far_gain: change of brightness from the probe to full depth.
    """

    contrast: float
    atrium: float
    pericardium: float
    clutter: float
    clutter_fade: float
    haze: float
    noise: float
    gain: float
    dropout: float
    far_gain: float


def patches(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float]
) -> FloatArray:
    """Smooth random field in about [-1, 1] on a grid; one patch is `cells` samples large."""
    field = np.zeros(shape)
    for octave, weight in OCTAVES:
        size = [max(1.0, cell * octave) for cell in cells]
        counts = [int(np.ceil(n / cell)) + 2 for n, cell in zip(shape, size, strict=True)]
        knots = rng.random((counts[0], counts[1])) * 2.0 - 1.0
        for axis in (0, 1):
            position = np.arange(shape[axis]) / size[axis]
            index = position.astype(np.int64)
            part = position - index
            part = part * part * (3.0 - 2.0 * part)
            part = part[:, None] if axis == 0 else part[None, :]
            low, high = np.take(knots, index, axis=axis), np.take(knots, index + 1, axis=axis)
            knots = low + (high - low) * part
        field += weight * knots
    return PATCH_GAIN * field


def _step(distance: FloatArray, softness: float) -> FloatArray:
    """1 well inside (negative distance), 0 well outside, over about `softness` mm each way."""
    ramp = np.clip(0.5 - distance / (2.0 * softness), 0.0, 1.0)
    result: FloatArray = ramp * ramp * (3.0 - 2.0 * ramp)
    return result


def _ridge(distance: FloatArray, width: FloatArray | float) -> FloatArray:
    result: FloatArray = np.exp(-0.5 * (distance / width) ** 2)
    return result


def _blend(below: FloatArray, level: FloatArray | float, share: FloatArray) -> FloatArray:
    return below + (level - below) * share


def _facing(distance: FloatArray, radii: FloatArray, angle_step: float) -> FloatArray:
    """|cos| between a surface's normal and the beam, from its distance on the beam's grid."""
    radial, lateral = np.gradient(distance)
    radial = radial / (radii[1] - radii[0])
    lateral = lateral / (angle_step * np.maximum(radii, NEAREST_MM))[:, None]
    cosine: FloatArray = np.abs(radial) / np.maximum(np.hypot(radial, lateral), 1e-9)
    return cosine


def _leaflets(heart: Heart, at: Shapes) -> FloatArray:
    """0 to 1: the two mitral leaflets and the fibrous ring that holds them."""
    left, right = annulus(heart)
    glow = np.zeros_like(at.along)
    span = right - left
    for hinge, side, reach in ((left, 1.0, ANTERIOR_LENGTH), (right, -1.0, POSTERIOR_LENGTH)):
        cos, sin = np.cos(heart.leaflet), np.sin(heart.leaflet)
        du, ds = (at.across - hinge) * side, -at.beyond_base
        on, off = du * cos + ds * sin, ds * cos - du * sin
        sag = off - SAG * heart.leaflet * on * (span * reach - on) / SAG_MM
        inside = _step(np.abs(on - span * reach / 2) - span * reach / 2, LEAFLET_SOFT_MM)
        glow = np.maximum(glow, LEAFLET_SHARE * inside * _ridge(sag, LEAFLET_MM))
        glow = np.maximum(glow, _ridge(np.hypot(du + RING_OFFSET_MM, ds), RING_MM))
    return glow


@dataclass(frozen=True)
class _Unevenness:
    """Random fields of one chest: patches in about [-1, 1], blood in dB, outlines in mm."""

    broad: FloatArray
    arcs: FloatArray
    fine: FloatArray
    wall_broad: FloatArray
    wall_arcs: FloatArray
    blood: FloatArray
    rough: FloatArray


def _draw_unevenness(
    radii: FloatArray, step_rad: float, count: int, rng: np.random.Generator
) -> _Unevenness:
    step_mm, mid = float(radii[1] - radii[0]), float(radii[-1]) * MIDDLE * step_rad

    def uneven(size_mm: tuple[float, float]) -> FloatArray:
        return patches(rng, (radii.size, count), (size_mm[0] / step_mm, size_mm[1] / mid))

    return _Unevenness(
        broad=uneven(BROAD_MM),
        arcs=uneven(ARCS_MM),
        fine=uneven(FINE_MM),
        wall_broad=uneven(WALL_BROAD_MM),
        wall_arcs=uneven(WALL_ARCS_MM),
        blood=BLOOD_DB + BLOOD_UNEVEN_DB * uneven(BLOOD_MM),
        rough=OUTLINE_MM * uneven(ROUGH_MM),
    )


def echo_db(
    heart: Heart,
    at: Shapes,
    look: Look,
    radii: FloatArray,
    angles: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Mean scattering on the (radius, angle) grid of `at`, decibels below full white.

    Args:
        radii: (R,) mm from the sector's apex, evenly spaced.
        angles: (A,) radians, evenly spaced.
        rng: draws what is uneven; the same state gives the same chest at ED and ES.
    """
    step_rad = float(angles[1] - angles[0])
    uneven = _draw_unevenness(radii, step_rad, angles.size, rng)
    db = _chest(heart, at, look, uneven)
    db = _chambers(db, at, look, uneven)
    db = _ventricle(db, at, look, uneven, _facing(at.epicardium, radii, step_rad))
    share = _leaflets(heart, at) * np.clip(VALVE_SHARE + VALVE_UNEVEN * uneven.fine, 0.0, 1.0)
    db = _blend(db, FIBROUS_DB + VALVE_DB + VALVE_ARCS_DB * uneven.wall_arcs, share)
    result: FloatArray = db + look.far_gain * (radii[:, None] / radii[-1] - 0.5)
    return result


def _chest(heart: Heart, at: Shapes, look: Look, uneven: _Unevenness) -> FloatArray:
    """The chest, brighter behind the heart, with the pericardium's line."""
    behind = (at.beyond_base - BEHIND_FROM * heart.atrium_length) / BEHIND_RAMP_MM
    bright = BEHIND_DB + look.pericardium + BEHIND_ARCS_DB * np.maximum(uneven.arcs, BEHIND_LEAST)
    db = CHEST_DB + CHEST_BROAD_DB * uneven.broad + CHEST_ARCS_DB * uneven.arcs
    db = db + CHEST_FINE_DB * uneven.fine
    db = db + np.clip(behind, 0.0, 1.0) * bright

    side = np.clip(at.along / (PERICARDIUM_FROM * heart.length), 0.0, 1.0)
    level = FIBROUS_DB + PERICARDIUM_DB + look.pericardium
    bright = level + PERICARDIUM_BROAD_DB * uneven.broad + PERICARDIUM_FINE_DB * uneven.fine
    ring = _ridge(
        at.epicardium - PERICARDIUM_MM - PERICARDIUM_ROUGH * uneven.rough,
        PERICARDIUM_WIDTH_MM + PERICARDIUM_WIDER_MM * side,
    )
    share = ring * side * (PERICARDIUM_SHARE + PERICARDIUM_UNEVEN * uneven.wall_broad)
    return _blend(db, bright, np.clip(share, 0.0, 1.0))


def _chambers(db: FloatArray, at: Shapes, look: Look, uneven: _Unevenness) -> FloatArray:
    """The right chambers and the left atrium: thin walls, then blood."""
    rim = np.clip(RIM_SHARE + RIM_UNEVEN * uneven.wall_broad, 0.0, RIM_MOST)
    level = FIBROUS_DB + RIM_DB + look.contrast + RIM_ARCS_DB * uneven.arcs
    for chamber, width in (
        (at.right_ventricle, RV_RIM_MM),
        (at.right_atrium, RA_RIM_MM),
        (at.atrium, ATRIUM_RIM_MM),
    ):
        shell = _step(chamber + RIM_ROUGH * uneven.rough - width, RIM_SOFT_MM)
        db = _blend(db, level, rim * shell)
    strands = STRANDS_DB * np.clip(uneven.wall_arcs - STRANDS_FROM, 0.0, 1.0)
    for chamber in (at.right_ventricle, at.right_atrium):
        inside = _step(chamber + RIGHT_ROUGH * uneven.rough, CHAMBER_SOFT_MM)
        db = _blend(db, uneven.blood + RIGHT_BLOOD_DB + strands, inside)
    below = _step(-at.beyond_base - OVERLAP_MM, OVERLAP_SOFT_MM)
    inside = _step(at.atrium + ATRIUM_ROUGH * uneven.rough, CHAMBER_SOFT_MM)
    return _blend(db, uneven.blood + look.atrium, inside * below)


def _ventricle(
    db: FloatArray, at: Shapes, look: Look, uneven: _Unevenness, facing: FloatArray
) -> FloatArray:
    """The left ventricle: its wall, brightest where it faces the beam, and its cavity."""
    wall = MYOCARDIUM_DB + look.contrast + WALL_BROAD_DB * uneven.wall_broad
    wall = wall + WALL_ARCS_DB * uneven.wall_arcs + FACING_DB * facing**2
    wall = wall - look.dropout * (1.0 - facing) * _step(-at.across, DROPOUT_SOFT_MM)
    above = _step(at.beyond_base - FLARE * np.maximum(at.cavity, 0.0), BASE_SOFT_MM)
    db = _blend(db, wall, _step(at.epicardium, EPICARDIUM_SOFT_MM) * above)
    lining = np.clip(1.0 + at.cavity / LINING_MM, 0.0, 1.0)
    arcs = np.maximum(uneven.wall_arcs, TRABECULAE_LEAST)
    trabeculae = lining * (TRABECULAE_DB + TRABECULAE_ARCS_DB * arcs)
    return _blend(db, uneven.blood + trabeculae, _step(at.cavity, CAVITY_SOFT_MM) * above)
