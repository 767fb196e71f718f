"""The store's schema: names, types and fill values, the same in Zarr v3 and HDF5.

A store has arrays of pixels, one 1-D (or narrow 2-D) column a fact in `samples`, and the tables
`cases` and `problems`. Planned columns are written when the store is created; outcome columns are
written with the shard that their samples belong to. An expanded dataset has images, masks and
`keep`; generated images have no labels and no source, so they come alone, and their fan is known
only once they are painted.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError

FORMAT = 2
"""The newest format that is read; `Layout.format` is what is written."""
SHARD_SIZE = 32
"""Samples in a unit of work, where a store does not say."""
MOST_REPAINTS = 3
"""How often a condemned sample is painted again before it has failed."""
MAKE_AGAIN = "Restore the store from a copy, or make it again with --overwrite."
"""What to do about damage that no row can be made again for."""
NOT_FINITE = "the sampler returned values that are not finite; try --overwrite --precision fp32"
"""The reason of a sample that failed in the sampler; stores hold these words, so they stay."""
ROOT_ATTRIBUTE = "echogen"
GIVE_ONE = "Give a store made by `echogen expand` or `echogen sample`."
"""The end of what is said of a path that is no store at all."""
SAMPLES, CASES, PROBLEMS = "samples", "cases", "problems"
PIXEL_ARRAYS: Mapping[str, str] = {"images": "uint8", "masks": "uint8", "keep": "bool"}
TEXT = "str"


class Status(IntEnum):
    """What became of a row: `REJECTED` has no valid draw, `FAILED` could not be painted."""

    PENDING = 0
    DONE = 1
    REJECTED = 2
    FAILED = 3


@dataclass(frozen=True)
class Column:
    """One column of `samples`.

    Attributes:
        name: of the array in `samples`.
        dtype: a NumPy name, or "str" for UTF-8 text of any length.
        width: values a row; 1 for a 1-D column, else the length of the second axis.
        outcome: written with a shard and not when the store is created.
        fill: of rows not yet written.
        added: within a format: stores that were made before lack it, and read as its fill.
        meaning: one line for people.
    """

    name: str
    dtype: str
    meaning: str
    width: int = 1
    outcome: bool = False
    fill: Any = 0
    added: bool = False

    def shape(self, n_samples: int) -> tuple[int, ...]:
        """(N,) or (N, width)."""
        return (n_samples,) if self.width == 1 else (n_samples, self.width)


COLUMNS: tuple[Column, ...] = (
    Column("sample_id", TEXT, "unique name of the row", fill=""),
    Column("frame_id", TEXT, "the source frame, such as patient0001_4CH_ED", fill=""),
    Column("case_id", TEXT, "the patient or recording", fill=""),
    Column("view", TEXT, "such as 2CH or 4CH; empty where unknown", fill=""),
    Column("phase", TEXT, "such as ED or ES; empty where unknown", fill=""),
    Column("split", TEXT, "as the dataset's own lists say; empty where it has none", fill=""),
    Column("copy", "uint16", "0 = original, copies from 1"),
    Column("status", "uint8", "0 pending, 1 done, 2 rejected, 3 failed", outcome=True),
    Column("seed", "uint64", "of the sample's parameters and noise"),
    Column("tries", "uint8", "draws until a valid one"),
    Column("spacing_mm", "float32", "(row, col) mm per pixel of this sample", width=2),
    Column("aspect", "float32", "displayed mm width of a pixel / mm height"),
    Column("depth", "float32", "scale of the shown depth, 1 = unchanged"),
    Column("tilt_deg", "float32", "turn about the apex, degrees"),
    Column("width", "float32", "lateral factor, 1 = unchanged"),
    Column("shift_x", "float32", "to larger columns, fraction of the field's height"),
    Column("shift_y", "float32", "to larger rows, fraction of the field's height"),
    Column(
        "sector",
        "float32",
        "apex row, apex col, angle left, angle right, radius near, radius far (pixels, radians)",
        width=6,
    ),
    Column("cut", "uint8", "bit k: class k touched the source sector's edge (k up to 7)"),
    Column("cut_ids", TEXT, "all classes that did, such as '3 200'", fill="", added=True),
    Column(
        "crop",
        "int32",
        "row0, col0, row1, col1 of the source's pixels: the field; zeros where not recorded",
        width=4,
        added=True,
    ),
    Column(
        "seen",
        "float32",
        "row0, col0, row1, col1 of the grid that the source's picture covers; NaN: all of it",
        width=4,
        fill=float("nan"),
        added=True,
    ),
    Column(
        "label_on_paint",
        "float32",
        "share of labelled pixels where keep is False; NaN while pending",
        outcome=True,
        fill=float("nan"),
    ),
    Column(
        "repaints",
        "uint8",
        "how many times it was painted again because the judge saw an unlabelled heart",
        outcome=True,
        added=True,
    ),
    Column("sha256", TEXT, "hex, of the image's bytes then the mask's", outcome=True, fill=""),
    Column("reason", TEXT, "why a row was rejected or failed, else empty", outcome=True, fill=""),
)


@dataclass(frozen=True)
class Layout:
    """What a kind of store holds.

    Attributes:
        kind: the root attribute's `kind`.
        format: the oldest format that has this kind.
        pixels: {array: its type}.
        columns: of `samples`; the same names in every kind.
    """

    kind: str
    format: int
    pixels: Mapping[str, str]
    columns: tuple[Column, ...]

    @property
    def planned(self) -> tuple[Column, ...]:
        """Columns that are written when the store is created."""
        return tuple(column for column in self.columns if not column.outcome)

    @property
    def outcomes(self) -> tuple[Column, ...]:
        """Columns that are written with a shard."""
        return tuple(column for column in self.columns if column.outcome)


def _found_when_painted(column: Column) -> Column:
    if column.name not in ("sector", "aspect"):
        return column
    return dataclasses.replace(column, outcome=True, fill=float("nan"))


EXPANDED = Layout("expanded", 1, PIXEL_ARRAYS, COLUMNS)
GENERATED = Layout(
    "generated", 2, {"images": "uint8"}, tuple(_found_when_painted(column) for column in COLUMNS)
)
LAYOUTS: Mapping[str, Layout] = {layout.kind: layout for layout in (EXPANDED, GENERATED)}


def layout_of(path: Path, attrs: Mapping[str, Any]) -> Layout:
    """The layout that a root attribute names; without a kind, that of an expanded dataset.

    Raises:
        StoreError: no such kind.
    """
    kind = attrs.get("kind", EXPANDED.kind)
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise StoreError(
            f"{path}: damaged metadata: 'kind' must be one of {', '.join(LAYOUTS)}, got {kind!r}. "
            + MAKE_AGAIN
        )
    return LAYOUTS[kind]


def sample_sha256(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8] | None = None) -> str:
    """Hex SHA-256 of the image's bytes, then the mask's if it has one: (h, w) uint8 in C order."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    if mask is not None:
        digest.update(np.ascontiguousarray(mask).tobytes())
    return digest.hexdigest()


def as_text(values: Any) -> npt.NDArray[np.str_]:
    """Text in any array-like (fixed-width, object or StringDType) as a `<U` array."""
    # by way of objects: NumPy does not size a fixed-width array from StringDType
    return np.asarray(values).astype(object).astype(str)


def planned_columns(
    path: Path, layout: Layout, columns: Mapping[str, npt.ArrayLike]
) -> dict[str, npt.NDArray[Any]]:
    """The planned columns in the schema's types, each checked for its shape and range.

    Raises:
        StoreError: a column is missing, unknown, of another length, or its values do not fit.
    """
    names = {column.name for column in layout.planned}
    missing, unknown = sorted(names - set(columns)), sorted(set(columns) - names)
    if missing or unknown:
        raise StoreError(
            f"{path}: the planned columns must be exactly the schema's; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    n_samples = len(np.asarray(columns["sample_id"]))
    if n_samples == 0:
        raise StoreError(f"{path}: a store needs at least one sample; the plan has none.")
    return {c.name: _typed(path, c, columns[c.name], n_samples) for c in layout.planned}


def outcome_columns(
    path: Path, layout: Layout, facts: Mapping[str, npt.ArrayLike], length: int
) -> dict[str, npt.NDArray[Any]]:
    """The outcome columns of a shard in the schema's types, `status` last.

    Raises:
        StoreError: a column is unknown or missing (all but `status` and `sha256` may be, and are
            filled), its length differs from the shard's, or its values do not fit.
    """
    names = {column.name for column in layout.outcomes}
    missing, unknown = sorted({"status", "sha256"} - set(facts)), sorted(set(facts) - names)
    if missing or unknown:
        raise StoreError(
            f"{path}: the outcome columns must be the schema's; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    columns = {
        c.name: _typed(path, c, facts.get(c.name, np.full(c.shape(length), c.fill)), length)
        for c in sorted(layout.outcomes, key=lambda c: c.name == "status")
    }
    if (columns["status"] == Status.PENDING).any():
        raise StoreError(f"{path}: a shard cannot be written with pending rows.")
    return columns


def _typed(path: Path, column: Column, values: npt.ArrayLike, length: int) -> npt.NDArray[Any]:
    found = np.asarray(values)
    if found.shape != column.shape(length):
        raise StoreError(
            f"{path}: column {column.name!r} must have shape {column.shape(length)}, "
            f"got {found.shape}."
        )
    if column.dtype == TEXT:
        return as_text(found)
    if np.issubdtype(np.dtype(column.dtype), np.integer):
        limits = np.iinfo(column.dtype)
        if found.dtype.kind not in "iub":
            raise StoreError(
                f"{path}: column {column.name!r} must hold integers, got {found.dtype}."
            )
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            raise StoreError(
                f"{path}: column {column.name!r} must lie in [{limits.min}, {limits.max}] "
                f"({column.dtype}), got {low} to {high}."
            )
    elif found.dtype.kind not in "iubf":
        raise StoreError(f"{path}: column {column.name!r} must hold numbers, got {found.dtype}.")
    return found.astype(column.dtype)


def root_attributes(path: Path, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """`attrs` as JSON will hold them (keys become text), with `format` and `complete = False`.

    Raises:
        StoreError: a value that JSON cannot hold, NaN included, or an unknown `kind`.
    """
    try:
        plain = json.loads(json.dumps(dict(attrs), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: the store's attributes must be plain JSON: {error}.") from error
    layout = layout_of(path, plain)
    return {**plain, "format": layout.format, "kind": layout.kind, "complete": False}


def check_root_attributes(path: Path, found: Any) -> dict[str, Any]:
    """The root attribute of an opened store, its format known to this version.

    Raises:
        StoreError: not echogen's, of a newer format, or damaged.
    """
    if found is None:
        raise StoreError(
            f"{path} is not an echogen store: it has no {ROOT_ATTRIBUTE!r} attribute. {GIVE_ONE}"
        )
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int) or version < 1:
        raise StoreError(
            f"{path}: damaged metadata: 'format' must be a whole number of at least 1, got "
            f"{version!r}. {MAKE_AGAIN}"
        )
    if version > FORMAT:
        raise StoreError(
            f"{path} has store format {version}, but this echogen reads up to {FORMAT}. "
            "Upgrade echogen."
        )
    return dict(found)


def case_table(path: Path, cases: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """Cases as columns: `id` first, then every known fact; float64 (NaN where unknown) or text.

    A fact that is a number in every case that knows it becomes float64; any other becomes text,
    empty where unknown.

    Raises:
        StoreError: a case without `id`, or a fact whose name cannot be an array's.
    """
    names = list(dict.fromkeys(["id", *(name for case in cases for name in case)]))
    for name in names:
        if not name or "/" in name or name.startswith((".", "__")):
            raise StoreError(f"{path}: {name!r} cannot be the name of a column of the cases.")
    if any("id" not in case for case in cases):
        raise StoreError(f"{path}: every case must have an 'id'.")
    table: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        values = [case.get(name) for case in cases]
        known = [value for value in values if value is not None]
        if name != "id" and all(isinstance(v, int | float | np.number) for v in known):
            numbers = [float("nan") if value is None else float(value) for value in values]
            table[name] = np.array(numbers, dtype=np.float64)
        else:
            texts = ["" if value is None else str(value) for value in values]
            table[name] = as_text(np.array(texts, dtype=str))
    return table
