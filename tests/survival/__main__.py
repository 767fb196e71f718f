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
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork would lose its threads

import torch

from benchmarks.record import machine
from tests.survival import calls, disk, flips, kills, mutations, power
from tests.survival.record import Record
from tests.survival.scenes import SCENES, Workshop

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PARTS: dict[str, Callable[[Workshop, Record, list[str], float, int], None]] = {
    "kills": kills.run,
    "strace": kills.counted_twice,
    "random": kills.run_at_random,
    "disk": disk.run,
    "power": power.run,
}
INPUTS: dict[str, Callable[[Path, float, int], dict[str, Any]]] = {
    "mutations": lambda record, left, every: mutations.run(record, left, count=10_000 // every),
    "flips": lambda record, left, every: flips.run(record, left, part=every, repairs=300 // every),
}
"""Parts that need no scenes, each with a record of its own."""
EXCERPT = {
    "kills": {
        "expand-zarr": 195, "export-folder-overwrite": 34, "train-overwrite": 84,
        "repair-h5": 290, "phantom": 20, "import-overwrite": 17, "plan": 1,
    },
    "strace": {"plan": 1},
    "random": {"expand-h5": 250, "sample-zarr": 334, "export-nnunet": 334},
    "disk": {"expand-h5": 600, "export-folder": 70, "plan": 10},
    "power": {"expand-zarr": 300, "export-folder-overwrite": 60, "import": 13},
}  # fmt: skip
"""{part: {scene: only every so many-th try}}: what a minute or two allows."""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--part", action="append", choices=(*PARTS, *INPUTS), help="default: all")
    parser.add_argument("--scene", action="append", choices=SCENES, help="only these commands")
    parser.add_argument("--hours", type=float, default=24.0, help="stop after so long")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th try")
    parser.add_argument("--excerpt", action="store_true", help="what the usual tests try")
    parser.add_argument("--record", type=Path, default=RESULTS / "survival.part.jsonl")
    parser.add_argument("--out", type=Path, help="for the counts; default: none of an excerpt")
    asked = parser.parse_args()
    until = time.monotonic() + 3600 * asked.hours
    parts = asked.part or [*(EXCERPT if asked.excerpt else (*PARTS, *INPUTS))]
    whole = not (asked.part or asked.scene or asked.excerpt or asked.every > 1)
    found: dict[str, Any] = {"command": "python -m tests.survival", "machine": machine()}
    record = Record(asked.record)
    if reason := calls.unsupported():
        print(f"left out: {reason}")
        found["left out"] = reason
    else:
        torch.set_num_threads(1)
        _play(record, parts, asked, until)
    found["parts"] = record.counts()
    found["faults"] = [entry for entry in record.entries if entry["fault"]]
    for name in INPUTS:
        if name in parts:
            lines = asked.record.with_suffix(f".{name}.jsonl")
            found[name] = INPUTS[name](lines, until - time.monotonic(), asked.every)
            found["faults"] += found[name]["failed"]
    found["finished"] = time.monotonic() < until
    if asked.out or whole:
        (asked.out or RESULTS / "survival.json").write_text(json.dumps(found, indent=1) + "\n")
    short = {
        name: {key: part[key] for key in ("tried", "faults")}
        for name, part in found["parts"].items()
    }
    print(json.dumps({**short, **{name: found[name] for name in INPUTS if name in found}}))
    return int(bool(found["faults"]))


def table(found: dict[str, Any]) -> str:
    """What was tried, how often, and what was lost, as Markdown: one row a part."""
    rows = [(name, part["tried"], part["faults"]) for name, part in found["parts"].items()]
    if mutations := found.get("mutations"):
        rows.append(("mutations", mutations["cases"], len(mutations["failed"])))
    for store, swept in found.get("flips", {}).get("stores", {}).items():
        lost = sum(name.startswith(f"{store}:") for name in found["flips"]["failed"])
        rows.append((f"flips, {store}", sum(swept["bytes"].values()), lost))
    lines = ["| part | tried | lost |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {name} | {tried:,} | {lost} |" for name, tried, lost in rows])


def _play(record: Record, parts: list[str], asked: argparse.Namespace, until: float) -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o755)  # some commands run as another user
        workshop = Workshop(Path(folder))
        for name in parts:
            if name not in PARTS:
                continue
            if asked.excerpt:
                for scene, every in EXCERPT[name].items():
                    PARTS[name](workshop, record, [scene], until, every)
            else:
                PARTS[name](workshop, record, asked.scene or list(SCENES), until, asked.every)


if __name__ == "__main__":
    sys.exit(main())
