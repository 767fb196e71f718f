"""Train an image prior on packed frames: `python -m echogen.training --frames F.npz --out DIR`.

A run can be stopped at any time and resumed; see `echogen.training.loop`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from echogen.errors import EchogenError
from echogen.training.config import load_preset


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m echogen.training", description=__doc__)
    add = parser.add_argument
    add("--frames", type=Path, required=True, help=".npz with frames (N, S, S) and case_ids (N,)")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--preset", default="small", help="name of a recipe, or a TOML file")
    add("--steps", type=int, help="length in steps")
    add("--hours", type=float, help="length in hours of training, resumed parts added up")
    add("--stop-after", type=float, metavar="SECONDS", help="save and stop, to be resumed")
    add("--resume", action="store_true", help="go on from the folder's state")
    add("--batch-size", type=int, help="instead of the recipe's")
    add("--seed", type=int, help="instead of the recipe's")
    add("--hold-out", type=int, default=40, help="cases set aside to measure on (default: 40)")
    add("--device", default="auto", help="cuda, cpu or auto")
    add("--precision", default="bf16", choices=("bf16", "fp32"))
    add("--compile", action="store_true", help="use torch.compile")
    add("--evaluations", type=int, default=20, help="times to measure and show (default: 20)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; prints a JSON summary and returns the exit code."""
    flags = build_parser().parse_args(arguments)
    from echogen.training.data import load_packed
    from echogen.training.loop import RunOptions, train

    try:
        config = load_preset(flags.preset)
        if flags.seed is not None:
            config = dataclasses.replace(config, seed=flags.seed)
        if flags.batch_size is not None:
            optimiser = dataclasses.replace(config.optimiser, batch_size=flags.batch_size)
            config = dataclasses.replace(config, optimiser=optimiser)
        options = RunOptions(
            steps=flags.steps,
            hours=flags.hours,
            stop_after=flags.stop_after,
            held_out=flags.hold_out,
            device=flags.device,
            precision=flags.precision,
            compiled=flags.compile,
            evaluations=flags.evaluations,
        )
        packed = load_packed(flags.frames, config.image_size)
        progress = train(config, packed, flags.out, options, resume=flags.resume)
    except EchogenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"out": str(flags.out), "done": options.done(progress), **vars(progress)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
