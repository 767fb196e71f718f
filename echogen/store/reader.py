"""One reader for both kinds of store: the same names, types and errors over Zarr and HDF5.

Pixels and columns are read when they are asked for; opening reads metadata alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.geometry.sector import fan_mask
from echogen.report import Counts
from echogen.store.disk import DAMAGE, REPAIR, reading
from echogen.store.record import StoreRecord, read_record
from echogen.store.schema import (
    CASES,
    COLUMNS,
    MAKE_AGAIN,
    MOST_REPAINTS,
    NOT_FINITE,
    PROBLEMS,
    SAMPLES,
    SHARD_SIZE,
    TEXT,
    Column,
    Status,
    as_text,
    layout_of,
)

Arrays = dict[str, npt.NDArray[Any]]


class Pixels:
    """An (N, h, w) array on disk, read by row: `pixels[i]` is (h, w), `pixels[a:b]` (b - a, h, w).

    Raises:
        IndexError: no such row.
        StoreError: the rows' file is damaged.
    """

    def __init__(self, path: Path, name: str, array: Any) -> None:
        self._path, self._name, self._array = path, name, array
        self.shape: tuple[int, int, int] = tuple(int(size) for size in array.shape)  # type: ignore[assignment]  # three axes, checked when the store is opened
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        shards = getattr(array, "shards", None)
        self.rows_at_once = int(shards[0]) if shards else SHARD_SIZE

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> npt.NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise IndexError(f"{self._name}: slices must have step 1, got {step}")
            which = f"{self._name}[{start}:{stop}]"
            with reading(self._path, which, REPAIR):
                return np.asarray(self._array[start : max(start, stop)])
        row = int(rows)
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self._name} has {len(self)} rows, got {row}")
        with reading(self._path, f"{self._name}[{row}]", REPAIR):
            return np.asarray(self._array[row % len(self)])

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[row] for row in range(len(self)))


class Columns(Mapping[str, npt.NDArray[Any]]):
    """The columns of `samples` by name, in the schema's order, each read once when asked for."""

    def __init__(self, path: Path, array_of: Callable[[str], Any]) -> None:
        self._path, self._array_of = path, array_of
        self._read: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._read:
            column = next((c for c in COLUMNS if c.name == name), None)
            if column is None:
                raise KeyError(name)
            self._read[name] = _column(self._path, self._array_of, f"{SAMPLES}/{name}")
        return self._read[name]

    def part(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop) of a column, read now: damage elsewhere in it does not matter.

        Raises:
            StoreError: these rows' chunk is damaged.
        """
        return _column(self._path, self._array_of, f"{SAMPLES}/{name}", slice(start, stop))

    def __iter__(self) -> Iterator[str]:
        return (column.name for column in COLUMNS)

    def __len__(self) -> int:
        return len(COLUMNS)


def _column(
    path: Path, array_of: Callable[[str], Any], name: str, rows: slice = slice(None)
) -> npt.NDArray[Any]:
    part = "" if rows == slice(None) else f"[{rows.start}:{rows.stop}]"
    own = any(c.outcome and f"{SAMPLES}/{c.name}" == name for c in COLUMNS)
    with reading(path, f"{name}{part}", REPAIR if own else MAKE_AGAIN):
        array = array_of(name)
        is_text = np.dtype(array.dtype).kind in "OSUT"
        # h5py hands out bytes unless it is told that they are text
        values = array.asstr()[rows] if is_text and hasattr(array, "asstr") else array[rows]
        return as_text(values) if is_text else np.asarray(values)


class StoreReader:
    """A store opened for reading; also a context manager.

    Attributes:
        path: where it lies.
        attrs: the root attribute `echogen`, as JSON holds it, to copy and compare; read `record`.
        layout: what its kind holds.
        columns: {name: (N,) or (N, k) array}, see `schema.COLUMNS`; text is `<U`.
        absent: columns that were added to the schema after the store was made; filled in `columns`.
        images: (N, h, w) uint8.
    """

    def __init__(
        self,
        path: Path,
        attrs: Mapping[str, Any],
        array_of: Callable[[str], Any],
        case_names: Sequence[str],
        close: Callable[[], None],
    ) -> None:
        self.path = path
        self.attrs = dict(attrs)
        self._array_of, self._case_names, self._close = array_of, tuple(case_names), close
        self.layout = layout_of(path, self.attrs)
        self.absent = frozenset(column.name for column in COLUMNS if self._lacks(column))
        self.columns = Columns(path, self._array_or_fill)
        self._pixels = {
            name: self._array(name, dtype) for name, dtype in self.layout.pixels.items()
        }
        self.images = self._pixels["images"]
        self._check_columns()

    @cached_property
    def record(self) -> StoreRecord:
        """What the root attribute says of the run.

        Raises:
            StoreError: a value of it has another type than echogen writes.
        """
        return read_record(self.path, self.attrs)

    @property
    def kind(self) -> str:
        """`expanded`, with masks and `keep`, or `generated`, with images alone."""
        return self.layout.kind

    @property
    def masks(self) -> Pixels:
        """(N, h, w) uint8.

        Raises:
            StoreError: the images were generated, and have none.
        """
        return self.pixels("masks")

    @property
    def keep(self) -> Pixels:
        """(N, h, w) bool.

        Raises:
            StoreError: the images were generated, and no pixel has a source.
        """
        return self.pixels("keep")

    def pixels(self, name: str) -> Pixels:
        """An array of pixels by its name.

        Raises:
            StoreError: a store of this kind has none of that name.
        """
        if name not in self._pixels:
            raise StoreError(
                f"{self.path} holds {self.kind} images, which have no {name}. "
                "Give a store made by `echogen expand`."
            )
        return self._pixels[name]

    def read_rows(self, rows: Sequence[int]) -> tuple[Arrays, Arrays]:
        """Everything that was written with some rows, as `StoreWriter.write_shard` takes it.

        Args:
            rows: n of them, rising, at least one.

        Returns:
            {array: (n, h, w)} and {outcome column: (n,) or (n, k)}.

        Raises:
            StoreError: they are damaged.
        """
        start, stop = int(rows[0]), int(rows[-1]) + 1
        inside = np.subtract(rows, start)
        pixels = {
            name: array[start:stop]
            if len(rows) == stop - start
            else np.stack([array[int(row)] for row in rows])
            for name, array in self._pixels.items()
        }
        outcomes = {
            column.name: self.columns.part(column.name, start, stop)[inside]
            for column in self.layout.outcomes
        }
        return pixels, outcomes

    def _array(self, name: str, dtype: str) -> Pixels:
        with reading(self.path, name):
            array = self._array_of(name)
            if len(array.shape) != 3 or np.dtype(array.dtype) != np.dtype(dtype):
                raise ValueError(f"expected (N, h, w) {dtype}, got {array.shape} {array.dtype}")
            return Pixels(self.path, name, array)

    def _lacks(self, column: Column) -> bool:
        if not column.added:
            return False
        try:
            self._array_of(f"{SAMPLES}/{column.name}")
        except KeyError:
            return True
        except DAMAGE:
            return False  # it is there, and is told of where it is read
        return False

    def _array_or_fill(self, name: str) -> Any:
        column = next((c for c in COLUMNS if f"{SAMPLES}/{c.name}" == name), None)
        if column is None or column.name not in self.absent:
            return self._array_of(name)
        return np.full(column.shape(len(self)), column.fill, column.dtype)

    def _check_columns(self) -> None:
        for name, pixels in self._pixels.items():
            if pixels.shape != self.images.shape:
                raise StoreError(
                    f"{self.path}: damaged metadata: {name} has shape {pixels.shape}, "
                    f"images {self.images.shape}. {MAKE_AGAIN}"
                )
        for column in COLUMNS:
            name = f"{SAMPLES}/{column.name}"
            with reading(self.path, name):
                found = self._array_or_fill(name)
                if tuple(found.shape) != column.shape(len(self)):
                    raise ValueError(f"expected {column.shape(len(self))}, got {found.shape}")
                if column.dtype != TEXT and np.dtype(found.dtype) != np.dtype(column.dtype):
                    raise ValueError(f"expected {column.dtype}, got {found.dtype}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; arrays read before stay valid."""
        self._close()

    @property
    def complete(self) -> bool:
        """True once every row has its outcome and the run was finished."""
        return self.record.complete

    def counts(self, lost: Collection[int] = ()) -> Counts:
        """Samples by outcome; rows in `lost` count as pending.

        Raises:
            StoreError: the columns cannot be read.
        """
        status, copy = self.columns["status"].copy(), self.columns["copy"]
        status[list(lost)] = Status.PENDING
        done = status == Status.DONE
        return Counts(
            originals=int((done & (copy == 0)).sum()),
            copies=int((done & (copy > 0)).sum()),
            rejected=int((status == Status.REJECTED).sum()),
            failed=int((status == Status.FAILED).sum()),
            pending=int((status == Status.PENDING).sum()),
        )

    @property
    def condemned(self) -> npt.NDArray[np.bool_]:
        """(N,) the samples that failed because a judge let none of their paintings pass.

        Raises:
            StoreError: the columns cannot be read.
        """
        failed = self.columns["status"] == Status.FAILED
        failed &= self.columns["reason"] != NOT_FINITE
        return np.asarray(failed & (self.columns["repaints"] == MOST_REPAINTS))

    @property
    def image_shape(self) -> tuple[int, int]:
        """(h, w) of one sample."""
        return self.images.shape[1:]

    @property
    def rows_at_once(self) -> int:
        """Rows that lie together on the disk, and cost least when they are read together."""
        return self.images.rows_at_once

    def fan(self, row: int) -> npt.NDArray[np.bool_]:
        """(h, w) bool, where a row shows its fan; nowhere where it is not known. Read-only."""
        sector, aspect, seen = (self.columns[name][row] for name in ("sector", "aspect", "seen"))
        return fan_mask(sector, aspect, self.image_shape, seen)

    @property
    def case_columns(self) -> dict[str, npt.NDArray[Any]]:
        """The table of cases by column: `id` first; float64 with NaN, or text, where unknown."""
        return {n: _column(self.path, self._array_of, f"{CASES}/{n}") for n in self._case_names}

    @property
    def case_rows(self) -> list[dict[str, Any]]:
        """One dictionary a case, `id` first; NaN or empty text where a fact is unknown."""
        table = self.case_columns
        if "id" not in table:
            raise StoreError(
                f"{self.path}: {CASES}/id is missing: the table of cases is damaged. {MAKE_AGAIN}"
            )
        rows = zip(*(values.tolist() for values in table.values()), strict=True)
        return [dict(zip(table, row, strict=True)) for row in rows]

    @property
    def cases(self) -> list[dict[str, Any]]:
        """One dictionary a case: `id` and what is known; unknown facts are left out."""
        return [
            {
                name: value
                for name, value in case.items()
                if name == "id" or (value != "" and value == value)  # NaN is not itself
            }
            for case in self.case_rows
        ]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(id, reason) of the frames skipped at planning."""
        ids = _column(self.path, self._array_of, f"{PROBLEMS}/id").tolist()
        reasons = _column(self.path, self._array_of, f"{PROBLEMS}/reason").tolist()
        return list(zip(ids, reasons, strict=True))[: self.record.problems_at_planning]

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(id, reason) of the frames skipped at planning, then of the samples that failed.

        The failed ones come from the rows themselves, so they are right in an unfinished store.
        """
        return self.skipped + failed_samples(self.columns)


def failed_samples(columns: Mapping[str, npt.NDArray[Any]]) -> list[tuple[str, str]]:
    """(sample id, reason) of every row whose status is FAILED, in the order of rows."""
    rows = np.flatnonzero(columns["status"] == Status.FAILED)
    return [(str(columns["sample_id"][row]), str(columns["reason"][row])) for row in rows]
