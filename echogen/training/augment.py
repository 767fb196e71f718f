"""Non-leaking augmentation: the network is told how each training frame was varied.

Non-leaking augmentation by conditioning (Karras et al. 2022, 2206.00364, appendix F.2): the drawn
parameters enter through a linear map without bias that is added to the time embedding. For an
unvaried frame they are zero and so is the map's output: the network that is kept is the plain one.
Frames that are not drawn pass through untouched, bit for bit.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

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
    return torch.stack(drawn, dim=1) * varied[:, None]


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


def _units(config: AugmentConfig) -> tuple[float, ...]:
    """What 1 stands for in each column after the first; shifts in half images, as grids have it."""
    zoom, lateral = (max(abs(math.log(x)) for x in pair) for pair in (config.zoom, config.lateral))
    shift = 2 * config.shift
    return zoom, lateral, math.radians(config.tilt_deg), shift, shift, config.gamma
