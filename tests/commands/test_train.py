"""`echogen train` from the command line: a dataset in, a model that expand paints with out."""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from echogen.cli import app
from echogen.diffusion.checkpoint import read_info, verify_checkpoint
from echogen.phantom import write_dataset
from echogen.store import open_store
from echogen.training.frames import read_frames
from echogen.training.run_folder import STATE_FILE
from tests.support.shapes import printed

RECIPE = """
name = "tiny"
image_size = 32
patch = 4
conditioning = "known"

[network]
sample_size = 8
in_channels = 32
out_channels = 16
block_out_channels = [16, 16]
layers_per_block = 1
down_block_types = ["DownBlock2D", "DownBlock2D"]
up_block_types = ["UpBlock2D", "UpBlock2D"]
norm_num_groups = 8
add_attention = false

[schedule]
num_train_timesteps = 20
beta_start = 0.001
beta_end = 0.3
beta_schedule = "linear"
prediction_type = "v_prediction"
variance_type = "fixed_small"
clip_sample = true

[optimiser]
batch_size = 4
warmup_steps = 2
"""
RUN = (
    *("--device", "cpu", "--precision", "fp32", "--evaluations", "1", "--hold-out", "1"),
    *("--border-images", "16"),
)

Train = Callable[..., Result]


@pytest.fixture(scope="session")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated cases, 12 frames. Do not change."""
    root = tmp_path_factory.mktemp("phantoms") / "hearts"
    write_dataset(root, 3, 0)
    return root


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in a plain folder. Do not change."""
    root = tmp_path_factory.mktemp("pictures") / "images"
    root.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def run(*arguments: object) -> Result:
    """The command; its errors are raised as the package raises them."""
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def line(result: Result) -> str:
    """The one line that `main` would print."""
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def train(hearts: Path, recipe: Path, tmp_path: Path) -> Train:
    """Four steps on the simulated cases into `model`, with more flags."""

    def call(*more: object, steps: int = 4, data: Path = hearts) -> Result:
        fixed = ("--in", data, "--out", tmp_path / "model", "--config", recipe)
        return run(*fixed, "--steps", steps, *RUN, *more)

    return call


@pytest.fixture(scope="session")
def trained(hearts: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Do not change."""
    out = tmp_path_factory.mktemp("trained") / "model"
    fixed = ("--in", hearts, "--out", out, "--config", recipe, "--steps", 4, *RUN)
    result = run(*fixed, "--name", "mine", "--licence", "CC0-1.0", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    report = printed("train", result.stdout)
    assert (report["step"], report["images"], report["done"]) == (4, 16, 1.0)
    assert (report["frames"], report["cases"], report["held_out_cases"]) == (12, 3, 1)
    assert report["checkpoint"] == str(out / "checkpoint")
    assert result.stderr == ""
    return out


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_the_model_is_a_checkpoint_with_its_record(trained: Path, hearts: Path) -> None:
    info = verify_checkpoint(trained / "checkpoint")
    record, packed = info.training, read_frames(trained / "frames").record
    assert (info.name, info.licence) == ("mine", "CC0-1.0")
    assert (
        info.training_data
        == "12 frames of 3 cases of hearts (camus layout), 1 of the cases held out"
    )
    assert record["data_fingerprint"] == packed.fingerprint
    assert record["dataset"]["root_name"] == "hearts"
    assert record["dataset"]["split"] == {"training": 8, "validation": 4}
    (held_out,) = record["held_out_cases"]
    assert list(record["cases"]["held_out"]) == [held_out]
    assert len(record["cases"]["trained"]) == 2
    digests = {
        d for d, case in zip(packed.digests, packed.case_ids, strict=True) if case == held_out
    }
    assert set(record["cases"]["held_out"][held_out]) == digests
    assert record["memorisation"]["verdict"]


def test_the_command_is_on_the_card_without_folders_of_the_machine(trained: Path) -> None:
    card = (trained / "checkpoint" / "README.md").read_text()
    assert "echogen train --in hearts --out model --config tiny.toml --steps 4" in card
    for file in ("README.md", "echogen.json"):
        assert str(trained.parent) not in (trained / "checkpoint" / file).read_text()


def test_expand_paints_with_it_and_warns_of_its_held_out_case(
    trained: Path, hearts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more.zarr"
    flags = ("--in", hearts, "--checkpoint", trained, "--out", out, "--copies", 1)
    fast = ("--preset", "fast", "--device", "cpu", "--precision", "fp32", "--workers", 1)
    result = CliRunner().invoke(app, ["expand", *map(str, (*flags, *fast)), "--json"])
    assert result.exit_code == 0, result.output
    report = printed("expand", result.stdout)
    assert report["checkpoint"] == "mine"
    assert report["painted"] > 0
    held_out = verify_checkpoint(trained / "checkpoint").training["held_out_cases"][0]
    assert f"mine was not trained on {held_out}, 4 frames here" in report["notes"][-1]
    with open_store(out) as store:
        originals = {
            store.columns["frame_id"][i]: store.images[i]
            for i in np.flatnonzero(store.columns["copy"] == 0)
        }
    packed = read_frames(trained / "frames")
    for frame_id, frame in zip(packed.record.frame_ids, packed.pixels, strict=True):
        np.testing.assert_array_equal(originals[frame_id], frame)


def test_a_finished_run_is_left_as_it_is(own_run: Path, train: Train) -> None:
    before = {path: path.read_bytes() for path in own_run.rglob("*.safetensors")}
    result = train("--resume")
    assert result.exit_code == 0, result.output
    assert "4 steps, 16 images" in result.stdout
    assert "next: echogen expand --in DATASET --checkpoint" in result.stdout
    assert "12 frames already prepared" in result.stderr
    assert {path: path.read_bytes() for path in own_run.rglob("*.safetensors")} == before


def test_a_longer_run_goes_on(own_run: Path, train: Train) -> None:
    result = train("--json", steps=6)
    assert result.exit_code == 0, result.output
    assert printed("train", result.stdout)["step"] == 6


def test_other_settings_or_frames_are_refused_until_overwritten(
    own_run: Path, train: Train, tmp_path: Path, hearts: Path
) -> None:
    assert "seed was 0, is 1" in line(train("--seed", 1))
    assert "8 frames missing" in line(train("--cases", "patient0001"))
    other = tmp_path / "other"
    shutil.copytree(hearts, other)
    shutil.rmtree(other / "database_nifti" / "patient0002")
    assert "4 frames missing" in line(train(data=other))
    result = train("--overwrite", "--json", steps=2, data=other)
    assert result.exit_code == 0, result.output
    report = printed("train", result.stdout)
    assert (report["step"], report["frames"]) == (2, 8)


def test_report_measures_anew_and_rewrites_the_card_without_the_dataset(own_run: Path) -> None:
    checkpoint = own_run / "checkpoint"
    weights = (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    record = json.loads((checkpoint / "echogen.json").read_text())
    del record["training"]["memorisation"]
    (checkpoint / "echogen.json").write_text(json.dumps(record))
    result = run("--out", own_run, "--report", "--citation", "Me, 2026", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "repeats frames?" in result.stdout
    info = verify_checkpoint(checkpoint)
    assert info.training["memorisation"]["verdict"]
    assert (info.name, info.licence, info.citation) == ("mine", "CC0-1.0", "Me, 2026")
    assert "Me, 2026" in (checkpoint / "README.md").read_text()
    assert (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    assert info.training["command"].startswith("echogen train --in hearts")


def test_unlabelled_images_in_folders_are_enough(
    train: Train, hearts: Path, tmp_path: Path
) -> None:
    import SimpleITK as sitk

    for path in hearts.rglob("*_4CH_E?.nii.gz"):
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        case = tmp_path / "pictures" / path.parent.name
        case.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(case / f"{path.name[:-7]}_x.png"))
    (tmp_path / "pictures" / "notes.png").touch()
    result = train("--data", "my scanner", steps=1, data=tmp_path / "pictures")
    assert result.exit_code == 1, result.output  # one picture could not be used
    assert "skipped: notes.png: not a PNG file (0 bytes)." in result.stdout
    info = verify_checkpoint(tmp_path / "model" / "checkpoint")
    assert info.training_data.startswith("my scanner; 6 frames of 3 cases of pictures (images")
    assert sorted(info.training["cases"]["trained"]) < ["patient0001", "patient0002", "patient0003"]


def test_the_recipe_can_be_changed_by_flags(train: Train, tmp_path: Path) -> None:
    flags = ("--batch-size", 3, "--micro-batch", 2, "--seed", 5)
    result = train(*flags, "--set", "optimiser.learning_rate=1e-3", "--set", "name=other", steps=1)
    assert result.exit_code == 0, result.output
    config = verify_checkpoint(tmp_path / "model" / "checkpoint").training["config"]
    assert config["optimiser"]["batch_size"] == 3
    assert config["optimiser"]["learning_rate"] == 1e-3
    assert (config["seed"], config["name"]) == (5, "other")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--hours", "1"), "give either --steps or --hours"),
        (("--preset", "small"), "--preset and --config: both name a recipe"),
        (("--set", "optimiser.rate=1"), "unknown key 'recipe.optimiser.rate'"),
        (("--set", "seed"), "seed: expected KEY=VALUE"),
        (("--resume",), "--resume: .* holds no run to resume"),
        (("--resume", "--overwrite"), "--resume and --overwrite"),
        (("--frames", "frames.zip"), "--frames: replaces --in"),
        (("--pack", "frames.npz"), r"--pack frames\.npz: expected a \.zip file"),
        (("--fans", "none.csv"), r"--fans none\.csv: no such file"),
        (("--format", "video"), "--format video: expected auto, camus, .*, images"),
        (("--views", "PLAX"), "--views PLAX: not in this dataset; it has 2CH, 4CH"),
        (("--on-error", "ask"), "on_error: .*'skip' or 'fail'.*got 'ask'"),
        (("--hold-out", "3"), "--hold-out 3"),
        (("--device", "cuda:99"), "cuda:99"),
    ],
)
def test_mistakes_are_one_line(train: Train, flags: tuple[str, ...], message: str) -> None:
    result = train(*flags)
    assert result.exit_code != 0
    assert re.search(message, line(result))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[schedule]", "[schedule]\nunknown = 1"), r"\[schedule\]: unknown key 'unknown'"),
        (("[16, 16]", "[16, 16, 16]"), r"\[network\]: does not describe a UNet2DModel"),
    ],
)
def test_a_wrong_recipe_is_named(
    hearts: Path, recipe: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(recipe.read_text().replace(*change))
    result = run("--in", hearts, "--out", tmp_path / "model", "--config", wrong, "--steps", 1)
    assert result.exit_code != 0
    assert re.search(rf"--config \S*wrong\.toml: {message}", line(result))


def test_packed_frames_train_the_same_model_without_the_dataset(
    hearts: Path, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    packing = ("--in", hearts, "--out", tmp_path / "packing", "--config", recipe)
    result = run(*packing, "--pack", tmp_path / "frames.zip", "--hours", 2, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    report = printed("train", result.stdout)
    assert (report["output"], report["frames"]) == (str(tmp_path / "frames.zip"), 12)
    assert report["done"] is None
    out = tmp_path / "elsewhere"
    flags = ("--frames", tmp_path / "frames.zip", "--out", out, "--config", recipe, "--steps", 4)
    result = run(*flags, *RUN, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    models = [verify_checkpoint(folder / "checkpoint") for folder in (trained, out)]
    assert models[0].sha256 == models[1].sha256
    assert models[0].training_data == models[1].training_data
    for key in ("cases", "dataset", "data_fingerprint"):
        assert models[0].training[key] == models[1].training[key]
    assert "--frames frames.zip" in models[1].training["command"]
    assert not (out / "frames").exists()
    assert "--frames: all of them are used" in line(run(*flags, *RUN, "--views", "4CH"))


def test_packing_names_what_it_leaves_out(hearts: Path, recipe: Path, tmp_path: Path) -> None:
    data = shutil.copytree(hearts, tmp_path / "data")
    broken = sorted(data.rglob("*_ED.nii.gz"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    out = tmp_path / "packing"
    done = run("--in", data, "--out", out, "--config", recipe, "--pack", tmp_path / "frames.zip")
    assert done.exit_code == 1, done.output
    assert f"skipped: {broken.relative_to(data).as_posix()}: truncated" in done.stdout


def test_fans_given_by_hand_are_prepared(train: Train, tmp_path: Path) -> None:
    table = tmp_path / "fans.csv"
    table.write_text(
        "recording,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far\n"
        "*_2CH_ED,0,200,-30,30,0,250\n"
    )
    done = train("--pack", tmp_path / "given.zip", "--fans", table)
    assert done.exit_code == 0, done.output
    assert "fans given for 3 frames" in done.stderr
    fitted = train("--pack", tmp_path / "fitted.zip")
    assert fitted.exit_code == 0, fitted.output
    given, others = (read_frames(tmp_path / name) for name in ("given.zip", "fitted.zip"))
    changed = (given.pixels != others.pixels).any(axis=(1, 2))
    names = [name for name, differs in zip(given.record.frame_ids, changed, strict=True) if differs]
    assert len(names) == 3
    assert all(name.endswith("_2CH_ED") for name in names)


def test_folders_are_not_guessed(recipe: Path, hearts: Path, tmp_path: Path) -> None:
    assert "--out is missing" in line(run("--in", hearts, "--steps", 1))
    fixed = ("--config", recipe, "--steps", 1)
    assert "--in: missing" in line(run("--out", tmp_path / "model", *fixed))
    assert "no trained model here" in line(run("--out", tmp_path / "model", "--report"))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    refused = line(run("--in", hearts, "--out", tmp_path / "letters", *fixed, "--overwrite"))
    assert "contains other files, such as dear.txt" in refused
    assert (tmp_path / "letters" / "dear.txt").exists()


@pytest.mark.parametrize("name", ["frames", "pictures", "checkpoint"])
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_folder_of_ones_own_is_never_taken_for_the_runs(
    recipe: Path, images: Path, tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    own = tmp_path / "study" / name
    shutil.copytree(images, own)
    result = run(
        "--in", images, "--out", tmp_path / "study", "--config", recipe, "--steps", 1, *RUN, *more
    )
    assert re.search(r"contains (other files|files other than prepared)", line(result))
    assert sorted(p.name for p in own.iterdir()) == sorted(p.name for p in images.iterdir())


def test_a_run_among_the_images_that_it_reads_is_refused(
    images: Path, recipe: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(images, tmp_path / "data")
    fixed = ("--config", recipe, "--steps", 1, *RUN)
    refused = line(run("--in", data, "--out", data / "model", *fixed))
    assert "must not be inside" in refused
    assert not (data / "model").exists()


def test_the_folder_at_hand_can_be_the_runs(
    hearts: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fixed = ("--in", hearts, "--config", recipe, "--steps", 1, *RUN)
    result = run(*fixed, "--out", ".")
    assert result.exit_code == 0, result.output
    assert read_info(tmp_path / "here" / "checkpoint").name == "here"
    assert "--out /: is the root" in line(run("--out", "/", "--report"))


def test_values_that_fit_only_together_can_be_set(train: Train) -> None:
    values = ("image_size=18", "patch=3", "network.sample_size=6")
    channels = ("network.in_channels=18", "network.out_channels=9")
    result = train(*(word for value in values + channels for word in ("--set", value)))
    assert result.exit_code == 0, result.output


def test_report_puts_a_half_replaced_checkpoint_back(own_run: Path) -> None:
    (own_run / "checkpoint").rename(own_run / ".checkpoint.replaced")
    result = run("--out", own_run, "--report", "--device", "cpu")
    assert result.exit_code == 0, result.output
    verify_checkpoint(own_run / "checkpoint")


def test_a_recipes_place_is_not_on_the_card(train: Train, hearts: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE)
    out = tmp_path / "model"
    result = run("--in", hearts, "--out", out, "--preset", file, "--steps", 1, *RUN)
    assert result.exit_code == 0, result.output
    assert "--preset mine.toml" in read_info(out / "checkpoint").training["command"]


def test_a_damaged_frame_can_stop_it(train: Train, hearts: Path, tmp_path: Path) -> None:
    shutil.copytree(hearts, tmp_path / "hurt")
    bad = next((tmp_path / "hurt").rglob("*_4CH_ED.nii.gz"))
    bad.write_bytes(bad.read_bytes()[:400])
    assert bad.name in line(train("--on-error", "fail", data=tmp_path / "hurt"))
    assert not (tmp_path / "model" / "frames").exists()


def test_ctrl_c_finishes_the_step_and_saves(train: Train, tmp_path: Path) -> None:
    state = tmp_path / "model" / STATE_FILE

    def interrupt() -> None:
        while not state.is_file():
            time.sleep(0.05)
        before_the_first_step = state.stat().st_mtime_ns
        while state.stat().st_mtime_ns == before_the_first_step:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt, daemon=True)
    watcher.start()
    result = train("--save-every", 0, steps=1_000_000)
    assert result.exit_code == 130
    assert "stopping after the current step" in result.stderr
    assert "next: run the same command again" in result.stdout
    assert state.is_file()
    assert not (tmp_path / "model.lock").exists()
