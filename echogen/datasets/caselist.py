"""`cases.csv`: what file names do not say of frames: case, view, phase, split, spacing.

One line a frame, with a head. `frame` is the frame's id or its file, with or without its ending; of
a file of many pictures, `FILE_f004` is number 4, from 0, and FILE is all of them. The other columns
may be left out, and an empty cell leaves what the line of the file, or the name, says. Frames of
one recording share a fan: those of a case and view, or those with the same `recording`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from echogen.config import LEAST_MM, MOST_MM
from echogen.datasets.base import LONGEST_ID, as_number, is_id
from echogen.datasets.dicom_header import EXTENSIONS
from echogen.datasets.integrity import suffix_of
from echogen.datasets.limits import is_spacing
from echogen.errors import DatasetError
from echogen.support.reading import read_csv, read_text, reason
from echogen.support.words import counted, one_line
from echogen.types import FrameKey

CASES = "cases.csv"
COLUMNS = ("case", "view", "phase", "split", "recording")
SPACINGS = ("spacing_mm", "spacing_mm_row", "spacing_mm_col")
MOST_LINES = 500_000

Line = Mapping[str, str]


def read_cases(root: Path) -> dict[str, Line]:
    """{frame: its line}; empty where there is no such file.

    Raises:
        DatasetError: the file cannot be read, has no column `frame`, or lists a frame twice.
    """
    if not os.path.lexists(root / CASES):
        return {}
    lines: dict[str, Line] = {}
    for number, line in _lines(root / CASES):
        frame = _bare(line["frame"].replace("\\", "/"))
        wrong = next((name for name in ("frame", *COLUMNS) if not is_id(line[name])), "")
        if wrong or len(lines) == MOST_LINES:
            raise DatasetError(
                f"{CASES} line {number}: "
                + (f"{wrong} is not a name of at most {LONGEST_ID} letters on one line." if wrong
                   else f"expected at most {MOST_LINES:,} lines.")
            )  # fmt: skip
        if frame in lines:
            raise DatasetError(
                f"{CASES}: lines {lines[frame]['number']} and {number} name the same frame; remove "
                "one of them."
            )
        lines[frame] = {**line, "number": str(number)}
    return lines


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number, {column: text} of the known columns) of each line."""
    try:
        first = read_text(path, DatasetError, CASES).partition("\n")[0]
        separator = ";" if first.count(";") > first.count(",") else ","
        lines = read_csv(path, DatasetError, CASES, delimiter=separator)
        head = [name.strip().lower() for name in next(lines, (0, []))[1]]
        if "frame" not in head:
            raise DatasetError(
                f"{CASES}: expected a column 'frame', found "
                f"{one_line(', '.join(head)) or 'none'}; the others are "
                f"{', '.join((*COLUMNS, *SPACINGS))}."
            )
        known = ("frame", *COLUMNS, *SPACINGS)
        for number, values in lines:
            given = dict(zip(head, map(str.strip, values), strict=False))
            if given.get("frame"):
                yield number, {name: given.get(name, "") for name in known}
    except FileNotFoundError as error:  # a link to nothing
        raise DatasetError(f"{CASES}: cannot be read ({reason(error)}).") from error


def with_cases(
    root: Path, keys: Iterable[FrameKey], lines: Mapping[str, Line]
) -> tuple[list[FrameKey], list[str]]:
    """The frames as the table has them, and remarks on what does not match.

    Raises:
        DatasetError: a spacing is no length, or a line's bare file name is that of several files.
    """
    keys = list(keys)
    if not lines:
        return keys, []
    known, used, unlisted = [], set(), 0
    for key, found in _listed(root, keys, lines):
        if not found:
            unlisted += 1
            known.append(key)
            continue
        used.update(found)
        told = [lines[name] for name in found]
        line = {name: next(filter(None, (one[name] for one in told)), "") for name in COLUMNS}
        known.append(
            replace(
                key,
                case_id=line["case"] or key.case_id,
                view=line["view"] or key.view,
                phase=line["phase"] or key.phase,
                split=line["split"] or key.split,
                recording=line["recording"] or key.recording,
                spacing_mm=next(filter(None, map(_spacing, told)), key.spacing_mm),
            )
        )
    remarks = []
    if unlisted:
        remarks.append(f"{CASES}: does not list {counted(unlisted, 'frame')}; by name instead.")
    idle = sorted(lines.keys() - used)
    if idle:
        private = any(key.private for key in known)
        first = f"line {lines[idle[0]]['number']}" if private else idle[0]
        remarks.append(
            f"{CASES}: {counted(len(idle), 'line')} without a frame here, such as {first}."
        )
    return known, remarks


def _bare(file: str) -> str:
    """A file's name without the ending of its format."""
    suffix = suffix_of(file) or next(filter(file.lower().endswith, EXTENSIONS), "")
    return file[: len(file) - len(suffix)]


def _listed(
    root: Path, keys: Iterable[FrameKey], lines: Mapping[str, Line]
) -> Iterator[tuple[FrameKey, list[str]]]:
    """Each frame with the names of its lines, the most particular first.

    A file's name alone does not mean it where that is another's whole name.
    """
    named = [(key, _names(root, key)) for key in keys]
    whole = {name for _, names in named for name, bare in names.items() if not bare}
    owners: dict[str, Path] = {}
    for key, names in named:
        found = [name for name in names if name in lines and not (names[name] and name in whole)]
        for name in found:
            if names[name] and owners.setdefault(name, key.paths[0]) != key.paths[0]:
                line = lines[name]["number"]
                raise DatasetError(
                    f"{CASES} line {line}: names several files; write the folder too."
                )
        yield key, found


def _names(root: Path, key: FrameKey) -> dict[str, bool]:
    """What the table may call a frame, the most particular first: whether it lacks the folder."""
    path = key.paths[0]
    inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    files = {_bare(inside): False, _bare(path.name): _bare(path.name) != _bare(inside)}
    number = "" if key.index is None else f"_f{key.index:03d}"
    numbered = {f"{file}{number}": bare for file, bare in files.items() if number}
    own = dict.fromkeys(filter(None, (key.frame_id, key.recording)), False)
    return {key.frame_id: False, **numbered, **files, **own}


def _spacing(line: Line) -> tuple[float, float] | None:
    texts = [line[name] for name in SPACINGS]
    if not any(texts):
        return None
    row, col = (texts[1], texts[2]) if texts[1] or texts[2] else (texts[0], texts[0])
    sides = as_number(row), as_number(col)
    if sides[0] is None or sides[1] is None or not is_spacing(sides[0], sides[1]):
        raise DatasetError(
            f"{CASES} line {line['number']}: spacing {one_line(' '.join(texts), 80)!r}; expected "
            f"millimetres per pixel, {LEAST_MM:g} to {MOST_MM:g}, in spacing_mm, or in "
            "spacing_mm_row and spacing_mm_col."
        )
    return sides[0], sides[1]
