"""Four-chamber hearts, as CardiacUDA labels them: 1 LV, 2 LA, 3 RA, 4 RV."""

from pathlib import Path

import numpy as np

from tests.support.hearts import FAN, SHAPE, SPACING

CHAMBERS = {1: (52, 24, 9, 61), 2: (92, 10, 9, 61), 3: (92, 10, 9, 38), 4: (56, 22, 7, 39)}
"""{class id: row, half height, half width, column}, mm."""


def chambers(seed: int, squeeze: float = 1.0, rv_col: float = 39) -> tuple[np.ndarray, np.ndarray]:
    """A speckled fan with four chambers in it: image and label, (120, 110) uint8.

    With the RV at column 17 mm, the fan's edge cuts it.
    """
    rows = (np.arange(SHAPE[0]) + 0.5)[:, None] * SPACING[0]
    cols = (np.arange(SHAPE[1]) + 0.5)[None, :] * SPACING[1]
    label = np.zeros(SHAPE, np.uint8)
    for class_id, (row, height, width, col) in CHAMBERS.items():
        col = rv_col if class_id == 4 else col
        inside = ((rows - row) / height) ** 2 + ((cols - col) / (width * squeeze)) ** 2 <= 1
        label[inside] = class_id
    rng = np.random.default_rng(seed)
    image = np.clip(np.where(label > 0, 30, 90) * rng.gamma(6, 1 / 6, SHAPE), 12, 255)
    return np.where(FAN.mask(SHAPE, SPACING), image, 0).astype(np.uint8), label


def write_volume(path: Path, planes: np.ndarray, spacing: float = 1.0) -> None:
    """(N, H, W) as a NIfTI file of columns x rows x frames."""
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(planes)
    image.SetSpacing((spacing, spacing, 1.0))
    SimpleITK.WriteImage(image, str(path))


def write_videos(
    root: Path, cases: int = 2, frames: int = 6, labelled: tuple[int, ...] = (1, 4)
) -> Path:
    """CardiacUDA's layout: a site with labelled videos, and one without labels."""
    for case in range(1, cases + 1):
        pairs = [chambers(100 * case + n, 1 - 0.1 * (n % 3)) for n in range(frames)]
        images = np.stack([image for image, _ in pairs])
        labels = np.stack([label * (n in labelled) for n, (_, label) in enumerate(pairs)])
        name = root / "Site_G_20" / f"patient-{case}-4"
        write_volume(Path(f"{name}_image.nii.gz"), images)
        write_volume(Path(f"{name}_label.nii.gz"), labels.astype(np.int8))
    write_volume(root / "Site_R_73" / "patient-53-4_image.nii.gz", images)
    return root
