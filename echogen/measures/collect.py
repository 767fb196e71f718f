"""Every sample of a dataset or a store measured once, by worker processes, into columns."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, open_chosen, select
from echogen.datasets.recordings import Recording, each_recording, recordings
from echogen.errors import StoreError
from echogen.geometry.render import frame_grid
from echogen.geometry.transforms import sector_on_grid
from echogen.measures.classes import Classes, classes_of
from echogen.measures.features import BY_NAME, Measured, Seen, measure
from echogen.report import Reporter
from echogen.store import Status, StoreReader, shared_store, units
from echogen.support.processes import in_workers
from echogen.types import IGNORE, Case, Problem

_NAMES = ("sample_id", "frame_id", "case_id", "view", "phase", "split")

T = TypeVar("T")


@dataclass(frozen=True)
class Who:
    """A sample's names.

    Attributes:
        sample_id, frame_id, case_id, view, phase, split: as in a store; a dataset's frames are
            their own samples.
        copy: 0 for an original; above, of a store, or of a dataset that was exported from one.
    """

    sample_id: str
    frame_id: str
    case_id: str
    view: str
    phase: str
    split: str
    copy: int


@dataclass(frozen=True)
class Collected:
    """A set of samples, measured.

    Attributes:
        who: their names, in order.
        values: {feature: (n,) float64}, nan where there is none.
        discs: {sample id: (length, diameters)} of the LVs that have a long axis.
        cases: of the samples.
        problems: frames that could not be read or have no fan.
    """

    who: tuple[Who, ...]
    values: dict[str, npt.NDArray[np.float64]]
    discs: dict[str, tuple[float, tuple[float, ...]]]
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]

    def part(self, chosen: Sequence[bool]) -> "Collected":
        """The chosen samples."""
        mask = np.array(chosen, dtype=np.bool_)
        who = tuple(one for one, wanted in zip(self.who, chosen, strict=True) if wanted)
        values = {name: column[mask] for name, column in self.values.items()}
        return Collected(who, values, self.discs, self.cases, self.problems)


Item = tuple[Who, Measured]


def collect_dataset(
    path: Path, config: DatasetConfig, workers: int, most: int, reporter: Reporter
) -> tuple[Collected, Dataset]:
    """Frames of a dataset at their native resolution.

    Args:
        path: its folder.
        config: which frames, in which layout.
        workers: processes; 0 takes one a core.
        most: recordings that are measured, at random but always the same ones; 0 takes all.
        reporter: where progress goes.

    Raises:
        DatasetError, UsageError: it cannot be read, or nothing is selected.
    """
    dataset = open_chosen(path, config)
    keys = list(select(dataset.keys(), config))
    parts = classes_of(dataset.provenance.labels)
    found: list[Item] = []
    problems = list(dataset.problems(config))
    for measured, failed in each_recording(
        _of_recording,
        dataset,
        [key for recording in _some(recordings(keys), most) for key in recording],
        (parts,),
        workers=workers,
        progress=lambda done, total: reporter.progress("measuring", done, total),
    ):
        found += measured
        problems += failed
    found.sort(key=lambda pair: pair[0].sample_id)
    used = {who.case_id for who, _ in found}
    cases = tuple(case for case in dataset.cases() if case.case_id in used)
    return _collected(found, cases, problems), dataset


def collect_store(store: StoreReader, workers: int, most: int, reporter: Reporter) -> Collected:
    """Samples of a store that are done, on its grid.

    Args:
        store: opened.
        workers, reporter: as in `collect_dataset`.
        most: shards that are measured; 0 takes all.

    Raises:
        StoreError: columns are damaged; a sample whose pixels are is a problem.
    """
    items = _some(list(units(store)), most)
    parts = classes_of(store.record.labels)
    total = sum(stop - start for start, stop in items)
    found: list[Item] = []
    done = 0
    reporter.progress("measuring", 0, total)
    problems = [Problem(*one) for one in store.problems]
    for (start, stop), (measured, damaged) in zip(
        items, in_workers(_of_unit, items, (store.path, parts), workers), strict=True
    ):
        found += measured
        problems += damaged
        done += stop - start
        reporter.progress("measuring", done, total)
    cases = tuple(
        Case(str(one["id"]), {k: v for k, v in one.items() if k != "id"}) for one in store.cases
    )
    return _collected(found, cases, problems)


def _of_recording(recording: Recording, parts: Classes) -> tuple[list[Item], list[Problem]]:
    found, problems = [], list(recording.problems)
    for fitted in recording.frames:
        key = fitted.frame.key
        if fitted.sector is None:
            problems.append(Problem(key.frame_id, fitted.reason))
            continue
        sector, aspect = sector_on_grid(fitted.sector, frame_grid(fitted.frame))
        frame = fitted.frame
        seen = Seen(frame.image, frame.label, sector, aspect, frame.spacing_mm)
        who = Who(key.frame_id, key.frame_id, key.case_id, key.view, key.phase, key.split, key.copy)
        found.append((who, measure(seen, parts)))
    return found, problems


def _of_unit(unit: tuple[int, int], path: Path, parts: Classes) -> tuple[list[Item], list[Problem]]:
    store = shared_store(path)
    found: list[Item] = []
    problems: list[Problem] = []
    status = store.columns["status"]
    rows = [row for row in range(*unit) if status[row] == Status.DONE]
    pixels = _pixels(store, *unit) if rows else {}
    for row in rows:
        who = _who(store.columns, row)
        try:
            part = {name: pixels[name][row - unit[0]] if pixels else store.pixels(name)[row]
                    for name in store.layout.pixels}  # fmt: skip
        except StoreError as error:
            problems.append(Problem(who.sample_id, str(error)))
            continue
        found.append((who, measure(_seen(store, row, part), parts)))
    return found, problems


def _pixels(store: StoreReader, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
    """Rows of every array, read at once; nothing where one of them is damaged."""
    try:
        return {name: store.pixels(name)[start:stop] for name in store.layout.pixels}
    except StoreError:
        return {}


def _seen(store: StoreReader, row: int, pixels: Mapping[str, npt.NDArray[Any]]) -> Seen:
    columns, mask = store.columns, pixels.get("masks")
    row_mm, col_mm = (float(value) for value in columns["spacing_mm"][row])
    unlabelled = None if mask is None else mask == IGNORE
    if unlabelled is not None and store.record.config.transforms.labels_on_paint == "clip":
        unlabelled |= ~pixels["keep"]
    return Seen(
        pixels["images"],
        mask,
        columns["sector"][row],
        float(columns["aspect"][row]),
        (row_mm, col_mm) if np.isfinite([row_mm, col_mm]).all() else None,
        unlabelled,
    )


def _who(columns: Mapping[str, npt.NDArray[Any]], row: int) -> Who:
    sample, frame, case, view, phase, split = (str(columns[name][row]) for name in _NAMES)
    return Who(sample, frame, case, view, phase, split, int(columns["copy"][row]))


def _collected(
    found: Sequence[Item], cases: tuple[Case, ...], problems: Sequence[Problem]
) -> Collected:
    values = {
        name: np.array([one.values[name] for _, one in found], dtype=np.float64) for name in BY_NAME
    }
    discs = {who.sample_id: (one.length, one.diameters) for who, one in found if one.diameters}
    return Collected(tuple(who for who, _ in found), values, discs, cases, tuple(problems))


def _some(items: list[T], most: int) -> list[T]:
    if not most or len(items) <= most:
        return items
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), most))]


def rows_of(collected: Collected) -> Iterator[list[object]]:
    """A header and one row a sample, for a CSV file: names, then features; empty where unknown."""
    names = ("sample_id", "frame_id", "case_id", "view", "phase", "split", "copy")
    yield [*names, *(f"{f.name}_{f.unit}" if f.unit else f.name for f in BY_NAME.values())]
    for index, who in enumerate(collected.who):
        values = (collected.values[name][index] for name in BY_NAME)
        shown = ("" if np.isnan(value) else f"{value:.6g}" for value in values)
        yield [*(getattr(who, name) for name in names), *shown]
