"""RePaint (Lugmayr et al. 2022, 2201.09865): inpainting with an unconditional diffusion model.

Before every network call the kept pixels are replaced by the known image at that step's noise
level; the walk of `schedule.repaint_times` goes back up again and again, so that what is painted
comes to agree with what is known. Reverse steps are those of respaced DDPM (2102.09672).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from echogen.diffusion.batch import check_batch, composite, known_image
from echogen.diffusion.denoiser import Denoiser, Prediction
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import Schedule, nfe, repaint_times, respace


@dataclass(frozen=True)
class RepaintSampler:
    """`inpaint` with its settings; see `schedule.repaint_times` for what they mean."""

    steps: int = 25
    jump_length: int = 5
    resamplings: int = 3

    def __post_init__(self) -> None:
        repaint_times(self.steps, self.jump_length, self.resamplings)

    @property
    def nfe(self) -> int:
        """Network function evaluations for one image."""
        return nfe(repaint_times(self.steps, self.jump_length, self.resamplings))

    def __call__(
        self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
    ) -> Tensor:
        """As `inpaint`."""
        return inpaint(
            denoiser,
            image,
            keep,
            noise,
            steps=self.steps,
            jump_length=self.jump_length,
            resamplings=self.resamplings,
        )


@torch.inference_mode()
def inpaint(
    denoiser: Denoiser,
    image: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    *,
    steps: int,
    jump_length: int,
    resamplings: int,
) -> Tensor:
    """Paints what is not kept.

    Args:
        denoiser: an image prior.
        image: (B, 1, H, W) float32 in [-1, 1], on any device.
        keep: (B, 1, H, W) bool, True where `image` is known.
        noise: one generator a sample, drawing on the denoiser's device.
        steps, jump_length, resamplings: the walk; 250, 10, 10 are the published ones.

    Returns:
        (B, 1, H, W) float32 in [-1, 1] on `image`'s device; equal to `image` where kept. A sample
        for which the network gave NaN has NaN where it is painted: the caller judges it alone.

    Raises:
        EngineError: shapes do not fit the model.
        UsageError: the walk does not fit the model's schedule.
    """
    check_batch(denoiser, image, keep)
    times = repaint_times(steps, jump_length, resamplings)
    known = known_image(denoiser, image)
    state = walk(denoiser, known, keep.to(denoiser.device), noise, times, steps)
    return composite(state, image, keep)


def walk(
    denoiser: Denoiser,
    known: Tensor,
    keep: Tensor,
    noise: NoiseSource,
    times: list[int],
    steps: int,
) -> Tensor:
    """The chain of `inpaint`, from pure noise to the last x_0, kept pixels not yet put back.

    Args:
        denoiser: an image prior.
        known: (B, C, H, W) float32, C the denoiser's channels.
        keep: (B, 1, H, W) bool.
        noise: drawn in the published order: the start, then for each reverse step its own noise
            and that of the next injection, for each forward step one.
        times: of `schedule.repaint_times`.
        steps: what `times` walks over.
    """
    schedule = respace(denoiser.schedule, steps)
    x = noise.draw(known.shape)
    started = False
    for now, after in itertools.pairwise(times):
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
