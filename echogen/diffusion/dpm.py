"""Unconditional sampling by SDE-DPM-Solver++(2M): nothing is known, everything is painted.

The reverse diffusion is solved in lambda = -log sigma with the denoiser's output held straight over
two steps, so that a step may be long, and fresh noise is added at each, so that the errors of the
steps before it are forgotten (Lu et al. 2022, 2211.01095, algorithm 2 and equation 18; the noise
level of the reverse process as `eta`, Song et al. 2020, 2010.02502).

Everything is written in z = x_t / sqrt(abar_t) = x_0 + sigma n.
"""

import itertools
import math

from torch import Tensor

from echogen.config import DpmConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.langevin import predict_at
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import karras_sigmas


def chain(
    config: DpmConfig, denoiser: Denoiser, known: Tensor, keep: Tensor, noise: NoiseSource
) -> Tensor:
    """From noise to the last prediction: (B, C, H, W).

    Args:
        config: its highest noise level is lowered to the model's.
        denoiser: an image prior.
        known: (B, C, H, W); only its shape counts.
        keep: not used: what is kept is put back at the end, and the rest does not see it.
        noise: one stream a sample.
    """
    highest = min(config.sigma_max, float(denoiser.schedule.sigmas[-1]))
    lowest = min(config.sigma_min, 0.5 * highest)
    sigmas = karras_sigmas(config.steps, lowest, highest, config.rho)
    z = highest * noise.draw(known.shape)
    x0_before, h_before = z, 0.0
    for sigma, after in itertools.pairwise(sigmas):
        x0 = predict_at(denoiser, z, sigma)
        h = math.log(sigma / after)
        ahead = x0
        if config.order == 2 and h_before:
            ahead = x0 + 0.5 * (h / h_before) * (x0 - x0_before)
        kept = math.exp(-h * (1.0 + config.eta))
        z = kept * z + (1.0 - kept) * ahead
        if config.eta:
            z = z + after * math.sqrt(1.0 - math.exp(-2.0 * config.eta * h)) * noise.draw(z.shape)
        x0_before, h_before = x0, h
    return predict_at(denoiser, z, sigmas[-1])
