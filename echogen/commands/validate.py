"""Can it be trusted? A dataset before it is used, a store after it was made."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from echogen.checks.dataset import DatasetSummary, check_dataset
from echogen.checks.finding import Finding, Severity
from echogen.checks.source import check_source
from echogen.checks.store import Texture, check_store
from echogen.config import DatasetConfig, ExpandConfig
from echogen.datasets import open_frames
from echogen.datasets.advice import advised
from echogen.datasets.dicom import is_dicom_layout, who_is_who
from echogen.datasets.dicom_cases import check_case_map
from echogen.datasets.fan_table import check_fans, write_fans
from echogen.errors import (
    EXIT_DONE,
    EXIT_DONE_WITH_FAILURES,
    DatasetError,
    StoreError,
    UsageError,
)
from echogen.judging.judge import Judge, open_judge
from echogen.models.resolve import resolve_judge
from echogen.report import QUIET, CommandReport, Counts, Reporter
from echogen.store import (
    Status,
    StoreReader,
    is_store,
    mark_pending,
    open_store,
    present_store_path,
    working_store_path,
)
from echogen.support.files import check_writable, write_private
from echogen.support.settings import Settings, load_config

Kind = Literal["dataset", "expanded", "generated"]


@dataclass(frozen=True)
class ValidationReport(CommandReport):
    """What was checked, and the findings.

    Attributes:
        path: what was checked.
        kind: a dataset, or a store of expanded or of generated images.
        usable: whether it can be used: a dataset with a usable frame, a store without damage.
        strict: whether warnings count as failures.
        findings: each problem, with what it is about.
        dataset: what a dataset holds; null for a store.
        advice: lines of `[dataset]` that findings name as what would help, the most frequent first.
        fans: the table of fans that was written, or empty.
        samples: a store's samples by outcome; null for a dataset.
        texture: how a store's painted parts compare with real frames; null for a dataset.
        source: the dataset that a store was compared with, pixel for pixel; empty if with none.
        repaired: rows of a store that were marked to be made again.
        seconds: it took.
        megabytes: of pixels that were read and decompressed; 0 for a dataset.
    """

    path: str
    kind: Kind
    usable: bool
    strict: bool
    findings: tuple[Finding, ...]
    dataset: DatasetSummary | None = None
    advice: tuple[str, ...] = ()
    fans: str = ""
    samples: Counts | None = None
    texture: Texture | None = None
    source: str = ""
    repaired: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 all right; 1 usable with faults, or given back; 3 dataset and 5 store not usable."""
        if not self.usable:
            return DatasetError.exit_code if self.kind == "dataset" else StoreError.exit_code
        warnings = [each for each in self.findings if each.severity is Severity.WARNING]
        failed = any(each.check == "failed" for each in warnings)
        faulty = failed or self.count(Severity.ERROR) or (self.strict and warnings)
        return EXIT_DONE_WITH_FAILURES if faulty or self.repaired else EXIT_DONE


class ValidationConfig(Settings):
    """All settings of `echogen validate` besides what to check.

    `source` is a dataset to compare a store with. `repair` marks a store's damaged and failed rows,
    so that they are made again. `thorough` measures the texture of every sample, not of a thousand.
    `strict` counts warnings as failures. `dataset` says which frames of a dataset are checked, and
    in which layout it, or a store's source, is; its table of fans is written where there is none
    yet, or with `overwrite`. `case_map` is a file to be written: which patient and which file each
    case of a folder of DICOM files is. `judge` is what looks for second hearts in a store: a
    judge's name or folder, "builtin" or "none". `workers` 0 takes a process a core.
    """

    source: Path | None = None
    thorough: bool = False
    repair: bool = False
    strict: bool = False
    overwrite: bool = False
    case_map: Path | None = None
    judge: str = "builtin"
    workers: int = Field(default=0, ge=0)
    dataset: DatasetConfig = DatasetConfig()


def validate(
    path: str | Path,
    config: ValidationConfig | str | Path | None = None,
    *,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> ValidationReport:
    """Check a dataset's folder or a store, told apart by what it is.

    Args:
        path: of it.
        config: all settings, or a TOML file as `echogen expand` takes it, of which the settings
            of the dataset count.
        reporter: where progress goes.
        settings: as the flags of `echogen validate`, such as `source`, `repair`. They win.

    Raises:
        DatasetError: the dataset that is to be a store's source cannot be used.
        StoreError: another process writes a store that is to be repaired.
        UsageError: an option that does not apply.
    """
    path = Path(path)
    options = load_config(ValidationConfig, settings, file=config, shared=("dataset", ExpandConfig))
    if options.overwrite and (options.dataset.fans is None or is_store(path)):
        raise UsageError(f"{path}: --overwrite replaces the table of a dataset's --fans; omit it.")
    if options.case_map is not None:
        _write_case_map(path, options.case_map, options.dataset)
    if not is_store(path):
        if options.source is not None or options.repair or options.thorough:
            raise UsageError(
                f"{path}: --source, --repair and --thorough are for stores, and this is not one."
            )
        return _dataset(path, options, reporter)
    about_source = ("format", "fans", "case_salt") if options.source is not None else ()
    kept = {name: getattr(options.dataset, name) for name in about_source}
    if options.dataset != DatasetConfig(**kept):
        raise UsageError(
            f"{path}: a store is checked as a whole; --views, --phases, --split, --cases, --frames "
            "and settings of the dataset are for datasets, --format, --fans and --case-salt for "
            "--source."
        )
    return _store(path, options, reporter)


def _write_case_map(path: Path, file: Path, chosen: DatasetConfig) -> None:
    """Who is who in a folder of DICOM files, for the user's eyes alone."""
    if is_store(path) or not is_dicom_layout(path):
        raise UsageError(f"--case-map {file}: {path} is not a folder of DICOM files; leave it out.")
    check_writable("--case-map", file, ".csv", apart=[path])
    check_case_map(file)
    write_private(file, who_is_who(path, chosen.case_salt))


def _dataset(path: Path, options: ValidationConfig, reporter: Reporter) -> ValidationReport:
    began = time.monotonic()
    chosen, table = options.dataset, options.dataset.fans
    written = ""
    if table is not None and (options.overwrite or not table.exists()):
        check_writable("--fans", table, ".csv")  # it may lie in the dataset
        check_fans(table)
        chosen, written = chosen.model_copy(update={"fans": None}), str(table)
    findings: tuple[Finding, ...]
    try:
        dataset, keys = open_frames(path, chosen, reporter.tell, need_labels=False)
        check = check_dataset(dataset, keys, chosen, options.workers, reporter)
        findings, summary = check.findings, check.summary
        if written:
            write_fans(check.fans, Path(written))
    except DatasetError as error:
        findings, summary = (Finding(Severity.ERROR, "dataset", "", str(error)),), None
        written = ""
    return ValidationReport(
        path=str(path),
        kind="dataset",
        usable=summary is not None and summary.usable > 0,
        strict=options.strict,
        findings=findings,
        dataset=summary,
        advice=_advice(findings),
        fans=written,
        seconds=time.monotonic() - began,
    )


def _advice(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The lines that would help most of what failed in one way: a setting holds for all frames."""
    failed = Counter(finding.check for finding in findings)
    named = Counter((finding.check, advised(finding.message)) for finding in findings)
    lines: dict[str, str] = {}
    for (check, line), count in named.most_common():
        if line and 2 * count >= failed[check]:
            lines.setdefault(line.partition(" = ")[0], line)
    return tuple(lines.values())


def _store(path: Path, options: ValidationConfig, reporter: Reporter) -> ValidationReport:
    began = time.monotonic()
    path = present_store_path(path)
    try:
        store = open_store(path)
    except StoreError as error:
        return ValidationReport(
            path=str(path),
            kind="expanded",
            usable=False,
            strict=options.strict,
            findings=(Finding(Severity.ERROR, "store", "", str(error)),),
            seconds=time.monotonic() - began,
        )
    with store:
        check = check_store(
            store, options.workers, options.thorough, reporter, _judge(store, options, reporter)
        )
        findings = list(check.findings)
        if options.source is not None and not any(f.check == "column" for f in findings):
            findings += check_source(
                store, options.source, options.dataset, options.workers, reporter
            )
        seconds = time.monotonic() - began
        counts = _counts(store, check.damaged)
        rows = {*check.damaged, *_failed(store)} if options.repair else set()
        kind: Kind = "expanded" if store.kind == "expanded" else "generated"
    if rows:
        mark_pending(_output(path), rows)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    mended = {"damage", "complete"} if rows else set()
    given_back = options.repair and all(error.check in mended for error in errors)
    return ValidationReport(
        path=str(path),
        kind=kind,
        usable=not errors or given_back,
        strict=options.strict,
        findings=tuple(findings),
        samples=counts,
        texture=check.texture,
        source="" if options.source is None else str(options.source),
        repaired=len(rows),
        seconds=seconds,
        megabytes=check.megabytes,
    )


def _judge(store: StoreReader, options: ValidationConfig, reporter: Reporter) -> Judge | None:
    """Of the store's copies; None where it has none, or cannot say what it labels."""
    if store.kind != "expanded":
        return None
    try:
        labels = store.record.labels
    except StoreError:
        return None
    return open_judge(resolve_judge(options.judge), labels, reporter.tell)


def _output(path: Path) -> Path:
    """What the run calls a working store: x.h5 for x.h5.partial.zarr."""
    output = path.with_name(path.name.removesuffix(".partial.zarr"))
    return output if working_store_path(output) == path else path


def _failed(store: StoreReader) -> list[int]:
    """Rows that failed and may not again; where their status cannot be read they are damaged."""
    try:
        failed = (store.columns["status"] == Status.FAILED) & ~store.condemned
        return [int(row) for row in failed.nonzero()[0]]
    except StoreError:
        return []


def _counts(store: StoreReader, damaged: tuple[int, ...]) -> Counts | None:
    """Samples by outcome, without the damaged ones; None where that cannot be read."""
    try:
        return store.counts(damaged)
    except StoreError:
        return None
