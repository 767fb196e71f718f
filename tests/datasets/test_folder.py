"""The folder layout: images with label files of many kinds beside them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.datasets import open_dataset
from echogen.errors import DatasetError


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def an_image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (9, 7)).astype(np.uint8)


def a_label() -> np.ndarray:
    label = np.zeros((9, 7), np.uint8)
    label[3:6, 2:5] = 2
    return label


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "images" / "x.png", an_image())
    write(tmp_path / "labels" / "x.png", a_label())
    return tmp_path


def reason(root: Path) -> str:
    dataset = open_dataset(root)
    with pytest.raises(DatasetError) as caught:
        dataset.read(dataset.keys[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pair_is_read_without_spacing_and_that_is_said(root: Path) -> None:
    dataset = open_dataset(root)
    frame = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(frame.image, an_image())
    np.testing.assert_array_equal(frame.label, a_label())
    assert frame.spacing_mm is None
    assert "spacing unknown" in dataset.describe()
    assert dataset.provenance.extra["spacing"] == "unknown"
    assert "Pictures carry no spacing" in dataset.notes[0]


def test_names_give_case_view_and_phase_only_where_they_parse(root: Path) -> None:
    for folder in ("images", "labels"):
        (root / folder / "patient0001_4CH_ED.png").touch()
        (root / folder / "frame_12.PNG").touch()
    keys = open_dataset(root).keys
    found = [(key.frame_id, key.case_id, key.view, key.phase) for key in keys]
    assert found == [
        ("frame_12", "frame_12", "", ""),
        ("patient0001_4CH_ED", "patient0001", "4CH", "ED"),
        ("x", "x", "", ""),
    ]
    assert [case.case_id for case in open_dataset(root).cases] == ["frame_12", "patient0001", "x"]


def test_pictures_without_partner_are_problems_and_other_files_are_told(root: Path) -> None:
    (root / "images" / "alone.png").touch()
    (root / "labels" / "stray.png").touch()
    (root / "images" / "y.jpg").touch()
    (root / "images" / "y.txt").touch()
    (root / "results.png").touch()
    (root / "images" / ".DS_Store").touch()
    dataset = open_dataset(root)
    assert [(problem.frame_id, problem.reason) for problem in dataset.problems()] == [
        ("alone", "images/alone.png: no label, expected labels/alone.png."),
        ("stray", "labels/stray.png: no image, expected images/stray.png."),
        ("y", "images/y.jpg: no label, expected labels/y.png."),
    ]
    assert dataset.notes[-1] == "1 image outside of images, labels left out."


def test_a_missing_labels_folder_is_told(root: Path) -> None:
    (root / "labels" / "x.png").unlink()
    (root / "labels").rmdir()
    with pytest.raises(DatasetError, match=r"1 image such as images/x.png, but no label of any"):
        open_dataset(root)


@pytest.mark.parametrize("alpha", [False, True])
def test_grey_stored_in_colour_channels_is_read_as_grey(root: Path, alpha: bool) -> None:
    channels = [an_image()] * 3 + [np.full((9, 7), 255, np.uint8)] * alpha
    write(root / "images" / "x.png", np.stack(channels, axis=-1))
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).image, an_image())


def test_colours_and_transparency_are_refused(root: Path) -> None:
    coloured = np.stack([an_image(), an_image(), an_image()[::-1]], axis=-1)
    write(root / "images" / "x.png", np.stack([an_image()] * 4, axis=-1))
    assert reason(root).startswith("images/x.png: has transparent pixels")
    write(root / "images" / "x.png", coloured)
    assert reason(root).startswith("images/x.png: a colour picture: ")
    write(root / "labels" / "x.png", coloured)
    with pytest.raises(DatasetError, match=r"labels/x.png: label files hold \d+ values, such as #"):
        open_dataset(root)


def test_labels_painted_as_grey_levels_are_refused(root: Path) -> None:
    write(root / "labels" / "x.png", a_label() * 127)
    with pytest.raises(DatasetError, match=r"hold 254; .*: label_map = {254 = 1}$"):
        open_dataset(root)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_png_is_one_line(
    root: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = root / "images" / "x.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert reason(root).startswith("images/x.png: truncated PNG file (")
    assert capfd.readouterr() == ("", "")


def test_a_damaged_png_is_refused(root: Path) -> None:
    path = root / "images" / "x.png"
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content))
    assert reason(root) == "images/x.png: damaged PNG file, a checksum is wrong."


def test_a_jpeg_under_a_png_name_is_refused(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "x.jpg", an_image())
    (root / "images" / "x.png").write_bytes((tmp_path / "other" / "x.jpg").read_bytes())
    assert reason(root).startswith("images/x.png: not a PNG file (")
    (root / "images" / "x.png").write_bytes(b"")
    assert reason(root) == "images/x.png: not a PNG file (0 bytes)."


def test_sixteen_bits_are_read_only_where_they_fit_eight(root: Path) -> None:
    write(root / "images" / "x.png", an_image().astype(np.uint16))
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).image, an_image())
    write(root / "images" / "x.png", an_image().astype(np.uint16) * 257)
    assert reason(root).startswith("images/x.png: intensities from ")
