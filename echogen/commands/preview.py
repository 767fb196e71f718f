"""Contact sheets of a dataset, a plan or a store, and animations of how a sample is painted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from echogen.config import EngineConfig, ExpandConfig
from echogen.datasets import open_chosen
from echogen.errors import PlanError, UsageError
from echogen.pictures.choice import (
    Choice,
    EntryList,
    select_copies,
    select_fans,
    select_frames,
    select_samples,
)
from echogen.pictures.entries import headings, legend
from echogen.pictures.files import save_gif, save_png
from echogen.pictures.sheet import Line, Sheet, draw
from echogen.planning.dataset import PlannedDataset
from echogen.planning.plan import PlannedFrame, load_plan
from echogen.planning.record import OF_FRAME
from echogen.report import QUIET, CommandReport, Problem, Reporter
from echogen.store import StoreReader, is_store, open_store, present_store_path
from echogen.support.files import check_writable
from echogen.support.settings import load_config
from echogen.support.words import counted
from echogen.types import FrameKey

MOST = 200
FANS = 40
"""Fans on a sheet where no number is given."""
REASON = 4
"""Lines of text for why there is no fan."""
PANELS, MOST_PIXELS = 6, 120_000_000


class PreviewConfig(Choice):
    """All settings of `echogen preview` besides what to show and the sheet's file.

    `plan` is the file of a plan whose copies are shown; the path is its dataset then. `columns`
    samples stand side by side; 0 takes as many as fit four pictures. An image is `height` pixels
    high. `gif` is a file for the animation of the first chosen sample, which `checkpoint` paints
    (empty takes the store's, or the built-in one), with `engine`. `fans` shows the fans of a
    dataset, the least certain first: "fitted" ones, or those of a table and the others fitted.
    """

    fans: Path | None = None
    plan: Path | None = None
    columns: int = Field(default=0, ge=0, le=16)
    height: int = Field(default=256, ge=64, le=1024)
    gif: Path | None = None
    checkpoint: str = ""
    engine: EngineConfig = EngineConfig()


@dataclass(frozen=True)
class SheetSample:
    """A sample on a sheet.

    Attributes:
        sample_id: of the sample, or of a dataset's frame; of fans, their recording's or frame's.
        facts: the line below its pictures.
    """

    sample_id: str
    facts: str


@dataclass(frozen=True)
class PreviewReport(CommandReport):
    """What was drawn.

    Attributes:
        path: of the dataset or store.
        kind: dataset, fans, plan, expanded or generated.
        sheet: its file, or empty.
        gif: its file, or empty.
        width: of the sheet, pixels.
        height: of the sheet, pixels.
        of: samples, or fans, there were to choose from.
        shown: the chosen ones, in order.
        problems: frames that cannot be shown, with the reason.
        seconds: elapsed.
    """

    path: str
    kind: str
    sheet: str
    gif: str
    width: int
    height: int
    of: int
    shown: tuple[SheetSample, ...]
    problems: tuple[Problem, ...]
    seconds: float


@dataclass(frozen=True)
class _Content:
    """The chosen samples, and the words around them."""

    kind: str
    selection: EntryList
    title: str
    description: str
    labels: Mapping[int, str]
    licences: tuple[str, ...]


def preview(
    path: str | Path,
    config: PreviewConfig | str | Path | None = None,
    *,
    out: str | Path | None = None,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> PreviewReport:
    """Draw a contact sheet, an animation, or both.

    Args:
        path: a dataset's folder, or a store.
        config: all settings, or a TOML file as `echogen expand` takes it, of which the settings
            of the dataset count.
        out: the sheet's file, a .png; None draws none.
        reporter: told of progress.
        settings: as the flags of `echogen preview`, such as `n`, `worst`, `gif`. They win.

    Raises:
        DatasetError, PlanError, StoreError: the path cannot be read.
        UsageError: nothing is left to show, or an option does not apply.
        StoreError: a picture cannot be written.
    """
    began = time.monotonic()
    shared = ("dataset", ExpandConfig)
    options = _complete(load_config(PreviewConfig, settings, file=config, shared=shared))
    path, out = Path(path), None if out is None else Path(out)
    _check(path, out, options)
    source = None if options.plan is None else _planned(path, options.plan, options)
    content = _content(path, source, options, reporter)
    entries, problems = content.selection.entries, content.selection.problems
    if not entries:
        reason = f" The first reason: {problems[0].reason}" if problems else ""
        raise UsageError(f"{path}: none of the chosen samples can be shown.{reason}")
    subject = None
    if options.gif is not None:
        from echogen.pictures.subject import subject_of

        subject = subject_of(path, source, entries[0].name, options, options.checkpoint,
                             options.engine, reporter)  # fmt: skip
    size = (0, 0)
    if out is not None:
        sheet = draw(_sheet(content, options))
        size = sheet.size
        save_png(sheet, out)
    if subject is not None and options.gif is not None:
        from echogen.pictures.passage import animation, walk

        frames, milliseconds = animation(subject, *walk(subject, reporter.tell), options.height)
        save_gif(frames, options.gif, milliseconds)
    return PreviewReport(
        path=str(path),
        kind=content.kind,
        sheet="" if out is None else str(out),
        gif="" if options.gif is None else str(options.gif),
        width=size[0],
        height=size[1],
        of=content.selection.of,
        shown=tuple(SheetSample(entry.name, entry.facts) for entry in entries),
        problems=problems,
        seconds=round(time.monotonic() - began, 3),
    )


def _complete(options: PreviewConfig) -> PreviewConfig:
    """The settings with what `fans` decides."""
    if options.fans is None:
        return options
    table = None if options.fans == Path("fitted") else options.fans
    dataset = options.dataset.model_copy(update={"fans": table})
    n = options.n if "n" in options.model_fields_set else FANS
    return options.model_copy(update={"dataset": dataset, "n": n})


def _check(path: Path, out: Path | None, options: PreviewConfig) -> None:
    if out is None and options.gif is None:
        raise UsageError("--out: missing; name the sheet, such as --out sheet.png.")
    for flag, picture, suffix in (("--out", out, ".png"), ("--gif", options.gif, ".gif")):
        if picture is not None:
            check_writable(flag, picture, suffix, apart=[path])
    if not 1 <= options.n <= MOST:
        raise UsageError(f"--n {options.n}: expected 1 to {MOST} samples.")
    if options.n * options.height**2 * PANELS > MOST_PIXELS:
        raise UsageError(
            f"--n {options.n} at --height {options.height}: the sheet would have more than "
            f"{MOST_PIXELS // 10**6} million pixels; lower one of them."
        )
    if (options.checkpoint or options.engine.device != "auto") and options.gif is None:
        raise UsageError("--checkpoint and --device: only apply to --gif, which paints; omit them.")
    if options.worst and options.by:
        raise UsageError("--worst and --by: give only one.")
    store = is_store(path)
    if options.fans is not None:
        others = {"--plan": options.plan, "--by": options.by, "--gif": options.gif}
        given = [flag for flag, value in others.items() if value is not None]
        if store or given:
            what = f"{path} is a store" if store else f"{' and '.join(given)} show samples"
            raise UsageError(f"--fans: shows the fans of a dataset's frames, but {what}.")
    if store and options.plan is not None:
        raise UsageError(f"--plan: needs the dataset that it was made from, but {path} is a store.")
    if options.worst and not store:
        raise UsageError(f"--worst: needs painted samples, but {path} is not a store.")
    if options.by and not store and options.plan is None:
        raise UsageError(f"--by: needs moved samples; give a store, or --plan with {path}.")


def _planned(path: Path, plan_file: Path, choice: Choice) -> PlannedDataset:
    """A plan that `echogen expand --dry-run --plan` wrote, with the dataset it was made from.

    Raises:
        PlanError: the file is not a plan, or not one of this dataset.
        DatasetError: the dataset cannot be read.
    """
    plan = load_plan(plan_file)
    not_recorded = {"format": choice.dataset.format, "case_salt": choice.dataset.case_salt}
    chosen = plan.settings.dataset.model_copy(update=not_recorded)
    dataset = open_chosen(path, chosen)
    keys = list(dataset.keys)
    here = {_identity(key) for key in keys}
    absent = [planned.frame_id for planned in plan.frames if _identity(planned) not in here]
    if absent:
        raise PlanError(
            f"--plan {plan_file}: was made from a dataset other than {path}: {len(absent)} of its "
            f"{len(plan.frames)} frames are missing or other ones, such as {absent[0]}. Give the "
            "plan's own dataset."
        )
    return PlannedDataset(dataset, keys, plan)


def _identity(frame: FrameKey | PlannedFrame) -> tuple[str, ...]:
    return *(str(getattr(frame, name)) for name in OF_FRAME), frame.sequence


def _content(
    path: Path, source: PlannedDataset | None, choice: PreviewConfig, reporter: Reporter
) -> _Content:
    if is_store(path):
        with open_store(present_store_path(path)) as store:
            return _of_store(store, choice, reporter)
    if source is not None:
        selection, provenance = select_copies(source, choice), source.dataset.provenance
        title = f"{provenance.root_name}: planned, not yet painted"
        kind, description = "plan", f"{selection.of} planned copies"
    else:
        dataset = open_chosen(path, choice.dataset, need_labels=False)
        provenance = dataset.provenance
        title, kind, description = provenance.root_name, "dataset", dataset.describe()
        if choice.fans is None:
            selection = select_frames(dataset, choice)
        else:
            selection, kind = select_fans(dataset, choice, reporter), "fans"
    licences = _licences(provenance.licence, "")
    return _Content(kind, selection, title, description, provenance.labels, licences)


def _of_store(store: StoreReader, choice: Choice, reporter: Reporter) -> _Content:
    selection = select_samples(store, choice, reporter)
    record = store.record
    licences = _licences(record.dataset.licence, record.checkpoint.licence)
    description = f"{counted(len(store), 'sample')} of {counted(len(store.cases), 'case')}"
    return _Content(store.kind, selection, store.path.name, description, record.labels, licences)


def _licences(dataset: str, model: str) -> tuple[str, ...]:
    named = (("data", dataset), ("model", model))
    return tuple(f"{name}: {licence}" for name, licence in named if licence)


def _sheet(content: _Content, options: PreviewConfig) -> Sheet:
    entries, of = content.selection.entries, content.selection.of
    names = headings(entries)
    lines = tuple(Line(entry.panels(names, options.height), entry.name, entry.facts)
                  for entry in entries)  # fmt: skip
    shown = f"{len(lines)} of {of} shown" if len(lines) < of else f"{len(lines)} shown"
    how = options.words if options.fans is None else "the least certain fans first"
    refused = any(entry.fan and entry.fan.reason for entry in entries)
    return Sheet(
        title=content.title,
        subtitle=(content.description, f"{shown}, {how}"),
        headings=names,
        lines=lines,
        legend=legend(entries, content.labels),
        footer=content.licences,
        columns=options.columns or max(1, 4 // len(names)),
        facts=REASON if refused else 1,
    )
