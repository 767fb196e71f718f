"""Worker processes around a loop: results in the order of the items, in bounded memory.

They are started once their start has paid: the first calls are made here, and processes begin where
that has taken as long as starting them does, if what is left is worth it. Workers end with their
parent however it ends, and where they cannot work at all, the calls are made here. A worker that
dies, such as of a C library at a damaged file, costs the item that it was at: that one is tried
again in a process of its own. Nothing protects the calls that are made here from such a library:
what is handed to one is checked before, always.
"""

import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from echogen.errors import EngineError
from echogen.support.words import one_line

T = TypeVar("T")
R = TypeVar("R")

START_S = 1.0
"""Seconds a process takes to start: less work than that is done sooner without one."""
CHUNK = 4
CHUNKS_AHEAD = 4

AT_WORK, DONE = 1, 2

_call: Callable[[int, Any], Any]


class ProcessDied(Exception):
    """A call ended its process, once in a pool and again in one of its own; the text says how."""


def in_workers(
    function: Callable[..., R],
    items: Sequence[T],
    shared: tuple[Any, ...],
    workers: int,
    died: Callable[[T, ProcessDied], R] | None = None,
) -> Generator[R, None, None]:
    """`function(item, *shared)` of every item, in order; close it to end the workers.

    Args:
        function: of a module, so that it can be pickled.
        items: small; each is sent once.
        shared: sent to each worker once.
        workers: processes; 0 takes one a core, 1 makes the calls here.
        died: gives what stands for the result of an item whose call ends its process; without it,
            that is an error.

    Raises:
        Exception: what a call raised.
        EngineError: a call ended its process, and there is no `died`.
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
        yield from _in_pools(function, items[finished:], shared, cores, died)


def _pays(finished: int, total: int, spent: float, cores: int) -> bool:
    """Whether processes would save more than their start takes, as far as calls tell so far."""
    left = total - finished
    busy = min(cores, -(-left // CHUNK))  # a process takes so many calls at a time
    saved = spent / max(finished, 1) * left * (1 - 1 / busy)
    return cores > 1 and min(spent, saved) >= START_S


def _in_pools(
    function: Callable[..., R],
    items: Sequence[T],
    shared: tuple[Any, ...],
    cores: int,
    died: Callable[[T, ProcessDied], R] | None,
) -> Generator[R, None, None]:
    """The results of a pool, and of another one where workers died, but for what they died of."""
    known: dict[int, R] = {}
    finished, works = 0, True
    while finished < len(items):
        if finished in known:
            yield known.pop(finished)
            finished += 1
            continue
        if not works:
            yield function(items[finished], *shared)
            finished += 1
            continue
        left = [place for place in range(finished, len(items)) if place not in known]
        begun = get_context("spawn").RawArray("b", len(items))
        try:
            with closing(_in_pool(function, items, left, shared, cores, begun)) as results:
                for _, result in results:
                    while finished in known:
                        yield known.pop(finished)
                        finished += 1
                    finished += 1
                    yield result
        except BrokenProcessPool:
            # A call that ended its worker, a worker killed for its memory, or a script without a
            # main guard, whose workers never begin.
            suspects = [place for place in left if place >= finished and begun[place] == AT_WORK]
            works = bool(suspects)
            for place in suspects:
                known[place] = _again(function, items[place], shared, died)


def _again(
    function: Callable[..., R],
    item: T,
    shared: tuple[Any, ...],
    died: Callable[[T, ProcessDied], R] | None,
) -> R:
    try:
        return apart(function, item, *shared)
    except ProcessDied as how:
        if died is None:
            raise EngineError(
                f"a worker process ended twice at the same piece of work ({how}); with little "
                "memory use fewer workers, else report it."
            ) from how
        return died(item, how)


def apart(function: Callable[..., R], *args: Any) -> R:
    """`function(*args)` in a process of its own.

    Args:
        function: of a module, so that it can be pickled.
        args: for it, too.

    Raises:
        Exception: what the call raised.
        ProcessDied: the call ended the process.
    """
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(there, _parcel(function, args)), daemon=True)
    try:
        _without_sigint(process.start)
        there.close()
        try:
            fine, value = pickle.loads(here.recv_bytes())
        except EOFError:
            process.join()
            raise ProcessDied(_how(process.exitcode or 0)) from None
        process.join()
    finally:
        here.close()
        if process.is_alive():
            process.kill()
    if fine:
        return value  # type: ignore[no-any-return]
    raise value


def _tell(told: Connection, parcel: Any) -> None:
    die_with_parent()
    try:
        function, args = _unpacked(parcel)
        answer = True, function(*args)
    except Exception as error:
        answer = False, error
    try:
        content = pickle.dumps(answer)
        pickle.loads(content)
    except Exception as error:  # not every exception can be made again
        content = pickle.dumps((False, EngineError(one_line(f"{answer[1]!r}: {error}", 300))))
    told.send_bytes(content)


def _how(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    return f"signal {-exitcode}"


def _in_pool(
    function: Callable[..., R],
    items: Sequence[T],
    places: Sequence[int],
    shared: tuple[Any, ...],
    cores: int,
    begun: Any,
) -> Generator[tuple[int, R], None, None]:
    """(place, result) of the items at these places; `begun` has for each whether it is at work.

    Raises:
        BrokenProcessPool: a worker died.
    """
    count = min(cores, len(places))
    pool = ProcessPoolExecutor(
        count,
        mp_context=get_context("spawn"),
        initializer=_enter,
        initargs=(_parcel(function, shared), begun),
    )
    try:
        for results in _in_order(pool, items, places, CHUNKS_AHEAD * count):
            yield from results
    except BrokenProcessPool:
        raise
    except BaseException:
        # Not asked to end, but ended: a signal may have come between a worker and its queue.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, items: Sequence[Any], places: Sequence[int], depth: int
) -> Iterator[Sequence[tuple[int, Any]]]:
    waiting: deque[Future[list[tuple[int, Any]]]] = deque()
    for start in range(0, len(places), CHUNK):
        chunk = [(place, items[place]) for place in places[start : start + CHUNK]]
        waiting.append(_without_sigint(pool.submit, _work, chunk))
        if len(waiting) == depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _without_sigint(call: Callable[..., R], *args: Any) -> R:
    """A call that may start a process, which inherits the blocked SIGINT: Ctrl-C is ours."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return call(*args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(chunk: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return [(place, _call(place, item)) for place, item in chunk]


def _parcel(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A function and its arguments in memory that processes share.

    Sent as they are, they go through a pipe that this process holds open itself: it would wait for
    ever for one that dies before it has read them.
    """
    content = pickle.dumps((function, args))
    parcel = get_context("spawn").RawArray("c", len(content))
    parcel.raw = content
    return parcel


def _unpacked(parcel: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return pickle.loads(parcel.raw)  # type: ignore[no-any-return]


def _enter(parcel: Any, begun: Any) -> None:
    global _call  # a process has one job, and sending `shared` with every item would be slow
    function, shared = _unpacked(parcel)

    def call(place: int, item: Any) -> Any:
        begun[place] = AT_WORK
        result = function(item, *shared)
        begun[place] = DONE
        return result

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
