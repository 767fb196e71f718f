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


@dataclass(frozen=True)
class Echoes:
    """An image, reduced, as fans are judged on.

    Attributes:
        image: (H, W) float32, background 0, text and the like removed.
        solid: (n, 2) points of its foreground, in units of a pixel.
        size: (row, col) of a pixel in that unit.
        bright: the foreground's median grey level above the background.
    """

    image: Float32
    solid: Array
    size: tuple[float, float]
    bright: float


@dataclass(frozen=True)
class Evidence:
    """What speaks for a fan and against it; shares, 0 to 1.

    Attributes:
        left, right, arc: of their length in the picture, where foreground ends at them.
        crossed: of the edges' and arc's length in the picture, where foreground goes on beyond.
        outside: of the foreground, beyond the fan.
        tilt: of the fan's middle from straight down, radians.
        opening: between the edges, radians.
        score: all of that in one number; the highest is the best fan.
    """

    left: float
    right: float
    arc: float
    crossed: float
    outside: float
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
    (left, over_left), (right, over_right), (arc, over_arc) = sides
    outside = _outside(fans, echoes)
    tilt, opening = (a + b) / 2, b - a
    score = left + right + 0.8 * arc - 1.5 * (over_left + over_right) - over_arc - 6.0 * outside
    score -= 0.5 * (tilt / 0.26) ** 2
    crossed = (over_left + over_right + over_arc) / 3
    return [
        Evidence(*(float(value) for value in one))
        for one in zip(left, right, arc, crossed, outside, tilt, opening, score, strict=True)
    ]


def _ends(
    echoes: Echoes, place: tuple[Array, Array], normal: tuple[Array, Array]
) -> tuple[Array, Array]:
    """(fans,) shares of a curve's seen length where foreground ends, and where it goes on."""

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
    contrast = (inner - outer) / (inner + outer + max(4.0, 0.05 * echoes.bright))
    ends = np.clip((contrast - 0.3) / 0.3, 0, 1) * seen
    goes_on = np.clip((outer / echoes.bright - 0.15) / 0.2, 0, 1) * seen
    length = np.maximum(seen.sum(axis=-1), _LEAST_SEEN * seen.shape[-1])
    return ends.sum(axis=-1) / length, goes_on.sum(axis=-1) / length


def _outside(fans: Sequence[Sector], echoes: Echoes) -> Array:
    """(fans,) share of the foreground more than 1.5 pixels outside of each."""
    points = echoes.solid
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


def confidence(evidence: Evidence, bend: float) -> float:
    """0 to 1: how sure a fan is, from what speaks for and against it.

    Args:
        evidence: for it.
        bend: of the outline along its edges, as in `refine.bend`.
    """
    edges = evidence.left + evidence.right
    weaker = min(evidence.left, evidence.right)
    value = (
        -3.5
        + 4.0 * edges
        + 2.0 * evidence.arc
        + 2.0 * min(weaker, 0.3) / 0.3
        - 8.0 * evidence.crossed
        - 25.0 * evidence.outside
        - 1.0 * (evidence.tilt / 0.26) ** 2
        - 1.5 * max(0.0, bend - 2.0)
    )
    return float(1 / (1 + np.exp(-value)))
