"""The U-Net of guided diffusion (Dhariwal and Nichol 2021, 2105.05233) as diffusers' `UNet2DModel`.

What is made of it is checked against `UNet2DModel` name by name and shape by shape.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from echogen.diffusion.schedule import read_scheduler
from echogen.errors import CheckpointError
from echogen.models.guided.architecture import (
    GuidedArchitecture,
    GuidedOptions,
    head_width,
    read_architecture,
)
from echogen.support.words import one_line

if TYPE_CHECKING:
    from torch import Tensor

Json = dict[str, Any]

NORM_GROUPS = 32


def unet_config(architecture: GuidedArchitecture, options: GuidedOptions) -> Json:
    """The configuration of diffusers' `UNet2DModel` that computes the same.

    Raises:
        CheckpointError: the heads do not fit the channels, or `UNet2DModel` cannot have them.
    """
    last = len(architecture.channels) - 1
    resnet = architecture.resampling == "resnet"

    def kind(level: int, way: str) -> str:
        if architecture.attention[level]:
            return f"Attn{way}Block2D"
        # UNet2DModel's plain blocks always resample by a convolution.
        resamples = level < last if way == "Down" else level > 0
        return f"Resnet{way}sampleBlock2D" if resnet and resamples else f"{way}Block2D"

    return {
        "in_channels": architecture.in_channels,
        "out_channels": architecture.out_channels,
        "block_out_channels": list(architecture.channels),
        "layers_per_block": architecture.blocks,
        "down_block_types": [kind(level, "Down") for level in range(last + 1)],
        "up_block_types": [kind(level, "Up") for level in range(last, -1, -1)],
        "downsample_type": architecture.resampling,
        "upsample_type": architecture.resampling,
        "attention_head_dim": head_width(architecture, options),
        "norm_num_groups": NORM_GROUPS,
        "attn_norm_num_groups": NORM_GROUPS,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if architecture.scale_shift else "default",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "act_fn": "silu",
    }


def scheduler_config(learned_variance: bool, options: GuidedOptions) -> Json:
    """The configuration of diffusers' `DDPMScheduler`.

    Raises:
        CheckpointError: the schedule has too few steps.
    """
    config: Json = {
        "num_train_timesteps": options.steps,
        "prediction_type": "epsilon",
        "variance_type": "learned_range" if learned_variance else "fixed_large",
        "clip_sample": True,
    }
    if options.noise_schedule == "linear":
        scale = 1000 / options.steps
        config |= {"beta_schedule": "linear"}
        config |= {"beta_start": 1e-4 * scale, "beta_end": 0.02 * scale}
    else:
        config |= {"beta_schedule": "squaredcos_cap_v2"}
    try:
        read_scheduler(config)
    except CheckpointError as error:
        raise CheckpointError(
            f"steps {options.steps}: too few for the {options.noise_schedule} schedule."
        ) from error
    return config


def convert_guided(
    state: "Mapping[str, Tensor]", options: GuidedOptions
) -> "tuple[dict[str, Tensor], Json, Json]":
    """A state dict of guided diffusion for diffusers, with the two configurations.

    Returns:
        (state dict of `UNet2DModel`, its configuration, the configuration of `DDPMScheduler`);
        tensors are shared with `state` where nothing had to be permuted.

    Raises:
        CheckpointError: the state dict has other names or shapes than its architecture asks for,
            or something that `UNet2DModel` cannot express; see `read_architecture`.
    """
    architecture = read_architecture(state)
    config = unet_config(architecture, options)
    scheduler = scheduler_config(architecture.learned_variance, options)
    moved: dict[str, Tensor] = {}
    taken = set()
    for theirs, ours in module_names(architecture):
        for part in ("weight", "bias"):
            name = f"{theirs}.{part}"
            if name not in state:
                if theirs.endswith("skip_connection"):
                    continue
                raise CheckpointError(f"{name} is missing; expected in a model with {architecture}")
            taken.add(name)
            value = state[name]
            if theirs.endswith("qkv"):
                width = config["attention_head_dim"] or len(value) // 3
                split = _split_heads(value, width, options.new_attention_order)
                for letter, tensor in zip("qkv", split, strict=True):
                    moved[f"{ours}.to_{letter}.{part}"] = tensor
            else:
                flat = theirs.endswith("proj_out") and part == "weight"
                moved[f"{ours}.{part}"] = value.flatten(1) if flat else value
    if foreign := sorted(set(state) - taken):
        raise CheckpointError(
            f"{foreign[0]} (of {len(foreign)} such): not part of guided diffusion's unconditional "
            "U-Net; echogen cannot convert it."
        )
    _check_expressible(moved, config)
    return moved, config, scheduler


def _check_expressible(moved: "Mapping[str, Tensor]", config: Json) -> None:
    """Refuse tensors whose names or shapes are not those of the network that `config` describes."""
    import torch
    from diffusers import UNet2DModel

    network_class: Any = UNet2DModel
    try:
        with torch.device("meta"):
            expected = network_class(**config).state_dict()
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"diffusers' UNet2DModel cannot express it: {one_line(error)}"
        ) from error
    for name in sorted({*expected, *moved}):
        wanted = tuple(expected[name].shape) if name in expected else None
        found = tuple(moved[name].shape) if name in moved else None
        if wanted != found:
            raise CheckpointError(
                f"{name} has shape {found}, expected {wanted}: diffusers' UNet2DModel cannot "
                "express this model."
            )


def _split_heads(qkv: "Tensor", width: int, new_order: bool) -> "tuple[Tensor, ...]":
    """(3 C, ...) rows of a product to those of queries, keys and values, (C, ...) each."""
    rows = qkv.flatten(1) if qkv.ndim > 1 else qkv
    if new_order or len(rows) % (3 * width):
        return rows.chunk(3)
    by_head = rows.reshape(-1, 3, width, *rows.shape[1:])
    return tuple(part.flatten(0, 1).contiguous() for part in by_head.unbind(1))


def module_names(architecture: GuidedArchitecture) -> Iterator[tuple[str, str]]:
    """Every module with weights: its name there and here; skip connections may be absent."""
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"
    levels, blocks = len(architecture.channels), architecture.blocks
    number = 1
    for level in range(levels):
        ours = f"down_blocks.{level}"
        for block in range(blocks):
            theirs = f"input_blocks.{number}"
            yield from _residual(f"{theirs}.0", f"{ours}.resnets.{block}")
            if architecture.attention[level]:
                yield from _attention(f"{theirs}.1", f"{ours}.attentions.{block}")
            number += 1
        if level < levels - 1:
            theirs, ours = f"input_blocks.{number}.0", f"{ours}.downsamplers.0"
            yield from _resampling(architecture, theirs, "op", ours)
            number += 1
    yield from _residual("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0")
    yield from _residual("middle_block.2", "mid_block.resnets.1")
    for number in range(levels * (blocks + 1)):
        step, block = divmod(number, blocks + 1)
        level, theirs, ours = levels - 1 - step, f"output_blocks.{number}", f"up_blocks.{step}"
        yield from _residual(f"{theirs}.0", f"{ours}.resnets.{block}")
        if architecture.attention[level]:
            yield from _attention(f"{theirs}.1", f"{ours}.attentions.{block}")
        if level and block == blocks:
            theirs = f"{theirs}.{2 if architecture.attention[level] else 1}"
            yield from _resampling(architecture, theirs, "conv", f"{ours}.upsamplers.0")


def _residual(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    parts = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    return ((f"{theirs}.{name}", f"{ours}.{here}") for name, here in parts.items())


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.norm", f"{ours}.group_norm"
    yield f"{theirs}.qkv", ours
    yield f"{theirs}.proj_out", f"{ours}.to_out.0"


def _resampling(
    architecture: GuidedArchitecture, theirs: str, word: str, ours: str
) -> Iterator[tuple[str, str]]:
    if architecture.resampling == "resnet":
        return _residual(theirs, ours)
    return iter([(f"{theirs}.{word}", f"{ours}.conv")])
