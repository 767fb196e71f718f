"""The objective, v-prediction or epsilon with or without a learned variance, and its measure.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps; v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0
(Salimans & Ho 2022, 2202.00512); SNR = abar / (1 - abar). With a learned variance the loss is the
hybrid L_simple + lambda L_vlb of Nichol and Dhariwal (2021, 2102.09672, eq. 16), in which the bound
moves the variance only.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from echogen.diffusion.schedule import schedule_from_config
from echogen.errors import CheckpointError, UsageError
from echogen.training.bound import VariationalBound, variational_bound
from echogen.training.recipe import PREDICTIONS, LossConfig, TrainConfig

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x_t on the network's grid (B, C, H, W), t (B,)) to the prediction, the same shape."""

LEVELS = (5, 20, 50, 100, 150, 200, 300, 400, 500, 600, 750, 900)
"""Time steps at which held-out loss is measured, of 1,000."""


@dataclass(frozen=True)
class Objective:
    """What a network is trained to do, ready for use on a device.

    Attributes:
        prediction: "v_prediction" or "epsilon".
        abar: (T,).
        weight: (T,) of the squared error.
        bound: for the learned variance, or None.
        bound_weight: lambda times T, for the mean over steps to stand for their sum.
    """

    prediction: str
    abar: Tensor
    weight: Tensor
    bound: VariationalBound | None = None
    bound_weight: float = 0.0

    def __call__(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss of each image.

        Args:
            output: (B, C, H, W) of the network, or (B, 2 C, H, W) with a learned variance.
            x0, noise: (B, C, H, W), which made x_t.
            t: (B,) steps.

        Returns:
            (B,) float32.
        """
        x_t, target = noised(x0, noise, self.abar[t], self.prediction)
        output = output.float()
        if self.bound is None:
            return self.weight[t] * (output - target).square().mean(dim=(1, 2, 3))
        output, share = output.chunk(2, dim=1)
        error = (output - target).square().mean(dim=(1, 2, 3))
        predicted = clean(x_t, output.detach(), self.abar[t], self.prediction)
        bits = self.bound.bits(x0, x_t, t, predicted, share)
        return self.weight[t] * error + self.bound_weight * bits


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """The recipe's objective.

    Raises:
        UsageError: the schedule cannot be used, or has a key that diffusers would drop.
    """
    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    unknown = sorted(key for key in config.schedule if key not in known)
    if unknown:
        raise UsageError(
            f"[schedule]: unknown key {unknown[0]!r}; known: {', '.join(list(known)[1:])}."
        )
    try:
        schedule = schedule_from_config(config.schedule)
    except CheckpointError as error:
        raise UsageError(f"[schedule]: {error}") from error
    abar = alphas_cumprod(config.schedule).to(device)
    prediction = str(config.schedule.get("prediction_type", "epsilon"))
    weight = weights(abar, prediction, config.loss)
    if not config.learns_variance:
        return Objective(prediction, abar, weight)
    bound = variational_bound(schedule, device)
    return Objective(prediction, abar, weight, bound, config.loss.vlb_weight * schedule.steps)


def alphas_cumprod(schedule: Mapping[str, Any]) -> Tensor:
    """(T,) float32 on the CPU: abar of a `DDPMScheduler` configuration.

    Raises:
        UsageError: the prediction type is none that `noised` knows.
    """
    if schedule.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise UsageError(
            f"[schedule] prediction_type {schedule['prediction_type']!r}: expected 'epsilon' or "
            "'v_prediction'."
        )
    return torch.from_numpy(schedule_from_config(schedule).alphas_cumprod).float()


def weights(abar: Tensor, prediction: str, config: LossConfig) -> Tensor:
    """(T,) weight of the squared error of v (or epsilon) at every time step."""
    if not config.snr_gamma:
        return torch.ones_like(abar)
    snr = abar / (1 - abar)
    x0_weight = snr.clamp(max=config.snr_gamma)
    per_target = x0_weight / (snr + 1) if prediction == "v_prediction" else x0_weight / snr
    return per_target.clamp(min=config.weight_floor)


def noised(x0: Tensor, noise: Tensor, abar_t: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
    """x_t and the target; `abar_t` is (B,), the rest (B, C, H, W)."""
    signal = abar_t.sqrt()[:, None, None, None]
    sigma = (1 - abar_t).sqrt()[:, None, None, None]
    x_t = signal * x0 + sigma * noise
    return x_t, signal * noise - sigma * x0 if prediction == "v_prediction" else noise


def clean(x_t: Tensor, output: Tensor, abar_t: Tensor, prediction: str) -> Tensor:
    """The x_0 that a prediction stands for; the inverse of `noised`."""
    signal = abar_t.sqrt()[:, None, None, None]
    sigma = (1 - abar_t).sqrt()[:, None, None, None]
    if prediction == "v_prediction":
        return signal * x_t - sigma * output
    return (x_t - sigma * output) / signal


def stratified_steps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """(count,) time steps, each uniform over [0, total), spread evenly over the batch."""
    device = generator.device
    start = torch.rand(1, generator=generator, device=device)
    u = (start + torch.arange(count, device=device) / count) % 1
    return (u * total).long().clamp(max=total - 1)


@torch.no_grad()
def loss_by_level(
    predict: Predict,
    frames: Tensor,
    abar: Tensor,
    prediction: str,
    patch: int,
    levels: Sequence[int] = LEVELS,
    batch_size: int = 256,
) -> dict[int, float]:
    """Mean squared error of v (or epsilon) at each time step of `levels`, unweighted.

    Args:
        predict: the network, in evaluation mode, without a learned variance.
        frames: (N, C, S, S) in [-1, 1].
        abar: (T,), on the frames' device.
        prediction: "v_prediction" or "epsilon".
        patch: space-to-depth factor.
        levels: time steps.
        batch_size: at most so many frames at once; of no consequence to the noise.

    The noise of a frame at a level depends on its number and the level's place alone, so figures
    of different networks and moments may be compared.
    """
    result = {}
    for number, level in enumerate(levels):
        generator = torch.Generator().manual_seed(1_000_003 * number + 17)
        total, seen = 0.0, 0
        for chunk in torch.split(frames, batch_size):
            noise = torch.randn(chunk.shape, generator=generator).to(chunk.device)
            x0, eps = (functional.pixel_unshuffle(x, patch) for x in (chunk, noise))
            t = torch.full((len(chunk),), level, device=chunk.device)
            x_t, target = noised(x0, eps, abar[t], prediction)
            error = (predict(x_t, t).float() - target).square().mean(dim=(1, 2, 3))
            total, seen = total + float(error.sum()), seen + len(chunk)
        result[level] = total / seen
    return result


def geometric_mean(by_level: Mapping[int, float]) -> float:
    """One figure to compare by: a tenth less error counts the same at every level."""
    return math.exp(sum(math.log(loss) for loss in by_level.values()) / len(by_level))
