"""A checkpoint is a folder: network, schedule, preprocessing, licence and hashes together.

`unet/` and `scheduler/` are as diffusers writes them, so that its own loaders read them; a network
that sees what is known may have another in `border/`, which corrects it there; `echogen.json` holds
what a sampler and a user must know besides, and the SHA-256 of each file. Reading and verifying
need neither torch nor diffusers; weights are safetensors, never pickles.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from echogen.config import ImageSide, Resize
from echogen.errors import CheckpointError, UsageError
from echogen.support.reading import open_regular, reason
from echogen.support.reading import read_json as read_any_json
from echogen.support.settings import Settings, explain, shown

FORMAT = 1
INFO_FILE = "echogen.json"
CARD_FILE = "README.md"
UNET_CONFIG = "unet/config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
HASHED_FILES = (UNET_CONFIG, WEIGHTS, SCHEDULER_CONFIG)
BORDER_WEIGHTS = "border/weights.safetensors"  # not in every checkpoint; see `diffusion.border`
BUILTIN = "builtin"
JUDGE = "judge"  # the kind of a folder that holds no model that paints; see `echogen.judging`
TRAINED = "checkpoint"  # where a training run's folder keeps its best model

Conditioning = Literal["none", "known"]
"""What a network is shown besides the noisy picture: nothing, or what is known of it and where."""
OF_CONDITIONING = frozenset({"conditioning", "keep_channels", "known_pixels"})
Level = Annotated[float, Field(ge=0, le=255)]
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]*$", max_length=100)]
"""For people, on one line; never a path."""
Words = Annotated[str, Field(max_length=10_000)]
ClassId = Annotated[int, Field(ge=0, le=255)]
MOST_BYTES = 2**22
"""Of a checkpoint's JSON, which names the cases that it was trained on."""
MOST_FILE_BYTES = 2**33
"""Of weights: a file may claim a terabyte of zeros, which would be hashed for an hour."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class GreyLevels(Settings, extra="ignore"):
    """What was usual in the images that a network was trained on.

    Attributes:
        dark, middle: the lowest that was usual, the median and the highest, 0 to 255, of the 5th
            and of the 50th percentile of an image's grey levels above 0.
    """

    dark: tuple[Level, Level, Level]
    middle: tuple[Level, Level, Level]


class CheckpointInfo(Settings, extra="ignore", validate_default=False):
    """What a checkpoint is, as `echogen.json` records it; keys that it does not know are ignored.

    Attributes:
        name: a short name for people.
        image_size: the side in pixels of the square grid that it paints on.
        resize: how a frame came to that grid in training: stretched, or padded to a square.
        patch: space-to-depth factor: the network sees (channels patch^2, size/patch, size/patch).
        channels: of the image, 1 or 3 (grey repeated).
        conditioning: "known" of a network that is also shown which pixels are known, and these as
            they are; "none" of one that sees nothing but the noisy picture.
        keep_channels: channels after those of the picture, which hold the map of what is known (1
            known, 0 to paint) after space-to-depth: patch^2, or 0 without conditioning.
        known_pixels: what takes the place of x_t at known pixels: "clean", x_0 without noise and
            unscaled. None without conditioning.
        labels: {class id: name} that the network was conditioned on; empty for an image prior.
        training_data: what it was trained on, in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
        grey_levels: what was usual in training; None leaves grey levels as they are.
        training: the training record, any JSON.
        files: {path in the folder: SHA-256} of the files that decide what the model paints.
    """

    name: Name
    image_size: ImageSide
    resize: Resize
    patch: int = Field(ge=1, le=64, strict=True)
    channels: int = Field(strict=True)
    conditioning: Conditioning = "none"
    keep_channels: int = Field(default=0, strict=True)
    known_pixels: Literal["clean"] | None = None
    labels: dict[ClassId, Words]
    training_data: Words
    licence: Words
    citation: Words
    grey_levels: GreyLevels | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size must be divisible by patch, got {self.image_size} and {self.patch}"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        known = self.conditioning == "known"
        expected = (self.patch**2, "clean") if known else (0, None)
        if (self.keep_channels, self.known_pixels) != expected:
            raise ValueError(
                f"conditioning {self.conditioning!r} with patch {self.patch} needs keep_channels "
                f"{expected[0]} and known_pixels {expected[1]!r}, got {self.keep_channels} and "
                f"{self.known_pixels!r}"
            )
        if unknown := self.files.keys() - {*HASHED_FILES, BORDER_WEIGHTS}:
            raise ValueError(f"files: unknown file, got {shown(min(unknown))}")
        if BORDER_WEIGHTS in self.files and not known:
            raise ValueError(f"files: {BORDER_WEIGHTS} needs conditioning 'known'")
        return self

    @property
    def sha256(self) -> str:
        """One hex string for the checkpoint: over its files' hashes and its preprocessing.

        Names, licence, model card and training record do not enter: they change no pixel.
        """
        decisive = {"files", "image_size", "resize", "patch", "channels"}
        decisive |= set() if self.grey_levels is None else {"grey_levels"}
        decisive |= OF_CONDITIONING if self.conditioning == "known" else set()
        identity = json.dumps(self.model_dump(include=decisive), sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()


def checkpoint_in(folder: Path) -> Path | None:
    """`folder` itself if it is a checkpoint, or the checkpoint of the training run in it."""
    places = (folder, folder / TRAINED)
    return next((place for place in places if (place / INFO_FILE).is_file()), None)


def at_home(path: str | Path) -> Path:
    """A path with `~` and `~name` replaced by the home folders that they mean.

    Raises:
        CheckpointError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: no such user's home folder.") from error


def checkpoint_folder(path_or_name: str | Path) -> Path:
    """The folder of a checkpoint, given by its path, a training run's, or as "builtin".

    Raises:
        CheckpointError: there is no such folder.
    """
    if str(path_or_name) == BUILTIN:
        return Path(__file__).parents[1] / "models" / BUILTIN
    folder = Path(path_or_name)
    if folder.is_file():
        raise CheckpointError(
            f"{folder}: expected a checkpoint folder (with {INFO_FILE}), found a file; give the "
            "folder that contains it, or import foreign weights first."
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such checkpoint; give {BUILTIN!r} or a folder that contains {INFO_FILE}."
        )
    return checkpoint_in(folder) or folder


def read_info(path_or_name: str | Path) -> CheckpointInfo:
    """What `echogen.json` says of a checkpoint; its other files are not opened.

    Args:
        path_or_name: a folder, or "builtin".

    Raises:
        CheckpointError: no such folder, no `echogen.json`, or a field is missing or wrong.
    """
    folder = checkpoint_folder(path_or_name)
    file = folder / INFO_FILE
    if not file.is_file():
        kind = "a diffusers folder" if (folder / UNET_CONFIG).is_file() else "a folder"
        raise CheckpointError(
            f"{folder}: {kind} without {INFO_FILE}, so its image size, patch and licence are "
            "unknown; give an echogen checkpoint, or import this one first."
        )
    raw = read_json(file)
    if raw.get("kind") == JUDGE:
        raise CheckpointError(
            f"{folder}: a judge, which paints nothing; give it to --judge, and a model that paints "
            "here."
        )
    check_format(raw, file)
    try:
        info = CheckpointInfo.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"{file}: {explain(error, CheckpointInfo)}") from error
    if absent := [name for name in HASHED_FILES if name not in info.files]:
        raise CheckpointError(f"{file}: files: missing hash of {', '.join(absent)}")
    if raw.get("sha256", info.sha256) != info.sha256:
        raise CheckpointError(
            f"{file}: sha256 does not match the recorded files and preprocessing, so the file was "
            "edited; download or save the checkpoint again."
        )
    return info


def check_format(raw: Mapping[str, Any], file: Path) -> None:
    """Refuse an `echogen.json` of another format.

    Raises:
        CheckpointError: names both.
    """
    if raw.get("format") != FORMAT or isinstance(raw["format"], bool):
        raise CheckpointError(
            f"{file}: expected format {FORMAT}, found {shown(raw.get('format'))}; "
            "this version of echogen cannot read it."
        )


def verify_checkpoint(path_or_name: str | Path) -> CheckpointInfo:
    """`read_info`, and every recorded file hashed and compared.

    Raises:
        CheckpointError: as `read_info`, or files are missing or differ; each is named.
    """
    info = read_info(path_or_name)
    check_files(checkpoint_folder(path_or_name), info.files, "Download or save it again.")
    return info


def check_files(folder: Path, files: Mapping[str, str], remedy: str) -> None:
    """Hash the recorded files of a folder, {path in it: SHA-256}, and compare.

    Raises:
        CheckpointError: files are missing or differ; each is named. `remedy` ends the message.
    """
    wrong = []
    for name, expected in files.items():
        if not (folder / name).is_file():
            wrong.append(f"{name} is missing")
        elif (size := (folder / name).stat().st_size) > MOST_FILE_BYTES:
            wrong.append(f"{name} has {size:,} bytes, expected at most {MOST_FILE_BYTES:,}")
        elif (found := file_sha256(folder / name)) != expected:
            wrong.append(f"{name} ({size} bytes) has sha256 {found[:12]}, expected {expected[:12]}")
    if wrong:
        raise CheckpointError(f"{folder}: damaged or modified: {'; '.join(wrong)}. {remedy}")


def check_image_size(unet_config: Mapping[str, Any], info: CheckpointInfo) -> None:
    """Refuse a description whose image size is not its network's.

    Args:
        unet_config: of diffusers' `UNet2DModel`, as `diffusion.unet_config` reads it; a
            `sample_size` of None fits any.
        info: of the same checkpoint.

    Raises:
        CheckpointError: names both sizes.
    """
    halved = 1 << (len(unet_config["block_out_channels"]) - 1)
    if info.image_size // info.patch % halved:
        raise CheckpointError(
            f"checkpoint {info.name}: {INFO_FILE} says images of {info.image_size} with patch "
            f"{info.patch}, but the network's levels need a multiple of {halved * info.patch}."
        )
    sample = unet_config.get("sample_size")
    sides = sample if isinstance(sample, list | tuple) else [sample]
    for side in sides:
        if isinstance(side, int) and side * info.patch != info.image_size:
            raise CheckpointError(
                f"checkpoint {info.name}: {INFO_FILE} says images of {info.image_size}, "
                f"{UNET_CONFIG} a network for {side * info.patch} (sample_size {side} x patch "
                f"{info.patch}); these belong to different models. Download or save it again."
            )


def check_channels(
    unet_config: Mapping[str, Any], variance_type: str, info: CheckpointInfo
) -> None:
    """Refuse a description whose channels are not its network's.

    Args:
        unet_config: of diffusers' `UNet2DModel`.
        variance_type: of its scheduler; a learned range doubles what comes out.
        info: of the same checkpoint.

    Raises:
        CheckpointError: names both.
    """
    picture = info.channels * info.patch**2
    into, out = picture + info.keep_channels, picture * (1 + (variance_type == "learned_range"))
    found = (unet_config.get("in_channels", 3), unet_config.get("out_channels", 3))
    if found != (into, out):
        raise CheckpointError(
            f"checkpoint {info.name}: {info.channels} channels with patch {info.patch}, "
            f"conditioning {info.conditioning} and variance {variance_type} need a network of "
            f"{into} -> {out} channels, found {found[0]} -> {found[1]}"
        )


def check_sees_known(conditioning: Conditioning, name: str) -> None:
    """Refuse to let the sampler dpm complete images with a network that is not shown them.

    Raises:
        UsageError: says what to use.
    """
    if conditioning == "none":
        raise UsageError(
            f"sampler dpm: checkpoint {name or 'without a name'} takes no keep map, so what is "
            "known would be ignored; use the sampler langevin or repaint, or a checkpoint with "
            'conditioning "known".'
        )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file cannot be read or is not a JSON object.
    """
    try:
        value = read_any_json(file, CheckpointError, most=MOST_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hex.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with open_regular(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({reason(error)}).") from error
