"""What is in a dataset or a store: sizes, places, volumes, diversity, realism, in one report."""

import csv
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from echogen.config import DatasetConfig, ExpandConfig
from echogen.datasets import Dataset
from echogen.errors import UsageError
from echogen.measures.cases import agreement, volumes
from echogen.measures.collect import FeatureTable, collect_dataset, collect_store, csv_rows
from echogen.measures.compare import coverage, distribution, diversity, unwrap_axes
from echogen.measures.features import FEATURES
from echogen.measures.realism import MEASURES, log_ratios_of
from echogen.measures.report import (
    GROUPS,
    ClassStats,
    FeatureStats,
    Measurements,
    Origin,
    Realism,
    StatsReport,
)
from echogen.report import QUIET, Reporter
from echogen.store import Status, StoreReader, is_store, open_store, present_store_path
from echogen.support.files import check_writable, write_whole
from echogen.support.settings import Settings, load_config
from echogen.support.words import counted
from echogen.types import BACKGROUND

TEXTURE_AT_MOST = 300


class StatsConfig(Settings):
    """All settings of `echogen stats` besides what to measure and which files to write.

    `dataset` says which frames of a dataset are measured, and in which layout it is. `most`
    recordings or shards are measured, drawn at random; 0 takes all. `seed` chooses the pictures of
    the page. `workers` 0 takes a process a core.
    """

    seed: int = Field(default=0, ge=0)
    most: int = Field(default=0, ge=0)
    workers: int = Field(default=0, ge=0)
    dataset: DatasetConfig = DatasetConfig()


def stats(
    path: str | Path,
    config: StatsConfig | str | Path | None = None,
    *,
    against: str | Path | None = None,
    html: str | Path | None = None,
    csv: str | Path | None = None,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> StatsReport:
    """Measure every sample of a dataset or a store, and set them against another if asked.

    Args:
        path: a dataset's folder or a store.
        config: all settings, or a TOML file as `echogen expand` takes it, of which the settings
            of the dataset count.
        against: another of either kind.
        html: file for a page with plots and pictures.
        csv: file for every measure of every sample.
        reporter: where progress goes.
        settings: as the flags of `echogen stats`, such as `views`, `workers`. They win.

    Raises:
        DatasetError, StoreError: one of them cannot be read.
        UsageError: nothing is left to measure, or a file cannot be written.
    """
    options = load_config(StatsConfig, settings, file=config, shared=("dataset", ExpandConfig))
    path, other = Path(path), None if against is None else Path(against)
    read = [place for place in (path, other) if place is not None]
    if html is not None:
        check_writable("--html", Path(html), ".html", ".htm", apart=read)
    if csv is not None:
        check_writable("--csv", Path(csv), ".csv", apart=read)
    report, measured = measure(path, other, options, reporter)
    if csv is not None:
        write_csv(measured, Path(csv))
    if html is not None:
        from echogen.pictures.choice import Choice
        from echogen.pictures.page import write_report

        choice = Choice(seed=options.seed, dataset=options.dataset, workers=options.workers)
        write_report(report, measured, Path(html), choice, reporter)
        reporter.tell(f"report: {html}")
    return report


def measure(
    path: Path,
    against: Path | None = None,
    options: StatsConfig | None = None,
    reporter: Reporter = QUIET,
) -> tuple[StatsReport, Measurements]:
    """What `stats` reports, and the samples behind it; see there.

    Raises:
        DatasetError, StoreError: one of them cannot be read.
        UsageError: nothing is left to measure.
    """
    began = time.monotonic()
    options = options or StatsConfig()
    _check(path, against, options)
    table, origin, texture, samples, labels = _collect(path, options, reporter)
    if not table.names:
        why = [f"{problem.frame_id}: {problem.reason}" for problem in table.problems[:1]]
        raise UsageError(": ".join([f"{path}: contains no sample that can be measured", *why]))
    beside = options
    if not is_store(path):  # --format, --fans and --case-salt are about PATH
        about_path = {"format": "auto", "fans": None, "case_salt": None}
        dataset = options.dataset.model_copy(update=about_path)
        beside = options.model_copy(update={"dataset": dataset})
    other = None if against is None else _collect(against, beside, reporter)[0]
    unwrap_axes([measured.values for measured in (table, other) if measured is not None])
    measurements = Measurements(table, other, texture)
    groups = {name: part for name in GROUPS if (part := measurements.group(name)).names}
    both = len(groups) == len(GROUPS)
    cases = volumes(table)
    report = StatsReport(
        path=str(path),
        samples=samples or {name: len(part.names) for name, part in groups.items()},
        counts=_counts(table),
        features=_features({name: part.values for name, part in groups.items()}),
        classes=_classes({name: part.shares for name, part in groups.items()}, labels),
        volumes=cases,
        agreement=agreement(cases),
        diversity=diversity(groups["originals"].values, groups["copies"].values) if both else (),
        against="" if against is None else str(against),
        coverage=()
        if other is None
        else coverage(measurements.group("originals").values, table.values, other.values),
        realism=_realism(texture),
        provenance=origin,
        problems=tuple((problem.frame_id, problem.reason) for problem in table.problems),
        seconds=round(time.monotonic() - began, 3),
    )
    return report, measurements


def _check(path: Path, against: Path | None, options: StatsConfig) -> None:
    """Refuse a selection of frames where there is no dataset to select from."""
    datasets = [place for place in (path, against) if place is not None and not is_store(place)]
    if options.dataset != DatasetConfig() and not datasets:
        raise UsageError(
            f"{path}: a store is measured as a whole; --format, --views, --phases, --split, "
            "--cases, --frames and --fans are for datasets. Use `echogen export` to make a store "
            "of a part."
        )


def write_csv(measurements: Measurements, path: Path) -> None:
    """One row a sample: its names and every feature.

    Raises:
        UsageError: the file cannot be written.
    """

    def write(place: Path) -> None:
        with place.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(csv_rows(measurements.samples))

    try:
        write_whole(path, write)
    except OSError as error:
        raise UsageError(f"--csv {path}: cannot be written ({error.strerror}).") from error


Texture = dict[str, npt.NDArray[np.float64]]


def _collect(
    path: Path, options: StatsConfig, reporter: Reporter
) -> tuple[FeatureTable, Origin, Texture, dict[str, int], Mapping[int, str]]:
    if not is_store(path):
        table, dataset = collect_dataset(
            path, options.dataset, options.workers, options.most, reporter
        )
        return table, _of_dataset(dataset), {}, {}, dataset.provenance.labels
    with open_store(present_store_path(path)) as store:
        table = collect_store(store, options.workers, options.most, reporter)
        labels = store.record.labels
        return table, _of_store(store), _texture(store), _outcomes(store), labels


def _outcomes(store: StoreReader) -> dict[str, int]:
    counts = asdict(store.counts())
    return {name: count for name, count in counts.items() if count or name in GROUPS}


def _counts(table: FeatureTable) -> dict[str, dict[str, int]]:
    quality = {case.case_id: case.info.get("image_quality", "") for case in table.cases}
    columns: dict[str, list[str]] = {
        name: [getattr(sample, name) for sample in table.names]
        for name in ("view", "phase", "split")
    }
    columns["quality"] = [str(quality.get(sample.case_id, "")) for sample in table.names]
    counts = {name: Counter(filter(None, values)) for name, values in columns.items()}
    return {name: dict(sorted(count.items())) for name, count in counts.items() if count}


def _features(groups: Mapping[str, Mapping[str, Any]]) -> tuple[FeatureStats, ...]:
    stats = []
    for feature in FEATURES:
        by_group = {name: distribution(values[feature.name]) for name, values in groups.items()}
        known = {name: spread for name, spread in by_group.items() if spread is not None}
        if known:
            stats.append(FeatureStats(feature.name, feature.unit, feature.words, known))
    return tuple(stats)


def _classes(
    groups: Mapping[str, Sequence[Mapping[int, float]]], labels: Mapping[int, str]
) -> tuple[ClassStats, ...]:
    found = []
    for label, name in sorted(labels.items()):
        if label == BACKGROUND:
            continue
        having = {g: [one[label] for one in some if label in one] for g, some in groups.items()}
        spread = {g: distribution(np.array(shares)) for g, shares in having.items()}
        known = {g: one for g, one in spread.items() if one is not None}
        counts = {g: len(shares) for g, shares in having.items()}
        found.append(ClassStats(label, name, counts, known))
    return tuple(found)


def _texture(store: StoreReader) -> Texture:
    if store.kind != "expanded":
        return {}
    rows = np.flatnonzero((store.columns["copy"] > 0) & (store.columns["status"] == Status.DONE))
    if not len(rows):
        return {}
    chosen = np.random.default_rng(0).permutation(rows)[:TEXTURE_AT_MOST]
    copies, real = log_ratios_of(store, sorted(chosen.tolist()))
    return {"copies": copies, "real": real}


def _realism(texture: Texture) -> tuple[Realism, ...]:
    if not texture:
        return ()
    found = []
    for name, copies, real in zip(MEASURES, texture["copies"].T, texture["real"].T, strict=True):
        if ratios := _ratios(copies):
            count = int(np.isfinite(copies).sum())
            found.append(Realism(name, ratios, _ratios(real), count))
    return tuple(found)


def _ratios(logarithms: Any) -> dict[str, float]:
    known = logarithms[np.isfinite(logarithms)]
    if not len(known):
        return {}
    values = np.exp(np.percentile(known, [5, 50, 95]))
    return dict(zip(("low", "median", "high"), (round(float(v), 4) for v in values), strict=True))


def _of_dataset(dataset: Dataset) -> Origin:
    source = dataset.provenance
    facts = {"layout": source.format, "cite": str(source.extra.get("citation", ""))}
    known = {name: value for name, value in facts.items() if value}
    return Origin("dataset", dataset.describe(), source.licence, known, ())


def _of_store(store: StoreReader) -> Origin:
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
    return Origin(
        store.kind,
        f"{store.kind} store: {samples} of {cases}",
        source.licence or model.licence,
        {name: value for name, value in facts.items() if value},
        tuple(store.problems),
    )


def _settings(values: Mapping[str, Any], names: Sequence[str]) -> str:
    shown = (f"{name} {values[name]}" for name in names if name in values)
    return ", ".join(text.replace("name ", "") for text in shown)
