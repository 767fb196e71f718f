"""One pass over a dataset: recording by recording, frames are read and their fans fitted.

A function is called with each, by worker processes where that pays; only what it returns comes
back, so memory does not grow with the dataset's pixels.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from echogen.datasets.base import Dataset, UInt8Clip
from echogen.errors import DatasetError
from echogen.geometry.field import crop_of
from echogen.geometry.recording import FittedFrame, fit_recording
from echogen.report import Problem
from echogen.support.processes import ProcessDied, apart, in_workers
from echogen.types import FrameKey

R = TypeVar("R")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Recording:
    """The frames that share a fan, as they were read.

    Attributes:
        keys: of all its frames.
        frames: those that can be read, each with its fan or the reason why it has none.
        problems: one for each of the others.
        clip: (N, H, W) every image of it where its file holds more than its frames, else None; read
            when it is first asked for.
    """

    keys: tuple[FrameKey, ...]
    frames: tuple[FittedFrame, ...]
    problems: tuple[Problem, ...]
    clip: Callable[[], UInt8Clip | None] = lambda: None


def recordings(keys: Sequence[FrameKey]) -> list[list[FrameKey]]:
    """The keys of each recording, sorted by its id."""
    groups: dict[str, list[FrameKey]] = defaultdict(list)
    for key in keys:
        groups[key.recording_id].append(key)
    return [groups[name] for name in sorted(groups)]


def each_recording(
    function: Callable[..., R],
    dataset: Dataset,
    keys: Sequence[FrameKey],
    shared: tuple[Any, ...] = (),
    *,
    workers: int,
    progress: Progress | None = None,
) -> Generator[R, None, None]:
    """`function(recording, *shared)` of every recording, sorted by its id.

    A frame whose reading ends its worker process is a problem of its recording, too.

    Args:
        function: of a module, so that it can be pickled.
        dataset: opened.
        keys: the frames to read; each is read once.
        shared: sent to each worker once.
        workers: processes; 0 takes one a core, 1 does everything here.
        progress: called with (frames done, frames in all), at the start and after each recording.
    """
    groups, done = recordings(keys), 0
    progress = progress or (lambda done, total: None)
    progress(done, len(keys))

    def died(keys: Sequence[FrameKey], how: ProcessDied) -> R:
        return _apply_to_whole(keys, how, function, dataset, shared)

    shared_by_all = (function, dataset, shared)
    outcomes: Generator[R, None, None] = in_workers(_apply, groups, shared_by_all, workers, died)
    with closing(outcomes) as results:
        for group, result in zip(groups, results, strict=True):
            done += len(group)
            progress(done, len(keys))
            yield result


def _apply(
    keys: Sequence[FrameKey],
    function: Callable[..., R],
    dataset: Dataset,
    shared: tuple[Any, ...],
) -> R:
    return function(read_recording(dataset, keys), *shared)


def _apply_to_whole(
    keys: Sequence[FrameKey],
    how: ProcessDied,
    function: Callable[..., R],
    dataset: Dataset,
    shared: tuple[Any, ...],
) -> R:
    """As `_apply`, of a recording that ended its process: the frames at which one ends are found,
    each tried in a process of its own, and left out.
    """
    whole: list[FrameKey] = []
    problems: list[Problem] = []
    for key in keys:
        try:
            apart(_try_to_read, dataset, key)
        except ProcessDied as died:
            problems.append(_of_death(key, died))
        else:
            whole.append(key)
    if whole:
        try:
            if not problems:
                raise how
            rest: R = apart(_apply_to_rest, dataset, whole, keys, problems, function, shared)
            return rest
        except ProcessDied as died:  # such as of its clip
            problems += [_of_death(key, died) for key in whole]
    return function(Recording(tuple(keys), (), tuple(problems)), *shared)


def _try_to_read(dataset: Dataset, key: FrameKey) -> None:
    with suppress(DatasetError):  # told where it is read for good
        dataset.read(key)


def _apply_to_rest(
    dataset: Dataset,
    whole: Sequence[FrameKey],
    keys: Sequence[FrameKey],
    problems: Sequence[Problem],
    function: Callable[..., R],
    shared: tuple[Any, ...],
) -> R:
    read = read_recording(dataset, whole)
    return function(replace(read, keys=tuple(keys), problems=(*read.problems, *problems)), *shared)


def _of_death(key: FrameKey, how: ProcessDied) -> Problem:
    return Problem(key.frame_id, f"{key.file_names[0]}: its reading ended the process ({how}).")


def read_recording(dataset: Dataset, keys: Sequence[FrameKey]) -> Recording:
    """The frames of one recording: fans that the user gave, the others fitted together.

    Where its clip cannot be read, its file is damaged, and frames to be fitted are problems.
    """
    readable: list[FrameKey] = []
    clip = cache(lambda: dataset.clip(readable[0]) if readable else None)
    fitted: list[FittedFrame] = []
    to_fit, problems = [], []
    for key in keys:
        try:
            frame = dataset.read(key)
        except DatasetError as error:
            problems.append(Problem(key.frame_id, str(error)))
            continue
        readable.append(key)
        if (given := dataset.fans.get(key.frame_id)) is None:
            to_fit.append(frame)
        elif reason := given.misfit(frame):
            fitted.append(FittedFrame(frame, None, 0.0, reason, how="given"))
        else:
            fitted += fit_recording([frame], given=given.sector(frame.unit_spacing))
    try:
        fitted += fit_recording(to_fit, clip() if to_fit else None)
    except DatasetError as error:
        problems += [Problem(frame.key.frame_id, str(error)) for frame in to_fit]
    in_picture = tuple(_in_picture(one) for one in fitted)
    return Recording(tuple(keys), in_picture, tuple(problems), clip)


def _in_picture(fitted: FittedFrame) -> FittedFrame:
    """The same, without the fan where it lies beside the picture, as a given one may."""
    if fitted.sector is not None:
        try:
            crop_of(fitted.frame, fitted.sector)
        except DatasetError as error:
            return replace(fitted, sector=None, confidence=0.0, reason=str(error))
    return fitted
