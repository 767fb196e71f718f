"""How fast `echogen validate` checks a store, and in how much memory.

    python benchmarks/validate.py --work DIR [--before FILE]

Makes stores of 1,000 and 10,000 samples of 256 x 256 (each fifth an original, four copies of it;
fans, hearts and fresh speckle, so that they compress as real ones do) through the project's own
writer, and checks them with the command, with one worker and with two. Beside it, from the same
warm page cache: every file of the store read to its end, and every image, mask and `keep` decoded
through the reader with the SHA-256 of the samples. Memory is the most that the command's processes
held together (proportional set size, polled). `--before` takes the record of an earlier run in, so
that both lie side by side. DIR keeps the stores (about 600 MB).
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Record
from scipy import ndimage

from echogen import __version__
from echogen.config import TransformConfig
from echogen.geometry.sector import fan_mask
from echogen.planning.plan import sample_seed
from echogen.store import (
    Status,
    create_store,
    open_store,
    remove_store,
    sample_sha256,
    store_lock,
    units,
)

HERE = Path(__file__).parent
SIDE, COPIES, SHARD, FIELD = 256, 4, 32, 1024
COUNTS = (1000, 10000)
SECTOR = np.array([4.0, 127.5, -0.66, 0.66, 6.0, 246.0], np.float32)
LABELS = {0: "background", 1: "LV cavity", 2: "myocardium", 3: "left atrium"}
POLL_S = 0.1
REPEATS = 1

Pixels = dict[str, npt.NDArray[Any]]


def speckle() -> npt.NDArray[np.float32]:
    """(FIELD, FIELD) log-compressed speckle to cut samples from, mean 0."""
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(2, FIELD, FIELD))
    envelope = np.hypot(*(ndimage.gaussian_filter(part, (1.0, 2.5)) for part in waves))
    levels = 20 * np.log10(envelope / envelope.mean() + 1e-3)
    return np.asarray(levels, dtype=np.float32)


def heart(centre: float) -> npt.NDArray[np.uint8]:
    """A mask of the three classes, its middle at column `centre`."""
    rows, cols = np.ogrid[:SIDE, :SIDE]
    label = np.zeros((SIDE, SIDE), np.uint8)
    for value, row, height, width in ((2, 110, 64, 44), (1, 112, 50, 30), (3, 195, 28, 30)):
        label[((rows - row) / height) ** 2 + ((cols - centre) / width) ** 2 <= 1] = value
    return label


def draw(
    index: int,
    field: npt.NDArray[np.float32],
    fan: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Pixels:
    """One sample: a fifth of the fan is painted in copies, nothing in originals."""
    label = heart(127.5 + rng.uniform(-12, 12))
    row, col = rng.integers(0, FIELD - SIDE, 2)
    echo = np.where(label == 2, 135, np.where(label > 0, 35, 80)) + rng.normal(0, 6)
    image = np.where(
        fan, np.clip(echo + 3.2 * field[row : row + SIDE, col : col + SIDE], 1, 255), 0
    )
    keep = np.ones((SIDE, SIDE), np.bool_)
    if index % (COPIES + 1):
        edge = rng.integers(60, 100)
        keep = ~fan | (np.arange(SIDE)[None, :] > edge)
    return {"images": image.astype(np.uint8), "masks": label, "keep": keep}


def planned(count: int) -> dict[str, Any]:
    """The columns of `count` samples that are known before painting."""
    frame, copy = np.divmod(np.arange(count), COPIES + 1)
    frames = [f"patient{i // 4 + 1:05d}_{('2CH', '4CH')[i // 2 % 2]}_{('ED', 'ES')[i % 2]}"
              for i in frame]  # fmt: skip
    moved = copy > 0
    rng = np.random.default_rng(1)
    return {
        "sample_id": np.array([f"{f}_copy{c}" for f, c in zip(frames, copy, strict=True)]),
        "frame_id": np.array(frames),
        "case_id": np.array([name.split("_")[0] for name in frames]),
        "view": np.array([name.split("_")[1] for name in frames]),
        "phase": np.array([name.split("_")[2] for name in frames]),
        "split": np.array([""] * count),
        "copy": copy,
        "seed": np.array(
            [sample_seed(0, f, int(c)) for f, c in zip(frames, copy, strict=True)], np.uint64
        ),
        "tries": moved.astype(int),
        "spacing_mm": np.tile([0.55, 0.6], (count, 1)),
        "aspect": np.ones(count),
        "depth": np.where(moved, rng.uniform(1, 1.5, count), 1.0),
        "tilt_deg": np.where(moved, rng.uniform(-30, 30, count), 0.0),
        "width": np.where(moved, rng.uniform(0.5, 1.5, count), 1.0),
        "shift_x": np.zeros(count),
        "shift_y": np.zeros(count),
        "sector": np.tile(SECTOR, (count, 1)),
        "cut": np.zeros(count, int),
        "cut_ids": np.full(count, ""),
        "crop": np.tile([0, 0, SIDE, SIDE], (count, 1)),
        "seen": np.tile([0, 0, SIDE, SIDE], (count, 1)),
    }


def make(path: Path, count: int) -> None:
    """A store of `count` samples at `path`; nothing where a complete one lies there."""
    if path.exists() and open_store(path).complete:
        return
    remove_store(path)
    columns = planned(count)
    attrs = {
        "version": __version__,
        "created": "2000-01-01T00:00:00+00:00",
        "plan_digest": "0" * 64,
        "seed": 0,
        "checkpoint": {"name": "none", "licence": "none"},
        "sampler": {"name": "none"},
        "labels": LABELS,
        "config": {"copies": COPIES, "transforms": TransformConfig().model_dump(mode="json")},
    }
    field, fan = speckle(), fan_mask(SECTOR, 1.0, (SIDE, SIDE))
    rng = np.random.default_rng(2)
    with store_lock(path):
        writer = create_store(
            path,
            attrs=attrs,
            columns=columns,
            cases=[{"id": name} for name in dict.fromkeys(columns["case_id"].tolist())],
            problems=[],
            image_shape=(SIDE, SIDE),
            shard_size=SHARD,
        )
        for shard in writer.pending_shards():
            samples = [draw(row, field, fan, rng) for row in writer.shard_rows(shard)]
            pixels = {name: np.stack([one[name] for one in samples]) for name in samples[0]}
            labelled = pixels["masks"] > 0
            on_paint = (labelled & ~pixels["keep"]).sum((1, 2)) / labelled.sum((1, 2))
            facts = {
                "status": [int(Status.DONE)] * len(samples),
                "label_on_paint": on_paint,
                "sha256": [sample_sha256(one["images"], one["masks"]) for one in samples],
            }
            writer.write_shard(shard, pixels, facts)
        writer.set_complete()


def stored_mb(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def read_files(path: Path) -> float:
    began = time.monotonic()
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                while opened.read(1 << 20):
                    pass
    return time.monotonic() - began


def read_and_hash(path: Path) -> float:
    began = time.monotonic()
    with open_store(path) as store:
        wanted = store.columns["sha256"]
        for start, stop in units(store):
            images, masks, keep = (store.pixels(name)[start:stop] for name in store.layout.pixels)
            assert keep.any()
            for i in range(stop - start):
                assert sample_sha256(images[i], masks[i]) == wanted[start + i]
    return time.monotonic() - began


def held_mb(root: int) -> float:
    """Proportional set size of a process and all that descend from it."""
    total, waiting = 0, [root]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for thread in (process / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (OSError, StopIteration):
            continue  # it has ended meanwhile
    return total * 1024 / 1e6


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def validate(path: Path, workers: int) -> tuple[float, float, float, dict[str, Any]]:
    """Seconds, processor seconds, most megabytes held at once, and the report."""
    command = [sys.executable, "-m", "echogen", "validate", str(path), "--json", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, began = processor_seconds(), time.monotonic()
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    most = 0.0
    while process.poll() is None:
        most = max(most, held_mb(process.pid))
        time.sleep(POLL_S)
    seconds = time.monotonic() - began
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    if any(one["severity"] == "error" for one in report["findings"]) or process.returncode:
        raise AssertionError(f"the store is not sound: {report['findings'][:3]}")
    return seconds, processor_seconds() - before, most, report


def rates(path: Path, count: int, seconds: float) -> dict[str, float]:
    return {
        "seconds": round(seconds, 2),
        "samples_per_s": round(count / seconds, 1),
        "stored_mb_per_s": round(stored_mb(path) / seconds, 1),
    }


def measured(path: Path, count: int, workers: int) -> dict[str, Any]:
    best = min((validate(path, workers) for _ in range(REPEATS)), key=lambda one: one[0])
    seconds, busy, most, report = best
    return {
        **rates(path, count, seconds),
        "processor_s": round(busy, 2),
        "peak_mb": round(most),
        "decoded_mb_per_s": round(report["megabytes"] / seconds, 1),
        "findings": len(report["findings"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="an earlier record of this script")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "validate.json")
    flags = parser.parse_args()
    flags.work.mkdir(parents=True, exist_ok=True)
    command = "python benchmarks/validate.py --work DIR" + (
        " --before FILE" if flags.before is not None else ""
    )
    settings = {"samples": list(COUNTS), "side": SIDE, "copies": COPIES, "shard": SHARD,
                "cache": "warm", "best_of": REPEATS}  # fmt: skip
    record = Record(flags.out, command, settings)
    summary: dict[str, Any] = {}
    for count in COUNTS:
        path = flags.work / f"{count}.zarr"
        make(path, count)
        read_files(path)  # warms the cache
        files, hashes = (
            record.stage(
                f"{name}_{count}",
                lambda run=run, path=path, count=count: rates(
                    path, count, min(run(path) for _ in range(REPEATS))
                ),
            )
            for name, run in (("files", read_files), ("hashes", read_and_hash))
        )
        summary[str(count)] = {
            "stored_mb": round(stored_mb(path), 1),
            "decoded_mb": round(count * 3 * SIDE * SIDE / 1e6, 1),
            "files_read": files,
            "decoded_and_hashed": hashes,
        }
        for workers in (1, 2):
            summary[str(count)][f"validate_{workers}"] = record.stage(
                f"validate_{count}_{workers}",
                lambda path=path, count=count, workers=workers: measured(path, count, workers),
            )
    if flags.before is not None:
        summary["before"] = json.loads(flags.before.read_text())["summary"]
    record.finish(summary)


if __name__ == "__main__":
    print(shlex.join(sys.argv))
    main()
