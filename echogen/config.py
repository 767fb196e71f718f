"""The settings of a run, as one tree of pydantic models; `support.settings` reads them.

Lengths that must mean the same at every resolution are fractions of the height: of a frame's field,
the box around its fan (`geometry.field`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from echogen.presets import PRESETS, SAMPLE_PRESETS
from echogen.support.settings import Names, Presets, Settings

Range = tuple[float, float]
Flip = Literal["none", "rows", "cols", "both"]
"""Upside down, mirrored left to right, or both."""
LEAST_MM, MOST_MM = 1e-6, 1e4
"""A pixel's side: what lies beyond was never measured, and overflows."""
Millimetres = Annotated[float, Field(ge=LEAST_MM, le=MOST_MM)]
ImageSide = Annotated[int, Field(ge=1, le=2048, strict=True)]
"""Of the square grid that a network paints on, in pixels."""
CompileMode = Literal["off", "on", "graphs"]
Resize = Literal["stretch", "letterbox"]
"""How a frame comes to the square grid of a model: stretched, or padded to a square."""

MOST_FACTOR, MOST_SHIFT = 20.0, 4.0
"""Of a move: depth and width are at most this factor, or one over it; shifts are at most this many
heights of the field."""

_COLOUR = re.compile("#[0-9a-f]{6}", re.IGNORECASE)


def _folded(key: str) -> str:
    """Colours in small letters, grey levels without leading zeros."""
    if key.isdecimal():
        return str(int(key))
    return key.lower() if key.startswith("#") else key


def _both_sides(value: object) -> object:
    """One length for rows and columns alike."""
    return (value, value) if isinstance(value, (int, float)) else value


def _as_texts(value: object) -> object:
    return {str(key): to for key, to in value.items()} if isinstance(value, Mapping) else value


class DatasetConfig(Settings):
    """Which frames to read, and what their files do not say.

    Attributes:
        format, views, phases, split, cases, limit: which frames.
        labels: {class id: name} of the ids that may occur; None takes the reader's own.
        frames: "all" takes every frame of CAMUS' half sequences, "key" the files of ED and
            ES; with "all" the frames of a sequence are moved alike.
        fans: a table of fans that are taken as they are, see `datasets.fan_table`.
        spacing_mm: (row, col) millimetres per pixel of every frame, or one number for both; wins
            over the files' own.
        flip: how pictures are turned before anything else: "rows" those with the apex at the
            bottom, "cols" those that are mirrored.
        window: (low, high) intensities that become grey levels 0 and 255, in files that hold more
            than 8 bits.
        max_colour: share of an image's pixels that may be coloured, by a logo or an ECG trace.
        label_map: {what label files hold: class id}: a grey level, a colour such as "#ff0000", or a
            class's name in files of polygons and of one class each.
        case_salt: a file whose content makes the case ids of DICOM files hashes of patients' ids.
    """

    format: Literal["auto", "camus", "folder", "nnunet", "echonet", "cardiacuda", "dicom"] = "auto"
    views: Names = ()
    phases: Names = ()
    split: str = ""
    cases: Names = ()
    limit: int | None = Field(default=None, ge=1)
    labels: dict[int, str] | None = None
    frames: Literal["key", "all"] = "key"
    fans: Path | None = None
    spacing_mm: Annotated[tuple[Millimetres, Millimetres], BeforeValidator(_both_sides)] | None = (
        None
    )
    flip: Flip = "none"
    window: Range | None = None
    max_colour: float = Field(default=0.02, ge=0, le=1)
    label_map: Annotated[dict[str, int], BeforeValidator(_as_texts)] | None = None
    case_salt: Path | None = None

    @field_validator("window")
    @classmethod
    def _rising(cls, value: Range | None) -> Range | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"must be (low, high) with low < high, got {value}")
        return value

    @field_validator("label_map")
    @classmethod
    def _mapped(cls, value: dict[str, int] | None) -> dict[str, int] | None:
        for key, label in (value or {}).items():
            if not 0 <= label <= 254:  # 255 means ignore
                raise ValueError(f"{key}: class ids lie in 0..254, got {label}")
            if key.startswith("#") and not _COLOUR.fullmatch(key):
                raise ValueError(f"{key!r}: a colour has six digits, such as '#ff0000', got {key}")
        return None if value is None else {_folded(key): label for key, label in value.items()}

    @property
    def reading(self) -> str:
        """The settings that decide what pixels a file gives, as text; empty where none is set."""
        names = {"flip", "window", "max_colour", "label_map"}
        text = self.model_dump_json(include=names, exclude_defaults=True)
        return "" if text == "{}" else text

    @property
    def unrecorded(self) -> dict[str, bool]:
        """Fields that a run leaves out of what it records: the layout's name, the file of fans
        (the plan has the fans themselves), that of the salt, and settings that are newer than the
        first stores where they change nothing, so that a run is the one it was before there
        was a choice.
        """
        newer = ("frames", "spacing_mm", "flip", "window", "max_colour", "label_map")
        defaults = type(self).model_fields
        same = {name: True for name in newer if getattr(self, name) == defaults[name].default}
        return {"format": True, "fans": True, "case_salt": True} | same


class MoveConfig(Settings):
    """How a frame is moved; defaults are the published ones (2502.20100).

    Each move is drawn with `probability`. `depth` scales the shown depth about the apex,
    `tilt_deg` turns about the apex, `width` scales across the sector's axis, `shift` is a radius
    in fractions of the field's height, its direction uniform. `border`, of that height too, is
    taken away from the edge of the moved scan.
    """

    probability: float = Field(default=0.5, ge=0, le=1)
    depth: Range = (1.0, 1.0 + 150 / 256)
    tilt_deg: Range = (-30.0, 30.0)
    width: Range = (0.5, 1.5)
    shift: Range = (0.0, 50 / 256)
    border: float = Field(default=5 / 256, ge=0, le=0.25)

    @field_validator("depth", "width", "tilt_deg", "shift")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if value[0] > value[1]:
            raise ValueError(f"must be (low, high) with low <= high, got {value}")
        return value

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("depth", "width"):
            low, high = getattr(self, name)
            if low <= 0:
                raise ValueError(f"{name} must be above 0, got {(low, high)}")
            if low < 1 / MOST_FACTOR or high > MOST_FACTOR:
                within = f"{1 / MOST_FACTOR:g} and {MOST_FACTOR:g}"
                raise ValueError(f"{name} must lie within {within}, got {(low, high)}")
        if self.shift[0] < 0:
            raise ValueError(f"shift must be 0 or more, got {self.shift}")
        if self.shift[1] > MOST_SHIFT:
            raise ValueError(f"shift must be at most {MOST_SHIFT:g}, got {self.shift}")
        if max(abs(angle) for angle in self.tilt_deg) >= 180:
            raise ValueError(f"tilt_deg must lie within -180 and 180, got {self.tilt_deg}")
        return self


class TransformConfig(MoveConfig):
    """The moves and what is painted after them.

    A draw is valid when at least `min_label_inside` of the labelled pixels stay in the sector and
    the move leaves between `min_hole` and `max_hole` of the sector empty, without its `border`.
    Where much more is painted than real, it often is a second heart (docs/decisions/017-judge.md).
    """

    min_label_inside: float = Field(default=0.5, ge=0, le=1)
    min_hole: float = Field(default=0.005, ge=0, le=1)
    max_hole: float = Field(default=0.6, ge=0, le=1)
    max_tries: int = Field(default=30, ge=1, le=255)
    outside: Literal["background", "inpaint"] = "background"
    label_outside: Literal["keep", "clip"] = "keep"
    labels_on_paint: Literal["keep", "clip", "ignore"] = "keep"
    ignore_distance_mm: float = Field(default=15.0, ge=0, le=1000)

    @model_validator(mode="after")
    def _some_hole(self) -> Self:
        if self.min_hole >= self.max_hole:
            found = f"{self.min_hole} and {self.max_hole}"
            raise ValueError(f"min_hole must be below max_hole, got {found}")
        return self


class LangevinConfig(Settings):
    """Langevin steps at falling noise levels (`echogen.diffusion.langevin`).

    As `balanced` with a network that is not shown what is known. What no preset changes is fixed in
    `echogen.diffusion.schedule` and there.

    Attributes:
        name: of the sampler.
        levels: how many noise levels there are on the way down.
        inner_steps: evaluations more at each level from 0.05 to `inner_max`, in units of the
            model's range, -1 to 1.
        inner_max: the noise level above which they begin.
        churn: noise added before an evaluation, as a share of the level's, down to 0.05; none
            below, where speckle settles.
        noise_gain: factor on the noise of painted pixels, for what a step's finite size takes away.
        guidance: share of the network's error on known pixels by which these are exaggerated more
            at each evaluation; 0 leaves them alone.
        memory: share of that exaggeration which lasts from one evaluation to the next.
        refine_steps: at the end, noise is added once more and taken away in smaller steps, which
            give speckle its full strength; so many evaluations more at each of their levels close
            the seam.
    """

    name: Literal["langevin"] = "langevin"
    levels: int = Field(default=16, ge=2, le=1000)
    inner_steps: int = Field(default=6, ge=0, le=1000)
    inner_max: float = Field(default=0.6, ge=0)
    churn: float = Field(default=2.0, ge=0)
    noise_gain: float = Field(default=1.06, gt=0)
    guidance: float = Field(default=1.5, ge=0)
    memory: float = Field(default=0.8, ge=0, lt=1)
    refine_steps: int = Field(default=5, ge=0, le=1000)


class RepaintConfig(Settings):
    """RePaint's schedule (Lugmayr et al. 2022, 2201.09865): steps, jump length, resamplings."""

    name: Literal["repaint"] = "repaint"
    steps: int = Field(default=250, ge=1, le=10_000)
    jump_length: int = Field(default=10, ge=1, le=10_000)
    resamplings: int = Field(default=10, ge=1, le=100)


class DpmConfig(Settings):
    """SDE-DPM-Solver++ (`echogen.diffusion.dpm`); as `balanced` of `echogen sample`.

    It paints what is missing with a network that is shown what is known, and whole images with any.
    For `expand` see `presets.KNOWN_PRESETS`.

    Attributes:
        name: of the sampler.
        steps: noise levels, each one network evaluation, besides those of `refine_steps`.
        eta: noise of the reverse process: 1 as much as went in, 0 none (an ordinary differential
            equation).
        order: 2 extrapolates from the step before, 1 does not (DDPM's posterior where eta is 1).
        sigma_min, sigma_max: noise levels at the last evaluation and at the first, which is not
            above the model's highest.
        rho: how strongly the levels crowd at the low end.
        refine_steps: at the end, noise is added again and taken away over this many levels down to
            `sigma_min`; 0 leaves it out.
        refine_from: the noise level to which that goes back up.
        refine_visits: how often, each time with new noise.
    """

    name: Literal["dpm"] = "dpm"
    steps: int = Field(default=25, ge=2, le=10_000)
    eta: float = Field(default=1.0, ge=0, le=1)
    order: Literal[1, 2] = 2
    sigma_min: float = Field(default=0.01, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)
    rho: float = Field(default=7.0, gt=0)
    refine_steps: int = Field(default=0, ge=0, le=10_000)
    refine_from: float = Field(default=0.25, gt=0)
    refine_visits: int = Field(default=1, ge=1, le=100)

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            found = f"{self.sigma_min} and {self.sigma_max}"
            raise ValueError(f"must have sigma_min < sigma_max, got {found}")
        if self.refine_steps == 1:
            raise ValueError("refine_steps must be 0 or at least 2, got 1")
        if self.refine_steps and self.refine_from <= self.sigma_min:
            found = f"{self.sigma_min}; got {self.refine_from}"
            raise ValueError(f"refine_from must be above sigma_min, {found}")
        return self


SamplerConfig = Annotated[LangevinConfig | RepaintConfig | DpmConfig, Field(discriminator="name")]


class EngineConfig(Settings):
    """Where and how to paint; none of this changes which samples are made.

    `device` is auto, cpu, mps, cuda, cuda:1, or a comma list with a process for each of its
    devices; auto and cuda mean all visible GPUs. `batch_size` 0 is 8 on a CPU, and found by trial
    on a GPU. `compile` "on" runs the network through torch.compile, "graphs" with CUDA graphs
    besides. `workers` 0 takes every core for planning.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int = Field(default=0, ge=0, le=65_536)
    compile: CompileMode = "off"
    workers: int = Field(default=0, ge=0, le=4096)


class StoreConfig(Settings):
    """`shard_size` samples are one unit of work: lost at most when a run is killed."""

    shard_size: int = Field(default=32, ge=1, le=4096)


def _of_a_store(path: Path) -> Path:
    if path.suffix not in (".zarr", ".h5"):
        raise ValueError(f"must end in .zarr or .h5, got {path.name!r}")
    return path


StorePath = Annotated[Path, AfterValidator(_of_a_store)]


class AugmentationConfig(Settings):
    """What is made from a dataset, whatever paints it and wherever input and output lie.

    `checkpoint` is a known model's name, a checkpoint's folder, a training run's folder, or a
    foreign file: see `echogen.models.resolve`. `judge` is a judge's name or folder, "builtin" or
    "none": see `echogen.judging`.
    """

    presets: ClassVar[Presets] = PRESETS

    copies: int = Field(default=4, ge=0, le=65535)
    seed: int = Field(default=0, ge=0, lt=2**63)
    originals: bool = True
    on_error: Literal["skip", "fail"] = "skip"
    checkpoint: str = "builtin"
    judge: str = "builtin"
    dataset: DatasetConfig = DatasetConfig()
    transforms: TransformConfig = TransformConfig()
    sampler: SamplerConfig = LangevinConfig()


class _Places(Settings):
    input: Path
    output: StorePath


class ExpandConfig(AugmentationConfig, _Places):  # places come first where settings are printed
    """All settings of `echogen expand`."""

    engine: EngineConfig = EngineConfig()
    store: StoreConfig = StoreConfig()


class BenchConfig(AugmentationConfig):
    """All settings of `echogen bench`: those of `expand`, except where output goes.

    Without `input`, no dataset's share of the work is estimated.
    """

    input: Path | None = None
    output: StorePath | None = None
    engine: EngineConfig = EngineConfig()
    store: StoreConfig = StoreConfig()


class SampleConfig(Settings):
    """All settings of `echogen sample`.

    `background` "black" sets what lies outside of an image's fan to 0, "as-is" leaves it.
    """

    presets: ClassVar[Presets] = SAMPLE_PRESETS

    output: StorePath
    n: int = Field(default=64, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    background: Literal["black", "as-is"] = "black"
    checkpoint: str = "builtin"
    sampler: DpmConfig = DpmConfig()
    engine: EngineConfig = EngineConfig()
    store: StoreConfig = StoreConfig()


RunConfig = ExpandConfig | SampleConfig
"""The settings of a run that fills a store."""
