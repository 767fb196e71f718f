"""`echogen validate`: can a dataset or a store be trusted?"""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echogen.cli import flags
from echogen.cli.console import duration, run, show_table
from echogen.cli.flags import Flag, Source
from echogen.support.words import both, counted

if TYPE_CHECKING:
    from echogen.checks.finding import Finding
    from echogen.commands.validate import ValidationReport

CHECK = "What to check"
LISTED = 10


def validate(
    ctx: typer.Context,
    path: Source,
    source: Annotated[
        Path | None,
        Flag(
            metavar="DATASET",
            help="The dataset a store was made from: compare every kept pixel and label with it.",
            rich_help_panel=CHECK,
        ),
    ] = None,
    thorough: Annotated[
        bool,
        Flag("--thorough", help="Measure the texture of every sample.", rich_help_panel=CHECK),
    ] = False,
    repair: Annotated[
        bool,
        Flag(
            "--repair",
            help=(
                "Mark a store's damaged and failed samples; the same expand then remakes only "
                "these."
            ),
            rich_help_panel=CHECK,
        ),
    ] = False,
    judge: flags.Judge = None,
    no_judge: flags.NoJudge = False,
    strict: Annotated[
        bool, Flag("--strict", help="Exit with 1 on warnings too.", rich_help_panel=CHECK)
    ] = False,
    fans: Annotated[
        Path | None,
        Flag(
            metavar="FILE.csv",
            help="A dataset's fans: written where there is no such file, else taken as given.",
            rich_help_panel=CHECK,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        Flag(
            "--overwrite",
            help="Fit all fans again and replace the file of --fans.",
            rich_help_panel=CHECK,
        ),
    ] = False,
    case_map: Annotated[
        Path | None,
        Flag(
            "--case-map",
            metavar="FILE.csv",
            help="Write which patient and file each case of a DICOM folder is; it names patients.",
            rich_help_panel=CHECK,
        ),
    ] = None,
    format: flags.Format = None,
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    frames: flags.Frames = None,
    limit: flags.Limit = None,
    case_salt: flags.CaseSalt = None,
    config: flags.DatasetFile = None,
    set_: flags.DatasetSet = None,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Check a dataset before spending hours on it, or a store after it was made.

    Exit code 0: all right. 1: usable, but some frames or samples are not, or
    --repair gave some back. 3: a dataset, 5: a store that should not be used.

    Example: echogen validate camus_aug.zarr --source camus/
    """
    from echogen.commands.validate import validate as command

    run(ctx, command, partial(show_validation, given=ctx.params))


def show_validation(report: "ValidationReport", given: Mapping[str, Any] | None = None) -> None:
    """Print the result of `echogen validate`: findings by check, worst first, then a summary.

    Args:
        report: of the check.
        given: the flags of the call, to be repeated in what is to do next.
    """
    from echogen.checks.finding import Severity

    for severity in Severity:
        by_check: dict[str, list[Finding]] = {}
        for one in report.findings:
            if one.severity is severity:
                by_check.setdefault(one.check, []).append(one)
        for check, found in by_check.items():
            typer.echo(f"{severity.value}: {check} ({len(found)})")
            for one in found[:LISTED]:
                typer.echo(f"  {one.where}: {one.message}" if one.where else f"  {one.message}")
            if len(found) > LISTED:
                typer.echo(f"  ... and {len(found) - LISTED} more; --json has all")
    if report.findings:
        typer.echo("")
    show_table([*_about(report), *_found(report)])
    _conclusion(report)
    if report.kind == "dataset":
        _next(report, given or {})


def _about(report: "ValidationReport") -> list[tuple[str, str]]:
    rows = [("checked", f"{report.path} in {duration(report.seconds)}")]
    if (samples := report.samples) is not None:
        rows.append(
            ("samples", f"{both(samples.originals, samples.copies)} done, {samples.rejected} "
                        f"rejected, {samples.failed} failed, {samples.pending} to do")
        )  # fmt: skip
        rows.append(("read", f"{report.megabytes:.0f} MB of pixels, "
                     f"{report.megabytes / max(report.seconds, 1e-3):.0f} MB/s"))  # fmt: skip
    if report.source:
        rows.append(("source", f"kept pixels and labels compared with {report.source}"))
    if (texture := report.texture) is not None and texture.samples:
        rows.append(("texture", f"{counted(texture.samples, 'copy', 'copies')} measured, and the "
                     f"same parts of real frames {counted(texture.frames, 'time')}: "
                     f"steps across the border x {_ratio(texture.seam)} (real "
                     f"{_ratio(texture.seam_real)}), grain x {_ratio(texture.grain)} (real "
                     f"{_ratio(texture.grain_real)}), {texture.far} far off"))  # fmt: skip
    if (dataset := report.dataset) is not None:
        rows += dataset.rows()
    return rows


def _found(report: "ValidationReport") -> list[tuple[str, str]]:
    from echogen.checks.finding import Severity

    counts = [counted(report.count(one), one.value) for one in Severity]
    return [("found", ", ".join(counts))]


def _conclusion(report: "ValidationReport") -> None:
    if report.repaired:
        typer.echo(f"{counted(report.repaired, 'sample')} to be remade: run the "
                   "`echogen` command that made the store again.")  # fmt: skip
    elif not report.usable:
        what = "no usable frame" if report.kind == "dataset" else "do not train on it as it is"
        hint = "; --repair marks damaged samples to be remade" if _damaged(report) else ""
        typer.echo(f"not usable: {what}{hint}")
    else:
        typer.echo("usable")


def _next(report: "ValidationReport", given: Mapping[str, Any]) -> None:
    """What to do now: settings that would help, fans to look at, or the main job."""
    from echogen.datasets.advice import as_flag

    if report.fans:
        typer.echo(f"fans written to {report.fans}: keep the lines that you correct, delete the "
                   "others, and give it back with --fans")  # fmt: skip
    path, flags = shlex.quote(report.path), _reading_flags(given)
    if report.advice:
        file = given.get("config") or "run.toml"
        typer.echo(
            f"next: put this into {file}, your own values where these are a guess, and give "
            f"--config {file} to every command:"
        )
        for line in ("[dataset]", *report.advice):
            typer.echo(f"    {line}")
        sets = " ".join(as_flag(line) for line in report.advice)
        typer.echo(f"  or try it: echogen validate {path}{flags} {sets}")
        return
    table = "" if report.fans or not given.get("fans") else f" {shlex.quote(str(given['fans']))}"
    refused = report.dataset is not None and report.dataset.fans.get("refused")
    word = "next"
    if refused or any(one.check == "fan-uncertain" for one in report.findings):
        shown = _reading_flags({**given, "limit": None})  # preview chooses by itself
        typer.echo(f"next: echogen preview {path}{shown} --fans{table} --out fans.png shows the "
                   "fans, worst first")  # fmt: skip
        if not report.fans and not table:
            typer.echo(f"      echogen validate {path}{flags} --fans fans.csv writes them, to be "
                       "corrected and given back with --fans")  # fmt: skip
        word = "then"
    if report.usable and report.dataset is not None and not report.dataset.areas:
        typer.echo(f"{word}: echogen train --in {path}: no frame has a label, which expand needs")
    elif report.usable:
        output = f"{Path(report.path).resolve().name}_aug.zarr"
        fans = f" --fans{table}" if table else ""
        typer.echo(f"{word}: echogen expand --in {path}{flags}{fans} --out {shlex.quote(output)} "
                   "--copies 4 --dry-run")  # fmt: skip


def _reading_flags(given: Mapping[str, Any]) -> str:
    """Those that say how a dataset is read, to be given again, a space before each."""
    words = [
        word
        for name in ("format", "views", "phases", "split", "cases", "frames", "limit", "config")
        if given.get(name)
        for word in (f"--{name}", str(given[name]))
    ]
    words += [word for one in given.get("set_") or () for word in ("--set", one)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _damaged(report: "ValidationReport") -> bool:
    return any(one.check == "damage" for one in report.findings)


def _ratio(logarithm: float | None) -> str:
    import math

    return "?" if logarithm is None else f"{math.exp(logarithm):.2f}"
