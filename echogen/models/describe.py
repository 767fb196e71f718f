"""What a checkpoint is, read from its folder without loading the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echogen.diffusion.checkpoint import (
    CARD_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    check_channels,
    check_image_size,
    checkpoint_folder,
    read_info,
    read_json,
)
from echogen.diffusion.schedule import read_scheduler
from echogen.diffusion.unet_config import UNetConfig, read_unet
from echogen.diffusion.weights import read_header
from echogen.report import CommandReport
from echogen.support.files import folder_size


@dataclass(frozen=True)
class CheckpointDescription(CommandReport):
    """What a checkpoint's folder says of itself.

    Attributes:
        name, training_data, licence, citation: words.
        folder: where it lies.
        image_size: side in pixels; resize: how frames come to it; patch, channels: of the network.
        conditioning: "known" if it is shown which pixels are known, else "none"; keep_channels: of
            that map; known_pixels: how these are shown, or None.
        architecture: diffusers' class and its levels' widths.
        parameters: of the network; weights_type: as stored, such as "F16".
        size: of all files, bytes.
        prediction: what the network predicts; schedule: of the noise; steps: in training;
            variance: of a reverse step.
        sha256: of the checkpoint; files: of each file.
        training: the record, any JSON.
        trained_cases, held_out_cases: how many the record names; None where it names none.
        card: the model card's file, or None.
    """

    name: str
    folder: str
    image_size: int
    resize: str
    patch: int
    channels: int
    conditioning: str
    keep_channels: int
    known_pixels: str | None
    architecture: str
    parameters: int
    weights_type: str
    size: int
    prediction: str
    schedule: str
    steps: int
    variance: str
    training_data: str
    licence: str
    citation: str
    sha256: str
    files: Mapping[str, str]
    training: Mapping[str, Any]
    trained_cases: int | None
    held_out_cases: int | None
    card: str | None
    derived = ("here",)

    @property
    def here(self) -> bool:
        """Unlike a model that is only listed."""
        return True


def describe(path_or_name: str | Path) -> CheckpointDescription:
    """What a checkpoint is; torch is not loaded, and no hash is computed.

    Args:
        path_or_name: as `resolve_checkpoint` gives it.

    Raises:
        CheckpointError: a file is missing, truncated or does not fit another.
    """
    info, folder = read_info(path_or_name), checkpoint_folder(path_or_name)
    file, config, weights = folder / SCHEDULER_CONFIG, folder / UNET_CONFIG, folder / WEIGHTS
    scheduler = read_scheduler(read_json(file), file)
    header = read_header(weights)
    unet = read_unet(read_json(config), header, config, weights)
    check_image_size(unet.model_dump(), info)
    check_channels(unet.model_dump(), scheduler.variance_type, info)
    card = folder / CARD_FILE
    trained, held_out = _cases(info.training)
    return CheckpointDescription(
        name=info.name,
        folder=str(folder),
        image_size=info.image_size,
        resize=info.resize,
        patch=info.patch,
        channels=info.channels,
        conditioning=info.conditioning,
        keep_channels=info.keep_channels,
        known_pixels=info.known_pixels,
        architecture=_architecture(unet),
        parameters=sum(tensor.count for tensor in header.values()),
        weights_type=", ".join(sorted({tensor.dtype for tensor in header.values()})),
        size=folder_size(folder),
        prediction=scheduler.prediction_type,
        schedule=scheduler.beta_schedule,
        steps=scheduler.num_train_timesteps,
        variance=scheduler.variance_type,
        training_data=info.training_data,
        licence=info.licence,
        citation=info.citation,
        sha256=info.sha256,
        files=info.files,
        training=info.training,
        trained_cases=trained,
        held_out_cases=held_out,
        card=str(card) if card.is_file() else None,
    )


def _cases(training: Mapping[str, Any]) -> tuple[int | None, int | None]:
    cases = training.get("cases")
    if isinstance(cases, Mapping):
        trained, held_out = cases.get("trained"), cases.get("held_out")
        return _count(trained), _count(held_out)
    return None, _count(training.get("held_out_cases"))


def _count(names: Any) -> int | None:
    return len(names) if isinstance(names, Mapping | list) else None


def _architecture(unet: UNetConfig) -> str:
    levels = "-".join(map(str, unet.block_out_channels))
    return f"UNet2DModel, channels {levels}, blocks per level {unet.layers_per_block}"
