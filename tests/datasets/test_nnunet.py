"""nnU-Net's raw datasets: what `export --to nnunet` writes, and what others write."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.expand import expand
from echogen.commands.export import export
from echogen.datasets import Dataset, open_dataset
from echogen.errors import DatasetError
from echogen.planning.make import build_plan
from echogen.store import open_store
from echogen.types import Frame, FrameKey
from tests.support.export_stores import Made, Sample, cohort
from tests.support.hearts import make_config

LABELS = {"background": 0, "LV cavity": 1, "myocardium": 2}


def write(path: Path, array: np.ndarray, spacing: tuple[float, float] = (0.5, 0.7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path))


def an_image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (9, 7)).astype(np.uint8)


def a_label() -> np.ndarray:
    label = np.zeros((9, 7), np.uint8)
    label[3:6, 2:5] = 2
    return label


def described(root: Path, **changes: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    told = {
        "channel_names": {"0": "ultrasound"},
        "labels": LABELS,
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **changes,
    }
    text = json.dumps({key: value for key, value in told.items() if value is not None})
    (root / "dataset.json").write_text(text)


def foreign(root: Path, *stems: str, ending: str = ".nii.gz", **changes: Any) -> Path:
    described(root, **{"numTraining": len(stems), "file_ending": ending, **changes})
    for stem in stems:
        write(root / "imagesTr" / f"{stem}_0000{ending}", an_image())
        write(root / "labelsTr" / f"{stem}{ending}", a_label())
    return root


def exported(made: Made, folder: Path) -> Path:
    store = made.put(folder / "store.h5")
    return Path(export(store, to="nnunet", output=folder / "out").output)


def keys_of(dataset: Dataset) -> tuple[FrameKey, ...]:
    return dataset.keys


def only_frame(root: Path) -> Frame:
    dataset = open_dataset(root)
    (key,) = dataset.keys
    return dataset.read(key)


def told(root: Path) -> tuple[str, ...]:
    config = make_config({"input": str(root), "output": "out.zarr", "copies": 1})
    dataset = open_dataset(root)
    return build_plan(dataset, dataset.keys, config, (64, "stretch")).notes


def refusal(root: Path, **kwargs: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(root, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_exported_reads_back_as_it_was_stored(tmp_path: Path) -> None:
    root = exported(cohort(3, copies=2), tmp_path)
    dataset = pickle.loads(pickle.dumps(open_dataset(root)))
    assert dataset.provenance.format == "nnunet"
    assert dataset.provenance.labels == {
        0: "background", 1: "LV cavity", 2: "myocardium", 3: "left atrium",
    }  # fmt: skip
    assert "Own terms" in dataset.provenance.licence
    assert not dataset.problems()
    assert not dataset.notes
    keys = {key.frame_id: key for key in keys_of(dataset)}
    assert len(keys) == 18
    with open_store(tmp_path / "store.h5") as store:
        for row, copy in enumerate(store.columns["copy"]):
            case, view, phase = (store.columns[n][row] for n in ("case_id", "view", "phase"))
            name = f"{case}c{copy:02d}" if copy else case
            key = keys[f"{name}_{view}_{phase}"]
            assert (key.case_id, key.view, key.phase) == (case, view, phase)
            frame = dataset.read(key)
            np.testing.assert_array_equal(frame.image, store.images[row])
            np.testing.assert_array_equal(frame.label, store.masks[row])
            assert frame.spacing_mm == tuple(store.columns["spacing_mm"][row].astype(float))


def test_fold_0_is_the_split(tmp_path: Path) -> None:
    root = exported(cohort(3), tmp_path)
    fold = json.loads((root / "splits_final.json").read_text())[0]
    found = {key.frame_id: key.split for key in keys_of(open_dataset(root))}
    assert {name for name, split in found.items() if split == "train"} == set(fold["train"])
    assert {name for name, split in found.items() if split == "val"} == set(fold["val"])
    assert any(split == "" for split in found.values())  # copies of what fold 0 validates on


@pytest.mark.parametrize("table", [True, False])
def test_copies_belong_to_the_case_they_were_made_of(tmp_path: Path, table: bool) -> None:
    root = exported(cohort(2, copies=1), tmp_path)
    if not table:
        (root / "samples.csv").unlink()
    assert {key.case_id for key in keys_of(open_dataset(root))} == {"patient0001", "patient0002"}
    described(root, description="someone else's", numTraining=8)
    assert {key.case_id for key in keys_of(open_dataset(root))} == {
        "patient0001", "patient0001c01", "patient0002", "patient0002c01",
    }  # fmt: skip


def test_cases_whose_names_no_file_can_hold_come_back(tmp_path: Path) -> None:
    samples = tuple(
        Sample(f"{case}{phase}", f"{case}_4CH_{phase}", case, phase=phase)
        for case in ("a/b c", "ward7c02")
        for phase in ("ED", "ES")
    )
    dataset = open_dataset(exported(Made(samples), tmp_path))
    assert [case.case_id for case in dataset.cases] == ["a/b c", "ward7c02"]


def test_millimetres_that_the_export_made_up_are_unknown_again(tmp_path: Path) -> None:
    nan = (float("nan"), float("nan"))
    samples = (Sample("a", "p1_4CH_ED", "p1", spacing_mm=nan), *cohort(1).samples)
    dataset = open_dataset(exported(Made(samples), tmp_path))
    spacing = {key.case_id: dataset.read(key).spacing_mm for key in keys_of(dataset)}
    assert spacing["p1"] is None
    assert spacing["patient0001"] is not None
    lost = Made(tuple(Sample(c, f"{c}_4CH_ED", c, spacing_mm=nan) for c in ("p1", "p2")))
    assert "spacing unknown" in open_dataset(exported(lost, tmp_path / "lost")).describe()


def test_a_dataset_of_others_is_read_by_its_own_names(tmp_path: Path) -> None:
    root = foreign(tmp_path, "frame_12", "p7_2CH_ES", license="CC0", reference="A. Author")
    dataset = open_dataset(root)
    found = [(key.frame_id, key.case_id, key.view, key.phase) for key in keys_of(dataset)]
    assert found == [("frame_12", "frame_12", "", ""), ("p7_2CH_ES", "p7", "2CH", "ES")]
    frame = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(frame.image, an_image())
    np.testing.assert_array_equal(frame.label, a_label())
    assert frame.spacing_mm == pytest.approx((0.5, 0.7))
    assert dataset.describe() == ("nnunet layout (NIfTI): 2 frames of 2 cases, view 2CH, phase ES")
    assert dataset.provenance.licence == "CC0"
    assert dataset.provenance.extra["citation"] == "A. Author"


def test_png_files_have_no_spacing(tmp_path: Path) -> None:
    root = foreign(tmp_path, "x", ending=".png")
    assert only_frame(root).spacing_mm is None
    assert "spacing unknown" in open_dataset(root).describe()


def test_what_lacks_its_partner_is_a_problem(tmp_path: Path) -> None:
    root = foreign(tmp_path, "a", "b", "c")
    (root / "labelsTr" / "a.nii.gz").unlink()
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    (root / "imagesTr" / "c_0001.nii.gz").touch()
    dataset = open_dataset(root)
    assert [(problem.frame_id, problem.reason) for problem in dataset.problems()] == [
        ("a", "imagesTr/a_0000.nii.gz: no label, expected labelsTr/a.nii.gz."),
        ("b", "labelsTr/b.nii.gz: no image, expected imagesTr/b_0000.nii.gz."),
    ]
    assert dataset.notes == (
        "dataset.json: numTraining is 3, 1 frame here.",
        "imagesTr/: 1 other file; left out.",
    )
    unlabelled = open_dataset(root, need_labels=False)
    assert [key.frame_id for key in keys_of(unlabelled)] == ["a", "c"]
    assert not unlabelled.read(unlabelled.keys[0]).label.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"0": "B-mode", "1": "Doppler"}}, "2 channels (B-mode, Doppler)"),
        ({"labels": {"background": 0, "heart": [1, 2]}}, "'heart' is a region of the class ids"),
        ({"labels": {"background": 0, "LV": 1, "cavity": 1}}, "'LV' and 'cavity' are both 1"),
        ({"labels": {"background": 0, "LV": 255}}, "must lie in 0..254, found [255]"),
        ({"labels": {"background": 0, "LV": 1.5}}, "'LV' is 1.5, expected a class id."),
        ({"labels": {"0": "background"}}, "nnUNetv2_convert_old_nnUNet_dataset"),
        ({"labels": None}, "labels: expected {name: class id}, found none"),
        ({"file_ending": ".mha"}, 'file_ending is ".mha", expected one of .nii.gz, .nii, .png'),
        ({"file_ending": None}, "nnUNetv2_convert_old_nnUNet_dataset"),
        ({"file_ending": ".nii"}, "expected imagesTr/X_0000.nii, found none"),
        ({"dataset": {}}, "lists its files itself"),
    ],
)
def test_what_is_not_supported_is_refused_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in refusal(foreign(tmp_path, "x", **changes))


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    foreign(tmp_path, "x")
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    assert re.search(r"dataset.json(, line 1)?: ", refusal(tmp_path))


def test_regions_do_not_matter_where_class_ids_are_declared(tmp_path: Path) -> None:
    root = foreign(tmp_path, "x", labels={"background": 0, "heart": [1, 2]})
    assert open_dataset(root, labels={2: "wall"}).provenance.labels == {0: "background", 2: "wall"}
    run = ["expand", "--in", str(root), "--out", str(tmp_path / "a.zarr"), "--print-config"]
    done = CliRunner().invoke(app, [*run, "--set", "dataset.labels={1='LV cavity'}"])
    assert done.exit_code == 0, done.output
    assert "LV cavity" in done.output


def test_frames_with_pixels_to_be_ignored_are_refused_and_others_read(tmp_path: Path) -> None:
    root = foreign(tmp_path, "x", "y", labels={**LABELS, "ignore": 3})
    cut = a_label()
    cut[0, :2] = 3
    write(root / "labelsTr" / "y.nii.gz", cut)
    dataset = open_dataset(root)
    assert 3 not in dataset.provenance.labels
    whole, ignored = dataset.keys
    np.testing.assert_array_equal(dataset.read(whole).label, a_label())
    with pytest.raises(DatasetError, match=r"labelsTr/y.nii.gz: 2 pixels to be ignored \(class id"):
        dataset.read(ignored)


def test_splits_that_are_odd_are_told(tmp_path: Path) -> None:
    root = foreign(tmp_path, "p1_4CH_ED", "p1_4CH_ES")
    splits = root / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["p1_4CH_ED", "gone"], "val": ["p1_4CH_ES"]}]))
    notes = open_dataset(root).notes
    assert notes[0] == "splits_final.json: 1 frame listed but not found, such as gone."
    assert notes[1].startswith("splits_final.json: frames of 1 case, such as p1, are in both")
    splits.write_text(json.dumps([{"train": ["p1_4CH_ED"], "val": ["p1_4CH_ED"]}]))
    assert "p1_4CH_ED is in both halves of fold 0" in refusal(root)
    for text in ("", "{}", "[]", "[3]", '[{"train": []}]', '[{"train": 1, "val": []}]'):
        splits.write_text(text)
        dataset = open_dataset(root)
        assert "no split from it" in dataset.notes[0]
        assert {key.split for key in keys_of(dataset)} == {""}


def test_a_description_that_is_no_file_is_told(tmp_path: Path) -> None:
    root = foreign(tmp_path, "p1_4CH_ED")
    (root / "dataset.json").unlink()
    os.mkfifo(root / "dataset.json")
    assert "dataset.json: cannot be read (not a regular file" in refusal(root)


def test_the_layout_wins_over_camus_names_in_its_folders(tmp_path: Path) -> None:
    root = foreign(tmp_path / "raw" / "Dataset007_Hearts", "p1_4CH_ED")
    assert open_dataset(root).provenance.format == "nnunet"
    assert "use --format nnunet" in refusal(root, format="camus")
    assert f"did you mean {root}?" in refusal(root.parent)
    assert "dataset.json with imagesTr/" in refusal(tmp_path / "raw", format="nnunet")


@pytest.mark.parametrize("to", ["nnunet", "folder", "nifti"])
def test_exported_copies_are_no_originals(
    to: str, tmp_path: Path, dataset: Path, checkpoint: Path
) -> None:
    settings = {
        "input": str(dataset), "output": str(tmp_path / "out.zarr"), "copies": 1,
        "checkpoint": str(checkpoint), "engine": {"device": "cpu", "precision": "fp32"},
        "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
    }  # fmt: skip
    expand(make_config(settings))
    export(tmp_path / "out.zarr", to=to, output=tmp_path / "raw")
    root = next((tmp_path / "raw").glob("Dataset*")) if to == "nnunet" else tmp_path / "raw"
    keys = keys_of(open_dataset(root))
    assert sorted(key.copy for key in keys) == [0] * 4 + [1] * 4
    assert any("4 frames of 8 are painted copies already" in note for note in told(root))
    assert not any("painted copies" in note for note in told(dataset))
    assert {key.case_id for key in keys} == {"patient0001", "patient0002"}
