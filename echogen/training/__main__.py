"""Train an image prior on prepared frames: `python -m echogen.training --frames F --out DIR`.

For a machine that has a GPU but no dataset: it needs torch, diffusers, accelerate and PIL only.
`accelerate launch -m echogen.training ...` trains on several GPUs. The same command goes on with a
run that was stopped or killed. `echogen train` prepares the frames, too.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from echogen.errors import EXIT_SIGINT, EXIT_SIGTERM, EchogenError
from echogen.support.signals import Interrupted, Stop, catch_signals
from echogen.training.options import PRECISIONS, RunOptions
from echogen.training.recipe import load_preset, with_values

if TYPE_CHECKING:
    from echogen.training.checkpoint import ModelFacts


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    defaults = RunOptions()
    parser = argparse.ArgumentParser(
        prog="python -m echogen.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--frames", type=Path, required=True, help="prepared frames: a folder (OUT/frames), or "
        ".npz with frames (N, S, S) and case_ids (N,)")  # fmt: skip
    add("--out", type=Path, required=True, help="folder of the run")
    add("--preset", default="small", help="name of a recipe, or a TOML file (default: small)")
    add("--steps", type=int, help="length in steps")
    add("--hours", type=float, help="length in hours of training, resumed parts added up")
    add("--stop-after", type=float, metavar="SECONDS", help="save and stop, to be resumed")
    add("--resume", action="store_true", help="refuse to start anew: there must be a state")
    add("--overwrite", action="store_true", help="start anew, whatever is there")
    add("--report", action="store_true", help="train nothing: compare a finished run's samples "
        "with its training frames, and write its card again")  # fmt: skip
    add("--batch-size", type=int, help="instead of the recipe's")
    add("--micro-batch", type=int, help="images at once on a device; changes no data or noise")
    add("--seed", type=int, help="instead of the recipe's")
    add("--hold-out", type=int, help="cases to set aside (default: a tenth, at most 40)")
    add("--device", default=defaults.device, help="auto, cpu, cuda or cuda:1")
    add("--precision", default=defaults.precision, choices=PRECISIONS)
    add("--compile", action="store_true", help="use torch.compile")
    add("--evaluations", type=int, default=defaults.evaluations, help="times to measure, show and "
        "export (default: %(default)s)")  # fmt: skip
    add("--save-every", type=float, default=defaults.save_every, metavar="SECONDS",
        help="between saves of the state (default: %(default)s)")  # fmt: skip
    add("--log-every", type=int, default=defaults.log_every, metavar="STEPS",
        help="between lines of the log (default: %(default)s)")  # fmt: skip
    add("--samples", type=int, default=defaults.samples, help="generated images in a picture "
        "(default: %(default)s)")  # fmt: skip
    add("--sample-steps", type=int, default=defaults.sample_steps, help="network evaluations for "
        "each of them (default: %(default)s)")  # fmt: skip
    add("--inpainted", type=int, default=defaults.inpainted, help="held-out frames in a picture of "
        "inpainting (default: %(default)s)")  # fmt: skip
    add("--compared", type=int, default=defaults.compared, help="samples compared with training "
        "frames at the end (default: %(default)s)")  # fmt: skip
    add("--tensorboard", action="store_true", help="scalars and pictures for TensorBoard, too")
    add("--name", help="of the model, for its card (default: the folder's)")
    add("--data", help="what it is trained on, in words, for the card")
    add("--licence", help="terms of the weights, for the card")
    add("--citation", help="what users must cite, for the card")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; prints a JSON summary and returns the exit code."""
    flags = build_parser().parse_args(arguments)
    try:
        with catch_signals(_tell_stopping) as stop:
            return _run(flags, _command(flags), stop)
    except EchogenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interrupted:
        return _interrupted(interrupted.signum)


def _command(flags: argparse.Namespace) -> str:
    """The command for the card; of a path only its name, for a card is passed on."""
    parser, words = build_parser(), ["python", "-m", "echogen.training"]
    for name, value in vars(flags).items():
        if value == parser.get_default(name) or name in ("resume", "overwrite", "report"):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            path = name in ("frames", "out", "preset")
            words.append(Path(value).resolve().name if path else str(value))
    return shlex.join(words)


def _run(flags: argparse.Namespace, command: str, stop: Stop) -> int:
    from echogen.support.lock import store_lock
    from echogen.training.checkpoint import recover
    from echogen.training.data import load_packed, open_frames
    from echogen.training.evaluation import measure
    from echogen.training.loop import train
    from echogen.training.tell import Console

    values = {"optimiser.batch_size": flags.batch_size, "seed": flags.seed}
    given = {key: value for key, value in values.items() if value is not None}
    config = with_values(load_preset(flags.preset), given, "--batch-size, --seed")
    options = RunOptions(
        steps=flags.steps,
        hours=flags.hours,
        stop_after=flags.stop_after,
        held_out=flags.hold_out,
        device=flags.device,
        precision=flags.precision,
        compiled=flags.compile,
        micro_batch=flags.micro_batch,
        evaluations=flags.evaluations,
        save_every=flags.save_every,
        log_every=flags.log_every,
        samples=flags.samples,
        sample_steps=flags.sample_steps,
        inpainted=flags.inpainted,
        compared=flags.compared,
        tensorboard=flags.tensorboard,
    )
    folder = flags.frames.is_dir()
    packed = open_frames(flags.frames) if folder else load_packed(flags.frames, config.image_size)
    first = int(os.environ.get("RANK", "0")) == 0
    with store_lock(flags.out.resolve()) if first else nullcontext():
        if flags.report:
            recover(flags.out)
        facts = _facts(flags, command)
        if flags.report:
            found = measure(flags.out, packed, options, facts, Console())
            print(json.dumps(found.as_dict()))
            return 0
        progress = train(config, packed, flags.out, options, facts=facts, resume=flags.resume,
                         overwrite=flags.overwrite, reporter=Console(), stop=stop)  # fmt: skip
    done = options.done(progress)
    if first:
        print(json.dumps({"out": str(flags.out), "done": done, **asdict(progress)}))
    return _interrupted(stop.signum) if stop.signum and done < 1 else 0


def _facts(flags: argparse.Namespace, command: str) -> "ModelFacts":
    """As told; what is not told is kept where a finished run is only measured."""
    from echogen.diffusion.checkpoint import read_info
    from echogen.training.checkpoint import CHECKPOINT, ModelFacts

    told = ModelFacts(
        name=flags.name or flags.out.resolve().name,
        training_data=flags.data or ModelFacts.training_data,
        licence=flags.licence or ModelFacts.licence,
        citation=flags.citation or ModelFacts.citation,
        command=command,
    )
    if not flags.report:
        return told
    known = read_info(flags.out / CHECKPOINT)
    return replace(
        told,
        name=flags.name or known.name,
        training_data=flags.data or known.training_data,
        licence=flags.licence or known.licence,
        citation=flags.citation or known.citation,
    )


def _tell_stopping(_: str) -> None:
    print("stopping after this step; once more stops at once", file=sys.stderr, flush=True)


def _interrupted(signum: int) -> int:
    print("stopped; the same command goes on from the last state", file=sys.stderr)
    return EXIT_SIGTERM if signum == 15 else EXIT_SIGINT


if __name__ == "__main__":
    sys.exit(main())
