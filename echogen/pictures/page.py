"""The report's page: what was measured as tables and plots, pictures, and the provenance.

One file that needs no network and no script: styles and pictures lie in it, and its own content
policy forbids everything else. All text is escaped by the template.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL.Image import Image

from echogen import __version__
from echogen.commands.stats import Measurements, Options, StatsReport
from echogen.datasets import open_chosen, select
from echogen.errors import UsageError
from echogen.measures.features import BY_NAME
from echogen.pictures import plots
from echogen.pictures.choice import Choice, at_random, rows_of_store, worst_rows
from echogen.pictures.entries import Entry, of_dataset, of_store
from echogen.pictures.panels import headings, panels
from echogen.pictures.plots import Plot
from echogen.report import Quiet, Reporter
from echogen.store import StoreReader, is_store, open_store, present_store_path
from echogen.support.files import write_whole
from echogen.types import Problem

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
        lines: (name, facts, [(heading, data URI), ...]) of each.
    """

    title: str
    lines: tuple[tuple[str, str, list[tuple[str, str]]], ...]


@dataclass(frozen=True)
class Look:
    """How the page's pictures are found.

    Attributes:
        options: of the measuring.
        seed: of what is shown at random.
        reporter: where progress goes.
    """

    options: Options = field(default_factory=Options)
    seed: int = 0
    reporter: Reporter = field(default_factory=Quiet)


def write_report(
    report: StatsReport, measured: Measurements, path: Path, look: Look | None = None
) -> None:
    """Write the page, whole or not at all.

    Args:
        report: of `stats`.
        measured: the samples behind it.
        path: of the .html file.
        look: how pictures are found.

    Raises:
        UsageError: the file cannot be written.
        DatasetError, StoreError: pictures cannot be read.
    """
    galleries = _galleries(Path(report.path), look or Look())
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
    environment.filters |= {"share": _share, "number": _number, "svg": _svg, "spread": _spread}
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
    return {name: [one for one in some if one is not None] for name, some in sections.items()}


def _galleries(path: Path, look: Look) -> list[Gallery]:
    config = look.options.dataset
    choice = Choice(n=SHOWN, seed=look.seed, workers=look.options.workers)
    if not is_store(path):
        dataset = open_chosen(path, config)
        keys = at_random(select(dataset.keys(), config), SHOWN, look.seed)
        found = [_gallery(f"Frames {choice.words}", of_dataset(dataset, keys))]
    else:
        with open_store(present_store_path(path)) as store:
            found = _of_store(store, choice, look.reporter)
    return [gallery for gallery in found if gallery.lines]


def _of_store(store: StoreReader, choice: Choice, reporter: Reporter) -> list[Gallery]:
    rows = rows_of_store(store, choice)
    shown = of_store(store, at_random(rows, SHOWN, choice.seed), {})
    found = [_gallery(f"Samples {choice.words}", shown)]
    if store.kind == "expanded" and (store.columns["copy"][rows] > 0).any():
        judged = at_random(rows, JUDGED, choice.seed)
        scores = worst_rows(store, judged, replace(choice, worst=True), reporter)
        title = "The worst by seam and texture (score: spreads from what real frames show)"
        if len(judged) < len(rows):
            title += f", of {JUDGED} at random"
        found.append(_gallery(title, of_store(store, list(scores), scores)))
    return found


def _gallery(title: str, shown: Iterable[Entry | Problem]) -> Gallery:
    entries = [one for one in shown if isinstance(one, Entry)]
    names = headings(entries)
    lines = []
    for entry in entries:
        tiles = zip(names, panels(entry, names, TILE), strict=True)
        pictures = [(name, _jpeg(tile)) for name, tile in tiles if tile is not None]
        lines.append((entry.name, entry.facts, pictures))
    return Gallery(title, tuple(lines))


def _jpeg(tile: Image) -> str:
    stream = io.BytesIO()
    tile.save(stream, format="JPEG", quality=86)
    return _data_uri("image/jpeg", stream.getvalue())


def _svg(content: bytes) -> str:
    return _data_uri("image/svg+xml", content)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, decimals: int = 2) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


def _spread(found: Any, decimals: int) -> str:
    if not found:
        return ""
    values = found if isinstance(found, Mapping) else vars(found)
    low, median, high = (f"{values[k]:,.{decimals}f}" for k in ("low", "median", "high"))
    return f"{median} ({low} to {high})"
