"""A store against the dataset it was made of: planned again, every kept pixel compared."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from echogen.checks.finding import Finding, error
from echogen.config import AugmentationConfig, DatasetConfig, Resize
from echogen.datasets import open_frames
from echogen.errors import StoreError
from echogen.planning.dataset import PlannedDataset
from echogen.planning.make import build_plan
from echogen.planning.plan import Plan
from echogen.planning.record import columns as planned_columns
from echogen.report import Problem, Reporter
from echogen.store import Status, StoreReader, shared_store
from echogen.support.processes import in_workers
from echogen.support.settings import explain
from echogen.types import Sample


def check_source(
    store: StoreReader, dataset: Path, layout: DatasetConfig, workers: int, reporter: Reporter
) -> list[Finding]:
    """Recomputes what is real in every sample that is done.

    Args:
        store: of expanded images.
        dataset: the folder that it was made of.
        layout: the folder's format, the table of fans that was given, and the salt of its ids.
        workers: processes; 0 takes one a core.
        reporter: where progress goes.

    Raises:
        DatasetError: the folder cannot be read, or no frame of it can be used.
        StoreError: the store does not say how it was made.
    """
    source = _source(store, dataset, layout, workers, reporter)
    found = list(_plan_differs(store, source.plan))
    rows = _comparable(store, source.plan)
    groups: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for in_store, in_plan in rows:
        groups[source.plan.rows[in_plan].frame_id].append((in_store, in_plan))
    done = 0
    reporter.progress("comparing with the source", 0, len(rows))
    compared = in_workers(_compare, list(groups.values()), (source, store.path), workers)
    for findings, count in compared:
        found += findings
        done += count
        reporter.progress("comparing with the source", done, len(rows))
    return found


def _source(
    store: StoreReader, path: Path, layout: DatasetConfig, workers: int, reporter: Reporter
) -> PlannedDataset:
    recorded = store.record.config.recorded
    if not recorded or store.kind != "expanded":
        raise StoreError(
            f"{store.path}: --source needs a store that `echogen expand` made, with its settings."
        )
    if "crop" in store.absent:
        raise StoreError(
            f"{store.path}: was made by echogen {store.record.version}, which laid the grid over "
            "the whole picture; this one lays it over the fan and cannot recompute its pixels. "
            "Check it without --source, or make it again."
        )
    settings = {name: value for name, value in recorded.items() if name != "store"}
    try:
        config = AugmentationConfig(**settings)
    except ValidationError as invalid:
        what = explain(invalid, AugmentationConfig)
        raise StoreError(
            f"{store.path}: its recorded settings are none of this version's: {what}"
        ) from invalid
    not_recorded = {name: getattr(layout, name) for name in ("format", "fans", "case_salt")}
    chosen = config.dataset.model_copy(update=not_recorded)
    dataset, keys = open_frames(path, chosen)
    progress = partial(reporter.progress, "planning")
    grids = _grids(store)
    plans = (build_plan(dataset, keys, config, grid, workers, progress) for grid in grids)
    first = next(plans)
    if first.digest != store.record.plan_digest:
        same = (plan for plan in plans if plan.digest == store.record.plan_digest)
        first = next(same, first)
    return PlannedDataset(dataset, keys, first)


def _grids(store: StoreReader) -> list[tuple[int, Resize]]:
    """The recorded grid; both that it can be where an older store does not say."""
    if grid := store.record.grid:
        return [(grid.image_size, grid.resize)]
    return [(store.image_shape[0], "stretch"), (store.image_shape[0], "letterbox")]


def _plan_differs(store: StoreReader, plan: Plan) -> Iterator[Finding]:
    if plan.digest == store.record.plan_digest:
        return
    there = store.record.dataset.fingerprint
    why = (
        "the frames are the same, so the settings or libraries differ"
        if there == plan.dataset["fingerprint"]
        else "its files differ from those the store was made from, or some were added or removed"
    )
    if store.record.dataset.fans != plan.dataset.get("fans", ""):
        why = "the run was given other fans, or none; give the same table by --fans"
    yield error("source", "", f"the plan made again is another one: {why}.")
    planned, columns = planned_columns(plan), store.columns
    by_id = {name: i for i, name in enumerate(planned["sample_id"].tolist())}
    for row, name in enumerate(columns["sample_id"].tolist()):
        at = by_id.get(name)
        if at is None:
            yield error("source", name, "the source gives no such sample.")
            continue
        for column in store.layout.planned:
            ours, theirs = columns[column.name][row], planned[column.name][at]
            if not _same(ours, theirs):
                message = f"{column.name} is {_brief(ours)}, the source gives {_brief(theirs)}."
                yield error("source", name, message)
                break


def _comparable(store: StoreReader, plan: Plan) -> list[tuple[int, int]]:
    """(row of the store, row of the plan) of the samples that are done and planned."""
    by_id = {row.sample_id: i for i, row in enumerate(plan.rows)}
    done = np.flatnonzero(store.columns["status"] == Status.DONE).tolist()
    names = store.columns["sample_id"]
    return [(row, by_id[str(names[row])]) for row in done if str(names[row]) in by_id]


def _compare(
    pairs: list[tuple[int, int]], source: PlannedDataset, path: Path
) -> tuple[list[Finding], int]:
    store = shared_store(path)
    found: list[Finding] = []
    samples = source.render([source.plan.rows[in_plan] for _, in_plan in pairs])
    for (row, in_plan), sample in zip(pairs, samples, strict=True):
        name = source.plan.rows[in_plan].sample_id
        if isinstance(sample, Sample):
            found += _differences(store, row, name, sample)
        elif isinstance(sample, Problem):
            found.append(error("source", name, sample.reason))
        else:
            found.append(error("source", name, "the plan rejects this sample."))
    return found, len(pairs)


def _differences(store: StoreReader, row: int, name: str, there: Sample) -> Iterator[Finding]:
    try:
        image, mask, keep = store.images[row], store.masks[row], store.keep[row]
    except StoreError:
        return  # reported as damage
    differing = {
        "kept pixels": int((image != there.image)[there.keep].sum()),
        "labels": int((mask != there.label).sum()),
        "pixels of keep": int((keep != there.keep).sum()),
    }
    for what, count in differing.items():
        if count:
            message = f"{count} {what} are not what the source gives."
            yield error("source", name, message)


def _same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "fc":
        return bool(np.array_equal(a, b.astype(a.dtype), equal_nan=True))
    return bool((a == b).all())


def _brief(value: Any) -> str:
    return str(np.asarray(value).tolist())
