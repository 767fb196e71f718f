"""Which file is whose label, by names alone."""

from pathlib import Path

import pytest

from echogen.datasets.pairing import has_pairs, list_files, role_of


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("files", "frames"),
    [
        (("images/x.png", "labels/x.png"), ["x"]),
        (("frames/x.jpg", "masks/x.png"), ["x"]),
        (("imgs/x.png", "gts/x_gt.bmp"), ["x"]),
        (("images/x_image.png", "masks/x_mask.png"), ["x"]),
        (("x.tif", "x_mask.tif", "y.tif", "y-seg.png"), ["x", "y"]),
        (("p1/x.png", "p1/x_label.png", "p2/x.png", "p2/x_label.png"), ["p1/x", "p2/x"]),
        (("train/images/x.png", "train/labels/x.png"), ["train/x"]),
        (("images/train/x.png", "labels/train/x.png"), ["train/x"]),
        (("train_images/x.png", "train_masks/x.png"), ["train/x"]),
        (("p1/images/x.nii.gz", "p1/labels/x.nii.gz", "p2/images/x.mha", "p2/labels/x.mha"),
         ["p1/x", "p2/x"]),
    ],
)  # fmt: skip
def test_images_and_labels_find_each_other(
    tmp_path: Path, files: tuple[str, ...], frames: list[str]
) -> None:
    found = list_files(touch(tmp_path, *files), set())
    assert sorted(found.images) == frames
    assert sorted(found.labels) == frames
    assert not found.stray
    assert has_pairs(tmp_path)


def test_unpaired_pictures_are_no_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "deep/images/y.png", "deep/labels/y.png")
    assert not has_pairs(tmp_path)
    assert has_pairs(tmp_path / "deep")


def test_images_elsewhere_are_left_out_where_a_folder_says_images(tmp_path: Path) -> None:
    found = list_files(
        touch(tmp_path, "images/x.png", "labels/x.png", "results/x.png", "logo.png"), set()
    )
    assert (sorted(found.images), found.others) == (["x"], 2)


def test_a_number_at_the_end_is_no_class(tmp_path: Path) -> None:
    found = list_files(touch(tmp_path, "images/x.png", "images/x_2.png", "images/x_LV.png"), {"lv"})
    assert sorted(found.images) == ["x", "x_2"]
    assert list(found.classes) == ["x"]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Images", ("image", "")),
        ("train_images", ("image", "train")),
        ("masks-LV", ("label", "LV")),
        ("patient7", ("", "")),
    ],
)
def test_what_a_folder_is_called(name: str, role: tuple[str, str]) -> None:
    assert role_of(name) == role


def test_many_images_before_the_first_label(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/images/{n}.png" for n in range(600)), "train/labels/0.png")
    assert has_pairs(tmp_path)


def test_images_with_a_table_of_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "b/x.png")
    for folder in "ab":
        (tmp_path / folder / "table.json").write_text('{"frames": []}')
    assert not has_pairs(tmp_path)
    (tmp_path / "a" / "_annotations.coco.json").write_text('{"images": [], "annotations": []}')
    assert not has_pairs(tmp_path)
    assert has_pairs(tmp_path / "a")
