import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.export import ExportReport, export
from echogen.datasets.folder import list_folder
from echogen.errors import StoreError, UsageError
from echogen.exports.naming import sample_names
from echogen.exports.selection import Selection
from echogen.exports.tables import samples_csv
from echogen.exports.target import MANIFEST
from echogen.store import COLUMNS, Status, open_store, resume_store, store_lock
from tests.support.export_stores import Made, Sample, cohort, with_status
from tests.support.faults import contents, every_kill, on_disk

FILES = ("folder", "nifti", "nnunet")


def run(store: Path, to: str, output: Path, **settings: Any) -> ExportReport:
    return export(store, to=to, output=output, **settings)  # type: ignore[misc]


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def assert_equal_stores(one: Path, other: Path) -> None:
    with open_store(one) as a, open_store(other) as b:
        assert a.attrs == b.attrs
        assert a.complete
        for name in a.layout.pixels:
            np.testing.assert_array_equal(a.pixels(name)[:], b.pixels(name)[:])
        for column in COLUMNS:
            assert a.columns[column.name].dtype.kind == b.columns[column.name].dtype.kind
            np.testing.assert_array_equal(a.columns[column.name], b.columns[column.name])
        assert a.problems == b.problems
        assert list(a.case_columns) == list(b.case_columns)
        for name, values in a.case_columns.items():
            np.testing.assert_array_equal(values, b.case_columns[name])


MIXED = with_status(
    cohort(3, copies=2),
    patient0001_4CH_ED_copy1=int(Status.REJECTED),
    patient0002_4CH_ES_copy2=int(Status.FAILED),
)
GENERATED = Made(
    tuple(Sample(f"g{i}", f"g{i}", f"g{i}", "", "", copy=1) for i in range(5)), "generated"
)


@pytest.mark.parametrize("made", [MIXED, GENERATED], ids=["expanded", "generated"])
def test_a_whole_store_goes_to_the_other_kind_and_back_unchanged(
    tmp_path: Path, made: Made
) -> None:
    first = made.put(tmp_path / "a.zarr")
    there = run(first, "h5", tmp_path / "b.h5")
    back = run(tmp_path / "b.h5", "zarr", tmp_path / "c.zarr")
    assert there.written == back.written == len(made.samples)
    assert_equal_stores(first, tmp_path / "b.h5")
    assert_equal_stores(first, tmp_path / "c.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "b.h5", "c.zarr"}
    again = run(tmp_path / "b.h5", "zarr", tmp_path / "c.zarr")
    assert again.written == 0


@pytest.mark.parametrize("to", ["zarr", "h5"])
def test_a_part_of_a_store_keeps_every_column_and_says_that_it_is_one(
    tmp_path: Path, to: str
) -> None:
    store = MIXED.put(tmp_path / "a.zarr")
    selection = Selection(cases=("*1", "*2"), copies="0,1", statuses=("done",))
    report = run(store, to, tmp_path / f"part.{to}", selection=selection)
    assert (report.originals, report.copies, report.cases) == (4, 3, 2)
    with open_store(store) as whole, open_store(tmp_path / f"part.{to}") as part:
        columns = whole.columns
        rows = np.flatnonzero(
            np.isin(columns["case_id"], ["patient0001", "patient0002"])
            & (columns["copy"] < 2)
            & (columns["status"] == Status.DONE)
        )
        for name in ("images", "masks", "keep"):
            np.testing.assert_array_equal(part.pixels(name)[:], whole.pixels(name)[:][rows])
        for column in COLUMNS:
            np.testing.assert_array_equal(part.columns[column.name], columns[column.name][rows])
        assert part.complete
        assert part.attrs["plan_digest"] == whole.attrs["plan_digest"]
        assert part.attrs["checkpoint"] == whole.attrs["checkpoint"]
        assert [case["id"] for case in part.cases] == ["patient0001", "patient0002"]
        told = part.attrs["exported"]
        assert (told["from"], told["rows"], told["of"]) == ("a.zarr", 7, 18)
        assert told["selection"]["cases"] == ["*1", "*2"]


def test_a_part_of_a_part_says_both(tmp_path: Path) -> None:
    store = cohort(3).put(tmp_path / "a.zarr")
    run(store, "zarr", tmp_path / "b.zarr", selection=Selection(copies="originals"))
    run(tmp_path / "b.zarr", "zarr", tmp_path / "c.zarr", selection=Selection(phases=("ES",)))
    with open_store(tmp_path / "c.zarr") as part:
        assert part.attrs["exported"]["from"] == "b.zarr"
        assert part.attrs["exported"]["before"]["from"] == "a.zarr"


def test_a_store_at_the_output_is_only_replaced_when_asked(tmp_path: Path) -> None:
    first = cohort(2).put(tmp_path / "a.zarr")
    other = cohort(3, attrs={"plan_digest": "6" * 64}).put(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="its plan_digest differs"):
        run(first, "zarr", other)
    run(first, "zarr", other, overwrite=True)
    assert_equal_stores(first, other)
    (tmp_path / "mine.h5").write_text("my notes")
    with pytest.raises(StoreError):
        run(first, "h5", tmp_path / "mine.h5", overwrite=True)
    assert (tmp_path / "mine.h5").read_text() == "my notes"


def test_a_store_that_was_half_copied_is_continued(tmp_path: Path) -> None:
    store = cohort(3).put(tmp_path / "a.zarr")
    run(store, "zarr", tmp_path / "b.zarr")
    resume_store(tmp_path / "b.zarr").mark_pending(range(4, 8))  # a shard, as after a kill
    report = run(store, "zarr", tmp_path / "b.zarr")
    assert report.written == 4
    assert_equal_stores(store, tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), 32),
        (Selection(views=("4ch",)), 16),
        (Selection(phases=("ES",), views=("2CH",)), 8),
        (Selection(split="validation"), 16),
        (Selection(cases=("patient0001", "patient0004")), 16),
        (Selection(copies="originals"), 16),
        (Selection(copies="copies"), 16),
        (Selection(copies="0,1", cases=("*3",)), 8),
        (Selection(copies="1", cases=("*3",)), 4),
    ],
)
def test_what_is_selected_is_what_is_exported(
    tmp_path: Path, selection: Selection, expected: int
) -> None:
    made = cohort(4, views=("2CH", "4CH"), splits=("training", "validation"))
    report = run(made.put(tmp_path / "a.h5"), "folder", tmp_path / "out", selection=selection)
    keys = list_folder(tmp_path / "out").keys
    assert len(keys) == report.samples == report.written == expected
    with open_store(tmp_path / "a.h5") as store:
        columns = dict(store.columns)
    chosen = {key.frame_id for key in keys}
    for row, name in enumerate(sample_names(columns)):
        fits = (
            (not selection.views or columns["view"][row].lower() in map(str.lower, selection.views))
            and (not selection.phases or columns["phase"][row] in selection.phases)
            and columns["split"][row] in (selection.split or columns["split"][row])
            and {"originals": [0], "copies": [1], "1": [1]}.get(selection.copies, [0, 1]).count(
                columns["copy"][row]
            )
            and (
                not selection.cases
                or any(columns["case_id"][row].endswith(c[-1]) for c in selection.cases)
            )
        )
        assert (name in chosen) == bool(fits)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(views=("5CH",)), "--views 5CH: not in this dataset; it has 4CH"),
        (Selection(split="testing"), "it has none"),
        (Selection(cases=("x*",)), "such as patient0001"),
        (Selection(copies="7"), "it has 0, 1, 2"),
        (Selection(copies="some"), "expected originals, copies, or numbers"),
        (Selection(statuses=("late",)), "expected done, rejected, failed"),
        (Selection(statuses=("failed",), cases=("*1",)), "5 done, 1 rejected"),
    ],
)
def test_nothing_selected_says_what_is_there(
    tmp_path: Path, selection: Selection, message: str
) -> None:
    store = MIXED.put(tmp_path / "a.h5")
    with pytest.raises(UsageError, match=message):
        run(store, "zarr", tmp_path / "b.zarr", selection=selection)
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5"}


def test_files_are_made_of_done_rows_and_the_others_are_told(tmp_path: Path) -> None:
    store = MIXED.put(tmp_path / "a.h5")
    report = run(store, "folder", tmp_path / "out")
    assert report.samples == 16
    assert report.exit_code == 0
    assert "left out by their status: 1 rejected, 1 failed." in report.notes
    with pytest.raises(UsageError, match="only samples that are done"):
        run(store, "folder", tmp_path / "no", selection=Selection(statuses=("rejected",)))


def test_an_unfinished_store_is_exported_only_when_asked(tmp_path: Path) -> None:
    store = cohort(3, complete=False).put(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="--allow-unfinished"):
        run(store, "folder", tmp_path / "out")
    report = run(store, "folder", tmp_path / "out", allow_unfinished=True)
    assert (report.samples, report.pending, report.exit_code) == (4, 8, 1)
    part = run(store, "h5", tmp_path / "part.h5", allow_unfinished=True)
    assert (part.samples, part.exit_code) == (4, 1)
    with open_store(tmp_path / "part.h5") as made:
        assert made.attrs["exported"]["of"] == 12


@pytest.mark.parametrize("to", FILES)
def test_a_deleted_file_is_made_again_and_a_changed_one_is_left(tmp_path: Path, to: str) -> None:
    store = cohort(2).put(tmp_path / "a.h5")
    root = Path(run(store, to, tmp_path / "out").output)
    before = tree(root)
    assert run(store, to, tmp_path / "out").written == 0
    lost, changed = [name for name in sorted(before) if name.endswith((".gz", ".png"))][:2]
    (root / lost).unlink()
    (root / changed).write_bytes(b"corrected by hand")
    half = root / changed  # its sample would not be written again
    half.with_name(f".{half.name}.partial").write_bytes(b"half")
    assert run(store, to, tmp_path / "out").written == 1
    assert tree(root) == {**before, changed: b"corrected by hand"}


def test_other_settings_or_another_store_are_refused_by_name(tmp_path: Path) -> None:
    store = cohort(3).put(tmp_path / "a.h5")
    out = tmp_path / "out"
    run(store, "folder", out, selection=Selection(phases=("ED",)))
    before = tree(out)
    with pytest.raises(StoreError, match=r"selection.phases = \['ED'\], this one has \[\]"):
        run(store, "folder", out)
    with pytest.raises(StoreError, match="to = 'folder', this one has 'nifti'"):
        run(store, "nifti", out, selection=Selection(phases=("ED",)))
    other = cohort(4).put(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="samples = "):
        run(other, "folder", out, selection=Selection(phases=("ED",)))
    assert tree(out) == before


def test_overwrite_replaces_what_echogen_made_and_leaves_the_rest(tmp_path: Path) -> None:
    store = cohort(3).put(tmp_path / "a.h5")
    out = tmp_path / "out"
    run(store, "nifti", out)
    mine = out / "database_nifti" / "patient0001" / "notes.txt"
    mine.write_text("mine")
    run(store, "folder", out, overwrite=True)
    fresh = tmp_path / "fresh"
    run(store, "folder", fresh)
    assert tree(out) == {**tree(fresh), "database_nifti/patient0001/notes.txt": b"mine"}
    assert not (out / "database_nifti" / "patient0002").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_no_export_made_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    store = cohort(1).put(tmp_path / "a.h5")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="no export made"):
        run(store, "folder", out, overwrite=overwrite)
    (out / MANIFEST).write_text('{"format": 1, "files": ["thesis.tex"]}')
    with pytest.raises(StoreError, match="damaged"):
        run(store, "folder", out, overwrite=overwrite)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="must be a folder"):
        run(store, "folder", tmp_path / "file", overwrite=overwrite)
    assert (out / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("path", ["../precious", "/{tmp}/precious", "a/../../precious",
                                  "link/precious"])  # fmt: skip
def test_a_manifest_cannot_reach_outside(tmp_path: Path, path: str) -> None:
    store = cohort(1).put(tmp_path / "a.h5")
    (tmp_path / "precious").write_text("mine")
    out = tmp_path / "out"
    run(store, "folder", out)
    (out / "link").symlink_to(tmp_path)
    told = json.loads((out / MANIFEST).read_text())
    told["files"] = [path.replace("/{tmp}", str(tmp_path))]
    (out / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(StoreError, match="leave this folder"):
        run(store, "nifti", out, overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_output_in_the_store_or_around_it_is_refused(tmp_path: Path) -> None:
    store = cohort(1).put(tmp_path / "in" / "a.zarr")
    before = tree(store)
    for output in (store / "out", store, tmp_path / "in"):
        with pytest.raises(UsageError, match="must not be inside"):
            run(store, "folder", output, overwrite=True)
    with pytest.raises(UsageError, match="must not be inside"):
        run(store, "zarr", store, overwrite=True)
    assert tree(store) == before


def test_two_exports_into_one_folder_exclude_each_other(tmp_path: Path) -> None:
    store = cohort(1).put(tmp_path / "a.h5")
    with store_lock(tmp_path / "out"), pytest.raises(StoreError, match="in use by"):
        run(store, "folder", tmp_path / "out")


@pytest.mark.parametrize("to", ["zarr", "h5"])
def test_a_name_of_another_kind_is_refused(tmp_path: Path, to: str) -> None:
    with pytest.raises(UsageError, match=rf"ends in \.{to}"):
        export(tmp_path / "a.zarr", to=to, output=tmp_path / "b")


def damage(store: Path) -> None:
    """Change a pixel of row 0 and leave its SHA-256 as it was."""
    images = zarr.open_group(store, mode="r+")["images"]
    images[0, 0, 0] = int(images[0, 0, 0]) ^ 1  # type: ignore[index,arg-type,call-overload]


@pytest.mark.parametrize("to", FILES)
def test_a_damaged_sample_is_left_out_named_and_made_once_it_is_mended(
    tmp_path: Path, to: str
) -> None:
    store = cohort(2).put(tmp_path / "a.zarr")
    shutil.copytree(store, tmp_path / "whole.zarr")
    damage(store)
    report = run(store, to, tmp_path / "out")
    root = Path(report.output)
    assert [problem.frame_id for problem in report.failed] == ["patient0001_4CH_ED_copy0"]
    assert "SHA-256" in report.failed[0].reason
    assert (report.samples, report.exit_code) == (7, 1)
    assert len((root / "samples.csv").read_text().splitlines()) == 1 + 7
    if to == "nnunet":
        assert json.loads((root / "dataset.json").read_text())["numTraining"] == 7
        folds = json.loads((root / "splits_final.json").read_text())
        assert all("patient0001_4CH_ED" not in fold["train"] + fold["val"] for fold in folds)
    assert json.loads((root / MANIFEST).read_text())["complete"] is False
    damage(store)  # a second time puts it right
    mended = run(store, to, tmp_path / "out")
    assert (mended.written, mended.samples, mended.exit_code) == (1, 8, 0)
    other = Path(run(tmp_path / "whole.zarr", to, tmp_path / "clean").output)
    found, expected = tree(root), tree(other)
    assert found.keys() == expected.keys()
    assert {n for n in found if found[n] != expected[n]} <= {"README.md", "dataset.json"}


def test_a_damaged_store_is_not_copied(tmp_path: Path) -> None:
    store = cohort(2).put(tmp_path / "a.zarr")
    damage(store)
    with pytest.raises(StoreError, match="patient0001_4CH_ED_copy0 does not have its recorded"):
        run(store, "h5", tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()


def test_a_killed_export_goes_on_to_the_same_files(tmp_path: Path) -> None:
    made = cohort(12, copies=9, shape=(40, 40), shard_size=32)
    store = made.put(tmp_path / "a.zarr")
    command = [
        sys.executable, "-m", "echogen", "export", str(store), "--to", "nnunet", "--out",
        str(tmp_path / "out"), "--workers", "2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = tmp_path / "out" / "Dataset501_Echogen"
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    while len(list(root.glob("labelsTr/*.gz"))) < 20 and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    _, told = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, told
    there = len(list(root.glob("labelsTr/*.gz")))
    assert 20 <= there < len(made.samples)
    assert not (root / "dataset.json").exists()
    report = run(store, "nnunet", tmp_path / "out", workers=1)
    assert 0 < report.written <= len(made.samples) - there + 1
    run(store, "nnunet", tmp_path / "undisturbed", workers=1)
    assert tree(root) == tree(tmp_path / "undisturbed" / "Dataset501_Echogen")


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [True, False], ids=["again", "again-without-overwrite"])
def test_an_export_killed_while_it_replaces_another_ends_as_if_undisturbed(
    tmp_path: Path, overwrite: bool
) -> None:
    store, out, there = cohort(1).put(tmp_path / "a.zarr"), tmp_path / "out", tmp_path / "there"
    run(store, "folder", tmp_path / "fresh")
    fresh = {**contents(tmp_path / "fresh"), "images/mine.txt": b"mine"}
    run(store, "folder", out)
    changed = next(name for name in tree(out) if name.endswith("_ED.png"))
    (out / changed).write_bytes(b"damaged")
    (out / "images" / "mine.txt").write_bytes(b"mine")

    def prepare() -> None:
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(out, there / "out")

    def replace() -> None:
        run(store, "folder", there / "out", overwrite=True, workers=1)

    def again() -> None:
        found = json.loads((there / "out" / MANIFEST).read_text())
        begun = not found["complete"]
        run(store, "folder", there / "out", overwrite=overwrite or not begun, workers=1)

    def check(where: str) -> None:
        assert contents(there / "out") == fresh
        assert list(there.iterdir()) == [there / "out"]

    def matters(place: str) -> bool:  # one file of each kind is enough of what is written
        return "partial" not in place or "4CH_ED.png" in place or "csv" in place or "json" in place

    assert every_kill(there, prepare, replace, check, again=again, concerns=matters) > 30


def test_a_power_cut_takes_back_nothing_of_an_export(tmp_path: Path) -> None:
    store = cohort(1).put(tmp_path / "a.zarr")
    with on_disk() as renames:
        run(store, "nifti", tmp_path / "new" / "out", workers=1)
        run(store, "nifti", tmp_path / "new" / "out", workers=1, overwrite=True)
    assert {name: loose for name, loose in renames if loose} == {}


def test_a_folder_that_is_removed_while_it_is_filled_is_not_called_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = cohort(1).put(tmp_path / "a.zarr"), tmp_path / "out"
    table = samples_csv

    def removed(*arguments: Any) -> str:
        shutil.rmtree(out)
        return table(*arguments)

    monkeypatch.setattr("echogen.commands.export.samples_csv", removed)
    with pytest.raises(StoreError, match="removed while it was being filled"):
        run(store, "folder", out, workers=1)
    monkeypatch.undo()
    assert run(store, "folder", out, workers=1).written == 4


def test_a_store_killed_while_it_takes_its_place_leaves_nothing_beside(tmp_path: Path) -> None:
    store, there = cohort(1).put(tmp_path / "a.zarr"), tmp_path / "there"
    run(store, "h5", tmp_path / "fresh.h5")

    def prepare() -> None:
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir()

    def check(where: str) -> None:
        assert list(there.iterdir()) == [there / "c.h5"]
        assert_equal_stores(there / "c.h5", tmp_path / "fresh.h5")

    def beside(place: str) -> bool:
        return Path(place).parent == there

    def convert() -> None:
        run(store, "h5", there / "c.h5")

    assert every_kill(there, prepare, convert, check, concerns=beside) > 8


def test_a_finished_export_says_so_and_json_is_one_object(tmp_path: Path) -> None:
    store = cohort(2).put(tmp_path / "a.h5")
    command = ["export", str(store), "--to", "nnunet", "--out", str(tmp_path / "out"), "--json"]
    first = CliRunner().invoke(app, command)
    report = json.loads(first.stdout)
    assert (report["format"], report["exit_code"], first.exit_code) == (1, 0, 0)
    assert (report["samples"], report["written"], report["folds"]) == (8, 8, 2)
    second = CliRunner().invoke(app, command)
    assert json.loads(second.stdout)["written"] == 0
    assert "nothing to do" in second.stderr


def test_the_command_takes_every_choice_and_shows_what_comes_next(tmp_path: Path) -> None:
    store = cohort(6, copies=2, views=("2CH", "4CH"), splits=("training",)).put(tmp_path / "a.h5")
    done = CliRunner().invoke(
        app,
        ["export", str(store), "--to", "nnunet", "--out", str(tmp_path / "out"), "--views", "4CH",
         "--phases", "ED", "--split", "training", "--cases", "*1,*2,*3", "--copies", "0,2",
         "--status", "done", "--dataset-id", "9", "--name", "Mine", "--folds", "3", "--seed", "4"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 (3 originals, 3 copies) of 3 cases" in done.stdout
    assert 'cp "$nnUNet_raw/Dataset009_Mine/splits_final.json"' in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "dicom"], "expected one of nnunet"),
        (["--to", "folder", "--dataset-id", "7"], "--dataset-id: needs --to nnunet"),
    ],
)
def test_a_wrong_flag_ends_in_a_usage_error(tmp_path: Path, flags: list[str], message: str) -> None:
    store = cohort(1).put(tmp_path / "a.h5")
    done = CliRunner().invoke(app, ["export", str(store), "--out", str(tmp_path / "out"), *flags])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_fewer_than_no_workers_are_refused(tmp_path: Path) -> None:
    store = cohort(1).put(tmp_path / "a.h5")
    arguments = [str(store), "--to", "folder", "--out", str(tmp_path / "out"), "--workers", "-1"]
    done = CliRunner().invoke(app, ["export", *arguments])
    assert done.exit_code == 2
    assert "Invalid value for '--workers'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_no_size_that_one_can_have_is_damaged(tmp_path: Path) -> None:
    store = cohort(2).put(tmp_path / "s.zarr")
    run(store, "folder", tmp_path / "out")
    os.truncate(tmp_path / "out" / MANIFEST, 10**12)
    with pytest.raises(StoreError, match="is damaged or from a newer echogen"):
        run(store, "folder", tmp_path / "out", overwrite=True)
