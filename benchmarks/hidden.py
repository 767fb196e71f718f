"""Real frames with a part hidden, and that part painted: what the benchmarks on real data share.

Of each frame, the part that a drawn move would leave empty is hidden. With a CAMUS folder, the
frames are those of patients held out when the built-in model was trained, if it names them.
Painted images are kept in a cache folder of the caller's, one file for each sampler, run and
draw, so that a long series can be interrupted. The cache shows patients: keep it to yourself.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from echogen.config import load_config
from echogen.diffusion.checkpoint import read_info
from echogen.generate import open_engine
from echogen.report import Quiet
from echogen.source import open_source
from echogen.types import Job, to_uint8


@dataclasses.dataclass(frozen=True)
class Hidden:
    """Frames with a hidden part.

    Attributes:
        jobs: what a sampler gets.
        truths: (N, h, w) uint8, the whole frames.
        keep: (N, h, w) bool, False where hidden.
        of: whose frames these are, in words.
    """

    jobs: list[Job]
    truths: np.ndarray
    keep: np.ndarray
    of: str


def hidden_frames(data: Path, count: int, seed: int) -> Hidden:
    """`count` frames of a dataset, each with the hole of its own first copy."""
    info = read_info("builtin")
    held_out = info.training.get("held_out_cases", [])
    settings: dict[str, Any] = {"input": data, "output": "unused.zarr", "copies": 1, "seed": seed}
    listed = [case for case in held_out if list(data.rglob(case))]
    settings["dataset"] = {"cases": listed}
    source = open_source(load_config(None, {}, settings), info, Quiet())
    chosen = np.random.default_rng(seed).permutation(len(source.plan.frames))[:count]
    names = {source.plan.frames[i].frame_id for i in chosen}
    rows = [row for row in source.plan.rows if row.frame_id in names and not row.rejected]
    jobs = [job for job in source.jobs(rows) if isinstance(job, Job)]
    wholes, moved = jobs[::2], jobs[1::2]
    hidden = [
        dataclasses.replace(m, image=np.where(m.keep, w.image, np.float32(-1)))
        for w, m in zip(wholes, moved, strict=True)
    ]
    return Hidden(
        hidden,
        np.stack([to_uint8(job.image) for job in wholes]),
        np.stack([job.keep for job in hidden]),
        "held-out patients" if listed else "all frames",
    )


def paint(hidden: Hidden, sampler: dict[str, Any], run: int, draws: int, cache: Path) -> np.ndarray:
    """Every frame painted `draws` times: (draws, N, h, w) uint8.

    Args:
        hidden: the frames.
        sampler: settings, as in the configuration.
        run: another number gives other noise.
        draws: paintings of each frame.
        cache: where finished draws are read from and kept.
    """
    settings = "-".join(str(value) for value in sampler.values())
    frames = hashlib.sha256(hidden.keep.tobytes() + hidden.truths.tobytes()).hexdigest()[:12]
    model = read_info("builtin").sha256[:12]
    folder = cache / f"{model}-{frames}" / f"{settings}-run{run}"
    folder.mkdir(parents=True, exist_ok=True)
    engine = None
    for draw in range(draws):
        file = folder / f"{draw}.npy"
        if file.exists():
            continue
        if engine is None:
            given = {"input": "x", "output": "x.zarr", "sampler": sampler}
            engine = open_engine(load_config(None, {}, given), Quiet())
        jobs = [
            dataclasses.replace(job, seed=_seed(job.sample_id, run, draw)) for job in hidden.jobs
        ]
        images = np.stack([result.image for result in engine.run(jobs)])
        np.save(folder / "part.npy", images)
        (folder / "part.npy").rename(file)
        print(f"{folder.name}: draw {draw + 1} of {draws}", flush=True)
    return np.stack([np.load(folder / f"{draw}.npy") for draw in range(draws)])


def _seed(sample_id: str, run: int, draw: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{sample_id}/{run}/{draw}".encode()).digest()[:8], "big")
