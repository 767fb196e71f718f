"""`python -m tests.survival`: sudden death and bad input, tried until nothing is left to try.

Every try is kept in a record; the same command goes on with what is missing, and the counts are
written beside the other results. Ends with 1 where anything was lost.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork would lose its threads

import torch

from benchmarks.record import machine
from tests.survival import calls, disk, kills, power
from tests.survival.record import Record
from tests.survival.scenes import SCENES, Workshop

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="one or more; default: all")
    parser.add_argument("--scene", action="append", choices=SCENES, help="only these commands")
    parser.add_argument("--hours", type=float, default=24.0, help="stop after so long")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th point")
    parser.add_argument("--record", type=Path, default=RESULTS / "survival.part.jsonl")
    parser.add_argument(
        "--out", type=Path, help="counts; default: survival.json, or none of a part"
    )
    asked = parser.parse_args()
    if reason := calls.unsupported():
        print(f"left out: {reason}")
        return 0
    torch.set_num_threads(1)
    record = Record(asked.record)
    until = time.monotonic() + 3600 * asked.hours
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o755)  # some commands run as another user
        workshop = Workshop(Path(folder))
        for name in asked.part or PARTS:
            PARTS[name](workshop, record, asked.scene or list(SCENES), until, asked.every)
    counts = record.counts()
    found = {
        "command": "python -m tests.survival",
        "machine": machine(),
        "finished": time.monotonic() < until,
        "parts": counts,
        "faults": [entry for entry in record.entries if entry["fault"]],
    }
    if asked.out or not (asked.part or asked.scene):
        (asked.out or RESULTS / "survival.json").write_text(json.dumps(found, indent=1) + "\n")
    print(
        json.dumps(
            {name: {k: part[k] for k in ("tried", "faults")} for name, part in counts.items()}
        )
    )
    return int(any(part["faults"] for part in counts.values()))


PARTS: dict[str, Callable[[Workshop, Record, list[str], float, int], None]] = {
    "kills": kills.run,
    "strace": kills.counted_twice,
    "random": kills.run_at_random,
    "disk": disk.run,
    "power": power.run,
}

if __name__ == "__main__":
    sys.exit(main())
