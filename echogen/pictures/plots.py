"""The plots of the page, each as the bytes of an SVG that needs nothing else.

Colours and lines can be read on white and on black. The same data gives the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from echogen.measures.collect import FeatureTable
from echogen.measures.compare import distribution, finite
from echogen.measures.features import BY_NAME, DIVERSITY
from echogen.measures.report import Distribution, Realism, Volume
from echogen.support.words import counted

INK, FAINT = "#7b8494", "#7b849455"
GROUPS = {"originals": "#3b82f6", "copies": "#f2803b", "other": "#14a37f"}
NAMES = {"other": "other set"}
WIDTH = 3.6  # inches, before the page scales it
BINS = 28
MOST_POINTS = 2000

Table = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Plot:
    """One figure of the page.

    Attributes:
        svg: its bytes.
        title: above the figure.
        words: its caption, and with the title the text for those who cannot see it.
    """

    svg: bytes
    title: str
    words: str


def histogram(groups: Mapping[str, Table], name: str) -> Plot | None:
    """The distribution of a feature in each group; None where no sample has it."""
    values = {group: finite(table[name]) for group, table in groups.items()}
    every = np.concatenate(list(values.values()))
    if not every.size:
        return None
    figure, axes = _figure(2.1)
    low, high = np.percentile(every, [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, BINS).tolist()
    for group, known in values.items():
        if known.size:
            colour, weights = GROUPS[group], np.full(known.size, 1 / known.size)
            axes.hist(known, edges, weights=weights, histtype="stepfilled",
                      color=colour + "55", edgecolor=colour)  # fmt: skip
    feature = BY_NAME[name]
    axes.set_xlabel(feature.unit or "ratio")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([])
    _plain(axes)
    _legend(figure, groups)
    words = f"Share of samples in {_joined(groups)}."
    return Plot(_svg(figure), feature.words, words)


def positions(groups: Mapping[str, Table]) -> Plot | None:
    """Where the left ventricle lies in the fan: one point a sample, in a fan of depth 1."""
    if not any(finite(table["cavity_radius"]).size for table in groups.values()):
        return None
    figure, axes = _figure(3.1)
    widths = np.concatenate([finite(table["fan_angle"]) for table in groups.values()])
    half = np.radians(float(np.median(widths)) / 2)
    arc = np.linspace(-half, half, 60)
    axes.fill([0, *np.sin(arc)], [0, *np.cos(arc)], facecolor=FAINT, edgecolor=INK, linewidth=1)
    for group in sorted(groups, key=lambda name: name == "originals"):
        table = groups[group]
        radius, angle = table["cavity_radius"], np.radians(table["cavity_angle"])
        there = np.flatnonzero(np.isfinite(radius) & np.isfinite(angle))
        there = there[:: max(1, len(there) // MOST_POINTS)]
        at = radius[there]
        axes.scatter(at * np.sin(angle[there]), at * np.cos(angle[there]), s=7,
                     color=GROUPS[group], alpha=0.55, linewidths=0)  # fmt: skip
    axes.set_ylim(1.06, -0.04)
    axes.set_aspect("equal")
    axes.axis("off")
    _legend(figure, groups)
    words = f"Centroid of the LV cavity in {_joined(groups)}; the fan has the median width."
    return Plot(_svg(figure), "Where the heart lies in the fan", words)


def ranges(groups: Mapping[str, Table]) -> Plot | None:
    """The 5th to the 95th percentile of each feature of diversity, group below group."""
    shown = [name for name in DIVERSITY if any(finite(t[name]).size for t in groups.values())]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH, 0.4 + 0.68 * len(shown)), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(shown), 1))
    for axes, name in zip(all_axes, shown, strict=True):
        for place, (group, table) in enumerate(groups.items()):
            spread = distribution(table[name])
            if spread is not None:
                _range(axes, spread, -place, GROUPS[group])
        feature = BY_NAME[name]
        unit = f" ({feature.unit})" if feature.unit else ""
        axes.set_title(f"{feature.words}{unit}", loc="left", color=INK, size="medium", pad=4)
        axes.locator_params(axis="x", nbins=6)
        axes.set_ylim(-len(groups) + 0.4, 0.6)
        axes.set_yticks([])
        _plain(axes)
    _legend(figure, groups)
    words = f"5th to 95th percentile in {_joined(groups)}; the dot is the median."
    return Plot(_svg(figure), "The range of each feature", words)


def volumes(cases: Sequence[Volume]) -> Plot | None:
    """End-systolic against end-diastolic volume; None without cases of a known spacing."""
    known = [(one.edv_ml, one.esv_ml) for one in cases if one.edv_ml and one.esv_ml is not None]
    if not known:
        return None
    points = np.array(known)
    of = counted(len(known), "case")
    words = f"End-systolic against end-diastolic volume of {of}; on the grey line both are equal."
    plot = _against(points, ("end-diastolic (ml)", "end-systolic (ml)"))
    return Plot(plot, "Volumes", words)


def ejection_fractions(cases: Sequence[Volume]) -> Plot | None:
    """Measured against recorded values, or a histogram without a record; None without cases."""
    if not cases:
        return None
    pairs = [(case.recorded_ef, case.ef) for case in cases if case.recorded_ef is not None]
    if pairs:
        plot = _against(np.array(pairs), ("in the files (%)", "measured (%)"))
        of = counted(len(pairs), "case")
        words = f"Measured against recorded values of {of}; on the grey line both are equal."
        return Plot(plot, "Ejection fraction", words)
    figure, axes = _figure(2.6)
    axes.hist([case.ef for case in cases], BINS, histtype="stepfilled",
              color=GROUPS["originals"] + "55", edgecolor=GROUPS["originals"])  # fmt: skip
    axes.set_xlabel("%")
    axes.set_yticks([])
    _plain(axes)
    words = f"Ejection fraction of {counted(len(cases), 'case')}."
    return Plot(_svg(figure), "Ejection fraction", words)


def _figure(height: float) -> tuple[Figure, Axes]:
    """A figure of WIDTH with one plot; the height is in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _against(points: npt.NDArray[Any], labels: tuple[str, str]) -> bytes:
    """A scatter of (n, 2) points with the line on which both are equal."""
    figure, axes = _figure(2.6)
    most = float(np.nanmax(points)) * 1.05 or 1.0
    axes.plot([0, most], [0, most], color=FAINT)
    axes.scatter(
        points[:, 0], points[:, 1], s=13, color=GROUPS["originals"], alpha=0.7, linewidths=0
    )
    axes.set(xlim=(0, most), ylim=(0, most), xlabel=labels[0], ylabel=labels[1])
    _plain(axes)
    return _svg(figure)


def realism(measures: Sequence[Realism]) -> Plot | None:
    """Painted over kept in copies, and in real frames cut alike, as ranges about 1."""
    if not measures:
        return None
    figure, axes = _figure(0.9 + 0.5 * len(measures))
    axes.axvline(1, color=INK, linewidth=0.8)
    for place, one in enumerate(measures):
        for offset, spread, group in ((0.16, one.copies, "copies"), (-0.16, one.real, "originals")):
            if spread:
                line = Distribution(one.samples, 0, 0, spread["low"], spread["median"],
                                    spread["high"])  # fmt: skip
                _range(axes, line, -place + offset, GROUPS[group])
    axes.set_yticks([-place for place in range(len(measures))], [one.measure for one in measures])
    axes.set_ylim(-len(measures) + 0.4, 0.6)
    axes.set_xlabel("painted over kept, beside the border")
    axes.tick_params(left=False)
    _plain(axes)
    _legend(
        figure, {"copies": None, "originals": None}, {"originals": "real frames, cut the same way"}
    )
    words = (
        "5th to 95th percentile of painted over kept, in copies and in real frames cut the same "
        "way."
    )
    return Plot(_svg(figure), "Seams and textures", words)


def _range(axes: Axes, spread: Distribution, at: float, colour: str) -> None:
    axes.plot([spread.low, spread.high], [at, at], color=colour, linewidth=5, alpha=0.45,
              solid_capstyle="round")  # fmt: skip
    axes.plot([spread.median], [at], "o", color=colour, markersize=5)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.patch.set_alpha(0)


def _legend(figure: Figure, groups: Any, names: Mapping[str, str] | None = None) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=GROUPS[group], label=(names or NAMES).get(group, group)) for group in groups
    ]  # fmt: skip
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles),
                      frameon=False, labelcolor=INK)  # fmt: skip


def _svg(figure: Figure) -> bytes:
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.tick_params(colors=INK)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "echogen"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def groups_of(
    originals: FeatureTable, copies: FeatureTable, other: FeatureTable | None
) -> dict[str, Table]:
    """The values that are plotted, by group; groups without samples are left out."""
    groups = {"originals": originals, "copies": copies, "other": other}
    return {name: one.values for name, one in groups.items() if one is not None and one.names}


def _joined(groups: Mapping[str, Any]) -> str:
    names = ["the other set" if group == "other" else group for group in groups]
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
