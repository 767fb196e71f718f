"""Samplers on real frames whose truth is known, against RePaint 250/10/10 and its own spread.

    python benchmarks/realism.py --data CAMUS --cache DIR [--samplers repaint-25-5-3,...]

Of each frame, the part that a drawn move would leave empty is hidden and painted several times.
Every measure of `measures` becomes one figure over all frames. The reference is painted
twice, with other noise: what the two runs differ by is the null, and a sampler is worse only where
it differs by more (a permutation test over draws, frame by frame). DIR keeps finished paintings,
which show patients; the reference takes 2,410 evaluations an image, hours on two cores.
Writes results/realism.json and docs/images/realism.png.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measures as realism
import numpy as np
from hidden import Hidden, hidden_frames, paint
from measures import Distances, DrawTable
from measures.compare import all_draws, holm, standard_error
from pydantic import TypeAdapter
from scipy import ndimage

from echogen.config import AugmentationConfig, RepaintConfig, SamplerConfig
from echogen.diffusion.checkpoint import read_info
from echogen.diffusion.schedule import sampler_nfe
from echogen.support.settings import load_config

HERE = Path(__file__).parent
REFERENCE = RepaintConfig().model_dump()
PRESETS = ("fast", "balanced", "high")
SAMPLERS: dict[str, dict[str, Any]] = {
    **{
        name: load_config(AugmentationConfig, {}, preset=name).sampler.model_dump()
        for name in PRESETS
    },
    "repaint-10-1-1": {"name": "repaint", "steps": 10, "jump_length": 1, "resamplings": 1},
    "repaint-25-5-3": {"name": "repaint", "steps": 25, "jump_length": 5, "resamplings": 3},
}
CANDIDATES_RUN = 2  # noise that neither run of the reference has used
BANDS = 3
ROUNDS = 10_000
LEVEL = 0.05


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


def fixed_parts(frames: Hidden) -> list[Hole]:
    parts = []
    for i in range(len(frames.canvases)):
        hidden, inside = ~frames.keep[i], frames.inside[i]
        sector, aspect = frames.sectors[i], float(frames.aspects[i])
        near = hidden & (ndimage.distance_transform_edt(~(inside & ~hidden)) <= 10)
        bands = realism.depth_bands(hidden.shape, sector, aspect, BANDS)
        parts.append(Hole(hidden, inside, sector, aspect, bands, near))
    return parts


def statistics(image: np.ndarray, of: Hole) -> Statistics:
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


def tables(draws: list[list[Statistics]], truths: list[Statistics]) -> dict[str, DrawTable]:
    """Every measure of every draw; frames in which one cannot be had are left out of it."""
    found = {}
    for name, (_, _, what, metric, kind) in MEASURES.items():
        values = [[getattr(draw, what) for draw in frame] for frame in draws]
        true = [getattr(truth, what) for truth in truths]
        if metric is None:
            table = DrawTable(kind, np.array(values), np.array(true), np.empty(0))
            usable = np.isfinite(table.truth) & np.isfinite(table.draws).all(axis=1)
            table = DrawTable(kind, table.draws[usable], table.truth[usable], np.empty(0))
        else:
            all_of: list[Distances] = [
                realism.distances(frame, truth, metric)
                for frame, truth in zip(values, true, strict=True)
            ]
            kept = [d for d in all_of if np.isfinite(d.to_truth).all()]
            to_truth = np.stack([d.to_truth for d in kept])
            table = DrawTable(kind, to_truth, np.empty(0), np.stack([d.between for d in kept]))
        found[name] = table
    return found


def subset(table: DrawTable, draws: np.ndarray) -> DrawTable:
    """The table of some of the draws, in this order."""
    between = table.between[:, draws[:, None], draws] if table.between.size else table.between
    return DrawTable(table.kind, table.draws[:, draws], table.truth, between)


def figures(
    table: dict[str, DrawTable], first: int, last: int, rng: np.random.Generator, reference: int
) -> dict[str, dict[str, Any]]:
    """The figures of the draws from `first` to `last`, each against the reference.

    "Worse" and "better" hold for all measures together (Holm); "perhaps worse" is what one test
    alone would call worse, as it would one in twenty of no difference.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, measured in table.items():
        chosen = subset(measured, np.r_[0:reference, first:last])
        ours = all_draws(len(chosen.draws), reference, reference + last - first)
        found[name] = {
            "figure": float(realism.figure(chosen, ours)),
            "standard_error": standard_error(chosen, ours),
            **asdict(realism.compare(chosen, reference, rng, ROUNDS)),
        }
    worse, better = (
        holm({name: row[p] for name, row in found.items()}) for p in ("p_worse", "p_better")
    )
    for name, row in found.items():
        row["verdict"] = "no worse" if row["p_worse"] >= LEVEL else "perhaps worse"
        if worse[name] < LEVEL:
            row["verdict"] = "worse"
        elif better[name] < LEVEL:
            row["verdict"] = "better"
    return found


def null(
    table: dict[str, DrawTable], reference: int, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """The reference's own figures, both runs and each, with the band of re-split draws."""
    found = {}
    for name, measured in table.items():
        choice = all_draws(len(measured.draws), 0, reference)
        halves = (choice[:, : reference // 2], choice[:, reference // 2 :])
        band = realism.null_band(measured, reference, rng, ROUNDS)
        found[name] = {
            "figure": float(realism.figure(measured, choice)),
            "standard_error": standard_error(measured, choice),
            "runs": [float(realism.figure(measured, half)) for half in halves],
            "low": band.low,
            "high": band.high,
            "difference": band.difference,
            "frames": len(measured.draws),
        }
    return found


def by_depth(draws: list[list[Statistics]], truths: list[Statistics]) -> dict[str, Any]:
    """Painted minus true spectrum and correlations, mean over frames and draws, by depth."""
    detail = {}
    for what in ("spectrum", "axial", "lateral"):
        gaps = [
            np.mean([getattr(draw, what) for draw in frame], axis=0) - getattr(truth, what)
            for frame, truth in zip(draws, truths, strict=True)
        ]
        detail[what] = np.round(np.nanmean(gaps, axis=0), 3).tolist()
    return detail


def print_table(result: dict[str, Any]) -> None:
    """One Markdown row a measure: the reference with its null band, then every sampler."""
    print("| measure | reference (null band) | " + " | ".join(result["samplers"]) + " |")
    print("| --- | --- |" + " --- |" * len(result["samplers"]))
    for name, (title, unit, *_) in MEASURES.items():
        of = result["null"][name]
        cells = [f"{of['figure']:.3g} ({of['low']:.3g} to {of['high']:.3g})"]
        for sampler in result["samplers"].values():
            row = sampler["measures"][name]
            p = row["p_better"] if row["verdict"] == "better" else row["p_worse"]
            cells.append(f"{row['figure']:.3g} {row['verdict']} (p {p:.2g})")
        print(f"| {title}, {unit} | " + " | ".join(cells) + " |")


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """One panel a measure: every sampler's figure, the null band behind, what is right dashed."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    names = list(result["samplers"])
    colours = {
        "better": "#1b7f5c",
        "no worse": "#30507a",
        "perhaps worse": "#d99a2b",
        "worse": "#b5321f",
    }
    columns = 5
    rows = -(-len(MEASURES) // columns)
    height = rows * (1.0 + 0.26 * (len(names) + 1))
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(13, height), sharey=True, layout="constrained"
    )
    for ax, (name, (title, unit, _, _, kind)) in zip(axes.flat, MEASURES.items(), strict=False):
        of = result["null"][name]
        ax.axvspan(of["low"], of["high"], color="#d9dde3", linewidth=0)
        marks = [(of, "#555555")]
        for sampler in result["samplers"].values():
            row = sampler["measures"][name]
            marks.append((row, colours[row["verdict"]]))
        for y, (row, colour) in enumerate(marks):
            ax.errorbar(
                row["figure"], y, xerr=row["standard_error"], fmt="o", color=colour, markersize=5
            )
        if kind != "score":
            ax.axvline(0 if kind == "difference" else 1, color="black", ls="--", lw=0.8)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(unit + (", lower is better" if kind == "score" else ""), fontsize=8)
        ax.tick_params(labelsize=8)
        ax.set_ylim(len(marks) - 0.4, -0.6)
        ax.spines[["top", "right"]].set_visible(False)
    axes.flat[0].set_yticks(range(len(names) + 1), ["reference", *names])
    legend = axes.flat[-1]
    for ax in list(axes.flat)[len(MEASURES) :]:
        ax.axis("off")
    for verdict, colour in colours.items():
        legend.plot([], [], "o", color=colour, label=f"{verdict} than the reference")
    legend.plot([], [], "o", color="#555555", label="reference, both runs")
    legend.fill_between([], [], color="#d9dde3", label="reference with other noise (95%)")
    legend.plot([], [], "--", color="black", lw=0.8, label="right")
    legend.legend(loc="center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a CAMUS folder")
    parser.add_argument("--cache", type=Path, required=True, help="keeps paintings; private")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4, help="of a frame and run, at least 2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help="names, comma-separated")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "realism.json")
    parser.add_argument(
        "--plot", type=Path, default=HERE.parent / "docs" / "images" / "realism.png"
    )
    flags = parser.parse_args()
    unknown = set(flags.samplers.split(",")) - set(SAMPLERS)
    if unknown:
        parser.error(f"--samplers: {', '.join(unknown)} unknown; one of {', '.join(SAMPLERS)}")
    if flags.samples < 2:
        parser.error(f"--samples: a score needs 2 or more, got {flags.samples}")
    return flags


def main() -> None:
    flags = arguments()
    names, m = flags.samplers.split(","), flags.samples
    frames = hidden_frames(flags.data, flags.frames, flags.seed)
    runs = [(REFERENCE, 0), (REFERENCE, 1), *((SAMPLERS[name], CANDIDATES_RUN) for name in names)]
    images = np.concatenate([paint(frames, *run, m, flags.cache) for run in runs])
    parts = fixed_parts(frames)
    truths = [statistics(t, of) for t, of in zip(frames.truths, parts, strict=True)]
    draws = [[statistics(image, of) for image in images[:, i]] for i, of in enumerate(parts)]
    table = tables(draws, truths)
    rng = np.random.default_rng(flags.seed)
    info = read_info("builtin")
    result: dict[str, Any] = {
        "command": "python benchmarks/realism.py --data CAMUS --cache DIR "
        f"--frames {flags.frames} --samples {m} --seed {flags.seed} --samplers {flags.samplers}",
        "checkpoint": info.name,
        "sha256": info.sha256,
        "frames": len(frames.canvases),
        "patients": frames.patients,
        "of": frames.of,
        "hidden_share_of_fan": round(float((~frames.keep).sum() / frames.inside.sum()), 3),
        "draws": {"reference": 2 * m, "others": m},
        "reference": {**REFERENCE, "nfe": sampler_nfe(RepaintConfig())},
        "null": null(table, 2 * m, rng),
        "reference_by_depth": by_depth([frame[: 2 * m] for frame in draws], truths),
        "samplers": {},
    }
    for position, name in enumerate(names):
        first = (position + 2) * m
        result["samplers"][name] = {
            "settings": SAMPLERS[name],
            "nfe": sampler_nfe(TypeAdapter(SamplerConfig).validate_python(SAMPLERS[name])),
            "measures": figures(table, first, first + m, rng, 2 * m),
            "by_depth": by_depth([frame[first : first + m] for frame in draws], truths),
        }
    flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)
    draw_plot(result, flags.plot)
    print(f"wrote {flags.out} and {flags.plot}", file=sys.stderr)


if __name__ == "__main__":
    main()
