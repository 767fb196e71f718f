"""A program that makes runs and is killed: `python runs.py SETTINGS.json [--kill N SEED]`.

Without --kill it makes one run, prints `planned` when painting begins, and exits with the run's
code. With it, the run is started over and over in a forked child that is killed by SIGKILL after a
random time, N times in all; whenever a store is complete its hash is printed and the next begins.
Settings with `n` are those of `sample`, others those of `expand`.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import zarr  # noqa: F401 (imported before the fork, for speed, as what follows without a use)
from diffusers import UNet2DModel  # noqa: F401

from echogen.commands import expand as generate
from echogen.commands import sample
from echogen.config import ExpandConfig, RepaintConfig, SampleConfig
from echogen.diffusion.samplers import Sampler
from echogen.errors import EchogenError
from echogen.painting import local  # noqa: F401
from echogen.report import Quiet
from echogen.store import open_store
from echogen.support.settings import load_config
from echogen.support.signals import Interrupted


class Slow:
    """The sampler with a pause, so that a signal finds it at work."""

    nfe = 6

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.sampler = Sampler(RepaintConfig(steps=4, jump_length=2, resamplings=2))

    def __call__(self, *arguments: object) -> torch.Tensor:
        time.sleep(self.pause)
        return self.sampler(*arguments)  # type: ignore[arg-type]


class Tell(Quiet):
    def tell(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "painting":
            print("painting", done, flush=True)


def run(settings: dict[str, object]) -> int:
    from echogen.painting import local as engine

    try:
        if "n" in settings:
            return sample.sample(load_config(SampleConfig, settings), reporter=Tell()).exit_code
        pause = float(os.environ.get("PAUSE", "0"))
        engine.Sampler = lambda *_: Slow(pause)  # type: ignore[assignment,misc]
        return generate.expand(load_config(ExpandConfig, settings), reporter=Tell()).exit_code
    except EchogenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Interrupted as stopped:
        return 128 + stopped.signum


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with open_store(path) as store:
        for name in store.layout.pixels:
            found.update(store.pixels(name)[:].tobytes())
        for name in sorted(store.columns):
            found.update(repr(store.columns[name].tolist()).encode())
        found.update(repr((store.complete, store.problems)).encode())
    return found.hexdigest()


def remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink()


def kill_often(settings: dict[str, object], kills: int, seed: int) -> None:
    output = Path(str(settings["output"]))
    rng = random.Random(seed)
    undisturbed = time.monotonic()
    if os.fork() == 0:
        os._exit(run(settings))
    os.wait()
    undisturbed = time.monotonic() - undisturbed
    print("reference", digest(output), flush=True)
    remove(output)
    done = 0
    unfinished = False
    while done < kills or unfinished:
        child = os.fork()
        if child == 0:
            os._exit(run(settings))
        if done < kills:
            time.sleep(rng.uniform(0, undisturbed))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done += os.WIFSIGNALED(status)
        unfinished = os.WIFSIGNALED(status)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                sys.exit(f"a run ended with {os.WEXITSTATUS(status)}")
            print("resumed", digest(output), flush=True)
            remove(output)
    print("kills", done, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = json.loads(Path(sys.argv[1]).read_text())
    if "--kill" in sys.argv:
        kill_often(chosen, int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(run(chosen))
