"""Samplers of whole images on the built-in model: evaluations against likeness to real frames.

    python benchmarks/unconditional.py --data CAMUS --cache DIR [--samplers sde-2m-40,...]

Each sampler draws the same number of images from the same seeds; they are measured within their
fitted fans against the frames of the patients that the model was not trained on: brightness,
texture by octave and by depth, correlation of speckle, spread, what lies outside of the fan, traces
of space-to-depth. Distances of two sets are energy distances (2 E|X - Y| - E|X - X'| - E|Y - Y'|,
pairs of one patient left out), with a bootstrap's standard error over images and patients; "null"
is that of two halves of the real patients. DIR keeps the frames, which show patients, and the
images. Writes results/unconditional.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measures as realism
import numpy as np
import torch
from hidden import UNCONDITIONAL
from measures.grid import grid_amplitude
from record import machine
from rivals import heun
from scipy import ndimage

from echogen.commands.expand import expand
from echogen.config import DpmConfig, ExpandConfig, LangevinConfig, RepaintConfig
from echogen.diffusion.checkpoint import read_info
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.geometry.aspect import fit_fan
from echogen.planning.plan import sample_seed
from echogen.store import open_store
from echogen.support.settings import load_config
from echogen.types import to_uint8

HERE = Path(__file__).parent
BANDS = 3
BATCH = 8
ROUNDS = 400
RIM = 4  # pixels around the fan that are neither in it nor background


def dpm(steps: int, **changes: Any) -> Callable[..., Any]:
    return Sampler(DpmConfig(steps=steps, **changes))


def ancestral(steps: int) -> Callable[..., Any]:
    return Sampler(RepaintConfig(steps=steps, jump_length=1, resamplings=1))


def langevin() -> Callable[..., Any]:
    return Sampler(LangevinConfig(guidance=0.0))


# name: (evaluations, sampler)
SAMPLERS: dict[str, tuple[int, Callable[[], Callable[..., Any]]]] = {
    "sde-2m-15": (15, partial(dpm, 15)),
    "sde-2m-25": (25, partial(dpm, 25)),
    "sde-2m-40": (40, partial(dpm, 40)),
    "sde-2m-80": (80, partial(dpm, 80)),
    "ode-2m-30": (30, partial(dpm, 30, eta=0.0)),
    "ancestral-60": (60, partial(ancestral, 60)),
    "langevin-79": (79, langevin),
    "churn-heun-59": (59, lambda: partial(heun, levels=30, churn=0.4)),
}


def real_frames(data: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S) frames of the patients that the network has not seen, and whose they are."""
    cases = read_info(UNCONDITIONAL).training["held_out_cases"]
    settings = {
        "input": str(data),
        "output": str(cache / "real.zarr"),
        "copies": 0,
        "dataset": {"cases": cases},
    }
    expand(load_config(ExpandConfig, settings))
    with open_store(cache / "real.zarr") as store:
        return store.images[:], store.columns["case_id"]


def drawn(name: str, count: int, file: Path) -> np.ndarray:
    """(count, S, S) images of a sampler, drawn or kept in a file."""
    if file.exists():
        return np.load(file)
    denoiser, sampler = load_checkpoint(UNCONDITIONAL, "cpu", "auto"), SAMPLERS[name][1]()
    side = denoiser.image_size
    images = []
    for start in range(0, count, BATCH):
        numbers = range(start + 1, min(start + BATCH, count) + 1)
        seeds = [sample_seed(0, f"generated_{number:06d}", 1) for number in numbers]
        empty = torch.full((len(seeds), 1, side, side), -1.0)
        kept = torch.zeros_like(empty, dtype=torch.bool)
        images.append(to_uint8(sampler(denoiser, empty, kept, SampleNoise(seeds))[:, 0].numpy()))
    made = np.concatenate(images)
    np.save(file, made)
    return made


def measured(images: np.ndarray, found_in: Path) -> dict[str, np.ndarray]:
    """One row an image of everything that is measured within its fan; nan where none is found."""
    if found_in.exists():
        return dict(np.load(found_in))
    rows: list[dict[str, Any]] = []
    for image in images:
        fan = fit_fan(image)
        if fan is None:
            rows.append({})
            continue
        sector, inside = fan.on_grid().astype(float), fan.mask(image.shape)
        bands = realism.depth_bands(image.shape, sector, fan.aspect, BANDS)
        outside = ~ndimage.binary_dilation(inside, iterations=RIM)
        speckle = realism.speckle_correlation(image, inside, sector, fan.aspect, BANDS)
        rows.append(
            {
                "brightness": image[inside].mean(),
                "contrast": image[inside].std(),
                "saturated": (image[inside] >= 250).mean(),
                "grain": realism.grain(image, inside),
                "spectrum": realism.log_spectrum(image, inside, bands).ravel(),
                "axial": speckle[0].ravel(),
                "lateral": speckle[1].ravel(),
                "outside": image[outside].mean(),
                "outside_max": image[outside].max(),
                "opening": np.rad2deg(sector[3] - sector[2]),
                "aspect": fan.aspect,
            }
        )
    first = next(row for row in rows if row)
    table = {
        name: np.array([row.get(name, np.full_like(first[name], np.nan, float)) for row in rows])
        for name in first
    }
    np.savez(found_in, **table)
    return table


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) root mean square differences of features."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0) / a.shape[1])


def energy(x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> tuple[float, float]:
    """Energy distance of two sets of features, and its standard error.

    Args:
        x, y: (n, k) and (m, k).
        of_x, of_y: whose they are; pairs of one owner are left out.
    """
    xy, xx, yy = distances(x, y), distances(x, x), distances(y, y)
    not_x, not_y = of_x[:, None] != of_x[None], of_y[:, None] != of_y[None]

    def value(i: np.ndarray, j: np.ndarray) -> float:
        ii, jj = np.ix_(i, i), np.ix_(j, j)
        return float(
            2 * xy[np.ix_(i, j)].mean()
            - (xx[ii] * not_x[ii]).sum() / not_x[ii].sum()
            - (yy[jj] * not_y[jj]).sum() / not_y[jj].sum()
        )

    rng = np.random.default_rng(0)
    rounds = [value(_redrawn(rng, of_x), _redrawn(rng, of_y)) for _ in range(ROUNDS)]
    return value(np.arange(len(x)), np.arange(len(y))), float(np.std(rounds))


def _redrawn(rng: np.random.Generator, owners: np.ndarray) -> np.ndarray:
    """Rows of owners drawn with replacement."""
    names, index = np.unique(owners, return_inverse=True)
    return np.concatenate(
        [np.flatnonzero(index == owner) for owner in rng.integers(0, len(names), len(names))]
    )


def thumbs(images: np.ndarray) -> np.ndarray:
    """(N, 4096) means over blocks: images at 64 x 64."""
    count, side, _ = images.shape
    block = side // 64
    return images.reshape(count, 64, block, 64, block).mean(axis=(2, 4)).reshape(count, -1)


def summary(images: np.ndarray, table: dict[str, np.ndarray], owners: np.ndarray) -> dict[str, Any]:
    found = np.isfinite(table["brightness"])
    small = thumbs(images)
    near = np.where(owners[:, None] == owners[None], np.inf, distances(small, small)).min(axis=1)
    return {
        "images": len(images),
        "fan_found": round(float(found.mean()), 3),
        **{
            name: [round(float(v), 3) for v in np.nanquantile(table[name], [0.05, 0.5, 0.95])]
            for name in ("brightness", "contrast", "grain", "opening", "aspect")
        },
        "saturated_mean": round(float(np.nanmean(table["saturated"])), 5),
        "outside_mean": round(float(np.nanmean(table["outside"])), 3),
        "outside_max": round(float(np.nanmedian(table["outside_max"])), 1),
        "grid_amplitude_period_4": round(grid_amplitude(images, 4), 4),
        "nearest_of_another_owner_rms": [round(float(v), 2) for v in np.quantile(near, [0, 0.5])],
    }


def compared(
    images: np.ndarray,
    table: dict[str, np.ndarray],
    owners: np.ndarray,
    real: np.ndarray,
    of_real: dict[str, np.ndarray],
    of_whom: np.ndarray,
) -> dict[str, Any]:
    """How far a set of images lies from the real ones, (value, standard error)."""
    found, known = np.isfinite(table["brightness"]), np.isfinite(of_real["brightness"])
    result: dict[str, Any] = {"structure": energy(thumbs(images), thumbs(real), owners, of_whom)}
    for name in ("brightness", "contrast", "spectrum", "axial", "lateral"):
        a, b = table[name][found], of_real[name][known]
        a, b = (v.reshape(len(v), -1) for v in (a, b))
        usable = np.isfinite(a).all(0) & np.isfinite(b).all(0)
        result[name] = energy(a[:, usable], b[:, usable], owners[found], of_whom[known])
    octaves = [
        t["spectrum"].reshape(-1, BANDS, len(realism.texture.OCTAVES)) for t in (table, of_real)
    ]
    bias = np.nanmean(octaves[0], axis=0) - np.nanmean(octaves[1], axis=0)
    return {
        "energy_distance": {k: [round(v, 4) for v in pair] for k, pair in result.items()},
        "spectrum_bias_db_by_depth_and_octave": bias.round(2).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--out", type=Path, default=HERE / "results/unconditional.json")
    flags = parser.parse_args()
    flags.cache.mkdir(parents=True, exist_ok=True)
    model = read_info(UNCONDITIONAL)
    real, cases = real_frames(flags.data, flags.cache)
    of_real = measured(real, flags.cache / "real.npz")
    some = np.linspace(0, len(real) - 1, flags.count).astype(int)
    report: dict[str, Any] = {
        "command": "python benchmarks/unconditional.py --data CAMUS --cache DIR",
        "machine": machine(),
        "checkpoint": model.name,
        "sha256": model.sha256,
        "settings": {"images": flags.count, "frames": len(real), "patients": len(set(cases))},
        "real": summary(real, of_real, cases),
        "samplers": {},
    }
    report["real"]["grid_amplitude_period_4"] = round(grid_amplitude(real[some], 4), 4)
    rng = np.random.default_rng(0)
    half = np.isin(cases, rng.permutation(np.unique(cases))[::2])
    rows = {side: {k: v[side_of] for k, v in of_real.items()}
            for side, side_of in (("a", half), ("b", ~half))}  # fmt: skip
    report["null"] = compared(
        real[half], rows["a"], cases[half], real[~half], rows["b"], cases[~half]
    )
    if flags.out.exists():
        before = json.loads(flags.out.read_text())
        if before.get("sha256") == model.sha256:
            report["samplers"] = before["samplers"]
    for name in flags.samplers.split(","):
        file = flags.cache / f"{model.sha256[:12]}-{name}-{flags.count}.npy"
        images = drawn(name, flags.count, file)
        table = measured(images, file.with_suffix(".npz"))
        entry = {
            "evaluations": SAMPLERS[name][0],
            **summary(images, table, np.arange(len(images))),
            **compared(images, table, np.arange(len(images)), real, of_real, cases),
        }
        report["samplers"][name] = entry
        print(name, json.dumps(entry), file=sys.stderr, flush=True)
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
