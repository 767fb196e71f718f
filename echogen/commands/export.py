"""`echogen export`: a store converted to nnU-Net's raw dataset, PNG folders, NIfTI, Zarr or HDF5.

Nothing of a user's is ever deleted, no file name leaves the output folder whatever a store says,
and a killed export continues when the same command is run again.
"""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from echogen.datasets.exported import CLASSES, SAMPLES
from echogen.errors import UsageError, exit_code_of
from echogen.exports.folder import plan_folder
from echogen.exports.nifti import plan_nifti
from echogen.exports.nnunet import NnunetSettings, copy_command, plan_nnunet
from echogen.exports.selection import STATUSES, Excerpt, Selection, choose
from echogen.exports.stores import check_suffix, copy_store
from echogen.exports.tables import README_FILE, classes_csv, readme, samples_csv
from echogen.exports.target import FolderOutput
from echogen.exports.writing import FilePlan, FilesOutcome, SampleFiles, write_item
from echogen.report import QUIET, CommandReport, Problem, Reporter
from echogen.store import StoreReader, open_store, own_output, store_lock
from echogen.support.files import check_apart
from echogen.support.processes import in_workers
from echogen.support.settings import Settings, load_config
from echogen.support.signals import catch_signals

Format = Literal["nnunet", "folder", "nifti", "zarr", "h5"]
FORMATS: tuple[Format, ...] = get_args(Format)
STORES: tuple[Format, ...] = ("zarr", "h5")


class ExportConfig(Settings):
    """All settings of `echogen export` besides the store.

    `to` is the format, and `output` the folder or store to make; for nnU-Net the folder of raw
    datasets. `selection` says which rows; files can be made only of rows that are done. `nnunet`
    is for nnU-Net alone. `allow_unfinished` takes what is done of a store whose run has not ended.
    `overwrite` replaces an export that is there. `workers` processes write files; 0 is one a core.
    """

    to: Format
    output: Path
    selection: Selection = Selection()
    nnunet: NnunetSettings = NnunetSettings()
    allow_unfinished: bool = False
    overwrite: bool = False
    workers: int = Field(default=0, ge=0)

    @field_validator("to", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in FORMATS:
            raise UsageError(f"--to {value}: expected one of {', '.join(FORMATS)}.")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.to in STORES:
            check_suffix(self.to, self.output)
        elif not set(self.selection.statuses) <= {"done"}:
            raise UsageError(
                f"--status {','.join(self.selection.statuses)}: only samples that are done have "
                f"pixels to write to files; --to {' and --to '.join(STORES)} keep the other rows."
            )
        return self


@dataclass(frozen=True)
class ExportReport(CommandReport):
    """How an export ended.

    Attributes:
        store: what was read.
        to: the format.
        output: the folder or store that was made.
        samples: that are in the output now.
        originals, copies: of these.
        cases: whose samples these are.
        written: samples that this run wrote; the others were there.
        pending: rows that fit but which the store's own run has still to make.
        failed: samples that could not be exported, with the reason.
        folds: in `splits_final.json`; null for other formats.
        notes: what else a user should know.
        next: a command that makes use of it; empty where there is none.
        seconds: that this run took.
    """

    store: str
    to: Format
    output: str
    samples: int
    originals: int
    copies: int
    cases: int
    written: int
    pending: int
    failed: tuple[Problem, ...]
    folds: int | None
    notes: tuple[str, ...]
    next: str
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or 1 where samples failed or the store is unfinished."""
        return exit_code_of(0, bool(self.failed or self.pending))


def export(
    store: str | Path,
    config: ExportConfig | None = None,
    *,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> ExportReport:
    """Convert a store to another format; see the module.

    Args:
        store: a .zarr folder or .h5 file.
        config: all settings.
        reporter: where progress goes.
        settings: as the flags of `echogen export`, such as `to`, `output`, `views`. They win.

    Raises:
        UsageError: nothing fits the selection, the format cannot hold it, or the output lies in the
            store.
        StoreError: the store is unfinished or damaged, something else is at the output, another
            process writes it, or the disk is full or refuses.
        Interrupted: by a signal; the same call continues.
    """
    began = time.monotonic()
    options = load_config(ExportConfig, settings, file=config)
    _check_for_nnunet(options.to, settings)
    default = tuple(STATUSES) if options.to in STORES else ("done",)
    with open_store(Path(store)) as opened, catch_signals(reporter.tell):
        excerpt = choose(opened, options.selection, default, options.allow_unfinished)
        if options.to in STORES:
            result = _export_store(opened, excerpt, options, reporter)
        else:
            result = _export_files(opened, excerpt, options, reporter)
    if not result.written and not result.failed:
        reporter.tell(f"{result.output}: already complete, nothing to do")
    copy = result.excerpt.columns["copy"]
    return ExportReport(
        store=str(store),
        to=options.to,
        output=str(result.output),
        samples=len(result.excerpt),
        originals=int((copy == 0).sum()),
        copies=int((copy > 0).sum()),
        cases=len(set(result.excerpt.columns["case_id"].tolist())),
        written=result.written,
        pending=excerpt.pending,
        failed=result.failed,
        folds=result.folds,
        notes=(*excerpt.notes, *result.notes),
        next=copy_command(options.nnunet) if result.folds else "",
        seconds=round(time.monotonic() - began, 3),
    )


def _check_for_nnunet(to: Format, settings: Mapping[str, object]) -> None:
    for field in fields(NnunetSettings):
        if to != "nnunet" and settings.get(field.name) is not None:
            raise UsageError(f"--{field.name.replace('_', '-')}: needs --to nnunet.")


@dataclass(frozen=True)
class _Export:
    """What is in the output now."""

    excerpt: Excerpt
    output: Path
    written: int = 0
    failed: tuple[Problem, ...] = ()
    folds: int | None = None
    notes: tuple[str, ...] = ()


def _export_store(
    store: StoreReader, excerpt: Excerpt, settings: ExportConfig, reporter: Reporter
) -> _Export:
    check_apart("--out", settings.output, store.path)
    with own_output(settings.output):
        written = copy_store(
            store,
            excerpt,
            settings.output,
            _plain(asdict(settings.selection)),
            settings.overwrite,
            reporter,
        )
    return _Export(excerpt, settings.output, written)


def _export_files(
    store: StoreReader, excerpt: Excerpt, settings: ExportConfig, reporter: Reporter
) -> _Export:
    root, folds, title = settings.output, None, "A dataset for segmentation of echocardiograms"
    if settings.to == "nnunet":
        plan, folds = plan_nnunet(excerpt, settings.nnunet)
        root, title = root / settings.nnunet.folder, settings.nnunet.folder
        _check_id_is_free(settings.output, settings.nnunet)
    elif settings.to == "nifti":
        plan = plan_nifti(excerpt, store.cases)
    else:
        plan = plan_folder(excerpt)
    check_apart("--out", root, store.path)
    taken = excerpt if plan.kept is None else excerpt.take(plan.kept)
    target = FolderOutput(
        root,
        _identity(excerpt, settings),
        tuple(path for item in plan.items for path in item.files),
    )
    with store_lock(root):
        if target.begin(settings.overwrite):
            return _Export(taken, root, folds=folds, notes=plan.notes)
        done = _write_items(plan, store.path, root, settings.workers, reporter)
        there = [not outcome.reason for outcome in done]
        notes = (*excerpt.notes, *plan.notes)
        tables = {
            **plan.tables(there),
            SAMPLES: samples_csv(taken, plan, there),
            README_FILE: readme(title, plan, taken, notes, sum(there)),
        }
        if settings.to != "nnunet" and excerpt.kind != "generated":  # dataset.json names them
            tables[CLASSES] = classes_csv(taken)
        target.finish(tables, complete=all(there))
    failed = tuple(
        Problem(str(name), outcome.reason)
        for name, outcome in zip(taken.columns["sample_id"], done, strict=True)
        if outcome.reason
    )
    here = np.flatnonzero(there)
    written = sum(outcome.new for outcome in done)
    return _Export(taken.take(here), root, written, failed, folds, plan.notes)


def _write_items(
    plan: FilePlan, store: Path, root: Path, workers: int, reporter: Reporter
) -> list[FilesOutcome]:
    items: tuple[SampleFiles, ...] = plan.items
    shared = (store, root, plan.encoding, plan.ids)
    done: list[FilesOutcome] = []
    with closing(in_workers(write_item, items, shared, workers)) as outcomes:
        for outcome in outcomes:
            done.append(outcome)
            reporter.progress("exporting", len(done), len(items))
    return done


def _identity(excerpt: Excerpt, settings: ExportConfig) -> dict[str, Any]:
    """What decides every file of an export, as JSON holds it."""
    known = {
        "to": settings.to,
        "store": {"plan_digest": excerpt.record.plan_digest or None, "samples": excerpt.digest},
        "selection": asdict(settings.selection),
    }
    if settings.to == "nnunet":
        known["nnunet"] = asdict(settings.nnunet)
    return _plain(known)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(values)))


def _check_id_is_free(raw: Path, settings: NnunetSettings) -> None:
    """nnU-Net finds datasets by number, so no two may share one."""
    number = settings.folder.partition("_")[0]
    found = sorted(raw.glob(f"{number}_*/")) if raw.is_dir() else []
    if others := [place for place in found if place.name != settings.folder]:
        raise UsageError(
            f"--dataset-id {settings.dataset_id}: {others[0]} already uses it, and nnU-Net needs "
            "unique numbers; give another."
        )
