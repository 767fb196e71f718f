"""Whole images painted from nothing: a store of generated images without labels.

An image's noise comes from the root seed and its own name alone, so that the first images of a
longer run are those of a shorter one. Its fan is known only once it is painted: it is fitted then,
and what lies outside it is set to 0, as in real frames.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echogen.commands.run import locked_output, run_report, with_model
from echogen.config import SampleConfig
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import UsageError
from echogen.geometry.aspect import fit_fan
from echogen.geometry.transforms import IDENTITY
from echogen.painting.fill import PaintingRun, fill_store, licence
from echogen.painting.stream import Shard, Work
from echogen.pictures.files import save_png
from echogen.pictures.sheet import bare_sheet
from echogen.planning.plan import Row, sample_seed
from echogen.planning.record import generated_attributes, generated_columns
from echogen.report import QUIET, Reporter, RunReport
from echogen.store import (
    Status,
    StoreReader,
    open_store,
    present_store_path,
)
from echogen.support.files import check_writable
from echogen.types import Sample

MOST_ON_A_SHEET = 256


@dataclass(frozen=True)
class SampleReport(RunReport):
    """How a run of `echogen sample` ended; the model's terms are its images' too.

    Attributes:
        images: done, over the whole store.
        without_fan: of these, those in which no fan was found; they are left as painted.
        pending: still to make.
        sheet: the contact sheet that was written, or empty.
    """

    images: int
    without_fan: int
    pending: int
    sheet: str


def sample(
    config: SampleConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    sheet: str | Path | None = None,
    columns: int = 8,
    overwrite: bool = False,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> SampleReport:
    """Generate whole images without labels: make, or continue, their store.

    Args:
        config: all settings, or a TOML file with some.
        preset: "fast", "balanced" (the default) or "high".
        sheet: a .png with the first images of the finished store.
        columns: images in a row of it.
        overwrite: replace a store that is already at `output`.
        reporter: where progress goes.
        settings: as the flags of `echogen sample`, such as `output`, `n`, `steps`. They win.

    Raises:
        EchogenError: one of its kinds, with one line for the user.
        Interrupted: by a signal before painting began, or by a second one.
    """
    started = time.monotonic()
    config, info = with_model(SampleConfig, settings, preset, config, reporter)
    sheet = None if sheet is None else Path(sheet)
    if sheet is not None:
        _check_sheet(sheet, columns, config.output)
    with locked_output(config, info, overwrite, reporter) as (stop, precision):
        throughput = fill_store(_run(config, info, precision.result()), overwrite, reporter, stop)
        with open_store(present_store_path(config.output)) as store:
            written = sheet if store.complete else None
            if written is not None:
                write_sheet(store, written, columns)
            counts, done = store.counts(), store.columns["status"] == Status.DONE
            ended = run_report(config, info, store, throughput, (_note(info),), started, stop)
            return SampleReport(
                **vars(ended),
                images=counts.done,
                without_fan=int(np.isnan(store.columns["sector"][done, 0]).sum()),
                pending=counts.pending,
                sheet="" if written is None else str(written),
            )


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


def _run(config: SampleConfig, info: CheckpointInfo, precision: str) -> PaintingRun:
    rows = generated_rows(config.n, config.seed)
    aspect = 1.0 if info.resize == "letterbox" else None
    return PaintingRun(
        config,
        generated_attributes(rows, config, info, sampler_nfe(config.sampler), precision),
        generated_columns(rows),
        cases=[{"id": row.sample_id} for row in rows],
        problems=[],
        image_size=info.image_size,
        work=Work(
            rows,
            partial(_blanks, info.image_size),
            partial(_shard, config.background == "black", aspect),
        ),
    )


def _blanks(side: int, rows: Sequence[Row]) -> list[Sample]:
    """Samples of which no pixel is known."""
    black, unkept = np.zeros((side, side), np.uint8), np.zeros((side, side), np.bool_)
    return [Sample(black, unkept, black, float("nan"))] * len(rows)


def _shard(
    black: bool,
    aspect: float | None,
    image_shape: tuple[int, int],
    samples: Sequence[Sample | None],
) -> Shard:
    """Samples of a shard, each image's fan fitted and its outside blackened where that is wanted.

    Args:
        black: set what lies outside of a fan to 0.
        aspect: of the model's pixels, where it is known.
        image_shape: (h, w).
        samples: of the shard.
    """
    images = np.zeros((len(samples), *image_shape), np.uint8)
    sectors = np.full((len(samples), 6), np.nan, np.float32)
    aspects = np.full(len(samples), np.nan if aspect is None else aspect, np.float32)
    for i, sample in enumerate(samples):
        if sample is None:
            continue
        fan = fit_fan(sample.image, aspect)
        images[i] = sample.image
        if fan is not None:
            sectors[i], aspects[i] = fan.on_grid(), fan.aspect
            if black:
                images[i][~fan.mask(image_shape)] = 0
    return {"images": images}, {"sector": sectors, "aspect": aspects}


def _check_sheet(sheet: Path, columns: int, output: Path) -> None:
    """Refuse, before any work, a sheet that could not be written after it."""
    check_writable("--sheet", sheet, ".png", apart=[output])
    if columns < 1:
        raise UsageError(f"--columns: expected 1 or more, got {columns}.")


def _note(info: CheckpointInfo) -> str:
    return (
        f"the images have no labels and fall under the model's terms, {licence(info)}. A model may "
        "repeat images that it was trained on; its card says what is known about that."
    )
