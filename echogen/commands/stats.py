"""What is in a dataset or a store: sizes, places, volumes, diversity, realism, in one report."""

import csv
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from echogen.config import DatasetConfig
from echogen.datasets import Dataset
from echogen.errors import UsageError
from echogen.measures.cases import agreement, volumes
from echogen.measures.collect import Collected, collect_dataset, collect_store, rows_of
from echogen.measures.compare import coverage, distribution, diversity, unwrap_axes
from echogen.measures.features import FEATURES
from echogen.measures.painting import MEASURES, measure_readable, original_rows
from echogen.measures.report import (
    GROUPS,
    FeatureStats,
    Measurements,
    Provenance,
    Realism,
    StatsReport,
)
from echogen.report import Quiet, Reporter
from echogen.store import Status, StoreReader, is_store, open_store, present_store_path
from echogen.support.files import write_whole
from echogen.support.words import counted

QUIET = Quiet()
TEXTURE_AT_MOST = 300


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        dataset: which frames of a dataset, and in which layout.
        workers: processes; 0 takes one a core.
        most: recordings or shards that are measured; 0 takes all.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    workers: int = 0
    most: int = 0


def stats(
    path: Path,
    against: Path | None = None,
    options: Options | None = None,
    reporter: Reporter = QUIET,
) -> tuple[StatsReport, Measurements]:
    """Measure every sample of a dataset or a store, and set them against another if asked.

    Args:
        path: a dataset's folder or a store.
        against: another of either kind.
        options: what to measure.
        reporter: where progress goes.

    Raises:
        DatasetError, StoreError: one of them cannot be read.
        UsageError: nothing is left to measure.
    """
    began = time.monotonic()
    options = options or Options()
    _check(path, against, options)
    found, provenance, texture, samples = _collect(path, options, reporter)
    if not found.who:
        raise UsageError(f"{path}: holds no sample that can be measured.")
    beside = options
    if not is_store(path):  # --format says the layout of PATH
        beside = replace(options, dataset=options.dataset.model_copy(update={"format": "auto"}))
    other = None if against is None else _collect(against, beside, reporter)[0]
    unwrap_axes([one.values for one in (found, other) if one is not None])
    measured = Measurements(found, other, texture)
    groups = {name: part for name in GROUPS if (part := measured.group(name)).who}
    both = len(groups) == len(GROUPS)
    cases = volumes(found)
    report = StatsReport(
        path=str(path),
        samples=samples or {name: len(part.who) for name, part in groups.items()},
        counts=_counts(found),
        features=_features({name: part.values for name, part in groups.items()}),
        volumes=cases,
        agreement=agreement(cases),
        diversity=diversity(groups["originals"].values, groups["copies"].values) if both else (),
        against="" if against is None else str(against),
        coverage=()
        if other is None
        else coverage(measured.group("originals").values, found.values, other.values),
        realism=_realism(texture),
        provenance=provenance,
        problems=tuple((one.frame_id, one.reason) for one in found.problems),
        seconds=round(time.monotonic() - began, 3),
    )
    return report, measured


def _check(path: Path, against: Path | None, options: Options) -> None:
    """Refuse a selection of frames where there is no dataset to select from."""
    datasets = [one for one in (path, against) if one is not None and not is_store(one)]
    if options.dataset != DatasetConfig() and not datasets:
        raise UsageError(
            f"{path}: is a store, which is measured whole; --format, --views, --phases, --split, "
            "--cases and --frames are for datasets. `echogen export` makes a part of a store."
        )


def write_csv(measured: Measurements, path: Path) -> None:
    """One row a sample: its names and every feature.

    Raises:
        UsageError: the file cannot be written.
    """

    def write(place: Path) -> None:
        with place.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows_of(measured.samples))

    try:
        write_whole(path, write)
    except OSError as error:
        raise UsageError(f"--csv {path}: cannot be written ({error.strerror}).") from error


Texture = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def _collect(
    path: Path, options: Options, reporter: Reporter
) -> tuple[Collected, Provenance, Texture, dict[str, int]]:
    if not is_store(path):
        found, dataset = collect_dataset(
            path, options.dataset, options.workers, options.most, reporter
        )
        return found, _of_dataset(dataset), {}, {}
    with open_store(present_store_path(path)) as store:
        found = collect_store(store, options.workers, options.most, reporter)
        return found, _of_store(store), _texture(store), _outcomes(store)


def _outcomes(store: StoreReader) -> dict[str, int]:
    counts = asdict(store.counts())
    return {name: count for name, count in counts.items() if count or name in GROUPS}


def _counts(found: Collected) -> dict[str, dict[str, int]]:
    quality = {case.case_id: case.info.get("image_quality", "") for case in found.cases}
    values: dict[str, list[str]] = {
        "view": [one.view for one in found.who],
        "phase": [one.phase for one in found.who],
        "split": [one.split for one in found.who],
        "quality": [str(quality.get(one.case_id, "")) for one in found.who],
    }
    counted = {name: dict(sorted(Counter(v for v in column if v).items()))
               for name, column in values.items()}  # fmt: skip
    return {name: count for name, count in counted.items() if count}


def _features(groups: Mapping[str, Mapping[str, Any]]) -> tuple[FeatureStats, ...]:
    found = []
    for feature in FEATURES:
        spread = {
            name: one
            for name, values in groups.items()
            if (one := distribution(values[feature.name])) is not None
        }
        if spread:
            found.append(FeatureStats(feature.name, feature.unit, feature.words, spread))
    return tuple(found)


def _texture(store: StoreReader) -> Texture:
    if store.kind != "expanded":
        return {}
    rows = np.flatnonzero((store.columns["copy"] > 0) & (store.columns["status"] == Status.DONE))
    if not len(rows):
        return {}
    chosen = np.random.default_rng(0).permutation(rows)[:TEXTURE_AT_MOST]
    made, real = measure_readable(store, sorted(chosen.tolist()), original_rows(store))
    return {"copies": made, "real": real}


def _realism(texture: Mapping[str, Any]) -> tuple[Realism, ...]:
    found = []
    for k, name in enumerate(MEASURES):
        spreads = [
            _ratios(texture[group][:, k]) for group in ("copies", "real") if group in texture
        ]
        if spreads and spreads[0]:
            count = int(np.isfinite(texture["copies"][:, k]).sum())
            found.append(Realism(name, spreads[0], spreads[1], count))
    return tuple(found)


def _ratios(logarithms: Any) -> dict[str, float]:
    known = logarithms[np.isfinite(logarithms)]
    if not len(known):
        return {}
    values = np.exp(np.percentile(known, [5, 50, 95]))
    return dict(zip(("low", "median", "high"), (round(float(v), 4) for v in values), strict=True))


def _of_dataset(dataset: Dataset) -> Provenance:
    source = dataset.provenance
    facts = {"layout": source.format, "cite": str(source.extra.get("citation", ""))}
    known = {name: value for name, value in facts.items() if value}
    return Provenance("dataset", dataset.describe(), source.licence, known, ())


def _of_store(store: StoreReader) -> Provenance:
    record = store.record
    source, model, sampler, settings = (
        record.dataset, record.checkpoint, record.sampler, record.config.recorded
    )  # fmt: skip
    moves = record.config.transforms
    facts = {
        "made by": f"echogen {record.version}, {record.created}",
        "complete": "yes" if store.complete else "no",
        "dataset": f"{source.root_name} ({source.format})" if source.recorded else "",
        "dataset's fingerprint": source.fingerprint[:16],
        "model": f"{model.name or '?'}, {model.licence or '?'}",
        "model's SHA-256": model.sha256[:16],
        "sampler": _settings(sampler.recorded, ("name", "levels", "steps", "precision")),
        "network evaluations an image": str("?" if sampler.nfe is None else sampler.nfe),
        "seed": str("?" if record.seed is None else record.seed),
        "copies": str(settings.get("copies", settings.get("n", ""))),
        "moves": _settings(moves.recorded, ("depth", "tilt_deg", "width", "shift")),
        "labels on paint": moves.labels_on_paint,
        "plan": record.plan_digest[:16],
    }
    samples, cases = counted(store.counts().done, "sample"), counted(len(store.cases), "case")
    return Provenance(
        store.kind,
        f"{store.kind} store: {samples} of {cases}",
        source.licence or model.licence,
        {name: value for name, value in facts.items() if value},
        tuple(store.problems),
    )


def _settings(values: Mapping[str, Any], names: Sequence[str]) -> str:
    shown = (f"{name} {values[name]}" for name in names if name in values)
    return ", ".join(text.replace("name ", "") for text in shown)
