"""What `realism.py` measures of painted frames, as tables of draws.

Every measure compares, frame by frame, draws with the truth and with each other; `DrawTable` makes
one figure of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import measures as realism
import numpy as np
from hidden import Hidden
from measures import DrawTable
from measures.compare import all_draws
from scipy import ndimage

BANDS = 3
BY_DEPTH = ("spectrum", "axial", "lateral")


@dataclass(frozen=True)
class Hole:
    """A frame's fixed part: where the hole is."""

    hidden: np.ndarray
    inside: np.ndarray
    sector: np.ndarray
    aspect: float
    bands: np.ndarray
    near: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What is measured of one image."""

    pixels: np.ndarray
    structure: np.ndarray
    border: np.ndarray
    spectrum: np.ndarray
    axial: np.ndarray
    lateral: np.ndarray
    seam: float
    step: float
    brightness: float
    grain: float


Metric = Callable[[np.ndarray, np.ndarray], float]
# name: (title, unit, what is compared, distance, kind); values need no distance.
MEASURES: dict[str, tuple[str, str, str, Metric | None, Any]] = {
    "energy": ("energy score", "grey levels", "pixels", realism.rms, "score"),
    "energy_structure": ("energy, blurred", "grey levels", "structure", realism.rms, "score"),
    "energy_border": ("energy, 10 px of the edge", "grey levels", "border", realism.rms, "score"),
    "crps": ("CRPS", "grey levels", "pixels", realism.absolute, "score"),
    "grey_levels": ("histogram (W1)", "grey levels", "pixels", realism.grey_levels, "score"),
    "spectrum": ("log spectrum by depth", "dB", "spectrum", realism.rms, "score"),
    "speckle_axial": ("axial speckle", "correlation", "axial", realism.rms, "score"),
    "speckle_lateral": ("lateral speckle", "correlation", "lateral", realism.rms, "score"),
    "grain": ("grain power", "painted / true", "grain", None, "ratio"),
    "seam": ("seam gradient", "painted / true", "seam", None, "ratio"),
    "step": ("step at the seam", "painted / true", "step", None, "ratio"),
    "brightness": ("brightness at the seam", "grey levels", "brightness", None, "difference"),
    "diversity": ("diversity", "spread / distance", "pixels", realism.rms, "spread"),
    "diversity_structure": (
        "diversity, blurred",
        "spread / distance",
        "structure",
        realism.rms,
        "spread",
    ),
}


@dataclass(frozen=True)
class Measured:
    """What was found of M draws of N frames.

    Attributes:
        tables: one a measure; frames in which one cannot be had are left out of it.
        gaps: painted minus true spectrum and correlations, (N, M, ...) each.
    """

    tables: dict[str, DrawTable]
    gaps: dict[str, np.ndarray]

    def by_depth(self, first: int, last: int) -> dict[str, Any]:
        """Mean gaps of the draws from `first` to `last`, over frames and draws."""
        chosen = {what: gap[:, first:last] for what, gap in self.gaps.items()}
        means = {what: np.nanmean(gap.mean(axis=1), axis=0) for what, gap in chosen.items()}
        return {what: np.round(mean, 3).tolist() for what, mean in means.items()}

    def figures(self) -> dict[str, float]:
        """One figure a measure, of all draws."""
        return {
            name: float(realism.figure(table, all_draws(*_span(table))))
            for name, table in self.tables.items()
        }


def measure(frames: Hidden, images: np.ndarray) -> Measured:
    """Measures paintings.

    Args:
        frames: with their truths.
        images: (M, N, h, w) uint8, M draws of each frame.
    """
    values: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    truths: dict[str, list[float]] = {name: [] for name in MEASURES}
    between: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    gaps: dict[str, list[np.ndarray]] = {what: [] for what in BY_DEPTH}
    for i in range(len(frames.canvases)):  # one by one: a frame's statistics fill megabytes
        hole = hole_of(frames, i)
        truth = statistics(frames.truths[i], hole)
        draws = [statistics(image, hole) for image in images[:, i]]
        for what in BY_DEPTH:
            gaps[what].append(np.stack([getattr(d, what) - getattr(truth, what) for d in draws]))
        for name, (_, _, what, metric, _) in MEASURES.items():
            own, true = [getattr(draw, what) for draw in draws], getattr(truth, what)
            if metric is None:
                values[name].append(np.array(own))
                truths[name].append(true)
            else:
                found = realism.distances(own, true, metric)
                values[name].append(found.to_truth)
                between[name].append(found.between)
    return Measured(
        {name: _table(name, values[name], truths[name], between[name]) for name in MEASURES},
        {what: np.stack(found) for what, found in gaps.items()},
    )


def hole_of(frames: Hidden, index: int) -> Hole:
    """Where a frame's hole is, and what of it is near the edge and at which depth."""
    hidden, inside = ~frames.keep[index], frames.inside[index]
    sector, aspect = frames.sectors[index], float(frames.aspects[index])
    near = hidden & (ndimage.distance_transform_edt(~(inside & ~hidden)) <= 10)
    bands = realism.depth_bands(hidden.shape, sector, aspect, BANDS)
    return Hole(hidden, inside, sector, aspect, bands, near)


def statistics(image: np.ndarray, of: Hole) -> Statistics:
    """What is measured of one (h, w) image of a frame."""
    blurred = realism.masked_blur(image, of.hidden, 3.0)
    speckle = realism.speckle_correlation(image, of.hidden, of.sector, of.aspect, BANDS)
    steps = realism.seam_steps(image, of.hidden, of.inside)
    return Statistics(
        pixels=image[of.hidden].astype(np.float64),
        structure=blurred[of.hidden],
        border=blurred[of.near],
        spectrum=realism.log_spectrum(image, of.hidden, of.bands),
        axial=speckle[0],
        lateral=speckle[1],
        seam=realism.seam_gradient(image, of.hidden, of.inside),
        step=float(np.abs(steps).mean()),
        brightness=float(steps.mean()),
        grain=realism.grain(image, of.hidden),
    )


def _span(table: DrawTable) -> tuple[int, int, int]:
    frames, count = table.draws.shape
    return frames, 0, count


def _table(
    name: str, values: list[np.ndarray], truths: list[float], between: list[np.ndarray]
) -> DrawTable:
    """One measure of the frames in which it can be had."""
    kind, own, none = MEASURES[name][-1], np.stack(values), np.empty(0)
    usable = np.isfinite(own).all(axis=1)
    if between:
        return DrawTable(kind, own[usable], none, np.stack(between)[usable])
    true = np.array(truths)
    usable &= np.isfinite(true)
    return DrawTable(kind, own[usable], true[usable], none)
