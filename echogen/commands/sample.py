"""Whole images painted from nothing: a store of generated images without labels.

An image's noise comes from the root seed and its own name alone, so that the first images of a
longer run are those of a shorter one. Where its fan is can only be told once it is painted: it is
fitted then, and what lies outside of it set to 0, as in real frames.
"""

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from echogen.config import SampleConfig
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.errors import (
    UsageError,
    exit_code_of,
)
from echogen.geometry.aspect import fit_fan
from echogen.geometry.transforms import IDENTITY
from echogen.models.resolve import resolve_checkpoint
from echogen.painting.fill import (
    Run,
    begun_precision,
    check_output,
    evaluations,
    fill_store,
    licence,
    terms,
)
from echogen.painting.stream import Outcome, Painted, Shard, Work, statuses, why_not
from echogen.pictures.files import save_png
from echogen.pictures.sheet import bare_sheet
from echogen.planning.plan import Row, sample_seed
from echogen.planning.record import generated_attributes, generated_columns
from echogen.report import CommandReport, Quiet, Reporter
from echogen.store import (
    Status,
    StoreReader,
    open_store,
    present_store_path,
    sample_sha256,
    store_lock,
)
from echogen.store.reader import failed_samples
from echogen.support.files import check_writable
from echogen.support.signals import catch_signals
from echogen.types import Job, Problem, Result

QUIET = Quiet()
MOST_ON_A_SHEET = 256


@dataclass(frozen=True)
class SampleReport(CommandReport):
    """How a run of `echogen sample` ended.

    Attributes:
        output: the store.
        images: done, over the whole store.
        without_fan: of these, those in which no fan was found; they are left as painted.
        pending: still to make.
        failed: images that could not be made, with the reason.
        sheet: the contact sheet that was written, or empty.
        painted: images painted by this run.
        seconds: from the start to the end of this run.
        images_per_s: painted images per second of painting; 0 where nothing was painted.
        nfe: network evaluations an image.
        device, precision: where it was painted; empty where nothing was.
        checkpoint, licence: the model's name and terms, which are the images' too.
        notes: what else a user should know.
        peak_memory_mb: largest resident memory of this process.
        interrupted: the signal's number, or 0.
    """

    output: str
    images: int
    without_fan: int
    pending: int
    failed: tuple[Problem, ...]
    sheet: str
    painted: int
    seconds: float
    images_per_s: float
    nfe: int
    device: str
    precision: str
    checkpoint: str
    licence: str
    notes: tuple[str, ...]
    peak_memory_mb: float
    interrupted: int = 0

    @property
    def exit_code(self) -> int:
        """0 done, 1 done with failures, 130 or 143 interrupted and resumable."""
        return exit_code_of(self.interrupted, bool(self.failed))


def sample(
    config: SampleConfig,
    *,
    overwrite: bool = False,
    sheet: Path | None = None,
    columns: int = 8,
    reporter: Reporter = QUIET,
) -> SampleReport:
    """Make, or continue, the store of generated images that a configuration describes.

    Args:
        config: of the run.
        overwrite: replace a store that is already at `config.output`.
        sheet: a .png with the first images of the finished store.
        columns: images in a row of it.
        reporter: where progress goes.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before painting began, or by a second one.
    """
    started = time.monotonic()
    if sheet is not None:
        _check_sheet(sheet, columns)
    checkpoint = str(resolve_checkpoint(config.checkpoint, reporter.tell))
    config = config.model_copy(update={"checkpoint": checkpoint})
    info = read_info(checkpoint)
    with catch_signals(reporter.tell) as stop, store_lock(config.output):
        check_output(config.output, overwrite)
        reporter.tell(terms(info))
        run = _run(config, info, begun_precision(config, overwrite))
        painted = fill_store(run, overwrite, reporter, stop)
        path = present_store_path(config.output)
        with open_store(path) as store:
            if sheet is not None and store.complete:
                write_sheet(store, sheet, columns)
            seconds = time.monotonic() - started
            return _report(config, info, store, sheet, painted, seconds, stop.signum)


def write_sheet(store: StoreReader, path: Path, columns: int = 8) -> None:
    """A contact sheet of a store's first images, `MOST_ON_A_SHEET` at most, in the rows' order.

    Raises:
        StoreError: the file cannot be written.
    """
    save_png(bare_sheet(store.images[0:MOST_ON_A_SHEET], columns), path)


def generated_rows(n: int, seed: int) -> list[Row]:
    """The rows of `n` images: the first of them are those of any smaller `n`."""
    names = [f"generated_{number:06d}" for number in range(1, n + 1)]
    return [Row(name, name, 1, sample_seed(seed, name, 1), False, 0, IDENTITY) for name in names]


def _run(config: SampleConfig, info: CheckpointInfo, precision: str) -> Run:
    rows = generated_rows(config.n, config.seed)
    aspect = 1.0 if info.resize == "letterbox" else None
    return Run(
        config,
        generated_attributes(rows, config, info, evaluations(config), precision),
        generated_columns(rows),
        cases=[{"id": row.sample_id} for row in rows],
        problems=[],
        image_size=info.image_size,
        work=Work(
            rows,
            partial(_jobs, info.image_size),
            partial(_shard, config.background == "black", aspect),
        ),
    )


def _jobs(side: int, rows: Sequence[Row]) -> Iterator[Job]:
    """Nothing is known of any pixel."""
    nothing, unkept = np.full((side, side), -1, np.float32), np.zeros((side, side), np.bool_)
    unlabelled = np.zeros((side, side), np.uint8)
    for row in rows:
        yield Job(row.sample_id, row.seed, nothing, unkept, unlabelled, float("nan"))


def _shard(
    black: bool,
    aspect: float | None,
    image_shape: tuple[int, int],
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
) -> Shard:
    """Rows of a shard, each image's fan fitted and its outside blackened where that is wanted.

    Args:
        black: set what lies outside of a fan to 0.
        aspect: of the model's pixels, where it is known.
        image_shape: (h, w).
        rows, outcomes: of the shard.
    """
    images = np.zeros((len(rows), *image_shape), np.uint8)
    sectors = np.full((len(rows), 6), np.nan, np.float32)
    aspects = np.full(len(rows), np.nan if aspect is None else aspect, np.float32)
    reasons = [why_not(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
    for i, (outcome, reason) in enumerate(zip(outcomes, reasons, strict=True)):
        if reason or not isinstance(outcome, Result):
            continue
        fan = fit_fan(outcome.image, aspect)
        images[i] = outcome.image
        if fan is not None:
            sectors[i], aspects[i] = fan.on_grid(), fan.aspect
            if black:
                images[i][~fan.mask(image_shape)] = 0
    hashes = ["" if reason else sample_sha256(images[i]) for i, reason in enumerate(reasons)]
    return {"images": images}, {
        "sector": sectors,
        "aspect": aspects,
        "sha256": np.array(hashes, dtype=str),
        "reason": np.array(reasons, dtype=str),
        "status": statuses(outcomes, reasons),
    }


def _check_sheet(sheet: Path, columns: int) -> None:
    """Refuse, before any work, a sheet that could not be written after it."""
    check_writable("--sheet", sheet, ".png")
    if columns < 1:
        raise UsageError(f"--columns: expected 1 or more, got {columns}.")


def _of_the_images(info: CheckpointInfo) -> str:
    return (
        f"the images have no labels, and come under the terms of the model, {licence(info)}. A "
        "model may repeat images that it was trained on; its card says what is known of that."
    )


def _report(
    config: SampleConfig,
    info: CheckpointInfo,
    store: StoreReader,
    sheet: Path | None,
    painted: Painted,
    seconds: float,
    signum: int,
) -> SampleReport:
    counts, done = store.counts(), store.columns["status"] == Status.DONE
    return SampleReport(
        output=str(config.output),
        images=counts.done,
        without_fan=int(np.isnan(store.columns["sector"][done, 0]).sum()),
        pending=counts.pending,
        failed=tuple(Problem(*problem) for problem in failed_samples(store.columns)),
        sheet=str(sheet) if sheet is not None and store.complete else "",
        painted=painted.images,
        seconds=seconds,
        images_per_s=painted.images / painted.seconds if painted.images else 0.0,
        nfe=evaluations(config),
        device=painted.device,
        precision=painted.precision,
        checkpoint=info.name,
        licence=info.licence,
        notes=(_of_the_images(info),),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        interrupted=0 if store.complete else signum,
    )
