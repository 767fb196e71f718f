"""Samplers against a posterior that is known in closed form.

    python benchmarks/posterior.py [--samplers "NAME;NAME"] [--observations 4] [--samples 128]

The prior is `gaussian_mixture.py`'s, with its exact denoiser: what is wrong with a painting is the
sampler's fault alone. Each observation is a draw of the prior, of which three masks hide a part; a
sampler paints it `--samples` times through the interface that `echogen expand` uses. The samplers
and their rivals (`rivals.py`) were tuned on observations 0 and 1; reported are 100 to 103.
Writes results/posterior.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import rivals
import torch
from gaussian_mixture import Mixture, exact_denoiser, make_prior, masks
from scipy.ndimage import gaussian_filter
from torch import Tensor

from echogen.config import LangevinConfig, RepaintConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource, SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.presets import PRESETS

HERE = Path(__file__).parent
REFERENCE = "repaint 250/10/10"
TRUTHS = 1024  # exact samples that a sampler's are compared with
MEASURES = ("energy", "modes", "mean", "covariance", "variance", "seam", "texture")

Paint = Callable[[Denoiser, Tensor, Tensor, NoiseSource], Tensor]


def langevin(preset: str, **changes: Any) -> Paint:
    """The sampler of a preset of `echogen expand`, with some settings changed."""
    return Sampler(LangevinConfig(**{**PRESETS[preset]["sampler"], **changes}))


def repaint(steps: int, jump_length: int, resamplings: int) -> Paint:
    config = RepaintConfig(steps=steps, jump_length=jump_length, resamplings=resamplings)
    return Sampler(config)


SAMPLERS: Mapping[str, Paint] = {
    REFERENCE: repaint(250, 10, 10),
    "repaint 25/5/3": repaint(25, 5, 3),
    "repaint 25/5/5": repaint(25, 5, 5),
    "repaint 100/10/1": repaint(100, 10, 1),
    "langevin fast": langevin("fast"),
    "langevin balanced": langevin("balanced"),
    "langevin high": langevin("high"),
    "langevin balanced, no guidance": langevin("balanced", guidance=0.0),
    "lanpaint 20 x 4, small steps": partial(
        rivals.lanpaint, levels=20, inner_steps=4, step_size=0.5, guidance=4.0
    ),
    "lanpaint 20 x 4": partial(
        rivals.lanpaint, levels=20, inner_steps=4, step_size=1.0, guidance=1.0
    ),
    "ddnm 250/10/3": partial(rivals.ddnm, steps=250, travel=10, repeats=3),
    "ddnm 25/5/5": partial(rivals.ddnm, steps=25, travel=5, repeats=5),
    "ddnm 100/10/1": partial(rivals.ddnm, steps=100, travel=10, repeats=1),
    "ddnm 25/5/3": partial(rivals.ddnm, steps=25, travel=5, repeats=3),
    "diffpir 100, zeta 0.5": partial(rivals.diffpir, steps=100, zeta=0.5),
    "diffpir 100, zeta 1": partial(rivals.diffpir, steps=100, zeta=1.0),
    "heun 51, churn 0.4": partial(rivals.heun, levels=51, churn=0.4),
}


class _CaseNoise:
    """echogen's noise with one stream a case instead of one a sample: many small pictures at once.

    Made for `paint`, whose batch holds as many samples of each case, one case after the other.
    """

    def __init__(self, cases: int) -> None:
        self._noise, self._cases = SampleNoise(range(cases)), cases

    def draw(self, shape: Sequence[int]) -> Tensor:
        """As `NoiseSource.draw`."""
        of_cases = (self._cases, shape[0] // self._cases, *shape[1:])
        return self._noise.draw(of_cases).reshape(tuple(shape))


@dataclass(frozen=True)
class Case:
    """A picture with a part hidden, and exact samples of what may be there.

    Attributes:
        picture: (n,) a draw of the prior.
        keep: (n,) bool.
        posterior: over the hidden pixels.
        truths: (TRUTHS, hidden) draws of it.
    """

    picture: np.ndarray
    keep: np.ndarray
    posterior: Mixture
    truths: np.ndarray

    def filled(self, hidden: np.ndarray) -> np.ndarray:
        """(count, side, side) pictures around (count, hidden) samples."""
        pictures = np.tile(self.picture, (len(hidden), 1))
        pictures[:, ~self.keep] = hidden
        side = math.isqrt(len(self.keep))
        return pictures.reshape(-1, side, side)

    @cached_property
    def true_seam(self) -> float:
        """`seam` of the exact samples."""
        return seam(self.filled(self.truths), self.keep)

    @cached_property
    def true_texture(self) -> float:
        """`texture` of the exact samples."""
        return texture(self.filled(self.truths), self.keep)


def make_case(prior: Mixture, seed: int, keep: np.ndarray) -> Case:
    """The case of an observation; `keep` (n,)."""
    rng = np.random.default_rng(seed)
    picture = prior.sample(rng, 1)[0]
    posterior = prior.posterior(picture, keep)
    return Case(picture, keep, posterior, posterior.sample(rng, TRUTHS))


def make_cases(prior: Mixture, seeds: range) -> list[Case]:
    """Every observation under every mask."""
    side = math.isqrt(prior.means.shape[1])
    return [make_case(prior, seed, keep.ravel()) for seed in seeds for keep in masks(side).values()]


def paint(
    sampler: Paint, denoiser: Denoiser, cases: list[Case], count: int
) -> tuple[list[np.ndarray], int]:
    """All cases in one batch, each `count` times with noise of its own.

    Returns:
        (count, hidden) samples of each case, and the evaluations that were counted.
    """
    side = math.isqrt(len(cases[0].keep))
    shape = (-1, 1, side, side)
    image = torch.tensor(np.repeat([c.picture for c in cases], count, 0), dtype=torch.float32)
    keep = torch.tensor(np.repeat([c.keep for c in cases], count, 0))
    calls: list[int] = []

    def counted(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(len(x))
        return denoiser.network(x, timesteps)

    painted = sampler(
        replace(denoiser, network=counted),
        image.reshape(shape),
        keep.reshape(shape),
        _CaseNoise(len(cases)),
    )
    pictures = painted.double().numpy().reshape(len(cases), count, -1)
    return [p[:, ~c.keep] for p, c in zip(pictures, cases, strict=True)], len(calls)


def score(case: Case, samples: np.ndarray) -> dict[str, float]:
    """What separates samples from the posterior; `MEASURES`.

    energy: the energy distance (unbiased, so that it may be below 0: then its root is, too), as a
    share of the mean distance between two exact samples, square root. modes: total variation of the
    components' weights. mean and covariance: RMS error of the mean over the RMS standard deviation,
    and Frobenius error over norm. variance, seam, texture: ratios to the truth's.

    Args:
        case: with its exact samples.
        samples: (count, hidden).
    """
    mean, covariance = case.posterior.moments()
    spread = np.trace(covariance)
    found = np.cov(samples.T)
    pictures = case.filled(samples)
    weights = case.posterior.responsibilities(samples).mean(axis=0)
    return {
        "energy": energy(samples, case.truths),
        "modes": 0.5 * float(abs(weights - case.posterior.weights).sum()),
        "mean": math.sqrt(((samples.mean(axis=0) - mean) ** 2).sum() / spread),
        "covariance": float(np.linalg.norm(found - covariance) / np.linalg.norm(covariance)),
        "variance": float(np.trace(found) / spread),
        "seam": seam(pictures, case.keep) / case.true_seam,
        "texture": texture(pictures, case.keep) / case.true_texture,
    }


def energy(samples: np.ndarray, truths: np.ndarray) -> float:
    """Root of the energy distance (Szekely & Rizzo 2013) over the truths' mean distance, signed."""
    within = _mean_distance(truths, truths, distinct=True)
    among = _mean_distance(samples, samples, distinct=True)
    share = (2.0 * _mean_distance(samples, truths) - among - within) / within
    return math.copysign(math.sqrt(abs(share)), share)


def seam(pictures: np.ndarray, keep: np.ndarray) -> float:
    """RMS difference between neighbours of which one is kept; (count, side, side), (n,)."""
    kept = keep.reshape(pictures.shape[1:])
    across = [np.diff(pictures, axis=axis + 1)[:, np.diff(kept, axis=axis)] for axis in (0, 1)]
    return float(np.sqrt((np.concatenate(across, axis=1) ** 2).mean()))


def texture(pictures: np.ndarray, keep: np.ndarray) -> float:
    """RMS on hidden pixels of what a blur by one pixel takes away."""
    fine = pictures - gaussian_filter(pictures, (0, 1, 1))
    return float(np.sqrt((fine[:, ~keep.reshape(pictures.shape[1:])] ** 2).mean()))


def summary(scores: list[dict[str, float]], evaluations: int) -> dict[str, Any]:
    """The mean over cases and its standard error for each measure; the energy of each case."""
    row: dict[str, Any] = {"evaluations": evaluations}
    for measure in MEASURES:
        row[measure] = mean_and_error([s[measure] for s in scores])
    row["energy_of_cases"] = [round(s["energy"], 4) for s in scores]
    return row


def mean_and_error(values: Sequence[float]) -> list[float]:
    """The mean and its standard error."""
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return [round(float(np.mean(values)), 4), round(float(error), 4)]


def against(reference: Mapping[str, Any], row: Mapping[str, Any]) -> list[float]:
    """Energy less the reference's, case by case: the mean and its standard error."""
    pairs = zip(row["energy_of_cases"], reference["energy_of_cases"], strict=True)
    return mean_and_error([own - other for own, other in pairs])


def settings(sampler: Paint) -> dict[str, Any]:
    """What a row of `SAMPLERS` was made with."""
    if isinstance(sampler, Sampler):
        return sampler.config.model_dump()
    return cast(Any, sampler).keywords


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, with standard errors of the energy distance only."""
    heads = ["sampler", "evaluations", *MEASURES, "energy less the reference's"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for name, row in rows.items():
        cells = [f"{row[m][0]:.2f}" for m in MEASURES]
        cells[0] = "{:.3f} ± {:.3f}".format(*row["energy"])
        compared = row.get("energy_less_reference")
        cells.append("{:+.3f} ± {:.3f}".format(*compared) if compared else "")
        lines.append("| " + " | ".join([name, f"{row['evaluations']:,}", *cells]) + " |")
    return "\n".join(lines)


def _mean_distance(a: np.ndarray, b: np.ndarray, distinct: bool = False) -> float:
    """Mean distance between rows; `distinct`: a and b are the same, without a row to itself."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    if distinct:
        np.fill_diagonal(square, 0.0)
    total = float(np.sqrt(square.clip(0.0)).sum())
    return total / (len(a) * (len(a) - 1 if distinct else len(b)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samplers", help="names, separated by ';', or all", default="all")
    parser.add_argument("--observations", type=int, default=4)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seed", type=int, default=100, help="of the first observation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "posterior.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    names = list(SAMPLERS) if args.samplers == "all" else args.samplers.split(";")
    if unknown := [name for name in names if name not in SAMPLERS]:
        sys.exit(f"--samplers: expected some of {'; '.join(SAMPLERS)}; got {unknown[0]!r}")
    torch.set_num_threads(args.threads)
    prior = make_prior()
    denoiser = exact_denoiser(prior)
    cases = make_cases(prior, range(args.seed, args.seed + args.observations))
    rng = np.random.default_rng(args.seed)
    exact = [score(case, case.posterior.sample(rng, args.samples)) for case in cases]
    rows = {"exact samples": summary(exact, 0)}
    for name in names:
        samples, evaluations = paint(SAMPLERS[name], denoiser, cases, args.samples)
        scores = [score(*of) for of in zip(cases, samples, strict=True)]
        rows[name] = {**summary(scores, evaluations), "settings": settings(SAMPLERS[name])}
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    if REFERENCE in rows:
        for name in set(rows) - {REFERENCE}:
            rows[name]["energy_less_reference"] = against(rows[REFERENCE], rows[name])
    print(table(rows))
    drawn = prior.sample(np.random.default_rng(0), 4000)
    result = {
        "command": "python benchmarks/posterior.py",
        "observations": [args.seed, args.seed + args.observations - 1],
        "masks": list(masks()),
        "samples": args.samples,
        "prior_pixels_outside_range": round(float((abs(drawn) > 1.0).mean()), 5),
        "columns": "mean over observations and masks, standard error",
        "samplers": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
