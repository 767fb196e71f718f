"""The stream of a run: rows are rendered ahead, painted as one stream, and written behind.

An engine gets what is to be painted, in batches that cross the borders of shards; originals pass it
by. What comes out is collected shard by shard, and a shard is written whole while the next ones are
painted. After a first signal the shards that were begun are finished, and no batch is begun that
none of them needs.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.painting.engine import Canvas, Engine, Levels
from echogen.planning.plan import Row
from echogen.report import Problem, Reporter
from echogen.store import Status, StoreWriter, sample_sha256
from echogen.support.signals import Stop
from echogen.support.threads import Behind, ahead
from echogen.types import Sample

RENDERED_TOGETHER = 8  # rows of one frame
MOST_RENDERERS = 8
NOT_FINITE = "the sampler returned values that are not finite; try --overwrite --precision fp32"

Outcome = Sample | Problem | None
"""A row's pixels, rendered or painted; None where the plan rejected it."""
Shard = tuple[dict[str, npt.NDArray[Any]], dict[str, npt.ArrayLike]]
"""Pixels and records of some rows, as `StoreWriter` takes them."""


@dataclass(frozen=True)
class Work:
    """What a run makes, and from what.

    Attributes:
        rows: of the whole store, in its order.
        render: one item a row, in order, of consecutive rows, with nothing painted yet.
        shard: pixels and facts of some rows, called with the (h, w) of an image and the rows'
            painted samples; pixels are 0 where there is no sample. What every kind of store
            records, such as the status, is added to the facts.
    """

    rows: Sequence[Row]
    render: Callable[[Sequence[Row]], Iterable[Outcome]]
    shard: Callable[[tuple[int, int], Sequence[Sample | None]], Shard]


@dataclass
class Throughput:
    """What a run painted, and how fast."""

    images: int = 0
    seconds: float = 0.0
    device: str = ""
    precision: str = ""

    @property
    def images_per_s(self) -> float:
        """0 where nothing was painted."""
        return self.images / self.seconds if self.images else 0.0


def paint_pending(
    writer: StoreWriter, work: Work, engine: Engine, reporter: Reporter, stop: Stop
) -> Throughput:
    """Render, paint and write the pending rows, shard by shard, or those of the shards that were
    begun when a stop is asked for.

    Raises:
        EngineError, StoreError: shards that were finished before are written.
        Interrupted: by a second signal; only the shard being written is finished.
    """
    pending = writer.pending_rows()
    if not pending:
        return Throughput()
    rows = [work.rows[i] for of_shard in pending.values() for i in of_shard]
    total = sum(row.to_paint for row in rows)
    reporter.progress("painting", 0, total)
    stop.finishing = True
    began = time.monotonic()
    with (
        Behind(partial(_write, writer, work)) as writing,
        closing(_rendered(work, rows, engine)) as rendered,
    ):
        stream = _Stream(
            work.rows,
            pending,
            stop,
            writing,
            lambda images: reporter.progress("painting", images, total),
        )
        with closing(engine.run(stream.canvases(rendered), stream.begin, pad=True)) as painted:
            for levels in painted:
                stream.add_painted(levels)
    stop.finishing = False
    seconds = time.monotonic() - began
    return Throughput(stream.images, seconds, engine.device, engine.precision)


def canvas_of(sample: Sample, sample_id: str, seed: int) -> Canvas:
    """What an engine is given of a rendered sample."""
    keep = sample.keep if sample.beyond is None else sample.keep & ~sample.beyond
    return Canvas(sample_id, seed, sample.image, keep, sample.real)


class _Stream:
    """The rows of a run on their way, through an engine or past it, to their shards."""

    def __init__(
        self,
        rows: Sequence[Row],
        pending: Mapping[int, Sequence[int]],
        stop: Stop,
        writing: Behind,
        progress: Callable[[int], None],
    ) -> None:
        """`pending` are the indices of what is to be made of `rows`, {shard: its rows}.

        `writing` is given each shard that is whole, `progress` the number of images painted.
        """
        self.images = 0
        self._rows = rows
        self._pending = pending
        self._stop = stop
        self._writing = writing
        self._progress = progress
        self._shard_of = {rows[i].sample_id: shard for shard, of in pending.items() for i in of}
        self._begun = -1
        self._at_engine: deque[tuple[int, Sample]] = deque()  # with the row of each
        self._outcomes: dict[int, dict[int, Outcome]] = {}  # by shard and row, until it is whole

    def canvases(self, rendered: Iterable[Outcome]) -> Iterator[Canvas]:
        """What is to be painted of the pending rows; what is not goes to its shard at once.

        Ends early where a stop was asked for. `rendered` has one item a pending row.
        """
        order = [i for of_shard in self._pending.values() for i in of_shard]
        for i, outcome in zip(order, rendered, strict=True):
            row = self._rows[i]
            if self._stop.signum and self._shard_of[row.sample_id] > self._begun:
                return
            if isinstance(outcome, Sample) and not outcome.keep.all():
                self._at_engine.append((i, outcome))
                yield canvas_of(outcome, row.sample_id, row.seed)
            else:
                self.images += row.copy > 0 and isinstance(outcome, Sample)
                self._add(i, outcome)

    def begin(self, canvases: Sequence[Canvas]) -> int:
        """How many of these are wanted: all, or after a stop those of shards begun before it."""
        self._writing.check()
        shards = [self._shard_of[canvas.sample_id] for canvas in canvases]
        if not self._stop.signum:
            self._begun = max(self._begun, shards[-1])
        return sum(shard <= self._begun for shard in shards)

    def add_painted(self, levels: Levels) -> None:
        """The next canvas as it came from the engine."""
        i, sample = self._at_engine.popleft()
        self.images += 1
        if levels is None:
            self._add(i, Problem(self._rows[i].sample_id, NOT_FINITE))
        else:
            image = levels if sample.beyond is None else np.where(sample.beyond, 0, levels)
            self._add(i, replace(sample, image=image, real=None, beyond=None))

    def _add(self, i: int, outcome: Outcome) -> None:
        shard = self._shard_of[self._rows[i].sample_id]
        outcomes = self._outcomes.setdefault(shard, {})
        outcomes[i] = outcome
        self._progress(self.images)
        if len(outcomes) == len(self._pending[shard]):
            where = self._pending[shard]
            self._writing.put(shard, where, [outcomes[j] for j in where])
            del self._outcomes[shard]


def _rendered(work: Work, rows: Sequence[Row], engine: Engine) -> Generator[Outcome, None, None]:
    """One item a row; threads render about what the engine takes in the next two rounds.

    Beside a GPU several threads render, since one is slower than it; a CPU is busy with painting.
    """
    threads = 1 if engine.device.startswith("cpu") else (os.cpu_count() or 1) // 2
    threads = max(1, min(threads, MOST_RENDERERS))
    depth = threads + 2 * engine.at_once // RENDERED_TOGETHER
    chunks = ahead(
        lambda chunk: list(work.render(chunk)), _chunks(rows), threads=threads, depth=depth
    )
    with closing(chunks):
        for chunk in chunks:
            yield from chunk


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    for _, grouped in groupby(rows, key=attrgetter("frame_id")):
        of_frame = list(grouped)
        for start in range(0, len(of_frame), RENDERED_TOGETHER):
            yield of_frame[start : start + RENDERED_TOGETHER]


def _write(
    writer: StoreWriter, work: Work, shard: int, where: Sequence[int], outcomes: Sequence[Outcome]
) -> None:
    samples = [outcome if isinstance(outcome, Sample) else None for outcome in outcomes]
    pixels, facts = work.shard(writer.image_shape, samples)
    hashed = [pixels[name] for name in ("images", "masks") if name in pixels]
    hashes = [
        "" if sample is None else sample_sha256(*(array[i] for array in hashed))
        for i, sample in enumerate(samples)
    ]
    reasons = [_why_not(work.rows[i], outcome) for i, outcome in zip(where, outcomes, strict=True)]
    common: dict[str, npt.ArrayLike] = {
        "sha256": np.array(hashes, dtype=str),
        "reason": np.array(reasons, dtype=str),
        "status": [_status(outcome) for outcome in outcomes],
    }
    writer.write_shard(shard, pixels, {**facts, **common}, where)


def _why_not(row: Row, outcome: Outcome) -> str:
    """Why a row has no pixels; empty where it has."""
    if outcome is None:
        return f"no valid move in {row.tries} draws"
    return outcome.reason if isinstance(outcome, Problem) else ""


def _status(outcome: Outcome) -> Status:
    if outcome is None:
        return Status.REJECTED
    return Status.FAILED if isinstance(outcome, Problem) else Status.DONE


def labelled_shard(image_shape: tuple[int, int], samples: Sequence[Sample | None]) -> Shard:
    """Samples with their labels; what failed or was rejected is zeros."""
    shape = (len(samples), *image_shape)
    images, masks = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    keep = np.zeros(shape, np.bool_)
    on_paint = np.full(len(samples), np.nan, np.float32)
    for i, sample in enumerate(samples):
        if sample is not None:
            images[i], masks[i], keep[i] = sample.image, sample.label, sample.keep
            on_paint[i] = sample.label_on_paint
    return {"images": images, "masks": masks, "keep": keep}, {"label_on_paint": on_paint}
