"""Worker processes around a loop: results in the order of the items, in bounded memory.

They are started once their start has paid: the first calls are made here, and processes begin where
that has taken as long as starting them does, if what is left is worth it. Workers end with their
parent however it ends, and where they cannot work at all, the calls are made here.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

START_S = 1.0
"""Seconds a process takes to start: less work than that is done sooner without one."""
CHUNK = 4
CHUNKS_AHEAD = 4

_call: Callable[[Any], Any]


def in_workers(
    function: Callable[..., R], items: Sequence[T], shared: tuple[Any, ...], workers: int
) -> Generator[R, None, None]:
    """`function(item, *shared)` of every item, in order; close it to end the workers.

    Args:
        function: of a module, so that it can be pickled.
        items: small; each is sent once.
        shared: sent to each worker once.
        workers: processes; 0 takes one a core, 1 makes the calls here.

    Raises:
        Exception: what a call raised.
    """
    cores = workers or os.cpu_count() or 1
    finished, spent = 0, 0.0
    while finished < len(items) and not _pays(finished, len(items), spent, cores):
        began = time.monotonic()
        result = function(items[finished], *shared)
        spent += time.monotonic() - began
        finished += 1
        yield result
    if finished < len(items):
        yield from _in_pool(function, items[finished:], shared, cores)


def _pays(finished: int, total: int, spent: float, cores: int) -> bool:
    """Whether processes would save more than their start takes, as far as calls tell so far."""
    left = total - finished
    busy = min(cores, -(-left // CHUNK))  # a process takes so many calls at a time
    saved = spent / max(finished, 1) * left * (1 - 1 / busy)
    return cores > 1 and min(spent, saved) >= START_S


def _in_pool(
    function: Callable[..., R], items: Sequence[T], shared: tuple[Any, ...], cores: int
) -> Generator[R, None, None]:
    count, finished = min(cores, len(items)), 0
    pool = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_enter, initargs=(function, shared)
    )
    try:
        for results in _in_order(pool, items, CHUNKS_AHEAD * count):
            for result in results:
                finished += 1
                yield result
    except BrokenProcessPool:
        # Such as a script without a main guard, or a worker killed for its memory.
        yield from (function(item, *shared) for item in items[finished:])
    except BaseException:
        # Not asked to end, but ended: a signal may have come between a worker and its queue.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, items: Sequence[Any], depth: int
) -> Iterator[Sequence[Any]]:
    waiting: deque[Future[list[Any]]] = deque()
    for start in range(0, len(items), CHUNK):
        waiting.append(_submit(pool, items[start : start + CHUNK]))
        if len(waiting) == depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _submit(pool: ProcessPoolExecutor, items: Sequence[Any]) -> Future[list[Any]]:
    # A process started here inherits the blocked SIGINT: Ctrl-C is the parent's to answer.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work, items)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(items: Sequence[Any]) -> list[Any]:
    return [_call(item) for item in items]


def _enter(function: Callable[..., Any], shared: tuple[Any, ...]) -> None:
    global _call  # a process has one job, and sending `shared` with every item would be slow

    def call(item: Any) -> Any:
        return function(item, *shared)

    _call = call
    die_with_parent()


def die_with_parent() -> None:
    """End this process with its parent: a killed parent cannot tell its workers to stop."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
