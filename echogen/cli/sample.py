"""`echogen sample`: generated images without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli import flags
from echogen.cli.console import painting_rows, run, show_failed, show_next, show_table
from echogen.cli.flags import MAKE, PAINT, Flag

if TYPE_CHECKING:
    from echogen.commands.sample import SampleReport


def sample(
    ctx: typer.Context,
    output: Annotated[
        Path, Flag("--out", help="Store to create: .zarr or .h5.", rich_help_panel=MAKE)
    ],
    n: Annotated[
        int | None, Flag(help="Number of images (default: 64).", rich_help_panel=MAKE)
    ] = None,
    seed: flags.Seed = None,
    sheet: Annotated[
        Path | None,
        Flag(
            help="Also write a contact sheet (.png); works for a finished store too.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    columns: Annotated[int, Flag(help="Images per row of the sheet.", rich_help_panel=MAKE)] = 8,
    background: Annotated[
        str | None,
        Flag(
            metavar="black|as-is",
            help="Outside the fitted fan: 0 as in real frames (default), or as painted.",
            rich_help_panel=MAKE,
        ),
    ] = None,
    checkpoint: flags.Checkpoint = None,
    preset: Annotated[
        str | None,
        Flag(
            metavar="fast|balanced|high",
            help="Effort per image (default: balanced).",
            rich_help_panel=PAINT,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        Flag(help="Network evaluations per image, instead of the preset's.", rich_help_panel=PAINT),
    ] = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    batch_size: flags.BatchSize = None,
    compile: flags.Compile = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Generate whole images, without labels.

    They come under the terms of the model that makes them; the built-in one is
    for non-commercial research only. The first images of a larger --n are those
    of a smaller one. A model may repeat images that it was trained on: its card
    says what is known of that.

    Killed or interrupted, the same command continues; with other settings it refuses.

    Example: echogen sample --n 64 --out samples.zarr --sheet sheet.png
    """
    from echogen.commands.sample import sample as command

    run(ctx, command, show_sample)


def show_sample(report: "SampleReport") -> None:
    """Print the result of `echogen sample`."""
    rows = [("store", report.output), ("images", f"{report.images} done, without labels")]
    if report.without_fan:
        rows.append(("no fan found", f"in {report.without_fan}, left as painted"))
    rows.append(("failed", str(len(report.failed))))
    if report.pending:
        rows.append(("still to do", str(report.pending)))
    if report.sheet:
        rows.append(("sheet", report.sheet))
    show_table([*rows, *painting_rows(report)])
    show_failed(report.failed)
    for note in report.notes:
        typer.echo(f"note: {note}")
    show_next(report.output, report.pending, report.images, len(report.failed))
