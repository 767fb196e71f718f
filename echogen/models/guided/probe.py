"""Options that shapes leave open, found by how well a network denoises real frames.

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import read_scheduler
from echogen.errors import CheckpointError
from echogen.models.guided.architecture import GuidedArchitecture, GuidedOptions, read_architecture
from echogen.models.guided.candidates import KnownOptions, candidates, describe, layout_of
from echogen.models.guided.importing import image_size_of, read_guided
from echogen.models.guided.unet import convert_guided, scheduler_config
from echogen.report import QUIET, Reporter
from echogen.types import to_model_range

if TYPE_CHECKING:
    from torch import Tensor

    from echogen.diffusion.denoiser import Denoiser

LEVELS = (2.0, 0.5, 8.0, 0.15)
"""Noise levels sigma in grey levels of [-1, 1], in the order in which they are tried."""
KEPT = (8, 4, 4)
"""How many candidates go on to the next level; all within `NEAR` of the best go on as well."""
NEAR = 1.1
LEAST_MARGIN = 1.02
"""By what factor the error of every other candidate must be larger."""
SHIFT, LEAST_LOSS = 1.25, 0.96
"""With its timestep scaled by these factors, the best candidate's error must not fall below this
share, or its schedule is not the model's."""
LARGEST_SHARE = 0.7
"""A network whose error is a larger share of a linear guess's does not denoise these frames."""
PIXELS = 2 * 256 * 256
MOST_FRAMES = 16


@dataclass(frozen=True)
class Candidate:
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
        candidates: the best first.
        decided: whether the best one is clearly so.
        verdict: one sentence for people.
        margin: the runner-up's error over the best one's; 1 where there was one candidate.
        shifted: {sigma: (ratio of the best one's error when told a timestep `SHIFT` times smaller,
            and larger)}; see `LEAST_LOSS`.
        share: the best one's error over that of a linear guess from each pixel alone.
        frames: how many.
        seconds: it took.
    """

    candidates: tuple[Candidate, ...]
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
        return self.candidates[0].options

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
                    **candidate.options.model_dump(),
                    "ratio": round(candidate.ratio, 4),
                    "errors": {
                        f"{sigma:g}": round(statistics.fmean(errors), 5)
                        for sigma, errors in sorted(candidate.errors.items())
                    },
                }
                for candidate in self.candidates
            ],
        }


LevelErrors = Mapping[float, tuple[float, ...]]
Errors = dict[GuidedOptions, dict[float, tuple[float, ...]]]
OPEN = KnownOptions()


def frames_needed(image_size: int) -> int:
    """How many frames make a probe: two of 256 x 256, more of smaller ones."""
    return min(MOST_FRAMES, max(2, PIXELS // image_size**2))


def probe(
    state: "Mapping[str, Tensor]",
    frames: npt.NDArray[np.uint8],
    known: KnownOptions = OPEN,
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
        reporter: hears how far it is.

    Raises:
        CheckpointError: the model cannot be converted.
        EngineError: there is no such device.
    """
    began = time.monotonic()
    bench = _Bench(state, frames, device, precision)
    errors: Errors = {options: {} for options in candidates(bench.architecture, known)}
    left, done = list(errors), 0
    for number, sigma in enumerate(LEVELS):
        later = sum(min(len(left), kept) for kept in KEPT[number:])
        total = done + len(left) + later + 2 * len(LEVELS)
        for layout in dict.fromkeys(map(layout_of, left)):
            network = bench.network(layout)
            for options in left:
                if layout_of(options) == layout:
                    reporter.progress("probing", done * len(frames), total * len(frames))
                    errors[options][sigma] = bench.errors(network, options, sigma)
                    done += 1
        left.sort(key=lambda options: _mean_log(errors[options]))
        if _share_of_linear(errors[left[0]], bench.images) > 1.0:
            break  # no denoiser, or not of such frames: the rest will not be better
        kept = KEPT[min(number, len(KEPT) - 1)]
        left = [
            options
            for rank, options in enumerate(left)
            if rank < kept or _ratio(errors[options], errors[left[0]]) < NEAR
        ]
    best = left[0]
    shifted: dict[float, tuple[float, float]] = {}
    network = bench.network(layout_of(best))
    for sigma, unshifted in errors[best].items():
        less = bench.errors(network, best, sigma, 1 / SHIFT)
        more = bench.errors(network, best, sigma, SHIFT)
        shifted[sigma] = (
            _ratio({sigma: less}, {sigma: unshifted}),
            _ratio({sigma: more}, {sigma: unshifted}),
        )
        done += 2
    reporter.progress("probing", done * len(frames), done * len(frames))
    share = _share_of_linear(errors[best], bench.images)
    return _judge(errors, best, shifted, share, time.monotonic() - began)


def probe_file(
    file: Path | str,
    dataset: Path,
    known: KnownOptions = OPEN,
    *,
    image_size: int | None = None,
    device: str = "auto",
    reporter: Reporter = QUIET,
) -> Probe:
    """`probe` for a file and some frames of a dataset; labels are not needed.

    Args:
        file: a model of guided diffusion, `.pt`.
        dataset: in any layout that echogen reads.
        known: what is not open.
        image_size: the model's; None takes the usual one of its architecture.
        device: as in `probe`.
        reporter: hears how far it is.

    Raises:
        CheckpointError: the file cannot be read or converted.
        DatasetError, UsageError: there are no frames to measure on.
        EngineError: there is no such device.
    """
    from echogen.training.frame_folder import few_frames
    from echogen.training.frames import ModelGrid

    state = read_guided(file)
    try:
        size = image_size_of(read_architecture(state), image_size)
        grid = ModelGrid(image_size=size, resize="stretch")
        frames = few_frames(dataset, frames_needed(size), grid, reporter)
        return probe(state, frames.pixels, known, device=device, reporter=reporter)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error


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

        from echogen.diffusion.network import build_denoiser

        weights, config, scheduler = convert_guided(self.state, layout)
        network_class: Any = UNet2DModel
        with torch.device("meta"):
            network = network_class(**config)
        network.load_state_dict(weights, assign=True)
        channels, side = config["in_channels"], self.frames.shape[-1]
        info = CheckpointInfo(
            name="probe",
            image_size=side,
            resize="stretch",
            patch=1,
            channels=channels,
            labels={},
            training_data="",
            licence="",
            citation="",
        )
        return build_denoiser(network, scheduler, info, self.device, self.precision)

    def errors(
        self, network: "Denoiser", options: GuidedOptions, sigma: float, shift: float = 1.0
    ) -> tuple[float, ...]:
        """Mean squared error of the predicted noise, of each frame."""
        import torch

        from echogen.diffusion.network import precision_name

        schedule = read_scheduler(scheduler_config(False, options)).schedule
        t = min(schedule.timestep_at(sigma) * shift, options.steps - 1.0)
        rng = np.random.default_rng(LEVELS.index(sigma))
        noise = rng.standard_normal(self.images.shape, np.float32)
        x = torch.from_numpy((self.images + sigma * noise) / math.sqrt(1.0 + sigma**2))
        noisy = x.to(network.device, network.dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            output = network.network(noisy, torch.full((len(x),), t, dtype=torch.float32))
        error = output[:, : x.shape[1]].double().cpu().numpy() - noise
        means = [float(mean) for mean in (error**2).mean(axis=(1, 2, 3))]
        if not all(0.0 < mean < math.inf for mean in means):
            raise CheckpointError(
                f"the model's output is not finite at noise level {sigma:g} in "
                f"{precision_name(network.dtype)}; try --device cpu, or download the file again."
            )
        return tuple(means)


def _judge(
    errors: Errors,
    best: GuidedOptions,
    shifted: Mapping[float, tuple[float, float]],
    share: float,
    seconds: float,
) -> Probe:
    ranked = sorted(
        (Candidate(*item, _ratio(item[1], errors[best])) for item in errors.items()),
        key=lambda candidate: (candidate.options != best, candidate.ratio),
    )
    margin = ranked[1].ratio if ranked[1:] else 1.0
    near = [candidate.options for candidate in ranked[1:] if candidate.ratio < LEAST_MARGIN]
    level = min(shifted, key=lambda sigma: min(shifted[sigma]))
    decided = False
    if share > LARGEST_SHARE:
        verdict = (
            f"none of {len(ranked)} candidates denoises these frames: the best, {describe(best)}, "
            f"has {share:.2g} times the error of a linear guess; give frames like those that the "
            "model was trained on, or its options as flags."
        )
    elif near:
        verdict = _undecided(best, near, margin)
    elif min(shifted[level]) < LEAST_LOSS:
        word = "less" if shifted[level][0] < 1.0 else "more"
        verdict = (
            f"no candidate's schedule fits: the best, {describe(best)}, denoises noise level "
            f"{level:g} better with a timestep for {word} noise; give --noise-schedule and --steps "
            "as used in training, or other frames."
        )
    elif ranked[1:]:
        decided = True
        verdict = (
            f"{describe(best)}: the next, {describe(ranked[1].options)}, has {margin - 1:.0%} "
            "more denoising error."
        )
    else:
        decided = True
        verdict = (
            f"{describe(best)}: the only candidate, at {share:.2g} times the error of a linear "
            "guess."
        )
    frames = len(errors[best][LEVELS[0]])
    return Probe(tuple(ranked), decided, verdict, margin, shifted, share, frames, seconds)


def _undecided(best: GuidedOptions, near: Sequence[GuidedOptions], margin: float) -> str:
    """The verdict where others are as good as the best, to a `margin` that is too small."""
    schedules = {(options.noise_schedule, options.steps) for options in (best, *near)}
    rivals = [describe(options) for options in (best, *near[:3])]
    more = f" and {len(near) - 3} more" if len(near) > 3 else ""
    alike = len(schedules) == 1
    hint = " Candidates that differ only in heads paint almost alike." if alike else ""
    return (
        f"cannot decide between {' and '.join(rivals)}{more}: {margin - 1:.1%} apart in "
        f"denoising error, but at least {LEAST_MARGIN - 1:.0%} is needed; give "
        f"{_differing([best, *near])}, or other frames.{hint}"
    )


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
    variance = max(float(images.var()), 1e-6)
    low = {sigma: errors for sigma, errors in found.items() if sigma < 1}
    guess = {sigma: (variance / (variance + sigma**2),) * len(low[sigma]) for sigma in low}
    return _ratio(low, guess) if low else 0.0


def _differing(rivals: Sequence[GuidedOptions]) -> str:
    """The flags that would decide between them."""
    names = [
        name
        for name in GuidedOptions.model_fields
        if len({getattr(options, name) for options in rivals}) > 1
    ]
    return " or ".join("--" + name.replace("_", "-") for name in names)
