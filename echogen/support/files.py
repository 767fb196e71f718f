"""Files: checked before the work and written whole or not at all, and whether one was changed."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from echogen.errors import UsageError

_PARTIAL = re.compile(r"\.(.+)\.\d+\.partial", re.DOTALL)


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_writable(flag: str, path: Path, *suffixes: str) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Args:
        flag: that names the file, for the message.
        path: of the file; one that exists will be replaced.
        suffixes: that its name may have; none given allows any.

    Raises:
        UsageError: another suffix, something other than a file in its place, or no folder to
            write it to.
    """
    kind = f"a {suffixes[0]} file" if suffixes else "a file"
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"{flag} {path}: expected {kind}; change the name's ending.")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; expected {kind} to write.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path}: is not a regular file; expected {kind} to write.")
    if not path.parent.is_dir():
        raise UsageError(
            f"{flag} {path}: the folder {path.parent} does not exist; create it first."
        )
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: no permission to write to the folder {path.parent}.")


def stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does, to keep what was read of it; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def write_whole(
    path: Path, content: str | bytes | Callable[[Path], object], *, durable: bool = False
) -> None:
    """Write a file beside its place, and put it there: it is the old one or the new one, whole.

    Args:
        path: of the file; its folder must exist.
        content: text, written as UTF-8; bytes; or a function that writes the file it is given.
        durable: wait until the disk has the file and its name, so that a power cut spares them.

    Raises:
        OSError: it cannot be written; nothing is left of the attempt.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if callable(content):
            content(beside)
        else:
            beside.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            to_disk(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        to_disk(path.parent)


def write_private(path: Path, content: str) -> None:
    """`write_whole` of a text that nobody but its owner may read (mode 0600).

    Raises:
        OSError: as `write_whole`.
    """

    def write(place: Path) -> None:
        place.unlink(missing_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content.encode())

    write_whole(path, write)


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove what a killed `write_whole` left of these files; nobody else may be writing them."""
    files: dict[Path, set[str]] = {}
    for path in paths:
        files.setdefault(path.parent, set()).add(path.name)
    for folder, names in files.items():
        for place in list(folder.iterdir()) if folder.is_dir() else []:
            partial = _PARTIAL.fullmatch(place.name)
            if partial and partial[1] in names:
                place.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk; it need not exist."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
