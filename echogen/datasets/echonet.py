"""EchoNet-Dynamic and EchoNet-Pediatric: videos with the left ventricle traced in two frames.

`Videos/X.avi`, `FileList.csv` (what is known of each video) and `VolumeTracings.csv`, of the
pediatric dataset once in each of `A4C/` and `PSAX/`. The tables do not say which traced frame is
which: the one with the larger cavity is taken for the end of diastole, ED, the one with the smaller
for ES. Pixels have no millimetres. A frame's key carries its tracing, so that its fingerprint needs
the video alone, and not a table of 20 MB.

Ouyang et al., Nature 580, 2020; https://echonet.github.io/dynamic. Reddy et al., J Am Soc
Echocardiogr 36, 2023; https://echonet.github.io/pediatric.
"""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echogen.datasets.base import (
    Dataset,
    as_number,
    is_id,
    list_dataset,
    relative,
    require_installed,
    resolve_labels,
)
from echogen.datasets.tracings import (
    TRACINGS,
    VideoTracings,
    avi_name,
    fill_polygon,
    read_head,
    read_table,
    read_tracings,
    tracing_of,
)
from echogen.datasets.videos import read_video, read_video_frame
from echogen.errors import DatasetError, UsageError
from echogen.support.words import counted, one_line
from echogen.types import LV_CAVITY, Case, Frame, FrameKey, UInt8HW

FILES, VIDEOS = "FileList.csv", "Videos"
VIEWS: Mapping[str, str] = {"A4C": "4CH", "PSAX": "PSAX"}
"""EchoNet-Pediatric's folders, and how their views are called here."""
LABELS: Mapping[int, str] = {0: "background", LV_CAVITY: "LV cavity"}
MANY = 10
VIDEO_NAME = re.compile(r"(?P<patient>.+)-(?P<visit>[^-]+)-(?P<instance>\d+)")
"""EchoNet-Pediatric's `CR32a7555-CR32a7582-000039`: the patient's code, the visit's, a number."""


@dataclass(frozen=True)
class _Source:
    """One of the two datasets.

    Attributes:
        title: its name.
        numbers: {column of `FileList.csv`: key of a case's info}.
        texts: the same of text.
        licence, reference: its terms, and what it asks to cite.
    """

    title: str
    numbers: Mapping[str, str]
    texts: Mapping[str, str]
    licence: str
    reference: str


DYNAMIC = _Source(
    "EchoNet-Dynamic",
    {"EF": "ef", "EDV": "lv_edv_ml", "ESV": "lv_esv_ml", "FPS": "frame_rate",
     "NumberOfFrames": "frames_4ch"},
    {},
    "EchoNet-Dynamic: Stanford University research use agreement, non-commercial, no "
    "redistribution; cite Ouyang et al. 2020",
    'D. Ouyang, B. He, A. Ghorbani, N. Yuan, et al., "Video-based AI for beat-to-beat assessment '
    'of cardiac function", Nature 580, 252-256, 2020, doi 10.1038/s41586-020-2145-8',
)  # fmt: skip
PEDIATRIC = _Source(
    "EchoNet-Pediatric",
    {"EF": "ef", "Age": "age"},  # weight and height narrow a child down, and nothing needs them
    {"Sex": "sex"},
    "EchoNet-Pediatric: Stanford University research use agreement, non-commercial, no "
    "redistribution; cite Reddy et al. 2023",
    'C. D. Reddy, L. Lopez, D. Ouyang, J. Y. Zou, B. He, "Video-based deep learning for automated '
    'assessment of left ventricular ejection fraction in pediatric patients", Journal of the '
    "American Society of Echocardiography 36(5), 482-489, 2023, doi 10.1016/j.echo.2023.01.015",
)


@dataclass(frozen=True)
class _Part:
    """A folder with both tables and its videos.

    Attributes:
        prefix: of its files, relative to the dataset's folder: empty, or such as `A4C/`.
        view: of its videos.
    """

    prefix: str
    view: str


@dataclass(frozen=True)
class _Video:
    """A line of `FileList.csv`: {key of a case's info: number or text}, and the split."""

    info: Mapping[str, float | str]
    split: str


def is_echonet_layout(root: Path) -> bool:
    """Whether `FileList.csv` lies beside a folder `Videos/`, here or in `A4C/` or `PSAX/`."""
    return bool(_parts(root))


def list_echonet(
    root: Path, labels: Mapping[int, str] | None = None, *, need_labels: bool = True
) -> Dataset:
    """The two traced frames of each video; without `need_labels` the same frames, as images alone.

    Args:
        root: the folder that holds `Videos/`, or `A4C/` and `PSAX/`.
        labels: {class id: name}, with 1, the LV cavity; None takes `LABELS`.
        need_labels: whether the tracings are filled.

    Raises:
        DatasetError: a table is not there or lacks a column, or PyAV is not installed.
        UsageError: `labels` declares an impossible class id, or not class 1.
    """
    require_installed(root, "av", "PyAV", "videos", "video")
    declared = resolve_labels(LABELS if labels is None else labels)
    if LV_CAVITY not in declared:
        raise UsageError(
            f"labels: the tracings are of class {LV_CAVITY}, the LV cavity; declare it as well."
        )
    parts = _parts(root)
    source = _source(root, parts[0])
    remarks = [f"{source.title} has no spacing: lengths and volumes are in pixels."]
    known: dict[str, list[Mapping[str, float | str]]] = defaultdict(list)
    frames: list[FrameKey] = []
    unusable: list[tuple[FrameKey, str]] = []
    for part in parts:
        listed, odd = _read_files(root, part.prefix, source)
        tracings = read_tracings(root, f"{part.prefix}{TRACINGS}")
        folder = root / f"{part.prefix}{VIDEOS}"
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        for name in sorted(listed.keys() | tracings.keys()):
            video, traced = listed.get(name), tracings.get(name)
            reason = _reason(part.prefix, name, video, traced, there)
            for key, lost in _frames(folder, part, name, video, traced or VideoTracings(), reason):
                if lost:
                    unusable.append((key, lost))
                else:
                    frames.append(key)
            if video is not None:
                known[_case_of(name)].append(video.info)
        remarks += [*odd, *_about(part, listed, tracings, there)]
    cases, unlike = _cases(known)
    return list_dataset(
        root,
        "echonet",
        "echonet layout (AVI)",
        frames,
        read_traced if need_labels else read_picture,
        labels=declared,
        cases=cases,
        unusable=unusable,
        remarks=[*remarks, *unlike],
        licence=source.licence,
        extra={"spacing": "unknown", "files": ["AVI"], "citation": source.reference},
        read_clip=read_video,
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


def _parts(root: Path) -> list[_Part]:
    """The folders with tables and videos: this one alone, or those of the views in it."""

    def complete(folder: Path) -> bool:
        return os.path.lexists(folder / FILES) and (folder / VIDEOS).is_dir()

    if complete(root):
        return [_Part("", VIEWS.get(root.resolve().name, VIEWS["A4C"]))]
    return [_Part(f"{name}/", view) for name, view in VIEWS.items() if complete(root / name)]


def _source(root: Path, part: _Part) -> _Source:
    """Which dataset it is, by the columns that only one has; the older one where neither fits."""
    there = set(read_head(root, f"{part.prefix}{FILES}"))
    return PEDIATRIC if {*PEDIATRIC.numbers, *PEDIATRIC.texts} <= there else DYNAMIC


def _frames(
    folder: Path,
    part: _Part,
    name: str,
    video: _Video | None,
    traced: VideoTracings,
    reason: str,
) -> Iterator[tuple[FrameKey, str]]:
    """Both frames of a video, each with what is wrong with it; none that was not to be traced."""
    stem, case, view = name[: -len(".avi")], _case_of(name), part.view
    count = float(video.info.get("frames_4ch", math.inf)) if video else math.inf
    for phase, tracing in (("ED", traced.diastole), ("ES", traced.systole)):
        if phase in traced.untraced and not reason:
            continue
        lost = reason
        if not reason and tracing is not None and tracing.frame >= count:
            lost = (
                f"{part.prefix}{TRACINGS}: frame {tracing.frame} of {name} is traced, but {FILES} "
                f"says that it holds {count:g} (from 0)."
            )
        detail = tracing.text() if tracing is not None else ""
        split = video.split if video else ""
        recording = "" if case == stem else f"{stem}/{view}"
        frame_id, paths = f"{stem}_{view}_{phase}", (folder / name,)
        key = FrameKey(
            frame_id, case, view, phase, split, paths, detail=detail, recording=recording
        )
        yield key, lost


def _case_of(name: str) -> str:
    """Whom a video is of: EchoNet-Pediatric has several of one child, EchoNet-Dynamic one each."""
    stem = name[: -len(".avi")]
    named = VIDEO_NAME.fullmatch(stem)
    return named["patient"] if named else stem


def _reason(
    prefix: str, name: str, video: _Video | None, traced: VideoTracings | None, there: set[str]
) -> str:
    if video is None:
        return f"{prefix}{FILES}: does not list {name}, which {TRACINGS} traces."
    if name not in there:
        return f"{prefix}{VIDEOS}/{name}: no such file, but {FILES} lists it."
    if traced is None:
        return f"{prefix}{TRACINGS}: does not trace {name}."
    return traced.reason


def _read_files(root: Path, prefix: str, source: _Source) -> tuple[dict[str, _Video], list[str]]:
    """{file name of a video: what is known of it}, and remarks; folds become `fold0` and so on."""
    found: dict[str, _Video] = {}
    odd: list[str] = []
    more = 0
    table = f"{prefix}{FILES}"
    columns = ("FileName", "Split", *source.texts, *source.numbers)
    for number, (name, split, *texts) in read_table(root, table, columns):
        info: dict[str, float | str] = {}
        for column, text in zip(columns[2:], texts, strict=True):
            value = as_number(text)
            if column in source.texts:
                info |= {source.texts[column]: text} if text and is_id(text) else {}
            elif value is None and len(odd) == MANY:
                more += 1
            elif value is None:
                odd.append(
                    f"{table} line {number}: {column} is {one_line(text, 40)!r}, expected a "
                    "number; left out."
                )
            else:
                info[source.numbers[column]] = value
        if avi_name(name) in found and len(odd) == MANY:
            more += 1
        elif avi_name(name) in found:
            odd.append(
                f"{table} line {number}: {one_line(name, 80)} appears twice; the first line is "
                "used."
            )
        fold = f"fold{split}" if split.isdecimal() else split
        found.setdefault(avi_name(name), _Video(info, fold))
    return found, odd + ([f"{table}: {more} more lines like these."] if more else [])


def _cases(
    known: Mapping[str, list[Mapping[str, float | str]]],
) -> tuple[list[Case], list[str]]:
    """What all videos of a case agree on, and how often they do not: EF and age change by visit."""
    cases: list[Case] = []
    unlike: Counter[str] = Counter()
    for case_id, infos in sorted(known.items()):
        values = {
            key: {info[key] for info in infos if key in info} for info in infos for key in info
        }
        cases.append(Case(case_id, {k: next(iter(v)) for k, v in values.items() if len(v) == 1}))
        unlike.update(key for key, found in values.items() if len(found) > 1)
    remarks = [
        f"{FILES}: {key} differs between the videos of {counted(count, 'case')}; left out of them."
        for key, count in sorted(unlike.items())
    ]
    return cases, remarks


def _about(
    part: _Part,
    listed: Mapping[str, _Video],
    tracings: Mapping[str, VideoTracings],
    there: set[str],
) -> list[str]:
    remarks = []
    unlisted = sum(name.lower().endswith(".avi") for name in there - listed.keys())
    if unlisted:
        remarks.append(
            f"{part.prefix}{VIDEOS}/: {counted(unlisted, 'video')} not in {FILES}; left out."
        )
    others = sum(traced.others for traced in tracings.values())
    if others:
        remarks.append(
            f"{part.prefix}{TRACINGS}: {counted(others, 'tracing')} between the largest and the "
            "smallest of their videos; left out."
        )
    for phase in ("ED", "ES"):
        untraced = sum(phase in traced.untraced for traced in tracings.values())
        if untraced:
            remarks.append(
                f"{part.prefix}{TRACINGS}: {counted(untraced, 'video')} not traced at {phase}."
            )
    if part.view == VIEWS["PSAX"] and listed:
        remarks.append(
            f"{part.prefix or FILES}: parasternal short-axis views; --views 4CH takes the apical "
            "ones alone."
        )
    return remarks
