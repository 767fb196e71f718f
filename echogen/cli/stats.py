"""`echogen stats`: measures of a dataset or store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echogen.cli import flags
from echogen.cli.console import duration, run, show_table
from echogen.cli.flags import RUN, SHOW, Flag, Source
from echogen.support.words import counted

if TYPE_CHECKING:
    from echogen.measures.report import Distribution, StatsReport


def stats(
    ctx: typer.Context,
    path: Source,
    against: Annotated[
        Path | None,
        Flag(
            metavar="OTHER",
            help="Another dataset or store: how much of its geometry is covered?",
            rich_help_panel=SHOW,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        Flag(
            metavar="X.html", help="Write a report with plots and pictures.", rich_help_panel=SHOW
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        Flag(metavar="X.csv", help="Write every measure of every sample.", rich_help_panel=SHOW),
    ] = None,
    seed: Annotated[
        int, Flag(min=0, help="Seed of the pictures in the report.", rich_help_panel=SHOW)
    ] = 0,
    format: flags.Format = None,
    views: flags.Views = None,
    phases: flags.Phases = None,
    split: flags.Split = None,
    cases: flags.Cases = None,
    frames: flags.Frames = None,
    fans: flags.Fans = None,
    case_salt: flags.CaseSalt = None,
    config: flags.DatasetFile = None,
    set_: flags.DatasetSet = None,
    most: Annotated[
        int,
        Flag(
            min=0,
            help="Measure only this many random recordings or shards; 0: all.",
            rich_help_panel=RUN,
        ),
    ] = 0,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    """Measure hearts, fans and painting: areas, volumes, ejection fraction, diversity.

    Example: echogen stats camus_aug.zarr --against other_hospital/ --html report.html
    """
    from echogen.commands.stats import stats as command

    run(ctx, command, show_stats)


def show_stats(report: "StatsReport") -> None:
    """Print the result of `echogen stats`: one table per question."""
    nouns = {"originals": "original", "copies": "copy"}
    samples = ", ".join(
        counted(n, nouns.get(name, name), name) for name, n in report.samples.items()
    )
    rows = [("measured", f"{report.path} in {duration(report.seconds)}"), ("samples", samples)]
    for name, counts in report.counts.items():
        rows.append((name, ", ".join(f"{value} {count}" for value, count in counts.items())))
    if report.problems:
        rows.append(
            ("left out", f"{counted(len(report.problems), 'frame')}; --json has the reasons")
        )
    show_table(rows)
    _features(report)
    _classes(report)
    _volumes(report)
    _diversity(report)
    _coverage(report)
    _realism(report)
    if {"originals", "copies"} <= set(report.samples) and not report.diversity:
        typer.echo(
            "\nToo few originals or copies with a cavity to compare: at least 5 of each are needed."
        )


def _features(report: "StatsReport") -> None:
    from echogen.measures.features import BY_NAME

    groups = [g for g in ("originals", "copies") if any(g in f.groups for f in report.features)]
    rows = []
    for one in report.features:
        decimals = BY_NAME[one.feature].decimals
        cells = [_spread(one.groups.get(group), decimals) for group in groups]
        rows.append([one.words, *cells, one.unit])
    _table("Median (5th to 95th percentile)", ["", *groups, ""], rows)


def _classes(report: "StatsReport") -> None:
    groups = [g for g in ("originals", "copies") if any(g in one.samples for one in report.classes)]
    rows = [
        [f"{one.label} {one.name}",
         *(f"{_spread(one.share.get(g), 3)}, in {one.samples[g]}" if one.samples.get(g) else "none"
           for g in groups)]
        for one in report.classes
    ]  # fmt: skip
    if rows and groups:
        _table("Classes: share of the fan, median (5th to 95th percentile)", ["", *groups], rows)


def _volumes(report: "StatsReport") -> None:
    if not report.volumes:
        return
    import statistics

    rows = []
    for name, unit in (("edv_ml", "ml"), ("esv_ml", "ml"), ("ef", "%")):
        values = [v for one in report.volumes if (v := getattr(one, name)) is not None]
        if not values:  # no spacing
            continue
        against = next((one for one in report.agreement if one.quantity == name), None)
        told = ""
        if against is not None:
            within = "" if against.limits is None else f" +- {against.limits:.1f}"
            told = f"{against.bias:+.1f}{within} in {counted(against.cases, 'case')}"
            if against.correlation is not None:
                told += f", r {against.correlation:.3f}"
        rows.append([name.removesuffix("_ml").upper(), f"{statistics.median(values):.1f} {unit}",
                     f"{min(values):.1f} to {max(values):.1f}", told])  # fmt: skip
    biplane = sum(one.method == "biplane" for one in report.volumes)
    of = counted(len(report.volumes), "case")
    _table(
        f"LV volumes of {of}, method of discs ({biplane} biplane)",
        ["", "median", "range", "minus recorded values (95% limits)"],
        rows,
    )


def _diversity(report: "StatsReport") -> None:
    if not report.diversity:
        return
    rows = [
        [one.words, _times(one.span), f"{one.outside:.0%}", _number(one.distance)]
        for one in report.diversity
    ]
    columns = ["", "span", "outside", "distance"]
    _table("Diversity: what copies add to the originals", columns, rows)
    typer.echo(
        "span: 5th-95th percentile range with copies over without. outside: copies beyond the "
        "originals' range. distance: Wasserstein-1 in the originals' standard deviations."
    )


def _coverage(report: "StatsReport") -> None:
    if not report.coverage:
        return
    rows = [
        [one.words, _share(one.originals), _share(one.everything),
         _number(one.distance_originals), _number(one.distance_everything)]
        for one in report.coverage
    ]  # fmt: skip
    columns = ["", "by originals", "by all", "distance", "of all"]
    _table(f"Coverage of {report.against}", columns, rows)


def _realism(report: "StatsReport") -> None:
    if not report.realism:
        return
    rows = [
        [one.measure, *(f"x {spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
                        if spread else "?" for spread in (one.copies, one.real))]
        for one in report.realism
    ]  # fmt: skip
    columns = ["", "in copies", "in real frames, cut the same way"]
    _table("Realism: the painted part over the kept part beside it", columns, rows)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    typer.echo("")
    show_table(rows, columns, title=title)


def _spread(found: "Distribution | None", decimals: int) -> str:
    if found is None:
        return ""
    low, median, high = (f"{v:.{decimals}f}" for v in (found.low, found.median, found.high))
    return f"{median} ({low} to {high})"


def _times(value: float | None) -> str:
    return "" if value is None else f"x {value:.2f}"


def _share(value: float | None) -> str:
    return "?" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
