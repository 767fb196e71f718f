"""Files and folders: checked before the work, then there whole or not at all, and on the disk.

What is made lies beside its place until it is whole: `.NAME.partial`, a file, or `.NAME.creating`,
a folder. `.NAME.replaced` and `.NAME.removing` are what is about to go. A kill may leave any of
them; whoever makes the same thing again, alone in its place, removes them.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from echogen.errors import UsageError

_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM)
"""What a kernel, a container or a file system answers that knows no exchange, or no fsync."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EBADF)
_CLAIMS = 100
_LONGEST_NAME = 255  # bytes, on the usual file systems


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_writable(flag: str, path: Path, *suffixes: str, apart: Iterable[Path] = ()) -> None:
    """Refuse, before any work, a file that could not or should not be written after it.

    Args:
        flag: that names the file, for the message.
        path: of the file; a regular file that is there will be replaced.
        suffixes: of which its name has one.
        apart: the datasets and stores that the command reads or makes; see `check_apart`.

    Raises:
        UsageError: another suffix; a folder, a FIFO or a device in its place, such as /dev/stdout,
            or a link to one; no folder to write it to, or one of those that are read.
    """
    name, kind = f"{flag} {path}", f"a {suffixes[0]} file"
    if len(os.fsencode(partial_path(path).name if path.name else "")) > _LONGEST_NAME:
        raise UsageError(f"{name}: is too long a name; give a shorter one.")
    if path.is_dir():
        raise UsageError(f"{name}: is a folder; expected {kind} to write.")
    if os.path.lexists(path) and not path.is_file():
        raise UsageError(
            f"{name}: is not a regular file; expected {kind} to write, no device, pipe or link to "
            "nothing."
        )
    if path.suffix not in suffixes:
        raise UsageError(f"{name}: expected {kind}; change the name's ending.")
    if not path.parent.is_dir():
        raise UsageError(f"{name}: the folder {path.parent} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{name}: no permission to write to the folder {path.parent}.")
    for place in apart:
        check_apart(flag, path, place)


def check_apart(flag: str, path: Path, place: Path) -> None:
    """Refuse to write into a dataset or store that the command reads, or around it.

    Args:
        flag: that names what is written, for the message.
        path: of what is written.
        place: the dataset or store. Links lead into it, too.

    Raises:
        UsageError: one lies in the other, or they are one.
    """
    if _lies_in(path, place) or _lies_in(place, path):
        raise UsageError(
            f"{flag} {path}: must not be inside {place}, or contain it; give another place."
        )


def stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does, to keep what was read of it; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def write_whole(
    path: Path, content: str | bytes | Callable[[Path], object], *, mode: int | None = None
) -> None:
    """Write a file beside its place, and put it there: it is the old one or the new one, whole.

    The disk has it, and its name, when this returns: not even a power cut takes it back.

    Args:
        path: of the file; its folder must exist.
        content: text, written as UTF-8; bytes; or a function that writes the file it is given.
        mode: its permissions; None leaves them to the user's mask.

    Raises:
        OSError: it cannot be written, or another process is writing it; nothing is left of the
            attempt.
    """
    beside = partial_path(path)
    descriptor = _claim(beside, path)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        if callable(content):
            content(beside)
        else:
            beside.write_bytes(content.encode() if isinstance(content, str) else content)
        to_disk(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    to_disk(path.parent)


def write_private(path: Path, content: str) -> None:
    """`write_whole` of a text that nobody but its owner may read (mode 0600).

    Raises:
        OSError: as `write_whole`.
    """
    write_whole(path, content, mode=0o600)


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove what a killed `write_whole` left of these files; nobody else may be writing them."""
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            partial_path(path).unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and have the disk keep their names.

    Raises:
        OSError: one cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        to_disk(place.parent)


def partial_path(path: Path) -> Path:
    """Where a file is written that `write_whole` then puts at `path`."""
    return _beside(path, "partial")


def creating_path(path: Path) -> Path:
    """Where a folder is made that `put_folder` then puts at `path`, or at what this links to."""
    return _beside(_real(path), "creating")


def put_folder(made: Path, path: Path) -> None:
    """Put a folder in its place in one step, once all of it is on the disk; what is there goes.

    Call it where nobody else replaces `path`. Where the file system cannot exchange two names in
    one step, a kill may leave nothing at `path`; `clear_leftovers` puts the old one back.

    Args:
        made: the folder, at `creating_path`.
        path: a folder that may be removed, a link to one, or nothing.

    Raises:
        OSError: the disk refuses; what was at `path` is still there.
    """
    tree_to_disk(made)
    old, path = made, _real(path)
    if not os.path.lexists(path):
        made.rename(path)
    elif not exchange(made, path):
        old = _beside(path, "replaced")
        path.rename(old)
        try:
            made.rename(path)
        except BaseException:
            old.rename(path)
            raise
    to_disk(path.parent)
    if old.exists():
        _discard(old, path)


def remove_folder(path: Path) -> None:
    """Remove a folder, or what a link leads to; a kill leaves nothing of it in its place.

    Raises:
        OSError: the disk refuses.
    """
    clear_leftovers(path)
    _discard(_real(path), _real(path))


def clear_leftovers(path: Path) -> None:
    """Put back what a kill left of a replacement of `path`, and remove what it left beside.

    Call it where nobody else makes, replaces or removes `path`. Only names are removed that are
    made here, or by the stores' conversion. What somebody still has open may stay, under a name
    that is in nobody's way.

    Raises:
        OSError: the disk refuses.
    """
    kinds = "creating|removing|replaced|converting|partial"
    for one in {path, _real(path)}:
        old = _beside(one, "replaced")
        if old.is_dir() and not old.is_symlink() and not os.path.lexists(one):
            old.rename(one)
        ours = re.compile(rf"\.{re.escape(one.name)}\.({kinds})(-\d+)?")
        for place in list(one.parent.iterdir()) if one.parent.is_dir() else []:
            if not ours.fullmatch(place.name):
                continue
            if place.is_dir() and not place.is_symlink():
                _discard(place, one)
            else:
                place.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the kernel or the file system cannot.

    Raises:
        OSError: one of them is not there, or the disk refuses.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    sys.audit("os.rename", os.fspath(one), os.fspath(other), -1, -1)
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk; it need not exist.

    Raises:
        OSError: the disk refuses.
    """
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _UNKNOWN:  # a file system without: it keeps what it can
                raise
        finally:
            os.close(descriptor)


def tree_to_disk(folder: Path) -> None:
    """`to_disk` of every file and folder in a folder, itself last.

    Raises:
        OSError: the disk refuses.
    """
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            to_disk(Path(place, name))
        to_disk(Path(place))


def real_path(path: str | Path) -> Path:
    """The absolute path without links; of those that lead in a circle, as far as they do not."""
    return Path(os.path.realpath(path))  # Path.resolve ends in a RuntimeError there


def _lies_in(path: Path, place: Path) -> bool:
    """Whether a path is a place or is inside it, by its name or by where its links lead."""
    starts = (path.absolute(), real_path(path))
    above = {real_path(folder) for start in starts for folder in (start, *start.parents)}
    return real_path(place) in above


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _real(path: Path) -> Path:
    """The folder that a path means: on another disk, it may be a link."""
    return real_path(path) if path.is_symlink() else path


def _discard(place: Path, path: Path) -> None:
    """Remove a folder that lies at, or beside, `path`: as a whole first, so that no half stays.

    On a network's disk, files that somebody has open cannot go; the next call finds what is left.
    """
    if ".removing" not in place.suffix:
        doomed = _beside(path, "removing")
        number = 0
        while os.path.lexists(doomed):
            number += 1
            doomed = _beside(path, f"removing-{number}")
        place.rename(doomed)
        to_disk(path.parent)  # else a power cut may bring back the name, and half of what it held
        place = doomed
    shutil.rmtree(place, ignore_errors=True)


def _claim(beside: Path, path: Path) -> int:
    """A descriptor of `beside`, new and empty, held by a lock that ends with this process.

    What a killed process left there is removed, also that of another user in a shared folder.
    """
    for _ in range(_CLAIMS):
        descriptor, new = _open(beside)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if new:
                continue  # another process took it for a leftover, and is about to remove it
            break
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        with suppress(FileNotFoundError):  # whoever held it has put it in its place
            if os.path.samestat(os.fstat(descriptor), beside.lstat()):
                if new:
                    return descriptor
                beside.unlink()
        os.close(descriptor)
    raise OSError(errno.EBUSY, "another process is writing it", str(path))


def _open(beside: Path) -> tuple[int, bool]:
    """A descriptor of a file, and whether it was made for it."""
    with suppress(FileExistsError):
        return os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    try:
        return os.open(beside, os.O_RDWR | os.O_NOFOLLOW), False
    except PermissionError:
        return os.open(beside, os.O_RDONLY | os.O_NOFOLLOW), False
    except FileNotFoundError:
        return _open(beside)
