"""EchoNet-Dynamic: apical four-chamber videos with the left ventricle traced in two frames.

`Videos/X.avi`, `FileList.csv` (what is known of each video) and `VolumeTracings.csv`. The tables
do not say which traced frame is which: the one with the larger cavity is taken for the end of
diastole, ED, the one with the smaller for ES. Pixels have no millimetres. A frame's key carries its
tracing, so that its fingerprint needs the video alone, and not a table of 20 MB.

Ouyang et al., Nature 580, 2020; https://echonet.github.io/dynamic.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echogen.datasets.base import Listing, relative, resolve_labels
from echogen.datasets.polygon import fill_polygon
from echogen.datasets.tracings import (
    TRACINGS,
    Traced,
    as_number,
    avi_name,
    read_table,
    read_tracings,
    tracing_of,
)
from echogen.datasets.video import read_video_frame, require_decoder
from echogen.errors import DatasetError, UsageError
from echogen.support.words import counted
from echogen.types import LV_CAVITY, Case, Frame, FrameKey, Provenance, UInt8HW

FILES, VIDEOS, VIEW = "FileList.csv", "Videos", "4CH"
LABELS: Mapping[int, str] = {0: "background", LV_CAVITY: "LV cavity"}
LICENCE = (
    "EchoNet-Dynamic: Stanford University research use agreement, non-commercial, no "
    "redistribution; cite Ouyang et al. 2020"
)
REFERENCE = (
    'D. Ouyang, B. He, A. Ghorbani, N. Yuan, et al., "Video-based AI for beat-to-beat assessment '
    'of cardiac function", Nature 580, 252-256, 2020, doi 10.1038/s41586-020-2145-8'
)
NUMBERS: Mapping[str, str] = {
    "EF": "ef",
    "EDV": "lv_edv_ml",
    "ESV": "lv_esv_ml",
    "FPS": "frame_rate",
    "NumberOfFrames": f"frames_{VIEW.lower()}",
}
MANY = 10


@dataclass(frozen=True)
class _Video:
    """A line of `FileList.csv`: {key of a case's info: number}, and the split."""

    info: Mapping[str, float | str]
    split: str


def is_echonet_layout(root: Path) -> bool:
    """Whether `FileList.csv` lies beside a folder `Videos/`."""
    return (root / FILES).is_file() and (root / VIDEOS).is_dir()


def list_echonet(
    root: Path, labels: Mapping[int, str] | None = None, *, need_labels: bool = True
) -> Listing:
    """The two traced frames of each video; without `need_labels` the same frames, as images alone.

    Args:
        root: the folder that holds `Videos/`.
        labels: {class id: name}, with 1, the LV cavity; None takes `LABELS`.
        need_labels: whether the tracings are filled.

    Raises:
        DatasetError: a table is not there or lacks a column, or PyAV is not installed.
        UsageError: `labels` declares an impossible class id, or not class 1.
    """
    require_decoder(root)
    declared = resolve_labels(LABELS if labels is None else labels)
    if LV_CAVITY not in declared:
        raise UsageError(
            f"labels: the tracings are of class {LV_CAVITY}, the LV cavity; declare it, too."
        )
    listed, remarks = _read_files(root)
    tracings = read_tracings(root)
    there = {path.name for path in (root / VIDEOS).iterdir() if not path.name.startswith(".")}
    frames: list[FrameKey] = []
    unusable: list[tuple[FrameKey, str]] = []
    for name in sorted(listed.keys() | tracings.keys()):
        video, traced = listed.get(name), tracings.get(name)
        reason = _reason(name, video, traced, there)
        for key, lost in _frames(root, name, video, traced or Traced(), reason):
            if lost:
                unusable.append((key, lost))
            else:
                frames.append(key)
    remarks += _about(listed, tracings, there)
    return Listing(
        root=root,
        provenance=Provenance(
            format="echonet",
            root_name=root.resolve().name,
            licence=LICENCE,
            labels=declared,
            extra={"spacing": "unknown", "files": ["AVI"], "citation": REFERENCE},
        ),
        title="echonet layout (AVI)",
        frames=tuple(sorted(frames, key=lambda key: key.frame_id)),
        known_cases=tuple(
            Case(name[: -len(".avi")], video.info) for name, video in sorted(listed.items())
        ),
        unusable=tuple(sorted(unusable, key=lambda pair: pair[0].frame_id)),
        remarks=tuple(remarks),
        read_frame=read_traced if need_labels else read_picture,
    )


def read_traced(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """A frame of a video with its cavity filled as EchoNet's own code does, corners rounded.

    Raises:
        DatasetError: the video cannot be decoded, its frame is empty, or the tracing lies outside.
    """
    name = relative(root, key.paths[0])
    tracing = tracing_of(key.detail)
    image = _picture(key.paths[0], tracing.frame, name)
    corners = np.rint(tracing.outline).astype(np.int64)
    cavity = fill_polygon(corners, (image.shape[0], image.shape[1]))
    if not cavity.any():
        raise DatasetError(f"{name}: the tracing of frame {tracing.frame} lies outside of it.")
    label = np.where(cavity, np.uint8(LV_CAVITY), np.uint8(0))
    return Frame(key=key, image=image, label=label, spacing_mm=None)


def read_picture(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """A frame of a video whose label is all background.

    Raises:
        DatasetError: the video cannot be decoded, or its frame is empty.
    """
    image = _picture(key.paths[0], tracing_of(key.detail).frame, relative(root, key.paths[0]))
    return Frame(key=key, image=image, label=np.zeros_like(image), spacing_mm=None)


def _picture(path: Path, number: int, name: str) -> UInt8HW:
    image = read_video_frame(path, number, name)
    if image.min() == image.max():
        raise DatasetError(f"{name}: frame {number} is empty, every pixel is {image.flat[0]}.")
    return image


def _frames(
    root: Path, name: str, video: _Video | None, traced: Traced, reason: str
) -> Iterator[tuple[FrameKey, str]]:
    """Both frames of a video, each with what is wrong with it."""
    case, path = name[: -len(".avi")], root / VIDEOS / name
    count = float(video.info.get(NUMBERS["NumberOfFrames"], math.inf)) if video else math.inf
    for phase, tracing in (("ED", traced.diastole), ("ES", traced.systole)):
        lost = reason
        if not reason and tracing is not None and tracing.frame >= count:
            lost = (
                f"{TRACINGS}: frame {tracing.frame} of {name} is traced, but {FILES} says that it "
                f"holds {count:g} (from 0)."
            )
        detail = tracing.text() if tracing is not None else ""
        split = video.split if video else ""
        frame_id = f"{case}_{VIEW}_{phase}"
        yield FrameKey(frame_id, case, VIEW, phase, split, (path,), detail=detail), lost


def _reason(name: str, video: _Video | None, traced: Traced | None, there: set[str]) -> str:
    if video is None:
        return f"{FILES}: does not list {name}, which {TRACINGS} traces."
    if name not in there:
        return f"{VIDEOS}/{name}: no such file, but {FILES} lists it."
    if traced is None:
        return f"{TRACINGS}: does not trace {name}."
    return traced.reason


def _read_files(root: Path) -> tuple[dict[str, _Video], list[str]]:
    """{file name of a video: what is known of it}, and remarks."""
    found: dict[str, _Video] = {}
    odd: list[str] = []
    for number, values in read_table(root, FILES, ("FileName", "Split", *NUMBERS)):
        name, split, *texts = values
        info: dict[str, float | str] = {}
        for column, text in zip(NUMBERS, texts, strict=True):
            value = as_number(text)
            if value is None:
                odd.append(
                    f"{FILES} line {number}: {column} is {text!r}, expected a number; left out."
                )
            else:
                info[NUMBERS[column]] = value
        if avi_name(name) in found:
            odd.append(f"{FILES} line {number}: {name} is there twice; the first line is taken.")
        found.setdefault(avi_name(name), _Video(info, split))
    more = len(odd) - MANY
    return found, odd[:MANY] + ([f"{FILES}: {more} more lines like these."] if more > 0 else [])


def _about(
    listed: Mapping[str, _Video], tracings: Mapping[str, Traced], there: set[str]
) -> list[str]:
    remarks = ["EchoNet-Dynamic has no spacing: lengths and volumes are in pixels."]
    unlisted = sum(name.lower().endswith(".avi") for name in there - listed.keys())
    if unlisted:
        remarks.append(f"{VIDEOS}/: {counted(unlisted, 'video')} not in {FILES}; left out.")
    others = sum(traced.others for traced in tracings.values())
    if others:
        remarks.append(
            f"{TRACINGS}: {counted(others, 'tracing')} between the largest and the smallest of "
            "their videos; left out."
        )
    return remarks
