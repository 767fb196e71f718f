"""A small network's opinion: is there a fan, and where.

A convolutional network, trained on made-up pictures (`benchmarks/fan_network.py`), sees the whole
picture at 128 x 128. It answers with the likelihood of a fan and with four maps, each the signed
distance of a place from one part of the fan's outline: the two edge lines, the near and the far
arc. A fan is then laid through the maps by least squares. Because every place has a say, an edge
that blood hides or the border cuts off is continued from what is seen. The grid is coarse, so the
fan wants refining.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from echogen.geometry.sector import Sector

SIDE, MAPS = 128, 32
"""Pixels along a side of the network's picture and of its maps."""
REACH = 5.0
"""Distances are told as tanh(distance / REACH), in the picture's pixels."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Opinion:
    """What the network makes of a picture.

    Attributes:
        likelihood: that there is a fan, apex up, 0 to 1.
        fan: in mm; None where the maps are no fan's.
        misfit: between the maps and that fan's own, 0 to 2, near its outline; 2 without a fan.
    """

    likelihood: float
    fan: Sector | None
    misfit: float


def opinion(image: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]) -> Opinion:
    """Whether and where an image shows a fan.

    Args:
        image: (H, W) uint8.
        spacing_mm: (row, col) mm per pixel.
    """
    small, scale, origin = letterbox(image, spacing_mm)
    maps, logit = answer(small)
    likelihood = float(1 / (1 + np.exp(-logit)))
    fan, misfit = fan_through(maps)
    if fan is not None:
        fan = Sector(
            (fan.apex_row - origin[0]) / scale, (fan.apex_col - origin[1]) / scale,
            fan.angle_left, fan.angle_right, fan.radius_near / scale, fan.radius_far / scale,
        )  # fmt: skip
    return Opinion(likelihood, fan, misfit)


def letterbox(
    image: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]
) -> tuple[npt.NDArray[np.uint8], float, tuple[float, float]]:
    """The image in the middle of a square of SIDE pixels, its longer side filling it.

    Returns:
        (SIDE, SIDE) uint8, each pixel the mean of what it covers, black around the image; pixels
        per mm; (row, col) pixels of the image's outer corner.
    """
    height, width = image.shape[0] * spacing_mm[0], image.shape[1] * spacing_mm[1]
    scale = SIDE / max(height, width)
    origin = ((SIDE - height * scale) / 2, (SIDE - width * scale) / 2)
    rows = _shares(image.shape[0], spacing_mm[0] * scale, origin[0])
    cols = _shares(image.shape[1], spacing_mm[1] * scale, origin[1])
    small = rows @ image.astype(np.float32) @ cols.T
    return np.clip(np.rint(small), 0, 255).astype(np.uint8), scale, origin


def _shares(count: int, size: float, origin: float) -> Float32:
    """(SIDE, count) how much of each target pixel each source pixel covers."""
    begin = origin + np.arange(count) * size
    target = np.arange(SIDE)[:, None]
    covered = np.minimum(begin + size, target + 1) - np.maximum(begin, target)
    return np.asarray(np.clip(covered, 0, None), dtype=np.float32)


def distances(fan: Float64) -> Float64:
    """(4, MAPS, MAPS) tanh of the signed distances, positive inside, from a fan's outline.

    Args:
        fan: (6,) apex row and col, angles left and right, radii near and far, in pixels of SIDE.
    """
    row, col, left, right, near, far = fan
    place = (np.arange(MAPS) + 0.5) * (SIDE / MAPS)
    down, across = place[:, None] - row, place[None, :] - col
    radius = np.hypot(down, across)
    beside = [
        np.cos(left) * across - np.sin(left) * down,
        np.sin(right) * down - np.cos(right) * across,
        radius - near,
        far - radius,
    ]
    return np.tanh(np.stack(beside) / REACH)


def fan_through(maps: npt.NDArray[Any]) -> tuple[Sector | None, float]:
    """The fan whose distances are most like (4, MAPS, MAPS) maps, in pixels of SIDE; its misfit."""
    maps = np.clip(maps.astype(np.float64), -0.999, 0.999)
    between = np.clip(maps[0], 0, 1) * np.clip(maps[1], 0, 1)
    within = np.clip(maps[2], 0, 1) * np.clip(maps[3], 0, 1)
    near_outline = np.abs(maps) < 0.98
    weight = near_outline * np.stack([0.1 + 0.9 * within] * 2 + [0.02 + 0.98 * between] * 2) + 0.01
    start = _start(maps, between, within)
    if start is None:
        return None, 2.0
    root = np.sqrt(weight)
    found = optimize.least_squares(
        lambda fan: ((distances(fan) - maps) * root).ravel(),
        start, x_scale=[5, 5, 0.05, 0.05, 5, 5], loss="soft_l1", f_scale=0.2, max_nfev=25,
    ).x  # fmt: skip
    row, col, left, right, near, far = (float(value) for value in found)
    near = max(near, 0.0)
    if not (-np.pi / 2 < left < right < np.pi / 2 and near < far):
        return None, 2.0
    misfit = float((np.abs(distances(found) - maps) * weight).sum() / weight.sum())
    return Sector(row, col, left, right, near, far), misfit


def _start(maps: Float64, between: Float64, within: Float64) -> Float64 | None:
    """(6,) a fan from straight lines through the two edges' maps, and mean radii."""
    place = (np.arange(MAPS) + 0.5) * (SIDE / MAPS)
    row, col = np.meshgrid(place, place, indexing="ij")
    distance = np.arctanh(maps) * REACH
    lines = []
    for side, sign in ((0, 1.0), (1, -1.0)):
        weight = np.sqrt((np.abs(maps[side]) < 0.9) * (0.1 + within)).ravel()
        if (weight > 0).sum() < 6:
            return None
        terms = np.stack([col.ravel(), row.ravel(), np.ones(row.size)], axis=1)
        line = np.linalg.lstsq(terms * weight[:, None], distance[side].ravel() * weight)[0]
        lines.append(sign * line / max(float(np.hypot(line[0], line[1])), 1e-6))
    left, right = (float(np.arctan2(-line[1], line[0])) for line in lines)
    if not -np.pi / 2 < left < right - 0.1 < np.pi / 2:
        return None
    across, down = np.linalg.solve([line[:2] for line in lines], [-line[2] for line in lines])
    radius = np.hypot(row - down, col - across)

    def mean(side: int, sign: float, otherwise: float) -> float:
        weight = (np.abs(maps[side]) < 0.9) * between
        if weight.sum() < 0.5:
            return otherwise
        return float(np.average(radius + sign * distance[side], weights=weight))

    near = max(mean(2, -1.0, 0.0), 0.0)
    far = max(mean(3, 1.0, float(radius.max())), near + 5)
    return np.array([down, across, left, right, near, far])


def answer(small: npt.NDArray[np.uint8]) -> tuple[Float32, float]:
    """The network's maps (4, MAPS, MAPS) and logit of a (SIDE, SIDE) picture."""
    part = _weights()
    x = np.sqrt(small[None].astype(np.float32) / 255)
    seen = []
    for level, strides in enumerate(((2,), (2, 1), (2, 1), (2, 1), (2, 1))):
        for number, stride in enumerate(strides):
            x = _convolved(x, part, f"down{level}.{number}", stride)
        seen.append(x)
    whole = np.maximum(part["whole.weight"] @ x.ravel() + part["whole.bias"], 0)
    logit = float((part["likely.weight"] @ whole + part["likely.bias"])[0])
    lift = (part["lift.weight"] @ whole + part["lift.bias"])[:, None, None]
    for level in (3, 2, 1):
        wide = _mixed(x, part, f"mix{level}").repeat(2, axis=1).repeat(2, axis=2)
        x = _convolved(seen[level] + wide + (lift if level == 3 else 0), part, f"up{level}", 1)
    return _mixed(x, part, "maps"), logit


def _convolved(x: Float32, part: dict[str, Float32], name: str, stride: int) -> Float32:
    weight = part[f"{name}.weight"]
    size = weight.shape[-1]
    edge = size // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    tiles = tiles[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2)
    flat = tiles.reshape(x.shape[0] * size * size, -1)
    out = weight.reshape(len(weight), -1) @ flat + part[f"{name}.bias"][:, None]
    return np.asarray(np.maximum(out, 0).reshape(len(weight), *tiles.shape[3:]))


def _mixed(x: Float32, part: dict[str, Float32], name: str) -> Float32:
    weight = part[f"{name}.weight"]
    out = weight @ x.reshape(len(x), -1) + part[f"{name}.bias"][:, None]
    return np.asarray(out.reshape(len(weight), *x.shape[1:]))


@cache
def _weights() -> dict[str, Float32]:
    file = resources.files("echogen.geometry") / "network.npz"
    with resources.as_file(file) as path, np.load(path) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}
