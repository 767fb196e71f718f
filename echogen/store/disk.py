"""What a full or refusing disk and a damaged file become: one line that says how to go on."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from echogen.errors import StoreError
from echogen.store.schema import MAKE_AGAIN

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 4096  # bytes
DAMAGE = (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError,
          ArithmeticError, AssertionError, MemoryError)  # fmt: skip
"""What zarr and h5py raise on files that are not what was written."""


REPAIR = (
    "Run `echogen validate` with --repair to mark all damaged samples, and then the command that "
    "made the store; or restore the store from a copy."
)
"""What to do about damage to what is a row's own."""


@contextmanager
def reading(path: Path, what: str, advice: str = MAKE_AGAIN) -> Iterator[None]:
    """Turns whatever a damaged file raises while `what` is read into one `StoreError`.

    It ends with `advice`: `REPAIR` where `mark_pending` can mend `what`.
    """
    try:
        yield
    except StoreError:
        raise
    except DAMAGE as error:
        cause = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        if isinstance(error, OSError) and error.strerror:
            cause = error.strerror
        why = next(iter(str(cause).strip().splitlines()), "") or type(error).__name__
        raise StoreError(
            f"{path}: {what} cannot be read: missing or damaged ({why}). {advice}"
        ) from error


@contextmanager
def disk_errors(path: Path, needed: int, files: int = 1) -> Iterator[None]:
    """Turns what a disk raises into one `StoreError`.

    Args:
        path: of the store.
        needed: bounds what the write at hand takes, bytes.
        files: that it writes, each of which takes a block more at most.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        again = "run the same command again: it continues after the last finished unit of work"
        if error.errno not in _FULL:
            raise StoreError(
                f"{error.filename2 or error.filename or path}: cannot be written "
                f"({error.strerror or error}). "
                f"Put that right and {again}."
            ) from error
        raise StoreError(
            f"{path}: the disk is full: the next write takes up to "
            f"{_size(needed + files * _BLOCK)}, "
            f"{_free(path, needed + files * _BLOCK, error.errno == errno.EDQUOT)}. Free some space "
            f"and {again}."
        ) from error


def _free(path: Path, needed: int, quota: bool) -> str:
    """What is free, and what else limits a write where that would do."""
    try:
        folder = next(place for place in (path, *path.parents) if place.exists())
        found = os.statvfs(folder)
    except (OSError, StopIteration):
        return "free is unknown"
    free = found.f_bavail * found.f_frsize
    limit = ""
    if quota:
        limit = ", but a quota is used up"
    elif found.f_files and not found.f_favail:
        limit = ", but no more files fit on it (it has no free inode): remove some"
    elif free >= needed:
        limit = ", after what was begun was removed; more was in use meanwhile"
    return f"free is {_size(free)}{limit}"


def _size(count: int) -> str:
    """Bytes in a unit that shows them: `64 kB`, `1.5 MB`."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{-(-count // 1000)} kB"
