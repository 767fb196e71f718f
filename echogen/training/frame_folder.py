"""Prepared frames as a folder: made beside and renamed, so that it is there whole or not at all.

Its record tells from which files it was made, so that it is used again only for those.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from echogen.datasets import Dataset
from echogen.datasets.base import relative
from echogen.errors import DatasetError, StoreError
from echogen.report import Reporter
from echogen.support.words import counted
from echogen.training.data import FORMAT, PIXELS_FILE, RECORD_FILE, PackedFrames, open_frames
from echogen.training.frame_making import Grid, Made, PreparedFrames
from echogen.types import FrameKey, Problem


def write_folder(made: Made, workers: int, cache: Path, reporter: Reporter) -> None:
    """Make the folder beside `cache` and rename it; a kill leaves the old folder or none.

    Raises:
        StoreError: it cannot be written, or `cache` holds files of somebody else.
    """
    _check_ours(cache)
    staging = cache.with_name(f".{cache.name}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _write_pixels(made, workers, staging / PIXELS_FILE, reporter)
        packed = made.packed(np.load(staging / PIXELS_FILE, mmap_mode="r"))
        text = _as_lines(_record(made, packed))
        _write_file(staging / RECORD_FILE, text.encode())
        shutil.rmtree(cache, ignore_errors=True)
        staging.rename(cache)
    except OSError as error:
        megabytes = len(made.keys) * made.grid[0] ** 2 / 1e6
        raise StoreError(
            f"{cache}: the prepared frames cannot be written ({error.strerror or error}); they "
            f"take {megabytes:.0f} MB. Put that right and run the same command again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_ours(cache: Path) -> None:
    there = sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []
    others = [name for name in there if name not in (PIXELS_FILE, RECORD_FILE)]
    if others:
        raise StoreError(
            f"{cache}: holds other files than prepared frames, such as {others[0]}, and would be "
            "replaced; give another --out."
        )


def _write_pixels(made: Made, workers: int, file: Path, reporter: Reporter) -> None:
    """One frame after the other; how many there are is known at the end and put into the header."""
    side = made.grid[0]
    with file.open("wb") as stream:
        stream.write(_header(len(made.keys), side))
        with closing(made.images(workers, reporter)) as images:
            for image in images:
                stream.write(image.tobytes())
        stream.seek(0)
        stream.write(_header(len(made.rows), side))
        stream.flush()
        os.fsync(stream.fileno())


def _header(count: int, side: int) -> bytes:
    """Of a `.npy` file; numpy pads it, so that its length does not depend on `count`."""
    stream = BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side)}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def _write_file(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _as_lines(record: Mapping[str, Any]) -> str:
    """JSON with one key a line: long lists do not fill the screen."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def reusable(
    dataset: Dataset, keys: Sequence[FrameKey], grid: Grid, cache: Path, keep_old: bool
) -> PreparedFrames | None:
    """What is in `cache`, if it was made of these files; None where it is to be made again."""
    if not (cache / RECORD_FILE).is_file():
        return None
    try:
        record = _read_record(cache)
        difference = _difference(record, dataset, keys, grid)
        if difference is None:
            return read_prepared(cache)
    except (DatasetError, KeyError, TypeError, AttributeError):
        return None  # damaged: what is made again of the same files is the same
    if keep_old:
        raise DatasetError(
            f"{cache}: was prepared from other frames: {difference}. Give the dataset and the "
            "selection that this run was begun with, another --out, or --overwrite to start anew."
        )
    return None


def _difference(
    record: Mapping[str, Any], dataset: Dataset, keys: Sequence[FrameKey], grid: Grid
) -> str | None:
    """How a record's frames differ from these, or None; files are hashed only if they were touched
    since, or moved.
    """
    if record["format"] != FORMAT or record["grid"] != _grid_record(grid):
        return f"on a grid of {record['grid']}, now {_grid_record(grid)}"
    if record["listing"] == _listing(dataset, keys):
        return None
    before: dict[str, str] = record["files"]
    there = {key.frame_id: key for key in keys}
    added, removed = sorted(there.keys() - before.keys()), sorted(before.keys() - there.keys())
    for names, what in ((added, "added"), (removed, "missing")):
        if names:
            return f"{counted(len(names), 'frame')} {what}, such as {names[0]}"
    changed = [name for name in sorted(there) if _fingerprint(dataset, there[name]) != before[name]]
    if changed:
        return f"{counted(len(changed), 'frame')} changed, such as {changed[0]}"
    cases = dict(zip(record["frame_ids"], record["case_ids"], strict=True))
    moved = [name for name, case in cases.items() if there[name].case_id != case]
    return f"{moved[0]} belongs to another case" if moved else None


def _fingerprint(dataset: Dataset, key: FrameKey) -> str:
    try:
        return dataset.fingerprint(key)
    except DatasetError:
        return ""


def _listing(dataset: Dataset, keys: Sequence[FrameKey]) -> str:
    """SHA-256 over ids, names, sizes and times of change: what can be had without reading."""
    root = getattr(dataset, "root", Path())
    digest = hashlib.sha256()
    for key in sorted(keys, key=lambda key: key.frame_id):
        detail = f"\t{key.detail}" if key.detail else ""
        digest.update(f"{key.frame_id}\t{key.case_id}\t{key.split}{detail}\n".encode())
        for path in key.paths:
            try:
                stat = path.stat()
                known = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:
                known = "missing"
            digest.update(f"{relative(root, path)}\t{known}\n".encode())
    return digest.hexdigest()


def _read_record(cache: Path) -> dict[str, Any]:
    try:
        record = json.loads((cache / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{cache / RECORD_FILE}: cannot be read ({error}); remove the folder, and it is made "
            "again."
        ) from error
    if not isinstance(record, dict):
        raise DatasetError(f"{cache / RECORD_FILE}: expected a JSON object; remove the folder.")
    return record


def read_prepared(cache: Path) -> PreparedFrames:
    """What `prepare_frames` left in a folder, its pixels compared with their fingerprint.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    packed = open_frames(cache)
    record = _read_record(cache)
    try:
        if packed.fingerprint != record["fingerprint"]:
            raise DatasetError(
                f"{cache / PIXELS_FILE}: its pixels are not those that were written; remove the "
                "folder, and it is made again."
            )
        return PreparedFrames(
            packed,
            tuple(record["splits"]),
            tuple(Problem(*problem) for problem in record["problems"]),
            tuple(record["notes"]),
        )
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{cache / RECORD_FILE}: incomplete ({error}); remove the folder, and it is made again."
        ) from error


def _record(made: Made, packed: PackedFrames) -> dict[str, Any]:
    prepared, provenance = made.prepared(packed), made.dataset.provenance
    return {
        "format": FORMAT,
        "grid": _grid_record(made.grid),
        "source": {"format": provenance.format, "root_name": provenance.root_name},
        "listing": _listing(made.dataset, made.keys),
        "fingerprint": packed.fingerprint,
        "notes": prepared.notes,
        "problems": [(problem.frame_id, problem.reason) for problem in prepared.problems],
        "files": made.files,
        "frame_ids": packed.frame_ids,
        "case_ids": packed.case_ids,
        "splits": prepared.splits,
        "digests": packed.digests,
    }


def _grid_record(grid: Grid) -> dict[str, Any]:
    return {"image_size": grid[0], "resize": grid[1]}
