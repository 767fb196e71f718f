"""What `expand` and `sample` share: find the model, lock the store, report how it was filled."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from echogen.config import BenchConfig, ExpandConfig, RunConfig, SampleConfig
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.diffusion.schedule import sampler_nfe
from echogen.models.resolve import resolve_checkpoint
from echogen.painting.fill import begun_precision, terms
from echogen.painting.stream import Throughput
from echogen.report import Problem, Reporter, RunReport
from echogen.store import StoreReader, check_output, store_lock
from echogen.store.reader import failed_samples
from echogen.support.signals import Stop, catch_signals

Config = TypeVar("Config", BenchConfig, ExpandConfig, SampleConfig)


def with_model(config: Config, reporter: Reporter) -> tuple[Config, CheckpointInfo]:
    """The configuration with its model's folder in place of a name, and what that model is.

    Raises:
        CheckpointError: there is no such model, or it cannot be used.
    """
    folder = str(resolve_checkpoint(config.checkpoint, reporter.tell))
    return config.model_copy(update={"checkpoint": folder}), read_info(folder)


@contextmanager
def locked_output(
    config: RunConfig, info: CheckpointInfo, overwrite: bool, reporter: Reporter
) -> Iterator[tuple[Stop, str]]:
    """The output as this process' own: what stops the run, and the precision to paint in.

    Raises:
        StoreError: another process has it, or something else is in its place.
        EngineError: no such device.
    """
    with catch_signals(reporter.tell) as stop, store_lock(config.output):
        check_output(config.output, overwrite)
        reporter.tell(terms(info))
        yield stop, begun_precision(config, overwrite)


def run_report(
    config: RunConfig,
    info: CheckpointInfo,
    store: StoreReader,
    throughput: Throughput,
    notes: tuple[str, ...],
    started: float,
    stop: Stop,
) -> RunReport:
    """How a run ended whose store is now `store`; it `started` by the monotonic clock."""
    return RunReport(
        output=str(config.output),
        failed=tuple(Problem(*problem) for problem in failed_samples(store.columns)),
        notes=notes,
        painted=throughput.images,
        seconds=time.monotonic() - started,
        images_per_s=throughput.images_per_s,
        nfe=sampler_nfe(config.sampler),
        device=throughput.device,
        precision=throughput.precision,
        checkpoint=info.name,
        licence=info.licence,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        interrupted=0 if store.complete else stop.signum,
    )
