"""`echogen phantom`: simulated cases for trying things out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli.console import end
from echogen.cli.flags import AsJson, Debug, Flag
from echogen.support.words import counted

if TYPE_CHECKING:
    from echogen.phantom import PhantomReport


def phantom(
    output: Annotated[Path, Flag("--out", help="Folder to create; must be empty or new.")],
    cases: Annotated[int, typer.Option(min=1, max=9999, help="Patients to simulate.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Simulate labelled echocardiograms in CAMUS' layout, for trying things out.

    Example: echogen phantom --cases 20 --out phantoms/
    """
    from echogen.phantom import PhantomReport, write_dataset

    written = write_dataset(output, cases, seed)
    end(PhantomReport(str(output), cases, seed, tuple(written)), as_json, show_phantom)


def show_phantom(report: "PhantomReport") -> None:
    """The end of `echogen phantom`."""
    frames, cases = len(report.frames), report.cases
    typer.echo(f"{report.output}: {counted(frames, 'frame')} of {counted(cases, 'simulated case')}")
