"""What stands where a store's file should: nothing hangs, and each is one sentence."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from echogen.errors import StoreError
from echogen.store import open_store, resume_store, unreadable_columns
from echogen.store.integrity import damaged_rows
from echogen.store.opening import check_replaceable, remove_store
from echogen.store.seal import broken_seal
from tests.support.export_stores import cohort

MADE = cohort(2)
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return MADE.put(tmp_path / "s.zarr")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return MADE.put(tmp_path / "s.h5")


def complaint(store: Path) -> str:
    """Everything that is found wrong."""
    try:
        with open_store(store) as opened:
            return f"{damaged_rows(opened)} {unreadable_columns(opened)} {broken_seal(opened)}"
    except StoreError as error:
        return str(error)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    os.truncate(path, 10**12)


@pytest.mark.parametrize("damage", [fifo, endless, huge])
@pytest.mark.parametrize(
    "name",
    ["images/zarr.json", "samples/crop/zarr.json", "samples/zarr.json", "images/c/0/0/0",
     "samples/status/c/0", "samples/seed/c/0"],
)  # fmt: skip
def test_only_regular_files_of_a_size_that_one_can_have_are_read(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    assert "regular file" in complaint(folder) or "at most" in complaint(folder) or (
        name == "samples/zarr.json" and "lost its metadata" in complaint(folder)
    )  # fmt: skip


@pytest.mark.parametrize("text", [DEEP, "9" * 5000, '{"attributes": ' + DEEP, "\0", "[]"])
@pytest.mark.parametrize("name", ["zarr.json", "samples/crop/zarr.json", "samples/zarr.json"])
def test_metadata_that_is_none_is_damage(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    assert str(folder) in complaint(folder) or "lost its metadata" in complaint(folder)


@pytest.mark.parametrize("found", [DEEP, "[1]", "9" * 5000, 3, np.zeros(3), '{"a": "\\ud800"}'])
def test_an_attribute_of_hdf5_that_is_none_is_damage(file: Path, found: object) -> None:
    with h5py.File(file, "r+") as opened:
        opened.attrs["echogen"] = found if len(str(found)) < 60_000 else found[:10_000]  # type: ignore[index]
    assert complaint(file).startswith(str(file))


@pytest.mark.parametrize("column", ["crop", "status"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("node_type", "x"), ("shape", [10**30]), ("shape", [-1]), ("codecs", []), ("codecs", None),
     ("data_type", "x"), ("chunk_grid", {}), ("zarr_format", 9), ("fill_value", "x"),
     ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [0]}})],
)  # fmt: skip
def test_arrays_that_make_no_sense_are_damage(
    folder: Path, column: str, key: str, value: object
) -> None:
    place = folder / "samples" / column / "zarr.json"
    metadata = json.loads(place.read_text())
    place.write_text(json.dumps({**metadata, key: value}))
    assert column in complaint(folder) or "seal" in complaint(folder)


@pytest.mark.parametrize("name", ["images", "samples/crop", "cases/id"])
@pytest.mark.parametrize("kind", ["external", "raw", "virtual"])
def test_hdf5_reads_no_other_file(file: Path, name: str, kind: str, tmp_path: Path) -> None:
    other = Path(shutil.copy(file, tmp_path / "other.h5"))
    with h5py.File(file, "r+") as opened:
        shape, dtype = opened[name].shape, opened[name].dtype
        del opened[name]
        if kind == "external":
            opened[name] = h5py.ExternalLink(str(other), name)
        elif kind == "raw":
            opened.create_dataset(name, shape, dtype, external=[(str(other), 0, 10**6)])
        else:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(other), name, shape)
            opened.create_virtual_dataset(name, layout)
    assert "another file" in complaint(file)


def test_a_damaged_hdf5_store_may_be_replaced_and_others_may_not(
    file: Path, tmp_path: Path
) -> None:
    good = file.read_bytes()
    for start, stop in ((0, 8), (8, 60), (0, 400)):
        file.write_bytes(good[:start] + bytes(stop - start) + good[stop:])
        check_replaceable(file)
    with h5py.File(file, "w") as opened:
        opened["images"] = np.zeros((1, 2, 2), "u1")
    with pytest.raises(StoreError, match="is left as it is"):
        remove_store(file)
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    with pytest.raises(StoreError, match="is left as it is"):
        remove_store(file)


def test_a_heap_of_texts_that_leads_nowhere_is_damage_and_no_hang(file: Path) -> None:
    good = file.read_bytes()
    heap = good.index(b"GCOL\x01\0\0\0")
    size = int.from_bytes(good[heap + 24 : heap + 32], "little")
    free = heap + 32 + -(-size // 8) * 8
    for at, value in ((free + 8, 0), (free + 8, 8), (heap + 24, 2**64 - 9), (heap + 24, 2**40)):
        file.write_bytes(good[:at] + value.to_bytes(8, "little") + good[at + 8 :])
        assert "its texts are damaged" in complaint(file)


@pytest.mark.parametrize("name", ["problems/reason", "samples/status"])
def test_a_damaged_table_stops_the_end_of_a_run_in_one_sentence(folder: Path, name: str) -> None:
    writer = resume_store(folder)
    (folder / name / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=f"{name.split('/')[0]}.* cannot be read"):
        resume_store(folder).set_complete() if "samples" in name else writer.set_complete()
