"""What is hidden of each image: holes as `expand` will ask for, of other shapes, and whole images.

A network that sees what is known (RAD, Li et al. 2025, 2412.09191; TD-Paint, 2410.09306) learns to
paint the holes that it is shown, so they are drawn from `expand`'s own moves on frames that were
varied before (`augment`), and from shapes that no move leaves. Everything follows from one row of
uniform numbers an image, so that it depends neither on the batch around it nor on who draws it.
Several holes are tried on every `COARSE`-th pixel, and the first that hides neither too little nor
too much is drawn in full.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from echogen.training.augment import Varied, as_they_are
from echogen.training.fans import Fans, after, way_back
from echogen.training.recipe import HolesConfig

COARSE = 4
FIXED_SEED = 41
BEYOND = 0.3
"""Share of the shapes that hide what lies outside of the fan, too."""
NEIGHBOURS = 7
"""Pixels on a side of the square in which a hidden pixel's known neighbours are counted."""

_TRIES = 8
_MOVE, _SHAPE, _LATTICE = 11, 8, 32
HOLE_DRAWS = 1 + _TRIES * (_MOVE + _SHAPE) + _LATTICE**2
"""Uniform numbers for the hole of one image."""


def hidden_whole(draws: Tensor, config: HolesConfig) -> Tensor:
    """(B,) bool: the images of which nothing is shown; see `draw_keep` for the arguments."""
    return draws[:, 0] >= config.moves + config.shapes


def draw_keep(varied: Varied, draws: Tensor, config: HolesConfig) -> Tensor:
    """What is known of each image.

    Args:
        varied: the frames as they are shown.
        draws: (B, HOLE_DRAWS) uniform in [0, 1), on the CPU, where it is decided which images get
            which kind of hole, so that a GPU is never waited for.
        config: shares, moves and limits.

    Returns:
        (B, 1, S, S) bool on the fans' device, True where known: outside of the fan, too, but for
        whole images and for some of the shapes. Where no try made a hole, the whole fan is hidden.
    """
    device = varied.back.device
    by_move = draws[:, 0] < config.moves
    by_shape = ~by_move & ~hidden_whole(draws, config)
    kinds = [torch.nonzero(chosen).flatten() for chosen in (by_move, by_shape)]
    sent = draws.to(device, non_blocking=True)
    sizes = [1, _TRIES * _MOVE, _TRIES * _SHAPE, _LATTICE**2]
    _, moves, shapes, lattice = torch.split(sent, sizes, dim=1)
    side = varied.fans.side
    keep = torch.zeros(len(draws), side, side, dtype=torch.bool, device=device)
    for rows, numbers, known in zip(kinds, (moves, shapes), (_by_move, _by_shape), strict=True):
        if len(rows):
            chosen = rows.to(device, non_blocking=True)
            keep[chosen] = known(varied[chosen], numbers[chosen], lattice[chosen], config)
    return keep[:, None]


def fixed_keep(fans: Fans, config: HolesConfig) -> Tensor:
    """What moves leave known of frames as they are, always the same for the same fans in the same
    order, or for the first of them: to measure by, and to look at.

    Returns:
        (B, 1, S, S) bool.
    """
    moves_alone = config.model_copy(update={"moves": 1.0, "shapes": 0.0, "whole": 0.0})
    draws = torch.rand(
        len(fans.numbers), HOLE_DRAWS, generator=torch.Generator().manual_seed(FIXED_SEED)
    )
    return draw_keep(as_they_are(fans), draws, moves_alone)


def border_weights(keep: Tensor, weight: float) -> Tensor:
    """How much each pixel counts in the loss: nothing where known, 1 + `weight` times the share of
    known ones among its neighbours elsewhere.

    Args:
        keep: (B, 1, S, S) bool.
        weight: at most added.

    Returns:
        Like keep, float32.
    """
    around = (NEIGHBOURS // 2,) * 4
    near = functional.avg_pool2d(
        functional.pad(keep.float(), around, mode="replicate"), NEIGHBOURS, 1
    )
    return ~keep * (1 + weight * near)


def _by_move(varied: Varied, numbers: Tensor, _: Tensor, config: HolesConfig) -> Tensor:
    """(B, S, S) bool: known after a move; numbers (B, _TRIES * _MOVE)."""
    count = len(numbers)
    fans = varied.fans.repeated(_TRIES)
    backs, borders = _moves(fans, numbers.reshape(count * _TRIES, _MOVE), config)
    backs = after(backs, varied.back.repeat_interleave(_TRIES, dim=0))
    real = fans.within(backs, borders, COARSE)
    shown = _coarse(varied.shown)
    best, made = _first_fitting(shown & ~real, shown, config, count)
    backs, borders = backs.reshape(count, _TRIES, 2, 3)[best], borders.reshape(count, _TRIES)[best]
    real = varied.fans.within(backs, borders) & made
    return real | ~varied.shown


def _moves(fans: Fans, numbers: Tensor, config: HolesConfig) -> tuple[Tensor, Tensor]:
    """Ways back (N, 2, 3) and borders (N,) in rows, as `geometry.transforms.draw` draws them."""
    chosen, values = numbers[:, :4] < config.probability, numbers[:, 4:9].unbind(dim=1)
    ranges = (config.depth, config.tilt_deg, config.width, config.shift)
    depth, tilt, width, shift = (
        torch.where(pick, low + (high - low) * u, neutral)
        for pick, (low, high), u, neutral in zip(
            chosen.unbind(dim=1), ranges, values, (1.0, 0.0, 1.0, 0.0), strict=False
        )
    )
    radius, direction = shift * fans.height, 2 * math.pi * values[4]
    back = way_back(
        depth, torch.deg2rad(tilt), width, radius * direction.sin(), radius * direction.cos()
    )
    other = numbers[:, 9] < config.border_varied
    border = torch.where(other, config.border_most * numbers[:, 10], config.border)
    return back, border * fans.height


def _by_shape(varied: Varied, numbers: Tensor, lattice: Tensor, config: HolesConfig) -> Tensor:
    """(B, S, S) bool: known beside a shape; numbers (B, _TRIES * _SHAPE)."""
    count = len(numbers)
    tries = numbers.reshape(count * _TRIES, _SHAPE)
    shown = _coarse(varied.shown)
    flat_lattice = lattice.repeat_interleave(_TRIES, dim=0)
    hidden = _shapes(varied.fans.repeated(_TRIES), tries, flat_lattice, COARSE) & shown
    best, made = _first_fitting(hidden, shown, config, count)
    tries = tries.reshape(count, _TRIES, _SHAPE)[best]
    hidden = _shapes(varied.fans, tries, lattice, 1)
    hidden &= varied.shown | (tries[:, 7] < BEYOND)[:, None, None]
    return ~torch.where(made, hidden, varied.shown)


def _coarse(shown: Tensor) -> Tensor:
    """(B * _TRIES, h, w) of (B, S, S): every `COARSE`-th pixel, once for each try."""
    return shown[:, COARSE // 2 :: COARSE, COARSE // 2 :: COARSE].repeat_interleave(_TRIES, dim=0)


def _shapes(fans: Fans, numbers: Tensor, lattice: Tensor, step: int) -> Tensor:
    """(B, h, w) bool: within a half plane, ellipse, wedge, band or blobs; lengths follow the fan.

    Blobs, from large to a few pixels, are three in seven: of all shapes they have the most border,
    where the network learns how speckle goes on.
    """
    kind = (numbers[:, 0] * 7).long().clamp(max=4)[:, None, None]
    far = fans.radius
    left, right = fans.numbers[:, 2], fans.numbers[:, 3]

    def between(k: int, low: float, high: float) -> Tensor:
        return (low + (high - low) * numbers[:, k])[:, None, None]

    down, across = fans.offsets(step)
    down, across = down / far[:, None, None], across / far[:, None, None]
    turn = between(1, 0, 2 * math.pi)
    plane = (down - between(2, 0.12, 0.88)) * turn.cos()
    plane = plane + (across - between(3, -0.4, 0.4)) * turn.sin() > 0
    ellipse = ((down - between(2, 0.0, 1.0)) / between(4, 0.06, 0.35)) ** 2
    ellipse = ellipse + ((across - between(3, -0.55, 0.55)) / between(5, 0.06, 0.35)) ** 2 < 1
    radius = torch.hypot(down, across)
    angle = (left + (right - left) * numbers[:, 1])[:, None, None]
    wedge = down * angle.cos() + across * angle.sin() > radius * between(4, 0.05, 0.5).cos()
    band = (radius - between(2, 0.08, 1.0)).abs() < between(4, 0.03, 0.31)
    blob = _smooth(lattice, numbers[:, 1], fans.side, step) > between(6, -0.7, 0.7)
    shape = torch.where(kind == 0, plane, ellipse)
    for number, other in enumerate((wedge, band, blob), start=2):
        shape = torch.where(kind == number, other, shape)
    return shape


def _smooth(lattice: Tensor, scale: Tensor, side: int, step: int) -> Tensor:
    """(B, h, w) of normal values on a lattice, of which 4 to 32 lie along a side; bicubic."""
    values = torch.special.ndtri(lattice.clamp(1e-6, 1 - 1e-6))
    values = values.reshape(-1, 1, _LATTICE, _LATTICE)
    shown = (4 * (_LATTICE / 4) ** scale / _LATTICE)[:, None]
    places = (torch.arange(step // 2, side, step, device=lattice.device) + 0.5) / side
    along = places * shown * 2 - 1
    count, length = along.shape
    grid = torch.stack(
        [
            along[:, None, :].expand(count, length, length),
            along[:, :, None].expand(count, length, length),
        ],
        dim=-1,
    )
    smooth = functional.grid_sample(
        values, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return smooth[:, 0]


def _first_fitting(
    hidden: Tensor, shown: Tensor, config: HolesConfig, count: int
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """An index of each image's first hole of a fitting size among its (count * _TRIES, h, w), and
    (count, 1, 1) whether there is one.
    """
    fan = shown.flatten(1).sum(dim=1).clamp(min=1)
    share = (hidden.flatten(1).sum(dim=1) / fan).reshape(count, _TRIES)
    fits = (share > config.min_hole) & (share < config.max_hole)
    first = fits.int().argmax(dim=1)
    images = torch.arange(count, device=hidden.device)
    return (images, first), fits.any(dim=1)[:, None, None]
