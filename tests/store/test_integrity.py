"""Any changed byte of any chunk is found, and costs no more rows than the chunk holds."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from echogen.errors import StoreError
from echogen.store import (
    SEAL,
    StoreWriter,
    broken_seal,
    convert_to_h5,
    create_part,
    create_store,
    damaged_rows,
    mark_pending,
    open_store,
    sample_sha256,
    shared_store,
    units,
    unreadable_columns,
    working_store_path,
)
from echogen.store.schema import EXPANDED, TEXT, Status
from echogen.store.seal import seal_of
from tests.support.faults import on_rename

N, SHARD, SIDE = 6, 4, 5
COLUMNS = {
    column.name: np.array([f"{column.name}{i}" for i in range(N)], object)
    if column.dtype == TEXT
    else np.ones(column.shape(N), column.dtype)
    for column in EXPANDED.planned
}


def write(writer: StoreWriter) -> None:
    rng = np.random.default_rng(0)
    for shard in range(writer.n_shards):
        n = len(writer.shard_rows(shard))
        images = rng.integers(0, 256, (n, SIDE, SIDE), np.uint8)
        masks = rng.integers(0, 4, (n, SIDE, SIDE), np.uint8)
        hashes = [sample_sha256(images[i], masks[i]) for i in range(n)]
        writer.write_shard(
            shard,
            {"images": images, "masks": masks, "keep": images > 90},
            {"status": [Status.DONE] * n, "sha256": hashes, "label_on_paint": [0.5] * n},
        )
    writer.set_complete()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished Zarr store of 6 rows in 2 shards. Do not change."""
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    write(
        create_store(
            path,
            attrs={"config": {"store": {"shard_size": SHARD}}},
            columns=COLUMNS,
            cases=[{"id": "a", "ef": 55.5}, {"id": "b", "sex": "F"}],
            problems=[("frame", "a reason")],
            image_shape=(SIDE, SIDE),
            shard_size=SHARD,
        )
    )
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """The same, to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s.zarr"))


def trouble(path: Path) -> tuple[set[int], set[str]]:
    """Damaged rows and unreadable planned columns or tables."""
    with open_store(path) as opened:
        rows = {row for start, stop in units(opened) for row in damaged_rows(opened, start, stop)}
        return rows, set(unreadable_columns(opened))


def chunks_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("c/**/*") if file.is_file())


def positions(size: int, count: int) -> Iterator[int]:
    """The first byte, the last, and some between."""
    return iter(sorted({round(i * (size - 1) / (count - 1)) for i in range(count)}))


def test_an_undamaged_store_has_nothing_to_report(whole: Path) -> None:
    assert trouble(whole) == (set(), set())


def test_any_changed_byte_of_any_zarr_chunk_is_found(store: Path) -> None:
    files = chunks_of(store)
    assert {file.relative_to(store).parts[0] for file in files} == {
        "images", "masks", "keep", "samples", "cases", "problems",
    }  # fmt: skip
    for file in files:
        good = file.read_bytes()
        arrays = file.relative_to(store).parts
        for position in positions(len(good), 8 if arrays[0] in ("images", "masks", "keep") else 2):
            bad = bytearray(good)
            bad[position] ^= 0x10
            file.write_bytes(bad)
            rows, columns = trouble(store)
            assert rows or columns, (file, position)
            if arrays[0] in ("images", "masks", "keep"):
                first = int(arrays[2]) * SHARD
                assert rows <= set(range(first, first + SHARD)), (file, position)
                assert not columns
        file.write_bytes(good)
    assert trouble(store) == (set(), set())


def test_a_truncated_or_missing_chunk_is_found(store: Path) -> None:
    for file in chunks_of(store):
        good = file.read_bytes()
        if "cases" in file.parts or "problems" in file.parts:
            continue
        for bad in (good[: len(good) // 2], b""):
            file.write_bytes(bad)
            assert any(trouble(store)), file
        file.write_bytes(good)
    for name in ("images", "keep"):
        (store / name / "c/1/0/0").unlink()
        assert trouble(store)[0] == {4, 5}


def test_one_damaged_image_costs_one_row(store: Path) -> None:
    file = store / "images/c/0/0/0"
    bad = bytearray(file.read_bytes())
    bad[2] ^= 1  # of the first chunk of the shard
    file.write_bytes(bad)
    with open_store(store) as opened:
        found = damaged_rows(opened)
        assert list(found) == [0]
        assert found[0].startswith("images[0] cannot be read")
        assert opened.images[1].any()


def test_any_changed_byte_of_any_hdf5_chunk_is_found(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    convert_to_h5(whole, path)
    assert trouble(path) == (set(), set())
    places: list[tuple[str, int, int]] = []
    with h5py.File(path) as file:

        def collect(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.size:
                assert item.fletcher32, name
                for number in range(item.id.get_num_chunks()):
                    chunk = item.id.get_chunk_info(number)
                    places.append((name, chunk.byte_offset, chunk.size))

        file.visititems(collect)
    assert {name.split("/")[0] for name, _, _ in places} == {
        "images", "masks", "keep", "samples", "cases", "problems",
    }  # fmt: skip
    good = path.read_bytes()
    for name, offset, size in places:
        for position in range(offset, offset + size, 1 + size // 12):
            bad = bytearray(good)
            bad[position] ^= 0x10
            path.write_bytes(bad)
            assert any(trouble(path)), (name, position)


def test_pixels_that_were_written_by_others_are_found(store: Path) -> None:
    zarr.open(store, mode="r+")["masks"][5, 0, 0] ^= 1
    with open_store(store) as opened:
        assert damaged_rows(opened) == {5: "its pixels do not have the recorded SHA-256"}
        assert damaged_rows(opened, 0, 4) == {}


def test_an_unknown_status_is_damage(store: Path) -> None:
    zarr.open(store, mode="r+")["samples/status"][2] = 9
    with open_store(store) as opened:
        assert damaged_rows(opened) == {2: "its status is 9, which means nothing"}


def test_plain_libraries_read_both(whole: Path, tmp_path: Path) -> None:
    convert_to_h5(whole, tmp_path / "s.h5")
    plain = zarr.open(LocalStore(whole), mode="r")
    with h5py.File(tmp_path / "s.h5") as file:
        assert np.array_equal(plain["images"][:], file["images"][:])
        assert file["samples/frame_id"].asstr()[3] == plain["samples/frame_id"][3] == "frame_id3"


def pixels_of(path: Path) -> dict[str, np.ndarray]:
    with open_store(path) as opened:
        return {
            **{name: opened.pixels(name)[:] for name in opened.layout.pixels},
            **{name: opened.columns[name] for name in opened.columns},
        }


def remake(path: Path, source: dict[str, np.ndarray]) -> list[int]:
    """Write the pending rows as a run would; which they were."""
    from echogen.store import resume_store

    writer = resume_store(path)
    pending = writer.pending_rows()
    for shard, rows in pending.items():
        writer.write_shard(
            shard,
            {name: source[name][rows] for name in writer.layout.pixels},
            {column.name: source[column.name][rows] for column in writer.layout.outcomes},
            rows,
        )
    writer.set_complete()
    return [row for rows in pending.values() for row in rows]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("images/c/0/0/0", [0]),  # one chunk of a shard
        ("masks/c/1/0/0", [4]),  # of the last, short shard
        ("samples/sha256/c/0", [0, 1, 2, 3]),
        ("samples/status/c/1", [4, 5]),
    ],
)
def test_marked_rows_alone_are_made_again(store: Path, file: str, expected: list[int]) -> None:
    before = pixels_of(store)
    bad = bytearray((store / file).read_bytes())
    bad[2] ^= 1
    (store / file).write_bytes(bad)
    rows, columns = trouble(store)
    assert (sorted(rows), columns) == (expected, set())
    assert mark_pending(store, rows) == store
    with open_store(store) as opened:
        assert not opened.complete
        assert np.flatnonzero(opened.columns["status"] == Status.PENDING).tolist() == expected
    mark_pending(store, rows)  # as after a kill
    assert remake(store, before) == expected
    after = pixels_of(store)
    assert all(np.array_equal(before[name], after[name]) for name in before if name != "spacing_mm")
    assert trouble(store) == (set(), set())


@pytest.mark.parametrize("shard", [0, 1])
def test_a_shard_whose_index_is_damaged_is_made_again(store: Path, shard: int) -> None:
    before = pixels_of(store)
    file = store / f"keep/c/{shard}/0/0"
    bad = bytearray(file.read_bytes())
    bad[-1] ^= 1
    file.write_bytes(bad)
    rows, _ = trouble(store)
    assert len(rows) == (SHARD, N - SHARD)[shard]
    mark_pending(store, rows)
    assert remake(store, before) == sorted(rows)
    assert np.array_equal(pixels_of(store)["keep"], before["keep"])


def test_a_damaged_row_of_several_pending_ones_spares_the_others(store: Path) -> None:
    before = pixels_of(store)
    mark_pending(store, [1, 2, 5])
    assert remake(store, before) == [1, 2, 5]
    assert trouble(store) == (set(), set())


def test_a_failed_row_can_be_tried_again(store: Path) -> None:
    source = pixels_of(store)
    mark_pending(store, [3])
    failed = {**source, "status": source["status"].copy(), "reason": source["reason"].astype("<U9")}
    failed["status"][3], failed["reason"][3] = Status.FAILED, "no memory"
    remake(store, failed)
    with open_store(store) as opened:
        assert opened.problems == [("frame", "a reason"), ("sample_id3", "no memory")]
    mark_pending(store, [3])
    remake(store, source)
    with open_store(store) as opened:
        assert opened.problems == [("frame", "a reason")]


def test_half_of_a_shard_with_damaged_facts_is_refused(store: Path) -> None:
    file = store / "samples/sha256/c/0"
    bad = bytearray(file.read_bytes())
    bad[1] ^= 1
    file.write_bytes(bad)
    with pytest.raises(StoreError, match=r"sha256/c/0: cannot be read, and only 1 of its 4 rows"):
        mark_pending(store, [1])


def test_a_damaged_hdf5_file_goes_on_as_a_working_store(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    convert_to_h5(whole, path)
    before = pixels_of(path)
    with h5py.File(path, "r+") as file:
        file["images"][1] = 0
    assert trouble(path)[0] == {1}
    working = mark_pending(path, [1])
    assert working == working_store_path(path)
    assert (tmp_path / "s.h5.damaged").is_file()
    assert not path.exists()
    with open_store(working) as opened:
        assert opened.cases == [{"id": "a", "ef": 55.5}, {"id": "b", "sex": "F"}]
        assert opened.problems == [("frame", "a reason")]
    mark_pending(path, [1])  # again: the working store is what there is now
    assert remake(working, before) == [1]
    convert_to_h5(working, path)
    after = pixels_of(path)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_repair_of_hdf5_killed_before_its_end_changes_nothing(
    whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.h5"
    convert_to_h5(whole, path)
    good = path.read_bytes()

    def killed(place: str) -> None:
        if place.endswith(".damaged"):
            raise KeyboardInterrupt

    with on_rename(killed), pytest.raises(KeyboardInterrupt):
        mark_pending(path, [1])
    assert path.read_bytes() == good
    mark_pending(path, [1])
    assert (tmp_path / "s.h5.damaged").read_bytes() == good


def test_the_seal_holds_until_something_is_lost(whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    with open_store(store) as opened:
        assert opened.attrs[SEAL]
        assert broken_seal(opened) == ""
    files = [path for path in store.rglob("*") if path.is_file() and "problems" not in path.parts]
    quiet = []
    for path in files:
        content = path.read_bytes()
        path.unlink()
        try:
            with open_store(store) as opened:
                rows, columns, broken = (
                    damaged_rows(opened), unreadable_columns(opened), broken_seal(opened)
                )  # fmt: skip
                pending = (opened.columns["status"] == Status.PENDING).any()
            if not (rows or columns or broken or pending):
                quiet.append(path.relative_to(store).as_posix())
        except StoreError:
            pass
        path.write_bytes(content)
    assert len(files) > 40
    assert quiet == []


def test_the_seal_goes_with_hdf5_and_survives_a_repair(whole: Path, tmp_path: Path) -> None:
    convert_to_h5(whole, tmp_path / "s.h5")
    with open_store(tmp_path / "s.h5") as opened:
        assert broken_seal(opened) == ""
    mark_pending(tmp_path / "s.h5", {1})
    with open_store(working_store_path(tmp_path / "s.h5")) as opened:
        assert broken_seal(opened) == ""
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    mark_pending(store, {1})
    with open_store(store) as opened:
        assert broken_seal(opened) == ""


def test_a_shared_store_is_opened_anew_when_it_was_replaced(whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    first = shared_store(store)
    assert shared_store(store) is first
    shutil.rmtree(store)
    columns = {name: values[:2] for name, values in COLUMNS.items()}
    write(create_store(store, attrs={}, columns=columns, cases=[{"id": "a"}], problems=[],
                       image_shape=(SIDE, SIDE), shard_size=SHARD))  # fmt: skip
    assert len(shared_store(store)) == 2


ADDED = ("crop", "cut_ids", "seen", "repaints")


def without_what_was_added(path: Path) -> None:
    """What a store was before its columns `ADDED`: without them, and sealed without them."""
    with open_store(path) as store:
        planned = {c.name: store.columns[c.name] for c in store.layout.planned if not c.added}
        sealed = {**store.attrs, "seal": seal_of(store.attrs, planned, store.case_columns)}
    if path.is_dir():
        for name in ADDED:
            shutil.rmtree(path / "samples" / name)
        metadata = json.loads((path / "zarr.json").read_text())
        metadata["attributes"]["echogen"] = sealed
        (path / "zarr.json").write_text(json.dumps(metadata))
    else:
        with h5py.File(path, "r+") as file:
            for name in ADDED:
                del file[f"samples/{name}"]
            file.attrs["echogen"] = json.dumps(sealed)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_store_made_before_its_crops_were_recorded_reads_as_whole_pictures(
    store: Path, tmp_path: Path, suffix: str
) -> None:
    old = store
    if suffix == ".h5":
        old = tmp_path / "s.h5"
        convert_to_h5(store, old)
    without_what_was_added(old)
    with open_store(old) as opened:
        assert opened.absent == set(ADDED)
        assert set(opened.columns["cut_ids"]) == {""}
        np.testing.assert_array_equal(opened.columns["crop"], np.zeros((N, 4), np.int32))
        assert broken_seal(opened) == ""
        part = create_part(tmp_path / "part.zarr", opened, [0, 3], {"kind": "expanded"})
    assert trouble(old) == (set(), set())
    with open_store(part.path) as opened:
        assert not opened.absent
        assert not opened.columns["crop"].any()


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_lost_seal_is_no_old_store(store: Path, tmp_path: Path, suffix: str) -> None:
    path = store
    if suffix == ".h5":
        path = tmp_path / "s.h5"
        convert_to_h5(store, path)
    content = (path / "zarr.json" if path.is_dir() else path).read_bytes()
    spoilt = content.replace(b'"seal"', b'"sEal"')
    (path / "zarr.json" if path.is_dir() else path).write_bytes(spoilt)
    with open_store(path) as opened:
        assert broken_seal(opened) == "the attribute `echogen` has lost its seal"


def test_a_lost_chunk_of_case_ids_is_no_case(store: Path) -> None:
    (store / "cases/id/c/0").unlink()
    with open_store(store) as opened:
        assert [case["id"] for case in opened.cases] == ["", ""]


@pytest.mark.parametrize("name", ["crop", "repaints"])
def test_a_lost_column_is_no_old_store(store: Path, name: str) -> None:
    shutil.rmtree(store / "samples" / name)
    with open_store(store) as opened:
        assert "a planned column" in broken_seal(opened)


def test_a_shard_that_cannot_be_read_is_made_again_beside_rows_without_pixels(
    store: Path,
) -> None:
    before = pixels_of(store)
    mark_pending(store, [3])
    rejected = {**before, "status": before["status"].copy(), "sha256": before["sha256"].copy()}
    rejected["status"][3], rejected["sha256"][3] = Status.REJECTED, ""
    for name in ("images", "masks", "keep"):
        rejected[name] = before[name].copy()
        rejected[name][3] = 0
    remake(store, rejected)
    (store / "images/c/0/0/0").write_bytes(b"nothing")
    with open_store(store) as opened:
        rows = list(damaged_rows(opened))
    assert rows == [0, 1, 2]
    mark_pending(store, rows)
    assert remake(store, rejected) == rows
    with open_store(store) as opened:
        assert not damaged_rows(opened)
