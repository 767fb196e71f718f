"""Real frames with labels, for training the judge and for measuring it: on its grid, in one file.

The file shows patients: keep it to yourself.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echogen.config import AugmentationConfig, DatasetConfig
from echogen.datasets import open_frames
from echogen.diffusion.checkpoint import read_info
from echogen.geometry.transforms import footprint, sector_on_grid
from echogen.planning.dataset import plan_dataset
from echogen.report import QUIET
from echogen.types import Sample

FOLDS = 2
HELD_OUT = -1


@dataclass(frozen=True)
class Frames:
    """Labelled frames of a dataset.

    Attributes:
        images: (N, 256, 256) uint8.
        labels: (N, 256, 256) uint8, 0 outside of the fan.
        fans: (N, 256, 256) bool.
        apexes: (N, 2) the fans' apexes, row and column in pixels.
        aspects: (N,) displayed width of a pixel over its height.
        cases: (N,) whose they are.
        folds: (N,) 0 or 1, or -1 of patients that the built-in model was not trained on.
    """

    images: np.ndarray
    labels: np.ndarray
    fans: np.ndarray
    apexes: np.ndarray
    aspects: np.ndarray
    cases: np.ndarray
    folds: np.ndarray


def fold_of(case: str) -> int:
    """By a hash, so that it depends on nothing else."""
    return hashlib.sha256(case.encode()).digest()[0] % FOLDS


def labelled_frames(data: Path, cache: Path) -> Frames:
    """The frames of a CAMUS folder, read once and then from `cache`."""
    if not cache.exists():
        info = read_info("builtin")
        held_out = set(info.training.get("held_out_cases", []))
        dataset, keys = open_frames(data, DatasetConfig())
        source = plan_dataset(dataset, keys, AugmentationConfig(copies=0), info, QUIET, 1)
        rows = [row for row in source.plan.rows if row.copy == 0]
        parts: dict[str, list[object]] = {name: [] for name in Frames.__dataclass_fields__}
        for row, sample in zip(rows, source.render(rows), strict=True):
            if not isinstance(sample, Sample):
                continue
            planned = source.frames[row.frame_id]
            grid = source.plan.grid_of(planned)
            fan = footprint(planned.sector, planned.grid, *grid.centres_mm())
            parts["images"].append(sample.image)
            parts["labels"].append(np.where(fan, sample.label, 0).astype(np.uint8))
            parts["fans"].append(fan)
            sector, aspect = sector_on_grid(planned.sector, grid)
            parts["apexes"].append(sector[:2])
            parts["aspects"].append(aspect)
            parts["cases"].append(planned.case_id)
            held = planned.case_id in held_out
            parts["folds"].append(HELD_OUT if held else fold_of(planned.case_id))
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, **{name: np.array(values) for name, values in parts.items()})
    with np.load(cache) as arrays:
        return Frames(**{name: arrays[name] for name in Frames.__dataclass_fields__})
