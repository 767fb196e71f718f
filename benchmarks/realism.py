"""Samplers on real frames whose truth is known, against RePaint 250/10/10 and its own spread.

    python benchmarks/realism.py --data CAMUS --cache DIR [--samplers "balanced;langevin-balanced"]
    python benchmarks/realism.py --data CAMUS --cache DIR --tuning --checkpoint FOLDER \\
        --samplers "dpm steps=25;dpm steps=25 rho=5"

Of each frame, the part that a drawn move would leave empty is hidden and painted several times.
Every measure of `figures.py` becomes one figure over all frames. The reference is the published
schedule with the unconditional network, painted twice with other noise: what the two runs differ by
is the null, and a sampler is worse only where it differs by more (a permutation test over draws,
frame by frame). DIR keeps finished paintings, which show patients; the reference takes 2,410
evaluations an image, five hours of one core for 24 frames. Writes results/realism.json and
docs/images/realism.png; --tuning only prints figures, of frames of other patients.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measures as realism
import numpy as np
from figures import MEASURES, measure
from hidden import Painter, hidden_frames, paint
from measures import DrawTable
from measures.compare import all_draws, holm, standard_error
from painters import DEFAULT, REFERENCE, described, read_painters

HERE = Path(__file__).parent
CANDIDATES_RUN = 2  # noise that neither run of the reference has used
REPORTED = 24  # frames, which are never tuned on
ROUNDS = 10_000
LEVEL = 0.05
HIGHEST_SEAM = 1.05
CLAIMED = ("energy", "crps")


def figures(
    table: dict[str, DrawTable], reference: int, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """The figures of the draws after the first `reference` ones, each against those.

    "Worse" and "better" hold for all measures of a sampler together (Holm); "perhaps worse" is what
    one test alone would call worse, as it would one in twenty of no difference.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, measured in table.items():
        ours = all_draws(len(measured.draws), reference, measured.draws.shape[1])
        found[name] = {
            "figure": float(realism.figure(measured, ours)),
            "standard_error": standard_error(measured, ours),
            **asdict(realism.compare(measured, reference, rng, ROUNDS)),
        }
    worse, better = (
        holm({name: row[p] for name, row in found.items()}) for p in ("p_worse", "p_better")
    )
    for name, row in found.items():
        row |= {"p_worse_of_all": worse[name], "p_better_of_all": better[name]}
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


def claim(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether a sampler is better than the reference by the claimed scores, and worse in nothing.

    "Better" and "worse" hold for all measures together; `perhaps_worse` do not.
    """
    verdicts = {name: row["verdict"] for name, row in found.items()}
    seam = found["seam"]["figure"]
    named: dict[str, Any] = {
        "better": [name for name, verdict in verdicts.items() if verdict == "better"],
        "worse": [name for name, verdict in verdicts.items() if verdict == "worse"],
        "perhaps_worse": [name for name, v in verdicts.items() if v == "perhaps worse"],
        "seam_gradient": seam,
    }
    holds = set(CLAIMED) <= set(named["better"]) and not named["worse"] and seam <= HIGHEST_SEAM
    return {"holds": holds, **named}


def print_table(result: dict[str, Any]) -> None:
    """One Markdown row a measure: the reference with its null band, then every sampler."""
    heads = [f"{name} ({of['nfe']:,})" for name, of in result["samplers"].items()]
    print("| measure | reference (null band) | " + " | ".join(heads) + " |")
    print("| --- | --- |" + " --- |" * len(result["samplers"]))
    for name, (title, unit, *_) in MEASURES.items():
        of = result["null"][name]
        cells = [f"{of['figure']:.3g} ({of['low']:.3g} to {of['high']:.3g})"]
        for sampler in result["samplers"].values():
            row = sampler["measures"][name]
            p = "p_better" if row["difference"] < 0 else "p_worse"
            cells.append(f"{row['figure']:.3g} {row['verdict']} (p {row[p]:.2g})")
        print(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    for name, of in result["samplers"].items():
        said = of["claim"]
        print(
            f"{name}: the claim {'holds' if said['holds'] else 'does not hold'}; better by "
            f"{', '.join(said['better']) or 'nothing'}; worse by "
            f"{', '.join(said['worse']) or 'nothing'}; perhaps worse by "
            f"{', '.join(said['perhaps_worse']) or 'nothing'}; seam gradient "
            f"{said['seam_gradient']:.3f} of at most {HIGHEST_SEAM}"
        )


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


def print_figures(found: dict[str, dict[str, float]]) -> None:
    """One line a sampler, one column a measure."""
    wide = max(len(name) for name in found)
    print(" " * wide, *(f"{name[:9]:>9}" for name in MEASURES))
    for name, row in found.items():
        print(f"{name:{wide}}", *(f"{row[measure]:9.3f}" for measure in MEASURES))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a CAMUS folder")
    parser.add_argument("--cache", type=Path, required=True, help="keeps paintings; private")
    parser.add_argument("--frames", type=int, default=REPORTED)
    parser.add_argument(
        "--samples", type=int, default=4, help="of a frame in each run of the reference, 2 or more"
    )
    parser.add_argument("--candidate-samples", type=int, help="of the others; as many as --samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--samplers",
        default=";".join(DEFAULT),
        help="separated by ';': fast, balanced, high, langevin-fast, ..., repaint-25-5-3, or free "
        "settings such as 'dpm steps=25 rho=5'",
    )
    parser.add_argument("--checkpoint", default="builtin", help="of the presets and free settings")
    parser.add_argument(
        "--tuning", action="store_true", help="figures alone, on frames of other patients"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "realism.json")
    parser.add_argument(
        "--plot", type=Path, default=HERE.parent / "docs" / "images" / "realism.png"
    )
    flags = parser.parse_args()
    flags.candidate_samples = flags.candidate_samples or flags.samples
    if min(flags.samples, flags.candidate_samples) < 2:
        parser.error("--samples and --candidate-samples: a score needs 2 or more")
    return flags


def tune(flags: argparse.Namespace, painters: dict[str, Painter]) -> None:
    """The figures of samplers on frames of patients that are not reported on."""
    frames = hidden_frames(flags.data, flags.frames, flags.seed, apart_from=REPORTED)
    print(f"{len(frames.canvases)} frames of {frames.patients} other {frames.of}", file=sys.stderr)
    found = {}
    for name, painter in painters.items():
        images = paint(frames, painter, CANDIDATES_RUN, flags.candidate_samples, flags.cache)
        found[name] = measure(frames, images).figures()
    print_figures(found)


def report(flags: argparse.Namespace, painters: dict[str, Painter]) -> dict[str, Any]:
    """Every sampler against the reference, which is painted where it is not cached."""
    m, own = flags.samples, flags.candidate_samples
    frames = hidden_frames(flags.data, flags.frames, flags.seed)
    runs = [paint(frames, REFERENCE, run, m, flags.cache) for run in (0, 1)]
    reference = np.concatenate(runs)
    measured = measure(frames, reference)
    rng = np.random.default_rng(flags.seed)
    result: dict[str, Any] = {
        "command": "python benchmarks/realism.py --data CAMUS --cache DIR "
        f"--frames {flags.frames} --samples {m} --candidate-samples {own} --seed {flags.seed} "
        f"--samplers {shlex.quote(flags.samplers)}",
        "frames": len(frames.canvases),
        "patients": frames.patients,
        "of": frames.of,
        "hidden_share_of_fan": round(float((~frames.keep).sum() / frames.inside.sum()), 3),
        "draws": {"reference": 2 * m, "others": own},
        "reference": described(REFERENCE),
        "null": null(measured.tables, 2 * m, rng),
        "reference_by_depth": measured.by_depth(0, 2 * m),
        "samplers": {},
    }
    for name, painter in painters.items():
        images = paint(frames, painter, CANDIDATES_RUN, own, flags.cache)
        both = measure(frames, np.concatenate([reference, images]))
        rows = figures(both.tables, 2 * m, rng)
        result["samplers"][name] = {
            **described(painter),
            "claim": claim(rows),
            "measures": rows,
            "by_depth": both.by_depth(2 * m, 2 * m + own),
        }
    return result


def main() -> None:
    flags = arguments()
    painters = read_painters(flags.samplers, flags.checkpoint)
    if flags.tuning:
        tune(flags, painters)
        return
    result = report(flags, painters)
    flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)
    draw_plot(result, flags.plot)
    print(f"wrote {flags.out} and {flags.plot}", file=sys.stderr)


if __name__ == "__main__":
    main()
