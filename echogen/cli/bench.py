"""`echogen bench`: what this machine will do."""

from pathlib import Path
from typing import Annotated

import typer

Flag = typer.Option


def bench(
    ctx: typer.Context,
    input: Annotated[
        Path | None, Flag("--in", help="Dataset folder, to estimate what it would take.")
    ] = None,
    copies: Annotated[int | None, Flag(help="Generated variants a frame (default: 4).")] = None,
    checkpoint: Annotated[str | None, Flag(metavar="NAME|FOLDER|FILE.pt", help="As in expand.")] = (
        None
    ),
    sampler: Annotated[str | None, Flag(metavar="NAME", help="As in expand.")] = None,
    preset: Annotated[str | None, Flag(metavar="NAME", help="As in expand.")] = None,
    config: Annotated[Path | None, Flag(help="Settings as TOML; flags win over it.")] = None,
    set_: Annotated[
        list[str] | None,
        Flag("--set", metavar="KEY=VALUE", help="Any setting, such as sampler.churn=1.5."),
    ] = None,
    device: Annotated[
        str | None, Flag(metavar="auto|cpu|cuda[:N],..", help="Where; all GPUs by default.")
    ] = None,
    precision: Annotated[
        str | None, Flag(metavar="auto|fp32|bf16|fp16", help="Of the network.")
    ] = None,
    batch_size: Annotated[
        int | None, Flag(help="Images at once; 0 finds the best by trial (default).")
    ] = None,
    compile: Annotated[
        str | None,
        Flag(metavar="off|on|graphs", help="Compile the network first; takes minutes."),
    ] = None,
    as_json: Annotated[bool, Flag("--json", help="The result as one JSON object.")] = False,
    quiet: Annotated[bool, Flag("--quiet", "-q", help="No progress.")] = False,
    debug: Annotated[bool, Flag("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Tell in about a minute what this machine will do: speed, memory, time for a dataset.

    Paints simulated frames as expand would, and throws them away.

    Example: echogen bench --in camus/ --copies 4
    """
    from echogen.cli.console import ConsoleReporter, show_bench
    from echogen.cli.expand import settings_from_flags
    from echogen.commands.bench import bench as measure
    from echogen.config import BenchConfig, load_config

    flags = settings_from_flags(ctx.params)
    resolved = load_config(BenchConfig, flags, preset=preset, file=config)
    reporter = ConsoleReporter(quiet)
    try:
        report = measure(resolved, reporter)
    finally:
        reporter.close()
    show_bench(report, as_json)
