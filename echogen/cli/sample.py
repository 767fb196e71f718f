"""`echogen sample`: generated images without labels."""

from pathlib import Path
from typing import Annotated, Any

import typer

from echogen.cli.flags import PAINT, RUN, AsJson, BatchSize, Debug, Flag, Precision, Quiet

MAKE = "What to make"


def sample(
    ctx: typer.Context,
    output: Annotated[
        Path, Flag("--out", help="Store to make: .zarr or .h5.", rich_help_panel=MAKE)
    ],
    n: Annotated[int | None, Flag(help="Images (default: 64).", rich_help_panel=MAKE)] = None,
    seed: Annotated[
        int | None, Flag(help="One seed, one result (default: 0).", rich_help_panel=MAKE)
    ] = None,
    sheet: Annotated[
        Path | None,
        Flag(help="Also a contact sheet, a .png; of a finished store too.", rich_help_panel=MAKE),
    ] = None,
    columns: Annotated[int, Flag(help="Images in a row of the sheet.", rich_help_panel=MAKE)] = 8,
    background: Annotated[
        str | None,
        Flag(
            metavar="black|as-is",
            help="Outside of the fan that is found: 0 as in real frames (default), or as painted.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        Flag(help="Model: its name or its folder (default: builtin).", rich_help_panel=PAINT),
    ] = None,
    preset: Annotated[
        str | None,
        Flag(
            metavar="fast|balanced|high",
            help="How much to spend on an image (default: balanced).",
            rich_help_panel=PAINT,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        Flag(help="Network evaluations an image, instead of a preset's.", rich_help_panel=PAINT),
    ] = None,
    device: Annotated[
        str | None,
        Flag(
            metavar="auto|cpu|mps|cuda[:N][,..]",
            help="Where; auto and cuda take all GPUs.",
            rich_help_panel=PAINT,
        ),
    ] = None,
    precision: Precision = None,
    batch_size: BatchSize = None,
    compile: Annotated[
        str | None,
        Flag(
            metavar="off|on|graphs",
            help="Compile the network first; for long runs on a GPU.",
            rich_help_panel=PAINT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, Flag("--overwrite", help="Replace a store at --out.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make whole images from nothing, without labels.

    They come under the terms of the model that makes them; the built-in one is
    for non-commercial research only. The first images of a larger --n are those
    of a smaller one. A model may repeat images that it was trained on: its card
    says what is known of that.

    Killed or interrupted, the same command continues; with other settings it refuses.

    Example: echogen sample --n 64 --out samples.zarr --sheet sheet.png
    """
    from echogen.cli.console import ConsoleReporter, show_sample
    from echogen.commands import sample as making
    from echogen.config import SampleConfig, load_config

    resolved = load_config(SampleConfig, _settings(ctx.params), preset=preset)
    reporter = ConsoleReporter(quiet)
    try:
        report = making.sample(
            resolved, overwrite=overwrite, sheet=sheet, columns=columns, reporter=reporter
        )
    finally:
        reporter.close()
    show_sample(report, as_json)
    raise typer.Exit(report.exit_code)


_TOP = ("output", "n", "seed", "background", "checkpoint")
_ENGINE = ("device", "precision", "batch_size", "compile")


def _settings(params: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, as the configuration's tables."""
    given = {name: value for name, value in params.items() if value is not None}
    settings = {name: given[name] for name in _TOP if name in given}
    settings["engine"] = {name: given[name] for name in _ENGINE if name in given}
    if "steps" in given:
        settings["sampler"] = {"steps": given["steps"]}
    return settings
