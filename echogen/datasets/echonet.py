"""EchoNet-Dynamic: apical four-chamber videos with the left ventricle traced in two frames.

`Videos/X.avi`, `FileList.csv` (what is known of each video) and `VolumeTracings.csv`. The tables
do not say which traced frame is which: the one with the larger cavity is taken for the end of
diastole, ED, the one with the smaller for ES. Pixels have no millimetres. A frame's key carries its
tracing, so that its fingerprint needs the video alone, and not a table of 20 MB. Videos are decoded
by PyAV, the optional extra `video`, which is imported when the first frame is read.

Ouyang et al., Nature 580, 2020; https://echonet.github.io/dynamic.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from echogen.datasets.base import Dataset, as_number, list_dataset, relative, resolve_labels
from echogen.datasets.tracings import (
    TRACINGS,
    VideoTracings,
    avi_name,
    fill_polygon,
    read_table,
    read_tracings,
    tracing_of,
)
from echogen.errors import DatasetError, UsageError
from echogen.support.words import counted
from echogen.types import LV_CAVITY, Case, Frame, FrameKey, UInt8HW

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
) -> Dataset:
    """The two traced frames of each video; without `need_labels` the same frames, as images alone.

    Args:
        root: the folder that holds `Videos/`.
        labels: {class id: name}, with 1, the LV cavity; None takes `LABELS`.
        need_labels: whether the tracings are filled.

    Raises:
        DatasetError: a table is not there or lacks a column, or PyAV is not installed.
        UsageError: `labels` declares an impossible class id, or not class 1.
    """
    _require_decoder(root)
    declared = resolve_labels(LABELS if labels is None else labels)
    if LV_CAVITY not in declared:
        raise UsageError(
            f"labels: the tracings are of class {LV_CAVITY}, the LV cavity; declare it as well."
        )
    listed, remarks = _read_files(root)
    tracings = read_tracings(root)
    there = {path.name for path in (root / VIDEOS).iterdir() if not path.name.startswith(".")}
    frames: list[FrameKey] = []
    unusable: list[tuple[FrameKey, str]] = []
    for name in sorted(listed.keys() | tracings.keys()):
        video, traced = listed.get(name), tracings.get(name)
        reason = _reason(name, video, traced, there)
        for key, lost in _frames(root, name, video, traced or VideoTracings(), reason):
            if lost:
                unusable.append((key, lost))
            else:
                frames.append(key)
    remarks += _about(listed, tracings, there)
    return list_dataset(
        root,
        "echonet",
        "echonet layout (AVI)",
        frames,
        read_traced if need_labels else read_picture,
        labels=declared,
        cases=[Case(name[: -len(".avi")], video.info) for name, video in sorted(listed.items())],
        unusable=unusable,
        remarks=remarks,
        licence=LICENCE,
        extra={"spacing": "unknown", "files": ["AVI"], "citation": REFERENCE},
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
        raise DatasetError(f"{name}: frame {tracing.frame} is traced outside of the image.")
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
    root: Path, name: str, video: _Video | None, traced: VideoTracings, reason: str
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


def _reason(name: str, video: _Video | None, traced: VideoTracings | None, there: set[str]) -> str:
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
            odd.append(f"{FILES} line {number}: {name} appears twice; the first line is used.")
        found.setdefault(avi_name(name), _Video(info, split))
    more = len(odd) - MANY
    return found, odd[:MANY] + ([f"{FILES}: {more} more lines like these."] if more > 0 else [])


def _about(
    listed: Mapping[str, _Video], tracings: Mapping[str, VideoTracings], there: set[str]
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


def _require_decoder(root: Path) -> None:
    """Refuse a dataset of videos where nothing can decode them.

    Raises:
        DatasetError: PyAV is not installed.
    """
    if find_spec("av") is None:
        raise DatasetError(
            f"{root}: contains videos, but PyAV, which reads them, is not installed; pip install "
            "'echogen[video]'"
        )


def read_video_frame(path: Path, number: int, name: str) -> UInt8HW:
    """Frame `number` (from 0) of a video's first stream, (H, W) uint8.

    Frames are decoded from the first one on, by one thread, so that the same file gives the same
    pixels. Colours become luminance, in the full range 0..255.

    Args:
        path: the video.
        number: in the order of display.
        name: how messages call the file.

    Raises:
        DatasetError: it cannot be decoded that far, or ends before; one line.
    """
    import av

    held = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{name}: holds no video.")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for picture in container.decode(stream):
                if held == number and picture.is_corrupt:
                    raise DatasetError(f"{name}: frame {number} is damaged.")
                if held == number:
                    return np.ascontiguousarray(picture.to_ndarray(format="gray"))
                held += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or "damaged"
        raise DatasetError(f"{name}: cannot be decoded up to frame {number} ({reason}).") from error
    raise DatasetError(
        f"{name}: frame {number} is past the end of the video, which holds {held} (from 0)."
    )
