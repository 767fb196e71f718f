"""CAMUS' layouts: roots, pairs, splits, cfg files, and every kind of bad frame."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, image_digest, open_dataset
from echogen.datasets.camus import LICENCE
from echogen.errors import DatasetError

DATA = Path(__file__).parents[3] / "shared" / "data"
NAME = "patient0001_4CH_ED"
SPACING = (0.5, 0.25)


def write(
    path: Path, array: np.ndarray, spacing: tuple[float, ...] = (SPACING[1], SPACING[0])
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing((*spacing, *(1.54,) * (array.ndim - 2)))
    sitk.WriteImage(picture, str(path))


def an_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 8)).astype(np.uint8)


def a_label() -> np.ndarray:
    label = np.zeros((12, 8), np.uint8)
    label[2:5], label[5:8], label[8:10, 3:6] = 1, 2, 3
    return label


def write_pair(folder: Path, name: str = NAME, suffix: str = ".nii.gz") -> None:
    planes = (an_image(), a_label())
    for tail, plane in zip(("", "_gt"), planes, strict=True):
        write(folder / f"{name}{tail}{suffix}", plane[None] if suffix == ".mhd" else plane)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "database_nifti" / "patient0001"
    write_pair(folder)
    return folder


def reason(folder: Path) -> str:
    dataset = open_dataset(folder)
    with pytest.raises(DatasetError) as caught:
        dataset.read(dataset.keys[0])
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) not in message
    return message


def ids(dataset: Dataset) -> list[str]:
    keys = dataset.keys
    return [key.frame_id for key in keys]


def splits(dataset: Dataset) -> list[str]:
    keys = dataset.keys
    return [key.split for key in keys]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mhd"])
def test_pixels_and_spacing_come_back_in_rows_and_columns(tmp_path: Path, suffix: str) -> None:
    write_pair(tmp_path / "training" / "patient0001", suffix=suffix)
    dataset = open_dataset(tmp_path)
    frame = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(frame.image, an_image())
    np.testing.assert_array_equal(frame.label, a_label())
    assert frame.image.dtype == frame.label.dtype == np.uint8
    assert frame.spacing_mm == SPACING
    assert (frame.key.case_id, frame.key.view, frame.key.phase) == ("patient0001", "4CH", "ED")


def test_every_sensible_level_gives_the_same_frames(case: Path) -> None:
    (case.parents[1] / "database_split").mkdir()
    (case.parents[1] / "database_split" / "subgroup_testing.txt").write_text("patient0001\n")
    found = [open_dataset(root) for root in (case.parents[1], case.parent, case)]
    assert len({dataset.keys for dataset in found}) == 1
    assert found[0].keys[0].split == "testing"
    assert [dataset.provenance.root_name for dataset in found] == [
        "data",
        "database_nifti",
        "patient0001",
    ]


def test_a_folder_of_cases_without_a_layout_folder_is_read(tmp_path: Path) -> None:
    write_pair(tmp_path / "patient0001")
    write_pair(tmp_path / "patient0002", "patient0002_2CH_ES", ".mhd")
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == [NAME, "patient0002_2CH_ES"]
    assert "NIfTI and MetaImage" in dataset.describe()


def test_both_layouts_in_one_root_are_read_and_twins_only_once(case: Path) -> None:
    root = case.parents[1]
    write_pair(root / "training" / "patient0007", "patient0007_4CH_ED", ".mhd")
    write_pair(root / "training" / "patient0001", NAME, ".mhd")
    dataset = open_dataset(root)
    assert ids(dataset) == [NAME, "patient0007_4CH_ED"]
    assert dataset.keys[0].paths[0].suffix == ".gz"
    assert dataset.notes == ("1 frame found twice; the first of each is used.",)


def test_sequences_hidden_files_and_other_folders_are_left_alone(case: Path) -> None:
    for name in (
        "patient0001_4CH_half_sequence.nii.gz",
        "patient0001_4CH_half_sequence_gt.nii.gz",
        "patient0001_4CH_sequence.mhd",
        f"._{NAME}.nii.gz",
        "notes.txt",
    ):
        (case / name).touch()
    dataset = open_dataset(case.parents[1])
    assert len(dataset.keys) == 1
    assert dataset.problems() == ()


def test_the_pixels_of_a_meta_image_belong_to_its_fingerprint(tmp_path: Path) -> None:
    write_pair(tmp_path / "patient0001", suffix=".mhd")
    dataset = open_dataset(tmp_path)
    (key,) = dataset.keys
    assert [path.name for path in key.paths] == [
        f"{NAME}.mhd",
        f"{NAME}.raw",
        f"{NAME}_gt.mhd",
        f"{NAME}_gt.raw",
    ]
    before = dataset.fingerprint(key)
    raw = key.paths[1]
    raw.write_bytes(raw.read_bytes()[::-1])
    assert dataset.fingerprint(key) != before


def test_a_missing_partner_is_a_problem_of_its_frame(case: Path) -> None:
    for name in ("patient0002_4CH_ED.nii.gz", "patient0002_2CH_ES_gt.nii.gz"):
        other = case.parent / "patient0002" / name
        other.parent.mkdir(exist_ok=True)
        shutil.copy(case / f"{NAME}.nii.gz", other)
    dataset = open_dataset(case.parents[1])
    assert [(problem.frame_id, problem.reason) for problem in dataset.problems()] == [
        (
            "patient0002_2CH_ES",
            "database_nifti/patient0002/patient0002_2CH_ES_gt.nii.gz: no image, expected "
            "patient0002_2CH_ES.nii.gz beside it.",
        ),
        (
            "patient0002_4CH_ED",
            "database_nifti/patient0002/patient0002_4CH_ED.nii.gz: no label, expected "
            "patient0002_4CH_ED_gt.nii.gz beside it.",
        ),
    ]
    assert "2 frames unusable" in dataset.describe()
    only = DatasetConfig(views=("4CH",), cases=("patient0002",))
    assert [problem.frame_id for problem in dataset.problems(only)] == ["patient0002_4CH_ED"]
    assert dataset.problems(DatasetConfig(cases=("patient0001",))) == ()


def test_a_frame_whole_in_one_layout_is_no_problem_of_the_other(case: Path) -> None:
    root = case.parents[1]
    write_pair(root / "training" / "patient0001", NAME, ".mhd")
    (case / f"{NAME}_gt.nii.gz").unlink()
    write_pair(case, "patient0001_2CH_ED")
    dataset = open_dataset(root)
    assert ids(dataset) == ["patient0001_2CH_ED", NAME]
    assert dataset.keys[1].paths[0].suffix == ".mhd"
    assert dataset.problems() == ()


def test_a_layout_without_any_label_is_left_out_and_told(case: Path) -> None:
    unlabelled = case.parents[1] / "testing" / "patient0009"
    write_pair(unlabelled, "patient0009_4CH_ED", ".mhd")
    for path in unlabelled.glob("*_gt.*"):
        path.unlink()
    dataset = open_dataset(case.parents[1])
    assert len(dataset.keys) == 1
    assert dataset.problems() == ()
    assert dataset.notes == ("testing/: 1 image without any label; left out.",)


def test_splits_come_from_the_lists_alone(case: Path) -> None:
    root = case.parents[1]
    for number in (2, 3):
        write_pair(root / "training" / f"patient{number:04d}", f"patient{number:04d}_4CH_ED")
    assert splits(open_dataset(root)) == ["", "", ""]
    lists = root / "database_split"
    lists.mkdir()
    (lists / "subgroup_training.txt").write_text("patient0001\r\n\r\npatient0099\n")
    (lists / "subgroup_validation.txt").write_text("\ufeffpatient0002 \n", encoding="utf-8")
    dataset = open_dataset(root)
    assert splits(dataset) == ["training", "validation", ""]
    assert dataset.notes == ("database_split/: 1 case listed but not found, such as patient0099.",)


def test_lists_of_a_dataset_further_up_are_not_taken(case: Path) -> None:
    lists = case.parents[1] / "database_split"
    lists.mkdir()
    (lists / "subgroup_training.txt").write_text("patient0001\n")
    write_pair(case.parents[1] / "phantoms" / "patient0001")
    assert open_dataset(case.parents[1] / "phantoms").keys[0].split == ""


def test_a_case_in_two_splits_is_refused(case: Path) -> None:
    lists = case.parents[1] / "database_split"
    lists.mkdir()
    for split in ("training", "testing"):
        (lists / f"subgroup_{split}.txt").write_text("patient0001\n")
    with pytest.raises(DatasetError, match=r"subgroup_training.txt: patient0001 is also listed as"):
        open_dataset(case.parents[1])


def test_cfg_files_of_the_first_release_become_the_cases_info(case: Path) -> None:
    shared = "Sex: F\nAge: 56\nImageQuality: {}\nLVedv: 94.0\nLVesv: 34.6\nLVef: 63.2\n"
    two, four = shared.format("Good"), shared.format("Poor")
    (case / "Info_2CH.cfg").write_text("ED: 1\nES: 18\nNbFrame: 18\n" + two)
    (case / "Info_4CH.cfg").write_text("ED: 1\nES: 20\nNbFrame: 20\n" + four)
    (known,) = open_dataset(case).cases
    assert known.case_id == "patient0001"
    assert known.info == {
        "age": 56.0,
        "ed_frame_2ch": 1.0,
        "ed_frame_4ch": 1.0,
        "ef": 63.2,
        "es_frame_2ch": 18.0,
        "es_frame_4ch": 20.0,
        "frames_2ch": 18.0,
        "frames_4ch": 20.0,
        "image_quality_2ch": "Good",
        "image_quality_4ch": "Poor",
        "lv_edv_ml": 94.0,
        "lv_esv_ml": 34.6,
        "sex": "F",
    }


def test_cfg_files_of_the_nifti_release_become_the_cases_info(case: Path) -> None:
    (case / "Info_4CH.cfg").write_text(
        "ED: 1\nES: 18\nNbFrame: 18\nImageQuality: Good\nEF: 54\nFrameRate: 48.4\nScanner: E95\n"
    )
    (known,) = open_dataset(case.parents[1]).cases
    assert known.info["ef"] == 54.0
    assert known.info["frame_rate"] == known.info["frame_rate_4ch"] == 48.4
    assert known.info["image_quality"] == "Good"
    assert known.info["scanner"] == "E95"


def test_odd_cfg_values_are_told_and_left_out(case: Path) -> None:
    (case / "Info_2CH.cfg").write_text("EF: 50\nAge: N/A\nno colon here\nLVesv: nan\n")
    (case / "Info_4CH.cfg").write_text("EF: 60\n")
    dataset = open_dataset(case)
    assert dataset.cases[0].info == {"ef_2ch": 50.0, "ef_4ch": 60.0}
    assert dataset.notes == (
        "Info_2CH.cfg: Age is 'N/A', expected a number; left out.",
        "Info_2CH.cfg: LVesv is 'nan', expected a number; left out.",
        ".: cfg files disagree on ef: 50.0 in 2CH, 60.0 in 4CH.",
    )


def test_a_dataset_is_called_camus_only_where_it_says_so(case: Path) -> None:
    assert open_dataset(case.parents[1]).provenance.licence == ""
    (case / "MANDATORY_CITATION.md").write_text("for any use of the CAMUS database")
    for root in (case, case.parents[1]):
        assert open_dataset(root).provenance.licence == LICENCE


def overwrite(folder: Path, tail: str, array: np.ndarray) -> None:
    write(folder / f"{NAME}{tail}.nii.gz", array)


def with_pixel(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.astype(np.float32)
    changed[3, 3] = value
    return changed


BAD_FRAMES: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "shapes differ",
        lambda folder: overwrite(folder, "_gt", a_label().T.copy()),
        f"{NAME}_gt.nii.gz: label of 8 x 12 pixels, but its image {NAME}.nii.gz has 12 x 8; "
        "they must be the same.",
    ),
    (
        "unknown class ids",
        lambda folder: overwrite(folder, "_gt", a_label() * 85),
        f"{NAME}_gt.nii.gz: class ids 85, 170, 255 are not declared (labels: 0, 1, 2, 3); store "
        "raw class ids, or declare these.",
    ),
    (
        "all background",
        lambda folder: overwrite(folder, "_gt", a_label() * 0),
        f"{NAME}_gt.nii.gz: the label is all background.",
    ),
    (
        "fractional class ids",
        lambda folder: overwrite(folder, "_gt", a_label().astype(np.float32) * 0.5),
        f"{NAME}_gt.nii.gz: class ids from 0 to 1.5 (float32, fractional); expected whole numbers "
        "from 0 to 255, convert the file.",
    ),
    (
        "NaN",
        lambda folder: overwrite(folder, "", with_pixel(an_image(), np.nan)),
        f"{NAME}.nii.gz: 1 of 96 values are NaN or infinite.",
    ),
    (
        "all black",
        lambda folder: overwrite(folder, "", an_image() * 0),
        f"{NAME}.nii.gz: empty image, every pixel is 0.",
    ),
    (
        "too bright",
        lambda folder: overwrite(folder, "", an_image().astype(np.int16) * 4 - 300),
        f"{NAME}.nii.gz: intensities from -300 to ",
    ),
    (
        "several slices",
        lambda folder: overwrite(folder, "", np.stack([an_image()] * 3)),
        f"{NAME}.nii.gz: holds 3 slices of 12 x 8 pixels; expected one, store each frame in its "
        "own file.",
    ),
    (
        "cut gzip",
        lambda folder: cut(folder / f"{NAME}.nii.gz"),
        f"{NAME}.nii.gz: truncated or damaged gzip file.",
    ),
    (
        "cut volume in whole gzip",
        lambda folder: cut_inside(folder / f"{NAME}_gt.nii.gz"),
        f"{NAME}_gt.nii.gz: truncated, 438 of 448 bytes (uncompressed).",
    ),
    (
        "no bytes",
        lambda folder: (folder / f"{NAME}.nii.gz").write_bytes(b"") and None,
        f"{NAME}.nii.gz: not a NIfTI file (0 bytes).",
    ),
]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_inside(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-10]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [pytest.param(spoil, message, id=name) for name, spoil, message in BAD_FRAMES],
)
def test_a_bad_frame_is_one_line_with_file_and_reason(
    case: Path, spoil: Callable[[Path], None], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(case)
    assert reason(case).startswith(message)
    assert capfd.readouterr() == ("", "")


def test_a_bad_frame_is_named_from_the_root_down(case: Path) -> None:
    overwrite(case, "_gt", a_label() * 0)
    assert reason(case.parents[1]).startswith(f"database_nifti/patient0001/{NAME}_gt.nii.gz: ")


def test_a_damaged_nifti_header_is_refused(case: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = case / f"{NAME}.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:56] = b"\x7f" * 16
    path.write_bytes(gzip.compress(bytes(content)))
    assert reason(case).startswith(f"{NAME}.nii.gz: damaged NIfTI header")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_vanished_after_listing_is_named(case: Path) -> None:
    dataset = open_dataset(case)
    (case / f"{NAME}_gt.nii.gz").unlink()
    with pytest.raises(DatasetError, match=rf"^{NAME}_gt.nii.gz: cannot be read \(No such file"):
        dataset.read(dataset.keys[0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: raw.unlink(), "its pixels are missing, no file {raw} beside it."),
        (lambda raw: cut(raw), "{raw} is truncated, 48 of 96 bytes."),
        (
            lambda raw: raw.with_suffix(".mhd").write_text("NDims = 3\n"),
            "cannot be read as a MetaImage header: it has no DimSize.",
        ),
        (
            lambda raw: raw.with_suffix(".mhd").write_bytes(b"NDims\x00"),
            r"cannot be read as a MetaImage header: 'NDims\\x00' is not a field.",
        ),
    ],
)
def test_a_bad_meta_image_is_one_line_and_nothing_on_stderr(
    tmp_path: Path,
    spoil: Callable[[Path], object],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path / "patient0001", suffix=".mhd")
    spoil(tmp_path / "patient0001" / f"{NAME}.raw")
    expected = f"{NAME}.mhd: {message.format(raw=NAME + '.raw')}"
    assert reason(tmp_path / "patient0001") == expected
    assert capfd.readouterr() == ("", "")


def test_compressed_meta_images_are_read_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "patient0001"
    write_pair(folder, suffix=".mhd")
    picture = sitk.ReadImage(str(folder / f"{NAME}.mhd"))
    sitk.WriteImage(picture, str(folder / f"{NAME}.mhd"), useCompression=True)
    dataset = open_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).image, an_image())
    cut(folder / f"{NAME}.zraw")
    assert reason(folder) == f"{NAME}.mhd: {NAME}.zraw is truncated or damaged."


def test_nan_in_a_meta_image_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "patient0001", suffix=".mhd")
    write(tmp_path / "patient0001" / f"{NAME}.mhd", with_pixel(an_image(), np.inf)[None])
    assert reason(tmp_path) == (f"patient0001/{NAME}.mhd: 1 of 96 intensities are NaN or infinite.")


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_intensities_of_any_type_become_uint8_unchanged(case: Path, kind: type) -> None:
    overwrite(case, "", an_image().astype(kind))
    overwrite(case, "_gt", a_label().astype(kind))
    dataset = open_dataset(case)
    frame = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(frame.image, an_image())
    np.testing.assert_array_equal(frame.label, a_label())
    assert frame.image.dtype == frame.label.dtype == np.uint8


def test_declared_labels_decide_which_class_ids_may_occur(case: Path) -> None:
    dataset = open_dataset(case, labels={1: "LV", 2: "wall"})
    with pytest.raises(DatasetError, match=r"class ids 3 are not declared \(labels: 0, 1, 2\)"):
        dataset.read(dataset.keys[0])
    wider = open_dataset(case, labels={1: "LV", 2: "wall", 3: "LA", 7: "RV"})
    assert wider.read(wider.keys[0]).label.max() == 3


def shared(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no real data: shared/data/{name} is absent")
    return DATA / name


def test_real_camus_is_listed_whole() -> None:
    dataset = open_dataset(shared("camus"))
    keys = dataset.keys
    assert len(keys) == 1598
    assert [key.frame_id for key in keys] == sorted(key.frame_id for key in keys)
    assert {key.split for key in keys} == {"training"}
    assert len(dataset.cases) == 400
    assert dataset.problems() == ()


def test_real_camus_frames_are_upright_and_in_millimetres() -> None:
    dataset = open_dataset(shared("camus"))
    by_id = dict(zip(ids(dataset), dataset.keys, strict=True))
    frame = dataset.read(by_id["patient0001_4CH_ED"])
    assert frame.spacing_mm == pytest.approx((0.308, 0.308))
    rows = np.flatnonzero((frame.label == 3).any(axis=1)), np.flatnonzero((frame.label == 1).any(1))
    assert rows[0].mean() > rows[1].mean()  # the atrium lies below the ventricle: apex up
    twins = [dataset.read(by_id[f"patient{number}_4CH_ED"]) for number in ("0033", "0068")]
    assert image_digest(twins[0].image) == image_digest(twins[1].image)
    assert not np.array_equal(twins[0].label, twins[1].label)


def test_real_camus_of_the_first_release_is_read() -> None:
    dataset = open_dataset(shared("camus_mhd"))
    assert len(dataset.keys) == 12
    frames = list(map(dataset.read, dataset.keys))
    assert all(frame.spacing_mm == pytest.approx((0.154, 0.308)) for frame in frames)
    assert dataset.provenance.licence == LICENCE
    assert dataset.cases[0].info["lv_edv_ml"] == 94.0


@pytest.mark.slow
def test_every_real_camus_frame_passes_its_checks() -> None:
    dataset = open_dataset(shared("camus"))
    assert all(frame.label.any() for frame in map(dataset.read, dataset.keys))
