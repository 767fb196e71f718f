"""`echogen expand`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echogen.cli import flags
from echogen.cli.console import (
    duration,
    painting_rows,
    run,
    show_failed,
    show_lines,
    show_next,
    show_table,
)
from echogen.cli.flags import INPUT, MAKE, RUN, Flag, settings_from
from echogen.errors import UsageError
from echogen.support.words import both

if TYPE_CHECKING:
    from echogen.commands.expand import DryRunReport, ExpandReport


def expand(
    ctx: typer.Context,
    input: Annotated[
        Path | None, Flag("--in", help="Dataset folder.", rich_help_panel=INPUT)
    ] = None,
    format: flags.Format = None,
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    frames: flags.Frames = None,
    fans: flags.Fans = None,
    case_salt: flags.CaseSalt = None,
    limit: flags.Limit = None,
    on_error: flags.OnError = None,
    output: flags.StoreOut = None,
    copies: flags.Copies = None,
    seed: flags.Seed = None,
    originals: Annotated[
        bool | None,
        Flag(
            "--originals/--no-originals",
            help="Store the original frames too.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    labels_on_paint: Annotated[
        str | None,
        Flag(
            metavar="keep|clip|ignore",
            help="What to do with labels on painted pixels where a label was cut.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    preset: flags.Preset = None,
    config: flags.ConfigFile = None,
    set_: flags.Set = None,
    checkpoint: flags.Checkpoint = None,
    judge: flags.Judge = None,
    no_judge: flags.NoJudge = False,
    sampler: flags.Sampler = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    batch_size: flags.BatchSize = None,
    compile: flags.Compile = None,
    workers: Annotated[
        int | None, Flag(help="Planning processes; 0 uses all cores.", rich_help_panel=RUN)
    ] = None,
    dry_run: Annotated[
        bool,
        Flag("--dry-run", help="Plan and estimate; paint nothing.", rich_help_panel=RUN),
    ] = False,
    plan_file: Annotated[
        Path | None,
        Flag("--plan", help="With --dry-run: write the plan here.", rich_help_panel=RUN),
    ] = None,
    print_config: Annotated[
        bool,
        Flag("--print-config", help="Show the resolved settings, then stop.", rich_help_panel=RUN),
    ] = False,
    overwrite: flags.Overwrite = False,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Turn a labelled dataset into a larger one: move frames, then paint what the move left empty.

    Killed or interrupted, the same command continues; with other settings it refuses.

    Example: echogen expand --in camus/ --out camus_aug.zarr --copies 4
    """
    if print_config:
        _print_config(settings_from(ctx.params))
        return
    if plan_file is not None and not dry_run:
        raise UsageError("--plan: needs --dry-run; add it, or omit --plan.")
    from echogen.commands import expand as command

    def estimate(**settings: Any) -> "DryRunReport":
        return command.dry_run(plan_file=plan_file, **settings)[1]

    if dry_run:
        run(ctx, estimate, show_dry_run)
    run(ctx, command.expand, show_run)


def _print_config(
    settings: dict[str, Any],
) -> None:
    from echogen.config import ExpandConfig
    from echogen.models.resolve import load_with_model, resolve_judge
    from echogen.support.settings import to_toml

    preset, file = settings.pop("preset", None), settings.pop("config", None)
    settings.pop("overwrite")
    resolved, _, _ = load_with_model(ExpandConfig, settings, preset=preset, file=file)
    resolve_judge(resolved.judge)
    typer.echo(to_toml(resolved), nl=False)


def show_run(report: "ExpandReport") -> None:
    """Print the result of `echogen expand`."""
    counts = report.counts
    failed = str(counts.failed)
    if report.condemned:
        failed += f", {report.condemned} by the judge; a lower transforms.max_hole makes fewer"
    rows = [
        ("store", report.output),
        (
            "samples",
            f"{counts.originals + counts.copies} done ({both(counts.originals, counts.copies)})",
        ),
        ("rejected", _rejected(counts.rejected)),
        ("failed", failed),
        ("judge", report.judge or "none"),
        ("frames skipped", str(len(report.skipped))),
    ]
    if counts.pending:
        rows.append(("still to do", str(counts.pending)))
    show_table([*rows, *painting_rows(report)])
    show_lines("skipped", [problem.reason for problem in report.skipped])
    show_failed(report.failed)
    show_lines("note", list(report.notes))
    show_next(report.output, counts.pending, counts.done, counts.failed - report.condemned)


def _megabytes(size: float) -> str:
    return f"{size:.0f}" if size >= 10 else f"{size:.2g}"


def _rejected(count: int) -> str:
    return f"{count} (no valid move found)" if count else "0"


def show_dry_run(report: "DryRunReport") -> None:
    """Print the result of `echogen expand --dry-run`."""
    show_table(
        [
            ("would make", report.output),
            ("from", report.dataset),
            ("samples", both(report.originals, report.copies)),
            ("rejected", _rejected(report.rejected)),
            ("frames skipped", str(len(report.skipped))),
            ("cost", f"{report.nfe} network evaluations per image ({report.sampler})"),
            ("time", f"about {duration(report.seconds)} on {report.device} ({report.precision})"),
            ("disk", f"about {_megabytes(report.megabytes)} MB"),
            ("judge", f"{report.judge}; what it condemns takes longer" if report.judge else "none"),
            ("model", f"{report.checkpoint}, {report.licence}"),
            ("plan", report.plan_digest[:16]),
        ]
    )
    show_lines("skipped", [problem.reason for problem in report.skipped])
    show_lines("note", list(report.notes))
