"""The labels of DICOM pictures: a picture or a volume beside the file, or a DICOM SEG anywhere.

For `X.dcm`: `X.png` or `X_gt.png`, `X_gt.nii.gz` or `X_gt.nii` of (x, y) for one picture, and of
(x, y, picture) for several, of which those that are not all background are labelled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.datasets.dicom_header import Header, stem_of
from echogen.datasets.dicom_pixels import DicomFile
from echogen.datasets.dicom_seg import Segmentation, read_classes
from echogen.datasets.pixels import read_values
from echogen.errors import DatasetError
from echogen.types import FrameKey, UInt8HW

BESIDE = ("{}_gt.nii.gz", "{}_gt.nii", "{}_gt.png", "{}.png")


@dataclass(frozen=True)
class Labelled:
    """The labels of a file's pictures.

    Attributes:
        path: of the label's file; None without one.
        pictures: those that are labelled, from 0.
        segments: {segment: class id} of a segmentation; None where the file holds class ids.
        problem: why they cannot be used, one line without a file's name; empty where they can.
    """

    path: Path | None = None
    pictures: tuple[int, ...] = ()
    segments: Mapping[int, int] | None = None
    problem: str = ""

    @property
    def detail(self) -> str:
        """What a frame's key carries of it."""
        return "" if self.segments is None else json.dumps(sorted(self.segments.items()))


NO_LABELS = Labelled()


def files_beside(path: Path) -> list[Path]:
    """The label files beside a DICOM file."""
    named = (path.with_name(name.format(stem_of(path))) for name in BESIDE)
    return [label for label in named if label.is_file()]


def labels_of(
    header: Header,
    beside: Sequence[Path],
    segmentations: Sequence[Segmentation],
    segments: Mapping[Path, Mapping[int, int]],
    refused: Mapping[Path, str],
) -> Labelled:
    """The labels of a file, by names and headers, and of volumes by which slices are empty.

    Args:
        header: of the file.
        beside: of `files_beside`.
        segmentations: those that label it.
        segments, refused: of `dicom_seg.name_classes`.
    """
    if not beside and not segmentations:
        return NO_LABELS
    if len(beside) + len(segmentations) > 1:
        return Labelled(
            problem=f"has {len(beside)} label files beside it and {len(segmentations)} DICOM SEG; "
            "keep one of them."
        )
    if beside:
        try:
            return Labelled(beside[0], _labelled_pictures(header, beside[0]))
        except DatasetError as error:
            return Labelled(problem=str(error))
    one = segmentations[0]
    if one.path in refused:
        return Labelled(problem=refused[one.path])
    pictures = tuple(sorted(one.pictures_of(header.instance, header.frames)))
    if not pictures:
        return Labelled(
            problem=f"holds {header.frames} pictures, and its segmentation does not say which of "
            "them it labels (ReferencedFrameNumber)."
        )
    if pictures[-1] >= header.frames:
        return Labelled(
            problem=f"its segmentation labels picture {pictures[-1] + 1}, but it holds "
            f"{header.frames}."
        )
    return Labelled(one.path, pictures, segments[one.path])


def read_label(file: DicomFile, key: FrameKey) -> UInt8HW:
    """The class ids of a frame, (H, W), not yet held against its picture.

    Raises:
        DatasetError: one line without a file's name.
    """
    header, picture = file.header, key.index or 0
    if key.detail:
        segments = {int(segment): int(label) for segment, label in json.loads(key.detail)}
        return read_classes(key.paths[1], header.instance, picture, header.frames, segments)
    classes: UInt8HW = _volume(key.paths[1])[picture]
    return classes


def _labelled_pictures(header: Header, path: Path) -> tuple[int, ...]:
    volume = _volume(path)
    if len(volume) != header.frames:
        raise DatasetError(
            f"its label has {len(volume)} slices, but it holds {header.frames} pictures; expected "
            f"{'(x, y, picture) in X_gt.nii.gz' if header.frames > 1 else 'one'}."
        )
    if header.frames == 1:
        return (0,)
    pictures = tuple(int(index) for index in np.flatnonzero(volume.any(axis=(1, 2))))
    if not pictures:
        raise DatasetError("its label is all background.")
    return pictures


def _volume(path: Path) -> npt.NDArray[np.uint8]:
    """A label's file as (pictures, H, W) class ids.

    Raises:
        DatasetError: it cannot be read, or holds other values; the file is called `its label`.
    """
    try:
        return read_values(path, "its label", "class ids")
    except OSError as error:
        raise DatasetError(f"its label cannot be read ({error.strerror}).") from None
