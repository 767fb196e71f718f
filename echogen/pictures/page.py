"""The page of `echogen stats --html`: tables, plots, pictures of samples, and the provenance.

One file that needs no network and no script: styles and pictures are inside it, and its content
policy forbids everything else. The template escapes all text.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL.Image import Image

from echogen import __version__
from echogen.config import DatasetConfig
from echogen.datasets import open_chosen
from echogen.errors import UsageError
from echogen.measures.features import BY_NAME
from echogen.measures.report import Measurements, StatsReport
from echogen.pictures import plots
from echogen.pictures.choice import Choice, EntryList, select_frames, select_samples
from echogen.pictures.entries import headings, legend
from echogen.pictures.plots import Plot
from echogen.report import QUIET, Reporter
from echogen.store import Status, StoreReader, is_store, open_store, present_store_path
from echogen.support.files import write_whole

SHOWN = 6
JUDGED = 1000
TILE = 220
LISTED = 400

AREAS = ("cavity_area", "myocardium_area", "atrium_area")
SHARES = ("cavity_share", "myocardium_share", "atrium_share")
OTHERS = ("lv_length", "depth", "gcnr")


@dataclass(frozen=True)
class Gallery:
    """Some samples with their pictures.

    Attributes:
        title: how they were chosen.
        lines: (name, facts, [(heading, data URI), ...]), one a sample.
        legend: (name, colour as CSS writes it) of the classes and marks that are shown.
    """

    title: str
    lines: tuple[tuple[str, str, list[tuple[str, str]]], ...]
    legend: tuple[tuple[str, str], ...] = ()


def write_report(
    report: StatsReport,
    measured: Measurements,
    path: Path,
    choice: Choice | None = None,
    reporter: Reporter = QUIET,
) -> None:
    """Write the page, whole or not at all.

    Args:
        report: of `stats`.
        measured: the samples behind it.
        path: of the .html file.
        choice: which frames of a dataset may be shown, the seed and the processes; the number of
            pictures is the page's own.
        reporter: told of progress.

    Raises:
        UsageError: the file cannot be written.
        DatasetError, StoreError: pictures cannot be read.
    """
    choice = (choice or Choice()).model_copy(update={"n": SHOWN})
    galleries = _galleries(Path(report.path), choice, reporter)
    text = render(report, _plots(report, measured), galleries)
    try:
        write_whole(path, text)
    except OSError as error:
        raise UsageError(f"--html {path}: cannot be written ({error.strerror}).") from error


def render(
    report: StatsReport, figures: Mapping[str, Sequence[Plot]], galleries: Sequence[Gallery]
) -> str:
    """The page as text.

    Args:
        report: of `stats`.
        figures: {section: its plots}.
        galleries: of samples; may be empty.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "share": _share,
        "number": _number,
        "svg": partial(_data_uri, "image/svg+xml"),
        "spread": _spread,
    }
    package = files("echogen.pictures")
    template = environment.from_string((package / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        style=(package / "page.css").read_text(encoding="utf-8"),
        name=Path(report.path).name or report.path,
        decimals={name: feature.decimals for name, feature in BY_NAME.items()},
        groups=[g for g in ("originals", "copies") if any(g in f.groups for f in report.features)],
        figures=figures,
        galleries=galleries,
        version=__version__,
        listed=LISTED,
    )


def _plots(report: StatsReport, measured: Measurements) -> dict[str, list[Plot]]:
    groups = plots.groups_of(measured.group("originals"), measured.group("copies"), measured.other)
    ours = {name: table for name, table in groups.items() if name != "other"}
    areas = [plots.histogram(ours, name) for name in AREAS]
    if not any(areas):
        areas = [plots.histogram(ours, name) for name in SHARES]
    sections = {
        "hearts": [*areas, *(plots.histogram(ours, name) for name in OTHERS)],
        "volumes": [plots.volumes(report.volumes), plots.ejection_fractions(report.volumes)],
        "diversity": [plots.positions(groups), plots.ranges(groups)],
        "realism": [plots.realism(report.realism)],
    }
    return {name: [plot for plot in some if plot is not None] for name, some in sections.items()}


def _galleries(path: Path, choice: Choice, reporter: Reporter) -> list[Gallery]:
    if is_store(path):
        with open_store(present_store_path(path)) as store:
            galleries = _of_store(store, choice, reporter)
    else:
        dataset = open_chosen(path, choice.dataset, need_labels=False)
        frames, labels = select_frames(dataset, choice, fields=True), dataset.provenance.labels
        galleries = [_gallery(f"Frames {choice.words}", frames, labels)]
    return [gallery for gallery in galleries if gallery.lines]


def _of_store(store: StoreReader, choice: Choice, reporter: Reporter) -> list[Gallery]:
    choice = choice.model_copy(update={"dataset": DatasetConfig()})  # a store is measured whole
    random, labels = select_samples(store, choice, reporter), store.record.labels
    galleries = [_gallery(f"Samples {choice.words}", random, labels)]
    copies = (store.columns["copy"] > 0) & (store.columns["status"] == Status.DONE)
    if store.kind == "expanded" and copies.any():
        worst = select_samples(
            store, choice.model_copy(update={"worst": True, "judged": JUDGED}), reporter
        )
        title = "Worst by seam and texture (score: standard deviations from real frames)"
        if worst.of > JUDGED:
            title += f", of {JUDGED} at random"
        galleries.append(_gallery(title, worst, labels))
    return galleries


def _gallery(title: str, selection: EntryList, labels: Mapping[int, str]) -> Gallery:
    names = headings(selection.entries)
    lines = []
    for entry in selection.entries:
        tiles = zip(names, entry.panels(names, TILE), strict=True)
        pictures = [(name, _jpeg(tile)) for name, tile in tiles if tile is not None]
        lines.append((entry.name, entry.facts, pictures))
    marks = legend(selection.entries, labels)
    colours = tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in marks)
    return Gallery(title, tuple(lines), colours)


def _jpeg(tile: Image) -> str:
    stream = io.BytesIO()
    tile.save(stream, format="JPEG", quality=86)
    return _data_uri("image/jpeg", stream.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, decimals: int = 2) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


def _spread(distribution: Any, decimals: int) -> str:
    if not distribution:
        return ""
    values = distribution if isinstance(distribution, Mapping) else vars(distribution)
    low, median, high = (f"{values[k]:,.{decimals}f}" for k in ("low", "median", "high"))
    return f"{median} ({low} to {high})"
