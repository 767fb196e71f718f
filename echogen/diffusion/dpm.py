"""SDE-DPM-Solver++(2M): in-painting with a network that is shown what is known, and whole images.

The reverse diffusion is solved in lambda = -log sigma with the denoiser's output held straight over
two steps, so that a step may be long, and fresh noise is added at each, so that the errors of the
steps before it are forgotten (Lu et al. 2022, 2211.01095, algorithm 2 and equation 18; the noise
level of the reverse process as `eta`, Song et al. 2020, 2010.02502).

What is known is the denoiser's affair: it shows the network the known pixels without noise and says
which they are (RAD, 2412.09191), so that each step is a step towards the posterior and none has to
make painted and known pixels agree. Where nothing is known, any network paints whole images.

Everything is written in z = x_t / sqrt(abar_t) = x_0 + sigma n.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from echogen.config import DpmConfig
from echogen.diffusion.border import Known
from echogen.diffusion.checkpoint import check_sees_known
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.langevin import predict_at
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import karras_sigmas


def chain(
    config: DpmConfig, denoiser: Denoiser, known: Tensor, keep: Tensor, noise: NoiseSource
) -> Tensor:
    """From noise to the last prediction: (B, C, H, W), kept pixels as known.

    Args:
        config: its highest noise level is lowered to the model's.
        denoiser: an image prior; where something is kept, one with conditioning.
        known: (B, C, H, W) float32, C the denoiser's channels.
        keep: (B, 1, H, W) bool.
        noise: one stream a sample; their draws depend on the settings alone.

    Raises:
        UsageError: something is kept, and the network would not be shown it.
    """
    if bool(keep.any()):
        check_sees_known(denoiser.conditioning, denoiser.name)
    highest = min(config.sigma_max, float(denoiser.schedule.sigmas[-1]))
    lowest = min(config.sigma_min, 0.5 * highest)
    walks = [(config.steps, highest)]
    if config.refine_steps:
        walks += [(config.refine_steps, min(config.refine_from, highest))] * config.refine_visits
    given, painted = Known(known, keep), torch.zeros_like(known)
    for steps, level in walks:
        sigmas = karras_sigmas(steps, min(lowest, 0.5 * level), level, config.rho)
        z = painted + level * noise.draw(known.shape)
        painted = _descend(config, denoiser, z, sigmas, given, noise)
    return painted


def _descend(
    config: DpmConfig,
    denoiser: Denoiser,
    z: Tensor,
    sigmas: Sequence[float],
    known: Known,
    noise: NoiseSource,
) -> Tensor:
    """From z at the first of some noise levels to the prediction at the last."""
    x0_before, h_before = z, 0.0
    for sigma, after in itertools.pairwise(sigmas):
        x0 = predict_at(denoiser, z, sigma, known)
        h = math.log(sigma / after)
        ahead = x0
        if config.order == 2 and h_before:
            ahead = x0 + 0.5 * (h / h_before) * (x0 - x0_before)
        kept = math.exp(-h * (1.0 + config.eta))
        z = kept * z + (1.0 - kept) * ahead
        if config.eta:
            z = z + after * math.sqrt(1.0 - math.exp(-2.0 * config.eta * h)) * noise.draw(z.shape)
        x0_before, h_before = x0, h
    return predict_at(denoiser, z, sigmas[-1], known)
