"""`echogen export`: a store handed on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli.flags import (
    INPUT,
    RUN,
    AsJson,
    Cases,
    Debug,
    Flag,
    Phases,
    Quiet,
    Split,
    Views,
    listed,
)
from echogen.support.words import both, counted

if TYPE_CHECKING:
    from echogen.commands.export import ExportReport
    from echogen.exports.nnunet import NnunetSettings

MAKE, NNUNET = "What to make", "nnU-Net"


def export(
    ctx: typer.Context,
    store: Annotated[Path, typer.Argument(help="What expand or sample made: .zarr or .h5.")],
    to: Annotated[
        str, Flag("--to", metavar="nnunet|folder|nifti|zarr|h5", help="The format.",
                  rich_help_panel=MAKE)
    ],
    output: Annotated[
        Path,
        Flag("--out", help="Folder or store to make; for nnunet, the folder of raw datasets.",
             rich_help_panel=MAKE),
    ],
    views: Views = None,
    phases: Phases = None,
    split: Split = None,
    cases: Cases = None,
    copies: Annotated[
        str,
        Flag(metavar="originals|copies|0,1,..", help="Only these; 0 is the original.",
             rich_help_panel=INPUT),
    ] = "",
    status: Annotated[
        str | None,
        Flag(metavar="done,rejected,failed", help="Rows of these; files are made of done ones.",
             rich_help_panel=INPUT),
    ] = None,
    allow_unfinished: Annotated[
        bool,
        Flag("--allow-unfinished", help="Take what is done of an unfinished store.",
             rich_help_panel=INPUT),
    ] = False,
    dataset_id: Annotated[
        int | None, Flag(help="1 to 999 (default: 501).", rich_help_panel=NNUNET)
    ] = None,
    name: Annotated[
        str | None, Flag(help="Of the dataset (default: Echogen).", rich_help_panel=NNUNET)
    ] = None,
    folds: Annotated[
        int | None,
        Flag(help="Of the cross-validation (default: the dataset's own validation split, or 5).",
             rich_help_panel=NNUNET),
    ] = None,
    seed: Annotated[int | None, Flag(help="Of the folds (default: 0).", rich_help_panel=NNUNET)] = (
        None
    ),
    workers: Annotated[
        int, Flag(help="Processes that write files; 0 is one a core.", rich_help_panel=RUN)
    ] = 0,
    overwrite: Annotated[
        bool, Flag("--overwrite", help="Replace an export at --out.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Hand a store on: nnU-Net's raw dataset, PNG folders, CAMUS-style NIfTI, Zarr or HDF5.

    Millimetres, cases, splits, copies and terms go with it. Killed or
    interrupted, the same command continues; with other settings it refuses.

    Example: echogen export camus_aug.zarr --to nnunet --out "$nnUNet_raw" --name CAMUSAug
    """
    from echogen.cli.console import ConsoleReporter
    from echogen.commands.export import ExportSettings
    from echogen.commands.export import export as hand_on
    from echogen.exports.selection import Selection

    settings = ExportSettings(
        store=store,
        to=to,  # type: ignore[arg-type]  # checked there
        output=output,
        selection=Selection(
            tuple(listed(views)),
            tuple(listed(phases)),
            split or "",
            tuple(listed(cases)),
            copies,
            tuple(listed(status)),
        ),
        nnunet=_nnunet(ctx, to),
        allow_unfinished=allow_unfinished,
        overwrite=overwrite,
        workers=workers,
    )
    reporter = ConsoleReporter(quiet)
    try:
        report = hand_on(settings, reporter)
    finally:
        reporter.close()
    show_export(report, as_json)
    raise typer.Exit(report.exit_code)


def show_export(report: "ExportReport", as_json: bool) -> None:
    """The end of `echogen export`."""
    from echogen.cli.console import duration, show_json, show_lines, show_table

    if as_json:
        show_json(report)
        return
    made = f"{report.samples} ({both(report.originals, report.copies)})"
    rows = [
        ("output", report.output),
        ("samples", f"{made} of {counted(report.cases, 'case')}"),
        ("written now", f"{report.written} in {duration(report.seconds)}"),
        ("failed", str(len(report.failed))),
    ]
    if report.pending:
        rows.append(("still to make", f"{report.pending}, by the store's own command"))
    if report.folds is not None:
        rows.append(("folds", str(report.folds)))
    show_table(rows)
    show_lines("failed", [f"{problem.frame_id}: {problem.reason}" for problem in report.failed])
    show_lines("note", list(report.notes))
    if report.next:
        typer.echo(f"next: once nnUNetv2_plan_and_preprocess has run: {report.next}")


def _nnunet(ctx: typer.Context, to: str) -> "NnunetSettings":
    from echogen.errors import UsageError
    from echogen.exports.nnunet import NnunetSettings

    names = ("dataset_id", "name", "folds", "seed")
    given = {name: ctx.params[name] for name in names if ctx.params[name] is not None}
    if given and to != "nnunet":
        raise UsageError(f"--{next(iter(given)).replace('_', '-')}: goes with --to nnunet.")
    return NnunetSettings(**given)
