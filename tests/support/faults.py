"""Faults where a process meets its operating system: a file that cannot be put in its place."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_watching: list[Callable[[str], None]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.rename":
        for watch in _watching:
            watch(str(arguments[1]))


sys.addaudithook(_hear)  # for good: Python takes none back


@contextmanager
def on_rename(watch: Callable[[str], None]) -> Iterator[None]:
    """Calls `watch` with a file's new name before each rename; what it raises, the rename raises.

    Stores write every file beside its place and rename it, so a disk that refuses can be had here.
    """
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.remove(watch)
