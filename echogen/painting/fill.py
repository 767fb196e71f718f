"""The store that a run fills: checked, begun or continued, painted, published.

What `expand` and `sample` have in common, whatever their rows are made of.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from echogen.config import EngineConfig, RunConfig
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import StoreError
from echogen.painting.stream import Throughput, Work, paint_pending
from echogen.planning.record import check_same_run
from echogen.report import Reporter
from echogen.store import (
    StoreWriter,
    check_replaceable,
    convert_to_h5,
    create_store,
    open_store,
    remove_store,
    resume_store,
    working_store_path,
)
from echogen.support.signals import Stop


@dataclass(frozen=True)
class PaintingRun:
    """A run as its store begins it.

    Attributes:
        config: of the run.
        attrs: the root attribute of a new store; a store at hand must agree with it.
        columns: the planned ones.
        cases: one mapping a case, with its `id`.
        problems: (frame id, reason) of what was left out.
        image_size: side of an image.
        work: what is painted, and how a shard of it is written.
    """

    config: RunConfig
    attrs: Mapping[str, Any]
    columns: Mapping[str, npt.NDArray[Any]]
    cases: Sequence[Mapping[str, Any]]
    problems: Sequence[tuple[str, str]]
    image_size: int
    work: Work

    @property
    def to_paint(self) -> int:
        """Rows that cost network evaluations."""
        return sum(row.copy > 0 and not row.rejected for row in self.work.rows)


def fill_store(run: PaintingRun, overwrite: bool, reporter: Reporter, stop: Stop) -> Throughput:
    """Paint what a store lacks, and publish it when it is complete; call it under `store_lock`.

    Args:
        run: what belongs into the store.
        overwrite: replace a store that is there.
        reporter: where progress goes.
        stop: asked before each batch.

    Raises:
        EchogenError: the store at hand is another run's, or painting or writing failed.
        Interrupted: by a signal before painting began, or by a second one.
    """
    from echogen.painting.devices import open_engine

    config = run.config
    if not overwrite and _finished(config.output, run.attrs):
        _remove_working(config.output)
        reporter.tell(f"{config.output}: already complete, nothing to do")
        return Throughput()
    settings = _engine_settings(config, run.attrs)
    with closing(open_engine(config.checkpoint, config.sampler, settings, reporter.tell)) as engine:
        engine.settle(run.to_paint)
        writer = _open_writer(run, _painting(config, engine.batch_size), overwrite, reporter)
        throughput = paint_pending(writer, run.work, engine, reporter, stop)
    if not writer.pending_shards():
        writer.set_complete()
        _publish(config.output, reporter)
    return throughput


def terms(info: CheckpointInfo) -> str:
    """Whose terms apply to what a model paints, and what to cite."""
    return f"model {info.name}: {licence(info)}. Cite: {info.citation}"


def licence(info: CheckpointInfo) -> str:
    """A model's licence, and in words what it forbids most users."""
    limit = " (non-commercial research only)" if "-NC" in info.licence else ""
    return f"{info.licence}{limit}"


def begun_precision(config: RunConfig, overwrite: bool) -> str:
    """What to paint in: where `auto` was asked for, what the store at hand was begun with.

    Raises:
        EngineError: no such device.
    """
    from echogen.diffusion.network import precision_name, resolve_precision
    from echogen.painting.devices import resolve_devices

    device, asked = resolve_devices(config.engine.device)[0], config.engine.precision
    working = working_store_path(config.output)
    begun = working if working.exists() else config.output
    if asked == "auto" and begun.exists() and not overwrite:
        with open_store(begun) as store:
            asked = store.attrs["sampler"].get("precision", asked)
    return precision_name(resolve_precision(asked, device))


def evaluations(config: RunConfig) -> int:
    """Network evaluations an image."""
    return sampler_nfe(config.sampler)


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse, before any work, what is not a store of ours or cannot be read."""
    if overwrite:
        check_replaceable(output)
        return
    for path in {output, working_store_path(output)}:
        if path.exists():
            open_store(path).close()


def _painting(config: RunConfig, batch_size: int) -> dict[str, Any]:
    """What the store records of the engine: batches of another size, or on another kind of device,
    round differently.
    """
    from echogen.painting.devices import resolve_devices

    return {"device": resolve_devices(config.engine.device)[0].type, "batch_size": batch_size}


def _engine_settings(config: RunConfig, wanted: Mapping[str, Any]) -> EngineConfig:
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


def _finished(output: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether `output` is complete, and made by these settings."""
    if not output.exists():
        return False
    with open_store(output) as store:
        check_same_run(store.attrs, wanted, str(output))
        return store.complete


def _begun(working: Path, wanted: Mapping[str, Any]) -> bool:
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
    run: PaintingRun, painting: Mapping[str, Any], overwrite: bool, reporter: Reporter
) -> StoreWriter:
    output = run.config.output
    working = working_store_path(output)
    if overwrite and not _begun(working, run.attrs):
        remove_store(output)
    if working.exists():
        with open_store(working) as store:
            check_same_run(store.attrs, run.attrs, str(output))
        writer = resume_store(working)
        left = len(writer.pending_shards())
        reporter.tell(f"{output}: continuing, {left} of {writer.n_shards} shards left")
        return writer
    return create_store(
        working,
        attrs={**run.attrs, "painting": painting},
        columns=run.columns,
        cases=run.cases,
        problems=run.problems,
        image_shape=(run.image_size, run.image_size),
        shard_size=run.config.store.shard_size,
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
