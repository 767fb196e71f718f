"""nnU-Net's raw dataset (version 2): `imagesTr/X_0000.nii.gz` with `labelsTr/X.nii.gz`.

`dataset.json` says what the class ids mean and how files end; only `imagesTr` is read. Fold 0 of
`splits_final.json` gives the split. In what `echogen export --to nnunet` wrote, copies are frames
of their own of the case that they were made of.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from echogen.config import DatasetConfig
from echogen.datasets.base import AS_FOUND, Dataset, key_by_name, list_dataset, list_pairs, relative
from echogen.datasets.exported import NO_SPACING, copy_number, exported_samples, recording_of
from echogen.datasets.integrity import formats_of
from echogen.datasets.nnunet_json import DESCRIPTION, Description, read_description
from echogen.datasets.pixels import AS_STORED, Reading, as_set, read_frame, read_image
from echogen.errors import DatasetError
from echogen.support.reading import read_json
from echogen.support.words import counted, one_line
from echogen.types import Frame, FrameKey

SPLITS = "splits_final.json"
IMAGES, LABELS, CHANNEL = "imagesTr", "labelsTr", "_0000"
_COPY = re.compile(r"(?P<case>.+)c(?P<number>\d{2,})")


def is_nnunet_layout(root: Path) -> bool:
    """Whether `dataset.json` lies beside a folder `imagesTr/`."""
    return os.path.lexists(root / DESCRIPTION) and (root / IMAGES).is_dir()


def list_nnunet(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    settings: DatasetConfig = AS_FOUND,
) -> Dataset:
    """The training pairs under `root`; without `need_labels`, the training images alone.

    Args:
        root: a folder such as `Dataset501_Hearts`.
        labels: {class id: name}; None takes those of `dataset.json`.
        need_labels: whether an image needs a label to be a frame.
        settings: what the files do not say.

    Raises:
        DatasetError: `dataset.json` cannot be read, or asks for what is not supported: several
            channels, regions instead of classes, files that end otherwise; there is no image; or
            a frame is in both halves of fold 0.
        UsageError: `labels` declares an impossible class id.
    """
    description = read_description(root, labels)
    images = _files(root / IMAGES, CHANNEL + description.ending)
    if not images:
        raise DatasetError(f"{root}: expected {IMAGES}/X{CHANNEL}{description.ending}, found none.")
    splits, remarks = _read_splits(root)
    samples = exported_samples(root) if description.made_here else {}
    frames, unusable = list_pairs(
        root,
        images,
        _files(root / LABELS, description.ending) if need_labels else None,
        (f"{IMAGES}/{{}}{CHANNEL}{description.ending}", f"{LABELS}/{{}}{description.ending}"),
        lambda stem, paths: _key(
            stem, description.made_here, samples.get(stem), splits.get(stem, ""), paths
        ),
    )
    remarks += _about(root, description, images, frames, splits)
    without = description.ending == ".png" or all(key.detail for key in frames)
    (kind,) = formats_of([description.ending])
    return list_dataset(
        root,
        "nnunet",
        f"nnunet layout ({kind})",
        frames,
        partial(read_labelled, ignore=description.ignore, reading=Reading.of(settings))
        if need_labels
        else as_set(read_image, settings),
        labels=description.labels,
        unusable=unusable,
        remarks=remarks,
        licence=description.licence,
        extra={
            "spacing": "unknown" if without else "known",
            "files": [kind],
            "citation": description.citation,
        },
    )


def read_labelled(
    root: Path,
    key: FrameKey,
    labels: Mapping[int, str],
    *,
    ignore: int | None = None,
    reading: Reading = AS_STORED,
) -> Frame:
    """`pixels.read_frame`, without pixels to be ignored, and without a spacing that is made up.

    Args:
        root, key, labels, reading: see `pixels.read_frame`.
        ignore: the class id that means "not labelled"; None where there is none.

    Raises:
        DatasetError: as `pixels.read_frame`, or some pixels are to be ignored.
    """
    allowed = labels if ignore is None else {**labels, ignore: "ignore"}
    frame = read_frame(root, key, allowed, reading=reading)
    ignored = int((frame.label == ignore).sum()) if ignore is not None else 0
    if ignored:
        raise DatasetError(
            f"{relative(root, key.paths[-1])}: {counted(ignored, 'pixel')} to be ignored (class id "
            f"{ignore}); expected every pixel to have a class, label them or leave the frame out."
        )
    return replace(frame, spacing_mm=None) if key.detail == NO_SPACING else frame


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """{file name without `ending`: its path}."""
    if not folder.is_dir():
        return {}
    return {
        path.name[: -len(ending)]: path
        for path in sorted(folder.iterdir())
        if path.name.endswith(ending) and not path.name.startswith(".") and path.name != ending
    }


def _key(
    stem: str,
    made_here: bool,
    sample: Mapping[str, str] | None,
    split: str,
    paths: tuple[Path, ...],
) -> FrameKey:
    if sample is not None:
        detail = "" if sample["spacing_mm_row"] else NO_SPACING
        case, view, phase = sample["case_id"], sample["view"], sample["phase"]
        copy = copy_number(sample)
        return FrameKey(stem, case, view, phase, split, paths, detail=detail, copy=copy,
                        recording=recording_of(sample))  # fmt: skip
    key = key_by_name(stem, split, paths)
    numbered = _COPY.fullmatch(key.case_id) if made_here and key.view else None
    if numbered is None:
        return key
    return replace(key, case_id=numbered["case"], copy=int(numbered["number"]))


def _read_splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """{frame id: `train` or `val`} of fold 0, and remarks."""
    path = root / SPLITS
    try:
        fold = read_json(path, DatasetError, SPLITS, foreign=True)[0]
        halves = {half: [str(name) for name in fold[half]] for half in ("train", "val")}
    except FileNotFoundError:
        return {}, []
    except DatasetError as error:
        return {}, [f"{SPLITS}: no split from it ({error})."]
    except (LookupError, TypeError) as error:
        expected = f"expected [{{train: [...], val: [...]}}, ...] ({type(error).__name__})"
        return {}, [f"{SPLITS}: {expected}; no split from it."]
    both = sorted(set(halves["train"]) & set(halves["val"]))
    if both:
        raise DatasetError(
            f"{SPLITS}: {one_line(both[0], 80)} is in both halves of fold 0; remove it from one of "
            "them."
        )
    return {name: half for half, names in halves.items() for name in names}, []


def _about(
    root: Path,
    description: Description,
    images: Mapping[str, Path],
    frames: list[FrameKey],
    splits: Mapping[str, str],
) -> list[str]:
    """What a user should know, one line each."""
    remarks = []
    if description.training is not None and description.training != len(frames):
        remarks.append(
            f"{DESCRIPTION}: numTraining is {description.training}, "
            f"{counted(len(frames), 'frame')} here."
        )
    there = {path for path in (root / IMAGES).iterdir() if not path.name.startswith(".")}
    other = len(there - set(images.values()))
    if other:
        remarks.append(f"{IMAGES}/: {counted(other, 'other file')}; left out.")
    absent = sorted(splits.keys() - images.keys())
    if absent:
        remarks.append(
            f"{SPLITS}: {counted(len(absent), 'frame')} listed but not found, such as {absent[0]}."
        )
    halves = defaultdict(set)
    for key in frames:
        halves[key.case_id].add(key.split)
    torn = sorted(case for case, found in halves.items() if {"train", "val"} <= found)
    if torn:
        remarks.append(
            f"{SPLITS}: frames of {counted(len(torn), 'case')}, such as {torn[0]}, are in both "
            "halves of fold 0: what is measured on the second half comes out too good."
        )
    return remarks
