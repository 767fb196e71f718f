"""`VolumeTracings.csv` of EchoNet's datasets: the left ventricle, traced in two frames a video.

EchoNet-Dynamic has 21 lines of X1, Y1, X2, Y2 (pixels) a frame: the long axis, then 20 chords
across it from one end to the other. The outline runs down the chords' first ends and up their
second ones. EchoNet-Pediatric has the outline's corners, a line of X, Y each; where a phase was not
traced, a line has `No Systolic` or `No Diastolic` in place of the frame's number, and no point.

As in https://github.com/echonet/dynamic, echonet/datasets/echo.py.
"""

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
from echogen.support.reading import read_csv
from echogen.support.words import one_line

TRACINGS = "VolumeTracings.csv"
FARTHEST = 1e5
MOST_BYTES = 2**26  # EchoNet-Dynamic's has 25 MB
MOST_TRACED, MOST_FRAME = 300_000, 1e6
ENDS, CORNER = ("X1", "Y1", "X2", "Y2"), ("X", "Y")
LINES, FEWEST_CORNERS = 21, 3
UNTRACED: Mapping[str, str] = {"No Diastolic": "ED", "No Systolic": "ES"}


@dataclass(frozen=True)
class Tracing:
    """One traced frame.

    Attributes:
        frame: its number in the video, from 0.
        outline: (n, 2) float64, the corners of the cavity, (row, col) in pixels.
    """

    frame: int
    outline: npt.NDArray[np.float64]

    @property
    def area(self) -> float:
        """Of the cavity, in pixels."""
        return polygon_area(self.outline)

    def text(self) -> str:
        """All of it on one line: what `tracing_of` reads."""
        return f"{self.frame} " + " ".join(map(repr, self.outline.ravel().tolist()))


def tracing_of(text: str) -> Tracing:
    """The inverse of `Tracing.text`."""
    frame, *values = text.split()
    return Tracing(int(frame), np.array(values, dtype=np.float64).reshape(-1, 2))


def outline_of_chords(chords: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(40, 2) corners, (row, col), of (21, 4) lines X1, Y1, X2, Y2; the first is the long axis."""
    across = chords[1:]
    return np.concatenate([across[:, [1, 0]], across[::-1, [3, 2]]])


@dataclass(frozen=True)
class VideoTracings:
    """The tracings of one video.

    Attributes:
        diastole, systole: the frames of the largest and of the smallest cavity; None where
            `reason` says why there are none, or the table says that the phase was not traced.
        reason: why they cannot be used, one line; empty where they can.
        others: traced frames beside these two.
        untraced: the phases, ED or ES, that the table says were not traced.
    """

    diastole: Tracing | None = None
    systole: Tracing | None = None
    reason: str = ""
    others: int = 0
    untraced: frozenset[str] = frozenset()


def read_tracings(root: Path, table: str = TRACINGS) -> dict[str, VideoTracings]:
    """{file name of a video, such as `0X1A2B.avi`: its tracings}.

    Args:
        root: the dataset's folder.
        table: of its file, relative to `root`.

    Raises:
        DatasetError: the file is not there, or lacks a column.
    """
    head = set(read_head(root, table))
    columns = CORNER if head >= set(CORNER) and not head >= set(ENDS) else ENDS
    videos: dict[str, dict[str, _Lines]] = defaultdict(dict)
    traced = 0
    for number, (name, frame, *ends) in read_table(root, table, ("FileName", "Frame", *columns)):
        if frame not in videos[avi_name(name)]:
            traced += 1
            if traced > MOST_TRACED:
                raise DatasetError(f"{root / table}: traces more than {MOST_TRACED:,} frames.")
        lines = videos[avi_name(name)].setdefault(frame, _Lines(number))
        if frame in UNTRACED:
            continue
        for column, text in zip(columns, ends, strict=True):
            value = as_number(text)
            if value is None or abs(value) > FARTHEST:
                lines.odd = lines.odd or (
                    f"{table} line {number}: {column} of {avi_name(name)} is "
                    f"{one_line(text, 40)!r}, expected a number within {FARTHEST:,.0f} pixels."
                )
            lines.values.append(value if value is not None and not lines.odd else 0.0)
    return {name: _of_video(table, name, frames, len(columns)) for name, frames in videos.items()}


def read_head(root: Path, name: str) -> list[str]:
    """The columns of a CSV file.

    Raises:
        DatasetError: the file cannot be read.
    """
    return [column.strip() for column in next(_lines(root, name), (0, []))[1]]


def read_table(
    root: Path, name: str, columns: Sequence[str]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(number of the line, the values of `columns`) of each line of a CSV file with a head.

    A value that is not there is empty.

    Raises:
        DatasetError: the file cannot be read, or lacks a column.
    """
    lines = _lines(root, name)
    head = [column.strip() for column in next(lines, (0, []))[1]]
    if any(column not in head for column in columns):
        raise DatasetError(
            f"{root / name}: expected the columns {', '.join(columns)}, found "
            f"{one_line(', '.join(head)) or 'none'}."
        )
    places = [head.index(column) for column in columns]
    for number, line in lines:
        if line:
            padded = line + [""] * (len(head) - len(line))
            yield number, tuple(padded[place].strip() for place in places)


def _lines(root: Path, name: str) -> Iterator[tuple[int, list[str]]]:
    """Of a CSV file; what goes wrong with it is a DatasetError."""
    try:
        yield from read_csv(root / name, DatasetError, most=MOST_BYTES)
    except FileNotFoundError as error:
        raise DatasetError(f"{root}: expected a file {name}, found none.") from error


def avi_name(name: str) -> str:
    """A video's file name: one table leaves `.avi` out."""
    return name if name.lower().endswith(".avi") else f"{name}.avi"


@dataclass
class _Lines:
    """The lines of one frame: the first one's number, all values, what is wrong with one."""

    number: int
    values: "array[float]" = field(default_factory=lambda: array("d"))
    odd: str = ""


def _of_video(table: str, name: str, frames: Mapping[str, _Lines], columns: int) -> VideoTracings:
    """What is usable of one video's lines."""
    found, where = [], ""
    untraced = frozenset(UNTRACED[frame] for frame in frames if frame in UNTRACED)
    for frame, lines in frames.items():
        if frame in UNTRACED:
            continue
        where = f"{table} line {lines.number}: {name} frame {frame}"
        number = as_number(frame)
        if number is None or not 0 <= number <= MOST_FRAME or number % 1:
            return VideoTracings(reason=f"{where}: expected the number of a frame, from 0.")
        if lines.odd:
            return VideoTracings(reason=lines.odd)
        outline, reason = _outline(np.array(lines.values).reshape(-1, columns))
        if reason:
            return VideoTracings(reason=f"{where}: {reason}")
        found.append(Tracing(int(number), outline))
    found.sort(key=lambda tracing: (-tracing.area, tracing.frame))
    if len(found) >= 2:
        return VideoTracings(found[0], found[-1], others=len(found) - 2)
    if found and len(untraced) == 1:
        diastole, systole = (None if p in untraced else found[0] for p in ("ED", "ES"))
        return VideoTracings(diastole, systole, untraced=untraced)
    if found:
        return VideoTracings(
            reason=f"{where}: the only traced frame of its video, expected two, at the end of "
            "diastole and of systole."
        )
    return VideoTracings(untraced=frozenset(UNTRACED.values()))


def _outline(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], str]:
    """The corners that one frame's lines give, or what is wrong with them."""
    if values.shape[1] == len(CORNER):
        corners = values[:, ::-1]
        if len(corners) < FEWEST_CORNERS:
            return (
                corners,
                f"an outline of {len(corners)} corners, expected {FEWEST_CORNERS} or more.",
            )
        return corners, ""
    if len(values) != LINES:
        return (
            values,
            f"traced by {len(values)} lines, expected {LINES} (the long axis and 20 chords).",
        )
    return outline_of_chords(values), ""


def fill_polygon(
    corners: npt.NDArray[Any], shape: tuple[int, int], per_pixel: int = 1
) -> npt.NDArray[np.bool_]:
    """(H, W) bool, True where a pixel's centre lies in the polygon or on its edge.

    Where the outline crosses itself, a point is inside after an odd number of crossings.

    Args:
        corners: (n, 2) whole numbers, (row, col) from the first pixel's centre; the last is joined
            to the first, and any may lie outside of the image.
        shape: (H, W).
        per_pixel: how many units of `corners` a pixel is wide.
    """
    col = np.arange(shape[1])[None, :] * per_pixel
    inside = np.zeros(shape, dtype=np.bool_)
    edge = np.zeros(shape, dtype=np.bool_)
    points = np.asarray(corners, dtype=np.int64)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = -(-min(r0, r1) // per_pixel), max(r0, r1) // per_pixel
        rows = slice(max(first, 0), max(last + 1, 0))  # those that the side reaches
        row = np.arange(shape[0])[rows, None] * per_pixel
        side = (col - c0) * (r1 - r0) - (row - r0) * (c1 - c0)
        crossed = ((row < r0) != (row < r1)) & (side < 0 if r1 > r0 else side > 0)
        inside[rows] ^= crossed
        between = (col >= min(c0, c1)) & (col <= max(c0, c1))
        edge[rows] |= (side == 0) & between
    return inside | edge


def polygon_area(corners: npt.NDArray[Any]) -> float:
    """The area within an (n, 2) outline, in the square of its unit (Gauss' formula)."""
    row, col = np.asarray(corners, dtype=np.float64).T
    return abs(float(np.dot(row, np.roll(col, -1)) - np.dot(col, np.roll(row, -1)))) / 2
