"""Folders of DICOM ultrasound: what is found, what labels it, and that nobody is named."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset as Elements

from echogen.datasets import Dataset, open_dataset, open_frames
from echogen.datasets.base import DatasetConfig
from echogen.datasets.detect import READERS
from echogen.datasets.dicom import who_is_who
from echogen.errors import DatasetError, UsageError
from tests.support.dicoms import ROOT, a_region, a_segmentation, an_ultrasound, save
from tests.support.hearts import SHAPE, fan_frame

HEARTS = [fan_frame(seed, 88.0 - seed) for seed in range(5)]
CLIP, LABELS = (np.stack(arrays) for arrays in zip(*HEARTS, strict=True))
REGION = a_region((0, 0, SHAPE[0] - 1, SHAPE[1] - 1))
OWN = Path(pydicom.__file__).parent / "data" / "test_files"


def write_label(path: Path, label: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(label.astype(np.uint8)), str(path))
    return path


def a_still(**more: object) -> Elements:
    return an_ultrasound(CLIP[:1], regions=[REGION], **more)  # type: ignore[arg-type]


def a_clip(**more: object) -> Elements:
    return an_ultrasound(CLIP, regions=[REGION], **more)  # type: ignore[arg-type]


def reasons(dataset: Dataset) -> list[str]:
    return [problem.reason for problem in dataset.problems()]


def refusal(dataset: Dataset, number: int = 0) -> str:
    with pytest.raises(DatasetError) as caught:
        dataset.read(dataset.keys[number])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What lies in a folder


def test_files_are_found_at_any_depth_under_any_name(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("a/b/c/IM1.DCM", "IM2", "x/1.2.840.99", "x/IM4.ima", "y.dicom", "y/00001.002")
    ):
        path = save(a_still(instance=f"1.{number + 1}"), tmp_path / name)
        write_label(path.with_name(f"{path.stem if 'IM' in name or 'y.' in name else path.name}"
                                   "_gt.png"), LABELS[0])  # fmt: skip
    save(a_still(instance="1.8"), tmp_path / "bare.dcm", preamble=False)
    write_label(tmp_path / "bare.png", LABELS[0])
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / ".hidden.dcm").write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert (len(dataset.keys), dataset.unusable) == (7, ())
    assert dataset.describe() == "dicom layout (ultrasound): 7 frames of 1 case"
    for key in dataset.keys:
        frame = dataset.read(key)
        assert (frame.label == LABELS[0]).all()
        assert (frame.image == CLIP[0]).all()
        assert frame.spacing_mm == (1.0, 0.9)


def test_other_modalities_are_left_out_with_a_note(tmp_path: Path) -> None:
    for name in ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "dicomdirtests/DICOMDIR-empty.dcm"):
        shutil.copy(OWN / name, tmp_path)
    save(a_still(), tmp_path / "us.dcm")
    write_label(tmp_path / "us.png", LABELS[0])
    dataset = open_dataset(tmp_path)
    assert len(dataset.keys) == 1
    assert dataset.notes[0] == "3 files without an ultrasound picture left out (CT 1, MR 1, SR 1)."
    assert dataset.unusable == ()


def test_the_same_file_under_two_names_is_one_frame(tmp_path: Path) -> None:
    one = save(a_still(), tmp_path / "one.dcm")
    shutil.copy(one, tmp_path / "two.dcm")
    write_label(tmp_path / "two.png", LABELS[0])
    dataset = open_dataset(tmp_path)
    assert len(dataset.keys) == 1
    assert "1 file left out, copies of others under another name." in dataset.notes
    other = an_ultrasound(CLIP[1:2], regions=[REGION])  # another picture with the same id
    save(other, tmp_path / "three.dcm")
    write_label(tmp_path / "three.png", LABELS[1])
    both = open_dataset(tmp_path)
    assert len({key.frame_id for key in both.keys}) == 2
    assert len({key.recording_id for key in both.keys}) == 2


def test_listing_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(a_still(), tmp_path / "x.dcm")
    write_label(tmp_path / "x.png", LABELS[0])
    path.write_bytes(path.read_bytes()[:-5000])
    dataset = open_dataset(tmp_path)
    assert len(dataset.keys) == 1
    assert "truncated, damaged" in refusal(dataset)


def test_a_damaged_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    save(a_still(), tmp_path / "x.dcm")
    write_label(tmp_path / "x.png", LABELS[0])
    (tmp_path / "junk.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    whole = save(a_still(instance="1.2"), tmp_path / "cut.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:300])
    dataset = open_dataset(tmp_path)
    assert len(dataset.keys) == 1
    assert len(reasons(dataset)) == 2
    assert all("damaged" in reason for reason in reasons(dataset))


def test_files_cut_before_they_begin_are_told(tmp_path: Path) -> None:
    whole = save(a_still(), tmp_path / "x.dcm").read_bytes()
    for name, content in (
        ("empty.dcm", b""),
        ("empty too.DCM", b""),
        ("zeros.ima", bytes(9000)),
        ("cut.dicom", whole[:100]),
    ):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes").write_bytes(b"")
    dataset = open_dataset(tmp_path, need_labels=False)
    assert len(dataset.keys) == 1
    assert ["damaged_" in one and "not a DICOM file" in one for one in reasons(dataset)] == 4 * [
        True
    ]
    assert not any(name in one for one in reasons(dataset) for name in ("empty", "zeros", "cut.d"))


def test_pydicom_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(a_still(), tmp_path / "x.dcm")
    monkeypatch.setattr("echogen.datasets.base.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"pip install 'echogen\[dicom\]'"):
        open_dataset(tmp_path)


def test_what_a_case_is_known_for(tmp_path: Path) -> None:
    save(a_clip(HeartRate=72), tmp_path / "x.dcm")
    save(a_clip(instance="1.2", FrameTime=25.0), tmp_path / "y.dcm")
    vector = a_clip(instance="2.1", patient="9", FrameTimeVector=[0, 20, 30, 20, 30])
    del vector.FrameTime
    save(vector, tmp_path / "z.dcm")
    rate = a_clip(instance="3.1", patient="8", CineRate=30)
    del rate.FrameTime
    code = Elements()
    code.CodeValue, code.CodingSchemeDesignator = "399214001", "SCT"
    rate.ViewCodeSequence = [code]
    save(rate, tmp_path / "w.dcm")
    dataset = open_dataset(tmp_path, need_labels=False)
    known = {case.case_id: case.info for case in dataset.cases}
    infos = sorted(known.values(), key=lambda info: str(sorted(info)))
    rates = sorted(value for info in infos for key, value in info.items() if "frame_rate" in key)
    assert rates == [30.0, 40.0, 40.0, 50.0]
    assert sum("heart_rate" in info for info in infos) == 1
    assert all(info["scanner"] == "Acme" for info in infos)
    assert {key.view for key in dataset.keys} == {"", "4CH"}
    two = next(info for info in infos if len(info) == 4)
    assert sorted(key.rsplit("_", 1)[0] for key in two if "frame" in key) == ["frame_rate"] * 2


# Labels


def test_a_volume_beside_a_clip_labels_the_slices_that_are_not_empty(tmp_path: Path) -> None:
    save(a_clip(), tmp_path / "x.dcm")
    labels = LABELS.copy()
    labels[[0, 2, 3]] = 0
    write_label(tmp_path / "x_gt.nii.gz", labels)
    dataset = open_dataset(tmp_path)
    assert [key.index for key in dataset.keys] == [1, 4]
    assert dataset.keys[1].frame_id.endswith("_f004")
    assert {key.sequence for key in dataset.keys} == {""}
    for key in dataset.keys:
        frame = dataset.read(key)
        assert (frame.image == CLIP[key.index]).all()
        assert (frame.label == LABELS[key.index]).all()
    clip = dataset.read_clip(dataset.root, dataset.keys[0])  # type: ignore[misc]
    assert (clip == CLIP).all()
    together = open_dataset(tmp_path, frames="all")
    assert len({key.sequence for key in together.keys}) == 1
    assert together.keys[0].sequence == together.keys[0].recording_id


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("x_gt.nii.gz", LABELS[:3], "3 slices, but it holds 5 pictures"),
        ("x.png", LABELS[0], "1 slices, but it holds 5 pictures; expected (x, y, picture)"),
        ("x_gt.nii.gz", np.zeros_like(LABELS), "its label is all background"),
    ],
)
def test_labels_that_do_not_go_with_a_clip_are_refused(
    name: str, label: np.ndarray, expected: str, tmp_path: Path
) -> None:
    save(a_clip(), tmp_path / "x.dcm")
    save(a_still(instance="1.2"), tmp_path / "y.dcm")
    write_label(tmp_path / "y.png", LABELS[0])
    write_label(tmp_path / name, label)
    assert [expected in reason for reason in reasons(open_dataset(tmp_path))] == [True]


def test_labels_that_do_not_go_with_a_picture_are_refused(tmp_path: Path) -> None:
    for number, label in enumerate((LABELS[0][:-1], LABELS[0] * 9, np.zeros_like(LABELS[0]))):
        save(a_still(instance=f"1.{number}"), tmp_path / f"{number}.dcm")
        write_label(tmp_path / f"{number}.png", label)
    save(a_still(instance="1.9"), tmp_path / "torn.dcm")
    write_label(tmp_path / "torn.png", LABELS[0])
    dataset = open_dataset(tmp_path)
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:200])
    said = sorted(refusal(dataset, number) for number in range(4))
    for part in ("119 x 110", "class ids 9, 18, 27", "all background", "truncated PNG"):
        assert sum(part in one for one in said) == 1
    assert not any(".png" in one or ".dcm" in one for one in said)


def test_two_labels_of_one_file_are_refused(tmp_path: Path) -> None:
    save(a_still(), tmp_path / "x.dcm")
    write_label(tmp_path / "x.png", LABELS[0])
    write_label(tmp_path / "x_gt.nii.gz", LABELS[0])
    with pytest.raises(DatasetError, match="2 label files beside it and 0 DICOM SEG; keep one"):
        open_dataset(tmp_path)


def test_files_without_labels_are_left_out_of_those_with_some(tmp_path: Path) -> None:
    save(a_still(), tmp_path / "x.dcm")
    write_label(tmp_path / "x.png", LABELS[0])
    save(a_still(instance="1.2"), tmp_path / "y.dcm")
    assert "1 ultrasound file without a label left out." in open_dataset(tmp_path).notes


def test_without_labels_a_clip_gives_a_few_frames(tmp_path: Path) -> None:
    save(an_ultrasound(np.repeat(CLIP, 4, axis=0), regions=[REGION]), tmp_path / "x.dcm")
    save(a_still(instance="1.2"), tmp_path / "y.dcm")
    with pytest.raises(DatasetError, match="no image has a label; 2 ultrasound files without"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, need_labels=False)
    assert sorted(key.index for key in dataset.keys if key.index is not None) == [
        0, 2, 5, 7, 10, 12, 15, 17,
    ]  # fmt: skip
    frame = dataset.read(dataset.keys[0])
    assert not frame.label.any()
    chosen, keys = open_frames(tmp_path, DatasetConfig(), need_labels=False)
    assert len(keys) == 9
    assert "expand cannot" in chosen.notes[-1]
    assert len(open_dataset(tmp_path, need_labels=False, frames="all").keys) == 21


def test_a_table_tells_phases_and_splits_of_files_and_of_their_pictures(tmp_path: Path) -> None:
    save(a_clip(), tmp_path / "Smith" / "x.dcm")
    write_label(tmp_path / "Smith" / "x_gt.nii.gz", LABELS)
    save(a_still(instance="1.2"), tmp_path / "y.dcm")
    write_label(tmp_path / "y.png", LABELS[0])
    (tmp_path / "cases.csv").write_text(
        "frame,case,view,phase,split\nSmith/x.dcm,c7,4CH,,val\nSmith/x_f001,,,ED,\n"
        "x_f003,,,ES,\nSmith/z.dcm,,,ED,\n"
    )
    dataset = open_dataset(tmp_path)
    of_clip = {key.index: key for key in dataset.keys if key.index is not None}
    assert {key.phase for key in of_clip.values()} == {"", "ED", "ES"}
    assert (of_clip[1].phase, of_clip[3].phase, of_clip[0].phase) == ("ED", "ES", "")
    assert {(key.case_id, key.view, key.split) for key in of_clip.values()} == {
        ("c7", "4CH", "val")
    }
    assert dataset.notes[:2] == (
        "cases.csv: does not list 1 frame; by name instead.",
        "cases.csv: 1 line without a frame here, such as line 5.",
    )
    known = {case.case_id: case.info for case in dataset.cases}
    assert known["c7"]["frame_rate"] == 50.0
    still = next(key for key in dataset.keys if key.index is None)
    (tmp_path / "cases.csv").write_text(f"frame,phase,spacing_mm\n{still.frame_id},ED,0.5\n")
    again = open_dataset(tmp_path)
    assert [again.read(key).spacing_mm for key in again.keys if key.phase == "ED"] == [(0.5, 0.5)]


# Segmentations


def masks_of(label: np.ndarray) -> list[np.ndarray]:
    return [label == number for number in (1, 2, 3)]


def test_a_segmentation_labels_the_picture_that_it_names(tmp_path: Path) -> None:
    save(a_clip(), tmp_path / "a" / "x.dcm")
    masks = [*masks_of(LABELS[1]), *masks_of(LABELS[3])]
    of = [(number, "1.1", picture) for picture in (2, 4) for number in (1, 2, 3)]
    save(a_segmentation(masks, of), tmp_path / "b" / "anything.dcm")
    dataset = open_dataset(tmp_path)
    assert dataset.provenance.labels == {
        0: "background", 1: "LV cavity", 2: "myocardium", 3: "left atrium",
    }  # fmt: skip
    assert [key.index for key in dataset.keys] == [1, 3]
    for key in dataset.keys:
        assert (dataset.read(key).label == LABELS[key.index]).all()


def test_fractions_and_label_maps_are_read(tmp_path: Path) -> None:
    save(a_still(), tmp_path / "x.dcm")
    shares = [np.where(mask, 180, 40).astype(np.uint8) for mask in masks_of(LABELS[0])]
    of = [(number, "1.1", None) for number in (1, 2, 3)]
    save(a_segmentation(shares, of, kind="FRACTIONAL"), tmp_path / "seg.dcm")
    dataset = open_dataset(tmp_path)
    assert (dataset.read(dataset.keys[0]).label == LABELS[0]).all()
    save(a_segmentation([LABELS[0]], [(0, "1.1", 1)], kind="LABELMAP"), tmp_path / "seg.dcm")
    again = open_dataset(tmp_path)
    assert (again.read(again.keys[0]).label == LABELS[0]).all()


def test_planes_that_begin_within_a_byte_are_read(tmp_path: Path) -> None:
    image, label = CLIP[0, 1:, 1:], LABELS[0, 1:, 1:]
    assert image.size % 8
    save(an_ultrasound(image[None], regions=[a_region((0, 0, 118, 108))]), tmp_path / "x.dcm")
    of = [(number, "1.1", 1) for number in (1, 2, 3)]
    save(a_segmentation(masks_of(label), of), tmp_path / "seg.dcm")
    dataset = open_dataset(tmp_path)
    assert (dataset.read(dataset.keys[0]).label == label).all()


def test_segments_are_told_apart_by_name_across_files(tmp_path: Path) -> None:
    save(a_still(), tmp_path / "x.dcm")
    save(a_still(instance="1.2"), tmp_path / "y.dcm")
    of = [(number, "1.1", 1) for number in (1, 2, 3)]
    save(a_segmentation(masks_of(LABELS[0]), of), tmp_path / "s1.dcm")
    turned = masks_of(LABELS[0])[::-1]
    of = [(number, "1.2", 1) for number in (1, 2, 3)]
    names = ("Left atrium", "myocardium", "LV_cavity")
    save(a_segmentation(turned, of, names), tmp_path / "s2.dcm")
    dataset = open_dataset(tmp_path)
    ids = {name.lower(): label for label, name in dataset.provenance.labels.items()}
    assert set(ids) == {"background", "left atrium", "lv cavity", "myocardium"}
    first, second = (dataset.read(key).label for key in dataset.keys)
    assert (first == second).all()
    assert (first == ids["left atrium"]).sum() == (LABELS[0] == 3).sum()
    declared = open_dataset(tmp_path, labels={5: "lv cavity", 6: "Myocardium", 7: "left atrium"})
    assert sorted(np.unique(declared.read(declared.keys[0]).label)) == [0, 5, 6, 7]


def test_segmentations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(a_clip(), tmp_path / "x.dcm")
    of = [(number, "1.1", None) for number in (1, 2, 3)]
    save(a_segmentation(masks_of(LABELS[0]), of), tmp_path / "s.dcm")
    with pytest.raises(DatasetError, match="does not say which of them it labels"):
        open_dataset(tmp_path)
    of = [(number, "1.1", 9) for number in (1, 2, 3)]
    save(a_segmentation(masks_of(LABELS[0]), of), tmp_path / "s.dcm")
    with pytest.raises(DatasetError, match="labels picture 9, but it holds 5"):
        open_dataset(tmp_path)
    of = [(number, "1.1", 1) for number in (1, 2, 3)]
    save(a_segmentation(masks_of(LABELS[0]), of), tmp_path / "s.dcm")
    with pytest.raises(DatasetError, match="segment called 'left atrium', which is not a class"):
        open_dataset(tmp_path, labels={1: "LV cavity", 2: "myocardium"})
    save(a_segmentation(masks_of(LABELS[0]), [*of[:2], (9, "1.1", 1)]), tmp_path / "s.dcm")
    assert "of a segment that it does not describe" in refusal(open_dataset(tmp_path))
    whole = [LABELS[0] > 0, LABELS[0] == 2, LABELS[0] == 3]
    save(a_segmentation(whole, of), tmp_path / "s.dcm")
    assert "segments 1 and 2 and 3 of its segmentation overlap" in refusal(open_dataset(tmp_path))
    save(a_segmentation([mask[:-2] for mask in masks_of(LABELS[0])], of), tmp_path / "s.dcm")
    assert "label of 118 x 110 pixels" in refusal(open_dataset(tmp_path))


# Who it is


def a_hospital(root: Path) -> Path:
    for patient, number in (("4711", 1), ("4711", 2), ("4712", 3)):
        folder = root / f"Smith_{patient}"
        save(a_clip(instance=f"1.{number}", patient=patient), folder / f"Jane_{number}.dcm")
        write_label(folder / f"Jane_{number}_gt.nii.gz", LABELS)
    return root


def test_cases_are_pseudonyms_that_stay_the_same_wherever_the_files_lie(tmp_path: Path) -> None:
    root = a_hospital(tmp_path / "a")
    dataset = open_dataset(root)
    assert len({key.case_id for key in dataset.keys}) == 2
    assert len({key.recording_id for key in dataset.keys}) == 3
    moved = tmp_path / "b"
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        save(pydicom.dcmread(path), moved / f"{9 - number}.dcm")
        shutil.copy(path.with_name(f"{path.stem}_gt.nii.gz"), moved / f"{9 - number}_gt.nii.gz")
    assert [key.frame_id for key in open_dataset(moved).keys] == [
        key.frame_id for key in dataset.keys
    ]
    (root / "Smith_4711" / "Jane_2.dcm").unlink()
    (root / "Smith_4711" / "Jane_2_gt.nii.gz").unlink()
    fewer = {key.frame_id for key in open_dataset(root).keys}
    assert fewer < {key.frame_id for key in dataset.keys}


def test_a_salt_makes_ids_of_patients_that_only_its_owner_can_make(tmp_path: Path) -> None:
    root = a_hospital(tmp_path / "a")
    other = tmp_path / "b"
    later = a_clip(instance="1.9", patient="4711")
    later.StudyInstanceUID = ROOT + "1"
    save(later, other / "x.dcm")
    write_label(other / "x_gt.nii.gz", LABELS)

    def cases(folder: Path, salt: Path | None = None) -> set[str]:
        return {
            key.case_id for key in open_dataset(folder, settings=DatasetConfig(case_salt=salt)).keys
        }

    assert not cases(root) & cases(other)
    salts = [tmp_path / "salt1", tmp_path / "salt2"]
    for salt in salts:
        salt.write_text(f"a long secret, {salt.name}\n")
    assert len(cases(root, salts[0]) & cases(other, salts[0])) == 1
    assert not cases(root, salts[0]) & cases(root, salts[1])
    assert not cases(root, salts[0]) & cases(root)
    salts[0].write_text("short")
    with pytest.raises(UsageError, match=r"holds 5 bytes, expected at least 16"):
        cases(root, salts[0])
    with pytest.raises(UsageError, match=r"dataset.case_salt: for files of the layouts dicom"):
        open_dataset("sample_data/camus", settings=DatasetConfig(case_salt=salts[1]))


def test_case_ids_that_another_study_would_change_are_told(tmp_path: Path) -> None:
    def notes(salt: Path | None = None) -> str:
        settings = DatasetConfig(case_salt=salt)
        return "\n".join(open_dataset(root, need_labels=False, settings=settings).notes)

    root = tmp_path / "files"
    for number in (1, 2):
        later = a_still(instance=f"1.{number}", StudyInstanceUID=f"{ROOT}7.5")
        save(later, root / f"{number}.dcm")
    before = {key.case_id for key in open_dataset(root, need_labels=False).keys}
    assert "several studies" not in notes()
    save(a_still(instance="1.3", StudyInstanceUID=f"{ROOT}7.4"), root / "3.dcm")
    assert {key.case_id for key in open_dataset(root, need_labels=False).keys} != before
    assert "1 patient with several studies: case ids change" in notes()
    salt = tmp_path / "salt"
    salt.write_text("0123456789abcdef")
    assert "several studies" not in notes(salt)


def test_without_a_patients_id_a_case_is_a_study_and_without_that_a_file(tmp_path: Path) -> None:
    for number, study in enumerate(("1", "1", "2", "", "")):
        found = a_still(instance=f"1.{number}", patient="")
        found.StudyInstanceUID = study and ROOT + study
        save(found, tmp_path / f"{number}.dcm")
    dataset = open_dataset(tmp_path, need_labels=False)
    assert len({key.case_id for key in dataset.keys}) == 4


def test_the_table_says_who_is_who(tmp_path: Path) -> None:
    root = a_hospital(tmp_path)
    (root / "junk.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    table = list(csv.DictReader(io.StringIO(who_is_who(root))))
    keys = {key.recording_id: key for key in open_dataset(root).keys}
    assert {row["recording"] for row in table[:-1]} == set(keys)
    for row in table[:-1]:
        assert keys[row["recording"]].paths[0] == root / row["file"]
        assert keys[row["recording"]].case_id == row["case"]
        assert row["file"].startswith(f"Smith_{row['patient_id']}/Jane_")
        assert row["patient_name"] == "Smith^Jane"
    assert table[-1]["file"] == "junk.dcm"
    assert table[-1]["recording"].startswith("damaged_")


def test_a_folder_that_cannot_be_listed_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(root / "Smith_4711"))

    root = a_hospital(tmp_path)
    fits, _ = READERS["dicom"]
    monkeypatch.setitem(READERS, "dicom", (fits, torn))  # type: ignore[arg-type]
    with pytest.raises(DatasetError) as caught:
        open_dataset(root)
    assert str(caught.value) == f"{root}: cannot be read (Permission denied)."
    assert caught.value.__cause__ is None


def test_no_message_names_a_patient_or_a_file(tmp_path: Path) -> None:
    root = a_hospital(tmp_path)
    folder = root / "Smith_4711"
    (folder / "Jane_1_gt.nii.gz").write_bytes(b"torn")
    (folder / "Jane_x.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    dataset = open_dataset(root)
    said = [dataset.describe(), *dataset.notes, *reasons(dataset), repr(dataset.provenance)]
    said += [repr(dataset.cases)]
    for path in root.rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-9000])
    said += [refusal(dataset, number) for number in range(len(dataset.keys))]
    shutil.rmtree(root / "Smith_4712")
    gone = next(key for key in dataset.keys if not key.paths[0].exists())
    for call in (dataset.fingerprint, dataset.read):
        with pytest.raises(DatasetError) as caught:
            call(gone)
        said.append(str(caught.value))
        assert caught.value.__cause__ is None
    assert len(said) > 8
    for text in said:
        assert not any(name in text for name in ("Smith", "Jane", "4711", "4712", ROOT))
