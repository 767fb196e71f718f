"""Flags that several commands share, declared once, and their keywords."""

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from echogen.errors import UsageError
from echogen.support.reading import check_text, parse_toml
from echogen.support.words import one_line

INPUT, MAKE, SHOW, PAINT, RUN = "Input", "What to make", "What to show", "Painting", "Run"

Flag, Given = partial(typer.Option, readable=False), partial(typer.Argument, readable=False)
"""An option, and an argument: whether a path can be read is told by what reads it."""

Source = Annotated[Path, Given(help="Dataset folder or store.")]
Format = Annotated[
    str | None,
    Flag(
        metavar="auto|camus|folder|nnunet|echonet|cardiacuda|dicom",
        help="Layout of the dataset (default: auto, detected from its files).",
        rich_help_panel=INPUT,
    ),
]
Views = Annotated[str | None, Flag(metavar="A,B", help="Only these views.", rich_help_panel=INPUT)]
Phases = Annotated[
    str | None, Flag(metavar="A,B", help="Only these phases.", rich_help_panel=INPUT)
]
Split = Annotated[
    str | None, Flag(help="Only this split, as listed by the dataset.", rich_help_panel=INPUT)
]
Cases = Annotated[
    str | None,
    Flag(
        metavar="GLOB,..", help="Only matching cases, such as 'patient00*'.", rich_help_panel=INPUT
    ),
]
Frames = Annotated[
    str | None,
    Flag(
        metavar="key|all",
        help="ED and ES or labelled frames (default), or a sequence's frames, moved alike.",
        rich_help_panel=INPUT,
    ),
]
Fans = Annotated[
    Path | None,
    Flag(
        metavar="FILE.csv",
        help="Fans given by hand, which win over fitted ones; validate --fans writes the file.",
        rich_help_panel=INPUT,
    ),
]
Limit = Annotated[int | None, Flag(min=1, help="Only the first N frames.", rich_help_panel=INPUT)]
CaseSalt = Annotated[
    Path | None,
    Flag(
        "--case-salt",
        metavar="FILE",
        help="Secret that makes DICOM case ids hashes of patients' ids, alike in every folder.",
        rich_help_panel=INPUT,
    ),
]
OnError = Annotated[
    str | None,
    Flag(
        metavar="skip|fail",
        help="A frame that cannot be used: skip and record it (default), or stop.",
        rich_help_panel=INPUT,
    ),
]
StoreOut = Annotated[
    Path | None, Flag("--out", help="Store to create: .zarr or .h5.", rich_help_panel=MAKE)
]
Copies = Annotated[
    int | None, Flag(help="Generated variants per frame (default: 4).", rich_help_panel=MAKE)
]
Seed = Annotated[
    int | None, Flag(help="Same seed, same result (default: 0).", rich_help_panel=MAKE)
]
Preset = Annotated[
    str | None,
    Flag(
        metavar="fast|balanced|high|paper",
        help="Effort per image (default: balanced), or the published method.",
        rich_help_panel=MAKE,
    ),
]
ConfigFile = Annotated[
    Path | None, Flag(help="TOML file of settings; flags override it.", rich_help_panel=MAKE)
]
DatasetFile = Annotated[
    Path | None,
    Flag(
        "--config",
        help="TOML file, of which the settings of the dataset count; flags override it.",
        rich_help_panel=INPUT,
    ),
]
DatasetSet = Annotated[
    list[str] | None,
    Flag(
        "--set",
        metavar="KEY=VALUE",
        help="What files do not say, such as dataset.spacing_mm=0.3.",
        rich_help_panel=INPUT,
    ),
]
Set = Annotated[
    list[str] | None,
    Flag(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of --print-config, such as seed=1.",
        rich_help_panel=MAKE,
    ),
]
Checkpoint = Annotated[
    str | None,
    Flag(
        metavar="NAME|FOLDER|FILE.pt",
        help="Model (default: builtin); see echogen checkpoint list.",
        rich_help_panel=PAINT,
    ),
]
Judge = Annotated[
    str | None,
    Flag(
        metavar="NAME|FOLDER",
        help="What looks for a second, unlabelled heart, or none (default: builtin).",
        rich_help_panel=PAINT,
    ),
]
NoJudge = Annotated[
    bool, Flag("--no-judge", help="Look for no second heart.", rich_help_panel=PAINT)
]
Sampler = Annotated[
    str | None, Flag(metavar="dpm|langevin|repaint", help="Painting method.", rich_help_panel=PAINT)
]
Device = Annotated[
    str | None,
    Flag(
        metavar="auto|cpu|mps|cuda[:N][,..]",
        help="Where to paint; cuda:0,cuda:1 uses both, auto and cuda use all GPUs.",
        rich_help_panel=PAINT,
    ),
]
Precision = Annotated[
    str | None,
    Flag(
        metavar="auto|fp32|bf16|fp16", help="Number format of the network.", rich_help_panel=PAINT
    ),
]
BatchSize = Annotated[
    int | None,
    Flag(
        help="Images at once; 0 (default): 8, or by trial on a GPU.",
        rich_help_panel=PAINT,
    ),
]
Compile = Annotated[
    str | None,
    Flag(
        metavar="off|on|graphs",
        help="Compile the network first, with CUDA graphs or without; for long runs on a GPU.",
        rich_help_panel=PAINT,
    ),
]
Workers = Annotated[
    int | None, Flag(min=0, help="Processes; 0 (default): one per core.", rich_help_panel=RUN)
]
Overwrite = Annotated[
    bool, Flag("--overwrite", help="Replace an existing --out.", rich_help_panel=RUN)
]
AsJson = Annotated[bool, Flag("--json", help="The result as one JSON object.", rich_help_panel=RUN)]
Quiet = Annotated[bool, Flag("--quiet", "-q", help="No progress.", rich_help_panel=RUN)]
Debug = Annotated[bool, Flag("--debug", help="Show tracebacks.", rich_help_panel=RUN)]

_NO_KEYWORDS = ("as_json", "quiet", "debug", "set_", "dry_run", "plan_file", "print_config",
                "no_judge")  # fmt: skip


def settings_from(params: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, as keywords of a command's function.

    Raises:
        UsageError: an assignment of `--set` is none, or flags contradict each other.
    """
    given = {
        name: value
        for name, value in params.items()
        if value is not None and name not in _NO_KEYWORDS
    }
    if params.get("no_judge"):
        if "judge" in given:
            raise UsageError("--no-judge: contradicts --judge; leave one out.")
        given["judge"] = "none"
    return given | dict(map(_assignment, params.get("set_") or ()))


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    name = f"--set {one_line(text, 100)}"
    if not equals or not key:
        raise UsageError(f"{name}: expected KEY=VALUE, such as seed=1.")
    try:
        return key, parse_toml(f"value = {value}", UsageError, name)["value"]
    except UsageError as error:
        if isinstance(error.__cause__, tomllib.TOMLDecodeError):
            return key, check_text(value, UsageError, name)
        raise
