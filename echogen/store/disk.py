"""What a full or refusing disk becomes: one line that says how much is needed and how to go on."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from echogen.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path, needed: int) -> Iterator[None]:
    """Turns what a disk raises into one `StoreError`; `needed` bounds the write at hand, bytes."""
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
            f"{path}: the disk is full: the next write takes up to {max(needed, 1) / 1e6:.1f} MB, "
            f"free is {_free(path)}. Free some space and {again}."
        ) from error


def _free(path: Path) -> str:
    try:
        folder = next(place for place in (path, *path.parents) if place.exists())
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
    except (OSError, StopIteration):
        return "unknown"
