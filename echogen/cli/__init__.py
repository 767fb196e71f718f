"""The command line: each command parses, calls one function and shows the result.

Nothing heavy is imported until a command runs, so that `echogen --help` answers at once.
"""

import atexit
import gc
import sys
from typing import Annotated, NoReturn

import typer

from echogen import __version__
from echogen.cli.bench import bench
from echogen.cli.checkpoint import checkpoint
from echogen.cli.console import guard_streams
from echogen.cli.expand import expand
from echogen.cli.export import export
from echogen.cli.phantom import phantom
from echogen.cli.preview import FansAlone, preview
from echogen.cli.sample import sample
from echogen.cli.stats import stats
from echogen.cli.train import train
from echogen.cli.validate import validate
from echogen.errors import (
    EXIT_DONE,
    EXIT_DONE_WITH_FAILURES,
    EXIT_SIGINT,
    EchogenError,
    StoreError,
)
from echogen.support.reading import reason
from echogen.support.signals import Interrupted
from echogen.support.words import printable

app = typer.Typer(
    name="echogen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("expand", no_args_is_help=True)(expand)
app.command("validate", no_args_is_help=True)(validate)
app.command("stats", no_args_is_help=True)(stats)
app.command("preview", no_args_is_help=True, cls=FansAlone)(preview)
app.command("export", no_args_is_help=True)(export)
app.command("bench")(bench)
app.command("phantom", no_args_is_help=True)(phantom)
app.command("sample", no_args_is_help=True)(sample)
app.command("train", no_args_is_help=True)(train)
app.add_typer(checkpoint, name="checkpoint")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"echogen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Generative augmentation of cardiac-ultrasound segmentation datasets.

    Real frames are moved (depth, tilt, sector width, shift) and a diffusion model
    paints what the move left empty, so that the masks stay exact.

    Exit codes: 0 done, 1 done with failures, 2 usage, 3 dataset, 4 checkpoint,
    5 store, 6 engine, 130/143 interrupted (the same command continues).
    """


def main() -> None:
    """The `echogen` command."""
    output = guard_streams()
    atexit.register(gc.freeze)  # collecting torch's objects one by one would take 0.3 s
    try:
        _run()
    except SystemExit as ended:
        sys.stdout.flush()
        if output is None or output.lost is None:
            raise
        typer.echo(f"echogen: standard output cannot be written ({reason(output.lost)}).", err=True)
        whole = ended.code in (EXIT_DONE, EXIT_DONE_WITH_FAILURES)
        sys.exit(StoreError.exit_code if whole else ended.code)


def _run() -> NoReturn:
    try:
        app()
    except EchogenError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"echogen: {error}", err=True)
        sys.exit(error.exit_code)
    except Interrupted as stopped:
        typer.echo("echogen: stopped; run the same command again to continue.", err=True)
        sys.exit(128 + stopped.signum)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        where = "" if error.filename is None else f"{printable(str(error.filename))}: "
        typer.echo(f"echogen: {where}cannot be used ({reason(error)}).", err=True)
        sys.exit(StoreError.exit_code)
    except KeyboardInterrupt:
        typer.echo("echogen: interrupted.", err=True)
        sys.exit(EXIT_SIGINT)
    sys.exit(EXIT_DONE)
