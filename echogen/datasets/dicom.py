"""DICOM ultrasound, single and multi-frame, in folders to any depth, as archives write them.

Headers are read to list a folder, pixels when a frame is read. What says who the patient is stays
in the files: ids are pseudonyms (`dicom_cases`), and messages call a picture by its id, since names
of files and folders are often those of patients. Files of other modalities are left out.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from echogen.config import DatasetConfig
from echogen.datasets.base import (
    AS_FOUND,
    Dataset,
    UInt8Clip,
    digest_of,
    list_dataset,
    require_installed,
    resolve_labels,
)
from echogen.datasets.caselist import read_cases, with_cases
from echogen.datasets.dicom_cases import (
    case_table,
    known_of_cases,
    patients_of_several_studies,
    read_salt,
    recording_ids,
)
from echogen.datasets.dicom_header import (
    EXTENSIONS,
    INDEX,
    Header,
    may_be_dicom,
    read_header,
)
from echogen.datasets.dicom_labels import NO_LABELS, Labelled, files_beside, labels_of, read_label
from echogen.datasets.dicom_pixels import (
    MAX_COLOUR,
    believed_spacing,
    open_file,
    read_picture,
    read_pictures,
)
from echogen.datasets.dicom_regions import tissue_of
from echogen.datasets.dicom_seg import MODALITY, Segmentation, name_classes, read_segmentation
from echogen.datasets.pairing import walk_files
from echogen.datasets.pixels import check_classes
from echogen.errors import DatasetError
from echogen.support.words import counted
from echogen.types import Frame, FrameKey

ULTRASOUND = "US"
ROOT_NAME = "DICOM files"
"""What a store calls the folder, whose own name may be a patient's."""
LOOKED_AT = 5000
NOT_DICOM = "not a DICOM file but for its name, cut off, or unreadable; export it again."
UNLABELLED_PICTURES = 8
"""Pictures of a clip that are frames where none is labelled, evenly spread."""


@dataclass
class Scan:
    """What lies in a folder.

    Attributes:
        pictures: ultrasound.
        segmentations: DICOM SEG files.
        others: {modality: files} of what is left out.
        damaged: (file, reason).
    """

    pictures: list[Header] = field(default_factory=list)
    segmentations: list[Segmentation] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Recording:
    """A file of ultrasound pictures, under its pseudonyms."""

    case_id: str
    name: str
    header: Header
    labelled: Labelled = NO_LABELS


def is_dicom_layout(root: Path) -> bool:
    """Whether a DICOM file is among the first files under `root`; reads their first bytes."""
    return any(may_be_dicom(path) for path in islice(walk_files(root), LOOKED_AT))


def list_dicom(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    sequences: bool = False,
    settings: DatasetConfig = AS_FOUND,
) -> Dataset:
    """The labelled pictures under `root`; without `need_labels`, some of every file.

    With `sequences` those of a file are moved and painted alike; without labels they are all.

    Args:
        root: a folder.
        labels: {class id: name}; None takes those of the segmentations, else CAMUS' own.
        need_labels: False reads no labels, and takes at most 8 pictures of a file.
        settings: the file of the salt of the case ids (see `dicom_cases`), and the window of
            pictures of more than 8 bits that have none, and the share of colour that they may have.

    Raises:
        DatasetError: pydicom is not installed.
        UsageError: `labels` declares an impossible class id, or the salt's file is of no use.
    """
    scan = _scan(root)
    found, copies = _recordings(scan, _salt(settings.case_salt))
    recordings = [Recording(case, name, header) for case, name, header in found]
    declared = resolve_labels(labels if need_labels else {})
    if need_labels:
        declared, recordings = _with_labels(recordings, scan.segmentations, labels)
    frames: list[FrameKey] = []
    unusable = [(_stray(path), f"{_stray(path).frame_id}: {why}") for path, why in scan.damaged]
    unlabelled = 0
    for one in recordings:
        reason = _reason(one)
        if reason:
            unusable.append((_key(one, None), f"{one.name}: {reason}"))
        elif need_labels and one.labelled.path is None:
            unlabelled += 1
        else:
            frames += _keys(one, need_labels, sequences)
    frames, odd = with_cases(root, frames, read_cases(root))
    renamed = {key.paths[0]: key.case_id for key in frames}
    recordings = [
        replace(one, case_id=renamed.get(one.header.path, one.case_id)) for one in recordings
    ]
    spaced = [one.name for one in recordings if _spacing(one.header) is not None]
    return list_dataset(
        root,
        "dicom",
        "dicom layout (ultrasound)",
        frames,
        partial(read_frame, window=settings.window, max_colour=settings.max_colour),
        labels=declared,
        cases=known_of_cases((one.case_id, one.name, one.header) for one in recordings),
        unusable=unusable,
        remarks=[
            *odd,
            *_about(scan, recordings, copies, unlabelled, salted=settings.case_salt is not None),
        ],
        extra={"spacing": "known" if spaced else "unknown", "files": ["DICOM"]},
        read_clip=partial(read_clip, window=settings.window, max_colour=settings.max_colour),
        root_name=ROOT_NAME,
    )


def has_labels(root: Path) -> bool:
    """Whether a DICOM file under `root` has a label beside it, or there is a segmentation."""
    scan = _scan(root)
    return bool(scan.segmentations) or any(files_beside(one.path) for one in scan.pictures)


def who_is_who(root: Path, salt: Path | None = None) -> str:
    """CSV that says which patient and which file each case and recording is.

    Args:
        root, salt: as in `list_dicom`.

    Raises:
        DatasetError, UsageError: as `list_dicom`.
    """
    scan = _scan(root)
    damaged = [(_stray(path).frame_id, path) for path, _ in scan.damaged]
    return case_table(root, _recordings(scan, _salt(salt))[0], damaged)


def read_frame(
    root: Path,
    key: FrameKey,
    labels: Mapping[int, str],
    *,
    window: tuple[float, float] | None = None,
    max_colour: float = MAX_COLOUR,
) -> Frame:
    """A picture, black outside of its tissue, with its label; all background without one.

    Raises:
        DatasetError: it cannot be decoded, or its label does not go with it; called by its id.
    """
    try:
        file = open_file(key.paths[0], window, max_colour)
        image = read_picture(file, key.index or 0)
        label = np.zeros_like(image) if len(key.paths) == 1 else read_label(file, key)
        if len(key.paths) > 1:
            check_classes(label, "its label", image, "picture", labels)
    except DatasetError as error:
        raise DatasetError(f"{key.frame_id}: {error}") from None
    return Frame(key, image, label, file.spacing_mm, file.tissue.doubt)


def read_clip(
    root: Path,
    key: FrameKey,
    *,
    window: tuple[float, float] | None = None,
    max_colour: float = MAX_COLOUR,
) -> UInt8Clip | None:
    """Every picture of a frame's file, (N, H, W), black outside of the tissue; None of one alone.

    Raises:
        DatasetError: as `read_frame`.
    """
    try:
        file = open_file(key.paths[0], window, max_colour)
        return read_pictures(file) if file.header.frames > 1 else None
    except DatasetError as error:
        raise DatasetError(f"{key.frame_id}: {error}") from None


def _scan(root: Path) -> Scan:
    require_installed(root, "pydicom", "pydicom", "DICOM files", "dicom")
    scan = Scan()
    for path in walk_files(root):
        if not may_be_dicom(path):
            if path.suffix.lower() in EXTENSIONS:
                scan.damaged.append((path, NOT_DICOM))
            continue
        try:
            header = read_header(path)
            if header.modality == MODALITY:
                scan.segmentations.append(read_segmentation(path))
            elif header.modality == ULTRASOUND and all(header.shape):
                scan.pictures.append(header)
            elif header.modality == INDEX:
                continue
            elif header.instance:
                scan.others[header.modality or "of no modality"] += 1
            else:
                scan.damaged.append((path, "a damaged DICOM file, without ids or a picture."))
        except DatasetError as error:
            scan.damaged.append((path, str(error)))
    return scan


def _salt(path: Path | None) -> bytes:
    return b"" if path is None else read_salt(path)


def _recordings(scan: Scan, salt: bytes) -> tuple[list[tuple[str, str, Header]], int]:
    """(case id, recording id, header) of each file, and how many were the same file again."""
    groups: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for ids, header in zip(recording_ids(scan.pictures, salt), scan.pictures, strict=True):
        groups[ids].append(header)
    found, copies = [], 0
    for (case, name), headers in sorted(groups.items()):
        if len(headers) == 1:
            found.append((case, name, headers[0]))
            continue
        contents: dict[str, Header] = {}
        for header in headers:  # one id for several files: copies of one, or badly anonymised
            known = contents.setdefault(digest := digest_of(header.path), header)
            if known is not header and files_beside(header.path) and not files_beside(known.path):
                contents[digest] = header
        copies += len(headers) - len(contents)
        for number, (_, header) in enumerate(sorted(contents.items())):
            found.append((case, f"{name}{f'-{number + 1}' if number else ''}", header))
    return found, copies


def _with_labels(
    recordings: Sequence[Recording],
    segmentations: Sequence[Segmentation],
    labels: Mapping[int, str] | None,
) -> tuple[dict[int, str], list[Recording]]:
    """The classes, and the recordings with what labels them."""
    of: dict[str, list[Segmentation]] = defaultdict(list)
    for one in segmentations:
        for instance in {plane.instance for plane in one.planes}:
            of[instance].append(one)
    here = {recording.header.instance for recording in recordings}
    used = [one for one in segmentations if {plane.instance for plane in one.planes} & here]
    declared, segments, refused = name_classes(used, labels)
    if not used:
        declared = resolve_labels(labels)
    return declared, [
        Recording(
            one.case_id,
            one.name,
            one.header,
            labels_of(
                one.header,
                files_beside(one.header.path),
                of[one.header.instance],
                segments,
                refused,
            ),
        )
        for one in recordings
    ]


def _reason(one: Recording) -> str:
    header = one.header
    return header.problem or tissue_of(header.regions, header.shape).problem or one.labelled.problem


def _spacing(header: Header) -> tuple[float, float] | None:
    return believed_spacing(header, tissue_of(header.regions, header.shape))


def _keys(one: Recording, need_labels: bool, sequences: bool) -> Iterator[FrameKey]:
    frames = one.header.frames
    if frames == 1:
        yield _key(one, None)
        return
    count = frames if sequences else min(UNLABELLED_PICTURES, frames)
    spread = (index * frames // count for index in range(count))
    for index in one.labelled.pictures if need_labels else spread:
        yield replace(_key(one, index), sequence=one.name if sequences else "")


def _key(one: Recording, index: int | None) -> FrameKey:
    digits = max(3, len(str(one.header.frames - 1)))
    label = one.labelled.path
    return FrameKey(
        one.name if index is None else f"{one.name}_f{index:0{digits}d}",
        one.case_id,
        one.header.view,
        "",
        "",
        (one.header.path,) if label is None else (one.header.path, label),
        detail=one.labelled.detail,
        index=index,
        recording=one.name,
        private=True,
    )


def _stray(path: Path) -> FrameKey:
    """The key of a file that cannot be read at all."""
    try:
        digest = digest_of(path)
    except OSError:
        digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
    name = f"damaged_{digest[:8]}"
    return FrameKey(name, name, "", "", "", (path,), recording=name, private=True)


def _about(
    scan: Scan, recordings: Sequence[Recording], copies: int, unlabelled: int, *, salted: bool
) -> Iterator[str]:
    if scan.others:
        shown = ", ".join(f"{name} {count}" for name, count in sorted(scan.others.items()))
        count = sum(scan.others.values())
        yield f"{counted(count, 'file')} without an ultrasound picture left out ({shown})."
    if copies:
        yield f"{counted(copies, 'file')} left out, copies of others under another name."
    if unlabelled:
        yield f"{counted(unlabelled, 'ultrasound file')} without a label left out."
    headers = [one.header for one in recordings if not _reason(one)]
    bare = [header for header in headers if not header.regions]
    if bare:
        yield (
            f"{counted(len(bare), 'file')} without ultrasound regions: nothing tells text from "
            "tissue in them before the fan is found, and their spacing is unknown"
            + (" where no calibrated PixelSpacing gives it." if len(headers) else ".")
        )
    loose = [one for one in bare if one.pixel_spacing is not None and not one.pixel_spacing[2]]
    if loose:
        yield (
            f"{counted(len(loose), 'file')} with a PixelSpacing that is not said to be calibrated: "
            "it is not used."
        )
    doubts = [
        (one.name, tissue_of(one.header.regions, one.header.shape).doubt)
        for one in recordings
        if not _reason(one)
    ]
    doubts = [(name, doubt) for name, doubt in doubts if doubt]
    if doubts:
        name, doubt = doubts[0]
        yield f"{counted(len(doubts), 'file')} without a usable spacing, such as {name}: {doubt}"
    several = 0 if salted else patients_of_several_studies(scan.pictures)
    if several:
        yield (
            f"{counted(several, 'patient')} with several studies: case ids change if earlier "
            "studies are added; --case-salt keeps them."
        )
    yield (
        "Cases and frames have ids that name nobody; echogen validate --case-map FILE writes which "
        "patient and file each one is."
    )
