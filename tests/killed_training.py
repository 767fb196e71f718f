"""A program whose training is killed: `python killed_training.py SEED KILLS ARGUMENTS...`.

The command with these arguments is started over and over in a forked child (forked, so that torch
is imported once), which is killed by SIGKILL after a random time as long as kills are left; then it
is left to finish. Prints the step of the state after each kill that hit, and the last exit code.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel  # noqa: F401 (for speed, before the fork)

from echogen.training import loop  # noqa: F401
from echogen.training.__main__ import main
from echogen.training.state import read_state

torch.set_num_threads(1)
seed, kills, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
out = Path(arguments[arguments.index("--out") + 1])
draw = random.Random(seed)
hits = []
code = None
while code is None:
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr
        os._exit(main(arguments))
    if len(hits) < kills:
        while not (out / "state.safetensors").exists():
            time.sleep(0.005)
        time.sleep(draw.uniform(0.1, 0.8))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        saved = read_state(out)
        hits.append(saved.progress.step if saved else -1)
    else:
        code = os.waitstatus_to_exitcode(status)
print({"hits": hits, "code": code})
