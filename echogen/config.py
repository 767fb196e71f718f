"""One run's settings, as one tree of pydantic models read from TOML and overridden by flags.

Lengths that must mean the same at every resolution are fractions of the image's height.
Unknown keys are refused, with the nearest valid name.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from echogen.errors import UsageError

Range = tuple[float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class DatasetConfig(_Strict):
    """Which frames to read.

    `labels` declares the class ids that may occur, {id: name}; None takes the reader's own.
    """

    format: Literal["auto", "camus", "folder"] = "auto"
    views: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    split: str = ""
    cases: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)
    labels: dict[int, str] | None = None


class TransformConfig(_Strict):
    """The moves and what is painted after them; defaults are the published ones (2502.20100).

    Each move is drawn with `probability`. `depth` scales the shown depth about the apex,
    `tilt_deg` turns about the apex, `width` scales across the sector's axis, `shift` is a radius
    in fractions of the image's height, its direction uniform. A draw is valid when at least
    `min_label_inside` of the labelled pixels stay in the sector and the move leaves between
    `min_hole` and `max_hole` of the sector empty.
    """

    probability: float = Field(default=0.5, ge=0, le=1)
    depth: Range = (1.0, 1.0 + 150 / 256)
    tilt_deg: Range = (-30.0, 30.0)
    width: Range = (0.5, 1.5)
    shift: Range = (0.0, 50 / 256)
    border: float = Field(default=5 / 256, ge=0, le=0.25)
    min_label_inside: float = Field(default=0.5, ge=0, le=1)
    min_hole: float = Field(default=0.005, ge=0, le=1)
    max_hole: float = Field(default=1.0, ge=0, le=1)
    max_tries: int = Field(default=30, ge=1, le=255)
    outside: Literal["background", "inpaint"] = "background"
    label_outside: Literal["keep", "clip"] = "keep"
    labels_on_paint: Literal["keep", "clip", "ignore"] = "keep"
    ignore_distance_mm: float = Field(default=15.0, ge=0)

    @field_validator("depth", "width", "tilt_deg", "shift")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if value[0] > value[1]:
            raise ValueError(f"must be (low, high) with low <= high, got {value}")
        return value

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("depth", "width"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.shift[0] < 0:
            raise ValueError(f"shift must be 0 or more, got {self.shift}")
        if max(abs(angle) for angle in self.tilt_deg) >= 180:
            raise ValueError(f"tilt_deg must lie within -180 and 180, got {self.tilt_deg}")
        return self


class SamplerConfig(_Strict):
    """RePaint's schedule (Lugmayr et al. 2022, 2201.09865): steps, jump length, resamplings."""

    name: Literal["repaint"] = "repaint"
    steps: int = Field(default=25, ge=1)
    jump_length: int = Field(default=5, ge=1)
    resamplings: int = Field(default=3, ge=1)


class EngineConfig(_Strict):
    """Where and how to paint; none of this changes which samples are made.

    `device` is auto, cpu, mps, cuda, cuda:1, or a comma list with a process for each of its
    devices; auto and cuda mean all visible GPUs. `batch_size` 0 finds one by trial. `compile` "on"
    runs the network through torch.compile, "graphs" with CUDA graphs besides. `workers` 0 takes
    every core for planning.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int = Field(default=0, ge=0)
    compile: Literal["off", "on", "graphs"] = "off"
    workers: int = Field(default=0, ge=0)


class StoreConfig(_Strict):
    """`shard_size` samples are one unit of work: lost at most when a run is killed."""

    shard_size: int = Field(default=32, ge=1, le=4096)


class ExpandConfig(_Strict):
    """Everything `echogen expand` can be told."""

    input: Path
    output: Path
    copies: int = Field(default=4, ge=0, le=65535)
    seed: int = Field(default=0, ge=0, lt=2**63)
    originals: bool = True
    on_error: Literal["skip", "fail"] = "skip"
    checkpoint: str = "builtin"
    dataset: DatasetConfig = DatasetConfig()
    transforms: TransformConfig = TransformConfig()
    sampler: SamplerConfig = SamplerConfig()
    engine: EngineConfig = EngineConfig()
    store: StoreConfig = StoreConfig()

    @field_validator("output")
    @classmethod
    def _known_suffix(cls, value: Path) -> Path:
        if value.suffix not in (".zarr", ".h5"):
            raise ValueError(f"must end in .zarr or .h5, got {value.name!r}")
        return value


PAPER_PRESET: Mapping[str, Any] = {
    "transforms": {"outside": "inpaint", "label_outside": "keep", "labels_on_paint": "keep"},
    "sampler": {"name": "repaint", "steps": 250, "jump_length": 10, "resamplings": 10},
}


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `override` laid over it, tables merged key by key."""
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def load_config(
    toml_file: Path | None, preset: Mapping[str, Any], flags: Mapping[str, Any]
) -> ExpandConfig:
    """The resolved configuration: defaults, then preset, then file, then flags.

    Raises:
        UsageError: the file cannot be read, a key is unknown, or a value is out of range.
    """
    from_file: dict[str, Any] = {}
    if toml_file is not None:
        try:
            from_file = tomllib.loads(toml_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--config {toml_file}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"--config {toml_file}: not valid TOML: {error}") from error
    source = f"--config {toml_file}" if toml_file is not None else "settings"
    try:
        return ExpandConfig.model_validate(merge(merge(preset, from_file), flags))
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        table: Any = ExpandConfig
        for part in first["loc"][:-1]:
            table = table.model_fields[str(part)].annotation
        names = list(table.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}."
        return f"unknown key {where!r}; {hint}"
    if first["type"] == "missing":
        flag = {"input": "--in", "output": "--out"}.get(where, where)
        return f"{flag} is missing; give it as a flag or in the configuration file."
    message = first["msg"].removeprefix("Value error, ")
    got = "" if "got" in message else f" (got {first['input']!r})"
    return f"{where or 'transforms'}: {message}{got}"


def preset_values(name: str | None) -> Mapping[str, Any]:
    """The settings of a named preset; nothing for None.

    Raises:
        UsageError: there is no such preset.
    """
    if name is None:
        return {}
    if name != "paper":
        raise UsageError(f"--preset {name}: unknown; expected paper.")
    return PAPER_PRESET


def to_toml(config: ExpandConfig) -> str:
    """The resolved configuration as a TOML document that `load_config` reads back."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
