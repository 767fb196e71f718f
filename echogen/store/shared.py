"""Stores that a process reads again and again: opened once, and anew when they were replaced."""

import os
from pathlib import Path

from echogen.store.opening import open_store
from echogen.store.reader import StoreReader
from echogen.support.files import stamp

_shared: dict[Path, tuple[tuple[int, ...], StoreReader]] = {}


def shared_store(path: Path) -> StoreReader:
    """The store at `path`, as it lies there now; others must not close it.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    # every change of a run touches this file
    now = stamp(path / "zarr.json" if path.is_dir() else path)
    known = _shared.get(path)
    if known is not None and known[0] == now:
        return known[1]
    if known is not None:
        del _shared[path]
        known[1].close()
    opened = open_store(path)
    _shared[path] = now, opened
    return opened


def _close_all() -> None:
    while _shared:
        _shared.popitem()[1][1].close()


# two processes must not share an open HDF5 file
os.register_at_fork(before=_close_all)
