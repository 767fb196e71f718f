"""How well a fan fits what an image shows, without asking that it be full.

Blood and shadows leave a fan hollow right up to its edges, so its overlap with the foreground says
little. A fan is right where its edges and arc are: foreground ends at them over much of their
length (support), foreground does not go on beyond them (crossed, outside), and where it is nothing
that a fan could not be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.geometry.sector import Sector

Array = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_ALONG, _AROUND = 72, 48
_INSIDE, _OUTSIDE = np.array([1.0, 2.0, 3.0]), np.array([-1.5, -2.5, -4.0])
_LEAST_SEEN = 0.3
_SURE = {"one": -0.44, "edges": 2.68, "crossed": -17.8, "tilt": -3.3, "wide": -13.9, "small": -20.0}
"""The weights of the confidence."""


@dataclass(frozen=True)
class Echoes:
    """An image, reduced, as fans are judged on.

    Attributes:
        image: (H, W) float32, background 0, text and the like removed.
        solid: (n, 2) points of its foreground, in units of a pixel.
        faint: (n, 2) points of all that is not background, which halos may be among.
        size: (row, col) of a pixel in that unit.
        bright: the foreground's median grey level above the background.
        floor: what the grey level has to change by at an edge.
    """

    image: Float32
    solid: Array
    faint: Array
    size: tuple[float, float]
    bright: float
    floor: float


@dataclass(frozen=True)
class Evidence:
    """What speaks for a fan and against it; shares, 0 to 1.

    Attributes:
        left, right, arc: of their length in the picture, where foreground ends at them.
        missed: of the whole arc, where it lies in the picture, but no foreground ends.
        crossed: of the edges' and arc's length in the picture, where foreground goes on beyond.
        outside: of the foreground, beyond the fan.
        spilt: of all that is not background, beyond the fan.
        tilt: of the fan's middle from straight down, radians.
        opening: between the edges, radians.
        score: all of that in one number; the highest is the best fan.
    """

    left: float
    right: float
    arc: float
    missed: float
    crossed: float
    outside: float
    spilt: float
    tilt: float
    opening: float
    score: float


def judged(fans: Sequence[Sector], echoes: Echoes) -> list[Evidence]:
    """The evidence for each of several fans, in the unit of the echoes' points."""
    if not fans:
        return []
    row, col, a, b, near, far = (
        np.array([getattr(fan, name) for fan in fans])
        for name in (
            "apex_row", "apex_col", "angle_left", "angle_right", "radius_near", "radius_far"
        )
    )  # fmt: skip
    share = (np.arange(_ALONG) + 0.5) / _ALONG
    radius = near[:, None] + share * (far - near)[:, None]
    sides = []
    for angle, inward in ((a, 1.0), (b, -1.0)):
        sin, cos = np.sin(angle)[:, None], np.cos(angle)[:, None]
        place = (row[:, None] + radius * cos, col[:, None] + radius * sin)
        sides.append(_ends(echoes, place, (-inward * sin, inward * cos)))
    turn = a[:, None] + (np.arange(_AROUND) + 0.5) / _AROUND * (b - a)[:, None]
    sin, cos = np.sin(turn), np.cos(turn)
    place = (row[:, None] + far[:, None] * cos, col[:, None] + far[:, None] * sin)
    sides.append(_ends(echoes, place, (-cos, -sin)))
    (left, over_left, _), (right, over_right, _), (arc, over_arc, missed) = sides
    outside = _outside(fans, echoes.solid)
    spilt = _outside(fans, echoes.faint)
    tilt, opening = (a + b) / 2, b - a
    score = left + right + 1.2 * arc - missed - 1.5 * (over_left + over_right) - 1.2 * over_arc
    score -= 7.0 * outside + 2.0 * spilt + 5.0 * np.abs(tilt)
    crossed = (over_left + over_right + over_arc) / 3
    return [
        Evidence(*(float(value) for value in one))
        for one in zip(
            left, right, arc, missed, crossed, outside, spilt, tilt, opening, score, strict=True
        )
    ]


def _ends(
    echoes: Echoes, place: tuple[Array, Array], normal: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """(fans,) shares of a curve's seen length where foreground ends and where it goes on; and of
    its whole length where it is seen and neither does."""

    def levels(offsets: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        row = (place[0][..., None] + offsets * normal[0][..., None]) / echoes.size[0] - 0.5
        col = (place[1][..., None] + offsets * normal[1][..., None]) / echoes.size[1] - 0.5
        height, width = echoes.image.shape
        seen = (row > -0.5) & (row < height - 0.5) & (col > -0.5) & (col < width - 0.5)
        at = echoes.image[
            np.clip(np.rint(row), 0, height - 1).astype(int),
            np.clip(np.rint(col), 0, width - 1).astype(int),
        ]
        count = np.maximum(seen.sum(axis=-1), 1)
        return np.asarray((at * seen).sum(axis=-1) / count), seen[..., 0]

    inner, here = levels(_INSIDE)
    outer, there = levels(_OUTSIDE)
    seen = here & there
    contrast = (inner - outer) / (inner + outer + echoes.floor)
    ends = np.clip((contrast - 0.3) / 0.3, 0, 1) * seen
    goes_on = np.clip((outer / echoes.bright - 0.15) / 0.2, 0, 1) * seen
    length = np.maximum(seen.sum(axis=-1), _LEAST_SEEN * seen.shape[-1])
    missed = np.asarray(np.mean(seen * (1.0 - np.maximum(ends, goes_on)), axis=-1))
    return ends.sum(axis=-1) / length, goes_on.sum(axis=-1) / length, missed


def _outside(fans: Sequence[Sector], points: Array) -> Array:
    """(fans,) share of the points more than 1.5 pixels outside of each."""
    out = np.zeros(len(fans))
    if not len(points):
        return out
    for i, fan in enumerate(fans):
        down, across = points[:, 0] - fan.apex_row, points[:, 1] - fan.apex_col
        beyond = np.maximum(
            np.sin(fan.angle_left) * down - np.cos(fan.angle_left) * across,
            np.cos(fan.angle_right) * across - np.sin(fan.angle_right) * down,
        )
        beyond = np.maximum(beyond, np.hypot(down, across) - fan.radius_far)
        out[i] = float((beyond > 1.5).mean())
    return out


def confidence(fan: Sector, evidence: Evidence, echoes: Echoes) -> float:
    """0 to 1: how sure a fan is, where the picture as a whole shows one.

    A logistic regression: the share of fans that were right, of all with the same evidence, in
    frames of several scanners and in frames whose damage was drawn (`benchmarks/sector_fit.py`).

    Args:
        fan: in the unit of the echoes' points.
        evidence: for it.
        echoes: that it was found in.
    """
    shape = (echoes.image.shape[0], echoes.image.shape[1])
    covered = float(fan.mask(shape, echoes.size).mean())
    value = (
        _SURE["one"]
        + _SURE["edges"] * (evidence.left + evidence.right)
        + _SURE["crossed"] * min(evidence.crossed, 0.3)
        + _SURE["tilt"] * min(abs(evidence.tilt), 0.4)
        + _SURE["wide"] * max(0.0, evidence.opening - 2.0)
        + _SURE["small"] * max(0.0, 0.25 - covered)
    )
    return float(1 / (1 + np.exp(-value)))
