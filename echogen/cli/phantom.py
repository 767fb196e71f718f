"""`echogen phantom`: simulated cases to try things on."""

from pathlib import Path
from typing import Annotated

import typer

from echogen.cli.console import show_json
from echogen.cli.flags import AsJson, Debug
from echogen.support.words import counted


def phantom(
    output: Annotated[Path, typer.Option("--out", help="Folder to make; must be empty or new.")],
    cases: Annotated[int, typer.Option(min=1, max=9999, help="Patients to simulate.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="One seed, one result.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Simulate labelled echocardiograms in CAMUS' layout, to try things on.

    Example: echogen phantom --cases 20 --out phantoms/
    """
    from echogen.phantom import PhantomReport, write_dataset

    written = write_dataset(output, cases, seed)
    if as_json:
        show_json(PhantomReport(str(output), cases, seed, tuple(written)))
        return
    typer.echo(f"{output}: {counted(len(written), 'frame')} of {counted(cases, 'simulated case')}")
