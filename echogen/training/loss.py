"""The objective, v-prediction or epsilon with or without a learned variance, and its measure.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps; v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0
(Salimans & Ho 2022, 2202.00512); SNR = abar / (1 - abar). With a learned variance the loss is the
hybrid L_simple + lambda L_vlb of Nichol and Dhariwal (2021, 2102.09672, eq. 16), in which the
variational bound moves the variance only:

A network that sees what is known is given x_0 there in place of x_t, and the error is taken on the
others (RAD, 2412.09191).

L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, and -log p(x_0 | x_1) of the grey
levels for t = 0 (eq. 4 to 7), with the learned log variance f log beta_t + (1 - f) log of the
posterior's (eq. 15). Steps are counted from 0 here.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from echogen.diffusion.schedule import Schedule, read_scheduler
from echogen.errors import CheckpointError, UsageError
from echogen.training.recipe import LossConfig, Prediction, Recipe

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x_t on the network's grid (B, C, H, W), t (B,)) to the prediction, the same shape."""

LEVELS = (5, 20, 50, 100, 150, 200, 300, 400, 500, 600, 750, 900)
"""Time steps at which held-out loss is measured, of 1,000."""

_HALF_LEVEL = 1.0 / 255.0
"""Half the distance between two grey levels in [-1, 1]."""


@dataclass(frozen=True)
class VariationalBound:
    """The schedule's tables that the bound needs, (T,) float32 each.

    Attributes:
        of_x0, of_xt: coefficients of the posterior's mean (DDPM, 2006.11239, eq. 7).
        low: log of the posterior's variance, its step 0 replaced by step 1.
        high: log beta.
    """

    of_x0: Tensor
    of_xt: Tensor
    low: Tensor
    high: Tensor

    def bits(self, x0: Tensor, x_t: Tensor, t: Tensor, predicted: Tensor, share: Tensor) -> Tensor:
        """L_t of every pixel, in bits.

        Args:
            x0: (B, C, H, W) whole grey levels in [-1, 1].
            x_t: like x0.
            t: (B,) steps.
            predicted: like x0, the network's x_0; give it detached, so that only the variance
                learns from the bound.
            share: like x0, the network's output for the variance, f = (share + 1) / 2.

        Returns:
            Like x0, float32.
        """
        of_x0, of_xt, low, high = (
            table[t][:, None, None, None] for table in (self.of_x0, self.of_xt, self.low, self.high)
        )
        log_variance = low + (high - low) * (share + 1) / 2
        mean = of_x0 * predicted + of_xt * x_t
        true_mean = of_x0 * x0 + of_xt * x_t
        kl = 0.5 * (
            log_variance
            - low
            - 1
            + torch.exp(low - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
        )
        first = (t == 0)[:, None, None, None]
        nats = torch.where(first, -log_likelihood(x0, mean, log_variance), kl)
        return nats / math.log(2)


def variational_bound(schedule: Schedule, device: torch.device) -> VariationalBound:
    """The tables of a schedule on a device."""
    of_x0, of_xt = schedule.posterior_mean_coefficients
    tables = (of_x0, of_xt, schedule.posterior_log_variance, np.log(schedule.betas))
    return VariationalBound(*(torch.tensor(t, dtype=torch.float32, device=device) for t in tables))


def log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the Gaussian's mass on each grey level's interval (DDPM, 2006.11239, eq. 13).

    Args:
        x0: whole grey levels in [-1, 1]; black and white take all mass beyond them.
        mean, log_variance: like x0.

    Returns:
        Like x0, in nats, at least log 1e-12.
    """
    scale = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr(scale * (x0 + _HALF_LEVEL - mean))
    lower = torch.special.ndtr(scale * (x0 - _HALF_LEVEL - mean))
    upper = torch.where(x0 > 0.999, 1.0, upper)
    lower = torch.where(x0 < -0.999, 0.0, lower)
    return torch.log((upper - lower).clamp(min=1e-12))


@dataclass(frozen=True)
class Objective:
    """What a network is trained to do, ready for use on a device.

    Attributes:
        prediction: of the network.
        abar: (T,).
        weight: (T,) of the squared error.
        bound: for the learned variance, or None.
        bound_weight: lambda times T, for the mean over steps to stand for their sum.
    """

    prediction: Prediction
    abar: Tensor
    weight: Tensor
    bound: VariationalBound | None = None
    bound_weight: float = 0.0

    def __call__(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss at every pixel.

        Args:
            output: (B, C, H, W) of the network, or (B, 2 C, H, W) with a learned variance.
            x0, noise: (B, C, H, W), which made x_t.
            t: (B,) steps.

        Returns:
            Like x0, float32.
        """
        x_t, target = noised(x0, noise, self.abar[t], self.prediction)
        output, weight = output.float(), self.weight[t][:, None, None, None]
        if self.bound is None:
            return weight * (output - target).square()
        output, share = output.chunk(2, dim=1)
        predicted = clean(x_t, output.detach(), self.abar[t], self.prediction)
        bits = self.bound.bits(x0, x_t, t, predicted, share)
        return weight * (output - target).square() + self.bound_weight * bits


def make_objective(recipe: Recipe, device: torch.device) -> Objective:
    """The recipe's objective.

    Raises:
        UsageError: the schedule cannot be used, or has a key that diffusers would drop.
    """
    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    unknown = sorted(key for key in recipe.schedule if key not in known)
    if unknown:
        raise UsageError(
            f"[schedule]: unknown key {unknown[0]!r}; known: {', '.join(list(known)[1:])}."
        )
    try:
        schedule = read_scheduler(recipe.schedule).schedule
    except CheckpointError as error:
        raise UsageError(f"[schedule]: {error}") from error
    abar = torch.from_numpy(schedule.alphas_cumprod).float().to(device)
    prediction = recipe.prediction
    weight = weights(abar, prediction, recipe.loss)
    if not recipe.learns_variance:
        return Objective(prediction, abar, weight)
    bound = variational_bound(schedule, device)
    return Objective(prediction, abar, weight, bound, recipe.loss.vlb_weight * schedule.steps)


def weights(abar: Tensor, prediction: Prediction, config: LossConfig) -> Tensor:
    """(T,) weight of the squared error of v (or epsilon) at every time step."""
    if not config.snr_gamma:
        return torch.ones_like(abar)
    snr = abar / (1 - abar)
    x0_weight = snr.clamp(max=config.snr_gamma)
    per_target = x0_weight / (snr + 1) if prediction == "v_prediction" else x0_weight / snr
    return per_target.clamp(min=config.weight_floor)


def noised(
    x0: Tensor, noise: Tensor, abar_t: Tensor, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """x_t and the target; `abar_t` is (B,), the rest (B, C, H, W)."""
    signal = abar_t.sqrt()[:, None, None, None]
    sigma = (1 - abar_t).sqrt()[:, None, None, None]
    x_t = signal * x0 + sigma * noise
    return x_t, signal * noise - sigma * x0 if prediction == "v_prediction" else noise


def shown(x_t: Tensor, x0: Tensor, keep: Tensor | None) -> Tensor:
    """What the network is given: x_t, or with a map of what is known x_0 there, and the map.

    Args:
        x_t, x0: (B, C patch^2, H, W).
        keep: (B, patch^2, H, W) bool, True where known; None without conditioning.

    Returns:
        (B, C patch^2, H, W), with a map patch^2 channels more.
    """
    if keep is None:
        return x_t
    channels = x0.shape[1] // keep.shape[1]
    return torch.cat([torch.where(keep.repeat(1, channels, 1, 1), x0, x_t), keep.to(x_t)], dim=1)


def counted(errors: Tensor, weight: Tensor | None) -> Tensor:
    """The sum of what each pixel's error counts.

    Args:
        errors: (B, C patch^2, H, W).
        weight: (B, patch^2, H, W), of any type; None counts all the same.
    """
    if weight is None:
        return errors.sum()
    count, pixels, *sides = weight.shape
    return (errors.reshape(count, -1, pixels, *sides) * weight[:, None]).sum()


def clean(x_t: Tensor, output: Tensor, abar_t: Tensor, prediction: Prediction) -> Tensor:
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


def draw_steps(count: int, total: int, config: LossConfig, generator: torch.Generator) -> Tensor:
    """(count,) time steps: of a share `low_share` uniform over the lowest ones, of the others over
    all, as `stratified_steps` spreads them.
    """
    steps = stratified_steps(count, total, generator)
    if not config.low_share:
        return steps
    low, place = torch.rand(2, count, generator=generator, device=generator.device)
    lowest = max(round(config.low_until * total), 1)
    return torch.where(low < config.low_share, (place * lowest).long(), steps)


@torch.no_grad()
def loss_by_level(
    predict: Predict,
    frames: Tensor,
    abar: Tensor,
    prediction: Prediction,
    patch: int,
    levels: Sequence[int] = LEVELS,
    batch_size: int = 256,
    keep: Tensor | None = None,
) -> dict[int, float]:
    """Mean squared error of v (or epsilon) at each time step of `levels`, unweighted.

    Args:
        predict: the network, in evaluation mode, without a learned variance; it is given what
            `shown` makes.
        frames: (N, C, S, S) in [-1, 1].
        abar: (T,), on the frames' device.
        prediction: "v_prediction" or "epsilon".
        patch: space-to-depth factor.
        levels: time steps.
        batch_size: at most so many frames at once; of no consequence to the noise.
        keep: (N, 1, S, S) bool, what a network with conditioning is shown; the error is that of the
            other pixels. None without conditioning.

    The noise of a frame at a level depends on its number and the level's place alone, so figures
    of different networks and moments may be compared.
    """
    result = {}
    for number, level in enumerate(levels):
        generator = torch.Generator().manual_seed(1_000_003 * number + 17)
        total, seen = 0.0, 0.0
        for first in range(0, len(frames), batch_size):
            chunk, known, hidden = frames[first : first + batch_size], None, None
            if keep is not None:
                known = functional.pixel_unshuffle(keep[first : first + batch_size], patch)
                hidden = ~known
            noise = torch.randn(chunk.shape, generator=generator).to(chunk.device)
            x0, eps = (functional.pixel_unshuffle(x, patch) for x in (chunk, noise))
            t = torch.full((len(chunk),), level, device=chunk.device)
            x_t, target = noised(x0, eps, abar[t], prediction)
            error = (predict(shown(x_t, x0, known), t).float() - target).square()
            total += float(counted(error, hidden))
            seen += float(counted(torch.ones_like(error), hidden))
        result[level] = total / seen
    return result


def geometric_mean(by_level: Mapping[int, float]) -> float:
    """One figure to compare by: a tenth less error counts the same at every level."""
    return math.exp(sum(math.log(loss) for loss in by_level.values()) / len(by_level))
