"""A run set up: data, network, objective, log, and the state to go on from."""

import json
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from echogen.diffusion.checkpoint import INFO_FILE
from echogen.errors import CheckpointError, UsageError
from echogen.support.differences import differences
from echogen.training.batches import Batch, FrameSource, batches, frame_source
from echogen.training.checkpoint import CHECKPOINT, case_record, recover
from echogen.training.data import hold_out
from echogen.training.job import PICTURES, Job, Split, split_of
from echogen.training.learner import compile_network, make_learner
from echogen.training.log import RunLog
from echogen.training.loss import Objective, make_objective
from echogen.training.machine import hardware, precision_of, share_of
from echogen.training.options import held_out_count
from echogen.training.state import (
    STATE_FILE,
    Learner,
    Progress,
    SavedRun,
    load_state,
    read_state,
    save_state,
)
from echogen.training.tell import TrainingReporter

LOG_FILE, BOARD = "log.jsonl", "tensorboard"


@dataclass(frozen=True)
class Run:
    """A job in one process, ready to go on.

    Attributes:
        job: what is asked for.
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
    """

    job: Job
    machine: Accelerator
    reporter: TrainingReporter
    split: Split
    source: FrameSource
    objective: Objective
    learner: Learner
    model: nn.Module
    share: slice
    log: RunLog
    progress: Progress

    def batches(self) -> Generator[Batch, None, None]:
        """From the run's next step on."""
        total = len(self.objective.abar)
        return batches(self.source, self.job.config, total, self.progress.step, self.share)

    def save(self, progress: Progress) -> None:
        """Writes the state, from the first process."""
        if self.machine.is_main_process:
            job = self.job
            identity = _identity(job, self.split)
            save_state(job.out, self.learner, progress, identity, job.options.length)

    def record(self, progress: Progress) -> dict[str, Any]:
        """The training record, as far as it is known before anything is measured."""
        job = self.job
        return {
            **_identity(job, self.split),
            "dataset": dict(job.facts.dataset),
            "cases": case_record(job.packed, self.split.held_out_cases),
            "frames": {"trained": len(self.split.trained), "held_out": len(self.split.held_out)},
            "images_seen": progress.images,
            "step": progress.step,
            "seconds": round(progress.seconds, 1),
            "hardware": hardware(self.machine),
            "precision": precision_of(self.machine),
            "command": job.facts.command,
            "memorisation": {},
        }


def open_run(
    job: Job, machine: Accelerator, reporter: TrainingReporter, *, resume: bool, overwrite: bool
) -> Run:
    """Everything that a run needs, with the folder's state if there is one.

    Raises:
        UsageError: the recipe is wrong, or too many cases are to be held out.
        CheckpointError: there is nothing to resume, or the folder is of another run.
    """
    config, options, device = job.config, job.options, machine.device
    side = job.packed.frames.shape[1]
    if side != config.image_size:
        raise UsageError(
            f"the frames are {side} x {side}, the recipe {config.name} wants {config.image_size} x "
            f"{config.image_size}; prepare them for it."
        )
    held_out = held_out_count(options.held_out, len(set(job.packed.case_ids)))
    split = split_of(job.packed, hold_out(job.packed.case_ids, held_out, config.seed))
    objective = make_objective(config, device)
    learner = make_learner(config, device)
    share = share_of(machine, config.optimiser.batch_size)
    if machine.is_main_process:
        _tidy(job.out, overwrite)
    machine.wait_for_everyone()
    saved = _saved(job, split, resume, reporter)
    if saved is not None:
        load_state(job.out, learner)
    progress = saved.progress if saved is not None else Progress()
    if options.compiled:
        size = min(options.micro_batch or share.stop, share.stop - share.start)
        compile_network(learner, config, size, machine, reporter)
    first = machine.is_main_process
    run = Run(
        job=job,
        machine=machine,
        reporter=reporter,
        split=split,
        source=frame_source(job.packed.frames, split.trained, device),
        objective=objective,
        learner=learner,
        model=machine.prepare_model(learner.network),
        share=share,
        log=RunLog(
            job.out / LOG_FILE if first else None,
            progress.step,
            job.out / BOARD if options.tensorboard else None,
        ),
        progress=progress,
    )
    if saved is None:
        run.save(progress)
    _announce(run)
    return run


def _announce(run: Run) -> None:
    job, split, progress = run.job, run.split, run.progress
    run.log.write(
        "start",
        progress.step,
        hardware=hardware(run.machine),
        precision=precision_of(run.machine),
        torch=torch.__version__,
        options=job.options.as_dict(),
        frames={"trained": len(split.trained), "held_out": len(split.held_out)},
        **_identity(job, split),
    )
    if progress.step:
        run.reporter.tell(f"going on after step {progress.step}")
    if not len(split.held_out):
        run.reporter.tell(
            "no case is held out: the model is measured on frames that it is trained on, which "
            "cannot tell overfitting; --hold-out sets cases aside."
        )


def _identity(job: Job, split: Split) -> dict[str, Any]:
    """What decides which weights a run ends with, apart from its length."""
    return {
        "config": job.config.as_dict(),
        "data_fingerprint": job.packed.fingerprint,
        "held_out_cases": list(split.held_out_cases),
    }


def _tidy(out: Path, overwrite: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        folders = [name for name in (PICTURES, BOARD, CHECKPOINT) if (out / name).exists()]
        ours = (STATE_FILE, LOG_FILE, f"{CHECKPOINT}/{INFO_FILE}")
        if folders and not any((out / name).is_file() for name in ours):
            raise CheckpointError(
                f"{out}: holds a folder {folders[0]}, but no training run; train into another "
                "folder."
            )
        (out / STATE_FILE).unlink(missing_ok=True)
        for name in folders:
            shutil.rmtree(out / name, ignore_errors=True)
        (out / LOG_FILE).unlink(missing_ok=True)  # last: it tells what the others are
    recover(out)


def _saved(job: Job, split: Split, resume: bool, reporter: TrainingReporter) -> SavedRun | None:
    """The state to go on from, or None for a new run."""
    out = job.out
    saved = read_state(out)
    if saved is None:
        if resume:
            raise CheckpointError(
                f"{out}: no state to resume from (no {STATE_FILE}); start without --resume."
            )
        if (out / CHECKPOINT).exists():
            raise CheckpointError(
                f"{out}: holds a checkpoint but no state to go on from; train into another folder, "
                "or start over with --overwrite."
            )
        return None
    found = [
        f"{name} was {_short(old)}, is {_short(new)}"
        for name, old, new in differences(saved.identity, _plain(_identity(job, split)))
    ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise CheckpointError(
            f"{out / STATE_FILE}: of a run with other settings: {'; '.join(found[:3])}{more}. Give "
            "the same ones, train into another folder, or start over with --overwrite."
        )
    if saved.length != job.options.length:
        reporter.tell(
            f"the run was to be {saved.length} long, now {job.options.length}: the decay of the "
            "learning rate follows the new length from here on."
        )
    return saved


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
