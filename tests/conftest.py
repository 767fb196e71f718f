"""A small dataset and a small model, so that whole runs take a second."""

import os
from pathlib import Path
from typing import Literal

import hypothesis
import pytest

from tests.support.hearts import write_dataset

# Tests run side by side, and start processes: none may take the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


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
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", "none")


@pytest.fixture(scope="session")
def known_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kind of network, which is shown what is known."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny-known", "known")


def save_tiny(folder: Path, conditioning: Literal["none", "known"]) -> Path:
    import torch
    from diffusers import UNet2DModel

    from echogen.diffusion.checkpoint import CheckpointInfo
    from echogen.diffusion.saving import save_checkpoint

    more = 16 if conditioning == "known" else 0
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=16 + more,
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
        name=folder.name,
        image_size=32,
        resize="stretch",
        patch=4,
        channels=1,
        conditioning=conditioning,
        keep_channels=more,
        known_pixels="clean" if more else None,
        labels={},
        training_data="none",
        licence="CC0-1.0",
        citation="none",
    )
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
        "judge": "none",
        "sampler": {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 3, "workers": 1},
        "store": {"shard_size": 5},
    }
