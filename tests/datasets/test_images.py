"""Any folder of images, for training; and the labelled layouts read without their labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.datasets import open_dataset
from echogen.datasets.base import Dataset
from echogen.errors import DatasetError, UsageError
from echogen.types import FrameKey
from tests.support.hearts import write_nifti


def an_image(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 16)).astype(np.uint8)


def write(path: Path, array: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = an_image() if array is None else array
    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=picture.ndim == 3), str(path))
    return path


def opened(root: Path, format: str = "auto") -> Dataset:
    return open_dataset(root, format, need_labels=False)


def listed(root: Path) -> tuple[FrameKey, ...]:
    return opened(root).keys


def reason(root: Path) -> str:
    dataset = opened(root, "images")
    with pytest.raises(DatasetError) as caught:
        dataset.read(dataset.keys[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_are_found_at_any_depth_with_case_and_split(tmp_path: Path) -> None:
    write(tmp_path / "loose.png")
    write(tmp_path / "train" / "anna" / "clip_1" / "f01.png")
    write(tmp_path / "Val" / "images" / "bob" / "f01.png")
    write(tmp_path / "train" / "anna" / "patient0007_2CH_ES.png")
    (tmp_path / "train" / "readme.txt").touch()
    write(tmp_path / ".hidden" / "x.png")
    found = [(k.frame_id, k.case_id, k.view, k.phase, k.split) for k in listed(tmp_path)]
    assert found == [
        ("Val/images/bob/f01", "bob", "", "", "Val"),
        ("loose", "loose", "", "", ""),
        ("train/anna/clip_1/f01", "anna", "", "", "train"),
        ("train/anna/patient0007_2CH_ES", "patient0007", "2CH", "ES", "train"),
    ]
    assert opened(tmp_path).describe() == (
        "images (PNG): 4 frames of 4 cases, view 2CH, phase ES, splits Val train, spacing unknown"
    )


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg"])
def test_pictures_are_read_without_spacing_and_label(tmp_path: Path, suffix: str) -> None:
    smooth = np.tile(np.arange(10, 250, 15, dtype=np.uint8), (24, 1))
    written = write(tmp_path / f"x{suffix.lower()}", smooth)
    written.rename(tmp_path / f"x{suffix}")
    dataset = opened(tmp_path)
    frame = dataset.read(dataset.keys[0])
    assert np.abs(frame.image.astype(int) - smooth).max() <= (2 if "j" in suffix else 0)
    assert frame.label.shape == frame.image.shape
    assert not frame.label.any()
    assert frame.spacing_mm is None


def test_volumes_of_one_slice_keep_their_spacing(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", an_image())
    write(tmp_path / "b.mhd")
    dataset = opened(tmp_path)
    assert dataset.read(dataset.keys[0]).spacing_mm == pytest.approx((1.0, 0.9))
    assert [path.name for path in dataset.keys[1].paths] == ["b.mhd", "b.raw"]
    assert dataset.describe().startswith("images (NIfTI and MetaImage): 2 frames")


def test_label_maps_beside_the_images_are_left_out_or_refused(tmp_path: Path) -> None:
    write(tmp_path / "p1" / "frames" / "x.png")
    write(tmp_path / "p1" / "Masks" / "x.png")
    write(tmp_path / "p1" / "patient1_4CH_ED_gt.png")
    dataset = opened(tmp_path)
    assert [key.frame_id for key in listed(tmp_path)] == ["p1/frames/x"]
    assert dataset.notes == ("2 label maps beside the images left out.",)
    write(tmp_path / "p1" / "frames" / "x.png", an_image() // 64)
    assert reason(tmp_path) == (
        "p1/frames/x.png: only 4 grey levels; expected an ultrasound image, is it a label map?"
    )


def test_one_image_in_two_formats_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "x.jpg")
    write(tmp_path / "x.png")
    dataset = opened(tmp_path)
    assert [key.paths[0].name for key in listed(tmp_path)] == ["x.jpg"]
    assert dataset.notes == ("1 image found in two formats; the first is used.",)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "far" / "p1" / "x.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "p1").symlink_to(tmp_path / "far" / "p1")
    (tmp_path / "far" / "p1" / "back").symlink_to(root)
    assert [key.frame_id for key in listed(root)] == ["p1/x"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_jpeg_is_one_line(
    tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.jpg")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert reason(tmp_path).startswith("x.jpg: ")
    assert capfd.readouterr() == ("", "")


def test_a_png_under_a_jpeg_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "y.png").rename(tmp_path / "x.jpg")
    assert reason(tmp_path).startswith("x.jpg: not a JPEG file (")


def test_colours_and_stacks_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.png", np.stack([an_image(1), an_image(2), an_image(3)], axis=-1))
    assert "a colour picture" in reason(tmp_path)
    (tmp_path / "x.png").unlink()
    stack = sitk.GetImageFromArray(np.stack([an_image(1), an_image(2)]))
    sitk.WriteImage(stack, str(tmp_path / "x.nii.gz"))
    assert "holds 2 slices" in reason(tmp_path)


def test_labelled_layouts_go_first_and_images_is_for_training_only(tmp_path: Path) -> None:
    write(tmp_path / "images" / "x.png")
    assert opened(tmp_path).provenance.format == "folder"
    assert opened(tmp_path, "images").provenance.format == "images"
    with pytest.raises(UsageError, match=r"--format images: expected auto, camus, folder, "):
        open_dataset(tmp_path, "images")
    with pytest.raises(DatasetError, match=r"but no label of any"):
        open_dataset(tmp_path)


def test_a_plain_folder_is_nothing_to_expand(tmp_path: Path) -> None:
    write(tmp_path / "p1" / "x.png")
    with pytest.raises(DatasetError, match="no dataset found"):
        open_dataset(tmp_path)


def test_a_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "x.avi").touch()
    with pytest.raises(DatasetError, match=r"images in any folder \(.*\.png, \.jpg.*holds x\.avi"):
        opened(tmp_path)


def test_camus_without_labels_has_every_image(own_dataset: Path) -> None:
    labelled = open_dataset(own_dataset)
    for path in (own_dataset / "patient0001").glob("*_gt.nii.gz"):
        path.unlink()
    (own_dataset / "patient0002" / "patient0002_4CH_ED_gt.nii.gz").write_bytes(b"broken")
    dataset = opened(own_dataset)
    pairs = list(zip(labelled.keys, dataset.keys, strict=True))
    assert dataset.problems() == ()
    for with_label, alone in pairs:
        assert alone.frame_id == with_label.frame_id
        assert alone.paths == with_label.paths[:1]
        if alone.case_id == "patient0002" and alone.phase == "ES":
            expected = labelled.read(with_label).image
            np.testing.assert_array_equal(dataset.read(alone).image, expected)
    assert len(open_dataset(own_dataset).problems()) == 2
    assert len(open_dataset(own_dataset).keys) == 2


def test_a_camus_layout_without_any_label_is_for_training(own_dataset: Path) -> None:
    root = own_dataset.parent / "release"
    shutil.copytree(own_dataset, root / "testing")
    for path in root.rglob("*_gt.nii.gz"):
        path.unlink()
    with pytest.raises(DatasetError, match="no image has a label"):
        open_dataset(root)
    assert len(opened(root).keys) == 4
    assert opened(root).notes == ()


def test_a_label_without_image_is_still_a_problem(own_dataset: Path) -> None:
    (own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz").unlink()
    (problem,) = opened(own_dataset).problems()
    assert "no image" in problem.reason


def test_the_folder_layout_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a_4CH_ED.png")
    write(tmp_path / "images" / "b.png")
    write(tmp_path / "labels" / "b.png", an_image() // 64)
    dataset = opened(tmp_path)
    assert [(key.frame_id, key.case_id) for key in listed(tmp_path)] == [
        ("a_4CH_ED", "a"),
        ("b", "b"),
    ]
    assert dataset.describe().startswith(
        "folder layout (PNG images, cases by file name): 2 frames of 2 cases"
    )
    assert dataset.problems() == ()


def test_camus_that_says_so_gives_terms_and_reference(own_dataset: Path) -> None:
    assert not opened(own_dataset).provenance.extra["citation"]
    (own_dataset / "MANDATORY_CITATION.md").write_text("Cite CAMUS.")
    provenance = opened(own_dataset).provenance
    assert "CC BY-NC-SA 4.0" in provenance.licence
    assert "10.1109/TMI.2019.2900516" in provenance.extra["citation"]
