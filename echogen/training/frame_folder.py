"""A dataset's images on the model's grid, prepared once for training; labels are not needed.

The folder's record says which files it was made from, so that it is used again only for those. It
is written last, and holds the pixels' fingerprint: a kill leaves a folder that is made again.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from echogen.datasets import Dataset, open_dataset
from echogen.datasets.base import relative
from echogen.errors import DatasetError, StoreError
from echogen.report import QUIET, Reporter
from echogen.support.files import make_folder, remove_partials, write_whole
from echogen.support.words import counted
from echogen.training.frames import (
    PIXELS_FILE,
    RECORD_FILE,
    UNREADABLE,
    FrameOrigin,
    FrameRecord,
    ModelGrid,
    PreparedFrames,
    frames_fingerprint,
    read_frames,
    read_record,
)
from echogen.training.preparation import FramePass, files_fingerprint
from echogen.types import FrameKey

WAIT_S = 1.0


def prepare_frames(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    grid: ModelGrid,
    folder: Path | None = None,
    reporter: Reporter = QUIET,
    *,
    on_error: Literal["skip", "fail"] = "skip",
    workers: int = 0,
    keep_old: bool = False,
) -> PreparedFrames:
    """Every frame on the model's grid, from `folder` where it was made from these files.

    Args:
        dataset: opened, labels are not needed.
        keys: the frames to use.
        grid: of the model.
        folder: to keep them in; None keeps them in memory.
        reporter: hears of progress.
        on_error: "fail" stops at the first frame that cannot be used.
        workers: processes; 0 takes one a core.
        keep_old: refuse a folder that was made of other files, as for a run that continues with
            it; otherwise it is made again.

    Raises:
        DatasetError: a frame cannot be used and `on_error` is "fail", or no frame can; or the
            folder is another dataset's and `keep_old` is set.
        StoreError: the folder cannot be written, or holds other files.
    """
    frames = FramePass(dataset, keys, grid, on_error)
    if folder is None:
        pixels = np.stack(list(frames.images(workers, reporter)))
        return PreparedFrames(pixels, _record(frames, pixels))
    if (known := _reusable(dataset, keys, grid, folder, keep_old)) is None:
        _write_folder(frames, workers, folder, reporter)
        return read_frames(folder)
    if known.problems and on_error == "fail":
        raise DatasetError(f"{known.problems[0].reason} (--on-error fail)")
    reporter.tell(f"{folder}: {counted(len(known.pixels), 'frame')} already prepared")
    return known


def await_frames(
    dataset: Dataset, keys: Sequence[FrameKey], grid: ModelGrid, folder: Path
) -> PreparedFrames:
    """What another process prepares from the same files; waits until it is there.

    For the processes of one run on several devices: their launcher ends them all if one fails.
    """
    while (known := _reusable(dataset, keys, grid, folder, keep_old=False)) is None:
        time.sleep(WAIT_S)
    return known


def few_frames(
    path: Path, count: int, grid: ModelGrid, reporter: Reporter = QUIET
) -> PreparedFrames:
    """At most `count` frames of a dataset, spread evenly over it, in memory; labels not needed.

    Raises:
        DatasetError, UsageError: there is no dataset at `path`, or no frame can be used.
    """
    dataset = open_dataset(path, need_labels=False)
    keys = dataset.keys
    chosen = [keys[i * len(keys) // count] for i in range(count)] if count < len(keys) else keys
    return prepare_frames(dataset, chosen, grid, reporter=reporter, workers=1)


def _write_folder(frames: FramePass, workers: int, folder: Path, reporter: Reporter) -> None:
    files = (folder / PIXELS_FILE, folder / RECORD_FILE)
    remove_partials(files)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in there if name not in (PIXELS_FILE, RECORD_FILE)]:
        raise StoreError(
            f"{folder}: contains files other than prepared frames, such as {others[0]}; give "
            "another --out."
        )
    try:
        make_folder(folder)
        write_whole(files[0], lambda place: _write_pixels(frames, workers, place, reporter))
        record = _record(frames, np.load(files[0], mmap_mode="r")).model_dump(mode="json")
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
        write_whole(files[1], "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as error:
        megabytes = len(frames.keys) * frames.grid.image_size**2 / 1e6
        raise StoreError(
            f"{folder}: the prepared frames cannot be written ({error.strerror or error}); they "
            f"take {megabytes:.0f} MB. Fix this and run the same command again."
        ) from error
    finally:
        with suppress(OSError):
            folder.rmdir()  # only where it is empty


def _write_pixels(frames: FramePass, workers: int, file: Path, reporter: Reporter) -> None:
    """One frame after the other; how many there are is known at the end and put into the header."""
    side = frames.grid.image_size
    with file.open("wb") as stream:
        stream.write(_header(len(frames.keys), side))
        with closing(frames.images(workers, reporter)) as images:
            for image in images:
                stream.write(image.tobytes())
        stream.seek(0)
        stream.write(_header(len(frames.rows), side))


def _header(count: int, side: int) -> bytes:
    """Of a `.npy` file; numpy pads it, so that its length does not depend on `count`."""
    stream = BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side)}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def _record(frames: FramePass, pixels: np.ndarray) -> FrameRecord:
    """Of frames that the pass has gone through; (N, S, S) pixels in its order."""
    source, rows = frames.dataset.provenance, frames.rows
    ids, fans = tuple(row.frame_id for row in rows), tuple(row.fan for row in rows)
    return FrameRecord(
        grid=frames.grid,
        source=FrameOrigin(
            format=source.format,
            root_name=source.root_name,
            licence=source.licence,
            citation=source.extra.get("citation", ""),
        ),
        listing=_listing(frames.dataset, frames.keys),
        fingerprint=frames_fingerprint(ids, fans, pixels),
        notes=(*frames.dataset.notes, *frames.notes()),
        problems=tuple((problem.frame_id, problem.reason) for problem in frames.problems),
        files=frames.files,
        frame_ids=ids,
        case_ids=tuple(row.case_id for row in rows),
        splits=tuple(row.split for row in rows),
        digests=tuple(row.digest for row in rows),
        fans=fans,
    )


def _reusable(
    dataset: Dataset, keys: Sequence[FrameKey], grid: ModelGrid, folder: Path, keep_old: bool
) -> PreparedFrames | None:
    """The frames in `folder` if made from these files; None where they must be prepared again."""
    try:
        difference = _difference(read_record(folder), dataset, keys, grid)
        if difference is None:
            return read_frames(folder)
    except UNREADABLE:
        return None  # none, or damaged: what is made again of the same files is the same
    if keep_old:
        raise DatasetError(
            f"{folder}: was prepared from other frames: {difference}. Give the dataset and the "
            "selection that this run was begun with, another --out, or --overwrite to start over."
        )
    return None


def _difference(
    record: FrameRecord, dataset: Dataset, keys: Sequence[FrameKey], grid: ModelGrid
) -> str | None:
    """How a record's frames differ from these, or None; files are hashed only if they were touched
    since, or moved.
    """
    if not record.is_current:
        return "an earlier version of echogen prepared them, without their fans"
    if record.grid != grid:
        return f"the grid was {record.grid.model_dump()}, is now {grid.model_dump()}"
    if record.listing == _listing(dataset, keys):
        return None
    here, before = {key.frame_id: key for key in keys}, record.files
    added, removed = sorted(here.keys() - before.keys()), sorted(before.keys() - here.keys())
    for names, what in ((added, "added"), (removed, "missing")):
        if names:
            return f"{counted(len(names), 'frame')} {what}, such as {names[0]}"
    changed = [
        name for name in sorted(here) if files_fingerprint(dataset, here[name]) != before[name]
    ]
    if changed:
        return f"{counted(len(changed), 'frame')} changed, such as {changed[0]}"
    cases = zip(record.frame_ids, record.case_ids, strict=True)
    moved = [name for name, case in cases if here[name].case_id != case]
    return f"{moved[0]} belongs to another case" if moved else None


def _listing(dataset: Dataset, keys: Sequence[FrameKey]) -> str:
    """SHA-256 over ids, names, sizes and times of change: what is known without reading."""
    root = getattr(dataset, "root", Path())
    digest = hashlib.sha256()
    for key in sorted(keys, key=lambda key: key.frame_id):
        beside = dataset.beside_files(key)
        detail = f"\t{beside}" if beside else ""
        given = dataset.fans.get(key.frame_id)
        detail += f"\t{given.values}" if given else ""
        digest.update(f"{key.frame_id}\t{key.case_id}\t{key.split}{detail}\n".encode())
        for path in key.paths:
            try:
                stat = path.stat()
                known = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:
                known = "missing"
            digest.update(f"{relative(root, path)}\t{known}\n".encode())
    return digest.hexdigest()
