"""`echogen export`: a store in another format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli import flags
from echogen.cli.console import duration, run, show_lines, show_table
from echogen.cli.flags import INPUT, MAKE, Flag, Given
from echogen.support.words import both, counted

if TYPE_CHECKING:
    from echogen.commands.export import ExportReport

NNUNET = "nnU-Net"


def export(
    ctx: typer.Context,
    store: Annotated[Path, Given(help="Store made by expand or sample: .zarr or .h5.")],
    to: Annotated[
        str, Flag("--to", metavar="nnunet|folder|nifti|zarr|h5", help="The format.",
                  rich_help_panel=MAKE)
    ],
    output: Annotated[
        Path,
        Flag("--out", help="Folder or store to create; for nnunet, the folder of raw datasets.",
             rich_help_panel=MAKE),
    ],
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    copies: Annotated[
        str | None,
        Flag(metavar="originals|copies|0,1,..", help="Only these copies; 0 is the original.",
             rich_help_panel=INPUT),
    ] = None,
    statuses: Annotated[
        str | None,
        Flag("--status", metavar="done,rejected,failed", rich_help_panel=INPUT,
             help="Only rows with this status; files need done ones."),
    ] = None,
    allow_unfinished: Annotated[
        bool,
        Flag("--allow-unfinished", help="Export what is done of an unfinished store.",
             rich_help_panel=INPUT),
    ] = False,
    dataset_id: Annotated[
        int | None, Flag(help="Dataset number, 1 to 999 (default: 501).", rich_help_panel=NNUNET)
    ] = None,
    name: Annotated[
        str | None, Flag(help="Name of the dataset (default: Echogen).", rich_help_panel=NNUNET)
    ] = None,
    folds: Annotated[
        int | None,
        Flag(help="Cross-validation folds (default: the dataset's own validation split, or 5).",
             rich_help_panel=NNUNET),
    ] = None,
    seed: Annotated[int | None, Flag(help="Seed of the folds.", rich_help_panel=NNUNET)] = (
        None
    ),
    workers: flags.Workers = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:  # fmt: skip
    """Convert a store: nnU-Net's raw dataset, PNG folders, CAMUS-style NIfTI, Zarr or HDF5.

    Millimetres, cases, splits, copies and terms go with it. Killed or
    interrupted, the same command continues; with other settings it refuses.

    Example: echogen export camus_aug.zarr --to nnunet --out "$nnUNet_raw" --name CAMUSAug
    """
    from echogen.commands.export import export as command

    run(ctx, command, show_export)


def show_export(report: "ExportReport") -> None:
    """Print the result of `echogen export`."""
    made = f"{report.samples} ({both(report.originals, report.copies)})"
    rows = [
        ("output", report.output),
        ("samples", f"{made} of {counted(report.cases, 'case')}"),
        ("written now", f"{report.written} in {duration(report.seconds)}"),
        ("failed", str(len(report.failed))),
    ]
    if report.pending:
        rows.append(("still to do", f"{report.pending}; run the store's own command"))
    if report.folds is not None:
        rows.append(("folds", str(report.folds)))
    show_table(rows)
    show_lines("failed", [f"{problem.frame_id}: {problem.reason}" for problem in report.failed])
    show_lines("note", list(report.notes))
    if report.next:
        typer.echo(f"next: once nnUNetv2_plan_and_preprocess has run: {report.next}")
