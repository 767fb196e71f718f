"""Measurements and pictures of the averaged network, during training and once at the end."""

import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echogen.diffusion.border import BorderNetwork
from echogen.diffusion.checkpoint import TRAINED, read_info
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import load_checkpoint, resolve_device
from echogen.errors import CheckpointError, UsageError
from echogen.report import QUIET, Reporter
from echogen.training.border import fit_border
from echogen.training.card import ModelFacts, training_record
from echogen.training.checkpoint import (
    FIGURE_FILE,
    SAMPLES_FILE,
    denoiser_of,
    rewrite_checkpoint,
)
from echogen.training.fans import Fans
from echogen.training.frames import PreparedFrames, Rows, Split, split_of
from echogen.training.holes import fixed_keep
from echogen.training.learner import VariedUNet
from echogen.training.loss import LEVELS, geometric_mean, loss_by_level, make_objective
from echogen.training.machine import precision_of, training_precision
from echogen.training.memorisation import Memorisation, distances_plot, memorisation_of
from echogen.training.meter import check_finite
from echogen.training.options import TrainingOptions
from echogen.training.pictures import (
    Images,
    draw_samples,
    inpaint,
    inpainting_sheet,
    png,
    sheet,
    write_png,
)
from echogen.training.run_folder import PICTURES
from echogen.training.session import TrainingSession
from echogen.training.state import Progress, read_state
from echogen.types import to_model_range

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds.

    Attributes:
        held_out, known: {step: loss} on frames that are not, and that are trained on; of a network
            with conditioning on what is hidden by fixed holes.
        samples: (N, S, S).
        pictures: {kind: (H, W)}, as they were written.
        border: fitted to the network's errors, on the CPU; of a network with conditioning that is
            the best so far.
        held_out_whole, known_whole: of a network with conditioning, with the whole image hidden.
    """

    held_out: dict[int, float]
    known: dict[int, float]
    samples: Images
    pictures: dict[str, Images]
    border: BorderNetwork | None = None
    held_out_whole: dict[int, float] = field(default_factory=dict)
    known_whole: dict[int, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Geometric mean over levels, on held-out frames where there are any."""
        return score_of(self.held_out, self.known)

    def as_record(self) -> dict[str, Any]:
        """The figures, JSON-able."""
        losses = {
            "held_out_loss": self.held_out,
            "training_loss": self.known,
            "held_out_loss_whole": self.held_out_whole,
            "training_loss_whole": self.known_whole,
        }
        return {"score": self.score} | {
            name: {str(step): value for step, value in by_step.items()}
            for name, by_step in losses.items()
        }


def score_of(held_out: dict[int, float], known: dict[int, float]) -> float:
    """What networks of a run are compared by; lower is better. See `Evaluation`."""
    return geometric_mean(held_out or known)


@torch.no_grad()
def evaluate(
    average: VariedUNet, session: TrainingSession, pictures: Path, progress: Progress
) -> Evaluation:
    """Loss by level on held-out frames and on as many that are trained on; pictures.

    Args:
        average: the network.
        session: of the run; measured in the precision that it is trained in.
        pictures: the pictures' files without their kind, such as `pictures/000012800`.
        progress: of the run; only for a better score is the border network fitted.

    Raises:
        EngineError: the loss is not finite.
    """
    task, split, device = session.task, session.split, session.machine.device
    precision = precision_of(session.machine)
    recipe, pixels, options = task.recipe, task.frames.pixels, task.options
    fans, sees = torch.from_numpy(task.frames.fans), recipe.conditioning == "known"
    objective = make_objective(recipe, device)
    total = len(objective.abar)
    levels = [level * total // 1000 for level in LEVELS]
    batch = min(options.micro_batch or BATCH, BATCH)

    def holes(rows: Rows) -> Tensor:
        return fixed_keep(Fans(fans[torch.from_numpy(rows)], recipe.image_size), recipe.holes)

    def losses(rows: Rows, keep: Tensor | None) -> dict[int, float]:
        if not len(rows):
            return {}
        frames = torch.from_numpy(to_model_range(pixels[rows]))[:, None].to(device)
        frames = frames.expand(-1, recipe.channels, -1, -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return loss_by_level(
                average.unvaried, frames, objective.abar, objective.prediction, recipe.patch,
                levels, batch, None if keep is None else keep.to(device),
            )  # fmt: skip

    aside = _spread(split.held_out, options.measured)
    known = _spread(split.trained, len(aside) or options.measured)
    in_holes = [losses(rows, holes(rows) if sees else None) for rows in (aside, known)]
    score = score_of(*in_holes)
    check_finite(score, progress)
    whole: list[dict[int, float]] = [{}, {}]
    if sees:
        whole = [losses(rows, torch.zeros_like(holes(rows))) for rows in (aside, known)]
    denoiser, border = denoiser_of(average, recipe, device, precision), None
    if sees and score < progress.best and options.border_images:
        border = fit_border(denoiser, session.source, recipe, options.border_images)
        denoiser = replace(denoiser, border=copy.deepcopy(border).to(device))
    samples = draw_samples(
        denoiser, options.samples, steps=options.sample_steps, seed=recipe.seed, batch_size=batch
    )
    sheets = {"samples": sheet(samples)}
    shown = _spread(split.held_out if len(aside) else split.trained, options.inpainted)
    if len(shown):
        frames, keep = pixels[shown], holes(shown)[:, 0].numpy()
        painted = inpaint(denoiser, frames, keep, seed=recipe.seed, batch_size=batch)
        sheets["inpainted"] = inpainting_sheet(frames, keep, painted)
    for kind, picture in sheets.items():
        write_png(pictures.with_name(f"{kind}_{pictures.name}.png"), picture)
    return Evaluation(in_holes[0], in_holes[1], samples, sheets, border, *whole)


def compare(
    out: Path,
    frames: PreparedFrames,
    options: TrainingOptions,
    facts: ModelFacts,
    reporter: Reporter = QUIET,
) -> Memorisation:
    """Looks for the nearest training frames of a finished run's samples; rewrites its card.

    The checkpoint's record gets the figures, its card a figure, and `out`/pictures/nearest.png the
    nearest pairs: samples beside training frames, for the eyes of whoever has the data.

    Args:
        out: folder of the run, with its checkpoint.
        frames: those that it was trained on.
        options: `compared`, `sample_steps`, `device`, `precision` and `micro_batch` count.
        facts: for the card.
        reporter: hears what is done.

    Raises:
        UsageError: no sample is to be compared.
        CheckpointError: there is no checkpoint, or it was trained on other frames.
    """
    if options.compared < 1:
        raise UsageError(f"--compared {options.compared}: expected 1 or more to compare.")
    record = training_record(read_info(out / TRAINED))
    if record.data_fingerprint != frames.record.fingerprint:
        raise CheckpointError(
            f"{out / TRAINED}: trained on frames other than these; give the frames that it was "
            "trained on."
        )
    split = split_of(frames, record.held_out_cases)
    reporter.tell(f"comparing {options.compared} samples with {len(split.trained)} frames")
    device = resolve_device(options.device)
    precision = training_precision(options.precision, device)
    denoiser = load_checkpoint(out / TRAINED, str(device), precision)
    result, pairs, samples = _compare_samples(denoiser, frames, split, options, record.config.seed)
    write_png(out / PICTURES / "nearest.png", pairs)
    sampler = f"dpm, {options.sample_steps} evaluations"
    measured: dict[str, Any] = {"memorisation": {**result.as_dict(), "sampler": sampler}}
    if (state := read_state(out)) is not None:
        progress = asdict(state.progress)
        measured["run"] = {key: progress[key] for key in ("step", "images", "seconds")}
    record = record.model_copy(update=measured)
    shown = samples[result.fit_to_show]  # the card travels: it shows nothing like a training frame
    pictures = {SAMPLES_FILE: png(sheet((shown if len(shown) else samples)[: options.samples]))}
    rewrite_checkpoint(out, facts, record, {**pictures, FIGURE_FILE: distances_plot(result)})
    return result


def _compare_samples(
    denoiser: Denoiser, frames: PreparedFrames, split: Split, options: TrainingOptions, seed: int
) -> tuple[Memorisation, Images, Images]:
    """Figures; a sheet of the eight pairs nearest in grey levels and the eight nearest in pattern,
    each a sample and a frame; and the samples.
    """
    samples = draw_samples(
        denoiser,
        options.compared,
        steps=options.sample_steps,
        seed=seed,
        batch_size=min(options.micro_batch or BATCH, BATCH),
    )
    result = memorisation_of(samples, frames.pixels, split.trained, split.held_out)
    nearest, alike = np.argsort(result.samples.rms)[:8], np.argsort(result.samples.pattern)[:8]
    rows = [*result.samples.nearest[nearest], *result.samples.alike[alike]]
    pairs = np.stack([samples[[*nearest, *alike]], frames.pixels[np.array(rows)]], axis=1)
    return result, sheet(pairs.reshape(-1, *samples.shape[1:]), columns=4), samples


def _spread(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows, evenly spread."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows[:0]
