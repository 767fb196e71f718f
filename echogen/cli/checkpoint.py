"""`echogen checkpoint ...`: list, download, import, inspect and verify models."""

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli.checkpoint_import import import_, show_probe
from echogen.cli.console import ConsoleReporter, end, show_table
from echogen.cli.flags import AsJson, Debug, Flag, Quiet

if TYPE_CHECKING:
    from echogen.judging.describe import JudgeDescription
    from echogen.models.describe import CheckpointDescription
    from echogen.models.download import DownloadReport
    from echogen.models.listing import ListedModel, ModelList
    from echogen.models.verify import Verification

Model = Annotated[
    str, typer.Argument(help="A model's name, or the folder of a checkpoint or training run.")
]

checkpoint = typer.Typer(
    no_args_is_help=True,
    help="Models to paint with: list, download, import, inspect and verify them.",
)


@checkpoint.command("list")
def list_(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the known models: purpose, terms, and whether each is downloaded.

    Example: echogen checkpoint list
    """
    from echogen.models.listing import list_models

    end(list_models(), as_json, show_list)


@checkpoint.command("download", no_args_is_help=True)
def download(
    name: Annotated[str, typer.Argument(help="A name from `echogen checkpoint list`.")],
    probe: Annotated[
        Path | None,
        Flag(help="Dataset: measure on its frames what a foreign model's file leaves open."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download a model from the Hugging Face hub, verify it, and convert it if it is foreign.

    Goes through the hub's own client: its cache, HF_HOME, HF_ENDPOINT,
    HF_HUB_OFFLINE and HF_TOKEN are as you know them. What is here already is
    not fetched again.

    Example: echogen checkpoint download echogains-camus --probe camus/
    """
    from echogen.models.download import download as fetch

    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when the client is imported
    show = (lambda _: None) if as_json else show_probe
    with closing(ConsoleReporter(quiet)) as reporter:
        done = fetch(name, probe=probe, reporter=reporter, show_probe=show)
    end(done, as_json, show_download)


checkpoint.command("import", no_args_is_help=True)(import_)


@checkpoint.command("info", no_args_is_help=True)
def info(model: Model, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show a checkpoint's grid, network, schedule, terms and training.

    Example: echogen checkpoint info builtin
    """
    from echogen.judging.checkpoint import is_judge
    from echogen.judging.describe import describe_judge
    from echogen.models.describe import describe
    from echogen.models.listing import list_model
    from echogen.models.registry import IN_PACKAGE, find_card, local_folder
    from echogen.models.resolve import is_path, resolve_checkpoint

    card = None if is_path(model) or Path(model).exists() else find_card(model)
    if card is not None and card.kind not in IN_PACKAGE and local_folder(card) is None:
        end(list_model(card), as_json, partial(show_card, page=card.page))
    place = resolve_checkpoint(model)
    if is_judge(place):
        end(describe_judge(place), as_json, show_judge)
    end(describe(place), as_json, show_description)


@checkpoint.command("verify", no_args_is_help=True)
def verify(model: Model, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check a checkpoint: hashes, terms, that it loads, and that it denoises.

    The last check adds noise to simulated frames; the model must come nearer
    to them than the best blur does. Exit code 4 if a check fails.

    Example: echogen checkpoint verify my-model/
    """
    from echogen.models.resolve import resolve_checkpoint
    from echogen.models.verify import verify as check

    end(check(resolve_checkpoint(model)), as_json, show_verification)


def show_download(done: "DownloadReport") -> None:
    """The end of `echogen checkpoint download`."""
    if done.folder is not None:
        typer.echo(f"{done.name}: {done.folder}")
    typer.echo(f"next: echogen expand --checkpoint {done.name} --in DATASET --out STORE.zarr")


def show_list(found: "ModelList") -> None:
    """Print the result of `echogen checkpoint list`."""
    rows = [
        (
            model.name + ("\n(the default)" if model.default else ""),
            "?" if model.size is None else _megabytes(model.size),
            "yes" if model.here else "no",
            f"{model.what_for}\n{model.architecture}\n{model.licence}\n{model.where}\n",
        )
        for model in found.models
    ]
    columns = ("name", "size", "here", "what for, architecture, licence, where")
    show_table(rows, columns, left=4)
    absent = [model.name for model in found.models if not model.here]
    if absent:
        typer.echo(f"next: echogen checkpoint download {absent[0]}")


def show_card(card: "ListedModel", page: str) -> None:
    """Print what is known about a model that is not downloaded."""
    show_table(
        [
            ("name", card.name),
            ("what for", card.what_for),
            ("architecture", card.architecture),
            ("trained on", card.training_data),
            ("licence", card.licence),
            ("cite", card.citation),
            ("where", page),
            ("here", "no"),
        ]
    )
    typer.echo(f"next: echogen checkpoint download {card.name}")


def show_description(found: "CheckpointDescription") -> None:
    """Print the result of `echogen checkpoint info`."""
    grid = f"{found.image_size} x {found.image_size}, {found.resize}"
    space = f", {found.patch} x {found.patch} space-to-depth" if found.patch > 1 else ""
    show_table(
        [
            ("name", found.name),
            ("folder", found.folder),
            ("images", f"{grid}, {'grey' if found.channels == 1 else 'colour'}{space}"),
            ("is shown", _shown(found)),
            ("network", f"{found.architecture}; {found.parameters:,} parameters "
             f"({found.weights_type})"),
            ("predicts", f"{found.prediction}, {found.steps} steps of the {found.schedule} "
             f"schedule, variance {found.variance}"),
            *_terms(found, _trained(found)),
        ]
    )  # fmt: skip


def show_judge(found: "JudgeDescription") -> None:
    """Print the result of `echogen checkpoint info` of a judge."""
    seen = " and ".join(map(str, found.cases))
    show_table(
        [
            ("name", found.name),
            ("folder", found.folder),
            ("is", "a judge: it tells a second, unlabelled heart, and paints nothing"),
            ("images", f"{found.image_size} x {found.image_size}, grey"),
            ("sees", ", ".join(found.labels.values())),
            ("networks", f"{found.networks}, which have seen {seen} cases"),
            ("lets pass", f"pieces up to {found.threshold:.1%} of the labelled heart's area"),
            *_terms(found),
        ]
    )


def show_verification(found: "Verification") -> None:
    """Print the result of `echogen checkpoint verify`."""
    show_table([(check.name, f"{'ok' if check.ok else 'FAILED'}: {check.detail}")
           for check in found.checks])  # fmt: skip
    typer.echo(f"{found.name}: {'all checks passed' if found.ok else 'not usable as it is'}")


def _terms(
    found: "CheckpointDescription | JudgeDescription", trained: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """What every model's folder says; `trained` comes after what it was trained on."""
    return [
        ("size", _megabytes(found.size)),
        ("trained on", found.training_data),
        *trained,
        ("licence", found.licence),
        ("cite", found.citation),
        ("sha256", found.sha256),
        ("card", found.card or "none"),
    ]


def _shown(found: "CheckpointDescription") -> str:
    if found.conditioning == "none":
        return "the noisy picture alone"
    return f"what is known, {found.known_pixels}, and where ({found.keep_channels} channels more)"


def _trained(found: "CheckpointDescription") -> list[tuple[str, str]]:
    record, rows = found.training, []
    if "images_seen" in record:
        told = f"{record['images_seen']:,} images in {record.get('step', '?')} steps"
        where = f" on {record['hardware']}" if "hardware" in record else ""
        rows.append(("training", told + where))
    cases = {"trained on": found.trained_cases, "held out": found.held_out_cases}
    counted = [f"{count} {words}" for words, count in cases.items() if count is not None]
    if counted:
        rows.append(("cases", ", ".join(counted)))
    if isinstance(origin := record.get("imported"), dict):
        options = origin.get("options") or {}
        told = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
        probed = "measured" if origin.get("probe") else "as given, not measured"
        rows.append(("imported from", f"{origin.get('source') or origin.get('file')}; {told} "
                     f"({probed})"))  # fmt: skip
    return rows


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
