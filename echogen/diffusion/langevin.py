"""Langevin inpainting: a few noisy steps at each noise level, guided in both directions.

Each evaluation adds noise to what is painted and lets the denoiser take it away again, a Langevin
step of large size (the "churn" of Karras et al. 2022, 2206.00364, algorithm 2); several of them at
a level let what is painted and what is known come to agree. The painted pixels see the known ones
through the network. The known ones see the painted ones, too: where the network, looking at the
whole picture, expects another value than the known one, they are shown to it exaggerated, until it
agrees. That is the idea of the bidirectional guidance of LanPaint (Zheng et al. 2025, 2502.03491).

Everything is written in z = x_t / sqrt(abar_t) = x_0 + sigma n.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from echogen.config import LangevinConfig
from echogen.diffusion.border import Known
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import langevin_walk

GUIDANCE_SCALE = 0.1
"""The network's error on known pixels is smoothed over this share of the image's height, so that
anatomy is exaggerated and speckle is not.
"""


def chain(
    config: LangevinConfig, denoiser: Denoiser, known: Tensor, keep: Tensor, noise: NoiseSource
) -> Tensor:
    """From noise to the last prediction: (B, C, H, W), kept pixels not yet put back.

    Args:
        config: the noise levels, and the settings of `langevin_walk` and the guidance.
        denoiser: an image prior.
        known: (B, C, H, W) float32, C the denoiser's channels.
        keep: (B, 1, H, W) bool.
        noise: one stream a sample; one draw for the start and one an evaluation.
    """
    moves = langevin_walk(config)
    z = moves[0].sigma * noise.draw(known.shape)
    exaggeration = torch.zeros_like(known)
    smooth = smoother(keep, GUIDANCE_SCALE)
    for move in moves:
        drawn = noise.draw(known.shape)
        added = math.sqrt(move.sigma_hat**2 - move.sigma**2) * config.noise_gain
        shown = known + exaggeration + move.sigma_hat * drawn
        z = torch.where(keep, shown, z + added * drawn)
        x0 = predict_at(denoiser, z, move.sigma_hat)
        exaggeration = config.memory * exaggeration + config.guidance * smooth(known - x0)
        z = x0 + (move.sigma_next / move.sigma_hat) * (z - x0)
    return z


def predict_at(
    denoiser: Denoiser,
    z: Tensor,
    sigma: float,
    known: Known | None = None,
) -> Tensor:
    """E[x_0 | z] for z = x_0 + sigma n, at the timestep whose noise level is sigma.

    Args:
        denoiser: an image prior.
        z: (B, C, H, W) float32.
        sigma: noise level; outside the model's schedule, its nearest end is used.
        known: as `Denoiser.predict` takes it.
    """
    timestep = denoiser.schedule.timestep_at(sigma)
    level = denoiser.schedule.sigma_at(timestep)
    return denoiser.predict(z / math.sqrt(1.0 + level**2), timestep, known).x0


def smoother(inside: Tensor, scale: float) -> Callable[[Tensor], Tensor]:
    """A function that averages an image over blocks of the pixels inside, and interpolates.

    Args:
        inside: (B, 1, H, W) bool; other pixels count for nothing.
        scale: side of a block as a share of H; where that is a pixel, nothing is smoothed.

    Returns:
        (B, C, H, W) float32 to the same shape; 0 where no pixel inside is near.
    """
    size = inside.shape[-2:]
    block = round(scale * size[0])
    if block < 2:
        return lambda values: values
    share = inside.float()

    def spread(values: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(values, block, ceil_mode=True)
        return functional.interpolate(pooled, size=size, mode="bilinear")

    weight = spread(share).clamp(min=1.0 / block**2)
    return lambda values: spread(values * share) / weight
