"""Flags that several commands have: one declaration, one help text."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from echogen.config import DatasetConfig

INPUT, SHOW, PAINT, RUN = "Input", "What to show", "Painting", "Run"

Flag = typer.Option

Format = Annotated[
    str, Flag(metavar="auto|...", help="Layout of the dataset.", rich_help_panel=INPUT)
]
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
Workers = Annotated[int, Flag(min=0, help="Processes; 0 takes one a core.", rich_help_panel=RUN)]
AsJson = Annotated[bool, Flag("--json", help="The result as one JSON object.", rich_help_panel=RUN)]
Quiet = Annotated[bool, Flag("--quiet", "-q", help="No progress.", rich_help_panel=RUN)]
Debug = Annotated[bool, Flag("--debug", help="Show tracebacks.", rich_help_panel=RUN)]


def listed(text: str | None) -> list[str]:
    """The parts of a flag that takes several, separated by commas."""
    return [] if text is None else [part.strip() for part in text.split(",") if part.strip()]


def chosen_frames(
    format: str,
    views: str | None,
    phases: str | None,
    split: str | None,
    cases: str | None,
    frames: str | None,
) -> "DatasetConfig":
    """What the flags of a selection ask for.

    Raises:
        UsageError: no such format.
    """
    from echogen.config import AugmentationConfig, load_config

    chosen = {
        "format": format,
        "views": listed(views),
        "phases": listed(phases),
        "split": split or "",
        "cases": listed(cases),
        "frames": frames or "key",
    }
    return load_config(AugmentationConfig, {"dataset": chosen}).dataset
