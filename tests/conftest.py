"""A small dataset and a small model, so that whole runs take a second."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from echogen.config import ExpandConfig, load_config
from echogen.geometry.sector import Sector
from echogen.types import Frame, FrameKey, Job, to_model_range

# Tests run side by side, and start processes: none may take the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads only wait for each other on images this small, above all beside other workers."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of two cases; the first case's atrium is cut by the sector. Do not change."""
    return write_dataset(tmp_path_factory.mktemp("data") / "hearts")


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """The same, for tests that damage it."""
    return write_dataset(tmp_path / "hearts")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network of 32 x 32 images, 4 x 4 space-to-depth, 20 timesteps."""
    import torch
    from diffusers import UNet2DModel

    from echogen.diffusion.checkpoint import CheckpointInfo
    from echogen.diffusion.saving import save_checkpoint

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    )
    scheduler = {
        "num_train_timesteps": 20,
        "beta_start": 0.001,
        "beta_end": 0.3,
        "beta_schedule": "linear",
        "prediction_type": "v_prediction",
        "variance_type": "fixed_small",
        "clip_sample": True,
    }
    info = CheckpointInfo(
        name="tiny",
        image_size=32,
        resize="stretch",
        patch=4,
        channels=1,
        labels={},
        training_data="none",
        licence="CC0-1.0",
        citation="none",
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(
        folder, network.state_dict(), dict(network.config), scheduler, info, readme="# tiny\n"
    )
    return folder


@pytest.fixture
def settings(dataset: Path, checkpoint: Path, tmp_path: Path) -> dict[str, object]:
    """A run over `dataset`: 4 frames x (original + 3 copies) in shards of 5."""
    return {
        "input": str(dataset),
        "output": str(tmp_path / "out.zarr"),
        "copies": 3,
        "checkpoint": str(checkpoint),
        "sampler": {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 3, "workers": 1},
        "store": {"shard_size": 5},
    }


def make_job(index: int, side: int, hole: bool = True) -> Job:
    """A job of random pixels; with a hole, the left half is to be painted."""
    rng = np.random.default_rng(index)
    keep = np.ones((side, side), np.bool_)
    keep[:, : side // 2] = not hole
    image = rng.integers(0, 256, (side, side)).astype(np.uint8)
    label = rng.integers(0, 4, (side, side)).astype(np.uint8)
    return Job(f"s{index}", index, to_model_range(image), keep, label, 0.25)


def make_config(settings: dict[str, object], **changes: object) -> ExpandConfig:
    return load_config(None, settings, changes)


def in_memory_frame(frame_id: str = "p_4CH_ED") -> Frame:
    image, label = fan_frame(0)
    return Frame(FrameKey(frame_id, "p", "4CH", "ED", "", ()), image, label, SPACING)
