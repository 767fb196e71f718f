"""The composition root of training: a dataset's frames prepared, a recipe trained on them.

Reading and preparing lie in `datasets` and `frames`, the loop in `training`; nothing here knows how
a frame is read or a step is made. A run's folder OUT holds `frames/`, `state.safetensors`,
`log.jsonl`, `pictures/`, and `checkpoint/`, the best model so far, for `--checkpoint OUT`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, open_dataset, select
from echogen.diffusion.checkpoint import INFO_FILE, CheckpointInfo, read_info
from echogen.errors import (
    CheckpointError,
    DatasetError,
    UsageError,
    exit_code_of,
)
from echogen.report import CommandReport, Quiet, Reporter
from echogen.support.lock import store_lock
from echogen.support.signals import catch_signals
from echogen.support.words import counted
from echogen.training.data import RECORD_FILE
from echogen.training.frames import (
    Grid,
    PreparedFrames,
    await_frames,
    prepare_frames,
    read_prepared,
)
from echogen.types import FrameKey, Problem

if TYPE_CHECKING:
    from echogen.training.checkpoint import ModelFacts
    from echogen.training.options import RunOptions
    from echogen.training.recipe import TrainConfig
    from echogen.training.tell import TrainingReporter

CHECKPOINT, FRAMES = "checkpoint", "frames"
STATE = "state.safetensors"
OURS = (STATE, "log.jsonl", f"{CHECKPOINT}/{INFO_FILE}", f"{FRAMES}/{RECORD_FILE}")
"""Any of them tells a run's folder, of which `pictures`, say, may be another's."""
UNSTATED = "not stated; the terms of the training data apply"
QUIET = Quiet()


@dataclass(frozen=True)
class Terms:
    """What a model's card says that files do not; empty takes what the dataset knows.

    Attributes:
        name: of the model; empty takes the folder's.
        data: what it is trained on, in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
    """

    name: str = ""
    data: str = ""
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class TrainingRun:
    """Everything `echogen train` can be told.

    Attributes:
        input: the dataset's folder; None only to measure a finished run.
        output: the run's folder.
        recipe: what is trained.
        options: how long, where and how.
        format: of the dataset; also `images`, which the selection's own cannot name.
        dataset: which frames.
        terms: for the card.
        on_error: "fail" stops at the first frame that cannot be used.
        workers: processes that prepare frames; 0 takes one a core.
        resume: a state must be there to go on from.
        overwrite: begin anew where a run is already.
        command: for the card, as it was given.
    """

    input: Path | None
    output: Path
    recipe: "TrainConfig"
    options: "RunOptions"
    format: str = "auto"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    terms: Terms = Terms()
    on_error: Literal["skip", "fail"] = "skip"
    workers: int = 0
    resume: bool = False
    overwrite: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainReport(CommandReport):
    """How a training run stands.

    Attributes:
        output: the run's folder.
        checkpoint: the model's folder, or "" where none has been measured yet.
        name, licence: of the model.
        frames, cases: trained on and held out together.
        held_out_cases: how many cases are held out.
        skipped: frames that could not be used, with the reason.
        notes: what else a user should know.
        done: share of the run, 0 to 1; None where a model was only measured.
        step, images, seconds: of the run so far, or where it was only measured, of its model.
        record: the model's training record, without the lists of cases.
        interrupted: the signal's number, or 0.
    """

    output: str
    checkpoint: str
    name: str
    licence: str
    frames: int
    cases: int
    held_out_cases: int
    skipped: tuple[Problem, ...]
    notes: tuple[str, ...]
    done: float | None
    step: int
    images: int
    seconds: float
    record: Mapping[str, Any] = field(default_factory=dict)
    interrupted: int = 0

    @property
    def exit_code(self) -> int:
        """0 done, 1 done with frames skipped, 130 or 143 interrupted and resumable."""
        return exit_code_of(self.interrupted, bool(self.skipped))


def train(
    run: TrainingRun, reporter: Reporter = QUIET, training: "TrainingReporter | None" = None
) -> TrainReport:
    """Prepare the frames and train on them, or go on where a run of the same settings stopped.

    Args:
        run: what to do.
        reporter: hears of the frames.
        training: hears of the steps.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before the first step, or by a second one.
    """
    from echogen.training import loop
    from echogen.training.options import held_out_count

    run.options.check()
    dataset, keys = _list(run, reporter)
    with catch_signals(reporter.tell, "step") as stop, _alone(run.output):
        _check_output(run, dataset.provenance.format)
        grid = _grid(run.recipe)
        cache = run.output / FRAMES
        if first_process():
            prepared = prepare_frames(
                dataset,
                keys,
                grid,
                cache,
                reporter,
                on_error=run.on_error,
                workers=run.workers,
                keep_old=(run.output / STATE).is_file() and not run.overwrite,
            )
        else:
            prepared = await_frames(dataset, keys, grid, cache)
        for note in prepared.notes:
            reporter.tell(f"note: {note}")
        progress = loop.train(
            run.recipe,
            prepared.packed,
            run.output,
            run.options,
            facts=_facts(run, dataset, prepared),
            resume=run.resume,
            overwrite=run.overwrite,
            reporter=training,
            stop=stop,
        )
        done = run.options.done(progress)
        report = _report(run.output, prepared)
        return replace(
            report,
            held_out_cases=held_out_count(run.options.held_out, report.cases),
            skipped=(*dataset.problems(run.dataset), *report.skipped),
            done=done,
            step=progress.step,
            images=progress.images,
            seconds=progress.seconds,
            interrupted=stop.signum if done < 1 else 0,
        )


def measure(
    run: TrainingRun, reporter: Reporter = QUIET, training: "TrainingReporter | None" = None
) -> TrainReport:
    """Only measure whether a finished run's model repeats its frames; rewrite its card.

    The run's own frames are used. Its card keeps the terms that `run.terms` leaves empty.

    Raises:
        EchogenError: there is no such run, or its frames are gone; as `train`.
    """
    from echogen.training import checkpoint, evaluation

    if not run.output.is_dir():
        _checkpoint(run.output)  # raises, before a lock's file is made
    with catch_signals(reporter.tell), _alone(run.output):
        checkpoint.recover(run.output)
        info = read_info(_checkpoint(run.output))
        prepared = read_prepared(run.output / FRAMES)
        facts = _known_facts(info, run.terms)
        evaluation.measure(run.output, prepared.packed, run.options, facts, training)
        return _report(run.output, prepared)


def _list(run: TrainingRun, reporter: Reporter) -> tuple[Dataset, list[FrameKey]]:
    if run.resume and run.overwrite:
        raise UsageError("--resume and --overwrite: one goes on, the other starts anew; give one.")
    if run.input is None:
        raise UsageError("--in: missing; give the folder of the dataset to train on.")
    dataset = open_dataset(run.input, format=run.format, need_labels=False)
    reporter.tell(dataset.describe())
    problems = dataset.problems(run.dataset)
    if problems and run.on_error == "fail":
        raise DatasetError(f"{problems[0].reason} (--on-error fail)")
    return dataset, list(select(dataset.keys(), run.dataset))


def _check_output(run: TrainingRun, listed: str) -> None:
    """Refuse, before any work, a folder of something else, one among the images that are read, and
    a run that cannot be resumed.
    """
    out = run.output
    if listed == "images" and run.input and out.resolve().is_relative_to(run.input.resolve()):
        raise UsageError(
            f"--out {out}: lies in --in {run.input}, where every image is read, so the run would "
            "train on pictures of its own; give a folder elsewhere."
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder.")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = sorted(there - {FRAMES, f".{FRAMES}.partial"})
    if others and not any((out / name).is_file() for name in OURS):
        raise UsageError(
            f"--out {out}: holds other files, such as {others[0]}, and no training run; "
            "give a new or an empty folder."
        )
    if run.resume and STATE not in there:
        raise CheckpointError(f"--resume: {out} holds no run to go on with; leave --resume out.")


def _grid(recipe: "TrainConfig") -> Grid:
    resize: Literal["stretch", "letterbox"]
    resize = "letterbox" if recipe.resize == "letterbox" else "stretch"
    return recipe.image_size, resize


def _facts(run: TrainingRun, dataset: Dataset, prepared: PreparedFrames) -> "ModelFacts":
    from echogen.training.checkpoint import ModelFacts
    from echogen.training.options import held_out_count

    source, terms, packed = dataset.provenance, run.terms, prepared.packed
    cases = len(set(packed.case_ids))
    counts = (
        f"{counted(len(packed.frame_ids), 'frame')} of {counted(cases, 'case')} of "
        f"{source.root_name} ({source.format} layout), "
        f"{held_out_count(run.options.held_out, cases)} of the cases held out"
    )
    selection = run.dataset.model_dump(mode="json", exclude={"format", "labels", "frames"})
    return ModelFacts(
        name=terms.name or run.output.resolve().name,
        training_data=f"{terms.data}; {counts}" if terms.data else counts,
        licence=terms.licence or source.licence or UNSTATED,
        citation=terms.citation or source.extra.get("citation", "") or "none stated",
        dataset={
            "format": source.format,
            "root_name": source.root_name,
            "fingerprint": packed.fingerprint,
            "split": dict(sorted(Counter(prepared.splits).items())),
            "selection": {key: value for key, value in selection.items() if value},
        },
        command=run.command,
    )


def _known_facts(info: CheckpointInfo, terms: Terms) -> "ModelFacts":
    from echogen.training.checkpoint import ModelFacts

    return ModelFacts(
        name=terms.name or info.name,
        training_data=terms.data or info.training_data,
        licence=terms.licence or info.licence,
        citation=terms.citation or info.citation,
        dataset=info.training.get("dataset", {}),
        command=str(info.training.get("command", "")),
    )


def _checkpoint(out: Path) -> Path:
    folder = out / CHECKPOINT
    if not (folder / INFO_FILE).is_file():
        raise CheckpointError(
            f"{out}: no trained model here, expected {CHECKPOINT}/{INFO_FILE}; give the --out of a "
            "run that has been measured at least once."
        )
    return folder


def _report(out: Path, prepared: PreparedFrames) -> TrainReport:
    """What the folder tells, of a run that is finished."""
    info = read_info(out / CHECKPOINT) if (out / CHECKPOINT / INFO_FILE).is_file() else None
    record = dict(info.training) if info else {}
    record.pop("cases", None)
    return TrainReport(
        output=str(out),
        checkpoint=str(out / CHECKPOINT) if info else "",
        name=info.name if info else "",
        licence=info.licence if info else "",
        frames=len(prepared.packed.frame_ids),
        cases=len(set(prepared.packed.case_ids)),
        held_out_cases=len(record.get("held_out_cases", ())),
        skipped=prepared.problems,
        notes=prepared.notes,
        done=None,
        step=int(record.get("step", 0)),
        images=int(record.get("images_seen", 0)),
        seconds=float(record.get("seconds", 0.0)),
        record=record,
    )


def first_process() -> bool:
    """Whether this is the process that writes, of those that a launcher such as accelerate's
    started.
    """
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run at a time in a folder; its first process holds the lock for all."""
    if not first_process():
        yield
        return
    place = out.resolve()  # "." has no name to put the lock beside
    if not place.name:
        raise UsageError(f"--out {out}: is the root of the disk; give a folder.")
    with store_lock(place):
        yield
