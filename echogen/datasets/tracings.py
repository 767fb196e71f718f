"""`VolumeTracings.csv` of EchoNet-Dynamic: the left ventricle, traced in two frames a video.

Each traced frame has 21 lines of X1, Y1, X2, Y2 (pixels): the long axis, then 20 chords across it
from one end to the other. The outline runs down the chords' first ends and up their second ones, as
in https://github.com/echonet/dynamic, echonet/datasets/echo.py.
"""

import csv
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.base import as_number
from echogen.errors import DatasetError

TRACINGS = "VolumeTracings.csv"
FARTHEST = 1e5
ENDS = ("X1", "Y1", "X2", "Y2")
LINES = 21


@dataclass(frozen=True)
class Tracing:
    """One traced frame.

    Attributes:
        frame: its number in the video, from 0.
        chords: (21, 4) float64, X1, Y1, X2, Y2 in pixels; the first is the long axis.
    """

    frame: int
    chords: npt.NDArray[np.float64]

    @property
    def outline(self) -> npt.NDArray[np.float64]:
        """(40, 2) the corners of the cavity, (row, col) in pixels."""
        across = self.chords[1:]
        return np.concatenate([across[:, [1, 0]], across[::-1, [3, 2]]])

    @property
    def area(self) -> float:
        """Of the cavity, in pixels."""
        return polygon_area(self.outline)

    def text(self) -> str:
        """All of it on one line: what `tracing_of` reads."""
        return f"{self.frame} " + " ".join(map(repr, self.chords.ravel().tolist()))


def tracing_of(text: str) -> Tracing:
    """The inverse of `Tracing.text`."""
    frame, *values = text.split()
    return Tracing(int(frame), np.array(values, dtype=np.float64).reshape(-1, 4))


@dataclass(frozen=True)
class VideoTracings:
    """The tracings of one video.

    Attributes:
        diastole, systole: the frames of the largest and of the smallest cavity; None where
            `reason` says why there are none.
        reason: why they cannot be used, one line; empty where they can.
        others: traced frames beside these two.
    """

    diastole: Tracing | None = None
    systole: Tracing | None = None
    reason: str = ""
    others: int = 0


def read_tracings(root: Path) -> dict[str, VideoTracings]:
    """{file name of a video, such as `0X1A2B.avi`: its tracings}.

    Raises:
        DatasetError: the file is not there, or lacks a column.
    """
    videos: dict[str, dict[str, _Lines]] = defaultdict(dict)
    for number, (name, frame, *ends) in read_table(root, TRACINGS, ("FileName", "Frame", *ENDS)):
        lines = videos[avi_name(name)].setdefault(frame, _Lines(number))
        for column, text in zip(ENDS, ends, strict=True):
            value = as_number(text)
            if value is None or abs(value) > FARTHEST:
                lines.odd = lines.odd or (
                    f"{TRACINGS} line {number}: {column} of {avi_name(name)} is {text!r}, expected "
                    f"a number within {FARTHEST:,.0f} pixels."
                )
            lines.values.append(value if value is not None and not lines.odd else 0.0)
    return {name: _of_video(name, frames) for name, frames in videos.items()}


def read_table(
    root: Path, name: str, columns: Sequence[str]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(number of the line, the values of `columns`) of each line of a CSV file with a head.

    A value that is not there is empty.

    Raises:
        DatasetError: the file cannot be read, or lacks a column.
    """
    try:
        with (root / name).open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            head = [column.strip() for column in next(lines, [])]
            lacking = [column for column in columns if column not in head]
            if lacking:
                raise DatasetError(
                    f"{root / name}: expected the columns {', '.join(columns)}, found "
                    f"{', '.join(head) or 'none'}."
                )
            places = [head.index(column) for column in columns]
            for line in lines:
                if line:
                    padded = line + [""] * (len(head) - len(line))
                    yield lines.line_num, tuple(padded[place].strip() for place in places)
    except FileNotFoundError as error:
        raise DatasetError(f"{root}: expected a file {name}, found none.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{root / name}: cannot be read ({error}).") from error


def avi_name(name: str) -> str:
    """A video's file name: one table leaves `.avi` out."""
    return name if name.lower().endswith(".avi") else f"{name}.avi"


@dataclass
class _Lines:
    """The lines of one frame: the first one's number, all values, what is wrong with one."""

    number: int
    values: "array[float]" = field(default_factory=lambda: array("d"))
    odd: str = ""


def _of_video(name: str, frames: Mapping[str, _Lines]) -> VideoTracings:
    found = []
    for frame, lines in frames.items():
        where = f"{TRACINGS} line {lines.number}: {name} frame {frame}"
        if not (frame.isascii() and frame.isdecimal()):
            return VideoTracings(reason=f"{where}: expected the number of a frame, from 0.")
        if lines.odd:
            return VideoTracings(reason=lines.odd)
        chords = np.array(lines.values).reshape(-1, len(ENDS))
        if len(chords) != LINES:
            return VideoTracings(
                reason=f"{where}: traced by {len(chords)} lines, expected {LINES} (the long axis "
                "and 20 chords)."
            )
        found.append(Tracing(int(frame), chords))
    if len(found) < 2:
        return VideoTracings(
            reason=f"{where}: the only traced frame of its video, expected two, at the end of "
            "diastole and of systole."
        )
    found.sort(key=lambda tracing: (-tracing.area, tracing.frame))
    return VideoTracings(found[0], found[-1], others=len(found) - 2)


def fill_polygon(corners: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) bool, True where a pixel's centre lies in the polygon or on its edge.

    Where the outline crosses itself, a point is inside after an odd number of crossings.

    Args:
        corners: (n, 2) whole numbers, (row, col) of pixel centres; the last is joined to the first,
            and any may lie outside of the image.
        shape: (H, W).
    """
    row, col = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    inside = np.zeros(shape, dtype=np.bool_)
    edge = np.zeros(shape, dtype=np.bool_)
    points = np.asarray(corners, dtype=np.int64)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        side = (col - c0) * (r1 - r0) - (row - r0) * (c1 - c0)
        crossed = ((row < r0) != (row < r1)) & (side < 0 if r1 > r0 else side > 0)
        inside ^= crossed
        between = (row >= min(r0, r1)) & (row <= max(r0, r1))
        edge |= (side == 0) & between & (col >= min(c0, c1)) & (col <= max(c0, c1))
    return inside | edge


def polygon_area(corners: npt.NDArray[Any]) -> float:
    """The area within an (n, 2) outline, in the square of its unit (Gauss' formula)."""
    row, col = np.asarray(corners, dtype=np.float64).T
    return abs(float(np.dot(row, np.roll(col, -1)) - np.dot(col, np.roll(row, -1)))) / 2
