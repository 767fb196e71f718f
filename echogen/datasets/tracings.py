"""`VolumeTracings.csv` of EchoNet-Dynamic: the left ventricle, traced in two frames a video.

Each traced frame has 21 lines of X1, Y1, X2, Y2 (pixels): the long axis, then 20 chords across it
from one end to the other. The outline runs down the chords' first ends and up their second ones, as
in https://github.com/echonet/dynamic, echonet/datasets/echo.py.
"""

import csv
import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.datasets.polygon import polygon_area
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
class Traced:
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


def read_tracings(root: Path) -> dict[str, Traced]:
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


def as_number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass
class _Lines:
    """The lines of one frame: the first one's number, all values, what is wrong with one."""

    number: int
    values: "array[float]" = field(default_factory=lambda: array("d"))
    odd: str = ""


def _of_video(name: str, frames: Mapping[str, _Lines]) -> Traced:
    found = []
    for frame, lines in frames.items():
        where = f"{TRACINGS} line {lines.number}: {name} frame {frame}"
        if not (frame.isascii() and frame.isdecimal()):
            return Traced(reason=f"{where}: expected the number of a frame, from 0.")
        if lines.odd:
            return Traced(reason=lines.odd)
        chords = np.array(lines.values).reshape(-1, len(ENDS))
        if len(chords) != LINES:
            return Traced(
                reason=f"{where}: traced by {len(chords)} lines, expected {LINES} (the long axis "
                "and 20 chords)."
            )
        found.append(Tracing(int(frame), chords))
    if len(found) < 2:
        return Traced(
            reason=f"{where}: the only traced frame of its video, expected two, at the end of "
            "diastole and of systole."
        )
    found.sort(key=lambda tracing: (-tracing.area, tracing.frame))
    return Traced(found[0], found[-1], others=len(found) - 2)
