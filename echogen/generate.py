"""The composition root: dataset, plan, engine and store joined into one run.

Each shard of the store is rendered, painted and written on its own, pixels first and status last,
so that a run can be killed at any instant and continued by the same call. Nothing here knows how to
warp, paint or store.
"""

import resource
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echogen.config import ExpandConfig
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.diffusion.schedule import nfe, repaint_times
from echogen.engine import Engine
from echogen.errors import StoreError
from echogen.interrupt import Stop, catch_signals
from echogen.manifest import attributes, check_same_run, columns
from echogen.plan import Plan, Row
from echogen.report import Counts, DryRunReport, Quiet, Reporter, RunReport
from echogen.source import Source, list_source, open_source, plan_source
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
    sample_sha256,
    store_lock,
    working_store_path,
)
from echogen.store.reader import failed_samples
from echogen.types import Job, Problem, Result, to_uint8

if TYPE_CHECKING:
    from echogen.engine.local import LocalEngine

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
        painted = _Painted()
        if overwrite or not _finished(config.output, wanted):
            engine = open_engine(config, reporter, precision)
            writer = _open_writer(config, source.plan, wanted, overwrite, reporter)
            painted = _paint_pending(writer, source, engine, reporter, stop)
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
        engine = open_engine(config, reporter)
        jobs = [
            job
            for job in source.jobs([*plan.rows[:4], *copies[: engine.batch_size]])
            if isinstance(job, Job)
        ]
        seconds = engine.seconds_per_image(jobs) * len(copies)
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
        megabytes=_compressed_megabytes(jobs) * len(plan.rows),
        device=engine.device,
        precision=engine.precision,
        checkpoint=info.name,
        licence=info.licence,
    )


def open_engine(config: ExpandConfig, reporter: Reporter, precision: str = "") -> "LocalEngine":
    """Load the network onto the device that the configuration asks for.

    Args:
        config: of the run.
        reporter: hears of a batch that was halved.
        precision: in place of the configuration's.

    Raises:
        EngineError: no such device.
        CheckpointError: the network cannot be loaded.
    """
    from echogen.engine.local import open_local

    chosen = config.engine
    if precision:
        chosen = chosen.model_copy(update={"precision": precision})
    return open_local(config.checkpoint, config.sampler, chosen, reporter.tell)


def _terms(info: CheckpointInfo) -> str:
    limit = " (non-commercial research only)" if "-NC" in info.licence else ""
    return f"model {info.name}: {info.licence}{limit}. Cite: {info.citation}"


def _precision(config: ExpandConfig, overwrite: bool) -> str:
    """What to paint in: where `auto` was asked for, what the store at hand was begun with.

    Raises:
        EngineError: no such device.
    """
    from echogen.diffusion.denoiser import precision_name, resolve_device, resolve_precision

    device, asked = resolve_device(config.engine.device), config.engine.precision
    begun = working_store_path(config.output)
    if asked == "auto" and begun.exists() and not overwrite:
        with open_store(begun) as store:
            asked = store.attrs["sampler"].get("precision", asked)
    return precision_name(resolve_precision(asked, device))


@dataclass
class _Painted:
    """What this run painted, and how fast."""

    images: int = 0
    seconds: float = 0.0
    device: str = ""
    precision: str = ""


def _nfe(config: ExpandConfig) -> int:
    sampler = config.sampler
    return nfe(repaint_times(sampler.steps, sampler.jump_length, sampler.resamplings))


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


def _paint_pending(
    writer: StoreWriter, source: Source, engine: "LocalEngine", reporter: Reporter, stop: Stop
) -> _Painted:
    """Render, paint and write shard after shard; the next one is rendered while one is painted."""
    shards = writer.pending_shards()
    if not shards:
        return _Painted()
    rows = {shard: [source.plan.rows[i] for i in writer.shard_rows(shard)] for shard in shards}
    total = sum(row.copy > 0 and not row.rejected for shard in shards for row in rows[shard])
    painted = _Painted(device=engine.device, precision=engine.precision)
    reporter.progress("painting", 0, total)
    # A batch larger than a shard takes several of them at once.
    together = max(1, engine.batch_size // writer.shard_size)
    groups = [shards[i : i + together] for i in range(0, len(shards), together)]
    work = [[row for shard in group for row in rows[shard]] for group in groups]
    stop.finishing = True
    began = time.monotonic()
    with ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(_render, source, work[0])
        for position, group in enumerate(groups):
            outcomes = _outcomes(engine, upcoming.result())
            if position + 1 < len(groups):
                upcoming = ahead.submit(_render, source, work[position + 1])
            for shard in group:
                made = []
                for row in rows[shard]:
                    made.append(next(outcomes))
                    painted.images += row.copy > 0 and isinstance(made[-1], Result)
                    reporter.progress("painting", painted.images, total)
                _write(writer, shard, rows[shard], made)
            if stop.signum:
                break
    stop.finishing = False
    painted.seconds = time.monotonic() - began
    return painted


def _render(source: Source, rows: Sequence[Row]) -> list[Job | Problem | None]:
    return list(source.jobs(rows))


def _outcomes(
    engine: Engine, rendered: Sequence[Job | Problem | None]
) -> Iterator[Result | Problem | None]:
    """Results in the order of the rows; what has no job stands in its place."""
    results = engine.run(item for item in rendered if isinstance(item, Job))
    for item in rendered:
        yield next(results) if isinstance(item, Job) else item


def _write(
    writer: StoreWriter,
    shard: int,
    rows: Sequence[Row],
    outcomes: Sequence[Result | Problem | None],
) -> None:
    """One shard: what failed or was rejected is zeros, with its status and reason."""
    shape = (len(rows), *writer.image_shape)
    images, masks = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    keep = np.zeros(shape, np.bool_)
    on_paint = np.full(len(rows), np.nan, np.float32)
    status, hashes, reasons = [], [], []
    for i, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        reason = _reason(row, outcome)
        if isinstance(outcome, Result) and not reason:
            images[i], masks[i], keep[i] = outcome.image, outcome.label, outcome.keep
            on_paint[i] = outcome.label_on_paint
        made = Status.REJECTED if outcome is None else Status.FAILED
        status.append(made if reason else Status.DONE)
        hashes.append("" if reason else sample_sha256(images[i], masks[i]))
        reasons.append(reason)
    writer.write_shard(shard, images, masks, keep, status, on_paint, hashes, reasons)


def _reason(row: Row, outcome: Result | Problem | None) -> str:
    if outcome is None:
        return f"no valid move in {row.tries} draws"
    return outcome.reason if isinstance(outcome, Problem) else outcome.error or ""


def _report(
    config: ExpandConfig,
    info: CheckpointInfo,
    plan: Plan,
    painted: _Painted,
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


def _compressed_megabytes(jobs: Sequence[Job]) -> float:
    """MB a sample takes on disk, by compressing a few."""
    sizes = [
        len(zlib.compress(to_uint8(job.image).tobytes() + job.label.tobytes() + job.keep.tobytes()))
        for job in jobs
    ]
    return sum(sizes) / max(len(sizes), 1) / 1e6
