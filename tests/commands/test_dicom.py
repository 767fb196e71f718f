"""DICOM ultrasound through the commands: used like any dataset, and nobody is named on the way."""

import json
import stat
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.expand import expand
from echogen.commands.preview import preview
from echogen.commands.stats import stats
from echogen.commands.validate import validate
from echogen.datasets import open_dataset
from echogen.errors import DatasetError, UsageError
from echogen.store import open_store
from tests.support.dicoms import ROOT, a_region, an_ultrasound, save
from tests.support.hearts import SHAPE, fan_frame, make_config

SECRETS = ("Smith", "Jane", "4711", "4712", ROOT)
HEARTS = [fan_frame(seed, 88.0 - seed) for seed in range(3)]


def a_hospital(root: Path, labelled: bool = True) -> Path:
    """Two patients, a loop of three pictures each, in folders and files that bear their names."""
    images, labels = (np.stack(arrays) for arrays in zip(*HEARTS, strict=True))
    for patient in ("4711", "4712"):
        shown = images if patient == "4711" else np.where(images > 4, images - 4, 0).astype("u1")
        region = a_region((0, 0, SHAPE[0] - 1, SHAPE[1] - 1))
        path = root / f"Smith_{patient}" / "Jane.dcm"
        save(an_ultrasound(shown, instance=f"1.{patient}", patient=patient, regions=[region]), path)
        if labelled:
            name = path.with_name("Jane_gt.nii.gz")
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(name))
    return root


def settings(root: Path, checkpoint: Path, out: Path) -> dict[str, object]:
    return {
        "input": str(root),
        "output": str(out),
        "copies": 1,
        "checkpoint": str(checkpoint),
        "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1},
    }


def assert_nameless(*texts: object) -> None:
    for text in texts:
        assert not [secret for secret in SECRETS if secret in str(text)]


def test_a_store_of_dicom_names_nobody_and_can_be_checked(tmp_path: Path, checkpoint: Path) -> None:
    root, out = a_hospital(tmp_path / "Smith_family"), tmp_path / "x.zarr"
    torn = root / "Smith_4711" / "Jane_torn.dcm"
    save(an_ultrasound(np.stack([HEARTS[0][0]]), instance="1.9", patient="4711"), torn)
    sitk.WriteImage(sitk.GetImageFromArray(HEARTS[0][1]), str(torn.with_suffix(".png")))
    torn.write_bytes(torn.read_bytes()[:-3000])
    report = expand(make_config(settings(root, checkpoint, out)))
    assert (report.counts.originals, report.counts.copies) == (6, 6)
    assert len(report.skipped) == 1
    with open_store(out) as store:
        assert store.record.dataset.format == "dicom"
        assert np.isfinite(store.columns["spacing_mm"]).all()
        assert len(set(store.columns["case_id"])) == 2
        assert store.cases[0]["frame_rate"] == 50.0
        assert_nameless(asdict(report) | {"output": ""}, store.cases, store.problems)
        assert_nameless(*(store.columns[name].tolist() for name in ("sample_id", "frame_id")))
    attributes = json.dumps(dict(zarr.open_group(out, mode="r").attrs))
    assert_nameless(attributes)
    for file in out.rglob("*"):
        if file.is_file():
            assert not [name for name in SECRETS if name.encode() in file.read_bytes()]
    checked = validate(out, source=root)
    assert not [one for one in checked.findings if one.severity.value == "error"]


def test_a_salted_store_is_compared_with_its_source_by_the_same_salt(
    tmp_path: Path, checkpoint: Path
) -> None:
    root, out = a_hospital(tmp_path / "in"), tmp_path / "x.zarr"
    salt = tmp_path / "salt.txt"
    salt.write_text("nobody knows this one")
    expand(make_config(settings(root, checkpoint, out), dataset={"case_salt": str(salt)}))
    assert "salt" not in json.dumps(dict(zarr.open_group(out, mode="r").attrs))
    assert validate(out, source=root, case_salt=salt).exit_code == 0
    wrong = validate(out, source=root)
    assert "source" in {one.check for one in wrong.findings if one.severity.value == "error"}


def test_the_table_is_for_its_owner_alone(tmp_path: Path) -> None:
    root, file = a_hospital(tmp_path / "in"), tmp_path / "who.csv"
    ran = CliRunner().invoke(app, ["validate", str(root), "--case-map", str(file), "--json"])
    assert ran.exit_code == 0, ran.output
    assert_nameless(json.dumps(json.loads(ran.stdout) | {"path": ""}))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert lines[0] == "case,recording,patient_id,patient_name,file"
    cases = {key.case_id for key in open_dataset(root).keys}
    assert {line.split(",")[0] for line in lines[1:]} == cases
    assert "4711,Smith^Jane,Smith_4711/Jane.dcm" in file.read_text()
    validate(root, case_map=file)  # it may be replaced


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("x.zarr/who.csv", "lies in the output"),
        ("model/sub/who.csv", "lies in the output"),
        ("mine.csv", "is not such a table"),
        ("who.txt", "expected a .csv file"),
        ("nowhere/who.csv", "does not exist"),
        ("in/who.csv", "must not be inside"),
    ],
)
def test_the_table_is_refused_where_it_would_be_passed_on_or_lose_something(
    place: str, reason: str, tmp_path: Path
) -> None:
    root = a_hospital(tmp_path / "in")
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "echogen.json").touch()
    (tmp_path / "mine.csv").write_text("something,else\n")
    with pytest.raises(UsageError, match=reason):
        validate(root, case_map=tmp_path / place)
    with pytest.raises(UsageError, match="is not a folder of DICOM files"):
        validate("sample_data/camus", case_map=tmp_path / "who.csv")


def test_unlabelled_files_can_be_validated_measured_and_looked_at(tmp_path: Path) -> None:
    root = a_hospital(tmp_path / "in", labelled=False)
    report = validate(root)
    assert report.exit_code == 0
    assert report.dataset is not None
    assert (report.dataset.usable, report.dataset.spacing_known) == (6, 6)
    assert "labels" not in {one.check for one in report.findings}
    assert any("expand cannot" in one.message for one in report.findings)
    assert stats(root).samples == {"originals": 6}
    assert preview(root, out=tmp_path / "sheet.png").of == 6
    said = CliRunner().invoke(app, ["validate", str(root), "--limit", "3"]).stdout
    assert f"echogen train --in {root}: no frame has a label" in said
    assert "echogen expand" not in said
    with pytest.raises(DatasetError, match="no image has a label"):
        expand(input=root, output=tmp_path / "x.zarr")


def test_what_is_not_believed_in_a_header_is_said_once_a_file(tmp_path: Path) -> None:
    images = np.stack([image for image, _ in HEARTS])
    region = a_region((0, 0, 480, 640))
    save(an_ultrasound(images, regions=[region]), tmp_path / "x.dcm")
    found = [one for one in validate(tmp_path).findings if one.check == "header"]
    assert len(found) == 1
    assert found[0].message.startswith("its tissue region reaches to row 480 and column 640")
