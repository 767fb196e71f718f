"""Datasets that `echogen export` wrote: which frame is a copy, and of which case; its classes."""

import csv
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from echogen.datasets.base import Dataset, as_number, is_id
from echogen.datasets.integrity import is_bitmap
from echogen.errors import DatasetError
from echogen.support.reading import open_regular, read_csv, reason
from echogen.support.words import one_line
from echogen.types import IGNORE, Case, Frame, FrameKey

SAMPLES, CLASSES = "samples.csv", "classes.csv"
COLUMNS = ("class_id", "name")
NO_SPACING = "spacing unknown"
"""A frame's detail where its file's 1 mm a pixel is made up."""
MOST_BYTES, MOST_LINES, MOST_LINE = 2**30, 3_000_000, 2**20
MOST_COPIES = 10_000_000
_AGAIN = "export the dataset again, or without it copies would count as originals."
_WANTED = ("name", "case_id", "view", "phase", "copy", "spacing_mm_row")
_ALSO = ("spacing_mm_col", "frame_id")


def exported_samples(root: Path) -> dict[str, dict[str, str]]:
    """{file name: its line} of the table that `echogen export` writes; empty without one.

    It has the case ids and copies that file names cannot hold, and says which spacing is made up.

    Raises:
        DatasetError: the table is too large, or a line is damaged: without it copies would count
            as originals.
    """
    path = root / SAMPLES
    if not path.is_file():
        return {}
    found: dict[str, dict[str, str]] = {}
    shared: dict[str, str] = {}
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8-sig", "surrogateescape") as file:
            head = _cells(file.readline(MOST_LINE)) or []
            if not set(_WANTED) <= set(head):
                return {}
            if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise DatasetError(f"{path}: {size:,} bytes; at most {MOST_BYTES:,} are read.")
            kept = [(head.index(name), name) for name in (*_WANTED, *_ALSO) if name in head]
            for number, text in enumerate(iter(lambda: file.readline(MOST_LINE), ""), 2):
                if not text.strip():
                    continue
                cells = _cells(text) or []
                line = {
                    name: shared.setdefault(cells[place], cells[place])
                    for place, name in kept
                    if place < len(cells)
                }
                if not set(_WANTED) <= set(line) or not all(map(is_id, line.values())):
                    raise DatasetError(f"{path}, line {number}: damaged; {_AGAIN}")
                if _copy(line["copy"]) is None:
                    copy = one_line(line["copy"], 40)
                    raise DatasetError(f"{path}, line {number}: copy is {copy!r}; {_AGAIN}")
                found[line["name"]] = line
                if len(found) > MOST_LINES:
                    raise DatasetError(f"{path}: expected at most {MOST_LINES:,} lines.")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({reason(error)}).") from error
    return found


def _cells(text: str) -> list[str] | None:
    """Of a line; None where it is none of a table. No cell of ours goes on in the next line."""
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None


def _copy(text: str) -> int | None:
    number = as_number(text)
    return None if number is None or number % 1 or not 0 <= number <= MOST_COPIES else int(number)


def copy_number(sample: Mapping[str, str]) -> int:
    """Of a line: 0 for an original."""
    return _copy(sample["copy"]) or 0


def recording_of(sample: Mapping[str, str]) -> str:
    """Of a line: which frames share a fan, where its case has several recordings of one view."""
    case, view = sample["case_id"], sample["view"]
    frame, ending = sample.get("frame_id") or "", f"_{view}_{sample['phase']}"
    stem = frame.removesuffix(ending) if frame.endswith(ending) else case
    return "" if stem == case else f"{stem}/{view}"


def _spacing(sample: Mapping[str, str]) -> tuple[float, float] | None:
    """(row, col) mm of a line; None where it has none."""
    row, col = (as_number(sample.get(f"spacing_mm_{side}") or "") for side in ("row", "col"))
    return (row, col) if row and col and min(row, col) > 0 else None


def with_copies(dataset: Dataset) -> Dataset:
    """A dataset whose copies are known as such, pictures with the millimetres that their files
    cannot hold, and none that are made up, where its root has the table of an export.
    """
    samples = exported_samples(dataset.root)
    if not samples:
        return dataset

    def known(key: FrameKey) -> FrameKey:
        sample = samples.get(key.frame_id)
        if sample is None:
            return key
        detail = key.detail if key.detail or sample["spacing_mm_row"] else NO_SPACING
        spacing = _spacing(sample) if is_bitmap(key.paths[0].name) else None
        return replace(
            key,
            case_id=sample["case_id"],
            copy=copy_number(sample),
            detail=detail,
            spacing_mm=key.spacing_mm or spacing,
            recording=recording_of(sample),
        )

    keys = tuple(known(key) for key in dataset.keys)
    lacking = sorted({key.case_id for key in keys} - {case.case_id for case in dataset.cases})
    cases = sorted([*dataset.cases, *(Case(case, {}) for case in lacking)], key=lambda c: c.case_id)
    dataset = replace(dataset, cases=tuple(cases))
    if all(key.detail != NO_SPACING for key in keys):
        return replace(dataset, keys=keys)
    unknown = all(key.detail == NO_SPACING for key in keys)
    extra = {**dataset.provenance.extra, **({"spacing": "unknown"} if unknown else {})}
    return replace(
        dataset,
        keys=keys,
        provenance=replace(dataset.provenance, extra=extra),
        read_frame=partial(_read_known, dataset.read_frame),
    )


def _read_known(
    read: Callable[[Path, FrameKey, Mapping[int, str]], Frame],
    root: Path,
    key: FrameKey,
    labels: Mapping[int, str],
) -> Frame:
    frame = read(root, key, labels)
    return replace(frame, spacing_mm=None) if key.detail == NO_SPACING else frame


def listed_classes(root: Path) -> dict[int, str] | None:
    """{class id: name} of `classes.csv`; None without such a file.

    Raises:
        DatasetError: it is not a table of whole numbers and names, or names an id twice.
    """
    path = root / CLASSES
    found: dict[int, str] = {}
    try:
        lines = read_csv(path, DatasetError)
        head = next(lines, (0, []))[1]
        for number, cells in lines:
            line = dict(zip(head, cells, strict=False))
            text, name = (line.get(column, "").strip() for column in COLUMNS)
            label = as_number(text)
            if not cells:
                continue
            whole = label is not None and not label % 1 and 0 <= label < IGNORE
            if label is None or not (whole and name and is_id(name)) or int(label) in found:
                raise DatasetError(
                    f"{path} line {number}: expected {' and '.join(COLUMNS)}, a whole number from "
                    f"0 to {IGNORE - 1} and its class, each number once; found "
                    f"{one_line(text, 40)!r} and {one_line(name, 40)!r}."
                )
            found[int(label)] = name
    except FileNotFoundError:
        return None
    return found
