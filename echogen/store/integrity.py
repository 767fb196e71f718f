"""What of a store can still be trusted: read as it was written, with the digests it was given.

Whole shards are read at once, and row by row only where that fails, so that one damaged chunk costs
no more rows than it holds.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.store.reader import StoreReader
from echogen.store.schema import CASES, PROBLEMS, SAMPLES, Status, sample_sha256

Reasons = dict[int, str]
Rows = dict[str, npt.NDArray[Any]]


def units(store: StoreReader) -> Iterator[tuple[int, int]]:
    """(first row, one after the last) of each part of a store that is best read at once."""
    for start in range(0, len(store), store.rows_at_once):
        yield start, min(start + store.rows_at_once, len(store))


def damaged_rows(store: StoreReader, start: int = 0, stop: int | None = None) -> Reasons:
    """Rows of [start, stop) that are not what was written, each with a reason.

    A row is damaged where its status or another outcome cannot be read, where it is done and one of
    its pixel arrays cannot be read, where image and mask do not have their SHA-256, where none of
    its pixels is kept, or where its share of labels on paint is missing.

    Args:
        store: opened for reading.
        start: first row.
        stop: one after the last; the store's end where None.
    """
    return checked_rows(store, start, len(store) if stop is None else stop)[0]


def checked_rows(store: StoreReader, start: int, stop: int) -> tuple[Reasons, Rows]:
    """`damaged_rows`, and the pixels that were read for it.

    Args:
        store: opened for reading.
        start: first row.
        stop: one after the last.

    Returns:
        {row: reason}, and {array: (stop - start, h, w)}, which is empty where outcomes cannot be
        read; rows that are damaged or not done mean nothing in it.
    """
    try:
        status = store.columns.part("status", start, stop)
        recorded = store.columns.part("sha256", start, stop)
        on_paint = store.columns.part("label_on_paint", start, stop)
        for column in store.layout.outcomes:
            store.columns.part(column.name, start, stop)
    except StoreError as error:
        return dict.fromkeys(range(start, stop), _short(error)), {}
    found: Reasons = {
        start + int(i): f"its status is {status[i]}, which means nothing"
        for i in np.flatnonzero(~np.isin(status, [int(one) for one in Status]))
    }
    done = (np.flatnonzero(status == Status.DONE) + start).tolist()
    pixels = {name: _rows(store, name, start, stop, done, found) for name in store.layout.pixels}
    for row in done:
        if row in found:
            continue
        image = pixels["images"][row - start]
        mask = pixels["masks"][row - start] if "masks" in pixels else None
        if sample_sha256(image, mask) != recorded[row - start]:
            found[row] = "its pixels do not have the recorded SHA-256"
        elif "keep" in pixels and not pixels["keep"][row - start].any():
            found[row] = "keep is False everywhere: its chunk is missing"
        elif "keep" in pixels and np.isnan(on_paint[row - start]):
            found[row] = "its label_on_paint is missing"
    return dict(sorted(found.items())), pixels


def unreadable_columns(store: StoreReader) -> dict[str, str]:
    """{array: reason} of the planned columns and the tables of cases and problems that are damaged.

    No row can be trusted without them, and `mark_pending` cannot help.
    """
    found = {}
    for column in store.layout.planned:
        try:
            store.columns[column.name]
        except StoreError as error:
            found[f"{SAMPLES}/{column.name}"] = _short(error)
    for table, read in ((CASES, "case_columns"), (PROBLEMS, "skipped")):
        try:
            getattr(store, read)
        except StoreError as error:
            found[table] = _short(error)
    return found


def _rows(
    store: StoreReader, name: str, start: int, stop: int, wanted: list[int], found: Reasons
) -> npt.NDArray[Any]:
    """An array's rows of [start, stop); where one cannot be read, `found` says so."""
    array = store.pixels(name)
    try:
        return array[start:stop]
    except StoreError:
        pixels = np.zeros((stop - start, *array.shape[1:]), array.dtype)
    for row in wanted:
        try:
            pixels[row - start] = array[row]
        except StoreError as error:
            found.setdefault(row, _short(error))
    return pixels


def _short(error: StoreError) -> str:
    """What cannot be read and why, without the path and without advice for the whole store."""
    text = str(error).split(": ", 1)[-1]
    return text.split(". Restore", 1)[0].split(". Run", 1)[0]
