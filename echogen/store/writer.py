"""Writing a Zarr store shard by shard, resumable at any instant.

Pixels reach the disk before the rows that call them done, and columns written with a shard are
chunked like it, so that a kill, or a power cut, loses at most the shard at hand.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.store.disk import REPAIR, disk_errors, reading
from echogen.store.reader import Columns, failed_samples
from echogen.store.schema import (
    PROBLEMS,
    ROOT_ATTRIBUTE,
    SAMPLES,
    Status,
    as_text,
    layout_of,
    outcome_columns,
)

_NO_SHARD = (ValueError, LookupError, TypeError, RuntimeError, AttributeError, ArithmeticError,
             AssertionError, IsADirectoryError, NotADirectoryError, FileExistsError)  # fmt: skip
"""What is raised where a shard is to be written and something else is in its place."""


class StoreWriter:
    """Writes the shards of one store; see `create_store` and `resume_store`.

    Hold `store_lock` around it: two writers of one store are not detected here.

    Attributes:
        path: the `.zarr` folder.
        attrs: the root attribute, as JSON holds it.
        layout: what the store's kind holds.
        n_samples, image_shape, shard_size: of the store.
    """

    def __init__(self, path: Path, attrs: Mapping[str, Any], group: Any) -> None:
        images = group["images"]
        self.path = path
        self.attrs = dict(attrs)
        self.layout = layout_of(path, self.attrs)
        self.n_samples: int = int(images.shape[0])
        self.image_shape: tuple[int, int] = (int(images.shape[1]), int(images.shape[2]))
        self.shard_size: int = int(images.shards[0])
        self._group = group
        self._pixels = {name: group[name] for name in self.layout.pixels}
        self._outcomes = {
            c.name: group[f"{SAMPLES}/{c.name}"]
            for c in self.layout.outcomes
            if not c.added or f"{SAMPLES}/{c.name}" in group  # made before there was such a column
        }

    @property
    def n_shards(self) -> int:
        """Units of work in the store, done or not."""
        return -(-self.n_samples // self.shard_size)

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard; the last one may be short.

        Raises:
            StoreError: no such shard.
        """
        if not 0 <= shard < self.n_shards:
            raise StoreError(f"{self.path} has shards 0 to {self.n_shards - 1}, got {shard}.")
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.n_samples))

    def pending_rows(self) -> dict[int, list[int]]:
        """{shard: its rows that have no outcome yet}, in order; shards without are left out."""
        with reading(self.path, f"{SAMPLES}/status", REPAIR):
            status = np.asarray(self._outcomes["status"][:])
        pending: dict[int, list[int]] = {}
        for row in np.flatnonzero(status == Status.PENDING).tolist():
            pending.setdefault(row // self.shard_size, []).append(row)
        return pending

    def pending_shards(self) -> list[int]:
        """Shards with a row that has no outcome yet, in order."""
        return list(self.pending_rows())

    def write_shard(
        self,
        shard: int,
        pixels: Mapping[str, npt.NDArray[Any]],
        facts: Mapping[str, npt.ArrayLike],
        rows: Sequence[int] | None = None,
    ) -> None:
        """Writes one shard whole: pixels, to the disk; then its facts; then its status.

        Args:
            shard: its number.
            pixels: {array: (n, h, w)} of every array of the layout, n the number of `rows`; zeros
                in rows that were rejected or failed.
            facts: {column: (n,) or (n, k)} of the layout's outcome columns: `status`, none of them
                PENDING, and `sha256`, from `sample_sha256`, empty where the row has no pixels; what
                is left out of the others is filled.
            rows: those that are given, in order; the others of the shard keep what they hold. All
                of `shard_rows(shard)` where it is None.

        Raises:
            StoreError: names, shapes or values do not fit; the disk is full or refuses.
        """
        whole = self.shard_rows(shard)
        given = list(whole) if rows is None else list(rows)
        n = len(given)
        if set(pixels) != set(self.layout.pixels):
            raise StoreError(
                f"{self.path}: a shard holds {', '.join(self.layout.pixels)}, "
                f"got {', '.join(pixels)}."
            )
        for name, dtype in self.layout.pixels.items():
            expected, values = (n, *self.image_shape), pixels[name]
            if values.shape != expected or values.dtype != np.dtype(dtype):
                raise StoreError(
                    f"{self.path}: {name} of shard {shard} must be {expected} "
                    f"{dtype}, got {values.shape} {values.dtype}."
                )
        columns = outcome_columns(self.path, self.layout, facts, n)
        if given != list(whole):
            pixels, columns = self._merged(whole, given, pixels, columns)
        needed = sum(values.nbytes for values in pixels.values())
        with disk_errors(self.path, needed, len(pixels) + len(columns)):
            for name, array in self._pixels.items():
                self._write(name, shard, array, pixels[name])
            for name, column in columns.items():  # status last: it declares the shard done
                if name in self._outcomes:
                    self._write(f"{SAMPLES}/{name}", shard, self._outcomes[name], column)

    def _write(self, name: str, shard: int, array: Any, values: npt.NDArray[Any]) -> None:
        """Writes all of a shard of an array; what is no shard in its place, or damaged, goes."""
        rows = self.shard_rows(shard)
        where = slice(rows.start, rows.stop)
        try:
            array[where] = values  # zarr may read what is there, and add to it
        except _NO_SHARD:
            self._group.store.remove(_chunk(name, shard, array))
            array[where] = values

    def _merged(
        self,
        whole: range,
        given: Sequence[int],
        pixels: Mapping[str, npt.NDArray[Any]],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """What a shard holds, with the given rows in it; only the other rows are read."""
        inside = [row - whole.start for row in given]
        if sorted(set(given) & set(whole)) != list(given):
            raise StoreError(f"{self.path}: rows {given} are not rows of {whole}, each once.")
        with reading(self.path, f"{SAMPLES}/status", REPAIR):
            status = np.asarray(self._outcomes["status"][whole.start : whole.stop])
        kept = [i for i in range(len(whole)) if i not in inside and status[i] != Status.PENDING]
        merged = {
            name: np.zeros((len(whole), *self.image_shape), dtype)
            for name, dtype in self.layout.pixels.items()
        }
        for name, array in merged.items():
            with reading(self.path, f"{name}[{whole.start}:{whole.stop}]", REPAIR):
                for i in (i for i in kept if status[i] == Status.DONE):  # others have zeros
                    array[i] = self._pixels[name][whole.start + i]
            array[inside] = pixels[name]
        facts = {}
        for column in self.layout.outcomes:
            name = column.name
            new = columns[name]
            old = np.full(column.shape(len(whole)), column.fill, new.dtype)
            if kept and name in self._outcomes:
                with reading(self.path, f"{SAMPLES}/{name}", REPAIR):
                    found = np.asarray(self._outcomes[name][whole.start : whole.stop])
                found = as_text(found) if new.dtype.kind == "U" else found
                old = old.astype(np.result_type(old, found))
                old[kept] = found[kept]
            old = old.astype(np.result_type(old, new))
            old[inside] = new
            facts[name] = old
        return merged, {name: facts[name] for name in columns}

    def mark_pending(self, rows: Collection[int]) -> None:
        """Takes the outcome of rows back: `complete` first, then their status, shard by shard.

        What they hold stays until they are written again; a chunk of facts that cannot be read is
        removed, for which all of its rows must be given.

        Raises:
            StoreError: other rows' facts are damaged; the disk refuses.
        """
        with disk_errors(self.path, 0):
            self.attrs["complete"] = False
            self._group.attrs[ROOT_ATTRIBUTE] = self.attrs
            for shard in sorted({row // self.shard_size for row in rows}):
                whole = self.shard_rows(shard)
                self._mark_shard(shard, [row for row in whole if row in rows])

    def _mark_shard(self, shard: int, rows: Sequence[int]) -> None:
        whole = self.shard_rows(shard)
        where = slice(whole.start, whole.stop)
        damaged = []
        for name, array in self._outcomes.items():
            try:
                with reading(self.path, name):
                    array[where]
            except StoreError:
                damaged.append(_chunk(f"{SAMPLES}/{name}", shard, array))
        if damaged and len(rows) < len(whole):
            raise StoreError(
                f"{self.path / damaged[0]}: cannot be read, and only {len(rows)} of its "
                f"{len(whole)} rows are to be made again. Give all of them."
            )
        status = np.zeros(len(whole), np.uint8)
        if not damaged:
            status = np.array(self._outcomes["status"][where])
            status[[row - whole.start for row in rows]] = Status.PENDING
        for key in damaged:
            self._group.store.remove(key)
        self._outcomes["status"][where] = status
        if len(rows) == len(whole):  # nothing of them is wanted, and their index may be damaged
            for name, array in self._pixels.items():
                self._group.store.remove(_chunk(name, shard, array))

    def set_complete(self) -> None:
        """Adds the failed samples to `problems`, then marks the store complete.

        May be repeated, and killed anywhere: the table is written anew from the rows each time.

        Raises:
            StoreError: rows are still pending; the disk is full or refuses.
        """
        pending = self.pending_shards()
        if pending:
            raise StoreError(
                f"{self.path} has {len(pending)} unfinished shards of {self.n_shards}; "
                "it cannot be marked complete."
            )
        failed = failed_samples(Columns(self.path, self._group.__getitem__))
        with reading(self.path, PROBLEMS):
            tables = [self._group[f"{PROBLEMS}/{name}"] for name in ("id", "reason")]
            skipped = int(self.attrs.get("problems_at_planning", 0))
            if not all(0 <= skipped <= len(table[:]) for table in tables):
                raise ValueError(f"{skipped} lines were written when the store was created")
        with disk_errors(self.path, 1024 * (len(failed) + 1)):
            for part, array in enumerate(tables):
                array.resize((skipped + len(failed),))
                if failed:
                    array[skipped:] = np.array([row[part] for row in failed], dtype=str)
            self.attrs["complete"] = True
            self._group.attrs[ROOT_ATTRIBUTE] = self.attrs


def _chunk(name: str, shard: int, array: Any) -> str:
    """The key of the file that holds a shard of an array."""
    return "/".join([name, "c", str(shard), *["0"] * (len(array.shape) - 1)])
