"""`--to zarr` and `--to h5`: a store into another, whole or a part of its rows.

A whole store is copied value for value. A part keeps every column, the cases of its rows and the
origin's attributes, and says in the attribute `exported` what it was taken from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError, UsageError
from echogen.exports.selection import Chosen
from echogen.report import Reporter
from echogen.store import (
    SEAL,
    Status,
    StoreReader,
    StoreWriter,
    convert_to_h5,
    create_store,
    open_store,
    remove_store,
    resume_store,
    sample_sha256,
    working_store_path,
)

SHARD_SIZE = 32
STAGE = "exporting"
_OF_THE_COPY = ("complete", "format", "kind", "problems_at_planning", SEAL)


def check_suffix(to: str, output: Path) -> None:
    """Refuse an output whose name says another kind.

    Raises:
        UsageError: as said.
    """
    if output.suffix != f".{to}":
        raise UsageError(f"--out {output}: --to {to} makes a store whose name ends in .{to}.")


def copy_store(
    source: StoreReader,
    chosen: Chosen,
    output: Path,
    selection: Mapping[str, Any],
    overwrite: bool,
    reporter: Reporter,
) -> int:
    """Make the store at `output`, or what is lacking of it; call it under `store_lock`.

    Args:
        source: opened for reading.
        chosen: its rows.
        output: `.zarr` or `.h5`.
        selection: what was asked for, for the record.
        overwrite: replace a store that is there.
        reporter: where progress goes.

    Returns:
        Rows written by this call; 0 where everything was there.

    Raises:
        StoreError: the source is damaged, another store is at `output`, or the disk refuses.
    """
    wanted = _attributes(source, chosen, selection)
    working = working_store_path(output)
    if overwrite and not _is_same(working, wanted, chosen, complete=False):
        remove_store(output)
    if _is_there(output, wanted, chosen):
        _remove_working(output)
        return 0
    if working.exists():
        _check_same(working, wanted, output)
        writer = resume_store(working)
    else:
        writer = _create(working, source, chosen, wanted)
    written = 0
    pending = writer.pending_shards()
    for shard in pending:
        rows = writer.shard_rows(shard)
        pixels, facts = _read(source, chosen, rows)
        writer.write_shard(shard, pixels, facts)
        written += len(rows)
        reporter.progress(STAGE, len(chosen) - _left(writer, pending, shard), len(chosen))
    writer.set_complete()
    if working != output:
        reporter.tell(f"writing {output}")
        convert_to_h5(working, output)
        _remove_working(output)
    return written or len(chosen)


def _left(writer: StoreWriter, pending: list[int], shard: int) -> int:
    return sum(len(writer.shard_rows(later)) for later in pending if later > shard)


def _attributes(
    source: StoreReader, chosen: Chosen, selection: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of the source; with `exported`, where they are not all of its rows."""
    attrs = {name: value for name, value in source.attrs.items() if name not in _OF_THE_COPY}
    attrs["kind"] = source.kind
    if len(chosen) == len(source) and source.complete:
        return attrs
    part = {
        "from": source.path.name,
        "rows": len(chosen),
        "of": chosen.of,
        "selection": dict(selection),
        "sha256": chosen.digest,
    }
    before = {"before": attrs["exported"]} if "exported" in attrs else {}
    return {**attrs, "exported": {**part, **before}}


def _create(
    working: Path, source: StoreReader, chosen: Chosen, wanted: Mapping[str, Any]
) -> StoreWriter:
    shard_size = wanted.get("config", {}).get("store", {}).get("shard_size", SHARD_SIZE)
    skipped = int(source.attrs.get("problems_at_planning", len(source.problems)))
    return create_store(
        working,
        attrs=wanted,
        columns={column.name: chosen.columns[column.name] for column in source.layout.planned},
        cases=_cases(source, chosen),
        problems=source.problems[:skipped],
        image_shape=source.image_shape,
        shard_size=shard_size,
    )


def _cases(source: StoreReader, chosen: Chosen) -> list[dict[str, Any]]:
    """The table of cases as it is, unknown values included; of a part, the cases of its rows."""
    table = source.case_columns
    whole = len(chosen) == chosen.of
    needed = np.isin(table["id"], chosen.columns["case_id"]) | whole
    rows = zip(*(values[needed].tolist() for values in table.values()), strict=True)
    return [dict(zip(table, row, strict=True)) for row in rows]


def _read(
    source: StoreReader, chosen: Chosen, rows: range
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Pixels and outcomes of some of the chosen rows, held to their SHA-256."""
    which = chosen.rows[rows.start : rows.stop]
    pixels = {name: _pixels(source, name, which) for name in source.layout.pixels}
    facts = {
        column.name: chosen.columns[column.name][rows.start : rows.stop]
        for column in source.layout.outcomes
    }
    masks = pixels.get("masks")
    for i in np.flatnonzero(facts["status"] == Status.DONE):
        mask = None if masks is None else masks[i]
        if sample_sha256(pixels["images"][i], mask) != facts["sha256"][i]:
            name = chosen.columns["sample_id"][rows.start + i]
            raise StoreError(
                f"{source.path}: {name} does not have its recorded SHA-256: the store is damaged. "
                f"`echogen validate {source.path}` names what is, and how to mend it."
            )
    return pixels, facts


def _pixels(source: StoreReader, name: str, which: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    array = source.pixels(name)
    first, last = int(which[0]), int(which[-1])
    if last - first + 1 == len(which):
        return array[first : last + 1]
    return np.stack([array[int(row)] for row in which])


def _is_there(output: Path, wanted: Mapping[str, Any], chosen: Chosen) -> bool:
    """Whether `output` is this very store, complete; another one is refused."""
    if not output.exists() or not _complete(output):
        return False
    _check_same(output, wanted, output)
    if not _is_same(output, wanted, chosen, complete=True):
        raise StoreError(
            f"{output}: holds the same run with other samples. Choose another --out, or say "
            "--overwrite to replace it."
        )
    return True


def _complete(path: Path) -> bool:
    with open_store(path) as store:
        return store.complete


def _is_same(path: Path, wanted: Mapping[str, Any], chosen: Chosen, complete: bool) -> bool:
    if not path.exists():
        return False
    try:
        with open_store(path) as store:
            same = _comparable(store.attrs) == _comparable(wanted) and store.complete == complete
            if not complete:
                return same
            ids = ("sample_id", "sha256")
            return same and all(
                np.array_equal(store.columns[name], chosen.columns[name]) for name in ids
            )
    except StoreError:
        return False


def _check_same(path: Path, wanted: Mapping[str, Any], output: Path) -> None:
    with open_store(path) as store:
        found = _comparable(store.attrs)
    expected = _comparable(wanted)
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise StoreError(
                f"{output}: holds another store: its {name} differs from that of "
                "what is to be exported. Use the same settings to continue it, another --out, or "
                "--overwrite to replace it."
            )


def _comparable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if name not in _OF_THE_COPY}


def _remove_working(output: Path) -> None:
    working = working_store_path(output)
    if working != output:
        remove_store(working)
