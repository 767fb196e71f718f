"""One process at a time for one store: a lock on `<store>.lock` beside it.

The kernel drops the lock with the process that holds it, so that a killed process is no obstacle.
The file names its holder, for the message that a second process gets.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from echogen.errors import StoreError
from echogen.support.files import make_folder
from echogen.support.reading import read_json
from echogen.support.words import one_line

MOST_BYTES = 2**12


def lock_path(store: Path) -> Path:
    """`<store>.lock`, beside the store."""
    return store.with_name(store.name + ".lock")


@contextmanager
def store_lock(store: Path) -> Iterator[None]:
    """Hold the lock of `store`, which need not exist yet; its folder is made where it is missing.

    Raises:
        StoreError: another process holds it (named), or the lock file cannot be made.
    """
    path = lock_path(store)
    # a soft lock would outlive a killed process
    lock = FileLock(path, blocking=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{store} is in use by {_holder(path)}. Wait for it to finish, or stop it; then run "
            "the same command again."
        ) from None
    except OSError as error:
        raise StoreError(
            f"{path}: cannot create the lock file ({error.strerror}). Choose an output in a folder "
            "that you can write to, on a disk that has free space and supports file locks."
        ) from error
    try:
        yield
    finally:
        if lock.is_locked:  # not in a forked child that unwinds through here
            path.unlink(missing_ok=True)  # while locked: whoever opened it before must open anew
            lock.release()


def _sign(descriptor: int) -> None:
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode() + b"\n", 0)


def _holder(path: Path) -> str:
    try:
        who = read_json(path, StoreError, most=MOST_BYTES)
        pid, host, since = (one_line(who[name], 100) for name in ("pid", "host", "since"))
        return f"another process (pid {pid} on {host} since {since})"
    except (OSError, KeyError, TypeError):
        return "another process"  # it has locked the file but not yet signed it, or just left
