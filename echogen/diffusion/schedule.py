"""Noise schedules, their respacing, and the walks of the samplers: NumPy only, float64.

The forward process is q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) with abar the cumulative
product of 1 - beta (Ho et al. 2020, 2006.11239). Respacing is that of Nichol and Dhariwal (2021,
2102.09672); the walk with its jumps is that of Lugmayr et al. (2022, 2201.09865).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator, model_validator

from echogen.config import DpmConfig, LangevinConfig, RepaintConfig, SamplerConfig
from echogen.errors import CheckpointError, UsageError
from echogen.support.settings import Settings, explain

Float64 = npt.NDArray[np.float64]

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
LANGEVIN_LEVELS = (0.01, 20.0, 7.0)
"""Lowest and highest noise level of the Langevin sampler, and how strongly they crowd at the low
end (rho); in units of the model's range, -1 to 1.
"""
INNER_MIN = 0.05
"""Below, a level is visited once and no noise is added: there speckle settles."""
REFINE_LEVELS = (8, 0.01, 0.25, 7.0)
"""How many levels its last descent has, from where to where, and rho."""
REFINE_MIN, REFINE_CHURN = 0.02, 0.5
"""The lowest of these levels to be visited again, and the noise added there."""

MOST_STEPS = 100_000
LEAST_SIGNAL = 1e-30
"""Of a schedule's last step: abar beyond which sigma leaves the range of float32."""

Beta = Annotated[float, Field(strict=True, ge=1e-10, lt=1)]
Betas = Annotated[tuple[Beta, ...], Field(min_length=1, max_length=MOST_STEPS)]


@dataclass(frozen=True)
class Schedule:
    """A noise schedule over `steps` steps, and the model's timestep of each.

    Attributes:
        betas: (T,) float64 in (0, 1), the variance added by step i.
        timesteps: (T,) int64, increasing: what the network is called with at step i.
    """

    betas: Float64
    timesteps: npt.NDArray[np.int64]
    alphas_cumprod: Float64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphas_cumprod", np.cumprod(1.0 - self.betas))

    @property
    def steps(self) -> int:
        """T, how many steps there are."""
        return len(self.betas)

    @property
    def sigmas(self) -> Float64:
        """(T,) sqrt((1 - abar) / abar), increasing: x_t / sqrt(abar) is x_0 + sigma noise."""
        return np.sqrt((1.0 - self.alphas_cumprod) / self.alphas_cumprod)

    def sigma_at(self, t: float) -> float:
        """sigma at a timestep in [0, T - 1]; between two steps, log sigma is linear in t."""
        if float(t).is_integer():
            return float(self.sigmas[int(t)])
        return float(np.exp(np.interp(t, np.arange(self.steps), np.log(self.sigmas))))

    def timestep_at(self, sigma: float) -> float:
        """The inverse of `sigma_at`; 0 or T - 1 where sigma lies outside the schedule."""
        return float(np.interp(np.log(sigma), np.log(self.sigmas), np.arange(self.steps)))

    @property
    def alphas_cumprod_prev(self) -> Float64:
        """(T,) abar of the step before; 1 before the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @property
    def posterior_variance(self) -> Float64:
        """(T,) variance of q(x_{t-1} | x_t, x_0), 0 at step 0 (DDPM eq. 7)."""
        abar, prev = self.alphas_cumprod, self.alphas_cumprod_prev
        variance: Float64 = self.betas * (1.0 - prev) / (1.0 - abar)
        return variance

    @property
    def posterior_log_variance(self) -> Float64:
        """(T,) log of `posterior_variance`, its step 0 replaced by step 1 (2102.09672)."""
        variance = self.posterior_variance
        first = variance[1] if self.steps > 1 else self.betas[0]
        logarithm: Float64 = np.log(np.append(first, variance[1:]))
        return logarithm

    @property
    def posterior_mean_coefficients(self) -> tuple[Float64, Float64]:
        """Two (T,) arrays (a, b): the mean of q(x_{t-1} | x_t, x_0) is a x_0 + b x_t (eq. 7)."""
        abar, prev = self.alphas_cumprod, self.alphas_cumprod_prev
        of_x0 = self.betas * np.sqrt(prev) / (1.0 - abar)
        of_xt = (1.0 - prev) * np.sqrt(1.0 - self.betas) / (1.0 - abar)
        return of_x0, of_xt


class SchedulerConfig(Settings, extra="ignore"):
    """What sampling needs of a diffusers `DDPMScheduler` configuration, with diffusers' defaults.

    Attributes:
        num_train_timesteps: T.
        beta_schedule, beta_start, beta_end: of `make_betas`.
        trained_betas: (T,) in place of these.
        prediction_type: what the network's output means.
        variance_type: of a reverse step; "_log" means the same.
        clip_sample, clip_sample_range: whether and where a predicted image is clipped.
        thresholding, rescale_betas_zero_snr: not supported.
    """

    num_train_timesteps: int = Field(default=1000, strict=True, ge=1, le=MOST_STEPS)
    beta_schedule: BetaSchedule = "linear"
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    trained_betas: Betas | None = None
    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_small"
    clip_sample: bool = Field(default=True, strict=True)
    clip_sample_range: float = Field(default=1.0, strict=True, gt=0, le=1e6)
    thresholding: Literal[False] = False
    rescale_betas_zero_snr: Literal[False] = False

    @field_validator("variance_type", mode="before")
    @classmethod
    def _without_log(cls, value: Any) -> Any:
        return value.removesuffix("_log") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.beta_start > self.beta_end:
            found = f"{self.beta_start} and {self.beta_end}"
            raise ValueError(f"beta_start must be at most beta_end, got {found}")
        if (left := self.schedule.alphas_cumprod[-1]) < LEAST_SIGNAL:
            raise ValueError(f"betas must leave {LEAST_SIGNAL:g} of a picture, got {left:g}")
        return self

    @property
    def schedule(self) -> Schedule:
        """The full schedule."""
        if self.trained_betas is not None:
            return schedule_from_betas(self.trained_betas)
        ends = (self.beta_start, self.beta_end)
        return schedule_from_betas(make_betas(self.beta_schedule, self.num_train_timesteps, *ends))


def read_scheduler(config: Mapping[str, Any], source: object = "scheduler") -> SchedulerConfig:
    """A diffusers `DDPMScheduler` configuration; keys that sampling does not need are ignored.

    Args:
        config: {name: value}.
        source: whose it is, for messages.

    Raises:
        CheckpointError: a value is not known, not supported or out of range.
    """
    try:
        return SchedulerConfig.model_validate(config)
    except ValidationError as error:
        raise CheckpointError(f"{source}: {explain(error, SchedulerConfig)}") from error


def make_betas(
    name: BetaSchedule, train_steps: int, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Float64:
    """The betas that a diffusers configuration names.

    Args:
        name: the cosine one, "squaredcos_cap_v2", ignores the two ends.
        train_steps: T, at least 1.
        beta_start, beta_end: in (0, 1).

    Returns:
        (T,) float64.
    """
    if name == "linear":
        return np.linspace(beta_start, beta_end, train_steps, dtype=np.float64)
    if name == "scaled_linear":
        roots = np.linspace(beta_start**0.5, beta_end**0.5, train_steps, dtype=np.float64)
        return roots * roots
    edges = np.arange(train_steps + 1, dtype=np.float64) / train_steps
    abar = np.array([math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in edges])
    betas: Float64 = np.minimum(1.0 - abar[1:] / abar[:-1], 0.999)
    return betas


def schedule_from_betas(betas: Sequence[float] | Float64) -> Schedule:
    """The full schedule over (T,) betas in (0, 1); the model's timestep of step i is i."""
    values = np.asarray(betas, dtype=np.float64)
    return Schedule(values, np.arange(len(values), dtype=np.int64))


def respace(schedule: Schedule, steps: int) -> Schedule:
    """`schedule` on `steps` of its timesteps, first and last included, evenly spread.

    Each kept step takes the whole variance since the one before: beta'_i = 1 - abar_i / abar_{i-1}.
    One step alone takes the first timestep, as the published recipe does.

    Raises:
        UsageError: `steps` is not within 1 and the schedule's length.
    """
    if not 1 <= steps <= schedule.steps:
        raise UsageError(f"steps: expected 1 to {schedule.steps} for this model, got {steps}")
    stride = (schedule.steps - 1) / (steps - 1) if steps > 1 else 1.0
    position, taken = 0.0, []
    for _ in range(steps):  # a running sum, rounding included, so as to match the published map
        taken.append(round(position))
        position += stride
    kept = np.array(taken, dtype=np.int64)
    abar = schedule.alphas_cumprod[kept]
    return Schedule(1.0 - abar / np.append(1.0, abar[:-1]), schedule.timesteps[kept])


def repaint_times(config: RepaintConfig) -> list[int]:
    """The walk of RePaint over respaced steps, from steps - 1 down to -1 with its jumps back up.

    A move down is a reverse step (one network evaluation), a move up adds noise. At every multiple
    of `jump_length` but the last the walk climbs back `jump_length` steps, `resamplings` - 1 times.
    """
    jump = config.jump_length
    climbs_left = dict.fromkeys(range(0, config.steps - jump, jump), config.resamplings - 1)
    times, now = [], config.steps
    while now >= 1:
        now -= 1
        times.append(now)
        if climbs_left.get(now, 0) > 0:
            climbs_left[now] -= 1
            times.extend(range(now + 1, now + jump + 1))
            now += jump
    return [*times, -1]


@dataclass(frozen=True)
class Move:
    """One evaluation: noise is added from `sigma` to `sigma_hat`, then taken to `sigma_next`."""

    sigma: float
    sigma_hat: float
    sigma_next: float


def langevin_walk(config: LangevinConfig) -> list[Move]:
    """The evaluations of a Langevin run, in order; the last one ends at noise level 0."""
    moves = []
    for sigma, after in itertools.pairwise([*karras_sigmas(config.levels, *LANGEVIN_LEVELS), 0.0]):
        steps = config.inner_steps if INNER_MIN <= sigma <= config.inner_max else 0
        moves.extend(_visit(sigma, after, config.churn if sigma >= INNER_MIN else 0.0, steps))
    again = karras_sigmas(*REFINE_LEVELS)
    moves.append(Move(0.0, again[0], again[1]))
    for sigma, after in itertools.pairwise([*again[1:], 0.0]):
        coarse = sigma >= REFINE_MIN
        steps, churn = (config.refine_steps, REFINE_CHURN) if coarse else (0, 0.0)
        moves.extend(_visit(sigma, after, churn, steps))
    return moves


def _visit(sigma: float, after: float, churn: float, steps: int) -> list[Move]:
    """`steps` evaluations that stay at a level, and one that leads on."""
    churned = sigma * (1.0 + churn)
    return [*[Move(sigma, churned, sigma)] * steps, Move(sigma, churned, after)]


def karras_sigmas(levels: int, sigma_min: float, sigma_max: float, rho: float) -> list[float]:
    """Noise levels from `sigma_max` down to `sigma_min` (Karras et al. 2022, 2206.00364, eq. 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / (levels - 1) * (low - high)) ** rho for i in range(levels)]


def sampler_nfe(config: SamplerConfig) -> int:
    """Network function evaluations for one image: the cost of a sampler."""
    if isinstance(config, DpmConfig):
        return config.steps + config.refine_steps * config.refine_visits
    if isinstance(config, LangevinConfig):
        return len(langevin_walk(config))
    return sum(after < before for before, after in itertools.pairwise(repaint_times(config)))
