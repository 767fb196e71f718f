"""RePaint schedules of several lengths on frames whose truth is known.

    python benchmarks/repaint_schedules.py --data CAMUS

Of each frame, the part that a drawn move would leave empty is hidden and painted again. For each
schedule, over the hidden pixels: root mean square error of the image smoothed by 3 pixels, in grey
levels, within 10 pixels of the edge and deeper; and grain, the painted over the true standard
deviation of what a 2-pixel blur removes (1 is right). The network is the
unconditional one of `checkpoints/`; with a CAMUS folder, the frames are those of patients that it
has not seen.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from hidden import UNCONDITIONAL, Painter, hidden_frames, paint
from scipy import ndimage

from echogen.config import RepaintConfig
from echogen.diffusion.checkpoint import read_info
from echogen.diffusion.schedule import sampler_nfe

HERE = Path(__file__).parent
SCHEDULES = ((10, 1, 1), (20, 5, 3), (25, 5, 3), (50, 10, 2), (100, 10, 1), (25, 5, 5))


def score(painted: np.ndarray, truth: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    difference = ndimage.gaussian_filter(painted - truth, 3)
    away = ndimage.distance_transform_edt(~keep)
    near, deep = (away > 0) & (away <= 10), away > 10
    grain = [(image - ndimage.gaussian_filter(image, 2))[~keep].std() for image in (painted, truth)]
    return {
        "near": float(np.sqrt((difference[near] ** 2).mean())),
        "deep": float(np.sqrt((difference[deep] ** 2).mean())) if deep.any() else float("nan"),
        "grain": float(grain[0] / grain[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "sample_data" / "camus")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "repaint_schedules.json")
    arguments = parser.parse_args()
    frames = hidden_frames(arguments.data, arguments.frames, arguments.seed)
    rows = []
    for steps, jump_length, resamplings in SCHEDULES:
        config = RepaintConfig(steps=steps, jump_length=jump_length, resamplings=resamplings)
        images = paint(frames, Painter(UNCONDITIONAL, config), run=0, draws=1, cache=None)[0]
        scores = [
            score(image.astype(float), truth.astype(float), keep)
            for image, truth, keep in zip(images, frames.truths, frames.keep, strict=True)
        ]
        mean = {name: float(np.nanmean([s[name] for s in scores])) for name in scores[0]}
        spread = {
            f"{name}_se": float(np.nanstd([s[name] for s in scores]) / np.sqrt(len(scores)))
            for name in scores[0]
        }
        settings = config.model_dump(exclude={"name"})
        rows.append({**settings, "nfe": sampler_nfe(config), **mean, **spread})
        print(rows[-1], flush=True)
    result = {
        "command": "python benchmarks/repaint_schedules.py "
        f"--data CAMUS --frames {arguments.frames} --seed {arguments.seed}",
        "checkpoint": read_info(UNCONDITIONAL).name,
        "sha256": read_info(UNCONDITIONAL).sha256,
        "frames": len(frames.canvases),
        "of": frames.of,
        "schedules": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
