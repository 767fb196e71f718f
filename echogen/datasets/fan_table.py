"""A table of fans as CSV: written by `echogen validate`, corrected by hand, read by every command.

A line has a recording's fan in pixels, with the conventions of `datasets.fans`. What a spreadsheet
makes of such a file (a BOM, semicolons with decimal commas, tabs, other line ends) is read alike.
"""

import csv
import difflib
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from echogen.datasets.base import LONGEST_ID, Dataset, as_number, is_id
from echogen.datasets.fans import FoundFan, fans_of_recordings
from echogen.errors import UsageError
from echogen.geometry.sector import Sector
from echogen.support.files import write_whole
from echogen.support.reading import read_bytes, reason
from echogen.support.words import one_line
from echogen.types import Frame, FrameKey

GEOMETRY = (
    "apex_row",
    "apex_col",
    "angle_left_deg",
    "angle_right_deg",
    "radius_near",
    "radius_far",
)
SIZE = ("rows", "cols")
COLUMNS = ("recording", *SIZE, *GEOMETRY, "confidence", "how", "reason")
MOST_BYTES, MOST_LINES, MOST_PATTERNS = 64_000_000, 500_000, 1_000
FARTHEST = 1e6
WIDEST_DEG = 90.0
LEAST_SHARE = 0.02
"""A given fan covers at least this share of its picture."""
WILD = "*?["


@dataclass(frozen=True)
class GivenFan:
    """A fan that the user gave, in pixels; see `datasets.fans`.

    Attributes:
        values: apex row and col, angles left and right in degrees, radii near and far.
        size: (rows, cols) of the picture that it was made for; None where the table does not say.
        origin: the table's file and line, for messages.
    """

    values: tuple[float, float, float, float, float, float]
    size: tuple[int, int] | None
    origin: str

    def sector(self, spacing: tuple[float, float]) -> Sector:
        """The fan in mm, or in pixels where `spacing` is (1, 1)."""
        (apex_row, apex_col, left, right, near, far), (row, col) = self.values, spacing
        return Sector(
            (apex_row + 0.5) * row,
            (apex_col + 0.5) * col,
            math.radians(left),
            math.radians(right),
            near * row,
            far * row,
        )

    def misfit(self, frame: Frame) -> str:
        """Why it cannot be this frame's fan, in one line; empty where it can."""
        rows, cols = frame.image.shape
        if self.size not in (None, (rows, cols)):
            made_for = f"{self.size[0]} x {self.size[1]}" if self.size else ""
            return (
                f"{self.origin} gives a fan for a picture of {made_for} pixels, found {rows} x "
                f"{cols}; give this recording a line of its own."
            )
        share = float(self.sector(frame.unit_spacing).mask((rows, cols), frame.unit_spacing).mean())
        if self.values[0] >= rows or share < LEAST_SHARE:
            return (
                f"{self.origin} gives a fan that covers {share:.1%} of the picture, expected at "
                f"least {LEAST_SHARE:.0%}, its apex above the last row; the picture has {rows} x "
                f"{cols} pixels."
            )
        return ""


def write_fans(found: Iterable[FoundFan], path: Path) -> int:
    """Write the table, refused fans first, then the least certain; how many lines.

    Args:
        found: of frames.
        path: of the file.

    Raises:
        UsageError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    lines = fans_of_recordings(found)
    for fan in lines:
        values = [""] * len(GEOMETRY) if fan.values is None else [f"{v:.4f}" for v in fan.values]
        how = "" if fan.values is None else fan.how
        writer.writerow([fan.name, *fan.size, *values, f"{fan.confidence:.3f}", how, fan.reason])
    # Spreadsheets take a file without a BOM for the machine's old encoding.
    bom = "" if text.getvalue().isascii() else "\ufeff"
    try:
        write_whole(path, bom + text.getvalue())
    except OSError as error:
        raise UsageError(f"--fans {path}: cannot be written ({error.strerror}).") from error
    return len(lines)


def check_fans(path: Path) -> None:
    """Refuse to replace what is not a table of fans; a file that is empty, or not there, may be.

    Raises:
        UsageError: it holds something else, or cannot be read.
    """
    text = _text(path) if path.exists() else ""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if head := next(lines, ""):
        _head([cell.strip(' "') for cell in head.split(_delimiter(text))], path)


def with_fans(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the fans of a table.

    A line's recording is the name of a recording, such as `patient0001/4CH`, of a frame, or a shell
    pattern of either. A frame's own line wins over its recording's, this over patterns, and of
    these the last one. Lines without a fan count for nothing.

    Raises:
        UsageError: the file cannot be read, a line of it is wrong, or it names a recording that the
            dataset lacks.
    """
    keys = [*dataset.keys, *(key for key, _ in dataset.unusable)]
    return replace(dataset, fans=_matched(list(_lines(path)), keys, dataset.provenance.root_name))


@dataclass(frozen=True)
class _Line:
    """A line of the table with a fan."""

    name: str
    fan: GivenFan

    def refuse(self, what: str) -> UsageError:
        return UsageError(f"--fans {self.fan.origin}: {what}")


def _matched(lines: Sequence[_Line], keys: Sequence[FrameKey], root: str) -> dict[str, GivenFan]:
    """{frame id: its fan}, for the frames that a line names."""
    recordings: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        recordings[key.recording_id].append(key.frame_id)
    frames = {key.frame_id for key in keys}
    patterns: dict[str, GivenFan] = {}
    by_recording: dict[str, GivenFan] = {}
    by_frame: dict[str, GivenFan] = {}
    tried = 0
    for line in lines:
        name, fan = line.name, line.fan
        if name in recordings or name in frames:
            given = by_recording if name in recordings else by_frame
            if name in given:
                raise line.refuse(f"{name} has a fan already, in {given[name].origin}; keep one.")
            given[name] = fan
            continue
        is_pattern = any(char in name for char in WILD)
        tried += is_pattern
        if tried > MOST_PATTERNS:
            raise line.refuse(f"expected at most {MOST_PATTERNS:,} patterns.")
        fitting = [
            key.frame_id
            for key in keys
            if is_pattern
            and (fnmatchcase(key.recording_id, name) or fnmatchcase(key.frame_id, name))
        ]
        if not fitting:
            raise line.refuse(_unknown(name, list(recordings), root))
        patterns |= dict.fromkeys(fitting, fan)
    own = {frame: fan for name, fan in by_recording.items() for frame in recordings[name]}
    return {**patterns, **own, **by_frame}


def _unknown(name: str, recordings: Sequence[str], root: str) -> str:
    near = difflib.get_close_matches(name, recordings, n=1)
    known = f"did you mean {near[0]}?" if near else f"such as {recordings[0]} is known."
    return f"{root} has no recording {one_line(name, 80)!r}; {known}"


def _lines(path: Path) -> Iterator[_Line]:
    """The lines that hold a fan, each checked.

    Raises:
        UsageError: names the line.
    """
    text = _text(path)
    # Each line end becomes "\n", so that a line has the number that an editor shows.
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=_delimiter(text), strict=True)
    head: list[str] = []
    found = False
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if not head:
                head = _head(cells, path)
                continue
            if any(cells[len(head) :]):
                raise UsageError(
                    f"--fans {path}, line {reader.line_num}: has more values than the "
                    f"{len(head)} columns; write decimals with a point where commas part values."
                )
            if reader.line_num > MOST_LINES:
                raise UsageError(f"--fans {path}: expected at most {MOST_LINES:,} lines.")
            line = _line(dict(zip(head, cells, strict=False)), path, reader.line_num)
            if line is not None:
                found = True
                yield line
    except csv.Error as error:
        raise UsageError(f"--fans {path}, line {reader.line_num}: {error}.") from error
    if not head:
        _head([], path)
    if not found:
        raise UsageError(
            f"--fans {path}: no line has a fan; fill in {', '.join(GEOMETRY)}, or let `echogen "
            "validate DATASET --fans fans.csv` write them."
        )


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "no such file"
            raise UsageError(
                f"--fans {path}: {what}; `echogen validate DATASET --fans fans.csv` writes one."
            )
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UsageError(
                f"--fans {path}: has {size / 1e6:.0f} MB, expected a table of at most "
                f"{MOST_BYTES / 1e6:.0f} MB."
            )
        content = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"--fans {path}: cannot be read ({reason(error)}).") from error
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # a spreadsheet's "Unicode text"
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise UsageError(
            f"--fans {path}, line {number}: is not UTF-8; save the table as `CSV UTF-8`."
        ) from error
    if "\0" in text:
        raise UsageError(f"--fans {path}: is not a text file; expected a table in CSV.")
    return text


def _delimiter(text: str) -> str:
    """What parts the columns' names."""
    lines = (line for line in io.StringIO(text, newline=None) if "recording" in line.lower())
    return max(",;\t", key=next(lines, "").count)


def _head(cells: Sequence[str], path: Path) -> list[str]:
    head = [cell.lower() for cell in cells]
    wanted = ("recording", *GEOMETRY)
    lacking = [name for name in wanted if head.count(name) != 1]
    if lacking:
        raise UsageError(
            f"--fans {path}: expected the columns {', '.join(wanted)}, each once; "
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not. Found: "
            f"{one_line(', '.join(cells), 120) or 'nothing'}."
        )
    return head


def _line(cells: Mapping[str, str], path: Path, number: int) -> _Line | None:
    """A line's fan; None where it has none."""
    origin = f"{path.name}, line {number}"
    name = cells.get("recording", "")
    if not is_id(name):
        raise UsageError(f"--fans {origin}: a recording's name has at most {LONGEST_ID} letters.")
    given = [column for column in GEOMETRY if cells.get(column)]
    if not given:
        return None
    if not name:
        raise UsageError(f"--fans {origin}: no recording; name one, or a pattern such as '*'.")
    if lacking := [column for column in GEOMETRY if column not in given]:
        raise UsageError(
            f"--fans {origin}: {name} lacks {', '.join(lacking)}; fill in all of "
            f"{', '.join(GEOMETRY)}, or none of them to have the fan fitted."
        )
    row, col, left, right, near, far = (
        _number(cells[column], column, origin) for column in GEOMETRY
    )
    size = _size([cells.get(column, "") for column in SIZE], origin)
    wrong = {
        f"angle_left_deg < angle_right_deg, found {left:g} and {right:g}": left >= right,
        f"angles of -{WIDEST_DEG:g} to {WIDEST_DEG:g} degrees from straight down, found {left:g} "
        f"and {right:g}": max(-left, right) > WIDEST_DEG,
        f"0 <= radius_near < radius_far, found {near:g} and {far:g}": not 0 <= near < far,
        f"pixels, at most {FARTHEST:g}": max(abs(row), abs(col), far) > FARTHEST,
        f"an apex above the picture's last row, found row {row:g} of {size[0] if size else ''}":
            bool(size and row >= size[0]),
    }  # fmt: skip
    for expected, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"--fans {origin}: {name}: expected {expected}.")
    return _Line(name, GivenFan((row, col, left, right, near, far), size, origin))


def _number(text: str, column: str, origin: str) -> float:
    value = as_number(text.replace(",", ".") if text.count(",") == 1 else text)
    if value is None:
        raise UsageError(
            f"--fans {origin}: {column}: expected a number, found {one_line(text, 40)!r}."
        )
    return value


def _size(texts: Sequence[str], origin: str) -> tuple[int, int] | None:
    if not any(texts):
        return None
    rows, cols = (_number(text, column, origin) for text, column in zip(texts, SIZE, strict=True))
    if min(rows, cols) < 1 or rows % 1 or cols % 1:
        raise UsageError(
            f"--fans {origin}: expected rows and cols of the picture, found "
            f"{one_line(' and '.join(texts), 80)}; leave both empty for pictures of any size."
        )
    return int(rows), int(cols)
