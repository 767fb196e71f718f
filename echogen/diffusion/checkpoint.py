"""A checkpoint is a folder: network, schedule, preprocessing, licence and hashes together.

`unet/` and `scheduler/` are as diffusers writes them, so that its own loaders read them;
`echogen.json` holds what a sampler and a user must know besides, and the SHA-256 of each file.
Reading and verifying need neither torch nor diffusers; weights are safetensors, never pickles.
"""

import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from echogen.errors import CheckpointError

FORMAT = 1
INFO_FILE = "echogen.json"
UNET_CONFIG = "unet/config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
HASHED_FILES = (UNET_CONFIG, WEIGHTS, SCHEDULER_CONFIG)
BUILTIN = "builtin"
TRAINED = "checkpoint"  # where a training run's folder keeps its best model

Resize = Literal["stretch", "letterbox"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, as `echogen.json` records it.

    Attributes:
        name: a short name for people.
        image_size: the side in pixels of the square grid that it paints on.
        resize: how a frame came to that grid in training: stretched, or padded to a square.
        patch: space-to-depth factor: the network sees (channels patch^2, size/patch, size/patch).
        channels: of the image, 1 or 3 (grey repeated).
        labels: {class id: name} that the network was conditioned on; empty for an image prior.
        training_data: what it was trained on, in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
        training: the training record, any JSON.
        files: {path in the folder: SHA-256} of the files that decide what the model paints.
    """

    name: str
    image_size: int
    resize: Resize
    patch: int
    channels: int
    labels: Mapping[int, str]
    training_data: str
    licence: str
    citation: str
    training: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """One hex string for the checkpoint: over its files' hashes and its preprocessing.

        Names, licence, model card and training record do not enter: they change no pixel.
        """
        identity = {
            "files": dict(self.files),
            "image_size": self.image_size,
            "resize": self.resize,
            "patch": self.patch,
            "channels": self.channels,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@contextmanager
def checkpoint_folder(path_or_name: str | Path) -> Iterator[Path]:
    """The folder of a checkpoint, given by its path or as "builtin".

    A training run's folder stands for the checkpoint in it.

    Raises:
        CheckpointError: there is no such folder.
    """
    if str(path_or_name) == BUILTIN:
        resource = importlib.resources.files("echogen") / "models" / BUILTIN
        with importlib.resources.as_file(resource) as folder:
            if not folder.is_dir():
                raise CheckpointError(
                    "checkpoint builtin: this installation lacks it; reinstall echogen, "
                    "or give a checkpoint's folder."
                )
            yield folder
        return
    folder = Path(path_or_name)
    if folder.is_file():
        raise CheckpointError(
            f"{folder}: expected a checkpoint's folder (with {INFO_FILE}), found a file; "
            "give the folder, or import foreign weights first."
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such checkpoint; give {BUILTIN!r} or a folder that holds {INFO_FILE}."
        )
    inner = folder / TRAINED
    trained = not (folder / INFO_FILE).exists() and (inner / INFO_FILE).is_file()
    yield inner if trained else folder


def read_info(path_or_name: str | Path) -> CheckpointInfo:
    """What `echogen.json` says of a checkpoint; its other files are not opened.

    Args:
        path_or_name: a folder, or "builtin".

    Raises:
        CheckpointError: no such folder, no `echogen.json`, or a field is missing or wrong.
    """
    with checkpoint_folder(path_or_name) as folder:
        file = folder / INFO_FILE
        if not file.is_file():
            kind = "a diffusers folder" if (folder / UNET_CONFIG).is_file() else "a folder"
            raise CheckpointError(
                f"{folder}: {kind} without {INFO_FILE}, so its image size, patch and licence are "
                "unknown; give an echogen checkpoint, or import this one first."
            )
        return parse_info(read_json(file), file)


def verify_checkpoint(path_or_name: str | Path) -> CheckpointInfo:
    """`read_info`, and every recorded file hashed and compared.

    Raises:
        CheckpointError: as `read_info`, or files are missing or differ; each is named.
    """
    info = read_info(path_or_name)
    with checkpoint_folder(path_or_name) as folder:
        wrong = []
        for name, expected in info.files.items():
            if not (folder / name).is_file():
                wrong.append(f"{name} is missing")
            elif (found := file_sha256(folder / name)) != expected:
                size = (folder / name).stat().st_size
                wrong.append(
                    f"{name} ({size} bytes) has sha256 {found[:12]}, expected {expected[:12]}"
                )
        if wrong:
            raise CheckpointError(
                f"{folder}: damaged or altered: {'; '.join(wrong)}. Fetch or save it again."
            )
    return info


def check_image_size(unet_config: Mapping[str, Any], info: CheckpointInfo) -> None:
    """Refuse a description whose image size is not its network's.

    Args:
        unet_config: of diffusers' `UNet2DModel`; a `sample_size` of None fits any.
        info: of the same checkpoint.

    Raises:
        CheckpointError: names both sizes.
    """
    sample = unet_config.get("sample_size")
    sides = sample if isinstance(sample, list | tuple) else [sample]
    for side in sides:
        if isinstance(side, int) and side * info.patch != info.image_size:
            raise CheckpointError(
                f"checkpoint {info.name}: {INFO_FILE} says images of {info.image_size}, "
                f"{UNET_CONFIG} a network for {side * info.patch} (sample_size {side} x patch "
                f"{info.patch}); these belong to different models. Fetch or save it again."
            )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file cannot be read or is not a JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON, truncated or foreign: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_info(raw: Mapping[str, Any], file: Path) -> CheckpointInfo:
    """What an `echogen.json` says.

    Args:
        raw: its content.
        file: its name, for messages.

    Raises:
        CheckpointError: a field is missing or wrong.
    """
    if raw.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: expected format {FORMAT}, found {raw.get('format')!r}; "
            "this version of echogen cannot read it."
        )

    def get(name: str, kind: type[Any]) -> Any:
        if name not in raw:
            raise CheckpointError(f"{file}: field {name!r} is missing")
        value = raw[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CheckpointError(
                f"{file}: {name}: expected {kind.__name__}, found {type(value).__name__}"
            )
        return value

    size, patch, channels = get("image_size", int), get("patch", int), get("channels", int)
    resize, labels, files = get("resize", str), get("labels", dict), get("files", dict)
    if patch < 1 or size < 1 or size % patch:
        raise CheckpointError(
            f"{file}: image_size and patch: expected positive numbers, the first divisible by the "
            f"second; found {size} and {patch}"
        )
    if channels not in (1, 3):
        raise CheckpointError(f"{file}: channels: expected 1 or 3, found {channels}")
    if resize not in ("stretch", "letterbox"):
        raise CheckpointError(f"{file}: resize: expected stretch or letterbox, found {resize!r}")
    if not all(key.isdecimal() and isinstance(name, str) for key, name in labels.items()):
        raise CheckpointError(f"{file}: labels: expected class ids with names, found {labels!r}")
    absent = [name for name in HASHED_FILES if name not in files]
    if absent:
        raise CheckpointError(f"{file}: files: no hash of {', '.join(absent)}")
    for name, digest in files.items():
        if name not in HASHED_FILES or not _SHA256.fullmatch(str(digest)):
            raise CheckpointError(f"{file}: files: {name!r}: unknown file or not a SHA-256")
    info = CheckpointInfo(
        name=get("name", str),
        image_size=size,
        resize=cast(Resize, resize),
        patch=patch,
        channels=channels,
        labels={int(key): name for key, name in labels.items()},
        training_data=get("training_data", str),
        licence=get("licence", str),
        citation=get("citation", str),
        training=get("training", dict),
        files=dict(files),
    )
    if "sha256" in raw and raw["sha256"] != info.sha256:
        raise CheckpointError(
            f"{file}: sha256 does not follow from the recorded files and preprocessing; "
            "the file was edited. Fetch or save the checkpoint again."
        )
    return info


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
