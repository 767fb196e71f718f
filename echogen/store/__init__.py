"""The output store: one schema, one writer and one reader, over Zarr v3 and HDF5.

    with own_output(output):
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

from echogen.store.hdf5 import convert_to_h5, present_store_path, working_store_path
from echogen.store.integrity import checked_rows, damaged_rows, units, unreadable_columns
from echogen.store.opening import check_replaceable, is_store, open_store, remove_store
from echogen.store.output import StoreOutput, check_output, create_part, own_output
from echogen.store.reader import StoreReader
from echogen.store.record import StoreRecord
from echogen.store.repair import mark_pending
from echogen.store.schema import (
    COLUMNS,
    EXPANDED,
    FORMAT,
    GENERATED,
    MOST_REPAINTS,
    NOT_FINITE,
    Column,
    Layout,
    Status,
    sample_sha256,
)
from echogen.store.seal import SEAL, broken_seal
from echogen.store.shared import shared_store
from echogen.store.writer import StoreWriter
from echogen.store.zarr_store import create_store, resume_store
from echogen.support.lock import lock_path, store_lock

__all__ = [
    "COLUMNS",
    "EXPANDED",
    "FORMAT",
    "GENERATED",
    "MOST_REPAINTS",
    "NOT_FINITE",
    "SEAL",
    "Column",
    "Layout",
    "Status",
    "StoreOutput",
    "StoreReader",
    "StoreRecord",
    "StoreWriter",
    "broken_seal",
    "check_output",
    "check_replaceable",
    "checked_rows",
    "convert_to_h5",
    "create_part",
    "create_store",
    "damaged_rows",
    "is_store",
    "lock_path",
    "mark_pending",
    "open_store",
    "own_output",
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
