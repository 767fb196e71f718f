"""The process of one device: batches come in by a pipe, grey levels go back.

It loads the model once, and ends by itself when the pipe's other end closes, whatever ended the
parent. Messages are the records below; arrays travel pickled.
"""

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from echogen.errors import EchogenError, EngineError
from echogen.support.signals import leave_signals_to_parent

if TYPE_CHECKING:
    from echogen.config import AnySampler, EngineConfig
    from echogen.painting.batches import Painted
    from echogen.painting.local import LocalEngine


@dataclass(frozen=True)
class Task:
    """What a worker is: the model, the sampler, its one device, and its share of the threads."""

    checkpoint: str
    sampler: "AnySampler"
    engine: "EngineConfig"
    threads: int


@dataclass(frozen=True)
class Settle:
    """To a worker: find a batch size for about so many images. It answers `Settled`."""

    expected: int


@dataclass(frozen=True)
class UseBatches:
    """To a worker: paint batches of this size."""

    size: int


@dataclass(frozen=True)
class Measure:
    """To a worker: time a batch of so many images. It answers `Measured`."""

    images: int


@dataclass(frozen=True)
class Paint:
    """To a worker: (n, h, w) float32 and bool, n seeds. It answers `Finished`."""

    number: int
    image: npt.NDArray[np.float32]
    keep: npt.NDArray[np.bool_]
    seeds: list[int]
    pad: bool


@dataclass(frozen=True)
class Ready:
    """From a worker: the model is loaded."""

    precision: str


@dataclass(frozen=True)
class Settled:
    """From a worker: the batch size that it found."""

    size: int


@dataclass(frozen=True)
class Measured:
    """From a worker: seconds an image."""

    seconds: float


@dataclass(frozen=True)
class Finished:
    """From a worker: the batch of that number."""

    number: int
    painted: "Painted"


@dataclass(frozen=True)
class Told:
    """From a worker: a line for the user."""

    line: str


@dataclass(frozen=True)
class Failed:
    """From a worker: its last message."""

    error: EchogenError


Order = Settle | UseBatches | Measure | Paint
Answer = Ready | Settled | Measured | Finished | Told | Failed


def work(connection: "Connection[Any, Any]", task: Task) -> None:
    """The main function of a worker's process."""
    leave_signals_to_parent()
    inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    try:
        connection.send(_serve_until_failure(connection, inbox, task))
    except OSError:
        os._exit(1)  # the parent has gone


def _serve_until_failure(
    connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[Order]", task: Task
) -> Failed:
    try:
        serve(_load(task, connection.send), inbox.get, connection.send)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except EchogenError as error:
        return Failed(error)
    except Exception as error:
        line = " ".join(str(error).split())
        return Failed(EngineError(f"{task.engine.device}: {type(error).__name__}: {line}"))


def serve(
    engine: "LocalEngine", take: Callable[[], Order], send: Callable[[Answer], None]
) -> NoReturn:
    """Answer orders, one after the other, until the process ends."""
    import torch

    send(Ready(engine.precision))
    while True:
        order = take()
        match order:
            case Settle():
                engine.settle(order.expected)
                send(Settled(engine.batch_size))
            case UseBatches():
                engine.batch_size = order.size
            case Measure():
                send(Measured(engine.measure(order.images)))
            case Paint():
                image, keep = torch.from_numpy(order.image), torch.from_numpy(order.keep)
                if engine.denoiser.device.type == "cuda":
                    image, keep = image.pin_memory(), keep.pin_memory()
                send(Finished(order.number, engine.paint(image, keep, order.seeds, order.pad)))


def _load(task: Task, send: Callable[[Answer], None]) -> "LocalEngine":
    import torch

    from echogen.painting.local import open_local

    torch.set_num_threads(task.threads)
    device = torch.device(task.engine.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return open_local(task.checkpoint, task.sampler, task.engine, lambda line: send(Told(line)))


def _receive(connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[Order]") -> None:
    """Take orders in while a batch is painted; the pipe's end is the process's end."""
    try:
        while True:
            inbox.put(connection.recv())
    finally:
        os._exit(1)
