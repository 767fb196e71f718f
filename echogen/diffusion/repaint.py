"""RePaint (Lugmayr et al. 2022, 2201.09865): inpainting with an unconditional diffusion model.

Before every network call the kept pixels are replaced by the known image at that step's noise
level; the walk of `schedule.repaint_times` goes back up again and again, so that what is painted
comes to agree with what is known. Reverse steps are those of respaced DDPM (2102.09672).
"""

import itertools
import math

import torch
from torch import Tensor

from echogen.config import RepaintConfig
from echogen.diffusion.denoiser import Denoiser, Prediction
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import Schedule, repaint_times, respace


def chain(
    config: RepaintConfig, denoiser: Denoiser, known: Tensor, keep: Tensor, noise: NoiseSource
) -> Tensor:
    """From noise to the last x_0: (B, C, H, W), kept pixels not yet put back.

    Args:
        config: the walk of `schedule.repaint_times`.
        denoiser: an image prior.
        known: (B, C, H, W) float32, C the denoiser's channels.
        keep: (B, 1, H, W) bool.
        noise: drawn in the published order: the start, then for each reverse step its own noise
            and that of the next injection, for each forward step one.

    Raises:
        UsageError: the walk is longer than the model's schedule.
    """
    schedule = respace(denoiser.schedule, config.steps)
    x = noise.draw(known.shape)
    started = False
    for now, after in itertools.pairwise(repaint_times(config)):
        if after < now:
            step_noise = noise.draw(known.shape)
            if started:
                abar = float(schedule.alphas_cumprod[now])
                noisy = math.sqrt(abar) * known + math.sqrt(1.0 - abar) * noise.draw(known.shape)
                x = torch.where(keep, noisy, x)
            prediction = denoiser.predict(x, int(schedule.timesteps[now]))
            x = reverse_step(denoiser, schedule, prediction, x, now, step_noise)
            started = True
        else:
            beta = float(schedule.betas[after])
            x = math.sqrt(1.0 - beta) * x + math.sqrt(beta) * noise.draw(known.shape)
    return x


def reverse_step(
    denoiser: Denoiser,
    schedule: Schedule,
    prediction: Prediction,
    x: Tensor,
    step: int,
    step_noise: Tensor,
) -> Tensor:
    """A draw of p(x_{i-1} | x_i) of the respaced chain; at step 0 its mean.

    Args:
        denoiser: for its kind of variance.
        schedule: respaced.
        prediction: at step i.
        x: (B, C, H, W), x_i.
        step: i.
        step_noise: (B, C, H, W) standard normal, not used at step 0.
    """
    of_x0, of_xt = schedule.posterior_mean_coefficients
    mean = float(of_x0[step]) * prediction.x0 + float(of_xt[step]) * x
    if step == 0:
        return mean
    small = float(schedule.posterior_log_variance[step])
    large = math.log(float(schedule.betas[step]))
    if prediction.variance_mix is not None:
        log_variance = small + prediction.variance_mix * (large - small)
        return mean + torch.exp(0.5 * log_variance) * step_noise
    fixed = large if denoiser.variance_type == "fixed_large" else small
    return mean + math.exp(0.5 * fixed) * step_noise
