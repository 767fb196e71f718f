"""A training recipe as frozen records, read from a TOML preset; unknown keys are refused.

The presets that echogen ships lie in `echogen/presets`. `network` and `schedule` are handed to
diffusers' `UNet2DModel` and `DDPMScheduler` unchanged, so they are tables and not records.
"""

import dataclasses
import difflib
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echogen.errors import UsageError


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up, cosine decay and an exponential moving average of the weights.

    `final_rate` is the share of `learning_rate` that is left at the end. `ema_half_life` counts
    images; it is at most `ema_ramp` times the images seen, so that the average forgets the start.
    """

    batch_size: int = 256
    learning_rate: float = 8e-4
    final_rate: float = 0.01
    warmup_steps: int = 500
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    dropout: float = 0.1
    ema_half_life: float = 200_000
    ema_ramp: float = 0.05


@dataclass(frozen=True)
class LossConfig:
    """Weight of v's squared error: min(SNR, snr_gamma) / (SNR + 1), at least `weight_floor`.

    The first part is min-SNR weighting of v (Hang et al. 2023, 2303.09556).
    """

    snr_gamma: float = 5.0
    weight_floor: float = 0.0


@dataclass(frozen=True)
class AugmentConfig:
    """How frames are varied, each with `probability`; see `augment`.

    `zoom` and `lateral` are ranges of factors, `tilt_deg`, `shift` (of the image's side) and
    `gamma` (log of the exponent) are the largest deviation to either side.
    """

    probability: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    lateral: tuple[float, float] = (1.0, 1.0)
    tilt_deg: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides which weights a run ends with, apart from its frames and length."""

    name: str
    image_size: int
    patch: int
    network: Mapping[str, Any]
    schedule: Mapping[str, Any]
    channels: int = 1
    resize: str = "stretch"
    seed: int = 0
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data; `parse_config` reads it back."""
        return dataclasses.asdict(self)


_TABLES = {"optimiser": OptimiserConfig, "loss": LossConfig, "augment": AugmentConfig}


def load_preset(name_or_file: str) -> TrainConfig:
    """A recipe by the name of a shipped preset, such as "small", or from a TOML file.

    Raises:
        UsageError: no such preset or file, or a key is unknown or missing.
    """
    folder = importlib.resources.files("echogen") / "presets"
    shipped = folder / f"{name_or_file}.toml"
    try:
        if shipped.is_file():
            text = shipped.read_text(encoding="utf-8")
        else:
            text = Path(name_or_file).read_text(encoding="utf-8")
    except OSError as error:
        known = sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))
        raise UsageError(
            f"--preset {name_or_file}: neither a preset ({', '.join(known)}) nor a readable "
            f"TOML file ({error.strerror})."
        ) from error
    try:
        return parse_config(tomllib.loads(text), f"--preset {name_or_file}")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--preset {name_or_file}: not valid TOML: {error}") from error


def parse_config(table: Mapping[str, Any], source: str) -> TrainConfig:
    """A recipe from nested tables; `source` names them in messages.

    Raises:
        UsageError: a key is unknown or missing, or the image's side is no multiple of the patch.
    """
    values = dict(table)
    for key, record in _TABLES.items():
        values[key] = _record(record, values.get(key, {}), f"{source}: [{key}]")
    config: TrainConfig = _record(TrainConfig, values, source)
    if config.image_size % config.patch:
        raise UsageError(
            f"{source}: image_size {config.image_size} is no multiple of patch {config.patch}."
        )
    return config


def _record(record: type[Any], values: Mapping[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(record)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, list(fields), n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}."
            raise UsageError(f"{where}: unknown key {key!r}; {hint}")
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} missing; set it.")
    return record(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
