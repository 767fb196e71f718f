import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from echogen.cli import app
from echogen.commands.expand import dry_run, expand
from echogen.config import EngineConfig, RepaintConfig
from echogen.pictures.choice import Choice, rows_of_store, worst_rows
from echogen.pictures.colours import FANS, MISSING
from echogen.pictures.entries import headings, of_store
from echogen.pictures.subject import subject_of
from echogen.planning.plan import save_plan
from echogen.report import Quiet
from echogen.store import open_store
from tests.support.hearts import make_config, write_nifti
from tests.support.shapes import printed


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["preview", *map(str, arguments)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    settings = {
        "input": str(dataset), "output": str(folder / "out.zarr"), "copies": 3,
        "checkpoint": str(checkpoint), "engine": {"device": "cpu", "precision": "fp32"},
        "sampler": {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2},
    }  # fmt: skip
    expand(make_config(settings))
    return folder / "out.zarr"


def test_a_sheet_of_a_store_shows_what_was_chosen(store: Path, tmp_path: Path) -> None:
    done = run(store, "--out", tmp_path / "sheet.png", "--n", 3, "--seed", 5, "--json")
    assert done.exit_code == 0, done.output
    report = printed("preview", done.stdout)
    assert report["kind"] == "expanded"
    assert report["of"] == 12
    assert len(report["shown"]) == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (report["width"], report["height"])
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert MISSING in colours
    again = run(store, "--out", tmp_path / "again.png", "--n", 3, "--seed", 5)
    assert again.exit_code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    other = run(store, "--out", tmp_path / "other.png", "--n", 3, "--seed", 6, "--json")
    assert json.loads(other.stdout)["shown"] != report["shown"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.png", "other.png", "sheet.png",
    ]  # fmt: skip


def test_the_panels_are_the_stores_pixels(store: Path) -> None:
    with open_store(store) as opened:
        row = rows_of_store(opened, Choice())[0]
        (entry,) = of_store(opened, [row], {})
        names = headings([entry])
        assert len(names) == 4
        original, moved, painted, labelled = entry.panels(names, 32)
        size = painted.size
        expected = np.asarray(Image.fromarray(opened.images[row]).resize(size, 3))
        np.testing.assert_array_equal(np.asarray(painted)[..., 0], expected)
        first = int(
            np.flatnonzero(opened.columns["frame_id"] == opened.columns["frame_id"][row])[0]
        )
        expected = np.asarray(Image.fromarray(opened.images[first]).resize(size, 3))
        np.testing.assert_array_equal(np.asarray(original)[..., 0], expected)
    hidden = (np.asarray(moved) != np.asarray(painted)).any(axis=2)
    assert hidden.any()
    assert not hidden.all()
    assert (np.asarray(labelled) != np.asarray(painted)).any()


def test_a_datasets_frames_are_shown_with_their_labels(dataset: Path, tmp_path: Path) -> None:
    done = run(dataset, "--out", tmp_path / "x.png", "--phases", "ED", "--json")
    report = json.loads(done.stdout)
    assert report["kind"] == "dataset"
    assert [one["sample_id"] for one in report["shown"]] == [
        "patient0001_4CH_ED", "patient0002_4CH_ED",
    ]  # fmt: skip
    assert "mm" in report["shown"][0]["facts"]


@pytest.fixture
def unclear(own_dataset: Path) -> Path:
    """Hearts of which one frame is noise without a fan."""
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    write_nifti(own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz", noise)
    return own_dataset


def test_fans_are_shown_the_refused_first_with_the_reason(unclear: Path, tmp_path: Path) -> None:
    done = run(unclear, "--fans", "--out", tmp_path / "x.png", "--json")
    assert done.exit_code == 0, done.output
    report = printed("preview", done.stdout)
    assert (report["kind"], report["of"]) == ("fans", 3)
    shown = {one["sample_id"]: one["facts"] for one in report["shown"]}
    assert next(iter(shown)) == "patient0002_4CH_ES"
    assert set(shown) == {"patient0002_4CH_ES", "patient0002_4CH_ED", "patient0001/4CH"}
    assert shown["patient0002_4CH_ES"].startswith("refused: no sector found: ")
    assert re.fullmatch(r"confidence [01]\.\d\d · fitted to frames", shown["patient0001/4CH"])
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.size == (report["width"], report["height"])
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert {FANS["refused"], FANS["frame"]} <= colours
    one = run(unclear, "--out", tmp_path / "y.png", "--n", 1, "--json", "--fans")
    assert [e["sample_id"] for e in json.loads(one.stdout)["shown"]] == ["patient0002_4CH_ES"]
    words = run("--fans", unclear, "--out", tmp_path / "y.png", "--n", 1)
    assert words.stdout.startswith("shown  1 of 3 fans of ")
    assert f"next: echogen validate {unclear} --fans fans.csv" in words.stdout


def test_given_fans_are_shown_as_given(unclear: Path, tmp_path: Path) -> None:
    table = tmp_path / "fans.csv"
    table.write_text(
        "recording,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far\n"
        "patient0002*,2,55,-35,37,3,113\n"
    )
    for flags in (["--fans", table], [f"--fans={table}"]):
        done = run(unclear, *flags, "--out", tmp_path / "x.png", "--json")
        shown = {one["sample_id"]: one["facts"] for one in json.loads(done.stdout)["shown"]}
        assert shown["patient0002/4CH"] == "confidence 1.00 · given"
        assert "fitted" in shown["patient0001/4CH"]
    words = run(unclear, "--fans", table, "--out", tmp_path / "x.png")
    assert "next:" not in words.stdout
    missing = run(unclear, "--fans", "none.csv", "--out", tmp_path / "x.png")
    assert "--fans none.csv: no such file" in str(missing.exception)


@pytest.mark.parametrize("flags", [["--gif", "x.gif"], ["--by", "depth"], ["--plan", "x.json"]])
def test_fans_are_of_a_datasets_frames(
    dataset: Path, store: Path, tmp_path: Path, flags: list[str]
) -> None:
    refused = run(dataset, "--fans", "--out", tmp_path / "x.png", *flags)
    assert f"--fans: shows the fans of a dataset's frames, but {flags[0]} show" in str(
        refused.exception
    )
    refused = run(store, "--fans", "--out", tmp_path / "x.png")
    assert "out.zarr is a store" in str(refused.exception)


def test_a_damaged_frame_is_left_out_and_told(own_dataset: Path, tmp_path: Path) -> None:
    image = own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz"
    image.write_bytes(image.read_bytes()[:200])
    done = run(own_dataset, "--out", tmp_path / "x.png", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert len(report["shown"]) == 3
    assert "patient0001_4CH_ED" in report["problems"][0]["reason"]


def test_a_damaged_sample_is_left_out_and_told(store: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(store, tmp_path / "x.zarr"))
    shard = own / "images/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 255
    shard.write_bytes(bytes(content))
    done = run(own, "--out", tmp_path / "x.png", "--n", 20, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert len(report["shown"]) + len(report["problems"]) == 12
    assert (tmp_path / "x.png").is_file() == bool(report["shown"])
    worst = run(own, "--out", tmp_path / "y.png", "--n", 20, "--worst", "--json")
    assert worst.exit_code == 0, worst.output


def test_a_plan_is_shown_before_anything_is_painted(
    settings: dict[str, object], dataset: Path, tmp_path: Path
) -> None:
    plan, _ = dry_run(make_config(settings))
    save_plan(plan, tmp_path / "plan.json")
    out = tmp_path / "x.png"
    done = run(dataset, "--plan", tmp_path / "plan.json", "--by", "depth", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["kind"] == "plan"
    depths = {row.sample_id: row.params.depth for row in plan.rows}
    shown = [depths[one["sample_id"]] for one in report["shown"]]
    assert len(shown) > 1
    assert shown == sorted(shown)
    assert min(shown) > 1
    assert "empty" in report["shown"][0]["facts"]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(dataset / "patient0002", elsewhere / "patient0002")
    refused = run(elsewhere, "--plan", tmp_path / "plan.json", "--out", out)
    assert "was made from a dataset other than" in str(refused.exception)


def test_the_worst_come_first_with_their_scores(store: Path, tmp_path: Path) -> None:
    done = run(store, "--worst", "--n", 4, "--out", tmp_path / "x.png", "--json")
    shown = json.loads(done.stdout)["shown"]
    scores = [float(one["facts"].split()[1]) for one in shown]
    assert scores == sorted(scores, reverse=True)
    with open_store(store) as opened:
        rows = rows_of_store(opened, Choice())
        every = worst_rows(opened, rows, Choice(n=100), Quiet())
        assert max(every.values()) == pytest.approx(scores[0], abs=0.06)
        names = opened.columns["sample_id"]
        assert [one["sample_id"] for one in shown] == [names[row] for row in list(every)[:4]]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--worst"], "--worst: needs painted samples"),
        (["--by", "depth"], "--by: needs moved samples"),
        (["--by", "dpth"], "--by dpth: expected one of depth, tilt, width, shift"),
        (["--n", "0"], "--n 0: expected 1 to"),
        (["--n", "200", "--height", "1024"], "more than 120 million pixels"),
        (["--checkpoint", "foo"], "--checkpoint and --device: only apply to --gif"),
        (["--samples", "nobody*"], "--samples nobody*: no frame"),
        (["--out", "sheet.jpg"], "expected a .png file"),
        (["--out", "no/such/sheet.png"], "does not exist; create it first"),
        (["--plan", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    dataset: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    done = run(dataset, "--out", tmp_path / "x.png", *flags)
    assert words in str(done.exception)
    assert not (tmp_path / "x.png").exists()


def test_a_sheet_needs_a_name(store: Path) -> None:
    assert "--out: missing" in str(run(store).exception)


def test_the_way_of_a_stored_sample_ends_in_its_own_pixels(
    store: Path, checkpoint: Path, tmp_path: Path
) -> None:
    name = "patient0002_4CH_ED_copy1"
    arguments = (store, "--gif", tmp_path / "way.gif", "--samples", name, "--height", "64")
    unknown = run(*arguments)
    assert "painted by the model tiny" in str(unknown.exception)
    done = run(*arguments, "--checkpoint", checkpoint, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sheet"] == ""
    with Image.open(tmp_path / "way.gif") as way, open_store(store) as opened:
        assert way.n_frames == opened.attrs["sampler"]["nfe"] + 2
        way.seek(way.n_frames - 1)
        row = opened.columns["sample_id"].tolist().index(name)
        height = 64
        left = np.asarray(way.convert("L"))[:height].astype(float)
        width = (left.shape[1] - 6) // 2
        stored = np.asarray(Image.fromarray(opened.images[row]).resize((width, height), 3))
        assert np.abs(left[:, :width] - stored).mean() < 3


def test_a_stored_sample_is_painted_as_it_was(store: Path, checkpoint: Path) -> None:
    name = "patient0002_4CH_ED_copy1"
    subject = subject_of(store, None, name, Choice(), str(checkpoint), EngineConfig(), Quiet())
    assert subject.engine.precision == "fp32"
    assert subject.sampler == RepaintConfig(steps=4, jump_length=2, resamplings=2)
    with open_store(store) as opened:
        row = opened.columns["sample_id"].tolist().index(name)
        assert subject.seed == opened.columns["seed"][row]
        np.testing.assert_array_equal(subject.sample.keep, opened.keep[row])
        known = np.where(opened.keep[row], opened.images[row], 0)
        np.testing.assert_array_equal(subject.sample.image, known)


def test_an_original_has_no_way(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = run(store, "--gif", tmp_path / "way.gif", "--samples", "*_copy0",
               "--checkpoint", checkpoint)  # fmt: skip
    assert "is an original with nothing painted in it" in str(done.exception)


def test_the_way_of_a_datasets_frame_is_that_of_a_first_copy(
    dataset: Path, checkpoint: Path, tmp_path: Path
) -> None:
    done = run(dataset, "--gif", tmp_path / "way.gif", "--samples", "patient0002_4CH_ES",
               "--checkpoint", checkpoint, "--device", "cpu", "--height", "64")  # fmt: skip
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "way.gif") as way:
        assert way.n_frames == 42
