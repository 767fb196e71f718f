"""The composition root: dataset, plan, engine and store joined into one run.

A shard of the store is written whole, pixels first and status last, so that a run can be killed at
any instant and continued by the same call. Nothing here knows how to warp, paint or store.
"""

import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echogen.commands.run import locked_output, run_report, sampler_in_words, with_model
from echogen.config import ExpandConfig
from echogen.datasets import open_frames
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import EXIT_DONE, EXIT_DONE_WITH_FAILURES, exit_code_of
from echogen.judging.judge import Judge, open_judge
from echogen.painting.fill import (
    PaintingRun,
    begun_precision,
    engine_settings,
    fill_store,
    terms,
)
from echogen.painting.stream import Work, labelled_shard
from echogen.planning.dataset import PlannedDataset, plan_dataset
from echogen.planning.plan import Plan, Row, save_plan
from echogen.planning.record import attributes, columns
from echogen.report import QUIET, CommandReport, Counts, Problem, Reporter, RunReport
from echogen.store import StoreOutput, check_output, open_store, present_store_path
from echogen.support.files import check_writable
from echogen.support.signals import catch_signals
from echogen.support.words import counted
from echogen.types import Sample


@dataclass(frozen=True)
class ExpandReport(RunReport):
    """How a run ended.

    Attributes:
        counts: samples by outcome over the whole store.
        skipped: frames that could not be used, with the reason.
        condemned: how many of the failed samples the judge did not let pass.
        judge: what looked at the copies, by name; empty for none.
    """

    counts: Counts
    skipped: tuple[Problem, ...]
    condemned: int
    judge: str

    @property
    def exit_code(self) -> int:
        """0 done, 1 done with failures, 130 or 143 interrupted and resumable.

        What the judge condemned is no failure of the run: nothing is to be mended.
        """
        mishaps = len(self.skipped) + len(self.failed) - self.condemned
        return exit_code_of(self.interrupted, mishaps > 0)


@dataclass(frozen=True)
class DryRunReport(CommandReport):
    """What a run would make.

    Attributes:
        output: the store that would be made.
        dataset: what was found, in one line.
        frames, originals, copies, rejected: how many.
        left: samples that are left to do: all, or those that a store lacks that was begun.
        skipped: frames that cannot be used, with the reason.
        notes: what else a user should know.
        plan_digest: names the run.
        sampler: what would paint, by name; nfe: its network evaluations an image.
        seconds: of what is left to do, estimated from a few evaluations on this machine; without
            what the judge would have painted again.
        megabytes: estimated from a few samples.
        device, precision, checkpoint, licence: what would paint.
        judge: what would look at the copies, by name; empty for none.
    """

    output: str
    dataset: str
    frames: int
    originals: int
    copies: int
    rejected: int
    left: int
    skipped: tuple[Problem, ...]
    notes: tuple[str, ...]
    plan_digest: str
    sampler: str
    nfe: int
    seconds: float
    megabytes: float
    device: str
    precision: str
    checkpoint: str
    licence: str
    judge: str

    @property
    def exit_code(self) -> int:
        """0, or 1 where frames would be skipped."""
        return EXIT_DONE_WITH_FAILURES if self.skipped else EXIT_DONE


def expand(
    config: ExpandConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    overwrite: bool = False,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> ExpandReport:
    """Turn a labelled dataset into a larger one: make, or continue, its store.

    Args:
        config: all settings, or a TOML file with some.
        preset: "fast", "balanced" (the default), "high" or "paper"; the first three mean another
            sampler where the model is shown what is known.
        overwrite: replace a store that is already at `output`.
        reporter: where progress goes.
        settings: as the flags of `echogen expand`, such as `input`, `output`, `copies`, `views`;
            others in their tables, such as `transforms={"tilt_deg": (-15, 15)}`. They win.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before painting began, or by a second one.
    """
    started = time.monotonic()
    config, info = with_model(ExpandConfig, settings, preset, config, reporter)
    dataset, keys = open_frames(config.input, config.dataset, reporter.tell)
    with locked_output(config, info, overwrite, reporter) as (stop, precision):
        source = plan_dataset(dataset, keys, config, info, reporter, config.engine.workers)
        for line in source.leakage:
            reporter.tell(f"note: {line}")
        plan = source.plan
        judge = open_judge(config.judge, plan.dataset["labels"], reporter.tell)
        run = _painting_run(source, config, info, judge, precision.result())
        throughput = fill_store(run, overwrite, reporter, stop)
        with open_store(present_store_path(config.output)) as store:
            ended = run_report(config, info, store, throughput, plan.notes, started, stop)
            return ExpandReport(
                **vars(ended),
                counts=store.counts(),
                skipped=plan.problems,
                condemned=int(store.condemned.sum()),
                judge=judge.info.name if judge else "",
            )


def _painting_run(
    source: PlannedDataset,
    config: ExpandConfig,
    info: CheckpointInfo,
    judge: Judge | None,
    precision: str,
) -> PaintingRun:
    plan, nfe = source.plan, sampler_nfe(config.sampler)
    of_judge = judge.info.record if judge else None
    return PaintingRun(
        config,
        attributes(plan, config, info, nfe, precision, of_judge),
        columns(plan),
        cases=[{"id": case.case_id, **case.info} for case in plan.cases],
        problems=[(problem.frame_id, problem.reason) for problem in plan.problems],
        image_size=info.image_size,
        work=_work(source, judge),
    )


def _work(source: PlannedDataset, judge: Judge | None) -> Work:
    """A plan to be painted, with a judge's verdict on what was."""
    if judge is None:
        return Work(source.plan.rows, source.render, labelled_shard)

    def condemned(row: Row, sample: Sample) -> str:
        frame = source.frames[row.frame_id]
        return judge.look(sample.image, sample.label, sample.keep, frame.case_id, frame.cut).why_not

    return Work(source.plan.rows, source.render, labelled_shard, condemned)


def dry_run(
    config: ExpandConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    plan_file: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> tuple[Plan, DryRunReport]:
    """Plan a run, and estimate what it takes by painting a few evaluations on this machine.

    An output that is no store or another run's is refused, as `expand` does, and a judge that is
    none; whether another process is writing it is not looked at. Arguments are as of `expand`;
    `plan_file` is a .json to which the plan is written.

    Raises:
        EchogenError: as `expand` would.
    """
    from echogen.painting.devices import open_engine

    config, info = with_model(ExpandConfig, settings, preset, config, reporter)
    if plan_file is not None:
        apart = (config.input, config.output)
        check_writable("--plan", Path(plan_file), ".json", apart=apart)
    with catch_signals(reporter.tell):
        check_output(config.output, overwrite)
        reporter.tell(terms(info))
        reporter.tell(sampler_in_words(config, info))
        dataset, keys = open_frames(config.input, config.dataset, reporter.tell)
        source = plan_dataset(dataset, keys, config, info, reporter, config.engine.workers)
        plan = source.plan
        judge = open_judge(config.judge, plan.dataset["labels"], reporter.tell)
        run = _painting_run(source, config, info, judge, begun_precision(config, overwrite))
        output = StoreOutput(config.output, run.check)
        begun = None if overwrite else output.left()
        left = range(len(plan.rows)) if begun is None else begun
        settings_of_engine = engine_settings(run, None if overwrite else output.begun())
        copies = [row for row in plan.rows if row.to_paint]
        with closing(
            open_engine(config.checkpoint, config.sampler, settings_of_engine, reporter.tell)
        ) as engine:
            engine.settle(len(copies))
            few = [*plan.rows[:4], *copies[: engine.at_once]]
            samples = [item for item in source.render(few) if isinstance(item, Sample)]
            to_paint = sum(not sample.keep.all() for sample in samples)
            still = sum(plan.rows[i].to_paint for i in left)
            seconds = engine.seconds_per_image(to_paint) * still
            device = engine.device
        if plan_file is not None:
            save_plan(plan, Path(plan_file))
    return plan, DryRunReport(
        output=str(config.output),
        dataset=source.dataset.describe(),
        frames=len(plan.frames),
        originals=sum(row.copy == 0 for row in plan.rows),
        copies=len(copies),
        rejected=sum(row.rejected for row in plan.rows),
        left=len(left),
        skipped=plan.problems,
        notes=(*plan.notes, *_begun(config.output, begun, len(plan.rows))),
        plan_digest=plan.digest,
        sampler=config.sampler.name,
        nfe=sampler_nfe(config.sampler),
        seconds=seconds,
        megabytes=compressed_megabytes(samples) * len(plan.rows),
        device=device,
        precision=engine.precision,
        checkpoint=info.name,
        licence=info.licence,
        judge=judge.info.name if judge else "",
    )


def _begun(path: Path, left: Collection[int] | None, count: int) -> Iterator[str]:
    if left:
        yield f"{path}: was begun already; {len(left)} of {counted(count, 'sample')} left to do."
    elif left is not None:
        yield f"{path}: is complete already; nothing is left to do."


def compressed_megabytes(samples: Sequence[Sample]) -> float:
    """MB a sample takes on disk, by compressing those given."""
    sizes = [
        len(zlib.compress(part.tobytes()))
        for sample in samples
        for part in (sample.image, sample.label, sample.keep)
    ]
    return sum(sizes) / max(len(samples), 1) / 1e6
