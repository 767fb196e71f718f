"""`echogen preview`: contact sheets to look at."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from echogen.cli import flags
from echogen.cli.console import duration, run, show_lines, show_table
from echogen.cli.flags import RUN, SHOW, Flag, Source

if TYPE_CHECKING:
    from echogen.commands.preview import PreviewReport


FITTED = Path("fitted")
"""Of `--fans` without a file."""


class FansAlone(TyperCommand):
    """A command whose `--fans` may stand alone: what follows it is its file if it ends in .csv."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--fans` becomes `--fans fitted` where no file follows."""
        whole: list[str] = []
        for arg, following in zip(args, [*args[1:], ""], strict=True):
            whole.append(arg)
            if arg == "--fans" and Path(following).suffix.lower() != ".csv":
                whole.append(str(FITTED))
        return super().parse_args(ctx, whole)


def preview(
    ctx: typer.Context,
    path: Source,
    out: Annotated[
        Path | None,
        Flag("--out", metavar="X.png", help="Contact sheet to write.", rich_help_panel=SHOW),
    ] = None,
    plan: Annotated[
        Path | None,
        Flag(
            metavar="X.json",
            help="Show a plan of this dataset: moved, not yet painted.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    fans: Annotated[
        Path | None,
        Flag(
            "--fans",
            metavar="[FILE.csv]",
            help="Show a dataset's fans, the least certain first; with a file, those given in it.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    n: Annotated[
        int | None,
        Flag(help="Number of samples (default: 8), or of fans (40).", rich_help_panel=SHOW),
    ] = None,
    seed: Annotated[int, Flag(min=0, help="Seed of the random choice.", rich_help_panel=SHOW)] = 0,
    worst: Annotated[
        bool,
        Flag("--worst", help="A store's worst seams and textures first.", rich_help_panel=SHOW),
    ] = False,
    by: Annotated[
        str | None,
        Flag(
            metavar="depth|tilt|width|shift",
            help="Order by one move, least to most.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    samples: Annotated[
        str | None,
        Flag(
            metavar="GLOB,..",
            help="Only matching samples, such as '*_copy1'.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    columns: Annotated[
        int, Flag(min=0, max=16, help="Samples side by side; 0 chooses.", rich_help_panel=SHOW)
    ] = 0,
    height: Annotated[
        int, Flag(min=64, max=1024, help="Height of each image in pixels.", rich_help_panel=SHOW)
    ] = 256,
    gif: Annotated[
        Path | None,
        Flag(
            metavar="X.gif",
            help="Paint the first sample again, as an animation.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        Flag(help="Model for --gif (default: the store's own, or builtin).", rich_help_panel=SHOW),
    ] = None,
    device: Annotated[
        str, Flag(metavar="auto|cpu|cuda", help="Device for --gif.", rich_help_panel=SHOW)
    ] = "auto",
    format: flags.Format = None,
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    frames: flags.Frames = None,
    case_salt: flags.CaseSalt = None,
    config: flags.DatasetFile = None,
    set_: flags.DatasetSet = None,
    workers: Annotated[
        int, Flag(min=0, help="Processes for --worst; 0 uses all cores.", rich_help_panel=RUN)
    ] = 0,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Draw contact sheets: original, moved (missing part marked), painted, labels; or fans.

    Example: echogen preview camus_aug.zarr --out sheet.png --worst
    """
    from echogen.commands.preview import preview as command

    table = ctx.params["fans"] not in (None, FITTED)
    run(ctx, command, partial(show_preview, table=table))


def show_preview(report: "PreviewReport", *, table: bool = False) -> None:
    """Print what `echogen preview` drew; `table`: fans were given."""
    what = "fans" if report.kind == "fans" else "samples"
    rows = [("shown", f"{len(report.shown)} of {report.of} {what} of {report.path}")]
    if report.sheet:
        rows.append(("sheet", f"{report.sheet}, {report.width} x {report.height} pixels"))
    if report.gif:
        rows.append(("animation", report.gif))
    show_table([*rows, ("took", duration(report.seconds))])
    if report.kind == "fans" and not table:
        typer.echo(f"next: echogen validate {report.path} --fans fans.csv writes them, to be "
                   "corrected and given back with --fans")  # fmt: skip
    show_lines("left out", [problem.reason for problem in report.problems])
