"""Trained networks against a posterior that is known in closed form.

    python benchmarks/trained_posterior.py [--steps 2000]

`posterior.py` knows no error but the sampler's, because its denoiser is exact; so it cannot show
what a network gains by being trained to see what is known. Here two small networks of one shape
learn the prior of `gaussian_mixture.py` from as many fresh draws of it: one is shown the known
pixels clean and which they are, with the loss on the others, and paints by SDE-DPM-Solver++; the
other sees noisy pictures alone, and paints by RePaint and the Langevin presets. Beside them the
exact E[x_0 | x_t, known] goes through SDE-DPM-Solver++, which tells its error from the network's.
Writes results/trained_posterior.json; ten minutes of one idle core.
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import posterior
import torch
from gaussian_mixture import SIDE, Mixture, exact_known_denoiser, make_prior, the_schedule
from posterior import Case, Paint, against, make_cases, paint, score, settings, summary, table
from torch import Tensor, nn

from echogen.config import DpmConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.samplers import Sampler

HERE = Path(__file__).parent
WIDTH, BLOCKS, BATCH = 512, 3, 256
LEARNING_RATE, WARM_UP, HALF_LIFE = 1e-3, 100, 200
WHOLE = 0.1  # share of the images of which nothing is known
SEEING = {
    f"dpm {steps}": Sampler(DpmConfig(steps=steps, eta=eta))
    for steps, eta in ((10, 1.0), (25, 1.0), (40, 1.0))
}
BLIND = [posterior.REFERENCE, "langevin fast", "langevin balanced", "langevin high"]


class Residual(nn.Module):
    """A perceptron on all pixels at once, whose output is v."""

    def __init__(self, pixels: int, sees: bool) -> None:
        super().__init__()
        self.sees = sees
        self.into = nn.Linear(pixels * (2 if sees else 1) + 32, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)
            )
            for _ in range(BLOCKS)
        )
        self.out = nn.Linear(WIDTH, pixels)
        self.straight = nn.Linear(32, pixels)  # of x_t to v, past the blocks, by noise level
        nn.init.zeros_(self.out.weight)

    def forward(self, packed: Tensor, timesteps: Tensor) -> Tensor:
        """(B, 1 or 2, S, S), (B,) to (B, 1, S, S)."""
        rate = torch.exp(torch.linspace(0.0, -math.log(1000.0), 16))
        phase = timesteps[:, None] * rate
        level = torch.cat([phase.sin(), phase.cos()], dim=1)
        h = self.into(torch.cat([packed.flatten(1), level], dim=1))
        for block in self.blocks:
            h = h + block(h)
        v = self.out(h) + self.straight(level) * packed[:, 0].flatten(1)
        return v.reshape(len(packed), 1, *packed.shape[2:])


def drawn_keep(generator: torch.Generator, count: int, side: int) -> Tensor:
    """(count, 1, S, S) bool: half planes and squares of any place, and nothing known."""
    row, col = torch.meshgrid(*[torch.linspace(0, 1, side)] * 2, indexing="ij")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    angle, offset = uniform(0.0, 2.0 * math.pi), uniform(-0.3, 0.4)
    plane = (row - 0.5) * angle.cos() + (col - 0.5) * angle.sin() < offset
    centre, reach = (uniform(0.4, 0.6), uniform(0.4, 0.6)), uniform(0.2, 0.45)
    square = torch.maximum((row - centre[0]).abs(), (col - centre[1]).abs()) <= reach
    keep = torch.where(uniform(0.0, 1.0) < 0.6, plane, square)
    return keep & (uniform(0.0, 1.0) >= WHOLE)


def trained(prior: Mixture, sees: bool, steps: int, seed: int) -> Denoiser:
    """A network after so many steps, averaged over the last ones, as a denoiser.

    Args:
        prior: what it learns.
        sees: whether it is shown what is known.
        steps: of 256 fresh draws each.
        seed: of its weights and everything that is drawn.
    """
    schedule = the_schedule()
    abar = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32)
    side = math.isqrt(prior.means.shape[1])
    torch.manual_seed(seed)
    network = Residual(side**2, sees)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        share = min(1.0, (step + 1) / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * share
        x0 = torch.tensor(prior.sample(rng, BATCH), dtype=torch.float32).reshape(-1, 1, side, side)
        t = torch.randint(len(abar), (BATCH,), generator=generator)
        a = abar[t][:, None, None, None]
        noise = torch.randn(x0.shape, generator=generator)
        x, v = a.sqrt() * x0 + (1.0 - a).sqrt() * noise, a.sqrt() * noise - (1.0 - a).sqrt() * x0
        hidden = torch.ones_like(x)
        if sees:
            keep = drawn_keep(generator, BATCH, side)
            x, hidden = torch.cat([torch.where(keep, x0, x), keep.float()], 1), (~keep).float()
        snr = a / (1.0 - a)
        weight = (snr.clamp(max=5.0) / (snr + 1.0)).clamp(min=0.25) * hidden
        loss = (weight * (network(x, t.float()) - v) ** 2).sum() / hidden.sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = 0.5 ** (1.0 / min(HALF_LIFE, 1 + step / 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1.0 - decay)
        if step % 500 == 499:
            print(f"sees {sees}: step {step + 1}, loss {loss.item():.4f}", file=sys.stderr)
    return Denoiser(
        network=lambda x, t: average(x, t.float()),
        schedule=schedule,
        prediction_type="v_prediction",
        clip=None,
        conditioning="known" if sees else "none",
    )


def row(sampler: Paint, denoiser: Denoiser, cases: list[Case], count: int) -> dict[str, Any]:
    """A sampler's summary over all cases."""
    samples, evaluations = paint(sampler, denoiser, cases, count)
    scores = [score(*of) for of in zip(cases, samples, strict=True)]
    return {**summary(scores, evaluations), "settings": settings(sampler)}


def exact_row(sampler: Paint, cases: list[Case], count: int) -> dict[str, Any]:
    """The same with the exact denoiser of each case."""
    scores, evaluations = [], 0
    for case in cases:
        denoiser = exact_known_denoiser(case.posterior, case.keep)
        (samples,), evaluations = paint(sampler, denoiser, [case], count)
        scores.append(score(case, samples))
    return {**summary(scores, evaluations), "settings": settings(sampler)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of each training")
    parser.add_argument("--observations", type=int, default=4)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=100, help="of the first observation")
    parser.add_argument("--side", type=int, default=SIDE, help="of the pictures")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "trained_posterior.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior = make_prior(args.side)
    cases = make_cases(prior, range(args.seed, args.seed + args.observations))
    rng = np.random.default_rng(args.seed)
    exact = [score(case, case.posterior.sample(rng, args.samples)) for case in cases]
    rows = {"exact samples": summary(exact, 0)}
    for name, sampler in SEEING.items():
        rows[f"exact, shown what is known: {name}"] = exact_row(sampler, cases, args.samples)
    seeing = trained(prior, True, args.steps, 0)
    for name, sampler in SEEING.items():
        rows[f"trained, shown what is known: {name}"] = row(sampler, seeing, cases, args.samples)
    blind = trained(prior, False, args.steps, 0)
    for name in BLIND:
        found = row(posterior.SAMPLERS[name], blind, cases, args.samples)
        rows[f"trained, unconditional: {name}"] = found
    reference = f"trained, unconditional: {posterior.REFERENCE}"
    for name in set(rows) - {reference}:
        rows[name]["energy_less_reference"] = against(rows[reference], rows[name])
    print(table(rows))
    result = {
        "command": "python benchmarks/trained_posterior.py",
        "steps": args.steps,
        "images": args.steps * BATCH,
        "parameters": sum(p.numel() for p in Residual(args.side**2, True).parameters()),
        "observations": [args.seed, args.seed + args.observations - 1],
        "samples": args.samples,
        "columns": "mean over observations and masks, standard error",
        "samplers": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
