"""Held-out loss, memorisation and traces of space-to-depth of checkpoints, as JSON.

    python benchmarks/model_report.py --frames frames.npz --training training.json \
        --out report.json NAME=FOLDER [NAME=FOLDER ...]

FOLDER holds `unet/` and `scheduler/`; training.json names the cases that were held out. The noise
is fixed, so that figures of several models may be compared. With --sheets DIR it also writes a
picture of the samples of each model.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel

from echogen.training.data import load_packed
from echogen.training.loss import alphas_cumprod, geometric_mean, loss_by_level
from echogen.training.memorisation import grid_amplitude, nearest_neighbours
from echogen.training.samples import draw_samples, write_sheet


def summary(values):
    quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return dict(
        zip(("min", "p05", "median", "p95", "max"), map(float, quantiles.round(4)), strict=True)
    )


def neighbours(images, known, same=False):
    found = nearest_neighbours(images, known, same=same)
    return {"rms": summary(found.rms), "correlation": summary(found.correlation)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    flags = parser.parse_args()
    packed = load_packed(flags.frames, 256)
    held_out_cases = json.loads(flags.training.read_text())["held_out_cases"]
    held_out = packed.of_cases(held_out_cases)
    known = packed.of_cases(sorted(set(packed.case_ids) - set(held_out_cases)))
    some_known = known[:: len(known) // len(held_out)][: len(held_out)]
    report = {
        "held_out_cases": len(held_out_cases),
        "held_out_frames": len(held_out),
        "training_frames": len(known),
        "neighbours_among_training_frames": {
            "held_out_frames": neighbours(held_out, known),
            "training_frames_themselves_left_out": neighbours(known, known, same=True),
        },
        "grid_amplitude_period_4": {
            "held_out_frames": round(grid_amplitude(held_out[: flags.samples], 4), 4)
        },
        "background_level": {"held_out_frames": float((held_out[:, :20, :20]).mean())},
        "models": {},
    }
    for entry in flags.models:
        name, folder = entry.split("=", 1)
        network = UNet2DModel.from_pretrained(
            folder, subfolder="unet", low_cpu_mem_usage=False, torch_dtype=torch.float32
        ).to(memory_format=torch.channels_last)
        schedule = json.loads((Path(folder) / "scheduler/scheduler_config.json").read_text())
        schedule = {key: value for key, value in schedule.items() if not key.startswith("_")}
        abar, prediction = alphas_cumprod(schedule), schedule["prediction_type"]

        def predict(x_t, t, network=network):
            return network(x_t.contiguous(memory_format=torch.channels_last), t).sample

        began = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16):
            images = draw_samples(
                predict,
                abar,
                prediction,
                (flags.samples, 1, 256, 256),
                patch=4,
                steps=flags.steps,
                seed=0,
            )
            if flags.sheets:
                write_sheet(flags.sheets / f"{name}.png", images)
            losses = {
                which: loss_by_level(
                    predict,
                    torch.from_numpy(frames)[:, None].float() / 127.5 - 1,
                    abar,
                    prediction,
                    4,
                    batch_size=16,
                )
                for which, frames in (("held_out", held_out), ("training", some_known))
            }
        report["models"][name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "loss_by_step": losses,
            "geometric_mean": {which: geometric_mean(loss) for which, loss in losses.items()},
            "samples": flags.samples,
            "sample_steps": flags.steps,
            "neighbours_among_training_frames": neighbours(images, known),
            "neighbours_among_samples": neighbours(images, images, same=True),
            "grid_amplitude_period_4": round(grid_amplitude(images, 4), 4),
            "background_level": float(images[:, :20, :20].mean()),
            "seconds": round(time.monotonic() - began),
        }
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
