"""`echogen validate` says what to do next: settings to paste, fans to look at, or the main job."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from echogen.cli import app
from tests.support.hearts import fan_frame
from tests.support.pictures import save


def validate(*words: str) -> str:
    return CliRunner().invoke(app, ["validate", *words, "--workers", "1"]).output


def after(output: str, word: str) -> str:
    assert word in output, output
    return output.split(word, 1)[1].strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two frames whose labels are grey levels."""
    for seed in (1, 2):
        image, label = fan_frame(seed)
        save(tmp_path / "data" / "images" / f"f{seed}.png", image)
        save(tmp_path / "data" / "labels" / f"f{seed}.png", label * np.uint8(80))
    return tmp_path


def test_what_is_pasted_from_a_refusal_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    refused = after(validate("data"), "not usable")
    lines = after(refused, "and give --config run.toml to every")
    setting = [line.strip() for line in lines.splitlines()[1:3]]
    assert setting == ["[dataset]", "label_map = {80 = 1, 160 = 2, 240 = 3}"]
    Path("run.toml").write_text("copies = 2\n" + "\n".join(setting))
    accepted = validate("data", "--config", "run.toml")
    command = after(accepted, "next: echogen ")
    assert command == "expand --in data --config run.toml --out data_aug.zarr --copies 4 --dry-run"
    dry = CliRunner().invoke(app, command.split())
    assert dry.exit_code == 0, dry.output
    assert "8 copies" in dry.output
    tried = after(refused, "or try it: echogen validate data --set ").strip().strip("'")
    assert "\nusable\n" in validate("data", "--set", tried)


def test_json_has_the_lines(root: Path) -> None:
    import json

    done = CliRunner().invoke(app, ["validate", str(root / "data"), "--json", "-q"])
    assert json.loads(done.stdout)["advice"] == ["label_map = {80 = 1, 160 = 2, 240 = 3}"]


def test_an_unknown_key_of_the_file_is_refused(root: Path) -> None:
    (root / "run.toml").write_text("[datset]\nflip = 'rows'\n")
    done = CliRunner().invoke(app, ["validate", str(root), "--config", str(root / "run.toml")])
    assert done.exit_code != 0
    assert "unknown key 'datset'; did you mean 'dataset'?" in str(done.exception)


def test_a_mirrored_heart_is_told(root: Path) -> None:
    names = "dataset.labels={1='LV', 2='RV', 3='LA'}"
    for seed in (1, 2):
        image, label = fan_frame(seed)
        sides = label.copy()
        sides[label == 2] = 0
        columns = np.arange(label.shape[1])[None, :]
        sides[(label == 1) & (columns > 55)] = 2
        save(root / "data" / "images" / f"f{seed}.png", image)
        save(root / "data" / "labels" / f"f{seed}.png", sides)
    output = validate(str(root / "data"), "--set", names)
    assert "in 2 of 2 frames the left ventricle lies left of the right one" in output
    assert '    flip = "cols"' in output
    turned = validate(str(root / "data"), "--set", names, "--set", "dataset.flip=cols")
    assert "lies left of the right one" not in turned


def test_pictures_that_are_upside_down_are_told_and_turned(root: Path) -> None:
    for path in (root / "data").rglob("*.png"):
        divisor = 80 if path.parent.name == "labels" else 1
        save(path, np.flipud(np.asarray(Image.open(path))) // np.uint8(divisor))
    output = validate(str(root / "data"))
    assert "the picture is upside down" in output
    assert '    [dataset]\n    flip = "rows"\n' in output
    turned = validate(str(root / "data"), "--set", "dataset.flip=rows")
    assert "2 of 2 usable" in turned


def test_one_odd_frame_decides_nothing_for_all(root: Path) -> None:
    for seed in (1, 2, 3):
        image, label = fan_frame(seed)
        noise = np.random.default_rng(seed).integers(0, 256, image.shape).astype(np.uint8)
        upside_down = seed == 1
        save(root / "data" / "images" / f"f{seed}.png", np.flipud(image) if upside_down else noise)
        save(root / "data" / "labels" / f"f{seed}.png", np.flipud(label) if upside_down else label)
    output = validate(str(root / "data"))
    assert output.count("the picture is upside down") == 1
    assert "[dataset]\n" not in output
