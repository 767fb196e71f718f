"""A command's output: progress on stderr while it runs, its report on stdout at the end."""

import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from echogen.cli.flags import settings_from

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from tqdm import tqdm

    from echogen.report import CommandReport, Problem, RunReport

LINE_EVERY_S = 30.0
LISTED = 20
UNITS = {"planning": "frame", "fitting": "frame", "training": "step", "training (seconds)": "s"}
"""What a stage counts, where not images."""


R = TypeVar("R", bound="CommandReport")


def run(ctx: typer.Context, command: Callable[..., R], show: Callable[[R], None]) -> NoReturn:
    """Call a command's function with the flags that were given, show its report, and exit.

    Args:
        ctx: of the command line.
        command: of `echogen.commands`; it takes flags as keywords, and a `reporter`.
        show: prints the report where `--json` was not given.
    """
    with closing(ConsoleReporter(ctx.params["quiet"])) as reporter:
        report = command(**{**settings_from(ctx.params), "reporter": reporter})
    end(report, ctx.params["as_json"], show)


def end(report: R, as_json: bool, show: Callable[[R], None]) -> NoReturn:
    """Show a report, as JSON or in words, and exit with its code."""
    if as_json:
        show_json(report)
    else:
        show(report)
    raise typer.Exit(report.exit_code)


class Stream(io.FileIO):
    """Standard output or error: what cannot be written is dropped, so that the work goes on.

    Attributes:
        lost: why something was; a reader that went away wanted no more, and is none.
    """

    lost: OSError | None = None

    def write(self, data: "ReadableBuffer") -> int:
        """All of `data`, or what the system takes of it."""
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.lost = error
            return memoryview(data).nbytes


def guard_streams() -> Stream | None:
    """Make `sys.stdout` and `sys.stderr` such that writing to them never fails.

    A descriptor that is closed becomes one of the null device, lest a file that is opened take its
    number. A stream that is not the process's own, as in a test, stays.

    Returns:
        standard output, or None if it stays.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    guarded = {}
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            guarded[name] = Stream(number, "w", closefd=False)
            buffer = io.BufferedWriter(guarded[name])
            if stream is None:
                stream = io.TextIOWrapper(buffer)
            else:
                stream = io.TextIOWrapper(
                    buffer,
                    stream.encoding,
                    line_buffering=stream.line_buffering,
                    write_through=stream.write_through,
                )
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what no encoding has
            stream.reconfigure(errors="backslashreplace")
    return guarded.get("stdout")


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
    """Seconds as people write them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_json(report: "CommandReport") -> None:
    """A report as one JSON object on one line of stdout; its shape is in docs/schemas."""
    from pydantic_core import to_json

    typer.echo(to_json(report.to_dict(), inf_nan_mode="null").decode())


def show_table(
    rows: Sequence[Sequence[str]], columns: Sequence[str] = (), *, left: int = 1, title: str = ""
) -> None:
    """A table on stdout: names and their values, or cells under `columns`.

    Args:
        rows: of cells.
        columns: heads; without any, the first of two columns is in bold.
        left: how many columns are aligned to the left; with heads, the others are to the right.
        title: above the table.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_header=bool(columns),
        box=None,
        pad_edge=False,
    )
    for number, head in enumerate(columns or ("", "")):
        name = not columns and not number
        table.add_column(
            head,
            style="bold" if name else "",
            no_wrap=name,
            justify="right" if columns and number >= left else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def show_lines(word: str, lines: list[str]) -> None:
    """The first `LISTED` lines, each after a word."""
    for line in lines[:LISTED]:
        typer.echo(f"{word}: {line}")
    if len(lines) > LISTED:
        typer.echo(
            f"{word}: ... and {len(lines) - LISTED} more; --json and the store list them all."
        )


def show_failed(problems: Sequence["Problem"]) -> None:
    """Why samples failed, each reason after the sample's name."""
    show_lines(
        "failed",
        [
            each.reason if each.frame_id in each.reason else f"{each.frame_id}: {each.reason}"
            for each in problems
        ],
    )


def painting_rows(report: "RunReport") -> list[tuple[str, str]]:
    """What painting cost, and with what."""
    rows = [
        ("cost", f"{report.nfe} network evaluations per image"),
        ("peak memory", f"{report.peak_memory_mb:.0f} MB"),
        ("model", f"{report.checkpoint}, {report.licence}"),
    ]
    if not report.painted:
        return rows
    speed = f"{report.images_per_s:.2f} images/s on {report.device} ({report.precision})"
    return [("painted now", f"{report.painted} in {duration(report.seconds)}, {speed}"), *rows]


def show_next(output: str, pending: int, done: int, failed: int) -> None:
    """Print how to read a store, or to finish it, by the numbers of its samples."""
    if failed and not pending:
        typer.echo(
            f"next: echogen validate {shlex.quote(output)} --repair, and the same command again, "
            "try once more what failed."
        )
    if pending:
        typer.echo("next: run the same command again; it continues where it stopped.")
    elif not done:
        if not failed:
            typer.echo(
                "next: nothing was made, as said above; change the settings, and add --overwrite."
            )
    elif output.endswith(".h5"):
        typer.echo(f'next: h5py.File("{output}")["images"][0] is the first sample.')
    else:
        typer.echo(f'next: zarr.open("{output}")["images"][0] is the first sample.')
