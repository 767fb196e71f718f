"""What `expand` and `sample` share: find the model, lock the store, report how it was filled."""

import resource
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from echogen.config import (
    AugmentationConfig,
    BenchConfig,
    ExpandConfig,
    RepaintConfig,
    RunConfig,
    SampleConfig,
)
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import sampler_nfe
from echogen.models.resolve import load_with_model, resolve_judge
from echogen.painting.fill import begun_precision, terms
from echogen.painting.stream import Throughput
from echogen.report import Problem, Reporter, RunReport
from echogen.store import StoreReader, check_output, own_output
from echogen.store.reader import failed_samples
from echogen.support.files import check_apart
from echogen.support.signals import Stop, catch_signals

Config = TypeVar("Config", BenchConfig, ExpandConfig, SampleConfig)


def with_model(
    kind: type[Config],
    settings: Mapping[str, Any],
    preset: str | None,
    file: Config | str | Path | None,
    reporter: Reporter,
) -> tuple[Config, CheckpointInfo]:
    """The configuration with model and judge resolved to what is opened, and what the model is.

    Raises:
        UsageError: the output lies in the dataset, or contains it.
        UsageError, CheckpointError: as `load_with_model`.
    """
    config, folder, info = load_with_model(
        kind, settings, preset=preset, file=file, tell=reporter.tell
    )
    places = {"checkpoint": str(folder)}
    if isinstance(config, ExpandConfig):
        check_apart("--out", config.output, config.input)
        places["judge"] = resolve_judge(config.judge)
    return config.model_copy(update=places), info


def sampler_in_words(config: AugmentationConfig, info: CheckpointInfo) -> str:
    """Which sampler paints, what it costs, and why it does where the model decided."""
    cost = f"{config.sampler.name}, {sampler_nfe(config.sampler)} evaluations an image"
    if isinstance(config.sampler, RepaintConfig):
        return f"sampler: {cost}"
    takes = "is shown what is known" if info.conditioning == "known" else "takes no keep map"
    return f"sampler: {cost} ({info.name} {takes})"


@contextmanager
def locked_output(
    config: RunConfig, info: CheckpointInfo, overwrite: bool, reporter: Reporter
) -> Iterator[tuple[Stop, Future[str]]]:
    """The output as this process' own: what stops the run, and the precision to paint in.

    The latter needs torch. It is imported in a thread, beside the planning that comes first.

    Raises:
        StoreError: another process has it, or something else is in its place.
        EngineError: no such device.
    """
    with (
        catch_signals(reporter.tell) as stop,
        own_output(config.output),
        ThreadPoolExecutor(1) as pool,
    ):
        check_output(config.output, overwrite)
        reporter.tell(terms(info))
        if isinstance(config, ExpandConfig):
            reporter.tell(sampler_in_words(config, info))
        precision = pool.submit(begun_precision, config, overwrite)
        if config.engine.device not in ("auto", "cpu"):
            precision.result()  # no such device: better said before planning
        yield stop, precision


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
        sampler=config.sampler.name,
        nfe=sampler_nfe(config.sampler),
        device=throughput.device,
        precision=throughput.precision,
        checkpoint=info.name,
        licence=info.licence,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        interrupted=0 if store.complete else stop.signum,
    )
