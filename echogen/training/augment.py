"""Frames varied for training, so that they are more than they are.

Without conditioning the network is told how each frame was varied: non-leaking augmentation (Karras
et al. 2022, 2206.00364, appendix F.2). The drawn parameters enter through a linear map without bias
that is added to the time embedding. For an unvaried frame they are zero and so is the map's output:
the network that is kept is the plain one. Frames that are not drawn pass through untouched, bit for
bit.

A network that sees a part of each frame need not be told: it sees a larger heart, or a turned fan,
and is to paint what continues it. Where it sees nothing it must not paint turned fans, so there the
fan stays and its content alone is varied.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from echogen.training.fans import Fans, still, way_back
from echogen.training.recipe import AugmentConfig

PARAMETERS = ("varied", "zoom", "lateral", "tilt", "shift_x", "shift_y", "gamma")


def draw_variation(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """How each frame is varied: all the randomness, and what the network is told.

    Args:
        count: B.
        config: what is drawn, uniformly (zoom and lateral in their logarithm).
        generator: the only source of randomness.

    Returns:
        (B, 7) on the generator's device, each column of `PARAMETERS` in [-1, 1], a share of the
        largest deviation; all zero where a frame stays as it is.
    """

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, device=generator.device)

    varied = uniform() < config.probability
    units = _units(config)
    drawn = [torch.ones(count, device=generator.device)]
    for unit, (low, high) in zip(units[:2], (config.zoom, config.lateral), strict=True):
        span = math.log(high) - math.log(low)
        drawn.append((math.log(low) + span * uniform()) / (unit or 1.0))
    drawn += [(2 * uniform() - 1) * bool(unit) for unit in units[2:]]
    table = torch.stack(drawn, dim=1) * varied[:, None]
    if config.each < 1:
        kept = torch.rand(count, len(drawn) - 1, generator=generator, device=generator.device)
        table[:, 1:] *= kept < config.each
    return table


def vary(frames: Tensor, variation: Tensor, config: AugmentConfig) -> Tensor:
    """Frames moved about the middle of their upper edge, where the apex lies, and gamma applied.

    Args:
        frames: (B, 1, S, S) float in [0, 1], background 0.
        variation: (B, 7) of `draw_variation`, on the frames' device.
        config: the one it was drawn with.

    Returns:
        (B, 1, S, S) in [0, 1] rounded to whole grey levels, background 0; unvaried frames as given.
    """
    varied = variation[:, 0] > 0
    columns = (variation[:, 1:] * variation.new_tensor(_units(config))).unbind(dim=1)
    zoom, lateral, tilt, shift_x, shift_y, log_gamma = columns

    # grid_sample wants the map from output to input, in [-1, 1] with the apex at (0, -1).
    cos, sin = torch.cos(tilt), torch.sin(tilt)
    scale_x, scale_y = torch.exp(-zoom - lateral), torch.exp(-zoom)
    theta = variation.new_zeros(len(frames), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * scale_x, sin * scale_y
    theta[:, 1, 0], theta[:, 1, 1] = -sin * scale_x, cos * scale_y
    centre_x, centre_y = shift_x, shift_y - 1
    theta[:, 0, 2] = -(theta[:, 0, 0] * centre_x + theta[:, 0, 1] * centre_y)
    theta[:, 1, 2] = -1 - (theta[:, 1, 0] * centre_x + theta[:, 1, 1] * centre_y)
    grid = functional.affine_grid(theta, list(frames.shape), align_corners=False)
    moved = functional.grid_sample(frames, grid, mode="bicubic", align_corners=False)
    moved = moved.clamp(0, 1) ** torch.exp(log_gamma)[:, None, None, None]
    moved = torch.round(moved * 255) / 255
    return torch.where(varied[:, None, None, None], moved, frames)


UNTOLD_DRAWS = 13
"""Uniform numbers for `vary_untold` of one image."""


@dataclass(frozen=True)
class Varied:
    """How frames lie after they were varied.

    Attributes:
        fans: B of them, as they lay before.
        back: (B, 2, 3) from displayed offsets to the frames', see `fans`.
        shown: (B, S, S) bool, where the varied frames show ultrasound.
    """

    fans: Fans
    back: Tensor
    shown: Tensor

    def __getitem__(self, rows: Tensor) -> "Varied":
        """Some of them."""
        return Varied(self.fans[rows], self.back[rows], self.shown[rows])


def as_they_are(fans: Fans) -> Varied:
    """Frames that were not varied."""
    back = still(fans)
    return Varied(fans, back, fans.within(back))


def vary_untold(
    frames: Tensor, fans: Fans, draws: Tensor, whole: Tensor, config: AugmentConfig
) -> tuple[Tensor, Varied]:
    """Frames moved about their fan's apex, and gamma applied, for a network that is not told.

    Args:
        frames: (B, 1, S, S) float in [0, 1], background 0.
        fans: of the frames, on the same device.
        draws: (B, UNTOLD_DRAWS) uniform in [0, 1), on the CPU.
        whole: (B,) bool on the CPU, the frames that will be hidden as a whole.
        config: what is drawn.

    Returns:
        (B, 1, S, S) in [0, 1] rounded to whole grey levels, background 0; and how they lie.
    """
    device = frames.device
    back, log_gamma = _untold(draws, whole, fans.side, config)
    moved = (back - torch.eye(2, 3)).abs().flatten(1).amax(dim=1) > 0
    cut = moved & ((draws[:, 12] < config.cut) | whole)
    moved_rows, cut_rows, curved = (
        torch.nonzero(chosen).flatten().to(device, non_blocking=True)
        for chosen in (moved, cut, log_gamma != 0)
    )
    back, log_gamma = (x.to(device, non_blocking=True) for x in (back, log_gamma))
    shown = fans.within(back)
    if len(cut_rows):
        shown[cut_rows] &= as_they_are(fans[cut_rows]).shown
    images = frames.clone()
    if len(moved_rows):
        places = fans[moved_rows].source_pixels(back[moved_rows])
        images[moved_rows] = functional.grid_sample(
            frames[moved_rows], places, mode="bicubic", align_corners=False
        ).clamp(0, 1) * shown[moved_rows, None]  # fmt: skip
    if len(curved):
        images[curved] **= torch.exp(log_gamma[curved])[:, None, None, None]
    return torch.round(images * 255) / 255, Varied(fans, back, shown)


def _untold(
    draws: Tensor, whole: Tensor, side: int, config: AugmentConfig
) -> tuple[Tensor, Tensor]:
    """(B, 2, 3) ways back and (B,) log gamma of the draws."""
    varied = draws[:, 0] < config.probability
    picked = (draws[:, 1:6] < config.each) & varied[:, None]
    zooms, laterals, tilts, shifts, directions, gammas = draws[:, 6:12].unbind(dim=1)

    def factor(limits: tuple[float, float], u: Tensor) -> Tensor:
        low, high = (math.log(limit) for limit in limits)
        return torch.exp(low + (high - low) * u)

    def where(column: int, value: Tensor, neutral: float) -> Tensor:
        return torch.where(picked[:, column] & ~whole, value, neutral)

    zoom = where(0, factor(config.zoom, zooms), 1.0)
    lateral = where(1, factor(config.lateral, laterals), 1.0)
    tilt = where(2, math.radians(config.tilt_deg) * (2 * tilts - 1), 0.0)
    radius = where(3, config.shift * side * shifts, 0.0)
    inner = whole & varied
    more = config.inside - 1
    zoom = torch.where(inner, 1 + more * zooms, zoom)
    lateral = torch.where(inner, 1 + more * laterals, lateral)
    tilt = torch.where(inner, 0.5 * more * laterals * (2 * tilts - 1), tilt)  # no corner is bared
    direction = 2 * math.pi * directions
    back = way_back(1 / zoom, tilt, lateral, radius * direction.sin(), radius * direction.cos())
    log_gamma = config.gamma * (2 * gammas - 1) * picked[:, 4]
    return back, log_gamma


def _units(config: AugmentConfig) -> tuple[float, ...]:
    """What 1 stands for in each column after the first; shifts in half images, as grids have it."""
    zoom, lateral = (max(abs(math.log(x)) for x in pair) for pair in (config.zoom, config.lateral))
    shift = 2 * config.shift
    return zoom, lateral, math.radians(config.tilt_deg), shift, shift, config.gamma
