"""`echogen checkpoint import`: a guided-diffusion model as a checkpoint folder."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from echogen.cli.console import ConsoleReporter, show_json, show_table
from echogen.cli.flags import RUN, AsJson, Debug, Flag, Given, Quiet
from echogen.errors import UsageError

if TYPE_CHECKING:
    from echogen.models.guided.probe import Probe

UNTOLD, FACTS = "Options the shapes leave open", "Card"


def import_(
    file: Annotated[Path, Given(metavar="FILE.pt", help="The model's state dict.")],
    out: Annotated[Path, Flag("--out", help="Folder to create.")],
    probe: Annotated[
        Path | None,
        Flag(
            metavar="DATASET",
            help="Dataset: measure open options on a few of its frames (minutes on a CPU).",
            rich_help_panel=UNTOLD,
        ),
    ] = None,
    noise_schedule: Annotated[
        str | None,
        Flag(
            metavar="linear|cosine", help="Noise schedule used in training.", rich_help_panel=UNTOLD
        ),
    ] = None,
    steps: Annotated[
        int | None, Flag(min=1, help="Diffusion steps in training.", rich_help_panel=UNTOLD)
    ] = None,
    num_heads: Annotated[
        int | None, Flag(min=1, help="Number of attention heads.", rich_help_panel=UNTOLD)
    ] = None,
    num_head_channels: Annotated[
        int | None,
        Flag(min=1, help="Channels per head, instead of --num-heads.", rich_help_panel=UNTOLD),
    ] = None,
    new_attention_order: Annotated[
        bool | None,
        Flag(
            "--new-attention-order/--legacy-attention-order",
            help="Order of queries, keys and values (default: legacy, or measured with --probe).",
            rich_help_panel=UNTOLD,
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        Flag(
            min=8,
            help="Side of its images (default: 8 at the coarsest level, so 256 for 6 levels).",
            rich_help_panel=UNTOLD,
        ),
    ] = None,
    name: Annotated[
        str | None, Flag(help="Name of the model (default: the file's).", rich_help_panel=FACTS)
    ] = None,
    licence: Annotated[
        str | None, Flag(help="Terms of the weights.", rich_help_panel=FACTS)
    ] = None,
    citation: Annotated[str | None, Flag(help="What to cite.", rich_help_panel=FACTS)] = None,
    data: Annotated[str | None, Flag(help="What it was trained on.", rich_help_panel=FACTS)] = None,
    precision: Annotated[
        str,
        Flag(
            metavar="fp32|fp16",
            help="Precision of the stored weights; fp16 is half the size.",
            rich_help_panel=RUN,
        ),
    ] = "fp32",
    device: Annotated[str, Flag(help="Device for --probe.", rich_help_panel=RUN)] = "auto",
    overwrite: Annotated[
        bool,
        Flag("--overwrite", help="Replace an existing checkpoint at --out.", rich_help_panel=RUN),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Import a guided-diffusion model: its .pt file becomes a checkpoint folder.

    The architecture is read off the shapes; no code in the file is run. The noise
    schedule and the cut into attention heads are not in it: give them, or --probe.

    Example: echogen checkpoint import model.pt --out model --probe camus/
    """
    from echogen.diffusion.saving import check_free
    from echogen.models.guided.candidates import KnownOptions, complete
    from echogen.models.guided.importing import (
        UNKNOWN,
        ImportFacts,
        ImportReport,
        import_guided,
    )
    from echogen.models.guided.probe import probe_file

    if noise_schedule not in (None, "linear", "cosine"):
        raise UsageError(f"--noise-schedule {noise_schedule}: expected linear or cosine.")
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"--precision {precision}: expected fp32 or fp16.")
    if num_heads is not None and num_head_channels is not None:
        raise UsageError("--num-heads and --num-head-channels: give only one.")
    check_free(out, overwrite)
    known = KnownOptions(
        cast(Any, noise_schedule), steps, num_head_channels, num_heads, new_attention_order
    )
    probed = None
    if probe is not None:
        with closing(ConsoleReporter(quiet)) as reporter:
            probed = probe_file(
                file, probe, known, image_size=image_size, device=device, reporter=reporter
            )
        if not as_json:
            show_probe(probed)
        elif not probed.decided:
            show_json(ImportReport(probe=probed.to_dict()))
    facts = ImportFacts(
        name=name or file.stem,
        licence=licence or UNKNOWN,
        citation=citation or UNKNOWN,
        training_data=data or UNKNOWN,
        image_size=image_size,
    )
    info = import_guided(
        file,
        out,
        complete(known) if probed is None else probed.options,
        facts,
        probe=None if probed is None else probed.to_dict(),
        precision=cast(Any, precision),
        overwrite=overwrite,
    )
    if as_json:
        show_json(ImportReport.of(out, info))
        return
    typer.echo(
        f"{out}: {info.name}, {info.image_size} x {info.image_size}, {info.channels} channels; "
        f"terms: {info.licence}"
    )
    typer.echo(f"next: echogen checkpoint verify {out}; echogen expand --checkpoint {out} ...")


def show_probe(probed: "Probe") -> None:
    """Print the table of candidates, and its verdict."""
    from echogen.models.guided.candidates import words

    levels = sorted(probed.candidates[0].errors)
    rows = []
    for row in probed.candidates:
        means = {sigma: sum(errors) / len(errors) for sigma, errors in row.errors.items()}
        cells = [f"{means[sigma]:.3f}" if sigma in means else "" for sigma in levels]
        heads, order = words(row.options)
        options = (row.options.noise_schedule, str(row.options.steps), heads, order)
        rows.append((*options, f"x {row.ratio:.3f}", *cells))
    columns = ("schedule", "steps", "heads", "order", "error", *(f"{s:g}" for s in levels))
    show_table(rows, columns, left=4)
    typer.echo(
        f"Numbered columns: mean squared error of the noise predicted in {probed.frames} frames, "
        "at that noise level (1 is half the range of grey levels); empty where a candidate had "
        "already been dropped. error: relative to the best."
    )
    if probed.decided:
        typer.echo(f"fits: {probed.verdict}")
