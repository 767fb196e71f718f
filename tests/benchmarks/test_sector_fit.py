"""The benchmark of the fan, on fans drawn here: what it tries, what it counts, what it writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sector_fit
import SimpleITK as sitk
from fan_trials import groups, load_damaged, pair, spread
from measures.fans import fan_error, filled_foreground, foreground_iou
from negatives import NEGATIVES
from PIL import Image
from scipy import ndimage

from echogen.geometry.sector import Sector

SECTOR = Sector(4.0, 64.0, -0.65, 0.65, 0.0, 95.0)
SHAPE, SPACING = (208, 256), (0.5, 0.5)


def speckled(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    image = np.clip(90 + 25 * texture / texture.std(), 20, 255)
    return np.where(SECTOR.mask(SHAPE, SPACING), image, 0).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "camus" / "database_nifti" / "patient0001"
    folder.mkdir(parents=True)
    for seed, phase in enumerate(("ED", "ES")):
        image = sitk.GetImageFromArray(speckled(seed))
        image.SetSpacing(SPACING)
        sitk.WriteImage(image, str(folder / f"patient0001_4CH_{phase}.nii.gz"))
    return tmp_path / "data"


@pytest.fixture
def external(tmp_path: Path) -> Path:
    folder = tmp_path / "scanner"
    folder.mkdir()
    Image.fromarray(speckled()).save(folder / "good.png")
    Image.fromarray(np.full(SHAPE, 90, np.uint8)).save(folder / "grey.png")
    return folder


def test_errors_are_shares_of_the_depth_and_degrees() -> None:
    moved = replace(SECTOR, apex_row=4.0 + 0.6 * 0.95, apex_col=64.0 + 0.8 * 0.95)
    turned = replace(SECTOR, angle_left=-0.65 + np.deg2rad(2), angle_right=0.65 - np.deg2rad(3))
    assert fan_error(moved, SECTOR).apex == pytest.approx(0.01)
    assert fan_error(turned, SECTOR).angle == pytest.approx(3)
    assert fan_error(replace(SECTOR, radius_far=93.1), SECTOR).far == pytest.approx(0.02)


def test_the_foreground_of_a_clean_fan_is_the_fan() -> None:
    image = speckled()
    assert foreground_iou(SECTOR, image, SPACING) > 0.995
    assert foreground_iou(replace(SECTOR, angle_left=-0.45), image, SPACING) < 0.9
    compressed = np.maximum(image, ndimage.grey_dilation(image, 5) // 5)
    assert foreground_iou(SECTOR, compressed, SPACING) > 0.98
    assert not filled_foreground(np.zeros(SHAPE, np.uint8)).any()


@pytest.mark.parametrize("kind", NEGATIVES)
def test_pictures_without_a_fan_follow_their_seed(kind: str) -> None:
    one, same, other = (NEGATIVES[kind](np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.std() > 2
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()


def test_the_truth_moves_with_the_damage(data: Path) -> None:
    path = next(data.rglob("*_ED.nii.gz"))
    trial = load_damaged("flip", path, 0)
    assert trial is not None
    assert trial.truth is not None
    assert trial.truth.apex_col == pytest.approx(SHAPE[1] * SPACING[1] - 64.0, abs=0.3)
    clip = load_damaged("clip", path, 0)
    assert clip is not None
    assert clip.clip is not None
    assert len(clip.images) == 2
    assert clip.clip.shape[1:] == clip.images[0].shape


def test_a_pair_is_the_first_frame_and_the_farthest_from_it() -> None:
    levels = np.array([0, 110, 120, 250, 130, 0], np.uint8)
    first, other = pair(np.tile(levels[:, None, None], (1, 3, 3)))
    assert (first[0, 0], other[0, 0]) == (110, 250)


def test_paths_are_spread_evenly() -> None:
    paths = [Path(str(number)) for number in range(10)]
    assert spread(paths, 5, 1) == [paths[i] for i in (1, 3, 5, 7, 9)]
    assert spread(paths[:2], 3, 0) == [paths[0], paths[1], paths[0]]
    assert spread([], 3, 0) == []


def test_groups_have_what_their_folders_hold(data: Path, external: Path) -> None:
    made = groups(data, [("scanner", external)], external, 1)
    assert len(made["clean.camus_4ch_native"]) == 2
    assert len(made["external.scanner.frames"]) == len(made["negative.files"]) == 2
    assert "clean.e95_video" not in made
    assert "external.scanner.whole" not in made
    assert sum(len(loads) for name, loads in made.items() if name.startswith("negative")) > 400
    assert len(groups(data, [], None, 10)["damage.text"]) == 15


def test_a_run_counts_measures_and_draws(
    data: Path, external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sheets = tmp_path / "found.json", tmp_path / "sheets"
    monkeypatch.setattr(sys, "argv", [
        "sector_fit.py", "--data", str(data), "--external", f"scanner={external}", "--every", "75",
        "--only", "clean", "damage.margins", "external", "negative.menu",
        "--sheets", str(sheets), "--out", str(out),
    ])  # fmt: skip
    sector_fit.main()
    found = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert found["summary"]["external.scanner.frames"] == "1 of 1"
    assert found["summary"]["negative"] == "0 of 1"
    assert found["stages"]["clean.camus_4ch_native"]["result"]["iou_min"] > 0.99
    margins = found["stages"]["damage.margins"]["result"]
    assert (margins["tried"], margins["accepted"]) == (2, 2)
    assert margins["apex"]["p95"] < 0.01
    assert "rows" not in margins
    pages = sorted(page.name for page in sheets.iterdir())
    assert pages == [
        "damage.margins-accepted-01.png",
        "external.scanner.frames-accepted-01.png",
        "negative.menu-refused-01.png",
    ]


def test_refusals_are_counted_by_reason_without_names(
    data: Path, external: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [
        "sector_fit.py", "--data", str(data), "--external", f"scanner={external}",
        "--only", "external",
    ])  # fmt: skip
    sector_fit.main()
    assert "1 of    2   50.0%" in capsys.readouterr().out
    rows = [
        sector_fit.tried(load)
        for load in groups(data, [("s", external)], None, 1)["external.s.frames"]
    ]
    summary = sector_fit.summary("external.s.frames", [row for row in rows if row])
    assert list(summary["refused_for"].values()) == [1]
