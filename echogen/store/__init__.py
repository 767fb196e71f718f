"""The output store: one schema, one writer and one reader, over Zarr v3 and HDF5.

    with store_lock(output):
        writer = create_store(path, attrs=..., columns=..., cases=..., problems=...,
                              image_shape=(h, w), shard_size=32)      # or resume_store(path)
        for shard in writer.pending_shards():
            rows = writer.shard_rows(shard)
            writer.write_shard(shard, {"images": ..., "masks": ..., "keep": ...},
                               {"status": ..., "sha256": ..., "label_on_paint": ...})
        writer.set_complete()
    with open_store(output) as store:
        store.attrs, store.columns["depth"], store.images[0], store.cases, store.problems

`path` is `working_store_path(output)`; for an `.h5` output, `convert_to_h5(path, output)` follows.
Nothing here knows of plans, engines or torch, and zarr and h5py load when they are first needed.
"""

from pathlib import Path

from echogen.errors import StoreError
from echogen.store.hdf5 import (
    convert_to_h5,
    open_h5,
    present_store_path,
    working_store_path,
)
from echogen.store.integrity import checked_rows, damaged_rows, units, unreadable_columns
from echogen.store.reader import StoreReader
from echogen.store.record import StoreRecord
from echogen.store.repair import mark_pending
from echogen.store.schema import (
    COLUMNS,
    EXPANDED,
    FORMAT,
    GENERATED,
    PLANNED,
    Column,
    Layout,
    Status,
    sample_sha256,
)
from echogen.store.seal import SEAL, broken_seal
from echogen.store.shared import shared_store
from echogen.store.writer import StoreWriter
from echogen.store.zarr_store import (
    check_zarr,
    create_store,
    open_zarr,
    remove_zarr,
    resume_store,
)
from echogen.support.lock import lock_path, store_lock

__all__ = [
    "COLUMNS",
    "EXPANDED",
    "FORMAT",
    "GENERATED",
    "PLANNED",
    "SEAL",
    "Column",
    "Layout",
    "Status",
    "StoreReader",
    "StoreRecord",
    "StoreWriter",
    "broken_seal",
    "check_replaceable",
    "checked_rows",
    "convert_to_h5",
    "create_store",
    "damaged_rows",
    "is_store",
    "lock_path",
    "mark_pending",
    "open_store",
    "present_store_path",
    "remove_store",
    "resume_store",
    "sample_sha256",
    "shared_store",
    "store_lock",
    "units",
    "unreadable_columns",
    "working_store_path",
]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_store(path: Path) -> bool:
    """Whether a path is a store or is called one, rather than a dataset's folder."""
    if path.suffix in (".zarr", ".h5") or path.is_file():
        return True
    return (path / "zarr.json").is_file()


def open_store(path: Path) -> StoreReader:
    """Opens a store for reading: a Zarr folder or an HDF5 file, told apart by what it is.

    An unfinished Zarr store opens too; `complete` tells.

    Raises:
        StoreError: not there, not a store, of a newer format, or damaged.
    """
    if path.is_file():
        _check_h5(path)
        return open_h5(path)
    working = working_store_path(path)
    if working != path and not path.exists() and working.exists():
        raise StoreError(
            f"{path} is not there yet: the run that makes it is unfinished, in {working.name}. "
            "Run the same command again, or give that path."
        )
    return open_zarr(path)


def check_replaceable(path: Path) -> None:
    """Refuses to call something a store that may be removed, unless it is one; see `remove_store`.

    Raises:
        StoreError: what lies at `path`, or at its working store's place, is not an echogen store.
    """
    for place in dict.fromkeys((path, working_store_path(path))):
        if place.is_file():
            _check_h5(place)
            try:
                open_h5(place).close()
            except StoreError as error:
                raise StoreError(
                    f"{place} is left as it is: it cannot be told to be an echogen store. "
                    "If you do not need it, delete it yourself."
                ) from error
        elif place.exists():
            check_zarr(place)


def remove_store(path: Path) -> None:
    """Removes the store at `path` and, for an `.h5`, its working store; nothing that is not one.

    Call it under `store_lock`. Where nothing exists, nothing happens.

    Raises:
        StoreError: what lies there is not an echogen store, or the disk refuses.
    """
    check_replaceable(path)
    for place in dict.fromkeys((path, working_store_path(path))):
        if place.is_file():
            try:
                place.unlink()
            except OSError as error:
                raise StoreError(f"{place}: cannot be removed ({error.strerror}).") from error
        elif place.exists():
            remove_zarr(place)


def _check_h5(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}).") from error
    if start != _HDF5_SIGNATURE:
        raise StoreError(
            f"{path} is not an echogen store: it is neither a Zarr folder nor an HDF5 file. "
            "Give a store made by `echogen expand` or `echogen sample`."
        )
