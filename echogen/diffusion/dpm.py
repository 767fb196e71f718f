"""Unconditional sampling by SDE-DPM-Solver++(2M): nothing is known, everything is painted.

The reverse diffusion is solved in lambda = -log sigma with the denoiser's output held straight over
two steps, so that a step may be long, and fresh noise is added at each, so that the errors of the
steps before it are forgotten (Lu et al. 2022, 2211.01095, algorithm 2 and equation 18; the noise
level of the reverse process as `eta`, Song et al. 2020, 2010.02502).

Everything is written in z = x_t / sqrt(abar_t) = x_0 + sigma n.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from echogen.diffusion.batch import check_batch, composite, known_image
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.langevin import predict_at
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import dpm_sigmas


@dataclass(frozen=True)
class DpmSampler:
    """SDE-DPM-Solver++ with its settings.

    Attributes:
        steps: network evaluations.
        eta: noise of the reverse process: 1 as much as went in, 0 none (an ordinary differential
            equation).
        order: 2 extrapolates from the step before, 1 does not (DDPM's posterior where eta is 1).
        sigma_min, sigma_max: noise levels at the last evaluation and at the first, which is not
            above the model's highest.
        rho: how strongly the levels crowd at the low end.
    """

    steps: int
    eta: float
    order: int
    sigma_min: float
    sigma_max: float
    rho: float

    def __post_init__(self) -> None:
        dpm_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho)

    @property
    def nfe(self) -> int:
        """Network function evaluations for one image."""
        return self.steps

    @torch.inference_mode()
    def __call__(
        self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
    ) -> Tensor:
        """As `samplers.Sampler`; what is kept is put back, but the rest does not see it."""
        check_batch(denoiser, image, keep)
        known = known_image(denoiser, image)
        return composite(self._chain(denoiser, known, noise), image, keep)

    def _chain(self, denoiser: Denoiser, known: Tensor, noise: NoiseSource) -> Tensor:
        highest = min(self.sigma_max, float(denoiser.schedule.sigmas[-1]))
        sigmas = dpm_sigmas(self.steps, min(self.sigma_min, 0.5 * highest), highest, self.rho)
        z = highest * noise.draw(known.shape)
        x0_before, h_before = z, 0.0
        for sigma, after in itertools.pairwise(sigmas):
            x0 = predict_at(denoiser, z, sigma)
            h = math.log(sigma / after)
            ahead = x0
            if self.order == 2 and h_before:
                ahead = x0 + 0.5 * (h / h_before) * (x0 - x0_before)
            kept = math.exp(-h * (1.0 + self.eta))
            z = kept * z + (1.0 - kept) * ahead
            if self.eta:
                z = z + after * math.sqrt(1.0 - math.exp(-2.0 * self.eta * h)) * noise.draw(z.shape)
            x0_before, h_before = x0, h
        return predict_at(denoiser, z, sigmas[-1])
