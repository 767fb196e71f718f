"""Flags that several commands have: one declaration, one help text."""

from typing import Annotated

import typer

INPUT, PAINT, RUN = "Input", "Painting", "Run"

Flag = typer.Option

Views = Annotated[str | None, Flag(metavar="A,B", help="Only these views.", rich_help_panel=INPUT)]
Phases = Annotated[
    str | None, Flag(metavar="A,B", help="Only these phases.", rich_help_panel=INPUT)
]
Split = Annotated[
    str | None, Flag(help="Only this split of the dataset's lists.", rich_help_panel=INPUT)
]
Cases = Annotated[
    str | None,
    Flag(metavar="GLOB,..", help="Only cases like 'patient00*'.", rich_help_panel=INPUT),
]
Frames = Annotated[
    str | None,
    Flag(
        metavar="key|all",
        help="ED and ES (default), or every frame of CAMUS' half sequences, moved alike.",
        rich_help_panel=INPUT,
    ),
]
Precision = Annotated[
    str | None,
    Flag(metavar="auto|fp32|bf16|fp16", help="Of the network.", rich_help_panel=PAINT),
]
BatchSize = Annotated[
    int | None,
    Flag(help="Images at once; 0 (default) finds it by trial.", rich_help_panel=PAINT),
]
AsJson = Annotated[bool, Flag("--json", help="The result as one JSON object.", rich_help_panel=RUN)]
Quiet = Annotated[bool, Flag("--quiet", "-q", help="No progress.", rich_help_panel=RUN)]
Debug = Annotated[bool, Flag("--debug", help="Show tracebacks.", rich_help_panel=RUN)]
