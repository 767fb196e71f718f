"""`echogen validate`: each check finds what was spoilt for it, and a good store comes out clean."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from echogen.checks.finding import Severity
from echogen.checks.twins import find_twins, fingerprint
from echogen.cli import app
from echogen.commands.expand import expand
from echogen.commands.validate import ValidationReport, validate
from echogen.errors import StoreError, UsageError
from echogen.measures.realism import log_ratios
from echogen.store import mark_pending, open_store, sample_sha256
from echogen.support import processes
from tests.support.hearts import fan_frame, make_config, write_dataset, write_nifti
from tests.support.shapes import printed


@pytest.fixture(scope="module")
def made(dataset: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 frames with 3 copies each in shards of 5. Do not change."""
    path = tmp_path_factory.mktemp("made") / "x.zarr"
    expand(make_config(settings_of(dataset, checkpoint, path)))
    return path


def settings_of(dataset: Path, checkpoint: Path, path: Path) -> dict[str, object]:
    return {
        "input": str(dataset),
        "output": str(path),
        "copies": 3,
        "checkpoint": str(checkpoint),
        "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1},
        "store": {"shard_size": 5},
    }


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "x.zarr"))


def checks(report: ValidationReport, severity: Severity = Severity.ERROR) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in report.findings:
        if one.severity is severity:
            found.setdefault(one.check, []).append(one.where)
    return found


def spoil(store: Path, row: int, **pixels: object) -> None:
    """Other pixels in a row, with the SHA-256 that fits them."""
    group = zarr.open(store, mode="r+")
    for name, value in pixels.items():
        group[name][row] = value
    digest = sample_sha256(group["images"][row], group["masks"][row])
    group["samples/sha256"][row] = digest


def test_a_good_store_has_no_errors(made: Path, dataset: Path) -> None:
    report = validate(made, source=dataset)
    assert report.usable
    assert checks(report) == {}
    assert report.exit_code == 0
    assert report.samples is not None
    assert (report.samples.originals, report.samples.copies) == (4, 12)
    assert (report.kind, report.repaired) == ("expanded", 0)
    assert report.texture is not None
    assert report.megabytes == pytest.approx(16 * 3 * 32 * 32 / 1e6)


def test_labels_may_leave_the_fan_where_all_around_it_is_painted(
    dataset: Path, checkpoint: Path, tmp_path: Path
) -> None:
    moves = {"outside": "inpaint", "probability": 1.0, "tilt_deg": (-30, -25), "max_hole": 1.0}
    given = {**settings_of(dataset, checkpoint, tmp_path / "all.zarr"), "transforms": moves}
    expand(make_config(given))
    report = validate(tmp_path / "all.zarr")
    assert checks(report) == {}
    assert "labels-inside" not in checks(report, Severity.WARNING)


def test_workers_find_what_one_process_finds(
    made: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "START_S", 0)
    alone = validate(made, workers=1, source=dataset, thorough=True)
    two = validate(made, workers=2, source=dataset, thorough=True)
    assert (alone.findings, alone.texture) == (two.findings, two.texture)


def test_damage_is_named_and_repaired_and_only_that_is_made_again(
    store: Path, dataset: Path, checkpoint: Path
) -> None:
    file = store / "images/c/1/0/0"
    bad = bytearray(file.read_bytes())
    bad[4] ^= 1
    file.write_bytes(bad)
    found = validate(store)
    assert (found.usable, found.exit_code) == (False, 5)
    assert checks(found) == {"damage": ["patient0001_4CH_ES_copy1"]}
    repaired = validate(store, repair=True)
    assert (repaired.usable, repaired.repaired, repaired.exit_code) == (True, 1, 1)
    unfinished = validate(store)
    assert checks(unfinished, Severity.WARNING)["complete"] == [""]
    assert unfinished.samples is not None
    assert unfinished.samples.pending == 1
    report = expand(make_config(settings_of(dataset, checkpoint, store)))
    assert report.painted == 1
    assert validate(store, source=dataset).exit_code == 0


def test_a_damaged_status_costs_the_rows_of_its_chunk_alone(
    store: Path, dataset: Path, checkpoint: Path
) -> None:
    before = {file: file.read_bytes() for file in store.rglob("c/**/*") if file.is_file()}
    file = store / "samples/status/c/1"
    bad = bytearray(file.read_bytes())
    bad[4] ^= 1
    file.write_bytes(bad)
    found = validate(store, repair=True)
    assert set(checks(found)) == {"damage"}
    assert (found.repaired, found.exit_code) == (5, 1)
    assert expand(make_config(settings_of(dataset, checkpoint, store))).painted == 4
    assert {file: file.read_bytes() for file in before} == before


LOST = {
    "images": "images cannot be read: missing or damaged (images)",
    "cases": "cases cannot be read: missing or damaged (No such file or directory)",
    "samples/status": "samples/status cannot be read",
    "images/zarr.json": "images cannot be read",
    "zarr.json": "zarr.json: is missing",
}


@pytest.mark.parametrize("name", [*LOST, "empty", "bare"])
def test_what_cannot_be_repaired_names_what_works(
    name: str, store: Path, dataset: Path, checkpoint: Path
) -> None:
    if name in ("empty", "bare"):
        (store / "zarr.json").write_text("" if name == "empty" else '{"attributes": {}}')
        words = "zarr.json: " + ("is not valid JSON (" if name == "empty" else "has no attribute")
    else:
        words = LOST[name]
        shutil.rmtree(store / name) if (store / name).is_dir() else (store / name).unlink()
    (finding,) = validate(store, repair=True).findings
    assert words in finding.message
    assert finding.message.endswith(
        "). Restore the store from a copy, or make it again with --overwrite."
        if name not in ("zarr.json", "bare")
        else ". Restore the store from a copy, or make it again with --overwrite."
    )
    assert "its text" not in finding.message
    assert finding.message.count("'") % 2 == 0
    expand(make_config(settings_of(dataset, checkpoint, store)), overwrite=True)
    assert validate(store).exit_code == 0


@pytest.mark.parametrize("name", ["images/c/1/0/0", "samples/status/c/1", "masks/c/0", "keep/c"])
@pytest.mark.parametrize("kind", ["folder", "file", "fifo", "link"])
def test_what_lies_in_the_place_of_a_chunk_is_damage_and_is_made_again(
    name: str, kind: str, store: Path, tmp_path: Path, dataset: Path, checkpoint: Path
) -> None:
    before = {file: file.read_bytes() for file in store.rglob("c/**/*") if file.is_file()}
    own = tmp_path / "own"
    own.mkdir()
    (own / "precious").touch()
    place = store / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    if kind == "folder":
        (place / "0" / "0").mkdir(parents=True)
    elif kind == "file":
        place.write_bytes(b"")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(own)
    assert set(checks(validate(store, repair=True))) == {"damage"}
    assert expand(make_config(settings_of(dataset, checkpoint, store))).painted > 0
    assert validate(store).exit_code == 0
    assert (own / "precious").exists()
    if kind != "link" or name in ("images/c/1/0/0", "samples/status/c/1"):
        assert {file: file.read_bytes() for file in before} == before


def test_a_folder_in_the_place_of_a_chunk_that_is_to_be_written_goes(
    store: Path, dataset: Path, checkpoint: Path
) -> None:
    with open_store(store) as opened:
        rows = range(len(opened))
    mark_pending(store, rows)
    (store / "images/c/1/0/0" / "x").mkdir(parents=True)
    shutil.rmtree(store / "masks/c/2")
    os.mkfifo(store / "masks/c/2")
    (store / "samples/sha256/c/1").unlink()
    (store / "samples/sha256/c/1").mkdir()
    assert not expand(make_config(settings_of(dataset, checkpoint, store))).failed
    assert validate(store).exit_code == 0


def test_a_damaged_original_is_named_and_its_copies_are_still_checked(store: Path) -> None:
    whole = validate(store)
    file = store / "images/c/0/0/0"
    bad = bytearray(file.read_bytes())
    bad[4] ^= 1
    file.write_bytes(bad)
    found = validate(store)
    assert checks(found) == {"damage": ["patient0001_4CH_ED_copy0"]}
    assert whole.texture is not None
    assert found.texture is not None
    assert found.texture.samples == whole.texture.samples > 0
    assert found.texture.frames < whole.texture.frames
    assert validate(store, repair=True).repaired == 1


@pytest.mark.parametrize(
    ("row", "pixels", "check"),
    [
        (1, {"masks": np.full((32, 32), 9, np.uint8)}, "label-ids"),
        (4, {"keep": np.eye(32, dtype=np.bool_)}, "keep"),  # an original
        (1, {"keep": np.eye(32, dtype=np.bool_)}, "outside"),
        (1, {"images": np.full((32, 32), 9, np.uint8)}, "outside"),
        (2, {"masks": np.tri(32, k=-25, dtype=np.uint8)}, "labels-inside"),
        (3, {"masks": np.ones((32, 32), np.uint8)}, "label-on-paint"),
    ],
)
def test_pixels_that_break_a_promise(
    store: Path, row: int, pixels: dict[str, np.ndarray], check: str
) -> None:
    with open_store(store) as opened:
        name = str(opened.columns["sample_id"][row])
    spoil(store, row, **pixels)
    report = validate(store)
    assert name in checks(report)[check]
    assert report.exit_code == 5


def test_the_source_tells_of_one_changed_pixel(store: Path, dataset: Path) -> None:
    group = zarr.open(store, mode="r+")
    image, keep, mask = (group[name][2] for name in ("images", "keep", "masks"))
    kept = np.argwhere(keep & (image > 20))[0]
    image[tuple(kept)] += 1
    spoil(store, 2, images=image)
    assert checks(validate(store)) == {}
    report = validate(store, source=dataset)
    assert checks(report) == {"source": ["patient0001_4CH_ED_copy2"]}
    assert report.findings[-1].message == "1 kept pixels are not what the source gives."
    labelled = np.argwhere((mask > 0) & keep)[0]
    mask[tuple(labelled)] = 1 + mask[tuple(labelled)] % 3
    spoil(store, 2, masks=mask)
    messages = [one.message for one in validate(store, source=dataset).findings]
    assert "1 labels are not what the source gives." in messages


def test_a_store_of_whole_pictures_is_not_compared_with_its_source(
    store: Path, dataset: Path
) -> None:
    shutil.rmtree(store / "samples" / "crop")
    with pytest.raises(StoreError, match="laid the grid over the whole picture"):
        validate(store, source=dataset)


def test_another_source_is_noticed(made: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "others")
    image, _ = fan_frame(99)
    write_nifti(other / "patient0001" / "patient0001_4CH_ED.nii.gz", image)
    report = validate(made, source=other)
    assert "its files differ from those" in next(
        o.message for o in report.findings if o.check == "source"
    )
    assert "patient0001_4CH_ED_copy0" in checks(report)["source"]
    assert not any("patient0002" in name for name in checks(report)["source"])


@pytest.mark.parametrize(
    ("column", "row", "value", "check"),
    [
        ("seed", 3, 5, "seed"),
        ("depth", 2, 9.0, "moves"),
        ("shift_x", 2, 0.9, "moves"),
        ("tries", 2, 200, "moves"),
        ("copy", 3, 8, "copies"),
        ("sample_id", 1, "patient0001_4CH_ED_copy0", "rows"),
        ("case_id", 1, "nobody", "rows"),
        ("status", 2, 3, "status"),
        ("status", 2, 0, "complete"),
    ],
)
def test_columns_that_do_not_fit_the_plan(
    store: Path, column: str, row: int, value: object, check: str
) -> None:
    zarr.open(store, mode="r+")[f"samples/{column}"][row] = value
    assert check in checks(validate(store))


def test_a_planned_column_that_is_damaged_cannot_be_repaired(store: Path) -> None:
    file = store / "samples/depth/c/0"
    bad = bytearray(file.read_bytes())
    bad[1] ^= 1
    file.write_bytes(bad)
    report = validate(store, repair=True)
    assert checks(report) == {"column": ["samples/depth"]}
    assert (report.usable, report.repaired, report.exit_code) == (False, 0, 5)


def test_what_is_no_store_is_said_in_a_report(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    report = validate(tmp_path / "x.zarr")
    assert (report.usable, report.exit_code) == (False, 5)
    assert checks(report) == {"store": [""]}


def test_two_samples_with_one_painting_are_near_copies(made: Path) -> None:
    with open_store(made) as opened:
        shape = opened.image_shape
    rng = np.random.default_rng(0)
    hidden = np.ones((96, 96), np.bool_)
    pictures = [rng.integers(0, 256, (96, 96), np.uint8) for _ in range(4)]
    pictures.append(np.clip(pictures[1] * 0.8 + 9, 0, 255).astype(np.uint8))
    pairs = list(find_twins([fingerprint(image, hidden) for image in pictures]))
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 4)]
    assert shape == (32, 32)


def test_the_very_same_sample_twice_is_a_warning(store: Path) -> None:
    group = zarr.open(store, mode="r+")
    spoil(store, 3, **{name: group[name][2] for name in ("images", "masks", "keep")})
    assert checks(validate(store), Severity.WARNING)["same-pixels"] == ["patient0001_4CH_ED_copy3"]


def test_a_hard_border_scores_worse_than_none() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.gamma(6, 10, (96, 96)), 0, 255).astype(np.uint8)
    keep = np.ones((96, 96), np.bool_)
    keep[:, :40] = False
    fan = np.ones((96, 96), np.bool_)
    smooth = image.copy()
    smooth[:, :40] = image[:, :40].mean()
    dark = image.copy()
    dark[:, :40] //= 4
    assert np.abs(log_ratios(image, keep, fan)).max() < 0.3
    assert log_ratios(smooth, keep, fan)[1] < -2  # no grain
    assert log_ratios(dark, keep, fan)[2] < -1  # dark
    striped = image.copy()
    striped[:, 38:40] = 255
    assert log_ratios(striped, keep, fan)[0] > 0.5  # a seam


def test_a_dataset_is_judged_frame_by_frame(own_dataset: Path) -> None:
    good = validate(own_dataset)
    assert (good.kind, good.usable, good.exit_code) == ("dataset", True, 0)
    assert good.dataset is not None
    assert (good.dataset.frames, good.dataset.usable, good.dataset.cases) == (4, 4, 2)
    assert good.dataset.phases == {"ED": 2, "ES": 2}
    assert good.dataset.areas[0].name == "LV cavity"
    assert good.dataset.depth is not None
    assert good.dataset.depth.median == pytest.approx(111, abs=3)
    (own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz").write_bytes(b"no image")
    shutil.copy(
        own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz",
        own_dataset / "patient0002" / "patient0002_4CH_ED.nii.gz",
    )
    report = validate(own_dataset)
    assert checks(report) == {"unreadable": ["patient0002_4CH_ES"]}
    same = next(one for one in report.findings if one.check == "same-pixels")
    assert same.message == (
        "patient0001_4CH_ED and patient0002_4CH_ED hold the same pixels, with other labels."
    )
    assert (report.usable, report.exit_code) == (True, 1)


def spoilt(dataset: Path, name: str, image: np.ndarray | None, label: np.ndarray | None) -> None:
    folder = dataset / name.split("_")[0]
    if image is not None:
        write_nifti(folder / f"{name}.nii.gz", image)
    if label is not None:
        write_nifti(folder / f"{name}_gt.nii.gz", label)


def test_what_a_dataset_may_have_wrong_is_found(own_dataset: Path) -> None:
    image, label = fan_frame(10, 108.0)
    exchanged = np.where(label == 1, 3, np.where(label == 3, 1, label)).astype(np.uint8)
    spoilt(own_dataset, "patient0001_4CH_ED", None, exchanged)
    small = label.copy()
    small[(label == 1) & (np.arange(120)[:, None] > 40)] = 2
    spoilt(own_dataset, "patient0001_4CH_ES", (image // 16).astype(np.uint8), label)
    spoilt(own_dataset, "patient0002_4CH_ED", None, small)
    pieces = fan_frame(20)[1]
    pieces[50:56] = 0
    spoilt(own_dataset, "patient0002_4CH_ES", None, pieces)
    report = validate(own_dataset)
    found = checks(report, Severity.WARNING)
    assert any("LV cavity is in 2 pieces" in one.message for one in report.findings)
    assert found["orientation"] == ["patient0001_4CH_ED"]
    assert found["grey-levels"] == ["patient0001_4CH_ES"]
    assert "patient0002_4CH_ED" in found["phases"]
    assert "patient0002_4CH_ES" in found["labels"]


def test_sequences_that_run_backwards_are_a_note(own_dataset: Path) -> None:
    (own_dataset / "patient0002" / "Info_4CH.cfg").write_text("ED: 11\nES: 1\nNbFrame: 11\n")
    report = validate(own_dataset)
    assert checks(report, Severity.NOTE)["phases-in-time"] == ["patient0002 4CH"]
    assert report.exit_code == 0


def test_a_missing_frame_is_a_note_where_most_cases_have_it(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "five", cases=5)
    for part in ("", "_gt"):
        (root / "patient0003" / f"patient0003_4CH_ES{part}.nii.gz").unlink()
    report = validate(root, phases=("ED", "ES"))
    assert checks(report, Severity.NOTE)["incomplete"] == ["patient0003"]


def test_an_implausible_spacing_is_a_warning(own_dataset: Path) -> None:
    import SimpleITK

    for path in (own_dataset / "patient0001").glob("*.nii.gz"):
        picture = SimpleITK.ReadImage(str(path))
        picture.SetSpacing((9.0, 10.0))
        SimpleITK.WriteImage(picture, str(path))
    found = checks(validate(own_dataset), Severity.WARNING)["spacing"]
    assert set(found) == {"patient0001_4CH_ED", "patient0001_4CH_ES"}


def test_fans_are_written_once_and_then_taken_as_they_are(
    own_dataset: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    spoilt(own_dataset, "patient0001_4CH_ED", noise, None)
    table = tmp_path / "fans.csv"
    command = ["validate", str(own_dataset), "--fans", str(table)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "fans written to" in done.stdout
    assert f"next: echogen preview {own_dataset} --fans --out fans.png" in done.stdout
    limited = CliRunner().invoke(app, ["validate", str(own_dataset), "--limit", "9"]).stdout
    assert f"next: echogen preview {own_dataset} --fans --out fans.png" in limited
    written = table.read_text()
    lines = written.splitlines()
    assert lines[1].startswith('patient0001_4CH_ED,120,110,,,,,,,0.000,,"no sector found:')
    assert [line.split(",")[0] for line in lines[2:]] == ["patient0001_4CH_ES", "patient0002/4CH"]
    table.write_text(written.replace("120,110,,,,,,,", "120,110,2,55,-35,37,3,113,"))
    edited = table.read_bytes()
    taken = CliRunner().invoke(app, command).stdout
    assert f"next: echogen expand --in {own_dataset} --fans {table} --out" in taken
    assert "preview" not in taken
    report = printed("validate", CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert report["dataset"]["fans"] == {"given": 4}
    assert (report["exit_code"], report["fans"], table.read_bytes()) == (0, "", edited)
    again = validate(own_dataset, fans=table, overwrite=True)
    assert again.fans == str(table)
    assert again.dataset is not None
    assert again.dataset.fans == {"frame": 3, "refused": 1}
    assert table.read_text() == written


def test_fans_may_lie_in_the_dataset_and_replace_nothing_but_fans(own_dataset: Path) -> None:
    table, other = own_dataset / "fans.csv", own_dataset / "cases.csv"
    for _ in range(2):
        assert validate(own_dataset, fans=table, overwrite=True).fans == str(table)
    other.write_text("frame,case,spacing_mm\n")
    with pytest.raises(UsageError, match=r"cases\.csv: expected the columns recording"):
        validate(own_dataset, fans=other, overwrite=True)
    assert other.read_text() == "frame,case,spacing_mm\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("2,55,-35,37,3,113", ""),
        ("2,55,-15,15,3,113", "the picture goes on beyond it"),
        ("2,55,-35,37,3,60", "the picture goes on beyond it"),
        ("-90,55,-80,80,0,400", "it covers 100% of the picture"),
    ],
)
def test_a_given_fan_that_the_picture_speaks_against_is_a_warning(
    dataset: Path, tmp_path: Path, given: str, said: str
) -> None:
    table = tmp_path / "fans.csv"
    table.write_text(
        "recording,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far\n"
        f"*,{given}\n"
    )
    report = validate(dataset, fans=table)
    doubts = [one.message for one in report.findings if "the fan that was given" in one.message]
    assert len(doubts) == (4 if said else 0)
    assert all(said in doubt for doubt in doubts)


def test_a_table_of_fans_that_cannot_be_written_is_refused_first(
    dataset: Path, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"fans\.txt: expected a \.csv file"):
        validate(dataset, fans=tmp_path / "fans.txt")
    with pytest.raises(UsageError, match=r"the folder .*none does not exist"):
        validate(dataset, fans=tmp_path / "none" / "fans.csv")
    with pytest.raises(UsageError, match="--overwrite replaces the table of a dataset's --fans"):
        validate(dataset, overwrite=True)
    with pytest.raises(UsageError, match="--fans and --case-salt for --source"):
        validate(made, fans=tmp_path / "fans.csv")
    nothing = tmp_path / "empty"
    nothing.mkdir()
    assert validate(nothing, fans=tmp_path / "fans.csv").fans == ""
    assert not (tmp_path / "fans.csv").exists()


def test_uncertain_fans_are_named_the_least_certain_first(
    own_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echogen.checks.dataset.UNCERTAIN", 1.1)
    found = [one for one in validate(own_dataset).findings if one.check == "fan-uncertain"]
    assert {one.where for one in found} == {"patient0001/4CH", "patient0002/4CH"}
    assert all(one.severity is Severity.WARNING for one in found)
    confidences = [one.message for one in found]
    assert confidences == sorted(confidences)


def test_a_folder_without_a_dataset_is_said_in_a_report(tmp_path: Path) -> None:
    report = validate(tmp_path)
    assert (report.usable, report.exit_code, report.dataset) == (False, 3, None)


def test_options_of_stores_are_refused_for_datasets(dataset: Path) -> None:
    with pytest.raises(UsageError, match="are for stores"):
        validate(dataset, repair=True)


@pytest.mark.parametrize("strict", [False, True])
def test_the_command_prints_and_its_exit_code_tells(made: Path, strict: bool) -> None:
    flags = ["--strict"] if strict else []
    done = CliRunner().invoke(app, ["validate", str(made), *flags])
    report = printed(
        "validate", CliRunner().invoke(app, ["validate", str(made), "--json", *flags]).stdout
    )
    warned = any(one["severity"] == "warning" for one in report["findings"])
    assert done.exit_code == report["exit_code"] == int(strict and warned)
    assert done.stdout.rstrip().endswith("usable")
    assert "checking: 16 of 16" in done.stderr


def test_json_names_every_finding_and_stderr_is_silent(dataset: Path) -> None:
    done = CliRunner().invoke(app, ["validate", str(dataset), "--json", "--quiet"])
    report = printed("validate", done.stdout)
    assert (report["kind"], report["samples"], done.stderr) == ("dataset", None, "")
    assert json.dumps(report["dataset"]["areas"])


def test_flags_that_select_frames_are_refused_for_a_store(made: Path) -> None:
    with pytest.raises(UsageError, match="a store is checked as a whole"):
        validate(made, views=("4CH",))


def test_a_store_with_nothing_done_is_not_usable(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made, tmp_path / "x.zarr"))
    with open_store(store) as opened:
        rows = set(range(len(opened)))
    mark_pending(store, rows)
    report = validate(store)
    assert not report.usable
    assert report.exit_code == 5
    assert "the run is unfinished" in report.findings[0].message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", {"1": "myocardium", "2": "LV cavity"}),
        ("dataset", {}),
        ("seed", 7),
        ("plan_digest", "x"),
        ("sampler", None),
    ],
)
def test_an_edited_attribute_breaks_the_seal(
    made: Path, tmp_path: Path, name: str, value: object
) -> None:
    store = Path(shutil.copytree(made, tmp_path / "x.zarr"))
    file = store / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["echogen"][name] = value
    file.write_text(json.dumps(metadata))
    report = validate(store)
    assert not report.usable
    assert "seal" in [one.check for one in report.findings]


def test_recorded_settings_that_this_version_refuses_are_a_finding(
    made: Path, dataset: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(made, tmp_path / "x.zarr"))
    file = store / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["echogen"]["config"]["transforms"] |= {"min_hole": 0.9, "max_hole": 0.1}
    file.write_text(json.dumps(metadata))
    message = "this version's: .*min_hole must be below max_hole, got 0.9 and 0.1"
    (said,) = (one for one in validate(store).findings if one.check == "moves")
    assert re.search(message, said.message)
    with pytest.raises(StoreError, match=message):
        validate(store, source=dataset)
