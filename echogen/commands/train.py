"""Training: a dataset's frames prepared, or frames prepared before; a recipe trained on them.

Reading and preparing lie in `training.frames` and `training.frame_folder`, the loop in
`training.loop`; nothing here knows how a frame is read or a step is made. What a run leaves:
`training.run_folder`. The route from prepared frames loads no dataset's file formats.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from echogen.config import DatasetConfig
from echogen.datasets import open_dataset, select
from echogen.diffusion.checkpoint import INFO_FILE, TRAINED, CheckpointInfo, read_info
from echogen.errors import CheckpointError, DatasetError, UsageError, exit_code_of
from echogen.report import QUIET, CommandReport, Problem, Reporter
from echogen.support.files import check_apart, check_writable, real_path
from echogen.support.lock import store_lock
from echogen.support.settings import Settings, load_config
from echogen.support.signals import catch_signals
from echogen.support.words import counted
from echogen.training.card import ModelFacts
from echogen.training.frames import ModelGrid, PreparedFrames, pack_frames, read_frames
from echogen.training.options import TrainingOptions, held_out_count
from echogen.training.recipe import Recipe, load_recipe
from echogen.training.run_folder import (
    FRAMES,
    STATE_FILE,
    check_run_folder,
    recover_checkpoint,
    trained_checkpoint,
)


class TrainConfig(Settings):
    """All settings of `echogen train`.

    Attributes:
        output: the run's folder.
        recipe: what is trained.
        options: how long, where and how.
        start_from: the checkpoint whose weights a new run starts from: whatever `--checkpoint` of
            `expand` takes. A run that continues does not need it again.
        input: the dataset's folder.
        frames: frames prepared before, in place of a dataset: a run's `frames`, or packed ones.
        pack: train nothing; write the prepared frames here, as one .zip.
        format: of the dataset; also `images`, which the selection's own cannot name.
        dataset: which frames.
        name: of the model, for its card; empty takes the folder's.
        data: what it is trained on, in words.
        licence: terms of the weights; empty takes the dataset's.
        citation: what a user of the weights must cite; empty takes the dataset's.
        on_error: "fail" stops at the first frame that cannot be used.
        workers: processes that prepare frames; 0 takes one a core.
        resume: refuse to start anew: there must be a state.
        overwrite: start over, whatever is there.
        command: for the card, as it was given.
    """

    output: Path
    recipe: Recipe
    options: TrainingOptions
    start_from: str | None = None
    input: Path | None = None
    frames: Path | None = None
    pack: Path | None = None
    format: str = "auto"
    dataset: DatasetConfig = DatasetConfig()
    name: str = ""
    data: str = ""
    licence: str = ""
    citation: str = ""
    on_error: Literal["skip", "fail"] = "skip"
    workers: int = 0
    resume: bool = False
    overwrite: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainReport(CommandReport):
    """The state of a training run.

    Attributes:
        output: the run's folder, or the file of packed frames.
        checkpoint: the model's folder, or "" where none has been measured yet.
        name, licence: of the model.
        frames, cases: trained on and held out together.
        held_out_cases: how many cases are held out.
        skipped: frames that could not be used, with the reason.
        notes: what else a user should know.
        done: share of the run, 0 to 1; None where nothing was trained.
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
    config: TrainConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    report: bool = False,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> TrainReport:
    """Train a model on a dataset's frames, or continue a run of the same settings.

    Args:
        config: all settings, or a TOML file with a recipe.
        preset: a recipe by name, "small" (the default) or "reference", in place of a file.
        report: train nothing: measure whether a finished run's model repeats its frames, and write
            its card again, with the terms that are given and its own where they are not.
        reporter: where progress goes.
        settings: as the flags of `echogen train`, such as `input`, `output`, `hours`. They win.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before the first step, or by a second one.
    """
    if preset is not None and config is not None:
        raise UsageError("--preset and --config: both name a recipe; give one of them.")
    given: dict[str, Any] = {}
    source = ""
    if not isinstance(config, TrainConfig):
        source = f"--config {config}" if config else f"--preset {preset or 'small'}"
        given = {"recipe": load_recipe(str(config or preset or "small")).model_dump()}
    given |= settings
    if report or settings.get("pack"):
        given |= {"steps": 1, "hours": None}  # nothing is trained, but a length is required
    whole = config if isinstance(config, TrainConfig) else None
    resolved = load_config(TrainConfig, given, file=whole)
    try:
        return _measure(resolved, reporter) if report else _train(resolved, reporter)
    except UsageError as error:  # of a table that only training can judge
        if source and str(error).startswith("["):
            raise UsageError(f"{source}: {error}") from error
        raise


def _train(config: TrainConfig, reporter: Reporter) -> TrainReport:
    """Prepare the frames and train on them, or go on."""
    _check(config)
    options, out = config.options, config.output
    with catch_signals(reporter.tell, "step") as stop, _alone(out):
        if first_process():
            check_run_folder(out, resume=config.resume, overwrite=config.overwrite)
        frames, unlisted = _frames(config, reporter)
        for note in frames.record.notes:
            reporter.tell(f"note: {note}")
        report = replace(
            _report(out, frames),
            held_out_cases=held_out_count(options.hold_out, len(frames.cases)),
            skipped=(*unlisted, *frames.problems),
        )
        if config.pack is not None:
            pack_frames(out / FRAMES, config.pack)
            return replace(report, output=str(config.pack))
        from echogen.training.loop import train
        from echogen.training.session import TrainingTask

        start, facts = _start(config, reporter), _facts(config, frames)
        progress = train(
            TrainingTask(config.recipe, frames, out, options, facts, start),
            resume=config.resume,
            overwrite=config.overwrite,
            reporter=reporter,
            stop=stop,
        )
        done = options.done(progress)
        return replace(
            report,
            **_model(out),
            done=done,
            step=progress.step,
            images=progress.images,
            seconds=progress.seconds,
            interrupted=stop.signum if done < 1 else 0,
        )


def _measure(config: TrainConfig, reporter: Reporter) -> TrainReport:
    """Measure a finished run's model on its own frames, or `config.frames`; rewrite its card."""
    from echogen.training import evaluation

    out = config.output
    if not out.is_dir():
        trained_checkpoint(out)  # raises, before a lock's file is made
    with catch_signals(reporter.tell), _alone(out):
        recover_checkpoint(out)
        info = read_info(trained_checkpoint(out))
        frames = read_frames(config.frames or out / FRAMES)
        facts = _known_facts(info, config)
        evaluation.compare(out, frames, config.options, facts, reporter)
        return _report(out, frames)


def _check(config: TrainConfig) -> None:
    """Refuse, before any work, what contradicts itself."""
    if config.resume and config.overwrite:
        raise UsageError(
            "--resume and --overwrite: one continues, the other starts over; give one."
        )
    if config.input is None and config.frames is None:
        raise UsageError("--in: missing; give the folder of the dataset to train on, or --frames.")
    if config.frames is not None and (config.input or config.pack):
        raise UsageError("--frames: replaces --in and cannot be packed again; give one of them.")
    if config.frames is not None and config.dataset != DatasetConfig():
        raise UsageError("--frames: all of them are used; --views and other choices apply to --in.")
    if config.input is not None:
        check_apart("--out", config.output, config.input)
    if config.input is not None and config.pack is not None:
        read = (config.input, config.output / FRAMES)
        check_writable("--pack", config.pack, ".zip", apart=read)


def _frames(config: TrainConfig, reporter: Reporter) -> tuple[PreparedFrames, tuple[Problem, ...]]:
    """The frames to train on, and what the dataset has that cannot even be listed as a frame."""
    if config.input is None:
        return read_frames(config.frames or config.output / FRAMES), ()
    from echogen.training.frame_folder import await_frames, prepare_frames

    dataset = open_dataset(
        config.input, format=config.format, need_labels=False, settings=config.dataset
    )
    if config.dataset.fans is not None:
        from echogen.datasets.fan_table import with_fans

        dataset = with_fans(dataset, config.dataset.fans)
    reporter.tell(dataset.describe())
    problems, out = dataset.problems(config.dataset), config.output
    if problems and config.on_error == "fail":
        raise DatasetError(f"{problems[0].reason} (--on-error fail)")
    keys = list(select(dataset.keys, config.dataset))
    grid = ModelGrid(image_size=config.recipe.image_size, resize=config.recipe.resize)
    if not first_process():
        return await_frames(dataset, keys, grid, out / FRAMES), problems
    frames = prepare_frames(
        dataset,
        keys,
        grid,
        out / FRAMES,
        reporter,
        on_error=config.on_error,
        workers=config.workers,
        keep_old=(out / STATE_FILE).is_file() and not config.overwrite,
    )
    return frames, problems


def _start(config: TrainConfig, reporter: Reporter) -> Path | str | None:
    """The checkpoint to start from; of a run that continues it may be gone."""
    from echogen.models.resolve import resolve_checkpoint

    if config.start_from is None:
        return None
    try:
        return resolve_checkpoint(config.start_from, reporter.tell)
    except CheckpointError as error:
        if (config.output / STATE_FILE).is_file() and not config.overwrite:
            return None
        raise CheckpointError(f"--start-from {error}") from error


def _facts(config: TrainConfig, frames: PreparedFrames) -> ModelFacts:
    source, cases = frames.record.source, len(frames.cases)
    counts = (
        f"{counted(len(frames.pixels), 'frame')} of {counted(cases, 'case')} of "
        f"{source.root_name} ({source.format} layout), "
        f"{held_out_count(config.options.hold_out, cases)} of the cases held out"
    )
    selection = config.dataset.model_dump(
        mode="json",
        exclude={"format", "labels", "frames", "fans", "case_salt"},
        exclude_defaults=True,
    )
    return ModelFacts(
        name=config.name or real_path(config.output).name,
        training_data=f"{config.data}; {counts}" if config.data else counts,
        licence=config.licence or source.licence or ModelFacts.licence,
        citation=config.citation or source.citation or ModelFacts.citation,
        dataset={
            "format": source.format,
            "root_name": source.root_name,
            "fingerprint": frames.record.fingerprint,
            "split": dict(sorted(Counter(frames.record.splits).items())),
            "selection": {key: value for key, value in selection.items() if value},
        },
        command=config.command,
    )


def _known_facts(info: CheckpointInfo, config: TrainConfig) -> ModelFacts:
    return ModelFacts(
        name=config.name or info.name,
        training_data=config.data or info.training_data,
        licence=config.licence or info.licence,
        citation=config.citation or info.citation,
        dataset=info.training.get("dataset", {}),
        command=str(info.training.get("command", "")),
    )


def _report(out: Path, frames: PreparedFrames) -> TrainReport:
    """What the folder says of a run that is not trained now."""
    model = _model(out)
    record = model["record"]
    return TrainReport(
        output=str(out),
        frames=len(frames.pixels),
        cases=len(frames.cases),
        held_out_cases=len(record.get("held_out_cases", ())),
        skipped=frames.problems,
        notes=frames.record.notes,
        done=None,
        step=int(record.get("step", 0)),
        images=int(record.get("images_seen", 0)),
        seconds=float(record.get("seconds", 0.0)),
        **model,
    )


def _model(out: Path) -> dict[str, Any]:
    """The fields of a report that come from the model so far."""
    if not (out / TRAINED / INFO_FILE).is_file():
        return {"checkpoint": "", "name": "", "licence": "", "record": {}}
    info = read_info(out / TRAINED)
    record = {key: value for key, value in info.training.items() if key != "cases"}
    place = str(out / TRAINED)
    return {"checkpoint": place, "name": info.name, "licence": info.licence, "record": record}


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
    place = real_path(out)  # "." has no name to put the lock beside
    if not place.name:
        raise UsageError(f"--out {out}: is the root of the disk; give a folder.")
    with store_lock(place):
        yield
