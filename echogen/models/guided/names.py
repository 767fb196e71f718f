"""What guided diffusion and diffusers call the same module of a U-Net."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from echogen.models.guided.unet import GuidedArchitecture


def module_names(architecture: "GuidedArchitecture") -> Iterator[tuple[str, str]]:
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
    architecture: "GuidedArchitecture", theirs: str, word: str, ours: str
) -> Iterator[tuple[str, str]]:
    if architecture.resampling == "resnet":
        return _residual(theirs, ours)
    return iter([(f"{theirs}.{word}", f"{ours}.conv")])
