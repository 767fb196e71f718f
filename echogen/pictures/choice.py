"""Choosing what to show: at random by a seed, the worst, or along one transform."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt

from echogen.config import DatasetConfig
from echogen.datasets.base import fits
from echogen.errors import UsageError
from echogen.measures.painting import MEASURES, measure_readable, original_rows, score, usual
from echogen.planning.record import frame_keys
from echogen.report import Reporter
from echogen.store import Status, StoreReader, shared_store
from echogen.support.processes import in_workers

By = Literal["depth", "tilt", "width", "shift"]
PORTION = 64
SERIAL_BELOW = 256

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """What to show.

    Attributes:
        n: samples.
        seed: of a random choice.
        worst: those whose painting is farthest from what real frames show.
        by: evenly along one transform, from the least to the most.
        samples: shell patterns of sample ids; empty for all.
        dataset: cases, views, phases and split, as for a dataset.
        workers: processes; 0 takes one a core.
    """

    n: int = 8
    seed: int = 0
    worst: bool = False
    by: By | None = None
    samples: tuple[str, ...] = ()
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    workers: int = 0

    def names(self, sample_id: str) -> bool:
        """Whether `samples` names a sample, or a dataset's frame."""
        return not self.samples or any(fnmatchcase(sample_id, one) for one in self.samples)

    @property
    def words(self) -> str:
        """How it was chosen, for people."""
        if self.worst:
            return "the worst by seam and texture"
        if self.by:
            return f"from the least to the most {self.by}"
        return f"chosen at random, seed {self.seed}"


def known_by(name: str | None) -> By | None:
    """A transform's name.

    Raises:
        UsageError: there is no such transform.
    """
    for known in get_args(By):
        if name == known:
            return cast(By, known)
    if name is None:
        return None
    raise UsageError(f"--by {name}: expected one of {', '.join(get_args(By))}.")


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


def amount(by: By, moves: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
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
            raise UsageError(
                f"{store.path}: no sample is done yet; give the command that makes it again."
            )
        raise UsageError(
            f"{store.path}: no sample to show: none of its {done} that are done fits --samples, "
            "--cases, --views, --phases and --split together; give fewer of them."
        )
    copies = fitting & (columns["copy"] > 0)
    return [int(row) for row in np.flatnonzero(copies if copies.any() else fitting)]


def worst_rows(
    store: StoreReader, rows: Sequence[int], choice: Choice, reporter: Reporter
) -> dict[int, float]:
    """{row: score} of the `n` rows with the highest, worst first; see `checks.scores`.

    Raises:
        UsageError: nothing is painted in these rows.
        StoreError: pixels are damaged.
    """
    painted = [row for row in rows if store.kind == "expanded" and store.columns["copy"][row] > 0]
    if not painted:
        raise UsageError(f"--worst: {store.path} holds no painted copies of frames to judge.")
    portions = [painted[i : i + PORTION] for i in range(0, len(painted), PORTION)]
    workers = 1 if len(painted) < SERIAL_BELOW else choice.workers
    made, real = [np.zeros((0, len(MEASURES)))], [np.zeros((0, len(MEASURES)))]
    done = 0
    for portion, (ours, theirs) in zip(
        portions, in_workers(_measure, portions, (store.path,), workers), strict=True
    ):
        made.append(ours)
        real.append(theirs)
        done += len(portion)
        reporter.progress("judging", done, len(painted))
    measured = np.concatenate(made)
    scores = score(usual(np.concatenate(real), measured).deviation(measured))
    order = np.argsort(-scores, kind="stable")[: choice.n]
    return {painted[int(place)]: float(scores[place]) for place in order}


def _measure(rows: Sequence[int], path: Path) -> tuple[npt.NDArray[np.float64], ...]:
    store = shared_store(path)
    return measure_readable(store, rows, original_rows(store))
