"""`echogen train`: your own model, from images alone."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli import flags
from echogen.cli.console import ConsoleReporter, duration, end, show_lines, show_table
from echogen.cli.flags import INPUT, RUN, Flag, settings_from
from echogen.support.files import real_path
from echogen.support.words import counted

if TYPE_CHECKING:
    from echogen.commands.train import TrainReport

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
            help="Frames prepared earlier, instead of a dataset: a run's frames folder, or a file "
            "from --pack.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None, Flag("--out", help="Folder for the run and its model.", rich_help_panel=INPUT)
    ] = None,
    pack: Annotated[
        Path | None,
        Flag(
            metavar="ZIP",
            help="Do not train: write the prepared frames to one file, to train on elsewhere.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    format: Annotated[
        str | None,
        Flag(
            metavar="auto|camus|folder|nnunet|echonet|cardiacuda|dicom|images",
            help="Layout (default: auto, told by its files). images is any folder of images.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    fans: flags.Fans = None,
    case_salt: flags.CaseSalt = None,
    limit: flags.Limit = None,
    on_error: flags.OnError = None,
    preset: Annotated[
        str | None,
        Flag(
            metavar="small|reference",
            help="small (default): the built-in model's network and holes. reference: the "
            "published network, 25 times the work per image.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    config: Annotated[
        Path | None, Flag(help="Your own recipe as TOML.", rich_help_panel=LEARN)
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
    start_from: Annotated[
        str | None,
        Flag(
            metavar="NAME|DIR",
            help="Fine-tune: start from the weights of a checkpoint, such as builtin or what an "
            "earlier run made.",
            rich_help_panel=LEARN,
        ),
    ] = None,
    steps: Annotated[
        int | None, Flag(help="Length in steps; exactly repeatable.", rich_help_panel=LEARN)
    ] = None,
    hours: Annotated[
        float | None,
        Flag(help="Length in hours of training, over all sessions.", rich_help_panel=LEARN),
    ] = None,
    batch_size: Annotated[
        int | None, Flag(help="Images per step, instead of the recipe's.", rich_help_panel=LEARN)
    ] = None,
    hold_out: Annotated[
        int | None,
        Flag(
            help="Cases held out for evaluation (default: a tenth, at most 40).",
            rich_help_panel=LEARN,
        ),
    ] = None,
    seed: Annotated[
        int | None, Flag(help="Same seed, same result (default: 0).", rich_help_panel=LEARN)
    ] = None,
    evaluations: Annotated[
        int | None,
        Flag(
            help="Times to measure, draw samples and keep the best (default: 20).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    measured: Annotated[
        int | None,
        Flag(
            help="At most so many frames to measure on, held out and trained on (default: 256).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        Flag(help="Generated images in a picture (default: 16).", rich_help_panel=MEASURE),
    ] = None,
    sample_steps: Annotated[
        int | None,
        Flag(help="Network evaluations for each of them (default: 25).", rich_help_panel=MEASURE),
    ] = None,
    inpainted: Annotated[
        int | None,
        Flag(
            help="Held-out frames in a picture of inpainting (default: 8).", rich_help_panel=MEASURE
        ),
    ] = None,
    border_images: Annotated[
        int | None,
        Flag(
            help="Images that the correction beside known pixels is fitted to; 0 for none "
            "(default: 640).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    compared: Annotated[
        int | None,
        Flag(
            help="Samples compared with training frames at the end (default: 64).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    log_every: Annotated[
        int | None,
        Flag(
            metavar="STEPS",
            help="Steps between lines of the log (default: 50).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    name: Annotated[
        str | None, Flag(help="Name of the model (default: the folder's).", rich_help_panel=CARD)
    ] = None,
    data: Annotated[
        str | None,
        Flag(metavar="WORDS", help="What the model is trained on.", rich_help_panel=CARD),
    ] = None,
    licence: Annotated[
        str | None, Flag(metavar="WORDS", help="Terms of the weights.", rich_help_panel=CARD)
    ] = None,
    citation: Annotated[
        str | None, Flag(metavar="WORDS", help="What its users must cite.", rich_help_panel=CARD)
    ] = None,
    report: Annotated[
        bool,
        Flag(
            "--report",
            help="Train nothing: measure whether the model at --out repeats its frames, and "
            "rewrite its card.",
            rich_help_panel=CARD,
        ),
    ] = False,
    device: Annotated[
        str | None, Flag(metavar="auto|cpu|cuda[:N]", help="Where to train.", rich_help_panel=RUN)
    ] = None,
    precision: Annotated[
        str | None,
        Flag(metavar="auto|bf16|fp32", help="Number format of the network.", rich_help_panel=RUN),
    ] = None,
    compile: Annotated[
        bool, Flag("--compile", help="Use torch.compile; takes minutes.", rich_help_panel=RUN)
    ] = False,
    micro_batch: Annotated[
        int | None,
        Flag(help="Images at once on a device, if memory is short.", rich_help_panel=RUN),
    ] = None,
    save_every: Annotated[
        float | None,
        Flag(
            metavar="SECONDS",
            help="Time between saves of the state (default: 300).",
            rich_help_panel=RUN,
        ),
    ] = None,
    stop_after: Annotated[
        float | None,
        Flag(
            metavar="SECONDS",
            help="Save and stop after this long, to resume later.",
            rich_help_panel=RUN,
        ),
    ] = None,
    workers: flags.Workers = None,
    resume: Annotated[
        bool,
        Flag(
            "--resume",
            help="Continue; refuse if there is nothing to continue.",
            rich_help_panel=RUN,
        ),
    ] = False,
    overwrite: Annotated[
        bool, Flag("--overwrite", help="Start over at --out.", rich_help_panel=RUN)
    ] = False,
    tensorboard: Annotated[
        bool, Flag("--tensorboard", help="Also log to OUT/tensorboard.", rich_help_panel=RUN)
    ] = False,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Train your own model from images alone, for expand to paint with.

    Killed or interrupted, the same command continues. OUT/pictures shows what it has learnt.

    Example: echogen train --in camus/ --out my-model/ --hours 2
    """
    from echogen.commands.train import first_process
    from echogen.commands.train import train as run_training

    given = {**ctx.params, "set_": [_of_recipe(text) for text in set_ or ()]}
    with closing(ConsoleReporter(quiet or not first_process())) as reporter:
        done = run_training(**settings_from(given), command=_command(ctx), reporter=reporter)
    if first_process():
        end(done, as_json, _show)
    raise typer.Exit(done.exit_code)


def _of_recipe(text: str) -> str:
    """An assignment of `--set`: of the recipe, unless it says that it is of the dataset."""
    return text if text.startswith("dataset.") else f"recipe.{text}"


_NOT_OF_THE_MODEL = ("resume", "overwrite", "as_json", "quiet", "debug", "report", "stop_after")


def _command(ctx: typer.Context) -> str:
    """The command for the card, paths shortened to their names because cards are shared."""
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
            path = real_path(one) if option.name in ("preset", "start_from") else one
            words += [flag, path.name if isinstance(path, Path) else str(path)]
    return shlex.join(words)


def _show(report: "TrainReport") -> None:
    if report.output.endswith(".zip"):
        show_table([("packed", report.output), ("frames", _frames(report))])
        show_lines("skipped", [problem.reason for problem in report.skipped])
        typer.echo(f"next: echogen train --frames {shlex.quote(report.output)} --out my-model")
        return
    share = "" if report.done is None else f" ({report.done:.0%} of the run)"
    rows = [
        ("run", report.output),
        ("frames", f"{_frames(report)}, {counted(report.held_out_cases, 'case')} held out"),
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
        typer.echo("next: run the same command again; it continues where it stopped.")
    elif report.checkpoint:
        out = shlex.quote(report.output)
        typer.echo(f"next: echogen expand --in DATASET --checkpoint {out} --out more.zarr")


def _frames(report: "TrainReport") -> str:
    return f"{counted(report.frames, 'frame')} of {counted(report.cases, 'case')}"
