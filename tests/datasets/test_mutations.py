"""Every file that a dataset has, damaged a few hundred times: one line that names it, or a picture.

Each file's reader runs in a process of its own, so that a library that dies is a failed test.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless

from echogen.config import DatasetConfig
from echogen.datasets import open_chosen
from echogen.datasets.nifti_files import labelled_slices
from echogen.datasets.pixels import read_plane, read_values
from echogen.errors import DatasetError, EchogenError
from echogen.support.words import is_plain
from tests.support import dicoms, echonet
from tests.support.pictures import corners, heart, save, save_json, speckle
from tests.survival.children import in_child
from tests.survival.mutate import mutate

COUNT = 180
GDCM = "JPEGLSNearLossless_08.dcm"
PLANE = speckle(shape=(12, 10))
CLIP = np.stack([PLANE] * 3)


def read_one(path: Path) -> None:
    read_plane(path.parent, path, None)


def read_all(path: Path) -> None:
    read_values(path, path.name, "class ids")


def read_slices(path: Path) -> None:
    labelled_slices(path, path.name)


def read_dataset(path: Path) -> int:
    """List the dataset that a file is in, and read all of it that can be read; frames read."""
    root = next(folder for folder in path.parents if folder.name == "data")
    fans = root.with_name("fans.csv")
    dataset = open_chosen(root, DatasetConfig(fans=fans if fans.exists() else None))
    said = [dataset.describe(), *dataset.notes]
    said += [text for one in dataset.problems() for text in (one.frame_id, one.reason)]
    count = 0
    for key in dataset.keys:
        said += [
            key.frame_id,
            key.case_id,
            key.view,
            key.phase,
            key.split,
            dataset.fingerprint(key),
        ]
        try:
            dataset.read(key)
            dataset.clip(key)
            count += 1
        except DatasetError as error:
            said.append(str(error))
    assert all(is_plain(text) and len(text) < 3000 for text in said)
    cases = [[case.case_id, dict(case.info)] for case in dataset.cases]
    json.dumps(
        [cases, dict(dataset.provenance.labels)], allow_nan=False, ensure_ascii=False
    ).encode()
    return count


def check_damaged(
    read: Callable[[Path], object], path: Path, count: int, name: str | None = None
) -> None:
    """Read a file, then `count` times damaged: each time it is read or refused in one line.

    Args:
        read: reads the dataset or the file; may return how many frames it read.
        path: of the file that is damaged.
        count: of the mutations.
        name: what every refusal says; None takes the file's name.
    """
    content = path.read_bytes()

    def every() -> None:
        assert read(path) != 0
        for seed in range(count):
            path.write_bytes(content)
            print(f"{seed}: {mutate(path, Random(seed), kinds=False)!a}", flush=True)
            try:
                read(path)
            except EchogenError as error:
                text = str(error)
                assert text.isprintable(), text
                assert len(text) <= 2000, text
                assert (path.name if name is None else name) in text, text

    ended = in_child(every, path.parent)
    assert not ended.fault, f"{ended.fault} after {ended.out[-300:]}{ended.err[-2000:]}"
    assert ended.out.count("\n") == count


def volume(array: np.ndarray, name: str, packed: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name), packed)
        return folder / name

    return write


def picture(name: str, colours: bool = False, **options: object) -> Callable[[Path], Path]:
    pixels = np.repeat(PLANE[..., None], 3, -1) if colours else PLANE
    return lambda folder: save(folder / name, pixels, **options)


FILES = {
    "nii": (volume(PLANE, "x.nii"), read_one),
    "nii floats": (volume(CLIP.astype(np.float32), "x.nii"), read_all),
    "nii.gz": (volume(PLANE, "x.nii.gz"), read_one),
    "nii.gz slices": (volume(CLIP, "x.nii.gz"), read_slices),
    "mha": (volume(PLANE, "x.mha"), read_one),
    "mha packed": (volume(PLANE, "x.mha", packed=True), read_one),
    "png": (picture("x.png"), read_one),
    "jpg": (picture("x.jpg"), read_one),
    "jpg progressive": (picture("x.jpg", progressive=True), read_one),
    "tif": (picture("x.tif"), read_one),
    "tif lzw": (picture("x.tif", compression="tiff_lzw"), read_one),
    "tif jpeg": (picture("x.tif", colours=True, compression="jpeg"), read_one),
    "bmp": (picture("x.bmp"), read_one),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_picture_is_one_line_or_a_picture(kind: str, tmp_path: Path) -> None:
    write, read = FILES[kind]
    check_damaged(read, write(tmp_path), COUNT)


def dicom(syntax: str, folder: Path) -> Path:
    """A file of a syntax, with labels beside it."""
    clip = np.stack([speckle(seed, (24, 20)) for seed in range(2)])
    found = dicoms.an_ultrasound(clip, regions=[dicoms.a_region((0, 0, 23, 19))])
    if syntax == GDCM:  # each is decoded by a process that starts
        found = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / syntax)
        found.Modality = "US"
    elif syntax == "jpeg":
        found = dicoms.as_jpeg(found, clip)
    elif syntax:
        found.compress(syntax)
    shape = (found.get("NumberOfFrames", 1), found.Rows, found.Columns)
    volume(np.ones(shape, np.uint8).squeeze(), "x_gt.nii.gz")(folder)
    found.save_as(folder / "x.dcm", enforce_file_format=True)
    return folder / "x.dcm"


@pytest.mark.parametrize(
    ("syntax", "count"), [("", 180), ("jpeg", 180), (RLELossless, 180), (GDCM, 8)]
)
def test_a_damaged_dicom_file_is_one_line_or_a_picture(
    syntax: str, count: int, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    check_damaged(read_dataset, dicom(syntax, root), count, name="")


def test_a_damaged_video_is_one_line_or_a_video(tmp_path: Path) -> None:
    root = an_echonet(tmp_path)
    check_damaged(read_dataset, root / "Videos" / "0X1A.avi", 160, name="")


def a_folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("a_4CH_ED", "b_4CH_ES"):
        save(root / "images" / f"{name}.png", speckle())
    return root


def with_labels(tmp_path: Path) -> Path:
    root = a_folder(tmp_path)
    for path in (root / "images").iterdir():
        save(root / "labels" / path.name, heart())
    return root


def an_echonet(tmp_path: Path) -> Path:
    root, rows = tmp_path / "data", []
    for phase, frame in echonet.AT.items():
        rows += echonet.traced("0X1A", echonet.phantom(3, phase)[1], frame)
    echonet.write_video(root / "Videos" / "0X1A.avi", echonet.pictures(3))
    echonet.write_table(root / "FileList.csv", [echonet.listed("0X1A")])
    echonet.write_table(root / "VolumeTracings.csv", rows)
    return root


def a_camus(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "database_nifti" / "p1"
    folder.mkdir(parents=True)
    for phase in ("ED", "ES"):
        volume(speckle(), f"p1_4CH_{phase}.nii.gz")(folder)
        volume(heart(), f"p1_4CH_{phase}_gt.nii.gz")(folder)
    return tmp_path / "data"


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def nnunet(tmp_path: Path, wanted: str) -> Path:
    root = tmp_path / "data"
    save(root / "imagesTr" / "p1_4CH_ED_0000.png", speckle())
    save(root / "labelsTr" / "p1_4CH_ED.png", heart())
    described = {
        "channel_names": {"0": "US"}, "labels": {"background": 0, "LV": 1, "myo": 2, "LA": 3},
        "numTraining": 1, "file_ending": ".png", "licence": "CC0", "reference": "none",
    }  # fmt: skip
    save_json(root / "dataset.json", described)
    save_json(root / "splits_final.json", [{"train": ["p1_4CH_ED"], "val": ["p2_4CH_ED"]}])
    return root / wanted


def labelme(tmp_path: Path) -> Path:
    root = a_folder(tmp_path)
    shapes = [{"label": "LV", "shape_type": "polygon", "points": corners(4, 4, 20, 20)}]
    about = {"shapes": shapes, "imageHeight": 40, "imageWidth": 32}
    save_json(root / "images" / "b_4CH_ES.json", about)
    return save_json(root / "images" / "a_4CH_ED.json", about)


def coco(tmp_path: Path) -> Path:
    flat = [value for point in corners(4, 4, 20, 20) for value in point]
    return save_json(
        a_folder(tmp_path) / "annotations.json",
        {
            "images": [{"id": 1, "file_name": "a_4CH_ED.png", "height": 40, "width": 32}],
            "categories": [{"id": 7, "name": "LV"}],
            "annotations": [{"image_id": 1, "category_id": 7, "segmentation": [flat]}],
        },
    )


FANS = (
    "recording,rows,cols,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far\n"
    "a/4CH,40,32,1,16,-35,35,3,36\nb*,40,32,1,16,-35,35,3,36\n"
)
SAMPLES = (
    "name,case_id,view,phase,copy,spacing_mm_row,spacing_mm_col,frame_id\n"
    "a_4CH_ED,a,4CH,ED,1,0.5,0.5,a_4CH_ED\nb_4CH_ES,b,4CH,ES,0,0.5,0.25,b_4CH_ES\n"
)
TABLES: dict[str, Callable[[Path], Path]] = {
    "dataset.json": lambda folder: nnunet(folder, "dataset.json"),
    "splits_final.json": lambda folder: nnunet(folder, "splits_final.json"),
    "FileList.csv": lambda folder: an_echonet(folder) / "FileList.csv",
    "VolumeTracings.csv": lambda folder: an_echonet(folder) / "VolumeTracings.csv",
    "cases.csv": lambda folder: text(
        with_labels(folder) / "cases.csv",
        "frame,case,view,phase,split,spacing_mm\na_4CH_ED,p1,4CH,ED,train,0.5\nb_4CH_ES,p2,,,val,\n",
    ),
    "samples.csv": lambda folder: text(with_labels(folder) / "samples.csv", SAMPLES),
    "classes.csv": lambda folder: text(
        with_labels(folder) / "classes.csv", "class_id,name\n0,background\n1,LV\n2,myo\n3,LA\n"
    ),
    "fans.csv": lambda folder: text(with_labels(folder).with_name("fans.csv"), FANS),
    "Info_4CH.cfg": lambda folder: text(
        a_camus(folder) / "database_nifti" / "p1" / "Info_4CH.cfg",
        "ED: 1\nES: 12\nNbFrame: 12\nSex: F\nAge: 50\nImageQuality: Good\nEF: 46\nOther: 3\n",
    ),
    "subgroup_training.txt": lambda folder: text(
        a_camus(folder) / "database_split" / "subgroup_training.txt", "p1\np2\n"
    ),
    "labelme": labelme,
    "coco": coco,
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_table_is_one_line_or_a_remark(table: str, tmp_path: Path) -> None:
    path = TABLES[table](tmp_path)
    count = 120 if "FileList" in table or "Tracings" in table else COUNT
    check_damaged(read_beside if table == "fans.csv" else read_dataset, path, count, name="")


def read_beside(path: Path) -> int:
    return read_dataset(path.with_name("data") / "images" / "a_4CH_ED.png")
