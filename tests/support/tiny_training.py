"""A recipe of 16 x 16 images and twelve frames to train it on in a second."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echogen.training.frames import (
    FrameRecord,
    ModelGrid,
    PreparedFrames,
    frames_fingerprint,
)
from echogen.training.options import TrainingOptions
from echogen.training.recipe import AugmentConfig, LossConfig, OptimiserConfig, Recipe

SIDE = 16
NETWORK = {
    "sample_size": 8,
    "in_channels": 8,
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
VARY = AugmentConfig(
    probability=0.5, zoom=(0.8, 1.1), lateral=(0.8, 1.2), tilt_deg=10.0, shift=0.1, gamma=0.2
)
QUICK = TrainingOptions(
    steps=6,
    hold_out=2,
    device="cpu",
    precision="fp32",
    evaluations=2,
    log_every=2,
    samples=2,
    sample_steps=4,
    inpainted=0,
    border_images=3,
    compared=0,
)


def recipe(**changes: object) -> Recipe:
    """Of a network that sees what is known."""
    optimiser = OptimiserConfig(
        batch_size=4, warmup_steps=2, ema_half_life=50, ema_ramp=1.0, dropout=0.1
    )
    base = Recipe(
        name="tiny",
        image_size=SIDE,
        patch=2,
        conditioning="known",
        network=NETWORK,
        schedule=SCHEDULE,
        optimiser=optimiser,
        augment=VARY,
    )
    return base.model_copy(update=changes)


def unconditional(**changes: object) -> Recipe:
    """The same, of a network that sees the noisy picture alone."""
    network = {**NETWORK, "in_channels": 4}
    return recipe(**{"conditioning": "none", "network": network, **changes})


def learning_variance() -> Recipe:
    """As the preset `reference`: 3 channels, noise and variance, no space-to-depth."""
    network = {**NETWORK, "sample_size": SIDE, "in_channels": 4, "out_channels": 6}
    schedule = {**SCHEDULE, "prediction_type": "epsilon", "variance_type": "learned_range"}
    loss = LossConfig(snr_gamma=0.0)
    return recipe(channels=3, patch=1, network=network, schedule=schedule, loss=loss)


def write_recipe(file: Path, config: Recipe) -> Path:
    """The recipe as a TOML file."""
    table = config.model_dump(mode="json")
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


def prepared(pixels: np.ndarray, case_ids: tuple[str, ...]) -> PreparedFrames:
    """Frames of `cone` as if they had been prepared: ids from the cases' and their number."""
    ids, side = tuple(f"{case}_{i}" for i, case in enumerate(case_ids)), pixels.shape[1]
    angle, middle = math.atan(0.4), (side - 1) / 2
    fan = (0.0, middle, -angle, angle, 0.0, side * 1.05, 1.0, 0.0, 0.0, float(side), float(side))
    fans = (fan,) * len(ids)
    record = FrameRecord(
        grid=ModelGrid(image_size=side, resize="stretch"),
        fingerprint=frames_fingerprint(ids, fans, pixels),
        frame_ids=ids,
        case_ids=case_ids,
        splits=("",) * len(ids),
        digests=tuple(f"{i:012x}" for i in range(len(ids))),
        fans=fans,
    )
    return PreparedFrames(pixels, record)


def tiny_frames() -> PreparedFrames:
    """Twelve frames of six cases."""
    return prepared(cone(12), tuple(f"case{i // 2}" for i in range(12)))


def write_frames(folder: Path, frames: PreparedFrames) -> Path:
    """Frames as the folder that `echogen train` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "frames.npy", frames.pixels)
    (folder / "frames.json").write_text(frames.record.model_dump_json())
    return folder


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Everything that a run has learnt."""
    from safetensors.torch import load_file

    return load_file(run / "state.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The events of a run's log, without a half line at its end: it may be read while written."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]
