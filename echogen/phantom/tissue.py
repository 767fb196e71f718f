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
        pericardium: what the bright lines around the heart have over the usual.
        clutter: level of the haze near the probe.
        haze: level of the even haze over everything.
        noise: level of the receiver's noise at full depth.
        gain: overall.
        dropout: how much a wall parallel to the beam loses.
        far_gain: change of brightness from the probe to full depth.
    """

    contrast: float
    pericardium: float
    clutter: float
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


def _ridge(distance: FloatArray, width: float) -> FloatArray:
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
        sag = off - 0.06 * on * (span * reach - on) / 4.0
        inside = _step(np.abs(on - span * reach / 2) - span * reach / 2, 1.5)
        glow = np.maximum(glow, 0.75 * inside * _ridge(sag, 0.8))
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

    broad, arcs, fine, wall_arcs = (
        uneven(25.0, 22.0), uneven(6.0, 30.0), uneven(2.5, 7.0), uneven(3.0, 8.0)
    )  # fmt: skip
    wall_broad = uneven(18.0, 18.0)
    depth = radii[:, None] / radii[-1]

    behind = np.clip((at.beyond_base - 0.55 * heart.atrium_length) / 25.0, 0.0, 1.0)
    chest = CHEST_DB + 4.0 * broad + 3.0 * arcs + 2.0 * fine + 8.0 * behind
    chest = chest + 4.0 * np.maximum(arcs, 0.0) * behind

    side = np.clip(at.along / (0.7 * heart.length), 0.0, 1.0)
    pericardium = FIBROUS_DB + look.pericardium + 5.0 * broad + 3.0 * fine
    glow = _ridge(at.epicardium - 2.5 - 1.5 * arcs, 2.2) * (0.15 + 0.75 * side)
    db = _blend(chest, pericardium, glow)

    facing = _facing(at.epicardium, radii, step_rad)
    wall = MYOCARDIUM_DB + look.contrast + 4.0 * wall_broad + 3.0 * wall_arcs + 6.0 * facing**2
    wall = wall - look.dropout * (1.0 - facing) * _step(-at.across, 8.0)
    walls = FIBROUS_DB - 7.0 + look.contrast + 4.0 * fine + 4.0 * broad
    for chamber, rim in (
        (at.right_ventricle, 3.5), (at.right_atrium, 2.5), (at.atrium, 3.0)
    ):  # fmt: skip
        db = _blend(db, walls, 0.8 * _step(chamber - rim, 1.5))
    for chamber in (at.right_ventricle, at.right_atrium):
        db = _blend(db, BLOOD_DB + 1.5 * broad, _step(chamber, 1.2))
    below = _step(-at.beyond_base, 1.5)
    db = _blend(db, BLOOD_DB + 2.0 + 2.0 * broad, _step(at.atrium, 1.5) * below)
    above = _step(at.beyond_base - 0.25 * np.maximum(at.cavity, 0.0), 2.0)
    db = _blend(db, wall, _step(at.epicardium, 1.2) * above)
    trabecular = 3.0 * np.clip(1.0 + at.cavity / 7.0, 0.0, 1.0) * (0.6 + wall_arcs)
    db = _blend(db, BLOOD_DB + 1.5 * wall_broad + trabecular, _step(at.cavity, 1.6) * above)

    db = _blend(db, FIBROUS_DB + 4.0 * wall_arcs, _leaflets(heart, at))
    result: FloatArray = db + look.far_gain * (depth - 0.5)
    return result
