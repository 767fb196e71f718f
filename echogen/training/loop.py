"""The training loop: read `train` from top to bottom.

All randomness of a step is seeded by the run's seed and the step's number, so a run that is
stopped and resumed makes the same steps. Images per second, loss and held-out loss by noise level
go to `log.jsonl`; pictures of samples to `samples/`; the best averaged network to `best/`.
"""

import copy
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from echogen.errors import EngineError, UsageError
from echogen.training.augment import PARAMETERS, augment
from echogen.training.config import OptimiserConfig, TrainConfig
from echogen.training.data import PackedFrames, hold_out
from echogen.training.loss import (
    LEVELS,
    alphas_cumprod,
    geometric_mean,
    loss_by_level,
    noised,
    stratified_steps,
    weights,
)
from echogen.training.network import VariedUNet, export_network
from echogen.training.samples import draw_samples, write_sheet
from echogen.training.state import Learner, Progress, load_state, save_state

Say = Callable[[str], None]
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RunOptions:
    """How long, where and how to run; none of it changes what is learnt at a given step.

    Attributes:
        steps, hours: the length; exactly one is given. `hours` counts time in the loop.
        stop_after: seconds after which to save and return unfinished, to be resumed; None never.
        held_out: how many cases to set aside.
        device: "cuda", "cpu" or "auto".
        precision: "bf16" or "fp32".
        compiled: use torch.compile, with a fallback that says so.
        evaluations: how many times to measure held-out loss, draw samples and save.
        log_every: steps between lines of the log.
        samples, sample_steps: images in a picture, and network evaluations for each.
    """

    steps: int | None = None
    hours: float | None = None
    stop_after: float | None = None
    held_out: int = 40
    device: str = "auto"
    precision: str = "bf16"
    compiled: bool = False
    evaluations: int = 20
    log_every: int = 50
    samples: int = 16
    sample_steps: int = 60

    def done(self, progress: Progress) -> float:
        """Share of the run that lies behind, in [0, 1]."""
        if self.steps is not None:
            return min(progress.step / self.steps, 1.0)
        return min(progress.seconds / ((self.hours or 0.0) * 3600), 1.0)


def train(
    config: TrainConfig,
    packed: PackedFrames,
    out: Path,
    options: RunOptions,
    *,
    resume: bool = False,
    say: Say = lambda line: print(line, file=sys.stderr, flush=True),
) -> Progress:
    """Trains, or goes on training, into `out`; `options.done(result)` is 1 when it is finished.

    Args:
        config: the recipe.
        packed: frames on the recipe's grid.
        out: gets `state.safetensors`, `log.jsonl`, `samples/`, `best/` and `last/`.
        options: length and device.
        resume: go on from `out`'s state; the recipe and the data must be the same.
        say: takes lines for people.

    Raises:
        UsageError: the length is missing or given twice, or too many cases are to be held out.
        CheckpointError: there is nothing to resume, or it is of another run.
        EngineError: no such device, or the loss is not finite.
    """
    started = time.monotonic()
    if (options.steps is None) == (options.hours is None):
        raise UsageError("give either --steps or --hours.")
    device = _device(options.device)
    validation = hold_out(packed.case_ids, options.held_out, config.seed)
    held_out = _on_device(packed.of_cases(validation), device)
    known = set(packed.case_ids) - set(validation)
    frames = _on_device(packed.of_cases(sorted(known)), device)
    identity = {
        "config": config.as_dict(),
        "data": packed.fingerprint,
        "held_out_cases": list(validation),
    }

    abar = alphas_cumprod(config.schedule).to(device)
    prediction = str(config.schedule.get("prediction_type", "epsilon"))
    weight = weights(abar, prediction, config.loss)
    torch.manual_seed(config.seed)
    learner = _learner(config, device)
    out.mkdir(parents=True, exist_ok=True)
    progress = load_state(out, learner, identity) if resume else Progress()
    log = _Log(out / "log.jsonl", append=resume)
    log.write(
        event="start",
        step=progress.step,
        device=_device_name(device),
        torch=torch.__version__,
        options=asdict(options),
        frames=len(frames),
        **identity,
    )
    torch.backends.cudnn.benchmark = True
    autocast = _autocast(device, options.precision)
    with autocast:
        forward = _forward(learner.network, config, device, options.compiled, say)
    generator = torch.Generator(device)
    running = torch.zeros((), device=device)
    since, clock = 0, time.monotonic()
    next_evaluation = math.floor(options.done(progress) * options.evaluations) + 1
    log.write(event="ready", seconds=round(time.monotonic() - started, 1))

    while options.done(progress) < 1:
        # --- one step
        rate = _rate(config.optimiser, progress.step, options.done(progress))
        for group in learner.optimiser.param_groups:
            group["lr"] = rate
        seed = _step_seed(config.seed, progress.step)
        generator.manual_seed(seed)
        torch.manual_seed(seed)
        batch = config.optimiser.batch_size
        picked = torch.randint(len(frames), (batch,), generator=generator, device=device)
        images, variation = augment(frames[picked].float() / 255, config.augment, generator)
        x0 = functional.pixel_unshuffle(images * 2 - 1, config.patch)
        t = stratified_steps(batch, len(abar), generator)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        x_t, target = noised(x0, noise, abar[t], prediction)
        with autocast:
            output = forward(x_t.contiguous(memory_format=torch.channels_last), t, variation)
        error = (output.float() - target).square().mean(dim=(1, 2, 3))
        loss = (weight[t] * error).mean()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(
            learner.network.parameters(), config.optimiser.clip_norm
        )
        learner.optimiser.step()
        learner.optimiser.zero_grad(set_to_none=True)
        progress = replace(progress, step=progress.step + 1, images=progress.images + batch)
        _follow(learner, config.optimiser, progress.images)
        running += loss.detach()
        since += 1

        # --- tell
        if since == options.log_every:
            mean = float(running) / since
            if not math.isfinite(mean):
                raise EngineError(
                    f"step {progress.step}: the loss is not finite; lower [optimiser] "
                    "learning_rate or use --precision fp32, and resume from the last state."
                )
            now = time.monotonic()
            speed = since * batch / (now - clock)
            log.write(
                event="step",
                step=progress.step,
                images=progress.images,
                loss=mean,
                rate=rate,
                gradient_norm=float(norm),
                images_per_s=round(speed, 1),
                seconds=round(progress.seconds + now - clock, 1),
            )
            progress = replace(progress, seconds=progress.seconds + now - clock)
            running.zero_()
            since, clock = 0, now

        # --- measure, show, save
        if options.done(progress) * options.evaluations >= next_evaluation:
            next_evaluation = math.floor(options.done(progress) * options.evaluations) + 1
            with autocast:
                measured = _measure(learner.average, config, options, frames, held_out, abar)
            write_sheet(out / "samples" / f"{progress.images:09d}.png", measured.samples)
            score = geometric_mean(measured.held_out or measured.known)
            better = score < progress.best
            progress = replace(progress, best=min(score, progress.best))
            record = {
                "step": progress.step,
                "images": progress.images,
                "score": score,
                "best": better,
                "held_out": measured.held_out,
                "known": measured.known,
            }
            log.write(event="held-out", seconds=round(progress.seconds, 1), **record)
            say(
                f"{options.done(progress):4.0%}  step {progress.step}  {progress.images} images  "
                f"score {score:.5f}{' (best)' if better else ''}  "
                f"{progress.seconds:.0f} s"
            )
            if better:
                export_network(learner.average, config, out / "best", {**record, **identity})
            save_state(out, learner, progress, identity)
            progress = replace(progress, seconds=progress.seconds + time.monotonic() - clock)
            clock = time.monotonic()
        if options.stop_after is not None and time.monotonic() - started > options.stop_after:
            break

    progress = replace(progress, seconds=progress.seconds + (time.monotonic() - clock))
    save_state(out, learner, progress, identity)
    export_network(learner.average, config, out / "last", {**asdict(progress), **identity})
    log.write(event="stop", done=options.done(progress), **asdict(progress))
    return progress


@dataclass(frozen=True)
class _Measured:
    held_out: dict[int, float]
    known: dict[int, float]
    samples: np.ndarray[Any, np.dtype[np.uint8]]


def _measure(
    average: VariedUNet,
    config: TrainConfig,
    options: RunOptions,
    frames: Tensor,
    held_out: Tensor,
    abar: Tensor,
) -> _Measured:
    """Loss by level on held-out frames and on as many that are trained on, and samples."""
    prediction = str(config.schedule.get("prediction_type", "epsilon"))
    total = len(abar)
    levels = [level * total // 1000 for level in LEVELS]
    count = max(len(held_out), 1)
    sets = (held_out, frames[:: max(len(frames) // count, 1)][:count])
    losses = [
        loss_by_level(
            average.unvaried, part.float() / 127.5 - 1, abar, prediction, config.patch, levels
        )
        if len(part)
        else {}
        for part in sets
    ]
    shape = (options.samples, 1, config.image_size, config.image_size)
    images = draw_samples(
        average.unvaried,
        abar,
        prediction,
        shape,
        patch=config.patch,
        steps=min(options.sample_steps, total),
        seed=config.seed,
    )
    return _Measured(losses[0], losses[1], images)


def _learner(config: TrainConfig, device: torch.device) -> Learner:
    network = VariedUNet(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        weight_decay=config.optimiser.weight_decay,
        fused=device.type == "cuda",
    )
    return Learner(network.train(), average, optimiser)


def _forward(
    network: VariedUNet, config: TrainConfig, device: torch.device, compiled: bool, say: Say
) -> Forward:
    """The network, compiled if asked for and if a trial step of the compiled one works."""
    if not compiled:
        return network
    batch, side = config.optimiser.batch_size, config.image_size // config.patch
    x = torch.zeros(batch, config.channels * config.patch**2, side, side, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    t = torch.zeros(batch, dtype=torch.long, device=device)
    fast: Forward = torch.compile(network, dynamic=False)
    try:
        trial = fast(x, t, torch.zeros(batch, len(PARAMETERS), device=device))
        torch.autograd.backward(trial.float().sum())
    except Exception as error:  # inductor raises many kinds; training goes on without it
        first = (str(error).splitlines() or [""])[0]
        say(f"torch.compile failed ({type(error).__name__}: {first}); training without it.")
        fast = network
    network.zero_grad(set_to_none=True)
    return fast


def _follow(learner: Learner, config: OptimiserConfig, images: int) -> None:
    """Moves the average towards the network, with a half-life in images."""
    half_life = min(config.ema_half_life, config.ema_ramp * images)
    share = 1 - 0.5 ** (config.batch_size / max(half_life, 1e-8))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(learner.average.parameters()), list(learner.network.parameters()), share
        )


def _rate(config: OptimiserConfig, step: int, done: float) -> float:
    """Linear warm-up by steps, cosine decay by share of the run."""
    warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
    decay = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * warm * decay


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _on_device(frames: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames))[:, None].to(device)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    if precision == "fp32":
        return nullcontext()
    raise UsageError(f"--precision {precision!r}: expected 'bf16' or 'fp32'.")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"--device {name}: no CUDA device here; use --device cpu.")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r}: expected cpu, cuda or auto.") from error


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class _Log:
    """JSON lines, one event each, readable while the run goes on."""

    def __init__(self, file: Path, *, append: bool) -> None:
        self._file = file
        if not append:
            file.write_text("", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, **values}) + "\n")
