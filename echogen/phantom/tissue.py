"""How strongly each point of the body scatters, in decibels below full white.

Blood is dark, the myocardium brighter and brightest where it faces the beam, the valve plane, the
pericardium and the walls of the atria brighter still; the rest of the chest is uneven. Everything
is given on the beam's own grid (depth, angle), so that structures may follow the beam.
"""

from dataclasses import dataclass

import numpy as np

from echogen.phantom.anatomy import FloatArray, Heart, Shapes, annulus

BLOOD_DB = -39.0
MYOCARDIUM_DB = -29.5
CHEST_DB = -30.0
FIBROUS_DB = -17.0


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
    for octave, weight in ((1.0, 0.65), (0.5, 0.35)):
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
    return 1.6 * field


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
    lateral = lateral / (angle_step * np.maximum(radii, 5.0))[:, None]
    cosine: FloatArray = np.abs(radial) / np.maximum(np.hypot(radial, lateral), 1e-9)
    return cosine


def _leaflets(heart: Heart, at: Shapes) -> FloatArray:
    """0 to 1: the two mitral leaflets and the fibrous ring that holds them."""
    left, right = annulus(heart)
    glow = np.zeros_like(at.along)
    span = right - left
    for hinge, side, reach in ((left, 1.0, 0.62), (right, -1.0, 0.42)):
        cos, sin = np.cos(heart.leaflet), np.sin(heart.leaflet)
        du, ds = (at.across - hinge) * side, -at.beyond_base
        on, off = du * cos + ds * sin, ds * cos - du * sin
        sag = off - 0.07 * heart.leaflet * on * (span * reach - on) / 4.0
        inside = _step(np.abs(on - span * reach / 2) - span * reach / 2, 1.5)
        glow = np.maximum(glow, 0.85 * inside * _ridge(sag, 1.0))
        glow = np.maximum(glow, _ridge(np.hypot(du + 1.5, ds), 2.6))
    return glow


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
    shape = (radii.size, angles.size)
    step_mm, step_rad = float(radii[1] - radii[0]), float(angles[1] - angles[0])
    mid = float(radii[-1]) * 0.6 * step_rad

    def uneven(axial_mm: float, lateral_mm: float) -> FloatArray:
        return patches(rng, shape, (axial_mm / step_mm, lateral_mm / mid))

    broad, arcs, fine = uneven(30.0, 28.0), uneven(7.0, 34.0), uneven(2.5, 8.0)
    wall_broad, wall_arcs = uneven(22.0, 20.0), uneven(2.6, 8.0)
    blood = BLOOD_DB + 3.5 * uneven(28.0, 24.0)
    rough = 2.5 * uneven(14.0, 14.0)
    depth = radii[:, None] / radii[-1]

    behind = np.clip((at.beyond_base - 0.45 * heart.atrium_length) / 22.0, 0.0, 1.0)
    db = CHEST_DB + 7.0 * broad + 3.5 * arcs + 2.0 * fine
    db = db + behind * (9.0 + look.pericardium + 14.0 * np.maximum(arcs, -0.25))

    side = np.clip(at.along / (0.6 * heart.length), 0.0, 1.0)
    bright = FIBROUS_DB + 3.0 + look.pericardium + 7.0 * broad + 5.0 * fine
    ring = _ridge(at.epicardium - 3.5 - 1.6 * rough, 2.6 + 1.5 * side)
    db = _blend(db, bright, np.clip(ring * side * (0.75 + 0.7 * wall_broad), 0.0, 1.0))

    rim = np.clip(0.5 + 0.8 * wall_broad, 0.0, 0.9)
    for chamber, width in ((at.right_ventricle, 4.0), (at.right_atrium, 2.5), (at.atrium, 3.0)):
        shell = _step(chamber + 0.6 * rough - width, 2.0)
        db = _blend(db, FIBROUS_DB - 7.0 + look.contrast + 5.0 * arcs, rim * shell)
    for chamber in (at.right_ventricle, at.right_atrium):
        strands = 9.0 * np.clip(wall_arcs - 0.35, 0.0, 1.0)
        db = _blend(db, blood + 1.0 + strands, _step(chamber + 0.8 * rough, 2.5))
    below = _step(
        -at.beyond_base - 5.0, 2.0
    )  # under the cavity's end, or a line would stay between
    db = _blend(db, blood + look.atrium, _step(at.atrium + 0.3 * rough, 2.5) * below)

    facing = _facing(at.epicardium, radii, step_rad)
    wall = MYOCARDIUM_DB + look.contrast + 9.0 * wall_broad + 4.5 * wall_arcs + 7.0 * facing**2
    wall = wall - look.dropout * (1.0 - facing) * _step(-at.across, 8.0)
    above = _step(at.beyond_base - 0.25 * np.maximum(at.cavity, 0.0), 2.0)
    db = _blend(db, wall, _step(at.epicardium, 1.8) * above)
    lining = np.clip(1.0 + at.cavity / 8.0, 0.0, 1.0)
    trabecular = lining * (3.0 + 7.0 * np.maximum(wall_arcs, -0.3))
    db = _blend(db, blood + trabecular, _step(at.cavity, 2.0) * above)

    share = _leaflets(heart, at) * np.clip(0.6 + 1.1 * fine, 0.0, 1.0)
    db = _blend(db, FIBROUS_DB + 2.0 + 4.0 * wall_arcs, share)
    result: FloatArray = db + look.far_gain * (depth - 0.5)
    return result
