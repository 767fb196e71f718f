"""The process of one device: batches of canvases come in by a pipe, painted images go back.

It loads the model once, and ends by itself when the pipe's other end closes, whatever ended the
parent. Messages are the records below; arrays travel pickled.
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from echogen.errors import EchogenError, EngineError
from echogen.support.signals import leave_signals_to_parent

if TYPE_CHECKING:
    from echogen.config import EngineConfig, SamplerConfig
    from echogen.painting.engine import Canvas, Levels
    from echogen.painting.local import LocalEngine


@dataclass(frozen=True)
class Task:
    """What a worker is: the model, the sampler, its one device, and its share of the threads."""

    checkpoint: str
    sampler: "SamplerConfig"
    engine: "EngineConfig"
    threads: int


@dataclass(frozen=True)
class FindBatchSize:
    """To a worker: by trial, for about so many images. It answers `BatchSize`."""

    expected: int


@dataclass(frozen=True)
class UseBatchSize:
    """To a worker: paint batches of this size."""

    size: int


@dataclass(frozen=True)
class TimeBatch:
    """To a worker: time a batch of so many images. It answers `SecondsPerImage`."""

    images: int


@dataclass(frozen=True)
class Paint:
    """To a worker: a batch, by its number; `pad` as in `Engine.run`. It answers `PaintedBatch`."""

    number: int
    canvases: "Sequence[Canvas]"
    pad: bool


@dataclass(frozen=True)
class Ready:
    """From a worker: the model is loaded."""

    precision: str


@dataclass(frozen=True)
class BatchSize:
    """From a worker: what it found."""

    size: int


@dataclass(frozen=True)
class SecondsPerImage:
    """From a worker: what it measured."""

    seconds: float


@dataclass(frozen=True)
class PaintedBatch:
    """From a worker: the batch of that number, in order."""

    number: int
    images: "list[Levels]"


@dataclass(frozen=True)
class Notice:
    """From a worker: a line for the user."""

    line: str


@dataclass(frozen=True)
class Failure:
    """From a worker: its last message."""

    error: EchogenError


Order = FindBatchSize | UseBatchSize | TimeBatch | Paint
Answer = Ready | BatchSize | SecondsPerImage | PaintedBatch | Notice | Failure


def work(connection: "Connection[Any, Any]", task: Task) -> None:
    """The main function of a worker's process."""
    leave_signals_to_parent()
    inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    try:
        load = partial(_load, task)
        connection.send(until_failure(task.engine.device, load, inbox.get, connection.send))
    except OSError:
        os._exit(1)  # the parent has gone


def until_failure(
    device: str,
    load: Callable[[Callable[[Answer], None]], "LocalEngine"],
    take: Callable[[], Order],
    send: Callable[[Answer], None],
) -> Failure:
    """Load an engine and serve with it; what goes wrong names the device."""
    try:
        serve(load(send), take, send)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except EchogenError as error:
        return Failure(error)
    except Exception as error:
        line = " ".join(str(error).split())
        return Failure(EngineError(f"{device}: {type(error).__name__}: {line}"))


def serve(
    engine: "LocalEngine", take: Callable[[], Order], send: Callable[[Answer], None]
) -> NoReturn:
    """Answer orders, one after the other, until the process ends."""
    send(Ready(engine.precision))
    while True:
        match take():
            case FindBatchSize(expected):
                engine.settle(expected)
                send(BatchSize(engine.batch_size))
            case UseBatchSize(size):
                engine.batch_size = size
            case TimeBatch(images):
                send(SecondsPerImage(engine.seconds_per_image(images)))
            case Paint(number, canvases, pad):
                send(PaintedBatch(number, engine.paint(canvases, pad)))


def _load(task: Task, send: Callable[[Answer], None]) -> "LocalEngine":
    import torch

    from echogen.painting.local import open_local

    torch.set_num_threads(task.threads)
    device = torch.device(task.engine.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return open_local(task.checkpoint, task.sampler, task.engine, lambda line: send(Notice(line)))


def _receive(connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[Order]") -> None:
    """Take orders in while a batch is painted; the pipe's end is the process's end."""
    try:
        while True:
            inbox.put(connection.recv())
    finally:
        os._exit(1)
