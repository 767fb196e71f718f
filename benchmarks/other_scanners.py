"""Painting beside frames of other scanners, their grey levels as they are and matched.

    python benchmarks/other_scanners.py --set NAME=DIR [NAME=DIR ...] [--preset balanced]

Of each frame of a folder (any dataset; labels are not needed), the part that a drawn move would
leave empty is hidden and painted several times: with the grey levels that the file has, and on the
curve of `echogen.diffusion.levels` to those that the built-in model knows. Each measure of
`realism.py` becomes one figure. Writes results/other_scanners.json; pictures only with --pictures
DIR, since they show patients.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from figures import MEASURES, measure
from hidden import Hidden, hidden_frames, paint
from painters import described, preset
from PIL import Image

HERE = Path(__file__).parent
WAYS = ("as they are", "matched")


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To three places."""
    return {name: round(figure, 3) for name, figure in figures.items()}


def picture(frames: Hidden, painted: dict[str, np.ndarray]) -> Image.Image:
    """Truth, what is known, and a first painting of each way, a row a frame."""
    rows = [
        [truth, np.where(keep, truth, 90), *(images[0, i] for images in painted.values())]
        for i, (truth, keep) in enumerate(zip(frames.truths, frames.keep, strict=True))
    ]
    return Image.fromarray(np.block(rows).astype(np.uint8))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--frames", type=int, default=12, help="of each set")
    parser.add_argument("--samples", type=int, default=2, help="of a frame, at least 2")
    parser.add_argument("--preset", choices=("fast", "balanced", "high"), default="balanced")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="keeps paintings; private")
    parser.add_argument("--pictures", type=Path, help="folder; private")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "other_scanners.json")
    return parser.parse_args()


def main() -> None:
    flags = arguments()
    painter = preset(flags.preset, "builtin")
    result: dict[str, Any] = {
        "command": "python " + shlex.join(sys.argv),
        "preset": flags.preset,
        **described(painter),
        "samples": flags.samples,
        "sets": {},
    }
    for name, _, folder in (of.partition("=") for of in flags.set):
        frames = hidden_frames(Path(folder), flags.frames, flags.seed, labelled=False)
        plain = [dataclasses.replace(canvas, real=None) for canvas in frames.canvases]
        painted = {}
        for way, canvases in zip(WAYS, (plain, frames.canvases), strict=True):
            shown = dataclasses.replace(frames, canvases=canvases)
            cache = None if flags.cache is None else flags.cache / way.split()[0]
            images = paint(shown, painter, 0, flags.samples, cache)
            painted[way] = np.where(frames.keep, frames.truths, images)
        result["sets"][name] = {
            "frames": len(frames.canvases),
            "hidden_share_of_fan": round(float((~frames.keep).sum() / frames.inside.sum()), 3),
            **{way: rounded(measure(frames, images).figures()) for way, images in painted.items()},
        }
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
        if flags.pictures is not None:
            flags.pictures.mkdir(parents=True, exist_ok=True)
            picture(frames, painted).save(flags.pictures / f"{name}.png")
    print("| set | measure | " + " | ".join(WAYS) + " |\n| --- | --- | --- | --- |")
    for name, of in result["sets"].items():
        for which, (title, unit, *_) in MEASURES.items():
            cells = " | ".join(f"{of[way][which]:.3g}" for way in WAYS)
            print(f"| {name} | {title}, {unit} | {cells} |")
    print(f"wrote {flags.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
