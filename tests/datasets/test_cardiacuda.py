"""CardiacUDA's layout, on simulated four-chamber hearts: sparse labels, sites, outlines, clips."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.expand import expand
from echogen.commands.validate import validate
from echogen.datasets import Dataset, open_dataset
from echogen.datasets.cardiacuda import fill_outlines
from echogen.datasets.nifti_files import labelled_slices
from echogen.errors import DatasetError
from echogen.measures.classes import classes_of
from echogen.store import open_store
from tests.support.chambers import CHAMBERS, chambers, write_videos, write_volume
from tests.support.hearts import make_config
from tests.support.shapes import printed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("uda") / "cardiacUDC_dataset")


def one(root: Path, label: np.ndarray, name: str = "patient-1-4") -> Dataset:
    """A video of three frames, its label given."""
    images = np.stack([chambers(n)[0] for n in range(3)])
    write_volume(root / "Site_G_20" / f"{name}_image.nii.gz", images)
    write_volume(root / "Site_G_20" / f"{name}_label.nii.gz", label)
    return open_dataset(root)


def test_labelled_frames_are_listed_by_site(made: Path) -> None:
    dataset = open_dataset(made)
    found = [(k.frame_id, k.case_id, k.view, k.phase, k.split, k.index) for k in dataset.keys]
    assert found == [
        (f"Site_G_20_patient-{case}_4CH_f{n:03d}", f"Site_G_20_patient-{case}", "4CH", "",
         "Site_G_20", n)
        for case in (1, 2) for n in (1, 4)
    ]  # fmt: skip
    assert dataset.provenance.labels == {0: "background", 1: "LV", 2: "LA", 3: "RA", 4: "RV"}
    assert "1 video without a label file; left out." in dataset.notes
    assert "spacing unknown" in dataset.describe()
    assert open_dataset(made.parent).keys == dataset.keys
    assert [key.index for key in open_dataset(made / "Site_G_20").keys] == [1, 4, 1, 4]


def test_frames_are_slices_and_the_clip_is_all_of_them(made: Path) -> None:
    dataset = open_dataset(made)
    image, label = chambers(104, 0.9)
    frame = dataset.read(dataset.keys[1])
    np.testing.assert_array_equal(frame.image, image)
    np.testing.assert_array_equal(frame.label, label)
    assert frame.spacing_mm is None
    assert dataset.read_clip is not None
    clip = dataset.read_clip(made, dataset.keys[1])
    assert (clip.shape, clip.dtype) == ((6, *image.shape), np.uint8)
    np.testing.assert_array_equal(clip[4], image)


def test_listing_reads_no_image(made: Path) -> None:
    code = (
        "import sys; from echogen.datasets import open_dataset; "
        f"assert len(open_dataset({str(made)!r}).keys) == 4; "
        "assert not {'SimpleITK', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_left_ventricle_is_told_by_its_name(made: Path) -> None:
    parts = classes_of(open_dataset(made).provenance.labels)
    assert (parts.cavity, parts.myocardium, parts.atrium) == (1, None, 2)


def test_outlines_are_filled_and_areas_stay(tmp_path: Path) -> None:
    _, area = chambers(0)
    line = np.where(
        sum(
            ((area == k) & ~ndimage.binary_erosion(area == k)).astype(int) for k in CHAMBERS
        ) > 0, area, 0
    ).astype(np.int8)  # fmt: skip
    assert 0 < line.astype(bool).sum() < area.astype(bool).sum() / 2
    frames = one(tmp_path, np.stack([line, np.zeros_like(line), area.astype(np.int8)]))
    for key in frames.keys:
        np.testing.assert_array_equal(frames.read(key).label, area)
    ring = np.zeros((9, 9), np.uint8)
    ring[1:8, 1:8] = 2
    ring[3:6, 3:6] = 0
    ring[4, 4] = 1
    assert np.unique(fill_outlines(ring), return_counts=True)[1].tolist() == [32, 1, 48]


def test_an_open_outline_is_refused_by_name(tmp_path: Path) -> None:
    _, area = chambers(0)
    line = (area * ((area == 3) & ~ndimage.binary_erosion(area == 3))).astype(np.int8)
    line[:, :40] = 0
    frames = one(tmp_path, np.stack([line] * 3))
    with pytest.raises(DatasetError, match=r"patient-1-4_label.nii.gz, frame 0: RA is a line"):
        frames.read(frames.keys[0])


def test_an_id_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    _, area = chambers(0)
    frames = one(tmp_path, np.stack([np.where(area == 4, 5, area).astype(np.int8)] * 3))
    with pytest.raises(DatasetError, match="class ids 5 are not declared"):
        frames.read(frames.keys[0])
    declared = open_dataset(tmp_path, labels={1: "LV", 2: "LA", 3: "RA", 5: "epicardium"})
    assert set(np.unique(declared.read(declared.keys[0]).label)) == {0, 1, 2, 3, 5}


def test_what_cannot_be_used_is_said(made: Path, tmp_path: Path) -> None:
    _, area = chambers(0)
    good = np.stack([area.astype(np.int8)] * 3)
    one(tmp_path, good)
    one(tmp_path, good[:2], "patient-2-4")
    one(tmp_path, good * 0, "patient-3-4")
    one(tmp_path, good, "patient-4-3")
    one(tmp_path, good, "patient-5-4")
    one(tmp_path, good, "patient-6-4")
    site = tmp_path / "Site_G_20"
    (site / "patient-5-4_image.nii.gz").unlink()
    cut = site / "patient-6-4_label.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-60])
    dataset = open_dataset(tmp_path)
    assert {key.case_id for key in dataset.keys} == {"Site_G_20_patient-1"}
    reasons = [problem.reason for problem in dataset.problems()]
    assert reasons == [
        "Site_G_20/patient-2-4_label.nii.gz: 110 x 120 x 2, but its video has 110 x 120 x 3 "
        "(columns x rows x frames); they must be the same.",
        "Site_G_20/patient-3-4_label.nii.gz: not one frame is labelled.",
        "Site_G_20/patient-5-4_label.nii.gz: a label without its image.",
        "Site_G_20/patient-6-4_label.nii.gz: truncated or damaged gzip file.",
    ]
    assert "1 video of other views than the apical one (-4); left out." in dataset.notes


def test_slices_that_hold_labels_are_found_in_any_file(tmp_path: Path) -> None:
    planes = np.zeros((5, 7, 6), np.int16)
    planes[3, 2, 2] = 256
    for name in ("a.nii", "a.nii.gz"):
        write_volume(tmp_path / name, planes)
        assert labelled_slices(tmp_path / name, name) == (3,)
    path = tmp_path / "a.nii"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DatasetError, match="truncated, slice 4 is not whole"):
        labelled_slices(path, "a.nii")


def test_without_labels_videos_without_any_give_some_frames_too(made: Path) -> None:
    dataset = open_dataset(made, need_labels=False)
    bare = [key.index for key in dataset.keys if key.case_id.startswith("Site_R_73")]
    assert (len(dataset.keys), bare) == (9, [0, 1, 2, 4, 5])
    assert not dataset.read(dataset.keys[0]).label.any()
    assert all(len(key.paths) == 1 for key in dataset.keys)


def test_with_frames_all_a_video_is_one_clip(made: Path) -> None:
    dataset = open_dataset(made, frames="all")
    assert [key.clip_id for key in dataset.keys[:2]] == ["Site_G_20_patient-1_4CH"] * 2
    apart = open_dataset(made)
    assert len({key.clip_id for key in apart.keys}) == len(apart.keys)


def test_a_part_whose_ids_are_in_doubt_is_named(tmp_path: Path) -> None:
    _, area = chambers(0)
    root = write_videos(tmp_path / "cardiacUDC_dataset", cases=1)
    assert not any("label_all_frame" in note for note in open_dataset(root).notes)
    dense = root / "label_all_frame"
    write_volume(dense / "normal-23-4_image.nii.gz", np.stack([chambers(n)[0] for n in range(3)]))
    write_volume(dense / "normal-23-4_label.nii.gz", np.stack([area.astype(np.int8)] * 3))
    dataset = open_dataset(root)
    assert [key.index for key in dataset.keys if key.split == "label_all_frame"] == [0, 1, 2]
    assert any("label_all_frame/: some of its files" in note for note in dataset.notes)


def test_the_frames_of_a_video_share_moves_with_frames_all(
    made: Path, settings: dict[str, object], tmp_path: Path
) -> None:
    run = {**settings, "input": str(made), "copies": 1, "dataset": {"frames": "all"}}
    assert expand(make_config(run)).exit_code == 0
    report = validate(str(run["output"]), source=made, workers=1)
    assert not [found for found in report.findings if found.severity == "error"]
    with open_store(Path(str(run["output"]))) as store:
        rows = store.columns["copy"] == 1
        moves = zip(store.columns["case_id"][rows], store.columns["seed"][rows], strict=True)
        assert len(set(moves)) == 2


def test_the_commands_take_it(made: Path, tmp_path: Path) -> None:
    run = CliRunner()
    expand = ["expand", "--in", str(made), "--copies", "1", "--dry-run", "--json"]
    done = run.invoke(app, [*expand, "--out", str(tmp_path / "a.zarr")])
    assert done.exit_code == 0, done.output
    assert printed("expand-dry-run", done.stdout)["frames"] == 4
    done = run.invoke(app, ["validate", str(made), "--json"])
    report = printed("validate", done.stdout)
    assert [one["name"] for one in report["dataset"]["areas"]] == ["LV", "LA", "RA", "RV"]
    assert (report["dataset"]["layout"], report["dataset"]["usable"]) == ("cardiacuda", 4)
