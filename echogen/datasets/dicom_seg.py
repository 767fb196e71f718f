"""DICOM Segmentations: whose picture each of their planes labels, and the planes as class ids.

Binary and fractional segments and label maps are read (PS3.3, A.51 and C.8.20). A plane names the
file and the picture it was drawn on; segments are told apart by their numbers in one file, and by
their labels across files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.base import resolve_labels
from echogen.datasets.dicom_header import damage_told, quiet_pydicom, read_dicom
from echogen.datasets.dicom_pixels import decoded
from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.types import UInt8HW

MODALITY = "SEG"
MOST_OVERLAP = 0.01
HALF = 0.5


@dataclass(frozen=True)
class Plane:
    """One plane of a segmentation.

    Attributes:
        number: in its file, from 0.
        segment: its segment's number; 0 in a label map, whose pixels are segments' numbers.
        instance: of the file that it labels; empty where the plane does not say.
        picture: in that file, from 0; None where the plane does not say.
    """

    number: int
    segment: int
    instance: str
    picture: int | None


@dataclass(frozen=True)
class Segmentation:
    """A file of segments.

    Attributes:
        path: of the file.
        names: {segment's number: its label}.
        planes: in the order of the file.
    """

    path: Path
    names: Mapping[int, str]
    planes: tuple[Plane, ...]

    def pictures_of(self, instance: str, frames: int) -> set[int]:
        """Which pictures of a file with so many it labels, from 0."""
        return {
            0 if plane.picture is None else plane.picture
            for plane in self.planes
            if plane.instance == instance and (plane.picture is not None or frames == 1)
        }


def read_segmentation(path: Path) -> Segmentation:
    """A segmentation without its pixels.

    Raises:
        DatasetError: one line without the file's name: it cannot be read, or names no segment.
    """
    found = read_dicom(path, pixels=False)
    with quiet_pydicom(), damage_told("a DICOM SEG whose segments cannot be read."):
        names = {int(one.SegmentNumber): _name(one) for one in found.SegmentSequence}
        planes = tuple(_planes(found))
    return Segmentation(path, names, planes)


def name_classes(
    used: Sequence[Segmentation], labels: Mapping[int, str] | None
) -> tuple[dict[int, str], dict[Path, dict[int, int]], dict[Path, str]]:
    """Which class each segment is.

    A segment is the declared class of its name. Where none are declared, segments keep their
    numbers if these mean the same in every file, and are numbered by name if not.

    Returns:
        {class id: name}; {file: {segment: class id}}; {file: why it cannot be used, one line}.
    """
    spelt = sorted({name for one in used for name in one.names.values()}, reverse=True)
    found = [name for _, name in sorted({_folded(name): name for name in spelt}.items())]
    numbers = {(number, _folded(name)) for one in used for number, name in one.names.items()}
    consistent = len(numbers) == len({n for n, _ in numbers}) == len({name for _, name in numbers})
    if labels is not None:
        declared = resolve_labels(labels)
    elif consistent:
        first = {number: name for one in used for number, name in one.names.items()}
        declared = resolve_labels(first if all(0 < n < 255 for n in first) else _by_name(found))
    else:
        declared = resolve_labels(_by_name(found))
    ids = {_folded(name): label for label, name in declared.items()}
    segments: dict[Path, dict[int, int]] = {}
    refused: dict[Path, str] = {}
    for one in used:
        unknown = sorted({name for name in one.names.values() if _folded(name) not in ids})
        if unknown:
            known = ", ".join(name for label, name in declared.items() if label)
            refused[one.path] = (
                f"its segmentation has a segment called {unknown[0]!r}, which is not a class; "
                f"declared are {known}: rename it, or declare it in labels."
            )
        else:
            segments[one.path] = {n: ids[_folded(name)] for n, name in one.names.items()}
    return declared, segments, refused


def read_classes(
    path: Path, instance: str, picture: int, frames: int, segments: Mapping[int, int]
) -> UInt8HW:
    """The class ids that a segmentation has for a picture, (H, W).

    Args:
        path: of the segmentation.
        instance: of the picture's file.
        picture: from 0.
        frames: pictures in that file.
        segments: {segment: class id}.

    Raises:
        DatasetError: one line without the file's name: it cannot be decoded, or segments overlap.
    """
    found = read_dicom(path, pixels=True)
    broken = "its segmentation cannot be decoded; damaged or truncated."
    with quiet_pydicom(), damage_told(broken):
        planes = [
            plane
            for plane in _planes(found)
            if plane.instance == instance
            and (plane.picture == picture or (plane.picture is None and frames == 1))
        ]
        kind = str(found.get("SegmentationType") or "BINARY")
        scale = float(found.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1.0
        if problem := too_large(int(found.Rows), int(found.Columns), max(len(planes), 1), "f8"):
            raise DatasetError(f"its segmentation states {problem}")
        drawn = [(plane.segment, _decoded(found, path, plane.number) / scale) for plane in planes]
    if kind != "LABELMAP" and any(segment not in segments for segment, _ in drawn):
        raise DatasetError("its segmentation has a plane of a segment that it does not describe.")
    if not drawn:
        raise DatasetError("its segmentation no longer labels this picture; run the command again.")
    if kind == "LABELMAP":
        return _looked_up(drawn[0][1], segments)
    return _combined(drawn, segments)


def _combined(
    drawn: Sequence[tuple[int, npt.NDArray[np.float64]]], segments: Mapping[int, int]
) -> UInt8HW:
    """Segments as one map: where two meet, the one that fills more of the pixel."""
    shares = np.stack([np.where(share >= HALF, share, 0.0) for _, share in drawn])
    held = (shares > 0).sum(axis=0)
    if (held > 1).sum() > MOST_OVERLAP * (held > 0).sum():
        names = " and ".join(str(segment) for segment, _ in drawn[:3])
        raise DatasetError(
            f"segments {names} of its segmentation overlap in {int((held > 1).sum())} pixels; a "
            "pixel has one class, export segments that do not overlap."
        )
    ids = np.array([segments[segment] for segment, _ in drawn], np.uint8)
    classes: UInt8HW = np.where(held > 0, ids[shares.argmax(axis=0)], 0).astype(np.uint8)
    return classes


def _looked_up(values: npt.NDArray[np.float64], segments: Mapping[int, int]) -> UInt8HW:
    classes = np.zeros(values.shape, np.uint8)
    for segment, label in segments.items():
        classes[values == segment] = label
    return classes


def _decoded(found: Any, path: Path, number: int) -> npt.NDArray[np.float64]:
    syntax = found.file_meta.TransferSyntaxUID
    shape = int(found.Rows), int(found.Columns)
    size = shape[0] * shape[1]
    within_a_byte = found.BitsAllocated == 1 and size % 8 != 0
    if within_a_byte and syntax.is_little_endian and not syntax.is_encapsulated:
        first, skip = divmod(number * size, 8)  # planes follow each other without padding
        packed = np.frombuffer(found.PixelData[first : first + size // 8 + 2], np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[skip : skip + size]
        return bits.reshape(shape).astype(np.float64)
    values, _ = decoded(found, path, number)
    return np.asarray(values, np.float64)


def _planes(found: Any) -> Iterator[Plane]:
    shared = (found.get("SharedFunctionalGroupsSequence") or [None])[0]
    groups = found.get("PerFrameFunctionalGroupsSequence") or [None]
    for number, group in enumerate(groups):
        segment = _first(group, shared, "SegmentIdentificationSequence")
        source = _first(group, shared, "DerivationImageSequence")
        source = (source.get("SourceImageSequence") or [None])[0] if source is not None else None
        instance = str(source.get("ReferencedSOPInstanceUID") or "") if source is not None else ""
        said = source.get("ReferencedFrameNumber") if source is not None else None
        pictures = [None] if said in (None, "") else [int(n) - 1 for n in _listed(said)]
        for picture in pictures:
            yield Plane(
                number,
                int(segment.ReferencedSegmentNumber) if segment is not None else 0,
                instance or _only_instance(found),
                picture,
            )


def _listed(value: Any) -> Iterable[Any]:
    return value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def _first(group: Any, shared: Any, keyword: str) -> Any:
    for place in (group, shared):
        if place is not None and place.get(keyword):
            return place.get(keyword)[0]
    return None


def _only_instance(found: Any) -> str:
    """The one file that a segmentation refers to as a whole; empty where there are several."""
    named = {
        str(one.get("ReferencedSOPInstanceUID") or "")
        for series in found.get("ReferencedSeriesSequence") or ()
        for one in series.get("ReferencedInstanceSequence") or ()
    }
    return named.pop() if len(named) == 1 else ""


def _name(segment: Any) -> str:
    label = str(segment.get("SegmentLabel") or "").strip()
    codes = segment.get("SegmentedPropertyTypeCodeSequence") or ()
    meant = str(codes[0].get("CodeMeaning") or "").strip() if codes else ""
    return label or meant or f"segment {int(segment.SegmentNumber)}"


def _by_name(found: Sequence[str]) -> dict[int, str]:
    return dict(enumerate(found, 1))


def _folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
