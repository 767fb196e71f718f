"""Variation that does not leak: the network is told how each training frame was varied.

Non-leaking augmentation by conditioning (Karras et al. 2022, 2206.00364, appendix F.2): the drawn
parameters enter through a linear map without bias that is added to the time embedding. For an
unvaried frame they are zero and so is the map's output: the network that is kept is the plain one.
Frames that are not drawn pass through untouched, bit for bit.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from echogen.training.config import AugmentConfig

PARAMETERS = ("varied", "zoom", "lateral", "tilt", "shift_x", "shift_y", "gamma")


def augment(
    frames: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Frames moved about the middle of their upper edge, where the apex lies, and gamma applied.

    Args:
        frames: (B, 1, S, S) float in [0, 1], background 0.
        config: what is drawn, uniformly (zoom and lateral in their logarithm).
        generator: the only source of randomness, on the frames' device.

    Returns:
        (B, 1, S, S) in [0, 1] rounded to whole grey levels, background 0; and (B, 7) parameters,
        each in about [-1, 1], all zero where a frame is unvaried (see `PARAMETERS`).
    """
    count = len(frames)

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(count, generator=generator, device=frames.device)
        return low + (high - low) * draw

    varied = uniform(0, 1) < config.probability
    zoom = uniform(math.log(config.zoom[0]), math.log(config.zoom[1]))
    lateral = uniform(math.log(config.lateral[0]), math.log(config.lateral[1]))
    tilt = uniform(-1, 1) * math.radians(config.tilt_deg)
    shift_x, shift_y = (uniform(-2, 2) * config.shift for _ in range(2))
    log_gamma = uniform(-1, 1) * config.gamma

    # grid_sample wants the map from output to input, in [-1, 1] with the apex at (0, -1).
    cos, sin = torch.cos(tilt), torch.sin(tilt)
    scale_x, scale_y = torch.exp(-zoom - lateral), torch.exp(-zoom)
    theta = torch.zeros(count, 2, 3, device=frames.device)
    theta[:, 0, 0], theta[:, 0, 1] = cos * scale_x, sin * scale_y
    theta[:, 1, 0], theta[:, 1, 1] = -sin * scale_x, cos * scale_y
    centre_x, centre_y = shift_x, shift_y - 1
    theta[:, 0, 2] = -(theta[:, 0, 0] * centre_x + theta[:, 0, 1] * centre_y)
    theta[:, 1, 2] = -1 - (theta[:, 1, 0] * centre_x + theta[:, 1, 1] * centre_y)
    grid = functional.affine_grid(theta, list(frames.shape), align_corners=False)
    moved = functional.grid_sample(frames, grid, mode="bicubic", align_corners=False)
    moved = moved.clamp(0, 1) ** torch.exp(log_gamma)[:, None, None, None]
    moved = torch.round(moved * 255) / 255

    ranges = (config.zoom, config.lateral)
    zoom_unit, lateral_unit = (max(map(abs, map(math.log, r))) or 1.0 for r in ranges)
    parameters = torch.stack(
        [
            torch.ones_like(zoom),
            zoom / zoom_unit,
            lateral / lateral_unit,
            tilt / (math.radians(config.tilt_deg) or 1.0),
            shift_x / (2 * config.shift or 1.0),
            shift_y / (2 * config.shift or 1.0),
            log_gamma / (config.gamma or 1.0),
        ],
        dim=1,
    )
    picked = torch.where(varied[:, None, None, None], moved, frames)
    return picked, parameters * varied[:, None]
