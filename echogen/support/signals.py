"""Ctrl-C and SIGTERM: finish the unit of work at hand, then stop; a second one stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Stopped by a signal where nothing had to be finished; not an error, so not an Exception.

    Attributes:
        signum: 2 for Ctrl-C, 15 for SIGTERM.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass
class Stop:
    """Whether a stop was requested.

    Attributes:
        signum: the first signal, or 0.
        finishing: True while a unit of work should be finished before stopping.
    """

    signum: int = 0
    finishing: bool = False


@contextmanager
def catch_signals(tell: Callable[[str], None], unit: str = "shard") -> Iterator[Stop]:
    """Turn signals into a `Stop`; outside the main thread nothing is caught.

    Args:
        tell: hears that the run will stop.
        unit: of work that is finished before.

    Raises:
        Interrupted: at a signal while `finishing` is False, or at the second one.
    """
    stop = Stop()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if stop.finishing and not stop.signum:
            stop.signum = signum
            tell(
                f"stopping after the current {unit}; interrupt again to stop at once "
                "(nothing is lost)"
            )
            return
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold signals back; a process started meanwhile begins with them held back too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """In a worker's process: Ctrl-C and SIGTERM reach a whole group, but are the parent's."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
