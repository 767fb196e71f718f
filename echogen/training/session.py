"""A run set up: frames, network, objective, log, and the state that it continues from."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.errors import CheckpointError, UsageError
from echogen.report import Reporter
from echogen.support.differences import differences
from echogen.support.words import counted
from echogen.training.batches import FrameSource, TrainingBatch, batches, frame_source
from echogen.training.card import FrameCounts, ModelFacts, TrainingRecord
from echogen.training.checkpoint import case_digests
from echogen.training.frames import PreparedFrames, Split, hold_out, split_of
from echogen.training.learner import Learner, compile_network, make_learner
from echogen.training.log import RunLog
from echogen.training.loss import Objective, make_objective
from echogen.training.machine import hardware, precision_of, share_of
from echogen.training.options import TrainingOptions, held_out_count
from echogen.training.recipe import Recipe
from echogen.training.run_folder import BOARD, LOG_FILE, STATE_FILE, open_run_folder
from echogen.training.start import load_start, start_record, trained_before
from echogen.training.state import (
    Progress,
    SavedRun,
    load_state,
    read_state,
    save_state,
)


@dataclass(frozen=True)
class TrainingTask:
    """What to do.

    Attributes:
        recipe: what is trained.
        frames: on the recipe's grid.
        out: folder of the run.
        options: length and machine.
        facts: for the model's card and record.
        start_from: the checkpoint whose weights a new run starts from, a folder or "builtin".
    """

    recipe: Recipe
    frames: PreparedFrames
    out: Path
    options: TrainingOptions
    facts: ModelFacts
    start_from: Path | str | None = None


@dataclass(frozen=True)
class TrainingSession:
    """A task in one process, ready to start or to continue.

    Attributes:
        task: what to do.
        machine: the process' device and its place among the others.
        reporter: takes progress and lines for people; of the first process only.
        split: which frames are trained on.
        source: of the batches.
        objective: the recipe's.
        learner: network, average, optimiser.
        model: the network as accelerate prepared it.
        share: which images of a batch are this process'.
        log: of the run.
        progress: where it begins.
        identity: what decides which weights the run ends with, apart from its length.
    """

    task: TrainingTask
    machine: Accelerator
    reporter: Reporter
    split: Split
    source: FrameSource
    objective: Objective
    learner: Learner
    model: nn.Module
    share: slice
    log: RunLog
    progress: Progress
    identity: dict[str, Any]

    def batches(self) -> Generator[TrainingBatch, None, None]:
        """From the run's next step on."""
        total = len(self.objective.abar)
        return batches(self.source, self.task.recipe, total, self.progress.step, self.share)

    def save(self, progress: Progress) -> None:
        """Writes the state, from the first process."""
        if self.machine.is_main_process:
            length = self.task.options.length
            self.log.force()
            save_state(self.task.out, self.learner, progress, self.identity, length)

    def record(self, progress: Progress, **measured: Any) -> TrainingRecord:
        """The training record, with the losses that were measured."""
        task, split = self.task, self.split
        return TrainingRecord(
            **self.identity,
            dataset=dict(task.facts.dataset),
            cases=case_digests(task.frames, split.held_out_cases),
            frames=self.counts,
            images_seen=progress.images,
            step=progress.step,
            seconds=round(progress.seconds, 1),
            hardware=hardware(self.machine),
            precision=precision_of(self.machine),
            command=task.facts.command,
            **measured,
        )

    @property
    def counts(self) -> FrameCounts:
        """Of frames, trained on and held out."""
        return FrameCounts(trained=len(self.split.trained), held_out=len(self.split.held_out))


def open_session(
    task: TrainingTask, machine: Accelerator, reporter: Reporter, *, resume: bool, overwrite: bool
) -> TrainingSession:
    """Everything that a run needs, with the folder's state if there is one.

    Raises:
        UsageError: the recipe is wrong, or too many cases are to be held out.
        CheckpointError: there is nothing to resume, or the folder is of another run.
    """
    recipe, options, frames = task.recipe, task.options, task.frames
    _check_grid(recipe, frames)
    count = held_out_count(options.hold_out, len(frames.cases))
    split = split_of(frames, hold_out(frames.cases, count, recipe.seed))
    objective = make_objective(recipe, machine.device)
    learner = make_learner(recipe, machine.device)
    share = share_of(machine, recipe.optimiser.batch_size)
    first = machine.is_main_process
    if first:
        open_run_folder(task.out, resume=resume, overwrite=overwrite)
    machine.wait_for_everyone()
    saved = read_state(task.out)
    identity = _identity(task, split, saved)
    if saved is not None:
        _check_same(saved, identity, task, reporter)
        load_state(task.out, learner)
    elif task.start_from is not None:
        load_start(task.start_from, recipe, learner)
        _tell_of_leaks(read_info(task.start_from), task.frames, split, reporter)
    progress = saved.progress if saved is not None else Progress()
    if options.compile:
        size = min(options.micro_batch or share.stop, share.stop - share.start)
        compile_network(learner, recipe, size, machine, reporter)
    log = RunLog(
        task.out / LOG_FILE if first else None,
        progress.step,
        task.out / BOARD if options.tensorboard else None,
    )
    source = frame_source(frames, split.trained, machine.device)
    model = machine.prepare_model(learner.network)
    session = TrainingSession(
        task, machine, reporter, split, source, objective, learner, model, share, log, progress,
        identity,
    )  # fmt: skip
    if saved is None:
        session.save(progress)
    _announce(session)
    return session


def _check_grid(recipe: Recipe, frames: PreparedFrames) -> None:
    side, wanted = frames.record.grid.image_size, recipe.image_size
    if side != wanted:
        raise UsageError(
            f"the frames are {side} x {side}, but the recipe {recipe.name} needs {wanted} x "
            f"{wanted}; prepare them again for it."
        )


def _announce(session: TrainingSession) -> None:
    split, progress = session.split, session.progress
    session.log.write(
        "start",
        progress.step,
        hardware=hardware(session.machine),
        precision=precision_of(session.machine),
        torch=torch.__version__,
        options=session.task.options.model_dump(mode="json"),
        frames=session.counts.model_dump(),
        **session.identity,
    )
    start = session.identity["start_from"]
    if start and not progress.step:
        session.reporter.tell(f"starting from the weights of {start['name']}")
    if progress.step and session.task.options.done(progress) >= 1:
        session.reporter.tell(
            f"the run is finished, after step {progress.step}: nothing is left to train; more "
            "--steps or --hours make it longer, --overwrite starts over."
        )
    elif progress.step:
        session.reporter.tell(f"continuing after step {progress.step}")
    if not len(split.held_out):
        session.reporter.tell(
            "no case is held out: the model is measured on the frames that it trains on, which "
            "cannot show overfitting; --hold-out sets cases aside."
        )


def _identity(task: TrainingTask, split: Split, saved: SavedRun | None) -> dict[str, Any]:
    """What decides which weights a run ends with, apart from its length.

    A run that continues has its start in its state: the checkpoint is not needed again.
    """
    start = {} if saved is None else saved.identity.get("start_from", {})
    if task.start_from is not None:
        start = start_record(read_info(task.start_from))
    return {
        "config": task.recipe.model_dump(mode="json"),
        "data_fingerprint": task.frames.record.fingerprint,
        "held_out_cases": list(split.held_out_cases),
        "start_from": start,
    }


def _tell_of_leaks(
    info: CheckpointInfo, frames: PreparedFrames, split: Split, reporter: Reporter
) -> None:
    """Say where held-out cases are not new to the weights that a run starts from."""
    held_out = case_digests(frames, split.held_out_cases).held_out
    if seen := trained_before(info, held_out):
        reporter.tell(
            f"note: {counted(len(seen), 'held-out case')} of {len(held_out)}, such as {seen[0]}: "
            f"{info.name} was trained on them, so held-out figures will be too good. Hold out its "
            "own held-out cases: the same dataset, --hold-out and --seed."
        )


def _check_same(
    saved: SavedRun, identity: dict[str, Any], task: TrainingTask, reporter: Reporter
) -> None:
    """Refuse to continue a run of other settings; say where its length is another."""
    differing = [
        f"{name} was {_short(old)}, is {_short(new)}"
        for name, old, new in differences(saved.identity, identity)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(
            f"{task.out / STATE_FILE}: belongs to a run with other settings: "
            f"{'; '.join(differing[:3])}{more}. Use the same settings, train into another folder, "
            "or start over with --overwrite."
        )
    if saved.length != task.options.length:
        reporter.tell(
            f"the run was planned for {saved.length}, now for {task.options.length}: the learning "
            "rate decays over the new length from here on."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
