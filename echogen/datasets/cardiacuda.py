"""CardiacUDA: four-chamber videos of two hospitals as NIfTI, with some or all frames labelled.

`Site_G_20/patient-1-4_image.nii.gz` with `..._label.nii.gz`, a folder for each part of the dataset;
`label_all_frame/` has videos labelled throughout. The last number of a name is the view: 4 is the
apical four-chamber view, and the only one that is read, since class ids mean other things in the
others. A frame is read where its label is not empty. A chamber is stored as an area or as its
outline alone: outlines are filled.

Yang et al., ICCV 2023; https://github.com/xmed-lab/GraphEcho, datasets/cardiac_uda.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.datasets.base import Dataset, list_dataset, relative, resolve_labels
from echogen.datasets.integrity import sizes_of
from echogen.datasets.nifti_files import labelled_slices
from echogen.datasets.pixels import read_clip, read_frame, read_image
from echogen.errors import DatasetError
from echogen.support.threads import ahead
from echogen.support.words import counted
from echogen.types import BACKGROUND, Frame, FrameKey, UInt8HW

INNER, DENSE = "cardiacUDC_dataset", "label_all_frame"
PARTS = re.compile(rf"Site_\w+|{DENSE}")
VIDEO = re.compile(r"(?P<case>.+)-(?P<view>\d+)_(?P<what>image|label)\.nii(\.gz)?", re.DOTALL)
APICAL, VIEW = "4", "4CH"
LABELS: Mapping[int, str] = {0: "background", 1: "LV", 2: "LA", 3: "RA", 4: "RV"}
THINNEST = 5
"""Pixels across; what is thinner everywhere is an outline that does not close."""
UNLABELLED_FRAMES = 5
"""Taken of a video without labels; the labelled ones mostly have as many."""
LICENCE = "CardiacUDA: see the terms where it was downloaded; cite Yang et al. 2023"
REFERENCE = (
    'J. Yang, X. Ding, Z. Zheng, X. Xu, X. Li, "GraphEcho: Graph-Driven Unsupervised Domain '
    'Adaptation for Echocardiogram Video Segmentation", ICCV 2023, 11878-11887, arXiv 2309.11145'
)


@dataclass(frozen=True)
class _Video:
    """A video and its label; the part is the folder that it lies in."""

    part: str
    case: str
    image: Path | None
    label: Path | None

    @property
    def key(self) -> FrameKey:
        """What its frames have in common."""
        case = f"{self.part}_{self.case}"
        paths = tuple(path for path in (self.image, self.label) if path is not None)
        return FrameKey(f"{case}_{VIEW}", case, VIEW, "", self.part, paths)


def is_cardiacuda_layout(root: Path) -> bool:
    """Whether `Site_...` or `label_all_frame` lies here with a video in it."""
    return any(VIDEO.fullmatch(path.name) for folder in _folders(root) for path in folder.iterdir())


def list_cardiacuda(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    sequences: bool = False,
) -> Dataset:
    """The labelled frames of every four-chamber video; labels are unpacked to find them.

    Without `need_labels` the same frames as images alone, and some of each video that has no label.
    With `sequences` the frames of a video are moved and painted alike; without labels they are all.

    Raises:
        DatasetError: a folder cannot be read.
        UsageError: `labels` declares an impossible class id.
    """
    declared = resolve_labels(LABELS if labels is None else labels)
    videos, others = _videos(root)
    bare = sum(video.label is None for video in videos)
    listed = [video for video in videos if video.label is not None or not need_labels]
    frames: list[FrameKey] = []
    unusable: list[tuple[FrameKey, str]] = []
    every = sequences and not need_labels
    for video, (numbers, reason) in zip(
        listed, ahead(partial(_numbers, root, every), listed, threads=4, depth=8), strict=True
    ):
        if reason:
            unusable.append((video.key, reason))
        frames += _keys(video, numbers, need_labels, sequences)
    remarks = ["CardiacUDA has no spacing: lengths and volumes are in pixels."]
    if bare and need_labels:
        remarks.append(f"{counted(bare, 'video')} without a label file; left out.")
    if need_labels and any(key.split == DENSE for key in frames):
        remarks.append(
            f"{DENSE}/: some of its files are said to number their classes in another way than the "
            f"sites; look at them (echogen preview --split {DENSE}), or leave them out by --split."
        )
    if others:
        remarks.append(
            f"{counted(others, 'video')} of other views than the apical one (-{APICAL}); left out."
        )
    return list_dataset(
        root,
        "cardiacuda",
        "cardiacuda layout (NIfTI)",
        frames,
        read_filled if need_labels else read_bare,
        labels=declared,
        unusable=unusable,
        remarks=remarks,
        licence=LICENCE,
        extra={"spacing": "unknown", "files": ["NIfTI"], "citation": REFERENCE},
        read_clip=read_clip,
    )


def read_filled(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """A labelled frame whose outlines are filled, without the 1 mm a pixel that files claim.

    Raises:
        DatasetError: as `pixels.read_frame`, or an outline does not close.
    """
    frame = read_frame(root, key, labels)
    filled = fill_outlines(frame.label)
    for label in np.unique(filled).tolist():
        if label != BACKGROUND and _is_thin(filled == label):
            raise DatasetError(
                f"{relative(root, key.paths[-1])}, frame {key.index}: {labels[label]} is a line "
                f"fewer than {THINNEST} pixels wide; expected an area, or an outline that closes."
            )
    return replace(frame, label=filled, spacing_mm=None)


def read_bare(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """`pixels.read_image` without the 1 mm a pixel that files claim."""
    return replace(read_image(root, key, labels), spacing_mm=None)


def fill_outlines(label: UInt8HW) -> UInt8HW:
    """(H, W) class ids with the background that a class encloses given to it.

    Where one class encloses another, the inner one keeps its pixels.
    """
    from scipy import ndimage

    filled = label.copy()
    for class_id in np.unique(label).tolist():
        if class_id != BACKGROUND:
            inside = ndimage.binary_fill_holes(label == class_id)
            filled[inside & (label == BACKGROUND)] = class_id
    return filled


def _is_thin(part: npt.NDArray[np.bool_]) -> bool:
    from scipy import ndimage

    return not ndimage.binary_erosion(part, np.ones((3, 3)), THINNEST // 2, border_value=1).any()


def _numbers(root: Path, every: bool, video: _Video) -> tuple[tuple[int, ...], str]:
    """Which frames of a video are read, and why there is none."""
    if video.image is None:
        return (), f"{relative(root, video.key.paths[0])}: a label without its image."
    name = relative(root, video.image)
    try:
        sizes = sizes_of(video.image, name)
        if len(sizes) != 3:
            return (), f"{name}: {len(sizes)} dimensions; expected columns x rows x frames."
        if every:
            return tuple(range(sizes[2])), ""
        if video.label is None:
            spread = np.linspace(0, sizes[2] - 1, min(UNLABELLED_FRAMES, sizes[2]))
            return tuple(np.rint(spread).astype(int).tolist()), ""
        of_label = relative(root, video.label)
        if (labelled := sizes_of(video.label, of_label)) != sizes:
            return (), (
                f"{of_label}: {' x '.join(map(str, labelled))}, but its video has "
                f"{' x '.join(map(str, sizes))} (columns x rows x frames); they must be the same."
            )
        numbers = labelled_slices(video.label, of_label)
    except DatasetError as error:
        return (), str(error)
    return numbers, "" if numbers else f"{of_label}: not one frame is labelled."


def _keys(
    video: _Video, numbers: Sequence[int], need_labels: bool, sequences: bool
) -> Iterator[FrameKey]:
    whole = video.key
    paths = whole.paths if need_labels else whole.paths[:1]
    for number in numbers:
        yield replace(
            whole,
            frame_id=f"{whole.frame_id}_f{number:03d}",
            paths=paths,
            index=number,
            sequence=whole.frame_id if sequences else "",
        )


def _folders(root: Path) -> list[Path]:
    """The dataset's parts, here or in its folder `cardiacUDC_dataset`."""
    inner = root / INNER
    place = inner if inner.is_dir() else root
    if PARTS.fullmatch(root.resolve().name):
        return [root]
    return sorted(path for path in place.iterdir() if path.is_dir() and PARTS.fullmatch(path.name))


def _videos(root: Path) -> tuple[list[_Video], int]:
    """The four-chamber videos with an image, sorted; and how many others there are."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    others = set()
    for folder in _folders(root):
        for path in sorted(folder.iterdir()):
            named = VIDEO.fullmatch(path.name)
            if named is None:
                continue
            if named["view"] != APICAL:
                others.add((folder.name, named["case"], named["view"]))
                continue
            files = found.setdefault((folder.resolve().name, named["case"]), {})
            files.setdefault(named["what"], path)
    videos = [
        _Video(part, case, files.get("image"), files.get("label"))
        for (part, case), files in sorted(found.items())
    ]
    return videos, len(others)
