import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import echogen.store.zarr_store as zarr_store
from echogen.errors import StoreError
from echogen.store import (
    COLUMNS,
    EXPANDED,
    FORMAT,
    Status,
    StoreReader,
    StoreWriter,
    convert_to_h5,
    create_store,
    damaged_rows,
    open_store,
    remove_store,
    resume_store,
    sample_sha256,
    working_store_path,
)
from echogen.store.disk import disk_errors
from echogen.store.hdf5 import _Output
from tests.support.faults import on_disk, on_rename

ROOT = Path(__file__).parents[2]
ATTRS = {"version": "0.1", "labels": {0: "background", 1: "LV cavity"}, "checkpoint": {"nfe": 7}}
CASES = [{"id": "p1", "ef": 46.5, "image_quality": "Good"}, {"id": "p2", "ef": 60, "note": "late"}]
SKIPPED = [("p3_4CH_ED", "p3_4CH_ED.nii.gz: truncated")]


def planned(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = {}
    for c in EXPANDED.planned:
        if c.dtype == "str":
            columns[c.name] = np.array([f"{c.name}-é{i}" for i in range(n)])
        elif c.dtype == "float32":
            columns[c.name] = rng.normal(size=c.shape(n)).astype(np.float32)
        else:
            top = np.iinfo(c.dtype).max
            columns[c.name] = rng.integers(0, top, c.shape(n), dtype=c.dtype, endpoint=True)
    return columns


def outcome(n: int, shape: tuple[int, int], seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    masks = rng.integers(0, 4, (n, *shape), dtype=np.uint8)
    return {
        "images": images,
        "masks": masks,
        "keep": rng.random((n, *shape)) < 0.7,
        "status": np.full(n, Status.DONE),
        "label_on_paint": rng.random(n).astype(np.float32),
        "sha256": [sample_sha256(i, m) for i, m in zip(images, masks, strict=True)],
    }


def new_store(
    path: Path, n: int = 10, shard_size: int = 4, shape: tuple[int, int] = (6, 5)
) -> StoreWriter:
    return create_store(
        path,
        attrs=ATTRS,
        columns=planned(n),
        cases=CASES,
        problems=SKIPPED,
        image_shape=shape,
        shard_size=shard_size,
    )


def write(writer: StoreWriter, shard: int, **arrays: object) -> None:
    pixels = {name: arrays.pop(name) for name in ("images", "masks", "keep") if name in arrays}
    writer.write_shard(shard, pixels, arrays)  # type: ignore[arg-type]


def fill(writer: StoreWriter) -> None:
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        write(writer, shard, **outcome(len(rows), writer.image_shape, shard))
    writer.set_complete()


def assert_same(one: StoreReader, other: StoreReader) -> None:
    assert one.attrs == other.attrs
    for name in ("images", "masks", "keep"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a[:], b[:])
    for c in COLUMNS:
        assert one.columns[c.name].dtype.kind == other.columns[c.name].dtype.kind
        np.testing.assert_array_equal(one.columns[c.name], other.columns[c.name])
    assert one.cases == other.cases
    assert one.problems == other.problems


def test_a_power_cut_takes_back_nothing_that_is_relied_upon(tmp_path: Path) -> None:
    working = working_store_path(tmp_path / "s.h5")
    with on_disk() as renames:
        writer = new_store(working)
        fill(writer)
        writer.mark_pending(range(2, 7))
        fill(resume_store(working))
        convert_to_h5(working, tmp_path / "s.h5")
        remove_store(working)
    names = [Path(name).name for name, _ in renames]
    assert {"s.h5", "zarr.json", ".s.h5.partial.zarr.removing"} <= set(names)
    assert sum("/samples/status/c/" in name for name, _ in renames) > 5
    assert {name: loose for name, loose in renames if loose} == {}


def test_a_store_that_is_removed_while_it_is_written_does_not_grow_again(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="removed in the meantime"):
        write(writer, 0, **outcome(4, (6, 5), 0))
    assert list(tmp_path.iterdir()) == []


words = st.text(st.characters(exclude_categories=("C",)), max_size=8)


@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes of disk
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    n=st.integers(1, 9),
    shard_size=st.integers(1, 10),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    texts=st.lists(words, min_size=9, max_size=9),
    problems=st.lists(st.tuples(words, words), max_size=3),
)
def test_what_is_written_is_read_back_from_zarr_and_from_hdf5(
    n: int, shard_size: int, shape: tuple[int, int], texts: list[str], problems: list
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, h5 = Path(folder) / "s.zarr", Path(folder) / "s.h5"
        columns = planned(n) | {"frame_id": np.array(texts[:n], dtype=str)}
        whole = outcome(n, shape, 5)
        writer = create_store(
            path,
            attrs=ATTRS,
            columns=columns,
            cases=CASES,
            problems=problems,
            image_shape=shape,
            shard_size=shard_size,
        )
        for shard in writer.pending_shards():
            rows = writer.shard_rows(shard)
            part = slice(rows.start, rows.stop)
            write(writer, shard, **{name: values[part] for name, values in whole.items()})
        writer.set_complete()
        convert_to_h5(path, h5)
        with open_store(path) as store, open_store(h5) as converted:
            for name in ("images", "masks", "keep"):
                np.testing.assert_array_equal(getattr(store, name)[:], whole[name])
            for name, values in columns.items():
                np.testing.assert_array_equal(store.columns[name], values)
            for name in ("status", "label_on_paint", "sha256"):
                np.testing.assert_array_equal(store.columns[name], whole[name])
            assert store.cases == CASES
            assert store.problems == problems
            assert store.attrs["labels"] == {"0": "background", "1": "LV cavity"}
            assert store.complete
            assert_same(store, converted)


def test_plain_zarr_opens_it_without_a_reader_of_ours(tmp_path: Path) -> None:
    fill(new_store(tmp_path / "s.zarr"))
    group = zarr.open(tmp_path / "s.zarr", mode="r")
    first = outcome(4, (6, 5), 1)
    np.testing.assert_array_equal(group["images"][5], first["images"][1])
    assert group["keep"].dtype == np.bool_
    assert group["samples/frame_id"][3] == "frame_id-é3"
    assert group["samples/sector"].shape == (10, 6)
    assert group.attrs["echogen"]["format"] == 1
    assert group["problems/reason"][0] == SKIPPED[0][1]


def test_plain_h5py_opens_it_without_a_reader_of_ours(tmp_path: Path) -> None:
    fill(new_store(tmp_path / "s.zarr"))
    convert_to_h5(tmp_path / "s.zarr", tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["images"][5], outcome(4, (6, 5), 1)["images"][1])
        assert file["keep"].dtype == np.bool_
        assert file["samples/frame_id"].asstr()[3] == "frame_id-é3"
        assert json.loads(file.attrs["echogen"])["complete"] is True
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "s.zarr"]


def test_a_shard_is_one_file_of_each_array_and_of_each_outcome_column(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr")
    rows = writer.shard_rows(1)
    write(writer, 1, **outcome(len(rows), (6, 5), 0))
    for name in ("images", "masks", "keep"):
        files = [p for p in (tmp_path / "s.zarr" / name).rglob("*") if p.is_file()]
        assert sorted(p.name for p in files) == ["0", "zarr.json"]
    for name in ("status", "label_on_paint", "sha256"):
        assert [p.name for p in (tmp_path / "s.zarr/samples" / name / "c").iterdir()] == ["1"]
    assert writer.pending_shards() == [0, 2]
    assert writer.shard_rows(2) == range(8, 10)


def test_the_status_is_the_last_thing_written(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr")
    written: list[str] = []
    with on_rename(lambda place: written.append(place.removeprefix(f"{tmp_path}/s.zarr/"))):
        write(writer, 0, **outcome(4, (6, 5), 0))
    assert {w.split("/")[0] for w in written[:3]} == {"images", "masks", "keep"}
    assert written[-1] == "samples/status/c/0"


def test_pending_rows_are_told_from_written_ones(tmp_path: Path) -> None:
    write(new_store(tmp_path / "s.zarr"), 0, **outcome(4, (6, 5), 0))
    with open_store(tmp_path / "s.zarr") as store:
        assert store.columns["status"].tolist() == [1] * 4 + [0] * 6
        assert np.isnan(store.columns["label_on_paint"][4:]).all()
        assert not store.complete
        assert store.columns["sha256"][4] == ""


def test_failed_and_rejected_samples_are_recorded(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr", n=6, shard_size=3)
    write(writer, 0, **outcome(3, (6, 5), 0))
    last = outcome(3, (6, 5), 1)
    last["status"] = [Status.FAILED, Status.REJECTED, Status.DONE]
    write(writer, 1, **last, reason=["out of paint", "no valid draw in 30 tries", ""])
    failed = [("sample_id-é3", "out of paint")]
    with open_store(tmp_path / "s.zarr") as store:
        assert store.problems == SKIPPED + failed  # before the run is finished, too
    for _ in range(2):  # as after a kill between the table and the mark
        resume_store(tmp_path / "s.zarr").set_complete()
        group = zarr.open(tmp_path / "s.zarr", mode="r")
        assert group["problems/id"][:].tolist() == [i for i, _ in SKIPPED + failed]
        assert group["problems/reason"][:].tolist() == [r for _, r in SKIPPED + failed]
    with open_store(tmp_path / "s.zarr") as store:
        assert store.problems == SKIPPED + failed
        assert store.columns["reason"][4] == "no valid draw in 30 tries"
    convert_to_h5(tmp_path / "s.zarr", tmp_path / "s.h5")
    with open_store(tmp_path / "s.h5") as store:
        assert store.problems == SKIPPED + failed


def test_damaged_pixels_are_found_by_their_hash(tmp_path: Path) -> None:
    fill(new_store(tmp_path / "s.zarr"))
    with open_store(tmp_path / "s.zarr") as store:
        assert damaged_rows(store) == {}
    zarr.open(tmp_path / "s.zarr", mode="r+")["masks"][6, 0, 0] = 9
    (tmp_path / "s.zarr/images/c/2/0/0").write_bytes(b"no shard")
    with open_store(tmp_path / "s.zarr") as store:
        assert list(damaged_rows(store)) == [6, 8, 9]
        with pytest.raises(StoreError, match=r"images\[9\] cannot be read"):
            store.images[9]


def test_an_existing_path_is_never_overwritten(tmp_path: Path) -> None:
    for name in ("empty.zarr", "full.zarr"):
        (tmp_path / name).mkdir()
    (tmp_path / "full.zarr" / "precious.txt").write_text("mine")
    (tmp_path / "dangling.zarr").symlink_to(tmp_path / "nowhere")
    for name in ("empty.zarr", "full.zarr", "dangling.zarr"):
        with pytest.raises(StoreError, match=r"exists already.*--overwrite"):
            new_store(tmp_path / name)
    assert (tmp_path / "full.zarr" / "precious.txt").read_text() == "mine"


def test_only_echogen_stores_are_removed(tmp_path: Path) -> None:
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "text.h5").write_text("mine")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    for name in ("folder.zarr", "text.h5", "foreign.zarr"):
        with pytest.raises(StoreError, match="not an echogen store"):
            remove_store(tmp_path / name)
        assert (tmp_path / name).exists()
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = 1
    with pytest.raises(StoreError, match="delete it yourself"):
        remove_store(tmp_path / "foreign.h5")
    assert (tmp_path / "foreign.h5").exists()
    output = tmp_path / "s.h5"
    fill(new_store(working_store_path(output)))
    convert_to_h5(working_store_path(output), output)
    remove_store(output)
    remove_store(output)
    assert not output.exists()
    assert not working_store_path(output).exists()


def test_a_damaged_store_can_be_removed(tmp_path: Path) -> None:
    new_store(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "zarr.json").write_text("")
    remove_store(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_creation_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; import tests.store.test_store as t\n"
        "Path.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.new_store(Path(sys.argv[1]))"
    )
    path = tmp_path / "s.zarr"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert not path.exists()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name == ".s.zarr.creating"
    fill(new_store(path))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


WRITE_ON = """
import sys; from pathlib import Path; import tests.store.test_store as t
writer = t.resume_store(Path(sys.argv[1]))
print("ready", flush=True)
t.fill(writer)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_like_an_undisturbed_one(
    tmp_path: Path, kills: int
) -> None:
    rng = np.random.default_rng(20)
    fill(new_store(tmp_path / "calm.zarr", n=90, shard_size=6, shape=(96, 96)))
    path = tmp_path / "killed.zarr"
    new_store(path, n=90, shard_size=6, shape=(96, 96))
    for attempt in range(40):
        command = [sys.executable, "-c", WRITE_ON, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            try:
                # the last ones may finish, however slow the machine
                child.wait(rng.uniform(0.0, 0.15) if attempt < kills else 60)
            except subprocess.TimeoutExpired:
                child.kill()
        with open_store(path) as store:
            assert damaged_rows(store) == {}
        if child.returncode == 0:
            break
    with open_store(path) as store, open_store(tmp_path / "calm.zarr") as calm:
        assert store.complete
        assert_same(store, calm)
    resume_store(path)
    assert not list(path.rglob("*.partial"))


def test_files_half_written_by_a_kill_are_cleared(tmp_path: Path) -> None:
    new_store(tmp_path / "s.zarr")
    half = tmp_path / "s.zarr/images/c/0/0/0.0123.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert resume_store(tmp_path / "s.zarr").pending_shards() == [0, 1, 2]
    assert not half.exists()


def test_a_full_disk_is_one_line_and_the_store_resumes(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr")
    # the disk fills before each of the six files with other than fill values
    for allowed in range(6):
        left = [allowed]

        def full(place: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

        message = r"disk is full: the next write takes up to \d+ kB, free is .*again"
        with on_rename(full), pytest.raises(StoreError, match=message) as caught:
            write(writer, 1, **outcome(4, (6, 5), 1))
        assert "\n" not in str(caught.value)
        assert resume_store(tmp_path / "s.zarr").pending_shards() == [0, 1, 2]
    fill(resume_store(tmp_path / "s.zarr"))
    with open_store(tmp_path / "s.zarr") as store:
        assert store.complete
        assert damaged_rows(store) == {}


ON_A_TINY_DISK = """
mount -t tmpfs -o size=3m none "$1" && exec "$2" -W error -c '
import sys; from pathlib import Path; import tests.store.test_store as t
disk = Path(sys.argv[1])
try:
    t.fill(t.new_store(disk / "s.zarr", n=64, shard_size=8, shape=(256, 256)))
except t.StoreError as error:
    print(error)
print(len(t.resume_store(disk / "s.zarr").pending_shards()))
try:
    t.new_store(disk / "t.zarr", n=60000)
except t.StoreError as error:
    print(error)
print(sorted(p.name for p in disk.iterdir()))
t.remove_store(disk / "s.zarr")
t.fill(t.new_store(disk / "u.zarr", n=20, shard_size=8, shape=(256, 256)))
try:
    t.convert_to_h5(disk / "u.zarr", disk / "u.h5")
except t.StoreError as error:
    print(error)
print(sorted(p.name for p in disk.iterdir()))
' "$1"
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    try:
        probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small file system here")
    command = ["unshare", "-rm", "sh", "-c", ON_A_TINY_DISK, "sh", str(tmp_path), sys.executable]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    shard, pending, creation, left, conversion, left_after = run.stdout.splitlines()
    for line in (shard, creation, conversion):
        takes, free = (
            float(number.replace(",", "")) * (1000 if unit == "MB" else 1)
            for number, unit in re.findall(r"(?:up to|free is) ([\d,.]+) ([kM]B)", line)
        )
        assert takes > 0
        assert free < takes or "after what was begun was removed" in line
    assert 0 < int(pending) < 8
    assert left == "['s.zarr']"
    assert left_after == "['u.zarr']"


def test_a_file_that_cannot_be_made_longer_is_told_when_it_is_checked(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with _Output(tmp_path / "x.h5", "w+") as output:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            output.truncate(1000)  # HDF5 takes what is raised here for an error of its own
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with pytest.raises(OSError, match="too large"):
            output.check()


def test_a_write_that_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; import tests.store.test_store as t\n"
        "writer = t.new_store(Path(sys.argv[1]), shape=(96, 96))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: t.fill(writer)\n"
        "except t.StoreError as error: print(error)\n"
    )
    path = tmp_path / "s.zarr"
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written (File too large)" in run.stdout
    assert run.stdout.count("\n") == 1
    assert resume_store(path).pending_shards() == [0, 1, 2]
    assert not list(path.rglob("*.partial"))


def test_damage_is_named_in_one_line(tmp_path: Path) -> None:
    def told(what: str) -> str:
        with pytest.raises(StoreError) as caught:
            open_store(tmp_path / "s.zarr")
        message = str(caught.value)
        assert what in message
        assert "\n" not in message
        assert str(tmp_path / "s.zarr") in message
        return message

    told("no such store")
    (tmp_path / "s.zarr").mkdir()
    told("not an echogen store")
    (tmp_path / "s.zarr").rmdir()
    new_store(tmp_path / "s.zarr")

    def spoilt(file: Path, text: str, what: str) -> None:
        sound = file.read_text()
        file.write_text(text)
        told(what)
        file.write_text(sound)

    root = tmp_path / "s.zarr" / "zarr.json"
    sound = root.read_text()
    spoilt(root, sound[:100], "zarr.json: is not valid JSON (")
    spoilt(root, "[]", "zarr.json cannot be read")
    spoilt(root, sound.replace('"echogen"', '"other"'), "has no attribute 'echogen'. Restore")
    spoilt(root, sound.replace('"format": 1', f'"format": {FORMAT + 1}'), "Upgrade echogen")
    spoilt(root, sound.replace('"format": 1', '"format": "x"'), "'format' must be")
    copy = tmp_path / "s.zarr" / "samples" / "copy" / "zarr.json"
    spoilt(copy, "", "samples/copy cannot be read")
    spoilt(copy, copy.read_text().replace("uint16", "uint8"), "samples/copy cannot be read")
    keep = tmp_path / "s.zarr" / "keep" / "zarr.json"
    spoilt(keep, keep.read_text().replace("10,", "11,", 1), "keep has shape")
    keep.unlink()
    told("keep cannot be read")


def test_a_damaged_hdf5_file_is_named_in_one_line(tmp_path: Path) -> None:
    fill(new_store(tmp_path / "s.zarr"))
    h5 = tmp_path / "s.h5"
    convert_to_h5(tmp_path / "s.zarr", h5)
    whole = h5.read_bytes()
    h5.write_bytes(whole[:4000])
    with pytest.raises(StoreError, match="the file cannot be read"):
        open_store(h5)
    h5.write_text("not HDF5 at all")
    with pytest.raises(StoreError, match="neither a Zarr folder nor an HDF5"):
        open_store(h5)
    h5.write_bytes(whole)
    with h5py.File(h5, "r+") as file:
        del file["samples/cut"]
    with pytest.raises(StoreError, match="samples/cut cannot be read"):
        open_store(h5)
    with h5py.File(h5, "r+") as file:
        del file.attrs["echogen"]
    with pytest.raises(StoreError, match="not an echogen store"):
        open_store(h5)


def test_an_unfinished_hdf5_output_is_told(tmp_path: Path) -> None:
    output = tmp_path / "s.h5"
    new_store(working_store_path(output))
    with pytest.raises(StoreError, match=r"unfinished, in s\.h5\.partial\.zarr"):
        open_store(output)
    with pytest.raises(StoreError, match="is unfinished and cannot be converted"):
        convert_to_h5(working_store_path(output), output)


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def create(**changes: object) -> None:
        columns = {name: v for name, v in (planned(3) | changes).items() if v is not None}
        create_store(
            tmp_path / "s.zarr",
            attrs={},
            columns=columns,
            cases=[],
            problems=[],
            image_shape=(2, 2),
            shard_size=2,
        )

    for changes, what in (
        ({"depth": None}, "missing: depth"),
        ({"deepness": np.zeros(3)}, "unknown: deepness"),
        ({"copy": np.array([0, 1, 65536])}, r"'copy' must lie in \[0, 65535\]"),
        ({"copy": np.zeros(3)}, "'copy' must hold integers"),
        ({"sector": np.zeros((3, 5))}, r"'sector' must have shape \(3, 6\)"),
        ({"depth": np.array(["a", "b", "c"])}, "'depth' must hold numbers"),
        ({"sample_id": np.array([], dtype=str)}, "at least one sample"),
    ):
        with pytest.raises(StoreError, match=what):
            create(**changes)
        assert list(tmp_path.iterdir()) == []


def test_shards_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = new_store(tmp_path / "s.zarr")
    good = outcome(4, (6, 5), 0)
    for changes, what in (
        ({"images": good["images"][:3]}, "images of shard 0 must be"),
        ({"keep": good["masks"]}, "keep of shard 0 must be"),
        ({"status": [1, 1, 0, 1]}, "pending rows"),
        ({"sha256": ["a"]}, "'sha256' must have shape"),
    ):
        with pytest.raises(StoreError, match=what):
            write(writer, 0, **(good | changes))
    with pytest.raises(StoreError, match="shards 0 to 2, got 3"):
        write(writer, 3, **good)
    with pytest.raises(StoreError, match="3 unfinished shards of 3"):
        writer.set_complete()


def test_attributes_must_be_json(tmp_path: Path) -> None:
    for bad in ({"seed": float("nan")}, {"config": {"path": Path("x")}}):
        with pytest.raises(StoreError, match="plain JSON"):
            zarr_store.root_attributes(tmp_path, bad)


def new_generated(path: Path, n: int = 5) -> StoreWriter:
    columns = {name: v for name, v in planned(n).items() if name not in ("sector", "aspect")}
    attrs = {**ATTRS, "kind": "generated"}
    return create_store(
        path,
        attrs=attrs,
        columns=columns,
        cases=CASES,
        problems=[],
        image_shape=(6, 5),
        shard_size=2,
    )


def generated(n: int) -> dict[str, object]:
    images = outcome(n, (6, 5), 0)["images"]
    return {
        "images": images,
        "status": np.full(n, Status.DONE),
        "sha256": [sample_sha256(image) for image in images],  # type: ignore[attr-defined]
        "sector": np.arange(6 * n).reshape(n, 6),
        "aspect": np.full(n, 1.2),
    }


def test_generated_images_come_without_masks_and_with_the_fan_found_in_them(
    tmp_path: Path,
) -> None:
    writer = new_generated(tmp_path / "s.zarr")
    write(writer, 1, **generated(2))
    with open_store(tmp_path / "s.zarr") as store:
        assert np.isnan(store.columns["sector"][:2]).all()
        assert store.columns["sector"][3].tolist() == list(range(6, 12))
        assert np.isnan(store.columns["aspect"][[0, 1, 4]]).all()
        assert store.columns["status"].tolist() == [0, 0, 1, 1, 0]
    write(resume_store(tmp_path / "s.zarr"), 0, **generated(2))
    write(writer, 2, **generated(1))
    writer.set_complete()
    convert_to_h5(tmp_path / "s.zarr", tmp_path / "s.h5")
    for path in (tmp_path / "s.zarr", tmp_path / "s.h5"):
        with open_store(path) as store:
            assert (store.kind, store.attrs["format"], len(store)) == ("generated", 2, 5)
            np.testing.assert_array_equal(store.images[2:4], generated(2)["images"])
            assert damaged_rows(store) == {}
            for name in ("masks", "keep"):
                with pytest.raises(StoreError, match=f"generated images, which have no {name}"):
                    getattr(store, name)
    assert set(zarr.open(tmp_path / "s.zarr", mode="r")) == {
        "images", "samples", "cases", "problems"
    }  # fmt: skip
    remove_store(tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_an_expanded_store_says_so_and_stays_in_the_first_format(tmp_path: Path) -> None:
    fill(new_store(tmp_path / "s.zarr"))
    file = tmp_path / "s.zarr" / "zarr.json"
    found = json.loads(file.read_text())
    root = found["attributes"]["echogen"]
    assert (root["kind"], root["format"]) == ("expanded", 1)
    del root["kind"]  # as versions before there was a second kind wrote it
    file.write_text(json.dumps(found))
    with open_store(tmp_path / "s.zarr") as store:
        assert store.kind == "expanded"
        assert store.masks.shape == store.images.shape
    for kind in ("imagined", ["expanded"]):
        root["kind"] = kind
        file.write_text(json.dumps(found))
        with pytest.raises(StoreError, match="'kind' must be one of expanded, generated"):
            open_store(tmp_path / "s.zarr")


def test_a_shard_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    writer = new_generated(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="a shard holds images, got images, masks, keep"):
        write(writer, 0, **outcome(2, (6, 5), 0))
    with pytest.raises(StoreError, match="a shard holds images, masks, keep, got images"):
        write(new_store(tmp_path / "e.zarr"), 0, **generated(4))
    with pytest.raises(StoreError, match="missing: sha256; unknown: depth"):
        write(writer, 0, images=generated(2)["images"], status=[1, 1], depth=[1, 1])


def test_importing_the_store_loads_neither_zarr_nor_h5py() -> None:
    script = (
        "import sys, echogen.store;"
        "print(sorted({'zarr', 'h5py', 'numcodecs', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["sector/c/1/0", "status/c/1"])
def test_a_damaged_outcome_of_generated_images_can_be_made_again(tmp_path: Path, name: str) -> None:
    writer = new_generated(tmp_path / "s.zarr")
    for shard, n in enumerate((2, 2, 1)):
        write(writer, shard, **generated(n))
    assert (tmp_path / "s.zarr/samples" / name).is_file()
    (tmp_path / "s.zarr/samples" / name).write_bytes(bytes(9))
    resume_store(tmp_path / "s.zarr").mark_pending([2, 3])
    assert resume_store(tmp_path / "s.zarr").pending_shards() == [1]


@pytest.mark.parametrize(
    ("number", "found", "words"),
    [
        (errno.ENOSPC, {}, "takes up to 10 kB, free is 9 kB. Free"),
        (errno.ENOSPC, {"f_bavail": 50}, "free is 205 kB, after what was begun was removed; more"),
        (errno.ENOSPC, {"f_bavail": 500, "f_favail": 0}, "free is 2.0 MB, but no more files fit"),
        (errno.EDQUOT, {"f_bavail": 500}, "free is 2.0 MB, but a quota is used up"),
    ],
)
def test_a_full_disk_says_what_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: dict[str, int], words: str
) -> None:
    values = {"f_bavail": 2, "f_frsize": 4096, "f_files": 9, "f_favail": 9, **found}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**values))
    with pytest.raises(StoreError) as caught, disk_errors(tmp_path, 1000, files=2):
        raise OSError(number, os.strerror(number))
    assert words in str(caught.value)
