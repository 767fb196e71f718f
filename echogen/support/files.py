"""Files: checked before the work and written whole or not at all, and whether one was changed."""

import os
from collections.abc import Callable
from pathlib import Path

from echogen.errors import UsageError


def check_writable(flag: str, path: Path, *suffixes: str) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Args:
        flag: that names the file, for the message.
        path: of the file; one that is there is replaced.
        suffixes: that its name may have; any where there is none.

    Raises:
        UsageError: another suffix, something else than a file in its place, or no folder that it
            could be written to.
    """
    kind = f"a {suffixes[0]} file" if suffixes else "a file"
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"{flag} {path}: expected {kind}; name it so.")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; expected {kind} to write.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path}: is no regular file; expected {kind} to write.")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: no such folder as {path.parent}; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: you may not write to the folder {path.parent}.")


def stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does, to keep what was read of it; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, and put it there.

    Args:
        path: of the file.
        write: called with where to write it; what is left there on any failure is removed.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
