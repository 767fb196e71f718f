"""Folders of pictures with labels, as people have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, open_dataset

SIDE = (40, 32)


def speckle(seed: int = 0, shape: tuple[int, int] = SIDE) -> np.ndarray:
    """An image of many grey levels, (40, 32) uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def heart() -> np.ndarray:
    """Class ids 1 in 2 (a cavity in its wall) and 3 below, (40, 32) uint8."""
    label = np.zeros(SIDE, np.uint8)
    label[4:20, 8:24] = 2
    label[8:20, 12:20] = 1
    label[24:34, 10:22] = 3
    return label


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def opened(root: Path, **settings: Any) -> Dataset:
    """The dataset in a folder, with settings of `[dataset]`."""
    chosen = DatasetConfig(**settings)
    return open_dataset(root, chosen.format, chosen.labels, settings=chosen)


def corners(row0: int, col0: int, row1: int, col1: int) -> list[list[float]]:
    """The polygon, (x, y), that is filled by the pixels [row0:row1, col0:col1] alone."""
    e = 0.1
    return [
        [col0 + e, row0 + e],
        [col1 - e, row0 + e],
        [col1 - e, row1 - e],
        [col0 + e, row1 - e],
    ]
