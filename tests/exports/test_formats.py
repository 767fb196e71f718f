import csv
import gzip
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echogen.commands.export import ExportReport, export
from echogen.datasets import open_dataset
from echogen.datasets.camus import LICENCE
from echogen.datasets.folder import list_folder
from echogen.errors import UsageError
from echogen.exports.nnunet import NnunetSettings, label_ids
from echogen.exports.selection import Selection
from echogen.store import StoreRecord, open_store
from tests.support.export_stores import LABELS, Made, Sample, cohort

GENERATED = Made(
    tuple(Sample(f"g{i}", f"g{i}", f"g{i}", "", "", copy=1) for i in range(3)), "generated"
)


def handed_on(made: Made, folder: Path, to: str, **settings: Any) -> tuple[ExportReport, Path]:
    store = made.put(folder / "store.h5")
    report = export(store, to=to, output=folder / "out", **settings)  # type: ignore[misc]
    return report, Path(report.output)


def table(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((root / "samples.csv").read_text().splitlines()))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_reader_reads_back_what_was_written(tmp_path: Path) -> None:
    _, root = handed_on(cohort(), tmp_path, "folder")
    listing = list_folder(root)
    keys = listing.keys
    assert len(keys) == 12
    assert {(key.view, key.phase) for key in keys} == {("4CH", "ED"), ("4CH", "ES")}
    with open_store(tmp_path / "store.h5") as store:
        for row, line in enumerate(table(root)):
            key = next(key for key in keys if key.frame_id == line["name"])
            frame = listing.read(key)
            np.testing.assert_array_equal(frame.image, store.images[row])
            np.testing.assert_array_equal(frame.label, store.masks[row])


def test_generated_images_make_a_folder_of_images_and_nothing_that_needs_labels(
    tmp_path: Path,
) -> None:
    _, root = handed_on(GENERATED, tmp_path, "folder")
    assert names(root / "images") == {"g0.png", "g1.png", "g2.png"}
    assert not (root / "labels").exists()
    for to in ("nnunet", "nifti"):
        with pytest.raises(UsageError, match="without labels"):
            export(tmp_path / "store.h5", to=to, output=tmp_path / to)
        assert not (tmp_path / to).exists()


def test_the_camus_reader_reads_back_what_was_written(tmp_path: Path) -> None:
    made = cohort(2, splits=("training", "testing"), attrs={"dataset": {"licence": LICENCE}})
    _, root = handed_on(made, tmp_path, "nifti")
    dataset = open_dataset(root)
    assert dataset.provenance.format == "camus"
    assert dataset.provenance.licence == LICENCE  # the terms travel with the files
    assert not dataset.problems()
    keys = dataset.keys
    lines = {line["name"]: (row, line) for row, line in enumerate(table(root))}
    assert sorted(lines) == [key.frame_id for key in keys]
    with open_store(tmp_path / "store.h5") as store:
        for key in keys:
            row, line = lines[key.frame_id]
            frame = dataset.read(key)
            np.testing.assert_array_equal(frame.image, store.images[row])
            np.testing.assert_array_equal(frame.label, store.masks[row])
            assert frame.spacing_mm == tuple(store.columns["spacing_mm"][row].astype(float))
            assert (key.view, key.phase, key.split) == (line["view"], line["phase"], line["split"])
    facts = {case.case_id: case.info for case in dataset.cases}
    assert facts["patient0002c01"]["ef"] == facts["patient0002"]["ef"] == 41


def test_frames_without_camus_names_are_written_and_told(tmp_path: Path) -> None:
    made = Made((Sample("film-1", "film-1", "film", "A4C", ""), *cohort(1).samples))
    report, root = handed_on(made, tmp_path, "nifti")
    assert names(root / "database_nifti" / "film") == {"film-1.nii.gz", "film-1_gt.nii.gz"} | {
        "Info_A4C.cfg"
    }
    assert any("1 sample without CAMUS' view and phase" in note for note in report.notes)
    assert len(open_dataset(root).keys) == 4


def test_the_table_says_where_each_sample_comes_from(tmp_path: Path) -> None:
    made = cohort(1, splits=("training",))
    _, root = handed_on(made, tmp_path, "folder")
    with open_store(tmp_path / "store.h5") as store:
        for row, line in enumerate(table(root)):
            for name in ("sample_id", "frame_id", "case_id", "split", "sha256"):
                assert line[name] == store.columns[name][row]
            assert int(line["copy"]) == store.columns["copy"][row]
            for name in ("depth", "tilt_deg", "width", "shift_x", "shift_y"):
                assert np.float32(line[name]) == store.columns[name][row]
            assert np.float32(line["spacing_mm_row"]) == store.columns["spacing_mm"][row, 0]
            assert (root / line["image"]).is_file()


@pytest.mark.parametrize("to", ["folder", "nifti", "nnunet"])
def test_the_terms_go_with_the_files(tmp_path: Path, to: str) -> None:
    _, root = handed_on(cohort(2), tmp_path, to)
    text = (root / "README.md").read_text()
    assert "dataset `hearts`: Own terms" in text
    assert "model `camus-256-small`: CC BY-NC" in text
    assert "10.1109/TMI.2019.2900516" in text  # the model's citation
    assert "2502.20100" in text


@pytest.mark.parametrize("to", ["nifti", "folder", "nnunet"])
def test_recordings_of_one_case_are_told_apart_again(tmp_path: Path, to: str) -> None:
    samples = tuple(
        Sample(f"{case}-{number}{phase}{copy}", f"{case}-v1-{number}_4CH_{phase}", case,
               phase=phase, copy=copy)
        for case in ("p1", "p2") for number in ("01", "02") for phase in ("ED", "ES")
        for copy in (0, 1)
    )  # fmt: skip
    dataset = open_dataset(handed_on(Made(samples), tmp_path, to)[1])
    assert len(dataset.keys) == len(samples)
    assert {key.case_id for key in dataset.keys} == {"p1", "p2"}
    assert {key.recording_id for key in dataset.keys} == {
        f"{case}-v1-{number}/4CH" for case in ("p1", "p2") for number in ("01", "02")
    }
    assert {"p1", "p2"} <= {case.case_id for case in dataset.cases}


def test_unknown_spacing_is_told_written_as_one_millimetre_and_unknown_again(
    tmp_path: Path,
) -> None:
    nan = (float("nan"), float("nan"))
    made = Made((Sample("a", "p1_4CH_ED", "p1", spacing_mm=nan), *cohort(1).samples))
    report, root = handed_on(made, tmp_path, "nifti")
    assert any("1 sample of unknown spacing" in note for note in report.notes)
    dataset = open_dataset(root)
    keys = dataset.keys
    spacing = {key.case_id: dataset.read(key).spacing_mm for key in keys}
    assert spacing["p1"] is None
    assert spacing["patient0001"] is not None
    assert "spacing unknown" not in dataset.describe()
    header = gzip.decompress((root / table(root)[0]["image"]).read_bytes())
    assert struct.unpack_from("<2f", header, 80) == (1.0, 1.0)  # ITK would read NaN as 1, too
    assert table(root)[0]["spacing_mm_row"] == ""


def splits_of(root: Path) -> list[dict[str, list[str]]]:
    return list(json.loads((root / "splits_final.json").read_text()))


def test_folds_keep_cases_apart_and_validate_on_originals(tmp_path: Path) -> None:
    report, root = handed_on(cohort(7, copies=2), tmp_path, "nnunet")
    case = {line["name"]: line["case_id"] for line in table(root)}
    copy = {line["name"]: int(line["copy"]) for line in table(root)}
    folds = splits_of(root)
    assert report.folds == len(folds) == 5
    for fold in folds:
        assert not {case[name] for name in fold["train"]} & {case[name] for name in fold["val"]}
        assert all(copy[name] == 0 for name in fold["val"])
        assert {copy[name] for name in fold["train"]} == {0, 1, 2}
        validated = {case[name] for name in fold["val"]}
        assert len(fold["train"]) == sum(c not in validated for c in case.values())
    validated = [name for fold in folds for name in fold["val"]]
    assert sorted(validated) == sorted(name for name in case if copy[name] == 0)
    assert max(len(f["val"]) for f in folds) - min(len(f["val"]) for f in folds) <= 2
    told = {line["name"]: line["validated_in_fold"] for line in table(root)}
    for number, fold in enumerate(folds):
        assert all(told[name] == str(number) for name in fold["val"])


def test_folds_follow_the_seed_and_the_number_asked_for(tmp_path: Path) -> None:
    store = cohort(6).put(tmp_path / "store.h5")
    found = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(found)}"
        export(store, to="nnunet", output=out, folds=3, seed=seed)
        found.append(splits_of(out / "Dataset501_Echogen"))
    assert len(found[0]) == 3
    assert found[0] == found[1] != found[2]
    with pytest.raises(UsageError, match="only 6 cases"):
        export(store, to="nnunet", output=tmp_path, folds=7)


def test_the_datasets_own_lists_decide_where_there_are_some(tmp_path: Path) -> None:
    made = cohort(6, splits=("training", "validation", "testing"))
    report, root = handed_on(made, tmp_path, "nnunet")
    assert names(root / "imagesTs") == {
        f"patient{n:04d}_4CH_{phase}_0000.nii.gz" for n in (3, 6) for phase in ("ED", "ES")
    }
    assert names(root / "labelsTs") == {
        name.replace("_0000", "") for name in names(root / "imagesTs")
    }
    (fold,) = splits_of(root)
    assert {name[:11] for name in fold["val"]} == {"patient0002", "patient0005"}
    assert {name[:11] for name in fold["train"]} == {"patient0001", "patient0004"}
    assert not any("c01" in name for name in fold["val"])
    assert json.loads((root / "dataset.json").read_text())["numTraining"] == 12
    assert "4 samples left out: copies of validation cases." in report.notes
    assert "4 samples left out: copies of test cases." in report.notes


def test_asked_for_folds_take_the_validation_cases_in_and_never_the_test_cases(
    tmp_path: Path,
) -> None:
    made = cohort(6, splits=("training", "validation", "testing"))
    report, root = handed_on(made, tmp_path, "nnunet", nnunet=NnunetSettings(folds=4))
    assert report.folds == 4
    used = {name[:11] for fold in splits_of(root) for half in fold.values() for name in half}
    assert used == {f"patient{n:04d}" for n in (1, 2, 4, 5)}


def test_few_cases_make_few_folds_and_one_makes_none(tmp_path: Path) -> None:
    two, root = handed_on(cohort(2), tmp_path, "nnunet")
    assert two.folds == len(splits_of(root)) == 2
    (tmp_path / "one").mkdir()
    one, root = handed_on(cohort(1), tmp_path / "one", "nnunet")
    assert one.folds == 0
    assert any("no folds" in note for note in one.notes)
    assert not (root / "splits_final.json").exists()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(copies="copies"), "validate on originals"),
        (Selection(split="testing"), "only frames of the test split"),
    ],
)
def test_what_nnunet_could_not_train_on_is_refused(
    tmp_path: Path, selection: Selection, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        handed_on(
            cohort(4, splits=("training", "testing")), tmp_path, "nnunet", selection=selection
        )


def test_class_ids_have_no_gaps_and_ignore_is_the_highest(tmp_path: Path) -> None:
    made = cohort(
        2,
        labels={0: "black", 2: "ignore", 7: "wall"},
        classes=(0, 2, 7, 255),
        attrs={"config": {"transforms": {"labels_on_paint": "ignore"}}},
    )
    report, root = handed_on(made, tmp_path, "nnunet")
    assert not report.failed
    assert json.loads((root / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "ignore (class 2)": 1,
        "wall": 2,
        "ignore": 3,
    }
    import SimpleITK

    with open_store(tmp_path / "store.h5") as store:
        for row, line in enumerate(table(root)):
            here = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(root / line["label"])))
            expected = np.select([store.masks[row] == id for id in (2, 7, 255)], [1, 2, 3], 0)
            np.testing.assert_array_equal(here, expected)


def test_without_ignored_pixels_nnunet_is_told_of_none() -> None:
    assert label_ids(StoreRecord(labels=LABELS)) == (
        {"background": 0, "LV cavity": 1, "myocardium": 2, "left atrium": 3},
        {0: 0, 1: 1, 2: 2, 3: 3},
    )


def test_a_mask_with_a_class_that_the_store_does_not_name_is_left_out(tmp_path: Path) -> None:
    report, root = handed_on(cohort(2, classes=(0, 9)), tmp_path, "nnunet")
    assert len(report.failed) == 8
    assert "class ids that the store does not name: [9]" in report.failed[0].reason
    assert report.exit_code == 1
    assert json.loads((root / "dataset.json").read_text())["numTraining"] == 0


def test_a_number_that_another_dataset_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "Dataset501_Hearts").mkdir(parents=True)
    with pytest.raises(UsageError, match="Dataset501_Hearts already uses it"):
        handed_on(cohort(2), tmp_path, "nnunet")
    store = tmp_path / "store.h5"
    other = NnunetSettings(dataset_id=7, name="New")
    report = export(store, to="nnunet", output=tmp_path / "out", nnunet=other)
    assert names(tmp_path / "out") == {"Dataset501_Hearts", "Dataset007_New"}
    assert report.output.endswith("Dataset007_New")


@pytest.mark.parametrize("wrong", [{"dataset_id": 0}, {"dataset_id": 1000}, {"name": "../up"},
                                   {"name": ""}, {"folds": 1}])  # fmt: skip
def test_what_nnunet_is_told_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        NnunetSettings(**wrong)


def nnunet_python() -> str:
    """An interpreter that has nnU-Net, which is not in the developers' environment."""
    given = os.environ.get("ECHOGEN_NNUNET_PYTHON", "")
    if given:
        return given
    import importlib.util

    if importlib.util.find_spec("nnunetv2") is None:
        pytest.skip("nnU-Net is not here: ECHOGEN_NNUNET_PYTHON names no interpreter that has it")
    return sys.executable


def test_nnunet_itself_finds_the_dataset_in_order(tmp_path: Path) -> None:
    made = cohort(
        4,
        splits=("training", "training", "training", "testing"),
        classes=(0, 1, 2, 3, 255),
        attrs={"config": {"transforms": {"labels_on_paint": "ignore"}}},
    )
    _, root = handed_on(made, tmp_path, "nnunet")
    program = (
        "import sys\n"
        "from nnunetv2.experiment_planning.verify_dataset_integrity import (\n"
        "    verify_dataset_integrity as verify)\n"
        "from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO\n"
        "if __name__ == '__main__':\n"
        "    verify(sys.argv[1], 1)\n"
        "    _, known = SimpleITKIO().read_images([sys.argv[2]])\n"
        "    print('spacing', *map(float, known['spacing'][1:]))\n"
    )
    script = tmp_path / "verify.py"
    script.write_text(program)
    line = table(root)[1]
    done = subprocess.run(
        [nnunet_python(), str(script), str(root), str(root / line["image"])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            "nnUNet_raw": str(root.parent),
            "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
            "nnUNet_results": str(tmp_path / "results"),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Error" not in done.stdout
    _, row, col = done.stdout.splitlines()[-1].split()
    assert (np.float32(row), np.float32(col)) == (np.float32(0.625), np.float32(0.7))
