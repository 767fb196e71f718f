"""Stores that a process reads again and again: opened once, and anew when they were replaced."""

from pathlib import Path

from echogen.store.reader import StoreReader

Stamp = tuple[int, int, int]

_shared: dict[Path, tuple[Stamp, StoreReader]] = {}


def shared_store(path: Path) -> StoreReader:
    """The store at `path`, as it lies there now; others must not close it.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    from echogen.store import open_store

    stamp = _stamp(path)
    known = _shared.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    if known is not None:
        del _shared[path]
        known[1].close()
    opened = open_store(path)
    _shared[path] = stamp, opened
    return opened


def _stamp(path: Path) -> Stamp:
    """Of the file that every change of a run touches; zeros where there is none."""
    try:
        found = (path / "zarr.json" if path.is_dir() else path).stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns
