"""A run's best network as a checkpoint: weights, schedule, training record, model card, pictures.

The folder is complete at every moment from the first evaluation on, and is replaced in one step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from echogen.diffusion.border import BorderNetwork
from echogen.diffusion.checkpoint import (
    BORDER_WEIGHTS,
    SCHEDULER_CONFIG,
    TRAINED,
    UNET_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    GreyLevels,
    read_info,
    read_json,
)
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import build_denoiser
from echogen.diffusion.saving import save_checkpoint
from echogen.training.card import CaseDigests, ModelFacts, TrainingRecord, model_card
from echogen.training.frames import PreparedFrames
from echogen.training.learner import VariedUNet, make_unet
from echogen.training.recipe import Recipe

SAMPLES_FILE, FIGURE_FILE = "samples.png", "memorisation.png"


def plain_unet(average: VariedUNet, recipe: Recipe) -> nn.Module:
    """The averaged network as it is used: on the CPU, in float32, without its variation."""
    plain = make_unet(recipe).eval().requires_grad_(False)
    plain.load_state_dict(average.unet.state_dict())
    return plain


def denoiser_of(
    average: VariedUNet, recipe: Recipe, device: torch.device, precision: str
) -> Denoiser:
    """The averaged network as samplers take it."""
    info = _info(recipe, ModelFacts(recipe.name), {})
    unet = plain_unet(average, recipe)
    return build_denoiser(unet, scheduler_config(recipe), info, str(device), precision)


def scheduler_config(recipe: Recipe) -> dict[str, Any]:
    """The recipe's schedule with all of `DDPMScheduler`'s settings."""
    from diffusers import DDPMScheduler

    scheduler_class: Any = DDPMScheduler
    return _public(scheduler_class.from_config(dict(recipe.schedule)).config)


def case_digests(frames: PreparedFrames, held_out: tuple[str, ...]) -> CaseDigests:
    """Which frames, by case, were trained on and held out."""
    parts: dict[str, dict[str, set[str]]] = {"trained": {}, "held_out": {}}
    for case, digest in zip(frames.record.case_ids, frames.record.digests, strict=True):
        part = parts["held_out" if case in held_out else "trained"]
        part.setdefault(case, set()).add(digest)
    tables = ({k: tuple(sorted(v)) for k, v in sorted(part.items())} for part in parts.values())
    return CaseDigests(**dict(zip(parts, tables, strict=True)))


def write_checkpoint(
    out: Path,
    average: VariedUNet,
    facts: ModelFacts,
    record: TrainingRecord,
    samples: bytes,
    usual: GreyLevels | None,
    border: BorderNetwork | None,
) -> CheckpointInfo:
    """Writes `out`/checkpoint with the averaged weights in fp16.

    Args:
        out: folder of the run.
        average: whose network to keep.
        facts: of the model.
        record: of its training, with its recipe.
        samples: a PNG of generated images.
        usual: grey levels of the frames that it was trained on.
        border: the network's correction next to known pixels, if it has one.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    unet: Any = plain_unet(average, record.config)
    info = _info(record.config, facts, record.to_dict(), usual)
    return save_checkpoint(
        out / TRAINED,
        {name: value.half() for name, value in unet.state_dict().items()},
        _public(unet.config),
        scheduler_config(record.config),
        info,
        border=None if border is None else border.state_dict(),
        readme=model_card(info, has_border=border is not None),
        extra_files={SAMPLES_FILE: samples},
        overwrite=True,
    )


def rewrite_checkpoint(
    out: Path, facts: ModelFacts, record: TrainingRecord, pictures: Mapping[str, bytes]
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
    from safetensors.torch import load_file

    folder = out / TRAINED
    changes = {**facts.terms, "training": record.to_dict()}
    info = read_info(folder).model_copy(update=changes)
    border = folder / BORDER_WEIGHTS
    kept = {file.name: file.read_bytes() for file in folder.glob("*.png")}
    return save_checkpoint(
        folder,
        load_file(folder / WEIGHTS),
        read_json(folder / UNET_CONFIG),
        read_json(folder / SCHEDULER_CONFIG),
        info,
        border=load_file(border) if border.is_file() else None,
        readme=model_card(info, has_border=border.is_file()),
        extra_files={**kept, **pictures},
        overwrite=True,
    )


def _info(
    recipe: Recipe,
    facts: ModelFacts,
    record: Mapping[str, Any],
    usual: GreyLevels | None = None,
) -> CheckpointInfo:
    return CheckpointInfo(
        image_size=recipe.image_size,
        resize=recipe.resize,
        patch=recipe.patch,
        channels=recipe.channels,
        conditioning=recipe.conditioning,
        keep_channels=recipe.keep_channels,
        known_pixels="clean" if recipe.conditioning == "known" else None,
        labels={},
        grey_levels=usual,
        training=dict(record),
        **facts.terms,
    )


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}
