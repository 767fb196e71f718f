"""The Zarr v3 store: created whole or not at all, opened, continued, removed.

Every file is replaced atomically and is on the disk before the next one, and every chunk ends with
its CRC-32C, so that no changed byte of it goes unnoticed.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.store.disk import disk_errors, reading
from echogen.store.reader import StoreReader
from echogen.store.schema import (
    CASES,
    GIVE_ONE,
    MAKE_AGAIN,
    PROBLEMS,
    ROOT_ATTRIBUTE,
    SAMPLES,
    TEXT,
    Column,
    Layout,
    case_table,
    check_root_attributes,
    layout_of,
    planned_columns,
    root_attributes,
)
from echogen.store.seal import SEAL, seal_of
from echogen.store.writer import StoreWriter
from echogen.support.files import (
    clear_leftovers,
    creating_path,
    make_folder,
    put_folder,
    remove_folder,
)
from echogen.support.reading import read_json

ZSTD_LEVEL = 3
_TABLE_CHUNK = 65536


def create_store(
    path: Path,
    *,
    attrs: Mapping[str, Any],
    columns: Mapping[str, npt.ArrayLike],
    cases: Sequence[Mapping[str, Any]],
    problems: Sequence[tuple[str, str]],
    image_shape: tuple[int, int],
    shard_size: int,
) -> StoreWriter:
    """Creates a Zarr store with every planned fact in it and every row pending.

    It is built in a temporary folder beside `path` and renamed: a killed creation leaves nothing
    at `path`, and what it left beside is cleared by the next one. Call it under `own_output`.

    Args:
        path: of the new folder; must not exist.
        attrs: JSON-able; becomes the root attribute `echogen` (with `format`, `complete` and
            `problems_at_planning` added). Its `kind` decides the layout, that of an expanded
            dataset where it has none.
        columns: every planned column of the layout, of one length N >= 1.
        cases: one mapping a case with `id` and what the dataset knew.
        problems: (frame id, reason) of the frames that were skipped.
        image_shape: (h, w).
        shard_size: samples a unit of work.

    Raises:
        StoreError: `path` exists, a column does not fit the schema, or the disk refuses.
    """
    if os.path.lexists(path):
        raise StoreError(
            f"{path} exists already. Choose another output, or say --overwrite to replace it."
        )
    if shard_size < 1 or min(image_shape) < 1:
        raise StoreError(
            f"{path}: shard_size and image_shape must be at least 1, "
            f"got {shard_size} and {tuple(image_shape)}."
        )
    root = root_attributes(path, {**attrs, "problems_at_planning": len(problems)})
    layout = layout_of(path, root)
    planned = planned_columns(path, layout, columns)
    table = case_table(path, cases)
    added = [column.name for column in layout.outcomes if column.added]
    root[SEAL] = seal_of(root, planned, table, added)
    needed = sum(column.nbytes for column in planned.values())
    files = 3 * (len(layout.pixels) + len(layout.columns) + len(table) + 2)
    with disk_errors(path, needed, files):  # an array is two folders and metadata, or a chunk too
        make_folder(path.parent)
        clear_leftovers(path)
        building = creating_path(path)
        try:
            group = _build(building, root, layout, planned, image_shape, shard_size)
            _write_table(group, CASES, table)
            for part, name in enumerate(("id", "reason")):
                _write_table(group, PROBLEMS, {name: _text([row[part] for row in problems])})
            put_folder(building, path)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return resume_store(path)


def resume_store(path: Path) -> StoreWriter:
    """Opens a Zarr store to write its pending shards; half-written files of a kill are removed.

    What is written then is on the disk, file after file, in the order of the calls. Call it under
    `own_output`.

    Raises:
        StoreError: not there, not a store, of a newer format, or damaged.
    """
    attrs, group = _open(path, "r+")
    _reader(path, attrs, group)  # checks every array's shape and type
    with disk_errors(path, 0):
        for partial in path.rglob("*.partial"):
            partial.unlink(missing_ok=True)
    with reading(path, "the shards' layout"):
        return StoreWriter(path, attrs, group)


def open_zarr(path: Path) -> StoreReader:
    """Opens a Zarr store for reading; see `open_store`."""
    return _reader(path, *_open(path, "r"))


def check_zarr(path: Path) -> None:
    """Refuses what is not an echogen store; a damaged one is still one.

    Raises:
        StoreError: not an echogen store.
    """
    if not _names_ours(path):
        _root_attribute(path)


def remove_zarr(path: Path) -> None:
    """Removes an echogen store, damaged or not, and nothing else; a kill leaves nothing at `path`.

    Raises:
        StoreError: not an echogen store, or the disk refuses.
    """
    check_zarr(path)
    with disk_errors(path, 0):
        remove_folder(path)


def _build(
    folder: Path,
    root: Mapping[str, Any],
    layout: Layout,
    planned: Mapping[str, npt.NDArray[Any]],
    image_shape: tuple[int, int],
    shard_size: int,
) -> Any:
    import zarr

    n_samples = len(planned["sample_id"])
    group = zarr.open_group(folder, mode="w-", zarr_format=3, attributes={ROOT_ATTRIBUTE: root})
    for name, dtype in layout.pixels.items():
        group.create_array(
            name,
            shape=(n_samples, *image_shape),
            chunks=(1, *image_shape),
            shards=(shard_size, *image_shape),
            dtype=dtype,
            fill_value=0,
            compressors=_compressor(),
            dimension_names=("sample", "row", "col"),
        )
    samples = group.create_group(SAMPLES)
    for column in layout.columns:
        chunk = shard_size if column.outcome else min(n_samples, _TABLE_CHUNK)
        array = _create_column(samples, column, n_samples, chunk)
        if not column.outcome:
            array[...] = _storable(planned[column.name])
    return group


def _create_column(group: Any, column: Column, n_samples: int, chunk: int) -> Any:
    shape = column.shape(n_samples)
    return group.create_array(
        column.name,
        shape=shape,
        chunks=(chunk, *shape[1:]),
        dtype="string" if column.dtype == TEXT else column.dtype,
        fill_value=column.fill,
        compressors=_compressor(),
        attributes={"meaning": column.meaning},
    )


def _write_table(group: Any, name: str, table: Mapping[str, npt.NDArray[Any]]) -> None:
    parent = group.require_group(name)
    for column, values in table.items():
        array = parent.create_array(
            column,
            shape=values.shape,
            chunks=(_TABLE_CHUNK,),
            dtype="string" if values.dtype.kind == "U" else values.dtype,
            compressors=_compressor(),
        )
        if len(values):
            array[...] = _storable(values)


def _compressor() -> Any:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return (ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec())


def _text(lines: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(list(lines), dtype=str)


def _storable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # zarr's variable-length text takes objects under every NumPy it supports
    return values.astype(object) if values.dtype.kind == "U" else values


def _names_ours(path: Path) -> bool:
    """Whether a folder holds arrays that a store of ours has, whatever else is damaged."""
    ours = ("images", f"{SAMPLES}/sample_id", f"{SAMPLES}/label_on_paint")
    return all((path / name / "zarr.json").is_file() for name in ours)


def _root_attribute(path: Path) -> dict[str, Any]:
    metadata = path / "zarr.json"
    if not path.exists():
        raise StoreError(f"{path}: no such store. Check the path; `echogen expand` makes one.")
    if not metadata.is_file():
        if _names_ours(path):
            raise StoreError(f"{metadata}: is missing, or no file. {MAKE_AGAIN}")
        raise StoreError(f"{path} is not an echogen store: it has no zarr.json. {GIVE_ONE}")
    with reading(path, "zarr.json"):
        try:
            found = read_json(metadata, StoreError)
        except StoreError as error:
            raise StoreError(f"{error} {MAKE_AGAIN}") from error
        root = found.get("attributes", {}).get(ROOT_ATTRIBUTE)
    if root is None and _names_ours(path):
        raise StoreError(f"{metadata}: has no attribute {ROOT_ATTRIBUTE!r}. {MAKE_AGAIN}")
    return check_root_attributes(path, root)


def _open(path: Path, mode: str) -> tuple[dict[str, Any], Any]:
    import zarr

    from echogen.store.zarr_files import ZarrFiles

    attrs = _root_attribute(path)
    with reading(path, "the store"):
        files = ZarrFiles(path, read_only=mode == "r")
        return attrs, zarr.open_group(files, mode=mode, zarr_format=3)  # type: ignore[arg-type]  # a literal type that zarr does not export


def _reader(path: Path, attrs: Mapping[str, Any], group: Any) -> StoreReader:
    with reading(path, CASES):
        lost = [
            entry.name
            for entry in sorted((path / CASES).iterdir())
            if entry.is_dir() and not (entry / "zarr.json").is_file()
        ]
        if lost:  # zarr would warn of it and go on without
            raise KeyError(f"{lost[0]}/zarr.json")
        case_names = sorted(group[CASES].array_keys(), key=lambda name: (name != "id", name))
    return StoreReader(path, attrs, group.__getitem__, case_names, lambda: None)
