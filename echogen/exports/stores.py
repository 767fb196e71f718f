"""`--to zarr` and `--to h5`: a store into another, whole or a part of its rows.

A whole store is copied value for value. A part keeps every column, the cases of its rows and the
origin's attributes, and says in the attribute `exported` what it was taken from.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError, UsageError
from echogen.exports.selection import Excerpt
from echogen.report import Reporter
from echogen.store import (
    SEAL,
    Status,
    StoreOutput,
    StoreReader,
    StoreWriter,
    create_part,
    sample_sha256,
)

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
    excerpt: Excerpt,
    output: Path,
    selection: Mapping[str, Any],
    overwrite: bool,
    reporter: Reporter,
) -> int:
    """Make the store at `output`, or what is lacking of it; call it under `own_output`.

    Args:
        source: opened for reading.
        excerpt: its rows.
        output: `.zarr` or `.h5`.
        selection: what was asked for, for the record.
        overwrite: replace a store that is there.
        reporter: where progress goes.

    Returns:
        Rows written by this call; 0 where everything was there.

    Raises:
        StoreError: the source is damaged, another store is at `output`, or the disk refuses.
    """
    wanted = _attributes(source, excerpt, selection)
    target = StoreOutput(
        output, partial(_check_same, wanted=wanted, excerpt=excerpt, output=output)
    )
    if overwrite:
        target.replace()
    if target.finished():
        return 0
    writer = target.resume() or create_part(target.working, source, excerpt.rows.tolist(), wanted)
    written = 0
    pending = writer.pending_shards()
    for shard in pending:
        rows = writer.shard_rows(shard)
        writer.write_shard(shard, *_read(source, excerpt, rows))
        written += len(rows)
        reporter.progress("exporting", len(excerpt) - _left(writer, pending, shard), len(excerpt))
    target.publish(writer, reporter)
    return written or len(excerpt)


def _left(writer: StoreWriter, pending: list[int], shard: int) -> int:
    return sum(len(writer.shard_rows(later)) for later in pending if later > shard)


def _attributes(
    source: StoreReader, excerpt: Excerpt, selection: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of the source; with `exported`, where they are not all of its rows."""
    attrs = {**_comparable(source.attrs), "kind": source.kind}
    if len(excerpt) == len(source) and source.complete:
        return attrs
    part = {
        "from": source.path.name,
        "rows": len(excerpt),
        "of": excerpt.of,
        "selection": dict(selection),
        "sha256": excerpt.digest,
    }
    before = {"before": attrs["exported"]} if "exported" in attrs else {}
    return {**attrs, "exported": {**part, **before}}


def _read(
    source: StoreReader, excerpt: Excerpt, rows: range
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Pixels and outcomes of some of the excerpt rows, held to their SHA-256."""
    pixels, facts = source.read_rows(excerpt.rows[rows.start : rows.stop].tolist())
    masks = pixels.get("masks")
    for i in np.flatnonzero(facts["status"] == Status.DONE):
        mask = None if masks is None else masks[i]
        if sample_sha256(pixels["images"][i], mask) != facts["sha256"][i]:
            name = excerpt.columns["sample_id"][rows.start + i]
            raise StoreError(
                f"{source.path}: {name} does not have its recorded SHA-256: the store is damaged. "
                f"`echogen validate {source.path}` names what is, and how to mend it."
            )
    return pixels, facts


def _check_same(
    store: StoreReader, wanted: Mapping[str, Any], excerpt: Excerpt, output: Path
) -> None:
    """Refuse a store that is not this export's."""
    found, expected = _comparable(store.attrs), _comparable(wanted)
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise StoreError(
                f"{output}: holds another store: its {name} differs from this export's. Use the "
                "same settings to continue it, another --out, or --overwrite to replace it."
            )
    ids = ("sample_id", "sha256") if store.complete else ()
    if not all(np.array_equal(store.columns[name], excerpt.columns[name]) for name in ids):
        raise StoreError(
            f"{output}: contains the same run with other samples. Choose another --out, or use "
            "--overwrite to replace it."
        )


def _comparable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if name not in _OF_THE_COPY}
