"""One process at a time for one store: an flock on `<store>.lock` beside it.

The kernel drops the lock with the process that holds it, so one left behind by a killed process is
no obstacle. The file names its holder for the message that a second process gets.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from echogen.errors import StoreError

_held: set[int] = set()


def _close_in_child() -> None:
    # flock belongs to the open file: a forked worker that outlives its parent would keep it
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def lock_path(store: Path) -> Path:
    """`<store>.lock`, beside the store."""
    return store.with_name(store.name + ".lock")


@contextmanager
def store_lock(store: Path) -> Iterator[None]:
    """Holds the lock of `store` (which need not exist yet); its folder is made where it lacks.

    Raises:
        StoreError: another process holds it (named), or the lock file cannot be made.
    """
    path = lock_path(store)
    descriptor = _acquire(store, path)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked child that unwinds through here
            _held.discard(descriptor)
            # unlinked while still locked: whoever waits finds another inode and opens anew
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire(store: Path, path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{path}: the lock file cannot be made ({error.strerror}). "
                "Choose an output in a folder that you may write to."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                _sign(descriptor)
                return descriptor
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(
                    f"{store} is in use by {holder}. Wait until it has finished, or stop it; "
                    "then run the same command again."
                ) from None
            raise StoreError(
                f"{path}: cannot be locked ({error.strerror}). "
                "Choose an output on a disk with room that supports file locks."
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed the file between our open and our lock


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode() + b"\n", 0)


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
        return f"another process (pid {who['pid']} on {who['host']} since {who['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has locked the file but not yet signed it
