"""Pictures for the judge: real frames moved, cut, and filled up with parts of others.

Each is a mosaic in the fan of one frame: that frame after moves as `expand` draws them; in what
they leave empty, another frame (most often with its heart in there), the same one unmoved, grain,
or nothing. A third of the frames are magnified first, so that real surroundings of a heart that
lies at the fan's edge fill the fan. Truth goes along with the pixels, so hearts come whole and in
parts, alone and in pairs; the label is of the first heart alone.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from judge_frames import Frames
from torch import Tensor
from torch.nn import functional

SIDE = 128
CLASSES = 3


@dataclass(frozen=True)
class Moves:
    """Of some frames, about their apexes: (B,) each; lengths in the frame's height."""

    depth: Tensor
    tilt: Tensor
    width: Tensor
    down: Tensor
    across: Tensor
    mirror: Tensor


def drawn(g: torch.Generator, count: int, wide: float = 1.0) -> Moves:
    """Depth, tilt, width and shift, each with probability one half, in `wide` times the ranges."""

    def some(low: float, high: float, usual: float) -> Tensor:
        value = low + (high - low) * torch.rand(count, generator=g)
        return torch.where(torch.rand(count, generator=g) < 0.5, value, torch.tensor(usual))

    radius, angle = some(0, 0.2 * wide, 0), 2 * math.pi * torch.rand(count, generator=g)
    return Moves(
        some(0.85, 1.6, 1),
        some(-30 * wide, 30 * wide, 0) * math.pi / 180,
        some(0.6, 1.5, 1),
        radius * torch.sin(angle),
        radius * torch.cos(angle),
        torch.where(torch.rand(count, generator=g) < 0.15, -1.0, 1.0),
    )


def unmoved(count: int) -> Moves:
    """Frames as they are."""
    one, zero = torch.ones(count), torch.zeros(count)
    return Moves(one, zero, one, zero, zero, one)


class Pool:
    """Frames as tensors, and their moved versions on the judge's grid."""

    def __init__(self, frames: Frames, chosen: np.ndarray) -> None:
        """`chosen` are indices of `frames`."""
        self.images, self.labels, self.fans = (
            torch.from_numpy(part[chosen]) for part in (frames.images, frames.labels, frames.fans)
        )
        self.apexes = torch.from_numpy(frames.apexes[chosen]).float()
        self.aspects = torch.from_numpy(frames.aspects[chosen]).float()
        self.cases = frames.cases[chosen]

    def __len__(self) -> int:
        return len(self.images)

    def moved(self, rows: Tensor, moves: Moves) -> tuple[Tensor, Tensor, Tensor]:
        """Images in [0, 1], labels and fans: (B, SIDE, SIDE) each."""
        size = self.images.shape[-1]

        def wide(value: Tensor) -> Tensor:
            return value[:, None, None]

        place = (torch.arange(SIDE) + 0.5) * (size / SIDE) - 0.5
        row0, col0 = (wide(self.apexes[rows, k]) for k in (0, 1))
        aspect = wide(self.aspects[rows])
        down = place[None, :, None] - row0 - wide(moves.down) * size
        across = (place[None, None, :] - col0) * aspect - wide(moves.across) * size
        across = across / wide(moves.width)
        cosine, sine = torch.cos(wide(moves.tilt)), torch.sin(wide(moves.tilt))
        down, across = cosine * down + sine * across, cosine * across - sine * down
        down, across = down * wide(moves.depth), across * wide(moves.depth * moves.mirror)
        row, col = down + row0, across / aspect + col0
        grid = torch.stack([(col + 0.5) * 2 / size - 1, (row + 0.5) * 2 / size - 1], -1)
        image = functional.grid_sample(
            self.images[rows, None].float() / 255, grid, align_corners=False
        )[:, 0]
        exact = torch.stack([self.labels[rows], self.fans[rows].to(torch.uint8)], 1).float()
        label, fan = functional.grid_sample(
            exact, grid, mode="nearest", align_corners=False
        ).unbind(1)
        return image * (fan > 0), (label * (fan > 0)).long(), fan > 0


def _areas(g: torch.Generator, count: int) -> Tensor:
    """(count, SIDE, SIDE) bool: a rectangle, a half plane or a smooth shape each."""
    row, col = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    out = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for i in range(count):
        kind, (a, b, c, d) = int(torch.randint(3, (1,), generator=g)), torch.rand(4, generator=g)
        if kind == 0:
            top, left, height, width = (
                a * SIDE,
                b * SIDE,
                (0.1 + 0.5 * c) * SIDE,
                (0.1 + 0.5 * d) * SIDE,
            )
            out[i] = (row >= top) & (row < top + height) & (col >= left) & (col < left + width)
        elif kind == 1:
            turn = 2 * math.pi * a
            at_row, at_col = (0.2 + 0.6 * b) * SIDE, (0.2 + 0.6 * c) * SIDE
            out[i] = (row - at_row) * torch.cos(turn) + (col - at_col) * torch.sin(turn) > 0
        else:
            coarse = torch.randn(1, 1, 3 + int(5 * a), 3 + int(5 * a), generator=g)
            smooth = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")[0, 0]
            out[i] = smooth > 0.2 + 0.8 * b
    return out


def batch(pool: Pool, rows: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a network sees and is to tell: (B, 2, SIDE, SIDE) and (B, SIDE, SIDE).

    It sees images in [-1, 1], and labels of one heart as a part of the classes, or none at all.
    """
    count = len(rows)
    _, _, target = pool.moved(rows, unmoved(count))
    moves = drawn(g, count)
    near = torch.rand(count, generator=g) < 0.35
    depth = torch.where(near, 0.5 + 0.4 * torch.rand(count, generator=g), moves.depth)
    image, label, there = pool.moved(rows, replace(moves, depth=depth))
    labelled = label
    hole = target & ~there
    areas = _areas(g, count)
    hole |= target & areas & (torch.rand(count, generator=g) < 0.35)[:, None, None]
    others = torch.randint(len(pool), (count,), generator=g)
    kind = torch.rand(count, generator=g)
    same = kind < 0.1
    others = torch.where(same, rows, others)
    other, its_label, its_fan = pool.moved(others, drawn(g, count, 1.5))
    empty = ~its_fan
    nothing = ((kind >= 0.1) & (kind < 0.25))[:, None, None]
    grain = torch.rand(count, SIDE, SIDE, generator=g) ** 2
    smooth = functional.avg_pool2d(grain[:, None], 3, 1, 1)[:, 0]
    grain = smooth * (0.8 * torch.rand(count, 1, 1, generator=g))
    mist = ((kind >= 0.25) & (kind < 0.4))[:, None, None]
    other = torch.where(nothing, torch.zeros(()), torch.where(mist, grain, other))
    its_label = torch.where(nothing | mist | empty, 0, its_label)
    soft = functional.avg_pool2d(hole[:, None].float(), 5, 1, 2)[:, 0]
    soft = torch.where((torch.rand(count, generator=g) < 0.5)[:, None, None], soft, hole.float())
    image = image * (1 - soft) + other * soft
    truth = torch.where(hole & (labelled == 0), its_label, labelled)
    truth = torch.where(target, truth, 0)
    shown = labelled * (torch.rand(count, generator=g) < 0.9)[:, None, None]
    seen = _seen_otherwise(image * target, target, g)
    return torch.cat([seen, shown[:, None] / CLASSES], 1), truth


def _seen_otherwise(image: Tensor, fan: Tensor, g: torch.Generator) -> Tensor:
    """Another gain, contrast, grain and sharpness."""
    count = len(image)

    def some(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=g))[:, None, None]

    def coin(probability: float) -> Tensor:
        return (torch.rand(count, generator=g) < probability)[:, None, None]

    blurred = functional.avg_pool2d(image[:, None], 3, 1, 1)[:, 0]
    image = torch.where(coin(0.25), blurred, image)
    image = image.clamp(1e-4, 1) ** torch.exp(some(-0.4, 0.4)) * torch.exp(some(-0.3, 0.2))
    noise = 1 + torch.randn(image.shape, generator=g) * some(0, 0.25) * coin(0.5)
    return ((image * noise * fan).clamp(0, 1) * 2 - 1)[:, None]
