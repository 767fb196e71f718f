"""Damaged rows become pending again, so that the run that made a store remakes exactly those.

Nothing is removed that could still be read, and every step may be killed and repeated.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from echogen.errors import StoreError
from echogen.store.disk import disk_errors
from echogen.store.hdf5 import open_h5, working_store_path
from echogen.store.reader import StoreReader
from echogen.store.schema import SHARD_SIZE
from echogen.store.writer import StoreWriter
from echogen.store.zarr_store import create_store, remove_zarr, resume_store
from echogen.support.lock import store_lock

_OF_THE_STORE = ("format", "complete", "problems_at_planning")


def mark_pending(output: Path, rows: Collection[int]) -> Path:
    """Gives rows of a store back to the run that makes it; the others keep what they hold.

    In a Zarr store only the rows' status changes, and the store is no longer complete. A finished
    HDF5 file cannot be continued: its other rows are copied into the working store beside it, and
    the file is kept as `x.h5.damaged`.

    Args:
        output: as the run was told: `x.zarr`, or `x.h5`, finished or not.
        rows: of the store; those that are pending already stay so.

    Returns:
        The store in which they are pending now.

    Raises:
        StoreError: another process writes it, what is planned of its samples is damaged, a shard of
            rows that are not given is, or the disk refuses.
    """
    with store_lock(output):
        if output.is_file():
            return _continued(output, set(rows))
        working = working_store_path(output)
        path = output if output.exists() else working
        resume_store(path).mark_pending(rows)
        return path


def _continued(output: Path, rows: set[int]) -> Path:
    """The working store that goes on with a finished HDF5 file."""
    working = working_store_path(output)
    if working.exists():
        remove_zarr(working)
    with open_h5(output) as store:
        skipped = int(store.attrs.get("problems_at_planning", 0))
        writer = create_store(
            working,
            attrs={k: v for k, v in store.attrs.items() if k not in _OF_THE_STORE},
            columns={column.name: store.columns[column.name] for column in store.layout.planned},
            cases=store.cases,
            problems=store.problems[:skipped],
            image_shape=store.image_shape,
            shard_size=int(store.attrs.get("config", {}).get("store", {}).get("shard_size", 0))
            or SHARD_SIZE,
        )
        for shard in range(writer.n_shards):
            kept = [row for row in writer.shard_rows(shard) if row not in rows]
            if kept:
                _copy(store, writer, shard, kept)
    with disk_errors(output, 0):
        output.rename(_aside(output))
    return working


def _copy(store: StoreReader, writer: StoreWriter, shard: int, rows: list[int]) -> None:
    start, stop = rows[0], rows[-1] + 1
    inside = [row - start for row in rows]
    writer.write_shard(
        shard,
        {name: np.stack([store.pixels(name)[row] for row in rows]) for name in store.layout.pixels},
        {
            column.name: store.columns.part(column.name, start, stop)[inside]
            for column in store.layout.outcomes
        },
        rows,
    )


def _aside(output: Path) -> Path:
    """A free name for the damaged file."""
    for number in range(1, 1000):
        ending = ".damaged" if number == 1 else f".damaged-{number}"
        path = output.with_name(output.name + ending)
        if not path.exists():
            return path
    raise StoreError(f"{output}: 999 damaged files are kept beside it. Remove some.")
