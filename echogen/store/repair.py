"""Damaged rows become pending again, so that the run that made a store remakes exactly those.

Nothing is removed that could still be read, and every step may be killed and repeated.
"""

from collections.abc import Collection
from pathlib import Path

from echogen.errors import StoreError
from echogen.store.disk import disk_errors
from echogen.store.hdf5 import open_h5, working_store_path
from echogen.store.output import create_part, own_output
from echogen.store.zarr_store import remove_zarr, resume_store
from echogen.support.files import to_disk

_OF_THE_STORE = ("format", "complete", "problems_at_planning")


def mark_pending(output: Path, rows: Collection[int]) -> Path:
    """Gives rows of a store back to the run that makes it; the others keep what they hold.

    In a Zarr store only the rows' status changes, and the store is no longer complete. A finished
    HDF5 file cannot be continued: its other rows are copied into the working store beside it, and
    the file is kept as `x.h5.damaged`.

    Args:
        output: the run's: `x.zarr`, or `x.h5`, finished or not.
        rows: of the store; those that are pending already stay so.

    Returns:
        The store in which they are pending now.

    Raises:
        StoreError: another process writes it, what is planned of its samples is damaged, a shard of
            rows that are not given is, or the disk refuses.
    """
    with own_output(output):
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
        attrs = {k: v for k, v in store.attrs.items() if k not in _OF_THE_STORE}
        writer = create_part(working, store, range(len(store)), attrs)
        for shard in range(writer.n_shards):
            kept = [row for row in writer.shard_rows(shard) if row not in rows]
            if kept:
                writer.write_shard(shard, *store.read_rows(kept), kept)
    with disk_errors(output, 0):
        output.rename(_aside(output))
        to_disk(output.parent)
    return working


def _aside(output: Path) -> Path:
    """A free name for the damaged file."""
    for number in range(1, 1000):
        ending = ".damaged" if number == 1 else f".damaged-{number}"
        path = output.with_name(output.name + ending)
        if not path.exists():
            return path
    raise StoreError(f"{output}: 999 damaged files are kept beside it. Remove some.")
