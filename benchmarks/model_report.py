"""Held-out loss, memorisation and traces of space-to-depth of checkpoints, as JSON.

    python benchmarks/model_report.py --frames FRAMES --training training.json \
        --out report.json NAME=FOLDER [NAME=FOLDER ...]

FRAMES is the `frames/` of a run of `echogen train`, or what its --pack wrote. FOLDER holds `unet/`
and `scheduler/`, for grey images of 256 x 256; training.json names the cases that were held out (a
checkpoint's echogen.json has them under "training"). The noise is fixed, so that figures of several
models may be compared; of a network that sees what is known they are those of whole images, and of
holes that moves leave. With --sheets DIR it also writes a picture of the samples of each model, and
how near they lie to training frames as a figure.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from measures.grid import grid_amplitude

from echogen.diffusion.checkpoint import CheckpointInfo, read_json
from echogen.diffusion.network import build_denoiser, load_network
from echogen.diffusion.schedule import read_scheduler
from echogen.training.fans import Fans
from echogen.training.frames import read_frames, split_of
from echogen.training.holes import fixed_keep
from echogen.training.loss import geometric_mean, loss_by_level
from echogen.training.memorisation import (
    distances_plot,
    memorisation_of,
    nearest_neighbours,
    summary,
)
from echogen.training.pictures import draw_samples, sheet, write_png
from echogen.training.recipe import HolesConfig
from echogen.types import to_model_range

SIDE = 256


def load(folder, name):
    """The raw network, its denoiser, and its schedule's configuration."""
    schedule = read_json(folder / "scheduler/scheduler_config.json")
    schedule = {key: value for key, value in schedule.items() if not key.startswith("_")}
    files = folder / "unet/config.json", folder / "unet/diffusion_pytorch_model.safetensors"
    network, taken_apart = (load_network(*files) for _ in range(2))
    config = read_json(files[0])
    patch = SIDE // config["sample_size"]
    kept = config["in_channels"] - patch**2
    conditioning = ("known", "clean") if kept else ("none", None)
    words = dict.fromkeys(("training_data", "licence", "citation"), "")
    info = CheckpointInfo(
        name=name, image_size=SIDE, resize="stretch", patch=patch, channels=1, labels={},
        conditioning=conditioning[0], keep_channels=kept, known_pixels=conditioning[1], **words,
    )  # fmt: skip
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return network, build_denoiser(taken_apart, schedule, info, "cpu", "bf16"), schedule


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    flags = parser.parse_args()
    frames = read_frames(flags.frames)
    record = json.loads(flags.training.read_text())
    held_out_cases = record.get("training", record)["held_out_cases"]
    split = split_of(frames, held_out_cases)
    aside, trained = split.held_out, split.trained
    some_known = trained[:: len(trained) // len(aside)]
    held_out = frames.pixels[aside]
    figures = {
        "held_out_cases": len(held_out_cases),
        "held_out_frames": len(aside),
        "training_frames": len(trained),
        "grid_amplitude_period_4": {
            "held_out_frames": round(grid_amplitude(held_out[: flags.samples], 4), 4)
        },
        "background_level": {"held_out_frames": float((held_out[:, :20, :20]).mean())},
        "models": {},
    }
    for entry in flags.models:
        name, folder = entry.split("=", 1)
        network, denoiser, schedule = load(Path(folder), name)
        abar = torch.from_numpy(read_scheduler(schedule).schedule.alphas_cumprod).float()

        def predict(x_t, t, network=network):
            return network(x_t.contiguous(memory_format=torch.channels_last), t).sample

        began = time.monotonic()
        images = draw_samples(denoiser, flags.samples, steps=flags.steps, seed=0)
        memorisation = memorisation_of(images, frames.pixels, trained, aside)
        if flags.sheets:
            write_png(flags.sheets / f"{name}.png", sheet(images))
            (flags.sheets / f"{name}_nearest.png").write_bytes(distances_plot(memorisation))
        holes = HolesConfig() if denoiser.conditioning == "known" else None
        with torch.autocast("cpu", torch.bfloat16):
            losses = {}
            for which, rows in (("held_out", aside), ("training", some_known)):
                images_of = torch.from_numpy(to_model_range(frames.pixels[rows]))[:, None]
                shown = {"": None}
                if holes is not None:  # whole images, as of an unconditional network, and holes
                    keep = fixed_keep(Fans(torch.from_numpy(frames.fans[rows]), SIDE), holes)
                    shown = {"": torch.zeros_like(keep), "_in_holes": keep}
                for what, keep in shown.items():
                    losses[which + what] = loss_by_level(
                        predict, images_of, abar, schedule["prediction_type"], denoiser.patch,
                        batch_size=16, keep=keep,
                    )  # fmt: skip
        themselves = torch.arange(len(images)).numpy()
        among = nearest_neighbours(images, images, leave_out=themselves)
        figures["models"][name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "loss_by_step": losses,
            "geometric_mean": {which: geometric_mean(loss) for which, loss in losses.items()},
            "samples": flags.samples,
            "sampler": "dpm",
            "sample_steps": flags.steps,
            "nearest_training_frames": memorisation.as_dict(),
            "neighbours_among_samples": summary(among),
            "grid_amplitude_period_4": round(grid_amplitude(images, 4), 4),
            "background_level": float(images[:, :20, :20].mean()),
            "seconds": round(time.monotonic() - began),
        }
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
