"""Contact sheets of a dataset, a plan or a store, and one sample's way through the sampler."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from echogen.config import EngineConfig
from echogen.datasets import Dataset, open_chosen, select
from echogen.errors import UsageError
from echogen.geometry.transforms import MOVES
from echogen.pictures.choice import (
    Choice,
    along,
    amount,
    at_random,
    rows_of_store,
    worst_rows,
)
from echogen.pictures.entries import Entry, of_dataset, of_plan, of_store
from echogen.pictures.panels import headings, marks, panels
from echogen.pictures.planned import planned_copies, planned_source
from echogen.pictures.sheet import Line, Page, draw
from echogen.report import CommandReport, Quiet, Reporter
from echogen.store import StoreReader, is_store, open_store, present_store_path
from echogen.support.words import counted
from echogen.types import FrameKey, Problem

QUIET = Quiet()
MOST = 200
PANELS, MOST_PIXELS = 6, 120_000_000


@dataclass(frozen=True)
class Options:
    """What to draw, and how.

    Attributes:
        choice: of samples.
        plan: of copies that are not yet painted; PATH is its dataset then.
        columns: samples side by side; 0 takes as many as four pictures allow.
        height: of an image, pixels.
        gif: where the way of the first chosen sample goes, or None.
        checkpoint: that paints it; empty takes the store's, or the built-in one.
        engine: where it is painted.
    """

    choice: Choice = field(default_factory=Choice)
    plan: Path | None = None
    columns: int = 0
    height: int = 256
    gif: Path | None = None
    checkpoint: str = ""
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True)
class Shown:
    """A sample on a sheet.

    Attributes:
        sample_id: of the sample, or of a dataset's frame.
        facts: as below its pictures.
    """

    sample_id: str
    facts: str


@dataclass(frozen=True)
class PreviewReport(CommandReport):
    """What was drawn.

    Attributes:
        path: of the dataset or store.
        kind: dataset, plan, expanded or generated.
        sheet: that was written, or empty.
        gif: that was written, or empty.
        width: of the sheet, pixels.
        height: of the sheet, pixels.
        of: samples that there are to choose from.
        shown: the chosen ones, in order.
        problems: frames that could not be shown, with the reason.
        seconds: it took.
    """

    path: str
    kind: str
    sheet: str
    gif: str
    width: int
    height: int
    of: int
    shown: tuple[Shown, ...]
    problems: tuple[Problem, ...]
    seconds: float


@dataclass(frozen=True)
class _Found:
    """What there is to draw: entries, and the words around them."""

    kind: str
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    of: int
    title: str
    what: str
    labels: dict[int, str]
    footer: tuple[str, ...]


def preview(
    path: Path, out: Path | None, options: Options | None = None, reporter: Reporter = QUIET
) -> PreviewReport:
    """Draw a contact sheet, an animation, or both.

    Args:
        path: a dataset's folder, or a store.
        out: the sheet, a .png; None draws none.
        options: what to draw.
        reporter: where progress goes.

    Raises:
        DatasetError, PlanError, StoreError: it cannot be read.
        UsageError: nothing is left to show, or an option does not apply.
        StoreError: a picture cannot be written.
    """
    from echogen.pictures import save_gif, save_png

    began = time.monotonic()
    options = options or Options()
    _check(path, options)
    found = _find(path, options, reporter)
    if not found.entries:
        reason = f" The first reason: {found.problems[0].reason}" if found.problems else ""
        raise UsageError(f"{path}: none of the chosen samples can be shown.{reason}")
    subject = None
    if options.gif is not None:
        from echogen.pictures.subject import subject_of

        subject = subject_of(path, options.plan, found.entries[0].name, options.choice,
                             options.checkpoint, options.engine, reporter)  # fmt: skip
    size = (0, 0)
    if out is not None:
        sheet = draw(_page(found, options))
        size = sheet.size
        save_png(np.asarray(sheet), out)
    if subject is not None and options.gif is not None:
        from echogen.pictures.passage import animation, walk

        frames, milliseconds = animation(subject, *walk(subject, reporter.tell), options.height)
        save_gif(frames, options.gif, milliseconds)
    return PreviewReport(
        path=str(path),
        kind=found.kind,
        sheet="" if out is None else str(out),
        gif="" if options.gif is None else str(options.gif),
        width=size[0],
        height=size[1],
        of=found.of,
        shown=tuple(Shown(entry.name, entry.facts) for entry in found.entries),
        problems=found.problems,
        seconds=round(time.monotonic() - began, 3),
    )


def _check(path: Path, options: Options) -> None:
    choice = options.choice
    if not 1 <= choice.n <= MOST:
        raise UsageError(f"--n {choice.n}: expected 1 to {MOST} samples.")
    if choice.n * options.height**2 * PANELS > MOST_PIXELS:
        raise UsageError(
            f"--n {choice.n} at --height {options.height}: the sheet would have more than "
            f"{MOST_PIXELS // 10**6} million pixels; lower one of them."
        )
    if (options.checkpoint or options.engine.device != "auto") and options.gif is None:
        raise UsageError("--checkpoint and --device: go with --gif, which paints; leave them out.")
    if choice.worst and choice.by:
        raise UsageError("--worst and --by: choose one of them.")
    store = is_store(path)
    if store and options.plan is not None:
        raise UsageError(f"--plan: goes with the dataset it was made of, and {path} is a store.")
    if choice.worst and not store:
        raise UsageError(f"--worst: is for painted samples, and {path} is no store.")
    if choice.by and not store and options.plan is None:
        raise UsageError(f"--by: is for moved samples: give a store, or --plan with {path}.")


def _find(path: Path, options: Options, reporter: Reporter) -> _Found:
    if is_store(path):
        with open_store(present_store_path(path)) as store:
            return _of_store(store, options.choice, reporter)
    if options.plan is not None:
        return _of_plan(path, options.plan, options.choice)
    chosen = options.choice.dataset
    dataset = open_chosen(path, chosen)
    return _of_dataset(dataset, options.choice)


def _of_dataset(dataset: Dataset, choice: Choice) -> _Found:
    keys = _named(select(dataset.keys(), choice.dataset), choice)
    found = list(of_dataset(dataset, at_random(keys, choice.n, choice.seed)))
    entries, problems = _parted(found)
    provenance = dataset.provenance
    return _Found(
        "dataset", entries, problems, len(keys), provenance.root_name, dataset.describe(),
        dict(provenance.labels), _terms(provenance.licence, ""),
    )  # fmt: skip


def _of_plan(path: Path, plan: Path, choice: Choice) -> _Found:
    source = planned_source(path, plan, choice.dataset.format)
    rows = planned_copies(source, choice)
    if choice.by:
        moves = np.array([[getattr(row.params, name) for name in MOVES] for row in rows])
        chosen = _by(rows, moves.reshape(-1, len(MOVES)), choice)
    else:
        chosen = at_random(rows, choice.n, choice.seed)
    entries, problems = _parted(list(of_plan(source, chosen)))
    dataset = source.dataset.provenance
    return _Found(
        "plan", entries, problems, len(rows), f"{dataset.root_name}: planned, not yet painted",
        f"{len(rows)} planned copies", dict(dataset.labels), _terms(dataset.licence, ""),
    )  # fmt: skip


def _of_store(store: StoreReader, choice: Choice, reporter: Reporter) -> _Found:
    rows, scores = rows_of_store(store, choice), {}
    if choice.worst:
        scores = worst_rows(store, rows, choice, reporter)
        chosen = list(scores)
    elif choice.by:
        columns = store.columns
        moves = np.stack([columns[name][rows].astype(np.float64) for name in MOVES], axis=1)
        chosen = _by(rows, moves, choice)
    else:
        chosen = at_random(rows, choice.n, choice.seed)
    entries, problems = _parted(list(of_store(store, chosen, scores)))
    attrs = store.attrs
    labels = {int(class_id): name for class_id, name in attrs.get("labels", {}).items()}
    licences = _terms(
        attrs.get("dataset", {}).get("licence", ""), attrs.get("checkpoint", {}).get("licence", "")
    )
    what = f"{counted(len(store), 'sample')} of {counted(len(store.cases), 'case')}"
    return _Found(store.kind, entries, problems, len(rows), store.path.name, what, labels, licences)


def _by(items: Sequence[Any], moves: Any, choice: Choice) -> list[Any]:
    assert choice.by is not None
    values = amount(choice.by, moves)
    moved = np.flatnonzero(np.isfinite(values))
    if not len(moved):
        raise UsageError(f"--by {choice.by}: none of {len(items)} samples has such a move.")
    return along([items[int(i)] for i in moved], values[moved].tolist(), choice.n)


def _named(keys: Iterable[FrameKey], choice: Choice) -> list[FrameKey]:
    found = [key for key in keys if choice.names(key.frame_id)]
    if not found:
        raise UsageError(f"--samples {','.join(choice.samples)}: no frame has such an id.")
    return found


def _parted(found: Sequence[Entry | Problem]) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    entries = tuple(one for one in found if isinstance(one, Entry))
    return entries, tuple(one for one in found if isinstance(one, Problem))


def _terms(dataset: str, model: str) -> tuple[str, ...]:
    named = (("data", dataset), ("model", model))
    return tuple(f"{name}: {licence}" for name, licence in named if licence)


def _page(found: _Found, options: Options) -> Page:
    names = headings(found.entries)
    lines = tuple(
        Line(panels(entry, names, options.height), entry.name, entry.facts)
        for entry in found.entries
    )
    shown = f"{len(lines)} of {found.of} shown" if len(lines) < found.of else f"{len(lines)} shown"
    return Page(
        title=found.title,
        subtitle=(found.what, f"{shown}, {options.choice.words}"),
        headings=names,
        lines=lines,
        marks=marks(found.entries, found.labels),
        footer=found.footer,
        columns=options.columns or max(1, 4 // len(names)),
    )
