"""Choosing what to show: at random by a seed, the worst, or evenly along one transform."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, select
from echogen.datasets.fans import FoundFan, fans_of_recordings, found_fans
from echogen.datasets.recordings import Recording, each_recording
from echogen.datasets.selection import fits
from echogen.errors import UsageError
from echogen.geometry.transforms import MOVES
from echogen.measures.realism import log_ratios_of, norm_of, score
from echogen.pictures.entries import Entry, of_dataset, of_fans, of_plan, of_store
from echogen.planning.dataset import PlannedDataset
from echogen.planning.record import frame_keys
from echogen.report import Problem, Reporter
from echogen.store import Status, StoreReader, shared_store
from echogen.support.processes import in_workers
from echogen.support.settings import Names, Settings
from echogen.types import FrameKey

By = Literal["depth", "tilt", "width", "shift"]
PORTION = 64

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


class Choice(Settings):
    """Which samples to show, `n` of them.

    At random, by `seed`; or the `worst`, those whose painting is farthest from what real frames
    show, out of `judged` at random (0 judges all); or evenly `by` one transform, from the least to
    the most. `samples` are shell patterns of their ids, empty for all. `dataset` says which frames
    of a dataset, and in which layout it is. `workers` 0 takes a process a core.
    """

    n: int = 8
    seed: int = Field(default=0, ge=0)
    worst: bool = False
    judged: int = Field(default=0, ge=0)
    by: By | None = None
    samples: Names = ()
    dataset: DatasetConfig = DatasetConfig()
    workers: int = Field(default=0, ge=0)

    @field_validator("by", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value is None or value in get_args(By):
            return value
        raise UsageError(f"--by {value}: expected one of {', '.join(get_args(By))}.")

    def names(self, sample_id: str) -> bool:
        """Whether `samples` names a sample, or a dataset's frame."""
        return not self.samples or any(fnmatchcase(sample_id, glob) for glob in self.samples)

    @property
    def words(self) -> str:
        """How the samples were chosen, for people."""
        if self.worst:
            return "worst by seam and texture"
        if self.by:
            return f"from least to most {self.by}"
        return f"chosen at random, seed {self.seed}"


@dataclass(frozen=True)
class EntryList:
    """The samples of a choice.

    Attributes:
        entries: in the order to show them.
        problems: samples that cannot be read, with the reason.
        of: how many samples there were to choose from.
    """

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    of: int


def select_frames(dataset: Dataset, choice: Choice, *, fields: bool = False) -> EntryList:
    """Frames of a dataset; `fields` cuts them to their fans.

    Raises:
        UsageError: no frame fits the choice.
    """
    keys = _fitting_keys(dataset, choice)
    return _entry_list(
        of_dataset(dataset, at_random(keys, choice.n, choice.seed), fields=fields), len(keys)
    )


def select_fans(dataset: Dataset, choice: Choice, reporter: Reporter) -> EntryList:
    """The fans of a dataset's recordings, those that were refused first, then the least certain.

    Raises:
        UsageError: no frame fits the choice.
    """
    keys = _fitting_keys(dataset, choice)
    found: list[FoundFan] = []
    problems: list[Problem] = []
    fitted = each_recording(
        _fans_and_problems,
        dataset,
        keys,
        workers=choice.workers,
        progress=lambda done, total: reporter.progress("fitting", done, total),
    )
    for fans, unreadable in fitted:
        found += fans
        problems += unreadable
    fans = fans_of_recordings(found)
    shown = of_fans(dataset, fans[: choice.n], {key.frame_id: key for key in keys})
    return _entry_list([*shown, *problems], len(fans))


def _fans_and_problems(recording: Recording) -> tuple[list[FoundFan], tuple[Problem, ...]]:
    return found_fans(recording), recording.problems


def _fitting_keys(dataset: Dataset, choice: Choice) -> list[FrameKey]:
    keys = [key for key in select(dataset.keys, choice.dataset) if choice.names(key.frame_id)]
    if not keys:
        raise UsageError(f"--samples {','.join(choice.samples)}: no frame has this id.")
    return keys


def select_copies(source: PlannedDataset, choice: Choice) -> EntryList:
    """Planned copies that have a move.

    Raises:
        UsageError: no copy fits the choice.
    """
    fitting = {key.frame_id for key in source.keys if fits(key, choice.dataset)}
    rows = [
        row
        for row in source.plan.rows
        if row.to_paint and row.frame_id in fitting and choice.names(row.sample_id)
    ]
    if not rows:
        raise UsageError(
            f"no copy to show: none of the plan's {len(source.plan.rows)} samples is a copy that "
            "matches --samples, --cases, --views, --phases and --split together."
        )
    if choice.by:
        moves = np.array([[getattr(row.params, name) for name in MOVES] for row in rows])
        chosen = _by(choice.by, rows, moves, choice.n)
    else:
        chosen = at_random(rows, choice.n, choice.seed)
    return _entry_list(of_plan(source, chosen), len(rows))


def select_samples(store: StoreReader, choice: Choice, reporter: Reporter) -> EntryList:
    """Samples of a store that are done; see `rows_of_store`.

    Raises:
        UsageError: no sample fits the choice, or nothing is painted to be judged.
    """
    rows, scores = rows_of_store(store, choice), {}
    if choice.worst:
        judged = at_random(rows, choice.judged or len(rows), choice.seed)
        scores = worst_rows(store, judged, choice, reporter)
        chosen = list(scores)
    elif choice.by:
        moves = np.stack([store.columns[name][rows] for name in MOVES], axis=1)
        chosen = _by(choice.by, rows, moves.astype(np.float64), choice.n)
    else:
        chosen = at_random(rows, choice.n, choice.seed)
    return _entry_list(of_store(store, chosen, scores), len(rows))


def _by(by: By, items: Sequence[T], moves: Floats, n: int) -> list[T]:
    values = amount(by, moves)
    moved = np.flatnonzero(np.isfinite(values))
    if not len(moved):
        raise UsageError(f"--by {by}: none of {len(items)} samples has this move.")
    return along([items[int(i)] for i in moved], values[moved].tolist(), n)


def _entry_list(chosen: Iterable[Entry | Problem], of: int) -> EntryList:
    shown = list(chosen)
    return EntryList(
        tuple(entry for entry in shown if isinstance(entry, Entry)),
        tuple(problem for problem in shown if isinstance(problem, Problem)),
        of,
    )


def at_random(items: Sequence[T], n: int, seed: int) -> list[T]:
    """`n` of the items, in their own order; a larger `n` does not keep those of a smaller."""
    if n >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), n))]


def along(items: Sequence[T], values: Sequence[float], n: int) -> list[T]:
    """`n` of the items, evenly along their values, least first; equal values keep their order."""
    order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int))
    return [items[int(order[place])] for place in places]


def amount(by: By, moves: Floats) -> Floats:
    """How strong one transform is in each move.

    Args:
        by: which.
        moves: (n, 5) depth, tilt_deg, width, shift_x, shift_y.

    Returns:
        (n,); nan where a move leaves it alone.
    """
    depth, tilt, width, shift_x, shift_y = moves.T
    values = {"depth": depth, "tilt": tilt, "width": width, "shift": np.hypot(shift_x, shift_y)}
    still = {"depth": 1.0, "tilt": 0.0, "width": 1.0, "shift": 0.0}
    return np.where(np.isclose(values[by], still[by]), np.nan, values[by])


def rows_of_store(store: StoreReader, choice: Choice) -> list[int]:
    """The rows that a choice may take: copies that are done, or originals where there is no copy.

    Raises:
        UsageError: there is none; says what there is.
    """
    columns = store.columns
    frames = zip(frame_keys(columns), columns["sample_id"].tolist(), strict=True)
    asked = [fits(key, choice.dataset) and choice.names(name) for key, name in frames]
    fitting = (columns["status"] == Status.DONE) & np.array(asked, np.bool_)
    if not fitting.any():
        done = int((columns["status"] == Status.DONE).sum())
        if not done:
            what = "no sample is done yet; run the command that makes the store again."
            if store.complete:
                what = "no sample was made: all were rejected or failed, as samples/reason says."
            raise UsageError(f"{store.path}: {what}")
        raise UsageError(
            f"{store.path}: no sample to show: none of its {done} finished samples matches "
            "--samples, --cases, --views, --phases and --split together; use fewer of them."
        )
    copies = fitting & (columns["copy"] > 0)
    return [int(row) for row in np.flatnonzero(copies if copies.any() else fitting)]


def worst_rows(
    store: StoreReader, rows: Sequence[int], choice: Choice, reporter: Reporter
) -> dict[int, float]:
    """{row: score} of the `n` rows with the highest, worst first; see `measures.realism`.

    Raises:
        UsageError: nothing is painted in these rows.
        StoreError: pixels are damaged.
    """
    painted = [row for row in rows if store.kind == "expanded" and store.columns["copy"][row] > 0]
    if not painted:
        raise UsageError(f"--worst: {store.path} contains no painted copies of frames to judge.")
    portions = [painted[i : i + PORTION] for i in range(0, len(painted), PORTION)]
    pairs = []
    for pair in in_workers(_measure, portions, (store.path,), choice.workers):
        pairs.append(pair)
        reporter.progress("judging", min(PORTION * len(pairs), len(painted)), len(painted))
    copies, real = (np.concatenate(measured) for measured in zip(*pairs, strict=True))
    scores = score(norm_of(real, copies).deviation(copies))
    order = np.argsort(-scores, kind="stable")[: choice.n]
    return {painted[int(place)]: float(scores[place]) for place in order}


def _measure(rows: Sequence[int], path: Path) -> tuple[Floats, Floats]:
    store = shared_store(path)
    return log_ratios_of(store, rows)
