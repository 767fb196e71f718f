"""What a run shows: progress on stderr, as bars on a terminal and as plain lines elsewhere."""

import math
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import typer

from echogen.support.words import both, counted

if TYPE_CHECKING:
    from tqdm import tqdm

    from echogen.commands.bench import BenchReport
    from echogen.commands.expand import DryRunReport, ExpandReport
    from echogen.commands.sample import SampleReport
    from echogen.report import RunReport

LINE_EVERY_S = 30.0
LISTED = 20
UNITS = {"planning": "frame", "training": "step", "training (seconds)": "s"}
"""What a stage counts, where that is not images."""


class Report(Protocol):
    """What `--json` can show."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with a format number."""
        ...


class ConsoleReporter:
    """A `Reporter` on stderr: tqdm on a terminal, one line now and then in a log."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars = sys.stderr.isatty() and not quiet
        self._bar: tqdm[Any] | None = None
        self._stage, self._start = "", 0
        self._began = self._last_line = time.monotonic()

    def tell(self, message: str) -> None:
        """One line on stderr, above the bar where there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        else:
            typer.echo(message, err=True)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Move the bar, or write a line if the last one is some time ago."""
        if stage != self._stage:
            self.close()
            self._stage, self._start = stage, done
            self._began = self._last_line = time.monotonic()
        if self._bars:
            self._move_bar(stage, done, total, detail)
        elif not self._quiet:
            self._write_line(stage, done, total, detail)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move_bar(self, stage: str, done: int, total: int, detail: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            unit = UNITS.get(stage, "image")
            self._bar = tqdm(total=total, desc=stage, unit=unit, file=sys.stderr, smoothing=0.05,
                             initial=self._start, dynamic_ncols=True)  # fmt: skip
        if detail:
            self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def _write_line(self, stage: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        if done < total and (not done or now - self._last_line < LINE_EVERY_S):
            return
        self._last_line = now
        took, here = now - self._began, done - self._start
        left = f", {duration(took / here * (total - done))} left" if here and done < total else ""
        more = f", {detail}" if detail else ""
        typer.echo(f"{stage}: {done} of {total}, {duration(took)}{left}{more}", err=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_run(report: "ExpandReport", as_json: bool) -> None:
    """The end of `echogen expand`."""
    if as_json:
        show_json(report)
        return
    counts = report.counts
    rows = [
        ("store", report.output),
        (
            "samples",
            f"{counts.originals + counts.copies} done ({both(counts.originals, counts.copies)})",
        ),
        ("rejected", f"{counts.rejected} (no valid move found)"),
        ("failed", str(counts.failed)),
        ("frames skipped", str(len(report.skipped))),
    ]
    if counts.pending:
        rows.append(("still to make", str(counts.pending)))
    show_table([*rows, *_painting(report)])
    show_lines("skipped", [problem.reason for problem in report.skipped])
    show_lines("failed", [problem.reason for problem in report.failed])
    show_lines("note", list(report.notes))
    _next(report.output, counts.pending)


def show_sample(report: "SampleReport", as_json: bool) -> None:
    """The end of `echogen sample`."""
    if as_json:
        show_json(report)
        return
    rows = [("store", report.output), ("images", f"{report.images} done, without labels")]
    if report.without_fan:
        rows.append(("no fan found", f"in {report.without_fan}, left as painted"))
    rows.append(("failed", str(len(report.failed))))
    if report.pending:
        rows.append(("still to make", str(report.pending)))
    if report.sheet:
        rows.append(("sheet", report.sheet))
    show_table([*rows, *_painting(report)])
    show_lines("failed", [problem.reason for problem in report.failed])
    for note in report.notes:
        typer.echo(f"note: {note}")
    _next(report.output, report.pending)


def _painting(report: "RunReport") -> list[tuple[str, str]]:
    """What painting cost, and with what."""
    rows = [
        ("cost", f"{report.nfe} network evaluations an image"),
        ("peak memory", f"{report.peak_memory_mb:.0f} MB"),
        ("model", f"{report.checkpoint}, {report.licence}"),
    ]
    if not report.painted:
        return rows
    speed = f"{report.images_per_s:.2f} images/s on {report.device} ({report.precision})"
    return [("painted now", f"{report.painted} in {duration(report.seconds)}, {speed}"), *rows]


def _next(output: str, pending: int) -> None:
    if pending:
        typer.echo("next: give the same command again; it continues where it stopped.")
    elif output.endswith(".h5"):
        typer.echo(f'next: h5py.File("{output}")["images"][0] is the first sample.')
    else:
        typer.echo(f'next: zarr.open("{output}")["images"][0] is the first sample.')


def show_dry_run(report: "DryRunReport", as_json: bool) -> None:
    """The end of `echogen expand --dry-run`."""
    if as_json:
        show_json(report)
        return
    show_table(
        [
            ("would make", report.output),
            ("from", report.dataset),
            ("samples", both(report.originals, report.copies)),
            ("rejected", f"{report.rejected} (no valid move found)"),
            ("frames skipped", str(len(report.skipped))),
            ("cost", f"{report.nfe} network evaluations an image"),
            ("time", f"about {duration(report.seconds)} on {report.device} ({report.precision})"),
            ("disk", f"about {report.megabytes:.0f} MB"),
            ("model", f"{report.checkpoint}, {report.licence}"),
            ("plan", report.plan_digest[:16]),
        ]
    )
    show_lines("skipped", [problem.reason for problem in report.skipped])
    show_lines("note", list(report.notes))


def show_bench(report: "BenchReport", as_json: bool) -> None:
    """The end of `echogen bench`."""
    if as_json:
        show_json(report)
        return
    settings = ", ".join(f"{k} {v}" for k, v in report.sampler.items() if k != "name")
    compiled = "" if report.compile == "off" else f", compile {report.compile}"
    basis = f"{report.painted} painted" if report.painted else "estimated from evaluations"
    rows = [
        ("model", f"{report.checkpoint}, {report.licence}"),
        ("device", f"{report.device} ({report.precision}{compiled}), loaded in "
         f"{report.load_seconds:.1f} s"),
        ("batch size", str(report.batch_size)),
        ("sampler", f"{report.sampler['name']} ({settings})"),
        ("cost", f"{report.nfe} network evaluations an image, "
         f"{_three_digits(report.ms_per_evaluation)} ms each"),
        ("speed", f"{_three_digits(report.images_per_s)} images/s, "
         f"{_three_digits(1 / report.images_per_s)} s an image ({basis})"),
    ]  # fmt: skip
    if report.share_of_ceiling is not None:
        rows.append(
            ("of the ceiling", f"{report.share_of_ceiling:.0%} of "
             f"{report.ceiling_gflop_per_s:.0f} GFLOP/s, the fastest {report.precision} matrix "
             f"product here; {report.gflop_per_evaluation:.3g} GFLOP an evaluation")
        )  # fmt: skip
    if report.peak_memory_mb is not None:
        rows.append(("peak memory", f"{report.peak_memory_mb:.0f} MB"))
    rows.append(("disk", f"about {report.megabytes_per_sample:.2f} MB a sample"))
    if (made := report.estimate) is not None:
        rows += [
            ("dataset", made.dataset),
            ("would paint", f"{counted(made.copies, 'copy', 'copies')} of "
             f"{counted(made.frames, 'frame')} in about "
             f"{duration(made.seconds)}, {made.megabytes:.0f} MB"),
        ]  # fmt: skip
    show_table(rows)


def show_json(report: Report) -> None:
    """A report as one JSON object on one line of stdout; its shape is in docs/schemas."""
    from pydantic_core import to_json

    typer.echo(to_json(report.to_dict(), inf_nan_mode="null").decode())


def show_table(rows: list[tuple[str, str]]) -> None:
    """Names and values, as two columns on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _three_digits(value: float) -> str:
    """0.00123, 1.23, 1235."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def show_lines(word: str, lines: list[str]) -> None:
    """The first `LISTED` lines, each after a word."""
    for line in lines[:LISTED]:
        typer.echo(f"{word}: {line}")
    if len(lines) > LISTED:
        typer.echo(f"{word}: ... and {len(lines) - LISTED} more; --json and the store list all.")
