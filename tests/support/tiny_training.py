"""A recipe of 16 x 16 images and twelve frames to train it on in a second."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from echogen.training.data import PackedFrames
from echogen.training.options import RunOptions
from echogen.training.recipe import AugmentConfig, LossConfig, OptimiserConfig, TrainConfig

SIDE = 16
NETWORK = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
SCHEDULE = {
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
}
VARY = AugmentConfig(0.5, (0.8, 1.1), (0.8, 1.2), 10.0, 0.1, 0.2)
QUICK = RunOptions(
    steps=6,
    held_out=2,
    device="cpu",
    precision="fp32",
    evaluations=2,
    log_every=2,
    samples=2,
    sample_steps=4,
    inpainted=0,
    compared=0,
)


def recipe(**changes: object) -> TrainConfig:
    optimiser = OptimiserConfig(
        batch_size=4, warmup_steps=2, ema_half_life=50, ema_ramp=1.0, dropout=0.1
    )
    base = TrainConfig(
        "tiny", SIDE, 2, NETWORK, SCHEDULE, optimiser=optimiser, augment=VARY, loss=LossConfig()
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def learning_variance() -> TrainConfig:
    """As the published network: 3 channels, noise and variance, no space-to-depth."""
    network = {**NETWORK, "sample_size": SIDE, "in_channels": 3, "out_channels": 6}
    schedule = {**SCHEDULE, "prediction_type": "epsilon", "variance_type": "learned_range"}
    loss = LossConfig(snr_gamma=0.0)
    return recipe(channels=3, patch=1, network=network, schedule=schedule, loss=loss)


def write_recipe(file: Path, config: TrainConfig) -> Path:
    """The recipe as a TOML file."""
    table = config.as_dict()
    plain = [(k, v) for k, v in table.items() if not isinstance(v, dict)]
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain]
    for name, values in table.items():
        if isinstance(values, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
    file.write_text("\n".join(lines) + "\n")
    return file


def cone(count: int, side: int = SIDE) -> np.ndarray:
    """Bright triangles with their apex at the middle of the top, black around."""
    rows, columns = np.mgrid[:side, :side]
    inside = np.abs(columns - (side - 1) / 2) < 0.4 * rows
    grain = np.random.default_rng(0).integers(80, 255, (count, side, side))
    return (grain * inside).astype(np.uint8)


def tiny_frames() -> PackedFrames:
    """Twelve frames of six cases."""
    ids = tuple(f"case{i // 2}" for i in range(12))
    frame_ids = tuple(f"{case}_{i}" for i, case in enumerate(ids))
    return PackedFrames(cone(12), ids, frame_ids, tuple(f"{i:012x}" for i in range(12)))


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Everything that a run has learnt."""
    from safetensors.torch import load_file

    return load_file(run / "state.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
