"""The composition root: dataset, plan, engine and store joined into one run.

A shard of the store is written whole, pixels first and status last, so that a run can be killed at
any instant and continued by the same call. Nothing here knows how to warp, paint or store.
"""

import resource
import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from echogen.config import EngineConfig, ExpandConfig
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.diffusion.schedule import sampler_nfe
from echogen.engine import Engine
from echogen.errors import StoreError
from echogen.interrupt import Stop, catch_signals
from echogen.manifest import attributes, check_same_run, columns
from echogen.pipeline import Painted, Work, paint_pending, write_shard
from echogen.plan import Plan
from echogen.report import Counts, DryRunReport, Quiet, Reporter, RunReport
from echogen.source import list_source, open_source, plan_source
from echogen.store import (
    Status,
    StoreReader,
    StoreWriter,
    check_replaceable,
    convert_to_h5,
    create_store,
    open_store,
    remove_store,
    resume_store,
    store_lock,
    working_store_path,
)
from echogen.store.reader import failed_samples
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
    info = read_info(config.checkpoint)
    dataset, keys = list_source(config, reporter)
    with catch_signals(reporter.tell) as stop, store_lock(config.output):
        _check_output(config.output, overwrite)
        reporter.tell(_terms(info))
        precision = _precision(config, overwrite)
        source = plan_source(config, info, dataset, keys, reporter)
        wanted = attributes(source.plan, config, info, _nfe(config), precision)
        painted = Painted()
        if overwrite or not _finished(config.output, wanted):
            settings = _engine_settings(config, wanted)
            with closing(open_engine(config, reporter, settings)) as engine:
                engine.settle(_to_paint(source.plan))
                wanted["painting"] = _painting(config, engine.batch_size)
                writer = _open_writer(config, source.plan, wanted, overwrite, reporter)
                work = Work(source.plan.rows, source.jobs, write_shard)
                painted = paint_pending(writer, work, engine, reporter, stop)
            if not writer.pending_shards():
                writer.set_complete()
                _publish(config.output, reporter)
        else:
            _remove_working(config.output)
            reporter.tell(f"{config.output}: already complete, nothing to do")
        return _report(config, info, source.plan, painted, time.monotonic() - started, stop)


def dry_run(config: ExpandConfig, reporter: Reporter = QUIET) -> tuple[Plan, DryRunReport]:
    """Plan a run, and estimate what it takes by painting a few evaluations on this machine.

    Raises:
        EchogenError: as `expand` would.
    """
    info = read_info(config.checkpoint)
    with catch_signals(reporter.tell):
        reporter.tell(_terms(info))
        source = open_source(config, info, reporter)
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
        nfe=_nfe(config),
        seconds=seconds,
        megabytes=compressed_megabytes(jobs) * len(plan.rows),
        device=device,
        precision=engine.precision,
        checkpoint=info.name,
        licence=info.licence,
    )


def open_engine(
    config: ExpandConfig, reporter: Reporter, settings: EngineConfig | None = None
) -> Engine:
    """Load the network onto the devices that the configuration asks for; close what comes back.

    Args:
        config: of the run.
        reporter: hears of a batch that was halved.
        settings: in place of the configuration's `engine`.

    Raises:
        EngineError: no such device.
        CheckpointError: the network cannot be loaded.
    """
    from echogen.engine.devices import open_engine

    return open_engine(config.checkpoint, config.sampler, settings or config.engine, reporter.tell)


def _terms(info: CheckpointInfo) -> str:
    limit = " (non-commercial research only)" if "-NC" in info.licence else ""
    return f"model {info.name}: {info.licence}{limit}. Cite: {info.citation}"


def _precision(config: ExpandConfig, overwrite: bool) -> str:
    """What to paint in: where `auto` was asked for, what the store at hand was begun with.

    Raises:
        EngineError: no such device.
    """
    from echogen.diffusion.denoiser import precision_name, resolve_precision
    from echogen.engine.devices import resolve_devices

    device, asked = resolve_devices(config.engine.device)[0], config.engine.precision
    begun = working_store_path(config.output)
    if asked == "auto" and begun.exists() and not overwrite:
        with open_store(begun) as store:
            asked = store.attrs["sampler"].get("precision", asked)
    return precision_name(resolve_precision(asked, device))


def _painting(config: ExpandConfig, batch_size: int) -> dict[str, Any]:
    """What the store records of the engine: batches of another size, or on another kind of device,
    round differently.
    """
    from echogen.engine.devices import resolve_devices

    return {"device": resolve_devices(config.engine.device)[0].type, "batch_size": batch_size}


def _engine_settings(config: ExpandConfig, wanted: dict[str, Any]) -> EngineConfig:
    """How to paint: a run that was begun goes on with batches of the size that it had found."""
    batch_size = config.engine.batch_size
    working = working_store_path(config.output)
    if not batch_size and _begun(working, wanted):
        with open_store(working) as store:
            found = store.attrs.get("painting", {}).get("batch_size", 0)
            if store.attrs.get("painting") == _painting(config, found):
                batch_size = found
    precision = wanted["sampler"]["precision"]
    return config.engine.model_copy(update={"precision": precision, "batch_size": batch_size})


def _to_paint(plan: Plan) -> int:
    return sum(row.copy > 0 and not row.rejected for row in plan.rows)


def _nfe(config: ExpandConfig) -> int:
    return sampler_nfe(**config.sampler.model_dump())


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse, before any work, what is not a store of ours or cannot be read."""
    if overwrite:
        check_replaceable(output)
        return
    for path in {output, working_store_path(output)}:
        if path.exists():
            open_store(path).close()


def _finished(output: Path, wanted: dict[str, Any]) -> bool:
    """Whether `output` is complete, and made by these settings."""
    if not output.exists():
        return False
    with open_store(output) as store:
        check_same_run(store.attrs, wanted, str(output))
        return store.complete


def _begun(working: Path, wanted: dict[str, Any]) -> bool:
    """Whether this very run was begun and not finished: then --overwrite has been obeyed before."""
    if not working.exists():
        return False
    try:
        with open_store(working) as store:
            check_same_run(store.attrs, wanted, str(working))
            return not store.complete
    except StoreError:
        return False


def _open_writer(
    config: ExpandConfig, plan: Plan, wanted: dict[str, Any], overwrite: bool, reporter: Reporter
) -> StoreWriter:
    working = working_store_path(config.output)
    if overwrite and not _begun(working, wanted):
        remove_store(config.output)
    if working.exists():
        with open_store(working) as store:
            check_same_run(store.attrs, wanted, str(config.output))
        writer = resume_store(working)
        left = len(writer.pending_shards())
        reporter.tell(f"{config.output}: continuing, {left} of {writer.n_shards} shards left")
        return writer
    size = plan.settings["image_size"]
    return create_store(
        working,
        attrs=wanted,
        columns=columns(plan),
        cases=[{"id": case.case_id, **case.info} for case in plan.cases],
        problems=[(problem.frame_id, problem.reason) for problem in plan.problems],
        image_shape=(size, size),
        shard_size=config.store.shard_size,
    )


def _publish(output: Path, reporter: Reporter) -> None:
    """Turn the finished working store into the output: for HDF5, in one atomic step."""
    working = working_store_path(output)
    if working != output:
        reporter.tell(f"writing {output}")
        convert_to_h5(working, output)
        _remove_working(output)


def _remove_working(output: Path) -> None:
    """Remove the working store of a finished output, so that a kill leaves all of it or nothing."""
    working = working_store_path(output)
    if working != output:
        remove_store(working)


def _report(
    config: ExpandConfig,
    info: CheckpointInfo,
    plan: Plan,
    painted: Painted,
    seconds: float,
    stop: Stop,
) -> RunReport:
    path = config.output if config.output.exists() else working_store_path(config.output)
    with open_store(path) as store:
        counts, complete = _count(store), store.complete
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
        nfe=_nfe(config),
        device=painted.device,
        precision=painted.precision,
        checkpoint=info.name,
        licence=info.licence,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        interrupted=0 if complete else stop.signum,
    )


def _count(store: StoreReader) -> Counts:
    status, copy = store.columns["status"], store.columns["copy"]
    done = status == Status.DONE
    return Counts(
        originals=int((done & (copy == 0)).sum()),
        copies=int((done & (copy > 0)).sum()),
        rejected=int((status == Status.REJECTED).sum()),
        failed=int((status == Status.FAILED).sum()),
        pending=int((status == Status.PENDING).sum()),
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
