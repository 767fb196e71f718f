"""The stream of a run: rows are rendered ahead, painted as one stream, and written behind.

An engine gets what is to be painted, in batches that cross the borders of shards; originals pass it
by. What comes out is collected shard by shard, and a shard is written whole while the next ones are
painted. After a first signal the shards that were begun are finished, and no batch is begun that
none of them needs. What is condemned once painted is painted again, with noise that depends on the
sample's seed and on how many times it was painted, and on nothing else.
"""

import hashlib
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
from echogen.store import MOST_REPAINTS, NOT_FINITE, Status, StoreWriter, sample_sha256
from echogen.support.signals import Stop
from echogen.support.threads import Behind, ahead
from echogen.types import Sample

RENDERED_TOGETHER = 8  # rows of one frame
MOST_RENDERERS = 8

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
        condemned: called with a row and what was painted of it: why this must not be kept, in a
            few words, or empty. It is painted again then, at most `MOST_REPAINTS` times.
    """

    rows: Sequence[Row]
    render: Callable[[Sequence[Row]], Iterable[Outcome]]
    shard: Callable[[tuple[int, int], Sequence[Sample | None]], Shard]
    condemned: Callable[[Row, Sample], str] = lambda row, sample: ""


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
            work,
            pending,
            stop,
            writing,
            lambda images: reporter.progress("painting", images, total),
        )
        canvases: Iterator[Canvas] | None = stream.canvases(rendered)
        while canvases is not None:
            with closing(engine.run(canvases, stream.begin, pad=True)) as painted:
                for levels in painted:
                    stream.add_painted(levels)
            canvases = stream.left()
    stop.finishing = False
    seconds = time.monotonic() - began
    return Throughput(stream.images, seconds, engine.device, engine.precision)


def repaint_seed(seed: int, repaint: int) -> int:
    """Of the noise with which a sample is painted for the `repaint`-th time again, from 1."""
    text = f"{seed}/{repaint}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") if repaint else seed


def canvas_of(sample: Sample, sample_id: str, seed: int) -> Canvas:
    """What an engine is given of a rendered sample."""
    keep = sample.keep if sample.beyond is None else sample.keep & ~sample.beyond
    return Canvas(sample_id, seed, sample.image, keep, sample.real)


@dataclass(frozen=True)
class _Attempt:
    """A row at the engine.

    Attributes:
        row: its index.
        sample: with nothing painted yet.
        repaints: how many times it was painted before.
    """

    row: int
    sample: Sample
    repaints: int = 0


class _Stream:
    """The rows of a run on their way, through an engine or past it, to their shards.

    What is condemned goes to the engine again before anything new.
    """

    def __init__(
        self,
        work: Work,
        pending: Mapping[int, Sequence[int]],
        stop: Stop,
        writing: Behind,
        progress: Callable[[int], None],
    ) -> None:
        """`pending` are the indices of what is to be made of the work's rows, {shard: its rows}.

        `writing` is given each shard that is whole, `progress` the number of images painted.
        """
        self.images = 0
        self._work, self._rows = work, work.rows
        self._pending = pending
        self._stop = stop
        self._writing = writing
        self._progress = progress
        self._shard_of = {
            work.rows[i].sample_id: shard for shard, of in pending.items() for i in of
        }
        self._begun = -1
        self._at_engine: deque[_Attempt] = deque()
        self._again: deque[_Attempt] = deque()
        # by shard and row, with the number of repaints, until the shard is whole
        self._outcomes: dict[int, dict[int, tuple[Outcome, int]]] = {}

    def canvases(self, rendered: Iterable[Outcome]) -> Iterator[Canvas]:
        """What is to be painted of the pending rows; what is not goes to its shard at once.

        Ends early where a stop was asked for. `rendered` has one item a pending row.
        """
        order = [i for of_shard in self._pending.values() for i in of_shard]
        for i, outcome in zip(order, rendered, strict=True):
            row = self._rows[i]
            yield from self._repaints()
            if self._stop.signum and self._shard_of[row.sample_id] > self._begun:
                return
            if isinstance(outcome, Sample) and not outcome.keep.all():
                yield self._sent(_Attempt(i, outcome))
            else:
                self.images += row.copy > 0 and isinstance(outcome, Sample)
                self._add(i, outcome)
        yield from self._repaints()

    def left(self) -> Iterator[Canvas] | None:
        """What was condemned too late for `canvases`, or None; asked when the engine has ended."""
        for attempt in self._at_engine:  # after a stop: sent, and not begun
            if self._shard_of[self._rows[attempt.row].sample_id] <= self._begun:
                self._again.append(attempt)
        self._at_engine.clear()
        return self._repaints() if self._again else None

    def _repaints(self) -> Iterator[Canvas]:
        while self._again:
            yield self._sent(self._again.popleft())

    def _sent(self, attempt: _Attempt) -> Canvas:
        self._at_engine.append(attempt)
        row = self._rows[attempt.row]
        return canvas_of(attempt.sample, row.sample_id, repaint_seed(row.seed, attempt.repaints))

    def begin(self, canvases: Sequence[Canvas]) -> int:
        """How many of these are wanted: all, or after a stop those of shards begun before it."""
        self._writing.check()
        shards = [self._shard_of[canvas.sample_id] for canvas in canvases]
        if not self._stop.signum:
            self._begun = max(self._begun, *shards)
        wanted = [k for k, shard in enumerate(shards, 1) if shard <= self._begun]
        return wanted[-1] if wanted else 0

    def add_painted(self, levels: Levels) -> None:
        """The next canvas as it came from the engine."""
        attempt = self._at_engine.popleft()
        row, sample = self._rows[attempt.row], attempt.sample
        if levels is None:
            self._finished(attempt, Problem(row.sample_id, NOT_FINITE))
            return
        image = levels if sample.beyond is None else np.where(sample.beyond, 0, levels)
        painted = replace(sample, image=image, real=None, beyond=None)
        why = self._work.condemned(row, painted)
        if not why:
            self._finished(attempt, painted)
        elif attempt.repaints < MOST_REPAINTS:
            self._again.append(replace(attempt, repaints=attempt.repaints + 1))
        else:
            reason = f"{why}, also when painted again {MOST_REPAINTS} times"
            self._finished(attempt, Problem(row.sample_id, reason))

    def _finished(self, attempt: _Attempt, outcome: Outcome) -> None:
        self.images += 1
        self._add(attempt.row, outcome, attempt.repaints)

    def _add(self, i: int, outcome: Outcome, repaints: int = 0) -> None:
        shard = self._shard_of[self._rows[i].sample_id]
        outcomes = self._outcomes.setdefault(shard, {})
        outcomes[i] = outcome, repaints
        self._progress(self.images)
        if len(outcomes) == len(self._pending[shard]):
            where = self._pending[shard]
            self._writing.put(shard, where, *zip(*(outcomes[j] for j in where), strict=True))
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
    writer: StoreWriter,
    work: Work,
    shard: int,
    where: Sequence[int],
    outcomes: Sequence[Outcome],
    repaints: Sequence[int],
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
        "repaints": np.array(repaints, np.uint8),
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
