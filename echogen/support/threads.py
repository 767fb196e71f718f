"""Threads around a loop: `ahead` prepares what comes next, `Behind` finishes what is done.

Both hold a bounded number of things, so that memory does not grow with the work, and both raise in
the caller what went wrong in their threads as soon as they are used again.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    function: Callable[[T], R], items: Iterable[T], *, threads: int = 1, depth: int = 1
) -> Generator[R, None, None]:
    """`map(function, items)` with the next results made in threads; close it to end them.

    Args:
        function: called in a thread.
        items: taken in the caller's thread, never more than `depth` beyond the result handed out.
        threads: how many calls run at once.
        depth: results made or being made beyond the one handed out.

    Yields:
        Results in the order of the items. An exception of any call that has ended is raised before
        the results that come before it, so that no work is built on a run that has failed.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Behind:
    """Calls a function in one thread, in order, while the caller goes on.

    After a call that raised, none is made. Leaving the `with` block waits for every call that was
    put, and raises what one of them raised. Left by an error, it finishes them too; left by an
    interrupt, it finishes only the call at hand.
    """

    def __init__(self, function: Callable[..., None], *, depth: int = 2) -> None:
        """`depth` calls may wait; another `put` then waits for the first of them."""
        self._function = function
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(1)
        self._failed = False

    def put(self, *arguments: Any) -> None:
        """Call the function with these, later; raises what an earlier call raised."""
        self.check()
        if len(self._waiting) > self._depth:
            _next(self._waiting)
        self._waiting.append(self._pool.submit(self._call, *arguments))

    def check(self) -> None:
        """Raise what a call that has ended raised; waits for nothing."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = error is not None and not isinstance(error, Exception)
        self._pool.shutdown(wait=True, cancel_futures=interrupted)
        if error is None:
            self.check()

    def _call(self, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            self._function(*arguments)
        except BaseException:
            self._failed = True
            raise


def _next(waiting: deque[Future[R]]) -> R:
    for call in waiting:
        if call.done():
            call.result()
    return waiting.popleft().result()
