"""A program that trains in processes of its own: `python training_processes.py JSON`.

JSON: {"killed": [...], "kills": n, "seed": s, "two": [...], "place": {...}}, lists of arguments of
`python -m echogen`. What training on prepared frames must do without cannot be imported here, and
torch is imported once: each run is a forked child. The first command is started over and over and
killed by SIGKILL after a random time, n times, then left to finish. The second runs as two
processes that train together, in the environment `place`; a network still wrapped when their group
ends would now and then wait for the group's threads for ever, so it is an error. Prints the state's
step after each kill, and exit codes.
"""

import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

for name in ("SimpleITK", "zarr", "h5py", "scipy"):
    sys.modules[name] = None  # type: ignore[assignment]

# ruff: noqa: E402 (what follows must do without the modules above)
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel  # noqa: F401 (for speed, before the forks)
from torch.nn.parallel import DistributedDataParallel

from echogen.cli import main
from echogen.training import loop  # noqa: F401
from echogen.training.state import read_state


def start(arguments: list[str], log: Path, environment: dict[str, str]) -> int:
    child = os.fork()
    if not child:
        os.environ.update(environment)
        sys.argv = ["echogen", *arguments]
        code = 0
        with log.open("a") as sys.stdout:
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        os._exit(code)
    return child


def run_and_kill(arguments: list[str], kills: int, seed: int) -> tuple[list[int], int]:
    out = Path(arguments[arguments.index("--out") + 1])
    draw, hits = random.Random(seed), []
    while True:
        child = start(arguments, Path(f"{out}.log"), {})
        if len(hits) < kills:
            while not (out / "state.safetensors").exists() and running(child):
                time.sleep(0.005)
            time.sleep(draw.uniform(0.1, 0.6))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return hits, os.waitstatus_to_exitcode(status)
        saved = read_state(out)
        hits.append(saved.progress.step if saved else -1)


def running(child: int) -> bool:
    """Whether it has not ended; its exit code can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def run_two(arguments: list[str], place: dict[str, str]) -> list[int]:
    out = arguments[arguments.index("--out") + 1]
    children = [
        start(arguments, Path(f"{out}.{rank}.log"), {**place, "RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def end_training(accelerator: Accelerator) -> None:
    if any(type(thing) is DistributedDataParallel for thing in gc.get_objects()):
        raise AssertionError("the group ends before the network's wrapper")
    ended(accelerator)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ended = Accelerator.end_training
    Accelerator.end_training = end_training  # type: ignore[method-assign]
    asked = json.loads(sys.argv[1])
    hits, code = run_and_kill(asked["killed"], asked["kills"], asked["seed"])
    codes = run_two(asked["two"], asked["place"])
    print(json.dumps({"hits": hits, "code": code, "codes": codes}))
