"""A training recipe as frozen records, read from a TOML preset; unknown keys are refused.

The presets that echogen ships lie in `echogen/presets`. `network` and `schedule` are handed to
diffusers' `UNet2DModel` and `DDPMScheduler` unchanged, so they are tables and not records.
"""

import dataclasses
import difflib
import importlib.resources
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

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
    """Weights of the loss.

    The squared error of v weighs min(SNR, snr_gamma) / (SNR + 1), that of epsilon
    min(SNR, snr_gamma) / SNR, at least `weight_floor`: min-SNR weighting (Hang et al. 2023,
    2303.09556); `snr_gamma` 0 gives every step the weight 1. Where the network learns a variance,
    the variational bound in bits a dimension, summed over all steps, is added with `vlb_weight`
    (lambda of Nichol and Dhariwal 2021, 2102.09672, eq. 17).
    """

    snr_gamma: float = 5.0
    weight_floor: float = 0.0
    vlb_weight: float = 0.001


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

    @property
    def learns_variance(self) -> bool:
        """Whether the network's second half of channels is a variance (2102.09672, eq. 15)."""
        return self.schedule.get("variance_type") == "learned_range"

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data; `parse_config` reads it back."""
        return dataclasses.asdict(self)


PREDICTIONS = ("epsilon", "v_prediction")
_TABLES = {"optimiser": OptimiserConfig, "loss": LossConfig, "augment": AugmentConfig}


def load_preset(name_or_file: str) -> TrainConfig:
    """A recipe by the name of a shipped preset, such as "small", or from a TOML file.

    Raises:
        UsageError: no such preset or file, or a key is unknown or missing.
    """
    folder = importlib.resources.files("echogen.training") / "presets"
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
        UsageError: a key is unknown or missing, or a value is of the wrong kind or out of range.
    """
    values = dict(table)
    for key, record in _TABLES.items():
        nested = values.get(key, {})
        if not isinstance(nested, Mapping):
            raise UsageError(f"{source}: {key}: expected a table [{key}], found {nested!r}.")
        values[key] = _record(record, nested, f"{source}: [{key}]")
    config: TrainConfig = _record(TrainConfig, values, source)
    _check(config, source)
    return config


def with_values(config: TrainConfig, values: Mapping[str, Any], source: str) -> TrainConfig:
    """The recipe with some values replaced.

    Args:
        config: the recipe.
        values: {key: value}, a key in a table written as "optimiser.batch_size".
        source: names the values in messages.

    Raises:
        UsageError: as `parse_config`.
    """
    table = config.as_dict()
    for dotted, value in values.items():
        *path, key = dotted.split(".")
        inner = table
        for part in path:
            inner = inner.get(part, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{source}: {dotted}: {part} is a value, not a table.")
        if path and path[0] not in table:
            known = ", ".join(name for name, value in table.items() if isinstance(value, dict))
            raise UsageError(f"{source}: {dotted}: no table {path[0]!r}; known: {known}.")
        inner[key] = value
    return parse_config(table, source)


def _check(config: TrainConfig, source: str) -> None:
    optimiser, loss, vary = config.optimiser, config.loss, config.augment
    betas_fit = all(0 <= beta < 1 for beta in optimiser.betas)
    prediction = config.schedule.get("prediction_type", "epsilon")
    rules = (
        (config.patch >= 1, "patch", config.patch, "1 or more"),
        (config.image_size >= 1, "image_size", config.image_size, "1 or more"),
        (config.channels in (1, 3), "channels", config.channels, "1 or 3"),
        (config.resize in ("stretch", "letterbox"), "resize", config.resize, "stretch, letterbox"),
        (0 <= config.seed < 2**63, "seed", config.seed, "0 to 2^63 - 1"),
        (prediction in PREDICTIONS, "[schedule] prediction_type", prediction, _or(PREDICTIONS)),
        (optimiser.batch_size >= 1, "batch_size", optimiser.batch_size, "1 or more"),
        (optimiser.learning_rate > 0, "learning_rate", optimiser.learning_rate, "more than 0"),
        (0 <= optimiser.final_rate <= 1, "final_rate", optimiser.final_rate, "0 to 1"),
        (optimiser.warmup_steps >= 0, "warmup_steps", optimiser.warmup_steps, "0 or more"),
        (optimiser.weight_decay >= 0, "weight_decay", optimiser.weight_decay, "0 or more"),
        (betas_fit, "betas", optimiser.betas, "0 to below 1"),
        (optimiser.clip_norm > 0, "clip_norm", optimiser.clip_norm, "more than 0"),
        (0 <= optimiser.dropout < 1, "dropout", optimiser.dropout, "0 to below 1"),
        (optimiser.ema_half_life > 0, "ema_half_life", optimiser.ema_half_life, "more than 0"),
        (optimiser.ema_ramp > 0, "ema_ramp", optimiser.ema_ramp, "more than 0"),
        (loss.snr_gamma >= 0, "snr_gamma", loss.snr_gamma, "0 or more"),
        (loss.weight_floor >= 0, "weight_floor", loss.weight_floor, "0 or more"),
        (loss.vlb_weight >= 0, "vlb_weight", loss.vlb_weight, "0 or more"),
        (0 <= vary.probability <= 1, "probability", vary.probability, "0 to 1"),
        (0 < vary.zoom[0] <= vary.zoom[1], "zoom", vary.zoom, "two factors above 0, in order"),
        (0 < vary.lateral[0] <= vary.lateral[1], "lateral", vary.lateral, "as zoom"),
        (0 <= vary.tilt_deg <= 90, "tilt_deg", vary.tilt_deg, "0 to 90"),
        (0 <= vary.shift <= 0.5, "shift", vary.shift, "0 to 0.5"),
        (0 <= vary.gamma <= 2, "gamma", vary.gamma, "0 to 2"),
    )
    for fits, name, found, expected in rules:
        if not fits:
            raise UsageError(f"{source}: {name} {found!r}: expected {expected}.")
    if config.image_size % config.patch:
        raise UsageError(
            f"{source}: image_size {config.image_size} is no multiple of patch {config.patch}."
        )


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(repr(name) for name in names)


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
    kinds = get_type_hints(record)
    return record(**{k: _value(kinds[k], v, f"{where}: {k}") for k, v in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """The value as the record has it: whole numbers may stand for floats, lists for pairs."""
    if kind == tuple[float, float]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise UsageError(f"{where}: expected two numbers, found {value!r}.")
        return tuple(_value(float, part, where) for part in value)
    words = {int: "a whole number", float: "a number", str: "a string"}
    if kind not in words:
        if not isinstance(value, Mapping) and not dataclasses.is_dataclass(value):
            raise UsageError(f"{where}: expected a table, found {value!r}.")
        return value
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or isinstance(value, bool) or value != value or value in (math.inf, -math.inf):
        raise UsageError(f"{where}: expected {words[kind]}, found {value!r}.")
    return float(value) if kind is float else value
