"""The stream of a run: rows are rendered ahead, painted as one stream, and written behind.

Batches cross the borders of shards; what comes out is collected shard by shard, and a shard is
written whole while the next ones are painted. After a first signal the shards that were begun are
finished, and no batch is begun that none of them needs.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.painting.engine import Engine
from echogen.planning.plan import Row
from echogen.report import Reporter
from echogen.store import Status, StoreWriter, sample_sha256
from echogen.support.signals import Stop
from echogen.support.threads import Behind, ahead
from echogen.types import Job, Problem, Result

RENDERED_TOGETHER = 8  # rows of one frame
MOST_RENDERERS = 8

Outcome = Result | Problem | None
"""What became of a row; None where it was rejected by the plan."""
Rendered = Job | Problem | None
"""What a row gives to paint."""
Shard = tuple[dict[str, npt.NDArray[Any]], dict[str, npt.ArrayLike]]
"""Pixels and facts of some rows, as a `StoreWriter` takes them."""


@dataclass(frozen=True)
class Work:
    """What a run makes, and of what.

    Attributes:
        rows: of the whole store, in its order.
        jobs: one item a row, in order, of consecutive rows.
        shard: arrays and facts of rows and what became of them, as `StoreWriter.write_shard` takes
            them; called with the (h, w) of an image.
    """

    rows: Sequence[Row]
    jobs: Callable[[Sequence[Row]], Iterable[Rendered]]
    shard: Callable[[tuple[int, int], Sequence[Row], Sequence[Outcome]], Shard]


@dataclass
class Painted:
    """What a run painted, and how fast."""

    images: int = 0
    seconds: float = 0.0
    device: str = ""
    precision: str = ""


def paint_pending(
    writer: StoreWriter, work: Work, engine: Engine, reporter: Reporter, stop: Stop
) -> Painted:
    """Render, paint and write the pending rows, shard by shard, or those of the shards that were
    begun when a stop is asked for.

    Raises:
        EngineError, StoreError: shards that were finished before are written.
        Interrupted: by a second signal; only the shard being written is finished.
    """
    pending = writer.pending_rows()
    if not pending:
        return Painted()
    shards = list(pending)
    rows = {shard: [work.rows[i] for i in of_shard] for shard, of_shard in pending.items()}
    total = sum(row.copy > 0 and not row.rejected for shard in shards for row in rows[shard])
    painted = Painted(device=engine.device, precision=engine.precision)
    reporter.progress("painting", 0, total)
    stop.finishing = True
    began = time.monotonic()
    with (
        Behind(partial(_write, writer, work)) as writing,
        closing(_rendered(work, [row for s in shards for row in rows[s]], engine)) as rendered,
    ):
        stream = _Stream(rows, rendered, stop, writing)
        with closing(stream.outcomes(engine)) as outcomes:
            for shard in shards:
                made: list[Outcome] = []
                for row, outcome in zip(rows[shard], outcomes, strict=False):
                    made.append(outcome)
                    painted.images += row.copy > 0 and isinstance(outcome, Result)
                    reporter.progress("painting", painted.images, total)
                if len(made) < len(rows[shard]):
                    break
                writing.put(shard, pending[shard], rows[shard], made)
    stop.finishing = False
    painted.seconds = time.monotonic() - began
    return painted


class _Stream:
    """The rows' jobs on their way through an engine, and what needs none beside them."""

    def __init__(
        self,
        rows: Mapping[int, Sequence[Row]],
        rendered: Iterator[Rendered],
        stop: Stop,
        writing: Behind,
    ) -> None:
        """`rendered` has one item for each of `rows`, {shard: its rows}, in their order."""
        self._shards = [shard for shard, in_it in rows.items() for _ in in_it]
        self._shard_of = {row.sample_id: shard for shard, in_it in rows.items() for row in in_it}
        self._rendered = rendered
        self._stop = stop
        self._writing = writing
        self._begun = -1
        self._handed: deque[Rendered] = deque()  # jobs an engine has, and between them

    def outcomes(self, engine: Engine) -> Generator[Outcome, None, None]:
        """One a row, in order; it ends early where a stop was asked for."""
        with closing(engine.run(self._jobs(), self._begin, pad=True)) as results:
            for result in results:
                yield from self._without_job()
                self._handed.popleft()
                yield result
                yield from self._without_job()
        yield from self._without_job()

    def _jobs(self) -> Iterator[Job]:
        for shard, item in zip(self._shards, self._rendered, strict=True):
            if self._stop.signum and shard > self._begun:
                return
            self._handed.append(item)
            if isinstance(item, Job):
                yield item

    def _without_job(self) -> Iterator[Problem | None]:
        while self._handed and not isinstance(item := self._handed[0], Job):
            self._handed.popleft()
            yield item

    def _begin(self, jobs: Sequence[Job]) -> int:
        """How many of these are wanted: all, or after a stop those of shards begun before it."""
        self._writing.check()
        shards = [self._shard_of[job.sample_id] for job in jobs]
        if not self._stop.signum:
            self._begun = max(self._begun, shards[-1])
        return sum(shard <= self._begun for shard in shards)


def _rendered(work: Work, rows: Sequence[Row], engine: Engine) -> Generator[Rendered, None, None]:
    """One item a row; threads render about what the engine takes in the next two rounds.

    Beside a GPU several threads render, since one is slower than it; a CPU is busy with painting.
    """
    threads = 1 if engine.device.startswith("cpu") else (os.cpu_count() or 1) // 2
    threads = max(1, min(threads, MOST_RENDERERS))
    depth = threads + 2 * engine.at_once // RENDERED_TOGETHER
    chunks = ahead(partial(_render, work), _chunks(rows), threads=threads, depth=depth)
    with closing(chunks):
        for chunk in chunks:
            yield from chunk


def _render(work: Work, rows: Sequence[Row]) -> list[Rendered]:
    return list(work.jobs(rows))


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
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
) -> None:
    pixels, facts = work.shard(writer.image_shape, rows, outcomes)
    writer.write_shard(shard, pixels, facts, where)


def labelled_shard(
    image_shape: tuple[int, int], rows: Sequence[Row], outcomes: Sequence[Outcome]
) -> Shard:
    """Rows of a shard; what failed or was rejected is zeros, with its status and reason."""
    shape = (len(rows), *image_shape)
    images, masks = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    keep = np.zeros(shape, np.bool_)
    on_paint = np.full(len(rows), np.nan, np.float32)
    hashes, reasons = [], []
    for i, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        reason = why_not(row, outcome)
        if isinstance(outcome, Result) and not reason:
            images[i], masks[i], keep[i] = outcome.image, outcome.label, outcome.keep
            on_paint[i] = outcome.label_on_paint
        hashes.append("" if reason else sample_sha256(images[i], masks[i]))
        reasons.append(reason)
    return {"images": images, "masks": masks, "keep": keep}, {
        "label_on_paint": on_paint,
        "sha256": np.array(hashes, dtype=str),
        "reason": np.array(reasons, dtype=str),
        "status": statuses(outcomes, reasons),
    }


def statuses(outcomes: Sequence[Outcome], reasons: Sequence[str]) -> list[Status]:
    """What a store says became of the rows of a shard; a row without a reason is done."""
    return [
        Status.DONE if not reason else Status.REJECTED if outcome is None else Status.FAILED
        for outcome, reason in zip(outcomes, reasons, strict=True)
    ]


def why_not(row: Row, outcome: Outcome) -> str:
    """Why a row has no pixels; empty where it has."""
    if outcome is None:
        return f"no valid move in {row.tries} draws"
    return outcome.reason if isinstance(outcome, Problem) else outcome.error or ""
