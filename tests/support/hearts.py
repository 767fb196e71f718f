"""Small labelled hearts in fans, as arrays, files, datasets, canvases and runs' settings."""

from pathlib import Path

import numpy as np

from echogen.config import ExpandConfig
from echogen.geometry.sector import Sector
from echogen.painting.engine import Canvas
from echogen.support.settings import load_config, merge

SHAPE, SPACING = (120, 110), (1.0, 0.9)
FAN = Sector(2.0, 50.0, -0.62, 0.66, 3.0, 114.0)


def fan_frame(seed: int, atrium_row: float = 88.0) -> tuple[np.ndarray, np.ndarray]:
    """A speckled fan with a heart in it: image and label, (120, 110) uint8."""
    rows = (np.arange(SHAPE[0]) + 0.5)[:, None] * SPACING[0]
    cols = (np.arange(SHAPE[1]) + 0.5)[None, :] * SPACING[1]

    def ellipse(row: float, height: float, width: float) -> np.ndarray:
        return ((rows - row) / height) ** 2 + ((cols - 50) / width) ** 2 <= 1

    label = np.zeros(SHAPE, np.uint8)
    label[ellipse(52, 30, 18)] = 2
    label[ellipse(52, 24, 12)] = 1
    label[ellipse(atrium_row, 14, 12)] = 3
    rng = np.random.default_rng(seed)
    grey = np.where(label == 2, 150, np.where(label > 0, 30, 80))
    image = np.clip(grey * rng.gamma(6, 1 / 6, SHAPE), 12, 255)
    image = np.where(FAN.mask(SHAPE, SPACING), image, 0)
    return image.astype(np.uint8), label


def write_nifti(path: Path, array: np.ndarray) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((SPACING[1], SPACING[0]))
    SimpleITK.WriteImage(image, str(path))


def write_dataset(root: Path, cases: int = 2) -> Path:
    """CAMUS' NIfTI layout with one view and both phases a case."""
    for case in range(1, cases + 1):
        folder = root / f"patient{case:04d}"
        folder.mkdir(parents=True)
        for phase in ("ED", "ES"):
            image, label = fan_frame(10 * case + (phase == "ES"), 108.0 if case == 1 else 88.0)
            name = f"{folder.name}_4CH_{phase}"
            write_nifti(folder / f"{name}.nii.gz", image)
            write_nifti(folder / f"{name}_gt.nii.gz", label)
    return root


def make_canvas(index: int, side: int) -> Canvas:
    """A canvas of random pixels, its left half to be painted."""
    image = np.random.default_rng(index).integers(0, 256, (side, side)).astype(np.uint8)
    keep = np.ones((side, side), np.bool_)
    keep[:, : side // 2] = False
    return Canvas(f"s{index}", index, image, keep)


def make_config(settings: dict[str, object], **changes: object) -> ExpandConfig:
    return load_config(ExpandConfig, merge(settings, changes))
