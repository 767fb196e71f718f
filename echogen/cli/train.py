"""`echogen train`: a model of one's own, from images alone."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
)
from echogen.errors import UsageError
from echogen.support.words import counted

if TYPE_CHECKING:
    from echogen.commands.train import TrainConfig, TrainReport
    from echogen.training.recipe import Recipe

LEARN, MEASURE, CARD = "What to learn", "What to measure", "Model card"


def train(
    ctx: typer.Context,
    input: Annotated[
        Path | None,
        Flag("--in", help="Dataset folder; labels are not needed.", rich_help_panel=INPUT),
    ] = None,
    frames: Annotated[
        Path | None,
        Flag(
            metavar="DIR|ZIP",
            help="In place of a dataset, frames that were prepared before: a run's frames folder, "
            "or what --pack wrote.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None, Flag("--out", help="Folder of the run and its model.", rich_help_panel=INPUT)
    ] = None,
    pack: Annotated[
        Path | None,
        Flag(
            metavar="ZIP",
            help="Train nothing: write the prepared frames as one file, to train on elsewhere.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    format: Annotated[
        str,
        Flag(
            metavar="auto|camus|folder|nnunet|echonet|images",
            help="Layout; auto tells. images is any folder of images.",
            rich_help_panel=INPUT,
        ),
    ] = "auto",
    views: Views = None,
    phases: Phases = None,
    split: Split = None,
    cases: Cases = None,
    limit: Annotated[
        int | None, Flag(min=1, help="Only the first frames.", rich_help_panel=INPUT)
    ] = None,
    on_error: Annotated[
        str,
        Flag(
            metavar="skip|fail",
            help="A frame that cannot be used: skip and list it, or stop.",
            rich_help_panel=INPUT,
        ),
    ] = "skip",
    preset: Annotated[
        str | None,
        Flag(
            metavar="small|reference",
            help="small (default): the built-in model's recipe. reference: the published network, "
            "25 times the work an image.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    config: Annotated[
        Path | None, Flag(help="A recipe of your own as TOML.", rich_help_panel=LEARN)
    ] = None,
    set_: Annotated[
        list[str] | None,
        Flag(
            "--set",
            metavar="KEY=VALUE",
            help="Any value of the recipe, such as optimiser.learning_rate=1e-4.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    steps: Annotated[
        int | None, Flag(help="Length in steps; can be repeated exactly.", rich_help_panel=LEARN)
    ] = None,
    hours: Annotated[
        float | None,
        Flag(help="Length in hours of training, all parts together.", rich_help_panel=LEARN),
    ] = None,
    batch_size: Annotated[
        int | None, Flag(help="Images a step, in place of the recipe's.", rich_help_panel=LEARN)
    ] = None,
    hold_out: Annotated[
        int | None,
        Flag(
            help="Cases set aside to measure on (default: a tenth, at most 40).",
            rich_help_panel=LEARN,
        ),
    ] = None,
    seed: Annotated[
        int | None, Flag(help="One seed, one result (default: 0).", rich_help_panel=LEARN)
    ] = None,
    evaluations: Annotated[
        int, Flag(help="Times to measure, draw samples and keep the best.", rich_help_panel=MEASURE)
    ] = 20,
    samples: Annotated[
        int, Flag(help="Generated images in a picture.", rich_help_panel=MEASURE)
    ] = 16,
    sample_steps: Annotated[
        int, Flag(help="Network evaluations for each of them.", rich_help_panel=MEASURE)
    ] = 25,
    inpainted: Annotated[
        int, Flag(help="Held-out frames in a picture of inpainting.", rich_help_panel=MEASURE)
    ] = 8,
    compared: Annotated[
        int, Flag(help="Samples compared with training frames at the end.", rich_help_panel=MEASURE)
    ] = 64,
    log_every: Annotated[
        int, Flag(metavar="STEPS", help="Between lines of the log.", rich_help_panel=MEASURE)
    ] = 50,
    name: Annotated[
        str, Flag(help="Of the model (default: the folder's).", rich_help_panel=CARD)
    ] = "",
    data: Annotated[
        str, Flag(metavar="WORDS", help="What it is trained on.", rich_help_panel=CARD)
    ] = "",
    licence: Annotated[
        str, Flag(metavar="WORDS", help="Terms of the weights.", rich_help_panel=CARD)
    ] = "",
    citation: Annotated[
        str, Flag(metavar="WORDS", help="What its users must cite.", rich_help_panel=CARD)
    ] = "",
    report: Annotated[
        bool,
        Flag(
            "--report",
            help="Train nothing: measure whether the model at --out repeats its frames, and write "
            "its card anew.",
            rich_help_panel=CARD,
        ),
    ] = False,
    device: Annotated[
        str, Flag(metavar="auto|cpu|cuda[:N]", help="Where to train.", rich_help_panel=RUN)
    ] = "auto",
    precision: Annotated[
        str, Flag(metavar="auto|bf16|fp32", help="Of the network.", rich_help_panel=RUN)
    ] = "auto",
    compile: Annotated[
        bool, Flag("--compile", help="Use torch.compile; takes minutes.", rich_help_panel=RUN)
    ] = False,
    micro_batch: Annotated[
        int | None,
        Flag(help="Images at once on a device, where memory is short.", rich_help_panel=RUN),
    ] = None,
    save_every: Annotated[
        float, Flag(metavar="SECONDS", help="Between saves of the state.", rich_help_panel=RUN)
    ] = 300.0,
    stop_after: Annotated[
        float | None,
        Flag(metavar="SECONDS", help="Save and stop then, to be resumed.", rich_help_panel=RUN),
    ] = None,
    workers: Annotated[
        int, Flag(min=0, help="Processes that prepare frames; 0: all cores.", rich_help_panel=RUN)
    ] = 0,
    resume: Annotated[
        bool,
        Flag("--resume", help="Go on; refuse where nothing was begun.", rich_help_panel=RUN),
    ] = False,
    overwrite: Annotated[
        bool, Flag("--overwrite", help="Begin anew at --out.", rich_help_panel=RUN)
    ] = False,
    tensorboard: Annotated[
        bool, Flag("--tensorboard", help="Log to OUT/tensorboard, too.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model of your own, from images alone; expand paints with it.

    Killed or interrupted, the same command continues. OUT/pictures shows what it has learnt.

    Example: echogen train --in camus/ --out my-model/ --hours 2
    """
    from echogen.cli.console import ConsoleReporter
    from echogen.commands.train import first_process, measure
    from echogen.commands.train import train as run_training

    settings = _config_from_flags(ctx)
    reporter = ConsoleReporter(quiet or not first_process())
    try:
        done = (measure if report else run_training)(settings, reporter)
    finally:
        reporter.close()
    if first_process():
        _show(done, as_json)
    raise typer.Exit(done.exit_code)


_OPTIONS = (
    "stop_after", "hold_out", "device", "precision", "compile", "micro_batch", "evaluations",
    "save_every", "log_every", "samples", "sample_steps", "inpainted", "compared", "tensorboard",
)  # fmt: skip
_AS_GIVEN = (
    "input", "frames", "pack", "format", "name", "data", "licence", "citation", "on_error",
    "workers", "resume", "overwrite",
)  # fmt: skip


def _config_from_flags(ctx: typer.Context) -> "TrainConfig":
    from echogen.commands.train import TrainConfig
    from echogen.config import DatasetConfig
    from echogen.training.options import training_options

    given = ctx.params
    output = given["output"]
    if output is None:
        raise UsageError("--out: missing; give a folder for the run and its model.")
    if given["on_error"] not in ("skip", "fail"):
        raise UsageError(f"--on-error {given['on_error']}: expected skip or fail.")
    length = {"steps": given["steps"], "hours": given["hours"]}
    if given["report"] or given["pack"]:
        length = {"steps": 1}  # nothing is trained, but a length is asked for
    return TrainConfig(
        output=output,
        recipe=_recipe(given),
        options=training_options(**length, **{name: given[name] for name in _OPTIONS}),
        dataset=DatasetConfig(
            views=given["views"] or (),
            phases=given["phases"] or (),
            split=given["split"] or "",
            cases=given["cases"] or (),
            limit=given["limit"],
        ),
        command=_command(ctx),
        **{name: given[name] for name in _AS_GIVEN},
    )


def _recipe(given: dict[str, Any]) -> "Recipe":
    from echogen.training.recipe import load_recipe, with_values

    if given["preset"] and given["config"]:
        raise UsageError("--preset and --config: both name a recipe; give one of them.")
    recipe = load_recipe(str(given["config"] or given["preset"] or "small"))
    if given["seed"] is not None:
        recipe = with_values(recipe, {"seed": given["seed"]}, "--seed")
    if given["batch_size"] is not None:
        values = {"optimiser.batch_size": given["batch_size"]}
        recipe = with_values(recipe, values, "--batch-size")
    assignments = given["set_"] or ()
    changes = dict(map(_assignment, assignments))  # at once: one alone may not fit the others
    return with_values(recipe, changes, " ".join(f"--set {text}" for text in assignments))


def _assignment(text: str) -> tuple[str, Any]:
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text}: expected KEY=VALUE, such as optimiser.learning_rate=1e-4.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


_NOT_OF_THE_MODEL = ("resume", "overwrite", "as_json", "quiet", "debug", "report", "stop_after")


def _command(ctx: typer.Context) -> str:
    """The command for the card; of a path only its name, for a card is passed on."""
    words = ["echogen", "train"]
    for option in ctx.command.params:
        value = ctx.params.get(option.name or "")
        if option.name in _NOT_OF_THE_MODEL or value is None or value == option.default:
            continue
        flag = option.opts[0]
        if value is True:
            words.append(flag)
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            path = Path(one).resolve() if option.name == "preset" else one
            words += [flag, path.name if isinstance(path, Path) else str(path)]
    return shlex.join(words)


def _show(report: "TrainReport", as_json: bool) -> None:
    from echogen.cli.console import duration, show_json, show_lines, show_table

    if as_json:
        show_json(report)
        return
    share = "" if report.done is None else f" ({report.done:.0%} of the run)"
    rows = [
        ("run", report.output),
        ("frames", f"{counted(report.frames, 'frame')} of {counted(report.cases, 'case')}, "
         f"{counted(report.held_out_cases, 'case')} held out"),
        ("trained", f"{report.step:,} steps, {report.images:,} images, "
         f"{duration(report.seconds)}{share}"),
    ]  # fmt: skip
    if report.checkpoint:
        rows += [
            ("model", f"{report.name}, {report.licence}"),
            ("checkpoint", f"{report.checkpoint}, the best so far by held-out loss"),
            ("", f"at {report.record.get('images_seen', 0):,} images"),
        ]
    verdict = (report.record.get("memorisation") or {}).get("verdict")
    if verdict:
        rows.append(("repeats frames?", verdict))
    show_table(rows)
    show_lines("skipped", [problem.reason for problem in report.skipped])
    show_lines("note", list(report.notes))
    if report.done is not None and report.done < 1:
        typer.echo("next: give the same command again; it goes on where it stopped.")
    elif report.checkpoint:
        out = shlex.quote(report.output)
        typer.echo(f"next: echogen expand --in DATASET --checkpoint {out} --out more.zarr")
