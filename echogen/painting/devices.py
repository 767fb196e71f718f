"""Several devices of one machine: a process each, one queue of batches, images in order.

The parent gathers batches and hands each to the device with least to do: one is painted while the
next one already waits in its process. Batches that come early wait for their turn, and devices
that are far ahead wait too, so memory is bounded. A worker that dies ends the run.
"""

import atexit
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch

from echogen.config import EngineConfig, SamplerConfig
from echogen.diffusion.network import resolve_device
from echogen.errors import EchogenError, EngineError
from echogen.painting.engine import Begin, Canvas, Engine, Levels, batches
from echogen.painting.local import open_local
from echogen.painting.worker import (
    Answer,
    BatchSize,
    Failure,
    FindBatchSize,
    Notice,
    Order,
    Paint,
    PaintedBatch,
    Ready,
    SecondsPerImage,
    Task,
    TimeBatch,
    UseBatchSize,
    work,
)
from echogen.support.signals import signals_blocked

AT_A_DEVICE = 2  # batches: one being painted, one waiting
UNDER_WAY = 4  # batches a device between the first that is not finished and the last handed out
SECONDS_TO_END = 5.0

A = TypeVar("A", bound=Answer)


def resolve_devices(name: str) -> list[torch.device]:
    """The devices that a name means: `auto` and `cuda` all visible GPUs, a comma list each of its.

    Raises:
        EngineError: there is no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    names = [part.strip() for part in name.split(",")]
    if len(names) > 1 and not {"", "auto"}.isdisjoint(names):
        raise EngineError(
            f"device {name!r}: a list must name each device, such as cuda:0,cuda:1; auto "
            "cannot be combined."
        )
    return [resolve_device(part) for part in names]


def open_engine(
    checkpoint: str, sampler: SamplerConfig, engine: EngineConfig, tell: Callable[[str], None]
) -> Engine:
    """Load a checkpoint onto the device or the devices that were asked for.

    Args:
        checkpoint: a folder, or "builtin".
        sampler: its name and settings.
        engine: device, precision and batch size.
        tell: called with one line where something changed that a user should know.

    Raises:
        EngineError: no such device, or a worker's process died.
        CheckpointError: the network cannot be loaded.
    """
    devices = resolve_devices(engine.device)
    if len(devices) == 1:
        return open_local(checkpoint, sampler, engine, tell)
    threads = max(1, torch.get_num_threads() // len(devices))
    tasks = [
        Task(checkpoint, sampler, engine.model_copy(update={"device": str(device)}), threads)
        for device in devices
    ]
    return DevicesEngine(tasks, tell)


@dataclass
class _Worker:
    """One process, and the numbers of the batches that it has, the one being painted first."""

    device: str
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    queue: deque[int] = field(default_factory=deque)


@dataclass
class _Turn:
    """A batch in line; `wanted` is None until it is begun, `images` until it is painted."""

    batch: Sequence[Canvas]
    wanted: int | None = None
    images: list[Levels] | None = None

    @property
    def cut(self) -> bool:
        """Whether the run ends with this batch."""
        return self.wanted is not None and self.wanted < len(self.batch)


class DevicesEngine:
    """Paints on several devices; see `engine.Engine`. Close it: its processes wait for that.

    Attributes:
        tell: called with one line where something changed that a user should know.
        batch_size: images a batch, the same for all devices; 0 until `settle`.
        precision: the network's number format on all of them.
    """

    def __init__(self, tasks: Sequence[Task], tell: Callable[[str], None]) -> None:
        """Start a process for each task, and wait until each has loaded the model.

        Raises:
            EngineError: a process died.
            CheckpointError: the network cannot be loaded.
        """
        self.tell = tell
        self.batch_size = tasks[0].engine.batch_size
        self._workers: list[_Worker] = []
        self._turns: dict[int, _Turn] = {}
        self._number = 0
        atexit.register(self.close)  # before multiprocessing's own, which would wait for them
        try:
            self._start(tasks)
            self.precision = self._ask(None, Ready)[0].precision
        except BaseException:
            self.close()
            raise

    @property
    def device(self) -> str:
        """Where it paints: the devices, joined by commas."""
        return ",".join(worker.device for worker in self._workers)

    @property
    def at_once(self) -> int:
        """Images painted at the same time, on all devices together."""
        return self.batch_size * len(self._workers)

    def settle(self, expected: int) -> None:
        """Find one batch size for all devices by trial on each; the smallest one is taken."""
        if not self.batch_size:
            share = -(-expected // len(self._workers))
            answers = self._ask(FindBatchSize(share), BatchSize)
            self.batch_size = min(answer.size for answer in answers)
            for worker in self._workers:
                self._send(worker, UseBatchSize(self.batch_size))

    def seconds_per_image(self, images: int) -> float:
        """An estimate from a few evaluations on all devices together; 0 without images."""
        if not images:
            return 0.0
        answers = self._ask(TimeBatch(-(-images // len(self._workers))), SecondsPerImage)
        return 1.0 / sum(1.0 / answer.seconds for answer in answers)

    def run(
        self, canvases: Iterable[Canvas], begin: Begin = len, pad: bool = False
    ) -> Generator[Levels, None, None]:
        """Paint in order; holds a few batches a device. After a failure, close the engine."""
        gathered = batches(canvases, self)
        line: deque[_Turn] = deque()
        self._turns.clear()
        more = True
        while more or line:
            while more and len(line) < UNDER_WAY * len(self._workers):
                worker = min(self._workers, key=lambda worker: len(worker.queue))
                if len(worker.queue) == AT_A_DEVICE:
                    break
                batch = next(gathered, None)
                more = batch is not None
                if batch is not None:
                    line.append(self._hand(worker, batch, begin, pad))
                    more = not line[-1].cut
            while line and (images := line[0].images) is not None:
                turn = line.popleft()
                yield from images
                if turn.cut:
                    return
            if more or line:
                more = self._finish_some(begin) and more

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def _hand(self, worker: _Worker, batch: Sequence[Canvas], begin: Begin, pad: bool) -> _Turn:
        """Give a batch to a worker, which begins it at once where it has no other."""
        turn = _Turn(batch)
        if not worker.queue:
            turn.wanted = begin(batch)
            if not turn.wanted:
                turn.images = []
                return turn
        self._number += 1
        self._turns[self._number] = turn
        worker.queue.append(self._number)
        self._send(worker, Paint(self._number, batch[: turn.wanted], pad))
        return turn

    def _finish_some(self, begin: Begin) -> bool:
        """Wait for a batch; False where one that waited is no longer wanted, so no more are."""
        go_on = True
        for worker, answer in self._answers():
            if not isinstance(answer, PaintedBatch):
                continue
            turn = self._turns.pop(answer.number, None)
            if turn is not None:  # else of a run that was left
                turn.images = answer.images[: turn.wanted]
            following = self._turns.get(worker.queue[0]) if worker.queue else None
            if following is not None and following.wanted is None:
                following.wanted = begin(following.batch)
                if not following.wanted:
                    following.images = []
                go_on = go_on and not following.cut
        return go_on

    def _start(self, tasks: Sequence[Task]) -> None:
        context = get_context("spawn")
        with signals_blocked():  # inherited: a Ctrl-C while a worker starts is the parent's alone
            for task in tasks:
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, task))
                process.start()
                theirs.close()
                self._workers.append(_Worker(task.engine.device, process, ours))

    def _send(self, worker: _Worker, order: Order) -> None:
        try:
            worker.pipe.send(order)
        except OSError as error:
            raise death_of(worker.device, worker.process, worker.pipe) from error

    def _ask(self, order: Order | None, kind: type[A]) -> list[A]:
        """One answer of every worker, in the order of the devices."""
        if order is not None:
            for worker in self._workers:
                self._send(worker, order)
        found: dict[int, A] = {}
        while len(found) < len(self._workers):
            for worker, answer in self._answers():
                if isinstance(answer, kind):
                    found[self._workers.index(worker)] = answer
        return [found[i] for i in range(len(self._workers))]

    def _answers(self) -> Iterator[tuple[_Worker, Answer]]:
        """Wait for messages; lines are told, failures and deaths raised."""
        ready = connection.wait([worker.pipe for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            try:
                answer: Answer = worker.pipe.recv()
            except (EOFError, OSError) as error:
                raise death_of(worker.device, worker.process, worker.pipe) from error
            if isinstance(answer, Failure):
                raise answer.error
            if isinstance(answer, Notice):
                self.tell(answer.line)
                continue
            if isinstance(answer, PaintedBatch):
                worker.queue.remove(answer.number)
            yield worker, answer


def death_of(device: str, process: SpawnProcess, pipe: "Connection[Any, Any]") -> EchogenError:
    """How a worker whose pipe broke ended: its last message, or its exit code or signal."""
    try:
        while pipe.poll():
            answer = pipe.recv()
            if isinstance(answer, Failure):
                return answer.error
    except (EOFError, OSError):
        process.join(SECONDS_TO_END)
    code = process.exitcode
    how = f"ended with code {code}"
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    return EngineError(
        f"{device}: its process {how}, perhaps because it ran out of memory (or because "
        'your own script lacks `if __name__ == "__main__":`). Finished shards are kept; run the '
        "same command again to continue, or choose other devices with --device."
    )
