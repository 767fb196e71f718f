"""`echogen expand`: the main job."""

from pathlib import Path
from typing import Annotated, Any

import typer

from echogen.cli.flags import (
    INPUT,
    PAINT,
    RUN,
    AsJson,
    BatchSize,
    Cases,
    Debug,
    Flag,
    Frames,
    Phases,
    Precision,
    Quiet,
    Split,
    Views,
)
from echogen.errors import UsageError

MAKE = "What to make"


def expand(
    ctx: typer.Context,
    input: Annotated[
        Path | None, Flag("--in", help="Dataset folder.", rich_help_panel=INPUT)
    ] = None,
    format: Annotated[
        str | None,
        Flag(
            metavar="auto|camus|folder|nnunet|echonet",
            help="Layout; auto tells.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    views: Views = None,
    phases: Phases = None,
    split: Split = None,
    cases: Cases = None,
    frames: Frames = None,
    limit: Annotated[int | None, Flag(help="Only the first frames.", rich_help_panel=INPUT)] = None,
    on_error: Annotated[
        str | None,
        Flag(
            metavar="skip|fail",
            help="A frame that cannot be used: skip and record it (default), or stop.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None, Flag("--out", help="Store to make: .zarr or .h5.", rich_help_panel=MAKE)
    ] = None,
    copies: Annotated[
        int | None, Flag(help="Generated variants a frame (default: 4).", rich_help_panel=MAKE)
    ] = None,
    seed: Annotated[
        int | None, Flag(help="One seed, one result (default: 0).", rich_help_panel=MAKE)
    ] = None,
    originals: Annotated[
        bool | None,
        Flag("--originals/--no-originals", help="Store the frames too.", rich_help_panel=MAKE),
    ] = None,
    labels_on_paint: Annotated[
        str | None,
        Flag(
            metavar="keep|clip|ignore",
            help="Labels that land on painted pixels where a label was cut.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        Flag(
            metavar="fast|balanced|high|paper",
            help="How much to spend on an image (default: balanced), or the published method.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    config: Annotated[
        Path | None, Flag(help="Settings as TOML; flags win over it.", rich_help_panel=MAKE)
    ] = None,
    set_: Annotated[
        list[str] | None,
        Flag(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, such as sampler.churn=1.5.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        Flag(
            metavar="NAME|FOLDER|FILE.pt",
            help="Model (default: builtin); echogen checkpoint list has the names.",
            rich_help_panel=PAINT,
        ),
    ] = None,
    sampler: Annotated[
        str | None, Flag(metavar="langevin|repaint", help="How to paint.", rich_help_panel=PAINT)
    ] = None,
    device: Annotated[
        str | None,
        Flag(
            metavar="auto|cpu|mps|cuda[:N][,..]",
            help="Where; cuda:0,cuda:1 paints on both. auto and cuda take all GPUs.",
            rich_help_panel=PAINT,
        ),
    ] = None,
    precision: Precision = None,
    batch_size: BatchSize = None,
    compile: Annotated[
        str | None,
        Flag(
            metavar="off|on|graphs",
            help="Compile the network first, with CUDA graphs or without; for long runs on a GPU.",
            rich_help_panel=PAINT,
        ),
    ] = None,
    workers: Annotated[
        int | None, Flag(help="Planning processes; 0 takes all cores.", rich_help_panel=RUN)
    ] = None,
    dry_run: Annotated[
        bool,
        Flag("--dry-run", help="Plan and estimate; paint nothing.", rich_help_panel=RUN),
    ] = False,
    plan: Annotated[
        Path | None, Flag(help="With --dry-run: write the plan here.", rich_help_panel=RUN)
    ] = None,
    print_config: Annotated[
        bool,
        Flag("--print-config", help="Show the resolved settings, then stop.", rich_help_panel=RUN),
    ] = False,
    overwrite: Annotated[
        bool, Flag("--overwrite", help="Replace a store at --out.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a labelled dataset into a larger one: move frames, paint what the move left empty.

    Killed or interrupted, the same command continues; with other settings it refuses.

    Example: echogen expand --in camus/ --out camus_aug.zarr --copies 4
    """
    from echogen.cli.console import ConsoleReporter, show_dry_run, show_run
    from echogen.config import ExpandConfig, load_config, to_toml

    resolved = load_config(
        ExpandConfig, settings_from_flags(ctx.params), preset=preset, file=config
    )
    if print_config:
        typer.echo(to_toml(resolved), nl=False)
        return
    if plan is not None and not dry_run:
        raise UsageError("--plan: goes with --dry-run; add it, or leave --plan out.")
    from echogen.commands import expand as generate
    from echogen.planning.plan import save_plan

    reporter = ConsoleReporter(quiet)
    try:
        if dry_run:
            made, estimate = generate.dry_run(resolved, reporter)
            if plan is not None:
                save_plan(made, plan)
            show_dry_run(estimate, as_json)
            raise typer.Exit(estimate.exit_code)
        report = generate.expand(resolved, overwrite=overwrite, reporter=reporter)
    finally:
        reporter.close()
    show_run(report, as_json)
    raise typer.Exit(report.exit_code)


_TOP = ("input", "output", "copies", "seed", "originals", "on_error", "checkpoint")
_TABLES = {
    "dataset": ("format", "views", "phases", "split", "cases", "frames", "limit"),
    "transforms": ("labels_on_paint",),
    "engine": ("device", "precision", "batch_size", "compile", "workers"),
}
_LISTS = ("views", "phases", "cases")


def settings_from_flags(params: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, as the configuration's tables."""
    given = {
        name: value.split(",") if name in _LISTS else value
        for name, value in params.items()
        if value is not None
    }
    settings: dict[str, Any] = {name: given[name] for name in _TOP if name in given}
    for table, names in _TABLES.items():
        chosen = {name: given[name] for name in names if name in given}
        if chosen:  # an empty table would hide a wrong value in the file
            settings[table] = chosen
    if "sampler" in given:
        settings["sampler"] = {"name": given["sampler"]}
    for assignment in params.get("set_") or ():
        _assign(settings, assignment)
    return settings


def _assign(settings: dict[str, Any], assignment: str) -> None:
    import tomllib

    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {assignment}: expected KEY=VALUE, such as sampler.churn=1.5.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    table = settings
    *parents, name = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {assignment}: {parent} is not a table of settings.")
    table[name] = parsed
