"""Every sample of a dataset or a store measured once, by worker processes, into columns."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, open_frames
from echogen.datasets.recordings import Recording, each_recording, recordings
from echogen.errors import StoreError
from echogen.geometry.field import field_of
from echogen.geometry.render import frame_grid
from echogen.geometry.transforms import sector_on_grid
from echogen.measures.classes import Classes, classes_of
from echogen.measures.features import BY_NAME, LabelledImage, SampleFeatures, features_of
from echogen.measures.volume import Discs
from echogen.report import Problem, Reporter
from echogen.store import Status, StoreReader, shared_store, units
from echogen.support.processes import in_workers
from echogen.types import IGNORE, Case

_NAMES = ("sample_id", "frame_id", "case_id", "view", "phase", "split")

T = TypeVar("T")


@dataclass(frozen=True)
class SampleNames:
    """A sample's names, as in a store; a dataset's frames are their own samples.

    Attributes:
        sample_id, frame_id, case_id, view, phase, split: strings, empty where unknown.
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
class FeatureTable:
    """A set of samples, measured.

    Attributes:
        names: of the samples, in order.
        values: {feature: (n,) float64}, nan where there is none.
        discs: {sample id: of its LV}, where that has a long axis.
        shares: {class id: share of the fan} of each sample, of the classes that it has.
        cases: of the samples.
        problems: frames that could not be read or have no fan.
    """

    names: tuple[SampleNames, ...]
    values: dict[str, npt.NDArray[np.float64]]
    discs: dict[str, Discs]
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    shares: tuple[Mapping[int, float], ...] = ()

    def part(self, chosen: Sequence[bool]) -> "FeatureTable":
        """The chosen samples."""
        names = tuple(compress(self.names, chosen))
        values = {name: column[np.array(chosen)] for name, column in self.values.items()}
        shares = tuple(compress(self.shares, chosen))
        return replace(self, names=names, values=values, shares=shares)


Rows = list[tuple[SampleNames, SampleFeatures]]
Outcome = tuple[Rows, list[Problem]]


def collect_dataset(
    path: Path, config: DatasetConfig, workers: int, most: int, reporter: Reporter
) -> tuple[FeatureTable, Dataset]:
    """Fields of a dataset's frames at their native resolution.

    Args:
        path: its folder.
        config: which frames, in which layout.
        workers: processes; 0 takes one a core.
        most: recordings that are measured, at random but always the same ones; 0 takes all.
        reporter: where progress goes.

    Raises:
        DatasetError, UsageError: it cannot be read, or nothing is selected.
    """
    dataset, keys = open_frames(path, config, need_labels=False)
    measured = each_recording(
        _measure_recording,
        dataset,
        [key for recording in _some(recordings(keys), most) for key in recording],
        (classes_of(dataset.provenance.labels),),
        workers=workers,
        progress=lambda done, total: reporter.progress("measuring", done, total),
    )
    return _table(measured, dataset.cases, dataset.problems(config)), dataset


def collect_store(store: StoreReader, workers: int, most: int, reporter: Reporter) -> FeatureTable:
    """Samples of a store that are done, on its grid.

    Args:
        store: opened.
        workers, reporter: as in `collect_dataset`.
        most: shards that are measured; 0 takes all.

    Raises:
        StoreError: columns are damaged; a sample whose pixels are is a problem.
    """
    shards = _some(list(units(store)), most)
    parts = classes_of(store.record.labels)
    cases = [
        Case(str(row["id"]), {k: v for k, v in row.items() if k != "id"}) for row in store.cases
    ]
    problems = [Problem(*row) for row in store.problems]
    return _table(_measure_shards(store, shards, parts, workers, reporter), cases, problems)


def _measure_shards(
    store: StoreReader,
    shards: Sequence[tuple[int, int]],
    parts: Classes,
    workers: int,
    reporter: Reporter,
) -> Iterator[Outcome]:
    total, done = sum(stop - start for start, stop in shards), 0
    reporter.progress("measuring", 0, total)
    results = in_workers(_measure_shard, shards, (store.path, parts), workers)
    for (start, stop), measured in zip(shards, results, strict=True):
        done += stop - start
        reporter.progress("measuring", done, total)
        yield measured


def _measure_recording(recording: Recording, parts: Classes) -> Outcome:
    samples, problems = [], list(recording.problems)
    for fitted in recording.frames:
        frame, key = fitted.frame, fitted.frame.key
        if fitted.sector is None:
            problems.append(Problem(key.frame_id, fitted.reason))
            continue
        field = field_of(frame, fitted.sector)
        sector, aspect = sector_on_grid(field.sector, frame_grid(field.frame))
        sample = LabelledImage(
            field.frame.image, field.frame.label, sector, aspect, frame.spacing_mm
        )
        names = SampleNames(
            key.frame_id, key.frame_id, key.case_id, key.view, key.phase, key.split, key.copy
        )
        samples.append((names, features_of(sample, parts)))
    return samples, problems


def _measure_shard(shard: tuple[int, int], path: Path, parts: Classes) -> Outcome:
    store = shared_store(path)
    samples: Rows = []
    problems: list[Problem] = []
    columns, start = store.columns, shard[0]
    rows = [row for row in range(*shard) if columns["status"][row] == Status.DONE]
    whole = _pixels(store, *shard) if rows else {}
    for row in rows:
        strings = {name: str(columns[name][row]) for name in _NAMES}
        names = SampleNames(**strings, copy=int(columns["copy"][row]))
        try:
            pixels = {
                name: whole[name][row - start] if whole else store.pixels(name)[row]
                for name in store.layout.pixels
            }
        except StoreError as error:
            problems.append(Problem(names.sample_id, str(error)))
            continue
        samples.append((names, features_of(_sample(store, row, pixels), parts)))
    return samples, problems


def _pixels(store: StoreReader, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
    """Rows of every array, read at once; nothing where one of them is damaged."""
    try:
        return {name: store.pixels(name)[start:stop] for name in store.layout.pixels}
    except StoreError:
        return {}


def _sample(store: StoreReader, row: int, pixels: Mapping[str, npt.NDArray[Any]]) -> LabelledImage:
    columns, mask = store.columns, pixels.get("masks")
    row_mm, col_mm = (float(value) for value in columns["spacing_mm"][row])
    unlabelled = None if mask is None else mask == IGNORE
    if unlabelled is not None and store.record.config.transforms.labels_on_paint == "clip":
        unlabelled |= ~pixels["keep"]
    return LabelledImage(
        pixels["images"],
        mask,
        columns["sector"][row],
        float(columns["aspect"][row]),
        (row_mm, col_mm) if np.isfinite([row_mm, col_mm]).all() else None,
        unlabelled,
    )


def _table(
    measured: Iterable[Outcome],
    cases: Iterable[Case],
    problems: Iterable[Problem],
) -> FeatureTable:
    samples: Rows = []
    problems = list(problems)
    for some, failed in measured:
        samples += some
        problems += failed
    samples.sort(key=lambda sample: (sample[0].frame_id, sample[0].copy))
    values = {
        name: np.array([features.values[name] for _, features in samples], dtype=np.float64)
        for name in BY_NAME
    }
    discs = {
        names.sample_id: features.discs for names, features in samples if features.discs is not None
    }
    return FeatureTable(
        names=tuple(names for names, _ in samples),
        values=values,
        discs=discs,
        cases=tuple(cases),
        problems=tuple(problems),
        shares=tuple(features.shares for _, features in samples),
    )


def _some(items: list[T], most: int) -> list[T]:
    if not most or len(items) <= most:
        return items
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), most))]


def csv_rows(table: FeatureTable) -> Iterator[list[object]]:
    """A header and one row a sample, for a CSV file: names, then features; empty where unknown."""
    yield [*_NAMES, "copy", *(f"{f.name}_{f.unit}" if f.unit else f.name for f in BY_NAME.values())]
    for index, names in enumerate(table.names):
        values = (table.values[name][index] for name in BY_NAME)
        shown = ("" if np.isnan(value) else f"{value:.6g}" for value in values)
        yield [*astuple(names), *shown]
