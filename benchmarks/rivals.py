"""Other ways to paint with a diffusion model, to compare echogen's samplers with.

Each is a function of a denoiser, image, keep and noise, as `echogen.diffusion.samplers.Sampler`,
and of its own settings. Written from the papers. z = x_0 + sigma n throughout, so that a step to
another noise level is a step along z - x_0.
"""

import itertools
import math

import torch
from torch import Tensor

from echogen.config import RepaintConfig
from echogen.diffusion.denoiser import Denoiser, Prediction
from echogen.diffusion.langevin import predict_at
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.repaint import reverse_step
from echogen.diffusion.samplers import composite, known_image
from echogen.diffusion.schedule import karras_sigmas, repaint_times, respace

SIGMA_MIN, SIGMA_MAX, RHO = 0.01, 20.0, 7.0


@torch.inference_mode()
def ddnm(
    denoiser: Denoiser,
    image: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    *,
    steps: int,
    travel: int,
    repeats: int,
) -> Tensor:
    """DDNM with time travel (Wang et al. 2022, 2212.00490, algorithm 2).

    In each prediction the known pixels are replaced by the known image (the null space of
    inpainting is what is hidden); after every `travel` steps the chain goes back as many.

    Args:
        denoiser, image, keep, noise: as `Sampler`'s.
        steps: of the respaced schedule.
        travel: l of the paper.
        repeats: r of the paper; 1 never goes back.
    """
    known, inside = known_image(denoiser, image), keep.to(denoiser.device)
    walk = RepaintConfig(steps=steps, jump_length=travel, resamplings=repeats)
    schedule = respace(denoiser.schedule, steps)
    x = noise.draw(known.shape)
    for now, after in itertools.pairwise(repaint_times(walk)):
        drawn = noise.draw(known.shape)
        if after < now:
            prediction = denoiser.predict(x, int(schedule.timesteps[now]))
            clean = torch.where(inside, known, prediction.x0)
            rectified = Prediction(clean, prediction.variance_mix)
            x = reverse_step(denoiser, schedule, rectified, x, now, drawn)
        else:
            beta = float(schedule.betas[after])
            x = math.sqrt(1.0 - beta) * x + math.sqrt(beta) * drawn
    return composite(x, image, keep)


@torch.inference_mode()
def diffpir(
    denoiser: Denoiser,
    image: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    *,
    steps: int,
    zeta: float,
) -> Tensor:
    """DiffPIR for inpainting without measurement noise (Zhu et al. 2023, 2305.08995, algorithm 1).

    The proximal step of inpainting is (keep y + rho x_0) / (keep + rho), whose rho is proportional
    to the measurement's variance: here 0, so that known pixels of x_0 are the known image.

    Args:
        denoiser, image, keep, noise: as `Sampler`'s.
        steps: of the respaced schedule; one evaluation each.
        zeta: share of the noise's variance that is drawn anew at each step.
    """
    known, inside = known_image(denoiser, image), keep.to(denoiser.device)
    sigmas = respace(denoiser.schedule, steps).sigmas[::-1]
    z = float(sigmas[0]) * noise.draw(known.shape)
    for sigma, after in itertools.pairwise([*map(float, sigmas), 0.0]):
        clean = torch.where(inside, known, predict_at(denoiser, z, sigma))
        old = (z - clean) / sigma
        drawn = noise.draw(known.shape)
        z = clean + after * (math.sqrt(1.0 - zeta) * old + math.sqrt(zeta) * drawn)
    return composite(z, image, keep)


@torch.inference_mode()
def heun(
    denoiser: Denoiser,
    image: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    *,
    levels: int,
    churn: float,
) -> Tensor:
    """The stochastic second-order solver of Karras et al. (2022, 2206.00364, algorithm 2).

    At every noise level the known pixels are replaced by the known image at that level, as in
    Song et al. (2021, 2011.13456, appendix I.2); within a step they keep their noise.

    Args:
        denoiser, image, keep, noise: as `Sampler`'s.
        levels: noise levels; two evaluations each, but one for the last.
        churn: gamma, noise added before each step as a share of the level's.
    """
    known, inside = known_image(denoiser, image), keep.to(denoiser.device)
    sigmas = [*karras_sigmas(levels, SIGMA_MIN, SIGMA_MAX, RHO), 0.0]
    z = sigmas[0] * noise.draw(known.shape)
    for sigma, after in itertools.pairwise(sigmas):
        hat = sigma * (1.0 + churn)
        z = z + math.sqrt(hat**2 - sigma**2) * noise.draw(known.shape)
        of_known = noise.draw(known.shape)
        z = torch.where(inside, known + hat * of_known, z)
        slope = (z - predict_at(denoiser, z, hat)) / hat
        end = z + (after - hat) * slope
        if after > 0.0:
            end = torch.where(inside, known + after * of_known, end)
            slope_there = (end - predict_at(denoiser, end, after)) / after
            end = z + (after - hat) * 0.5 * (slope + slope_there)
        z = end
    return composite(z, image, keep)


@torch.inference_mode()
def lanpaint(
    denoiser: Denoiser,
    image: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    *,
    levels: int,
    inner_steps: int,
    step_size: float,
    guidance: float,
) -> Tensor:
    """The guided Langevin dynamics of LanPaint (Zheng et al. 2025, 2502.03491), overdamped.

    At each noise level, hidden pixels follow the model's score, (x_0 - z) / sigma^2, and known ones
    (1 + guidance) (y - z) / sigma^2 less guidance times the model's: with the prediction held
    fixed, both are Ornstein-Uhlenbeck processes, towards x_0 and towards y + guidance (y - x_0),
    whose step over the time sigma^2 `step_size` is exact. Then an Euler step leads to the next
    level. The paper's own solver has momentum.

    Args:
        denoiser, image, keep, noise: as `Sampler`'s.
        levels: noise levels.
        inner_steps: Langevin steps at each, one evaluation each; one more for the Euler step.
        step_size: h, in units of the level's variance.
        guidance: lambda of the paper; 0 is replacement with noise that changes slowly.
    """
    known, inside = known_image(denoiser, image), keep.to(denoiser.device)
    sigmas = karras_sigmas(levels, SIGMA_MIN, SIGMA_MAX, RHO)
    shrink = math.exp(-step_size)
    z = sigmas[0] * noise.draw(known.shape) + torch.where(inside, known, 0.0)
    for sigma, after in itertools.pairwise([*sigmas, 0.0]):
        for _ in range(inner_steps):
            x0 = predict_at(denoiser, z, sigma)
            centre = torch.where(inside, known + guidance * (known - x0), x0)
            spread = sigma * math.sqrt(1.0 - shrink**2)
            z = centre + shrink * (z - centre) + spread * noise.draw(known.shape)
        towards = torch.where(inside, known, predict_at(denoiser, z, sigma))
        z = towards + after / sigma * (z - towards)
    return composite(z, image, keep)
