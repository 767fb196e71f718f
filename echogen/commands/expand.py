"""The composition root: dataset, plan, engine and store joined into one run.

A shard of the store is written whole, pixels first and status last, so that a run can be killed at
any instant and continued by the same call. Nothing here knows how to warp, paint or store.
"""

import resource
import time
import zlib
from collections.abc import Sequence
from contextlib import closing

from echogen.config import ExpandConfig
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.models.resolve import resolve_checkpoint
from echogen.painting.fill import (
    Run,
    begun_precision,
    check_output,
    evaluations,
    fill_store,
    open_engine,
    terms,
)
from echogen.painting.stream import Painted, Work, labelled_shard
from echogen.planning.jobs import open_frames, plan_dataset
from echogen.planning.plan import Plan
from echogen.planning.record import attributes, columns
from echogen.report import DryRunReport, Quiet, Reporter, RunReport
from echogen.store import open_store, present_store_path, store_lock
from echogen.store.reader import failed_samples
from echogen.support.signals import Stop, catch_signals
from echogen.types import Job, Problem, Result, UInt8Grid, to_uint8

QUIET = Quiet()


def expand(
    config: ExpandConfig, *, overwrite: bool = False, reporter: Reporter = QUIET
) -> RunReport:
    """Make, or continue, the store that a configuration describes.

    Args:
        config: of the run.
        overwrite: replace a store that is already at `config.output`.
        reporter: where progress goes.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before painting began, or by a second one.
    """
    started = time.monotonic()
    checkpoint = str(resolve_checkpoint(config.checkpoint, reporter.tell))
    config = config.model_copy(update={"checkpoint": checkpoint})
    info = read_info(checkpoint)
    dataset, keys = open_frames(config.input, config.dataset, reporter)
    with catch_signals(reporter.tell) as stop, store_lock(config.output):
        check_output(config.output, overwrite)
        reporter.tell(terms(info))
        precision = begun_precision(config, overwrite)
        source = plan_dataset(dataset, keys, config, info, reporter, config.engine.workers)
        for line in source.leakage:
            reporter.tell(f"note: {line}")
        plan = source.plan
        run = Run(
            config,
            attributes(plan, config, info, evaluations(config), precision),
            columns(plan),
            cases=[{"id": case.case_id, **case.info} for case in plan.cases],
            problems=[(problem.frame_id, problem.reason) for problem in plan.problems],
            image_size=info.image_size,
            work=Work(plan.rows, source.jobs, labelled_shard),
        )
        painted = fill_store(run, overwrite, reporter, stop)
        return _report(config, info, plan, painted, time.monotonic() - started, stop)


def dry_run(config: ExpandConfig, reporter: Reporter = QUIET) -> tuple[Plan, DryRunReport]:
    """Plan a run, and estimate what it takes by painting a few evaluations on this machine.

    Raises:
        EchogenError: as `expand` would.
    """
    checkpoint = str(resolve_checkpoint(config.checkpoint, reporter.tell))
    config = config.model_copy(update={"checkpoint": checkpoint})
    info = read_info(checkpoint)
    with catch_signals(reporter.tell):
        reporter.tell(terms(info))
        dataset, keys = open_frames(config.input, config.dataset, reporter)
        source = plan_dataset(dataset, keys, config, info, reporter, config.engine.workers)
        plan = source.plan
        copies = [row for row in plan.rows if row.copy > 0 and not row.rejected]
        with closing(open_engine(config, reporter)) as engine:
            engine.settle(len(copies))
            few = [*plan.rows[:4], *copies[: engine.at_once]]
            jobs = [job for job in source.jobs(few) if isinstance(job, Job)]
            seconds = engine.seconds_per_image(jobs) * len(copies)
            device = engine.device
    return plan, DryRunReport(
        output=str(config.output),
        dataset=source.dataset.describe(),
        frames=len(plan.frames),
        originals=sum(row.copy == 0 for row in plan.rows),
        copies=len(copies),
        rejected=sum(row.rejected for row in plan.rows),
        skipped=plan.problems,
        notes=plan.notes,
        plan_digest=plan.digest,
        nfe=evaluations(config),
        seconds=seconds,
        megabytes=compressed_megabytes(jobs) * len(plan.rows),
        device=device,
        precision=engine.precision,
        checkpoint=info.name,
        licence=info.licence,
    )


def _report(
    config: ExpandConfig,
    info: CheckpointInfo,
    plan: Plan,
    painted: Painted,
    seconds: float,
    stop: Stop,
) -> RunReport:
    path = present_store_path(config.output)
    with open_store(path) as store:
        counts, complete = store.counts(), store.complete
        failed = [Problem(*problem) for problem in failed_samples(store.columns)]
    return RunReport(
        output=str(config.output),
        counts=counts,
        skipped=plan.problems,
        failed=tuple(failed),
        notes=plan.notes,
        painted=painted.images,
        seconds=seconds,
        images_per_s=painted.images / painted.seconds if painted.images else 0.0,
        nfe=evaluations(config),
        device=painted.device,
        precision=painted.precision,
        checkpoint=info.name,
        licence=info.licence,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        interrupted=0 if complete else stop.signum,
    )


def compressed_megabytes(samples: Sequence[Job | Result]) -> float:
    """MB a sample takes on disk, by compressing those given."""
    sizes = [
        len(zlib.compress(part.tobytes()))
        for sample in samples
        for part in (_levels(sample), sample.label, sample.keep)
    ]
    return sum(sizes) / max(len(samples), 1) / 1e6


def _levels(sample: Job | Result) -> UInt8Grid:
    return sample.image if isinstance(sample, Result) else to_uint8(sample.image)
