"""A store's seal: one digest of what its run was and planned, written when the store is created.

Chunks have checksums of their own, but a chunk, an array or an attribute that is lost or edited
leaves nothing to check: what is missing reads as a fill value. The seal covers all of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.store.reader import StoreReader
from echogen.store.schema import CASES, COLUMNS, PROBLEMS, SAMPLES, as_text
from echogen.support.reading import read_json

SEAL = "seal"
_LATER = (SEAL, "complete")  # of the attributes: written again after the store was created

Columns = Mapping[str, npt.NDArray[Any]]


def seal_of(
    attrs: Mapping[str, Any], planned: Columns, cases: Columns, added: Iterable[str] = ()
) -> str:
    """Hex SHA-256 of the attributes, the planned columns and the table of cases.

    Args:
        attrs: the root attribute `echogen`.
        planned: {name: values}.
        cases: {name: values}.
        added: names of outcome columns that older stores lack, so that a store which has them
            cannot lose them unseen.
    """
    fixed = {name: value for name, value in attrs.items() if name not in _LATER}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode())
    for table, columns in ((SAMPLES, planned), (CASES, cases)):
        for name in sorted(columns):
            digest.update(f"\n{table}/{name}\n".encode())
            digest.update(_content(columns[name]))
    for name in sorted(added):
        digest.update(f"\n{SAMPLES}/{name}\n".encode())
    return digest.hexdigest()


def broken_seal(store: StoreReader) -> str:
    """What contradicts a store's seal, in one sentence; empty where it holds, or there is none.

    Raises:
        StoreError: a planned column cannot be read.
    """
    lost = [name for name in (SAMPLES, CASES, PROBLEMS) if not _is_group(store, name)]
    if lost:
        return f"the group {lost[0]} has lost its metadata (zarr.json)"
    recorded = store.record.seal
    if not recorded:
        newer = any(column.added and column.name not in store.absent for column in COLUMNS)
        return "the attribute `echogen` has lost its seal" if newer else ""
    names = {column.name for column in store.layout.planned} - store.absent
    planned = {name: store.columns[name] for name in names}
    added = {column.name for column in store.layout.outcomes if column.added} - store.absent
    if seal_of(store.attrs, planned, store.case_columns, added) == recorded:
        return ""
    return (
        "the attribute `echogen`, a planned column or the table of cases is not what the run "
        "wrote: edited, or a file of it is lost"
    )


def _content(values: npt.NDArray[Any]) -> bytes:
    array = np.asarray(values)
    if array.dtype.kind in "OSUT":
        return "\0".join(as_text(array).tolist()).encode()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _is_group(store: StoreReader, name: str) -> bool:
    if not store.path.is_dir():
        return True
    try:
        found = read_json(store.path / name / "zarr.json", StoreError)
    except (FileNotFoundError, StoreError):
        return False
    return isinstance(found, dict) and found.get("node_type") == "group"
