"""Faults where a process meets its operating system: disks that refuse, and sudden death.

Python tells of every step that changes the disk just before it takes it: a file that is opened to
be written, renamed or removed, a folder that is made. There a step can fail, or be the last one.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = {
    "open": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2,
    "os.symlink": 2, "os.truncate": 1, "os.chmod": 1,
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watching: list[Callable[[str, tuple[str, ...]], None]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching or event not in _PLACES:
        return
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & _WRITES:
            return
        event = "open" if flags & os.O_TRUNC else "change"
    last = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
    folder = Path()
    if isinstance(last, int) and last >= 0:
        folder = Path(f"/proc/self/fd/{last}").readlink()
    places = []
    for place in arguments[: _PLACES.get(event, 1)]:
        if not isinstance(place, str | bytes | os.PathLike):
            return  # a descriptor: what it is of was heard when it was opened
        places.append(str((folder / os.fsdecode(place)).absolute()))
    for watch in tuple(_watching):
        watch(event, tuple(places))


sys.addaudithook(_hear)  # for good: Python takes none back


@contextmanager
def on_change(watch: Callable[[str, tuple[str, ...]], None]) -> Iterator[None]:
    """Calls `watch` with the event and its paths before each change of the disk.

    What it raises, the change raises. "open" empties a file, "change" opens one to be written to.
    """
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.remove(watch)


@contextmanager
def on_rename(watch: Callable[[str], None]) -> Iterator[None]:
    """Calls `watch` with a file's new name before each rename; what it raises, the rename raises.

    Stores write every file beside its place and rename it, so a disk that refuses can be had here.
    """
    with on_change(lambda event, places: watch(places[1]) if event == "os.rename" else None):
        yield


@contextmanager
def on_disk() -> Iterator[list[tuple[str, list[str]]]]:
    """What a power cut could take back: (new name, what was not on the disk yet) of each rename.

    A file's bytes are on the disk once it was synchronised, its name once its folder was. What is
    built in a hidden `.NAME.creating` counts when it takes its place; locks do not count.
    """
    loose: set[tuple[str, str]] = set()  # ("bytes" or "name", path)
    seen: list[tuple[str, list[str]]] = []
    synchronise = os.fsync

    def fsync(descriptor: int) -> None:
        synchronise(descriptor)
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        loose.discard(("bytes", path))
        loose.difference_update({(k, p) for k, p in loose if k == "name" and _above(p) == path})

    def watch(event: str, places: tuple[str, ...]) -> None:
        if places[0].endswith(".lock"):
            return
        if event == "os.rename":
            loose.discard(("name", places[0]))  # that is to go
        if event == "os.rename" and ".creating/" not in places[1]:
            seen.append((places[1], sorted(f"{kind} of {path}" for kind, path in loose)))
        if event == "os.rename":
            for kind, path in sorted(loose):
                if path == places[0] or path.startswith(f"{places[0]}/"):
                    loose.discard((kind, path))
                    if kind == "bytes":
                        loose.add((kind, places[1] + path[len(places[0]) :]))
            loose.add(("name", places[1]))
        elif event in ("open", "change"):
            loose.add(("bytes", places[0]))
        elif event == "os.mkdir" and not Path(places[0]).exists():
            loose.add(("name", places[0]))
        elif event in ("os.remove", "os.rmdir"):
            loose.difference_update({(k, p) for k, p in loose if p == places[0]})

    os.fsync = fsync
    try:
        with on_change(watch):
            yield seen
    finally:
        os.fsync = synchronise


def _above(path: str) -> str:
    return str(Path(path).parent)


def every_kill(
    root: Path,
    prepare: Callable[[], object],
    command: Callable[[], object],
    check: Callable[[str], None],
    *,
    concerns: Callable[[str], bool] = lambda place: True,
    again: Callable[[], object] | None = None,
) -> int:
    """Kills a command at every change that it makes on the disk, runs it again, and has a look.

    A file that is opened to be written is killed at twice: before, and when it is there but empty.
    What would not change anything, such as the removal of what is not there, does not count.

    Args:
        root: changes elsewhere do not count.
        prepare: makes what is there before, each time anew.
        command: what is killed; both it and its repetition run in processes of their own.
        check: told where it was killed; asserts that all is as if nothing had happened.
        concerns: which paths count.
        again: what is run after the kill, if it is not the command itself.

    Returns:
        How many times it was killed.
    """
    kills = 0
    while True:
        prepare()
        where = _killed(command, root, kills, concerns)
        if not where:
            return kills
        code = in_child(again or command)
        assert code == 0, f"killed before {where}, the same command fails"
        check(where)
        kills += 1


def in_child(command: Callable[[], object]) -> int:
    """Runs it in a forked process: 0, or 1 for what it raised, or the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which none is at work
        child = os.fork()
    if child == 0:
        code = 1
        try:
            command()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killed(
    command: Callable[[], object], root: Path, number: int, concerns: Callable[[str], bool]
) -> str:
    """Where a command was killed, at its change of this number; empty if it makes fewer."""
    reading, writing = os.pipe()
    left = number

    def die(what: str) -> None:
        nonlocal left
        if left == 0:
            os.write(writing, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def watch(event: str, places: tuple[str, ...]) -> None:
        if not any(Path(place).is_relative_to(root) and concerns(place) for place in places):
            return
        first = Path(places[0])
        creates = event in ("open", "change", "os.mkdir", "os.symlink")
        if (event == "os.mkdir" and first.exists()) or not (creates or os.path.lexists(first)):
            return  # changes nothing
        what = " ".join((event, *(os.path.relpath(place, root) for place in places)))
        die(what)
        if event == "open" and not (first.exists() and first.stat().st_size == 0):
            if left == 0:
                _watching.clear()
                first.write_bytes(b"")
            die(f"writing {what}")

    def run() -> None:
        _watching.append(watch)
        command()

    code = in_child(run)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        where = pipe.read().decode()
    assert code in (0, -signal.SIGKILL), "the command fails undisturbed"
    return where


def contents(folder: Path) -> dict[str, bytes | None]:
    """{path below: bytes} of a folder's files, hidden ones too; None of its folders."""
    return {
        place.relative_to(folder).as_posix(): None if place.is_dir() else place.read_bytes()
        for place in sorted(folder.rglob("*"))
    }
