"""Finding out what shapes cannot tell: by how well a network denoises real frames.

A frame is noised to a level sigma, the network is told the timestep that a candidate's schedule
has at that level, and the error of the noise it predicts is measured. Candidates are compared on
the very same noisy images, so only what the network is told and how its heads are cut differs:
the right candidate has the least error. A network told a wrong noise level leaves noise behind or
takes away texture; one with wrong heads mixes channels that do not belong together.
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.checkpoints.guided_unet import (
    GuidedArchitecture,
    GuidedOptions,
    NoiseSchedule,
    convert_guided,
    head_width,
    read_architecture,
    scheduler_config,
)
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import schedule_from_config
from echogen.errors import CheckpointError
from echogen.report import Quiet, Reporter
from echogen.types import to_model_range

if TYPE_CHECKING:
    from torch import Tensor

    from echogen.diffusion.denoiser import Denoiser

LEVELS = (2.0, 0.5, 8.0, 0.15)
"""Noise levels sigma in grey levels of [-1, 1], in the order in which they are tried."""
KEPT = (8, 4, 4)
"""How many candidates are tried at the next level, and besides all that are `NEAR` the best."""
NEAR = 1.1
HEADS: tuple[tuple[int | None, int | None], ...] = (
    (None, 1),
    (1, None),
    (32, None),
    (64, None),
    (None, 4),
)
"""Channels of a head, or how many heads."""
SCHEDULES: tuple[NoiseSchedule, ...] = ("linear", "cosine")
STEPS = (1000, 4000)
LEAST_MARGIN = 1.03
"""By what factor the error of every other candidate must be larger."""
SHIFT = 1.25
"""The best candidate must denoise better than when told this much more, or less, of noise."""
LARGEST_SHARE = 0.7
"""A network that leaves more of the error of a linear guess does not denoise these frames."""
PIXELS = 2 * 256 * 256
MOST_FRAMES = 16


@dataclass(frozen=True)
class Known:
    """What need not be found out; None is open. See `GuidedOptions`."""

    noise_schedule: NoiseSchedule | None = None
    steps: int | None = None
    num_head_channels: int | None = None
    num_heads: int | None = None
    new_attention_order: bool | None = None


@dataclass(frozen=True)
class Tried:
    """A candidate and how well the network denoises under it.

    Attributes:
        options: the candidate.
        errors: {sigma: (a mean squared error of the noise for each frame)}; 1 is that of
            predicting no noise at all. Levels at which it was no longer tried are missing.
        ratio: of its error to the best one's, the geometric mean over what both were tried on.
    """

    options: GuidedOptions
    errors: Mapping[float, tuple[float, ...]]
    ratio: float


@dataclass(frozen=True)
class Probe:
    """What was measured, and whether that decides.

    Attributes:
        tried: the candidates, the best first.
        decided: whether the best one is clearly so.
        verdict: one sentence for people.
        margin: the runner-up's error over the best one's; 1 where there was one candidate.
        shifted: {sigma: (ratio of the best one's error when told a timestep `SHIFT` times smaller,
            and larger)}; below 1 its schedule is not the model's.
        share: the best one's error over that of a linear guess from each pixel alone.
        frames: how many.
        seconds: it took.
    """

    tried: tuple[Tried, ...]
    decided: bool
    verdict: str
    margin: float
    shifted: Mapping[float, tuple[float, float]]
    share: float
    frames: int
    seconds: float

    @property
    def options(self) -> GuidedOptions:
        """The candidate that fits.

        Raises:
            CheckpointError: none does, or more than one.
        """
        if not self.decided:
            raise CheckpointError(self.verdict)
        return self.tried[0].options

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for the record and `--json`."""
        return {
            "decided": self.decided,
            "verdict": self.verdict,
            "margin": round(self.margin, 4),
            "shifted": {f"{sigma:g}": ratios for sigma, ratios in sorted(self.shifted.items())},
            "share_of_linear_guess": round(self.share, 4),
            "frames": self.frames,
            "seconds": round(self.seconds, 1),
            "candidates": [
                {
                    **asdict(one.options),
                    "ratio": round(one.ratio, 4),
                    "errors": {
                        f"{sigma:g}": round(statistics.fmean(errors), 5)
                        for sigma, errors in sorted(one.errors.items())
                    },
                }
                for one in self.tried
            ],
        }


LevelErrors = Mapping[float, tuple[float, ...]]
Errors = dict[GuidedOptions, dict[float, tuple[float, ...]]]
OPEN = Known()
QUIET = Quiet()


def frames_needed(image_size: int) -> int:
    """How many frames make a probe: two of 256 x 256, more of smaller ones."""
    return min(MOST_FRAMES, max(2, PIXELS // image_size**2))


def candidates(architecture: GuidedArchitecture, known: Known) -> list[GuidedOptions]:
    """What the options may be: schedules, steps and head layouts that differ for these shapes."""
    given = known.num_head_channels is not None or known.num_heads is not None
    choices = ((known.num_head_channels, known.num_heads),) if given else HEADS
    layouts: dict[tuple[int | None, bool], GuidedOptions] = {}
    for channels, heads in choices:
        first = GuidedOptions("linear", 1000, channels, heads)
        try:
            width = head_width(architecture, first)
        except CheckpointError:
            if given:
                raise
            continue
        one_head = width is None or {width} == set(architecture.attended)
        orders = [False, True] if known.new_attention_order is None else [known.new_attention_order]
        for order in orders[:1] if one_head else orders:
            layouts.setdefault((width, order), replace(first, new_attention_order=order))
    return [
        replace(layout, noise_schedule=schedule, steps=steps)
        for layout in layouts.values()
        for schedule in ([known.noise_schedule] if known.noise_schedule else SCHEDULES)
        for steps in ([known.steps] if known.steps else STEPS)
    ]


def probe(
    state: "Mapping[str, Tensor]",
    frames: npt.NDArray[np.uint8],
    known: Known = OPEN,
    *,
    device: str = "auto",
    precision: str = "auto",
    reporter: Reporter = QUIET,
) -> Probe:
    """Measure all candidates, dropping the worst from level to level.

    Args:
        state: of a model of guided diffusion (`read_guided`).
        frames: (N, S, S) uint8 on the model's grid, such as it was trained on.
        known: what is not open.
        device, precision: as in `echogen.diffusion.denoiser`.
        reporter: told how far it is.

    Raises:
        CheckpointError: the model cannot be converted.
        EngineError: there is no such device.
    """
    began = time.monotonic()
    bench = _Bench(state, frames, device, precision)
    errors: Errors = {one: {} for one in candidates(bench.architecture, known)}
    left, done = list(errors), 0
    for number, sigma in enumerate(LEVELS):
        total = done + len(left) + sum(min(len(left), kept) for kept in KEPT[number:])
        for layout in dict.fromkeys(map(_layout, left)):
            network = bench.network(layout)
            for one in left:
                if _layout(one) == layout:
                    reporter.progress("probing", done * len(frames), total * len(frames))
                    errors[one][sigma] = bench.errors(network, one, sigma)
                    done += 1
        left.sort(key=lambda one: _mean_log(errors[one]))
        if _share_of_linear(errors[left[0]], bench.images) > 1.0:
            break  # no denoiser, or not of such frames: the rest will not be better
        kept = KEPT[min(number, len(KEPT) - 1)]
        left = [
            one
            for rank, one in enumerate(left)
            if rank < kept or _ratio(errors[one], errors[left[0]]) < NEAR
        ]
    best = left[0]
    network = bench.network(_layout(best))
    shifted = {sigma: bench.shifted(network, best, sigma) for sigma in errors[best]}
    reporter.progress("probing", done * len(frames), done * len(frames))
    share = _share_of_linear(errors[best], bench.images)
    return _judged(errors, best, shifted, share, time.monotonic() - began)


@dataclass(frozen=True)
class _Bench:
    """One model on one set of noisy frames."""

    state: "Mapping[str, Tensor]"
    frames: npt.NDArray[np.uint8]
    device: str
    precision: str

    @cached_property
    def architecture(self) -> GuidedArchitecture:
        return read_architecture(self.state)

    @cached_property
    def images(self) -> npt.NDArray[np.float32]:
        """(N, C, S, S) in [-1, 1]."""
        return np.repeat(to_model_range(self.frames)[:, None], self.architecture.in_channels, 1)

    def network(self, layout: GuidedOptions) -> "Denoiser":
        """The network with its heads cut as a layout says; its schedule is of no consequence."""
        import torch
        from diffusers import UNet2DModel

        from echogen.diffusion.denoiser import build_denoiser

        weights, config, scheduler = convert_guided(self.state, layout)
        network_class: Any = UNet2DModel
        with torch.device("meta"):
            network = network_class(**config)
        network.load_state_dict(weights, assign=True)
        channels, side = config["in_channels"], self.frames.shape[-1]
        info = CheckpointInfo("probe", side, "stretch", 1, channels, {}, "", "", "")
        return build_denoiser(network, scheduler, info, self.device, self.precision)

    def errors(
        self, network: "Denoiser", options: GuidedOptions, sigma: float, shift: float = 1.0
    ) -> tuple[float, ...]:
        """Mean squared error of the predicted noise, of each frame."""
        import torch

        schedule = schedule_from_config(scheduler_config(False, options))
        t = min(schedule.timestep_at(sigma) * shift, options.steps - 1.0)
        rng = np.random.default_rng(LEVELS.index(sigma))
        noise = rng.standard_normal(self.images.shape, np.float32)
        x = torch.from_numpy((self.images + sigma * noise) / math.sqrt(1.0 + sigma**2))
        noisy = x.to(network.device, network.dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            output = network.network(noisy, torch.full((len(x),), t, dtype=torch.float32))
        error = output[:, : x.shape[1]].float().cpu().numpy() - noise
        return tuple(float(mean) for mean in (error**2).mean(axis=(1, 2, 3)))

    def shifted(
        self, network: "Denoiser", options: GuidedOptions, sigma: float
    ) -> tuple[float, float]:
        """Ratios of the error when told less noise, and more, to the error when told rightly."""
        told = self.errors(network, options, sigma)
        less = self.errors(network, options, sigma, 1 / SHIFT)
        more = self.errors(network, options, sigma, SHIFT)
        return _ratio({sigma: less}, {sigma: told}), _ratio({sigma: more}, {sigma: told})


def _judged(
    errors: Errors,
    best: GuidedOptions,
    shifted: Mapping[float, tuple[float, float]],
    share: float,
    seconds: float,
) -> Probe:
    tried = sorted(
        (Tried(one, found, _ratio(found, errors[best])) for one, found in errors.items()),
        key=lambda one: (one.options != best, one.ratio),
    )
    margin = tried[1].ratio if tried[1:] else 1.0
    near = [one.options for one in tried[1:] if one.ratio < LEAST_MARGIN]
    level = min(shifted, key=lambda sigma: min(shifted[sigma]))
    decided = False
    if share > LARGEST_SHARE:
        verdict = (
            f"the model denoises these frames under none of {len(tried)} candidates: the best, "
            f"{describe(best)}, has {share:.2g} times the error of a linear guess; give frames "
            "like those that it was trained on, or say what it is by flags."
        )
    elif near:
        rivals = [describe(one) for one in (best, *near[:3])]
        more = f" and {len(near) - 3} more" if len(near) > 3 else ""
        verdict = (
            f"cannot tell between {' and '.join(rivals)}{more}: {margin - 1:.1%} apart in "
            f"denoising error, at least {LEAST_MARGIN - 1:.0%} are needed; "
            f"give {_differing([best, *near])}, or other frames."
        )
    elif min(shifted[level]) * LEAST_MARGIN < 1.0:
        word = "less" if shifted[level][0] < 1.0 else "more"
        verdict = (
            f"no candidate's schedule fits: the best, {describe(best)}, denoises better at noise "
            f"level {level:g} when told that there is {word} noise; give --noise-schedule and "
            "--steps, or other frames."
        )
    elif tried[1:]:
        decided = True
        verdict = (
            f"{describe(best)}: the next, {describe(tried[1].options)}, has {margin - 1:.0%} "
            "more denoising error."
        )
    else:
        decided = True
        verdict = f"{describe(best)}: the only candidate, {share:.2g} times a linear guess's error."
    frames = len(errors[best][LEVELS[0]])
    return Probe(tuple(tried), decided, verdict, margin, shifted, share, frames, seconds)


def _layout(options: GuidedOptions) -> GuidedOptions:
    """Candidates that only differ in their schedule share a network."""
    return replace(options, noise_schedule="linear", steps=1000)


def _ratio(found: LevelErrors, best: LevelErrors) -> float:
    """Geometric mean, over frames and the levels of both, of one's error over the other's."""
    shared = [sigma for sigma in found if sigma in best]
    logs = [
        math.log(mine / theirs)
        for sigma in shared
        for mine, theirs in zip(found[sigma], best[sigma], strict=True)
    ]
    return math.exp(statistics.fmean(logs))


def _mean_log(found: LevelErrors) -> float:
    return statistics.fmean(math.log(error) for errors in found.values() for error in errors)


def _share_of_linear(found: LevelErrors, images: npt.NDArray[np.float32]) -> float:
    """The error over that of the best linear guess of the noise from each pixel alone.

    Levels above 1 do not count: there the guess is nearly right. 0 where there are no others.
    """
    variance = float(images.var())
    low = {sigma: errors for sigma, errors in found.items() if sigma < 1}
    guess = {sigma: (variance / (variance + sigma**2),) * len(low[sigma]) for sigma in low}
    return _ratio(low, guess) if low else 0.0


def _differing(rivals: Sequence[GuidedOptions]) -> str:
    """The flags that would settle it."""
    names = [
        field.name
        for field in fields(GuidedOptions)
        if len({getattr(one, field.name) for one in rivals}) > 1
    ]
    return " or ".join("--" + name.replace("_", "-") for name in names)


def describe(options: GuidedOptions) -> str:
    """A candidate in a few words."""
    if options.num_heads is not None:
        heads = "one head" if options.num_heads == 1 else f"{options.num_heads} heads"
    else:
        plural = "" if options.num_head_channels == 1 else "s"
        heads = f"{options.num_head_channels} channel{plural} a head"
    order = "new order" if options.new_attention_order else "legacy order"
    parts = [options.noise_schedule, f"{options.steps} steps", heads]
    return ", ".join(parts if options.num_heads == 1 else [*parts, order])
