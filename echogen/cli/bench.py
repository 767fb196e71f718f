"""`echogen bench`: this machine's speed."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli import flags
from echogen.cli.console import duration, run, show_table
from echogen.cli.flags import INPUT, Flag
from echogen.support.words import counted

if TYPE_CHECKING:
    from echogen.commands.bench import BenchReport


def bench(
    ctx: typer.Context,
    input: Annotated[
        Path | None,
        Flag(
            "--in",
            help="Dataset folder: also estimate time and size for it.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    fans: flags.Fans = None,
    copies: flags.Copies = None,
    preset: flags.Preset = None,
    config: flags.ConfigFile = None,
    set_: flags.Set = None,
    checkpoint: flags.Checkpoint = None,
    sampler: flags.Sampler = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    batch_size: flags.BatchSize = None,
    compile: flags.Compile = None,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Measure this machine in about a minute: speed, memory, time for a dataset.

    Paints simulated frames as expand would, then discards them.

    Example: echogen bench --in camus/ --copies 4
    """
    from echogen.commands.bench import bench as command

    run(ctx, command, show_bench)


def show_bench(report: "BenchReport") -> None:
    """The end of `echogen bench`."""
    settings = ", ".join(f"{k} {v}" for k, v in report.sampler.items() if k != "name")
    compiled = "" if report.compile == "off" else f", compile {report.compile}"
    basis = f"{report.painted} painted" if report.painted else "estimated from evaluations"
    rows = [
        ("model", f"{report.checkpoint}, {report.licence}"),
        ("device", f"{report.device} ({report.precision}{compiled}), loaded in "
         f"{report.load_seconds:.1f} s"),
        ("batch size", str(report.batch_size)),
        ("sampler", f"{report.sampler['name']} ({settings})"),
        ("cost", f"{report.nfe} network evaluations per image, "
                 f"{_three_digits(report.ms_per_evaluation)} ms each"),
        ("speed", f"{_three_digits(report.images_per_s)} images/s, "
                  f"{_three_digits(1 / report.images_per_s)} s per image ({basis})"),
    ]  # fmt: skip
    if report.share_of_ceiling is not None:
        rows.append(
            ("of the ceiling", f"{report.share_of_ceiling:.0%} of "
                               f"{report.ceiling_gflop_per_s:.0f} GFLOP/s, the fastest "
                               f"{report.precision} matrix product here; "
                               f"{report.gflop_per_evaluation:.3g} GFLOP per evaluation")
        )  # fmt: skip
    if report.peak_memory_mb is not None:
        rows.append(("peak memory", f"{report.peak_memory_mb:.0f} MB"))
    rows.append(("disk", f"about {report.megabytes_per_sample:.2f} MB per sample"))
    if (made := report.estimate) is not None:
        rows += [
            ("dataset", made.dataset),
            ("would paint", f"{counted(made.copies, 'copy', 'copies')} of "
             f"{counted(made.frames, 'frame')} in about "
             f"{duration(made.seconds)}, {made.megabytes:.0f} MB"),
        ]  # fmt: skip
    show_table(rows)


def _three_digits(value: float) -> str:
    """0.00123, 1.23, 1235."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
