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
from echogen.painting.stream import Throughput, Work, paint_pending
from echogen.planning.record import check_same_run
from echogen.report import Reporter
from echogen.store import (
    StoreOutput,
    StoreReader,
    StoreRecord,
    StoreWriter,
    create_store,
    open_store,
    working_store_path,
)
from echogen.support.signals import Stop


@dataclass(frozen=True)
class PaintingRun:
    """A run, as recorded when its store is created.

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
        return sum(row.to_paint for row in self.work.rows)

    def check(self, store: StoreReader) -> None:
        """Refuse a store that another run made.

        Raises:
            StoreError: as said.
        """
        check_same_run(store.attrs, self.attrs, str(self.config.output))


def fill_store(run: PaintingRun, overwrite: bool, reporter: Reporter, stop: Stop) -> Throughput:
    """Paint what a store lacks, and publish it when it is complete; call it under `own_output`.

    Args:
        run: what belongs in the store.
        overwrite: replace an existing store.
        reporter: where progress goes.
        stop: asked before each batch.

    Raises:
        EchogenError: the store at hand is another run's, or painting or writing failed.
        Interrupted: by a signal before painting began, or by a second one.
    """
    from echogen.painting.devices import open_engine

    config, output = run.config, StoreOutput(run.config.output, run.check)
    if not overwrite and output.finished():
        reporter.tell(f"{output.path}: already complete, nothing to do")
        return Throughput()
    settings = engine_settings(run, output.begun())
    with closing(open_engine(config.checkpoint, config.sampler, settings, reporter.tell)) as engine:
        engine.settle(run.to_paint)
        if overwrite:
            output.replace()
        writer = output.resume()
        if writer is not None:
            left = f"{len(writer.pending_shards())} of {writer.n_shards} shards left"
            reporter.tell(f"{output.path}: continuing, {left}")
        else:
            writer = _create(run, output.working, engine.batch_size)
        throughput = paint_pending(writer, run.work, engine, reporter, stop)
    if not writer.pending_shards():
        output.publish(writer, reporter)
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
            asked = store.record.sampler.precision
    return precision_name(resolve_precision(asked, device))


def engine_settings(run: PaintingRun, begun: StoreRecord | None) -> EngineConfig:
    """How to paint: a run that was begun goes on with batches of the size that it had found."""
    engine = run.config.engine
    batch_size, painting = engine.batch_size, begun and begun.painting
    if not batch_size and painting and painting.device == _device_type(run.config):
        batch_size = painting.batch_size
    precision = run.attrs["sampler"]["precision"]
    return engine.model_copy(update={"precision": precision, "batch_size": batch_size})


def _device_type(config: RunConfig) -> str:
    from echogen.painting.devices import resolve_devices

    return resolve_devices(config.engine.device)[0].type


def _create(run: PaintingRun, path: Path, batch_size: int) -> StoreWriter:
    """The run's store, which also records what decides rounding: batch size and kind of device."""
    painting = {"device": _device_type(run.config), "batch_size": batch_size}
    return create_store(
        path,
        attrs={**run.attrs, "painting": painting},
        columns=run.columns,
        cases=run.cases,
        problems=run.problems,
        image_shape=(run.image_size, run.image_size),
        shard_size=run.config.store.shard_size,
    )
