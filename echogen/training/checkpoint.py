"""A run's best network as a checkpoint: weights, schedule, training record, model card, pictures.

The folder is complete at every moment from the first evaluation on, and is replaced in one step.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from echogen.diffusion.checkpoint import (
    HASHED_FILES,
    INFO_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    Resize,
    read_info,
    read_json,
)
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import build_denoiser
from echogen.diffusion.saving import save_checkpoint
from echogen.training.card import model_card
from echogen.training.data import PackedFrames
from echogen.training.network import VariedUNet, make_unet
from echogen.training.recipe import TrainConfig

CHECKPOINT = "checkpoint"
SAMPLES_FILE, FIGURE_FILE = "samples.png", "memorisation.png"


@dataclass(frozen=True)
class ModelFacts:
    """What a model's card and record say that training cannot know.

    Attributes:
        name: a short name for people.
        training_data: what it was trained on, in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
        dataset: of the frames, JSON-able: format, root_name, fingerprint, split, selection.
        command: that started the run.
    """

    name: str
    training_data: str = "not told"
    licence: str = "not told: the terms of the training data decide"
    citation: str = "none told"
    dataset: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def plain_unet(average: VariedUNet, config: TrainConfig) -> nn.Module:
    """The averaged network as it is used: on the CPU, in float32, without its variation."""
    plain = make_unet(config).eval().requires_grad_(False)
    plain.load_state_dict(average.unet.state_dict())
    return plain


def denoiser_of(
    average: VariedUNet, config: TrainConfig, device: torch.device, precision: str
) -> Denoiser:
    """The averaged network as samplers take it."""
    info = _info(config, ModelFacts(config.name), {})
    unet = plain_unet(average, config)
    return build_denoiser(unet, scheduler_config(config), info, str(device), precision)


def scheduler_config(config: TrainConfig) -> dict[str, Any]:
    """The recipe's schedule with all of `DDPMScheduler`'s settings."""
    from diffusers import DDPMScheduler

    scheduler_class: Any = DDPMScheduler
    return _public(scheduler_class.from_config(dict(config.schedule)).config)


def case_record(packed: PackedFrames, held_out: tuple[str, ...]) -> dict[str, Any]:
    """{"trained": {case: [digest, ...]}, "held_out": ...}: what `expand` compares its frames to."""
    record: dict[str, dict[str, list[str]]] = {"trained": {}, "held_out": {}}
    aside = set(held_out)
    for number, case in enumerate(packed.case_ids):
        digests = record["held_out" if case in aside else "trained"].setdefault(case, [])
        if packed.digests:
            digests.append(packed.digests[number])
    return {part: {k: sorted(set(v)) for k, v in sorted(c.items())} for part, c in record.items()}


def export(
    out: Path,
    average: VariedUNet,
    config: TrainConfig,
    facts: ModelFacts,
    record: Mapping[str, Any],
    samples: bytes,
) -> CheckpointInfo:
    """Writes `out`/checkpoint with the averaged weights in fp16.

    Args:
        out: folder of the run.
        average: whose network to keep.
        config, facts: of the model.
        record: the training record, JSON-able.
        samples: a PNG of generated images.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    unet: Any = plain_unet(average, config)
    return save_checkpoint(
        out / CHECKPOINT,
        {name: value.half() for name, value in unet.state_dict().items()},
        _public(unet.config),
        scheduler_config(config),
        _info(config, facts, record),
        readme=model_card(facts.name, _info(config, facts, record)),
        extra_files={SAMPLES_FILE: samples},
        overwrite=True,
    )


def rewrite(
    out: Path, facts: ModelFacts, record: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> CheckpointInfo:
    """The same weights with another record, card and pictures.

    Args:
        out: folder of the run.
        facts: of the model.
        record: replaces the training record.
        pictures: {name: PNG}; the folder's other pictures stay.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be written.
    """
    from dataclasses import replace

    from safetensors.torch import load_file

    folder = out / CHECKPOINT
    info = replace(
        read_info(folder),
        name=facts.name,
        training_data=facts.training_data,
        licence=facts.licence,
        citation=facts.citation,
        training=dict(record),
    )
    kept = {file.name: file.read_bytes() for file in folder.glob("*.png")}
    return save_checkpoint(
        folder,
        load_file(folder / WEIGHTS),
        read_json(folder / UNET_CONFIG),
        read_json(folder / SCHEDULER_CONFIG),
        info,
        readme=model_card(facts.name, info),
        extra_files={**kept, **pictures},
        overwrite=True,
    )


def recover(out: Path) -> None:
    """Puts back a checkpoint that a kill left half way through being replaced; removes remains."""
    folder = out / CHECKPOINT
    remains = sorted(out.glob(f".{CHECKPOINT}.*"), key=lambda p: p.stat().st_mtime, reverse=True)
    for place in remains:
        for whole in (place, place / CHECKPOINT):
            wanted = (INFO_FILE, "README.md", *HASHED_FILES)
            if not folder.exists() and all((whole / name).is_file() for name in wanted):
                whole.rename(folder)
        shutil.rmtree(place, ignore_errors=True)


def _info(config: TrainConfig, facts: ModelFacts, record: Mapping[str, Any]) -> CheckpointInfo:
    return CheckpointInfo(
        name=facts.name,
        image_size=config.image_size,
        resize=cast(Resize, config.resize),
        patch=config.patch,
        channels=config.channels,
        labels={},
        training_data=facts.training_data,
        licence=facts.licence,
        citation=facts.citation,
        training=dict(record),
    )


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}
