"""A dataset's images on the model's grid, prepared once for training; labels are not needed.

`making` reads, resamples and cleans; `folder` keeps the result, which `echogen.training.data` reads
through a memory map.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from echogen.datasets import Dataset, open_dataset
from echogen.errors import DatasetError
from echogen.report import Quiet, Reporter
from echogen.support.words import counted
from echogen.training.data import PackedFrames
from echogen.training.frame_folder import read_prepared, reusable, write_folder
from echogen.training.frame_making import Grid, Made, PreparedFrames
from echogen.types import FrameKey

__all__ = [
    "Grid",
    "PreparedFrames",
    "await_frames",
    "few_frames",
    "prepare_frames",
    "read_prepared",
]

QUIET = Quiet()
WAIT_S = 1.0


def prepare_frames(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    grid: Grid,
    cache: Path | None = None,
    reporter: Reporter = QUIET,
    *,
    on_error: Literal["skip", "fail"] = "skip",
    workers: int = 0,
    keep_old: bool = False,
) -> PreparedFrames:
    """Every frame on the model's grid, from the folder `cache` where it was made of these files.

    Args:
        dataset: opened, labels are not needed.
        keys: the frames to use.
        grid: of the model.
        cache: folder to keep them in; None keeps them in memory.
        reporter: hears of progress.
        on_error: "fail" stops at the first frame that cannot be used.
        workers: processes; 0 takes one a core.
        keep_old: refuse where `cache` was made of other files, as for a run that is to go on with
            it; else it is made again.

    Raises:
        DatasetError: a frame cannot be used and `on_error` is "fail", or no frame can; or `cache`
            is another dataset's and `keep_old` is set.
        StoreError: `cache` cannot be written, or holds other files.
    """
    if cache is None:
        made = Made(dataset, keys, grid, on_error)
        images = list(made.images(workers, reporter))
        return made.prepared(made.packed(np.stack(images)))
    found = reusable(dataset, keys, grid, cache, keep_old)
    if found is not None:
        if found.problems and on_error == "fail":
            raise DatasetError(f"{found.problems[0].reason} (--on-error fail)")
        reporter.tell(f"{cache}: {counted(len(found.packed.frame_ids), 'frame')} already prepared")
        return found
    write_folder(Made(dataset, keys, grid, on_error), workers, cache, reporter)
    return read_prepared(cache)


def await_frames(
    dataset: Dataset, keys: Sequence[FrameKey], grid: Grid, cache: Path
) -> PreparedFrames:
    """What another process prepares from the same files; waits until it is there.

    For the processes of one run on several devices: their launcher ends them all if one fails.
    """
    while (found := reusable(dataset, keys, grid, cache, keep_old=False)) is None:
        time.sleep(WAIT_S)
    return found


def few_frames(path: Path, count: int, grid: Grid, reporter: Reporter = QUIET) -> PackedFrames:
    """At most `count` frames of a dataset, spread evenly over it, in memory; labels not needed.

    Raises:
        DatasetError, UsageError: there is no dataset at `path`, or no frame can be used.
    """
    dataset = open_dataset(path, need_labels=False)
    keys = dataset.keys()
    chosen = [keys[i * len(keys) // count] for i in range(count)] if count < len(keys) else keys
    return prepare_frames(dataset, chosen, grid, reporter=reporter, workers=1).packed
