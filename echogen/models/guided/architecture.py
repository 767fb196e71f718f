"""What is known of a U-Net of guided diffusion (Dhariwal and Nichol 2021, 2105.05233).

The architecture is read off the shapes of a state dict. What they leave open is in `GuidedOptions`:
the noise schedule, and how the product of queries, keys and values is cut into heads.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from echogen.errors import CheckpointError
from echogen.support.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

NoiseSchedule = Literal["linear", "cosine"]

LOWEST_SIDE = 8


class GuidedOptions(Settings):
    """Options that a state dict's shapes do not determine, by guided diffusion's names.

    Attributes:
        noise_schedule: "linear" (1e-4 to 0.02 for 1,000 steps, in proportion for others) or
            "cosine" (Nichol and Dhariwal 2021, 2102.09672, eq. 17).
        steps: of diffusion in training.
        num_head_channels: width of an attention head; or
        num_heads: how many heads; exactly one of the two is given.
        new_attention_order: True where all queries come first, then all keys, then all values;
            False (guided diffusion's default) where each head has its own three together.
    """

    noise_schedule: NoiseSchedule
    steps: int = Field(ge=1, le=100_000, strict=True)
    num_head_channels: int | None = Field(default=None, ge=1, le=65_536, strict=True)
    num_heads: int | None = Field(default=None, ge=1, le=65_536, strict=True)
    new_attention_order: bool = Field(default=False, strict=True)


@dataclass(frozen=True)
class GuidedArchitecture:
    """What the shapes determine.

    Attributes:
        in_channels, out_channels: twice as many out where the variance is learned.
        channels: of each level, the finest first.
        blocks: residual blocks a level.
        attention: whether a level has attention; the middle always has.
        scale_shift: whether the time scales and shifts, or only shifts.
        resampling: by a convolution, or by a residual block.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    scale_shift: bool
    resampling: Literal["conv", "resnet"]

    @property
    def learned_variance(self) -> bool:
        """Whether half of the output says where the variance lies in its range."""
        return self.out_channels == 2 * self.in_channels

    @property
    def attended(self) -> tuple[int, ...]:
        """The widths, in channels, at which there is attention, sorted."""
        levels = zip(self.channels, self.attention, strict=True)
        return tuple(sorted({width for width, has in levels if has} | {self.channels[-1]}))

    @property
    def usual_image_size(self) -> int:
        """The image's side if the coarsest level is 8 x 8, as in all published configurations."""
        return LOWEST_SIDE * self.least_side

    @property
    def least_side(self) -> int:
        """The side of an image that the coarsest level sees as one pixel."""
        return 1 << (len(self.channels) - 1)


def read_architecture(state: "Mapping[str, Tensor]") -> GuidedArchitecture:
    """The architecture behind the names and shapes of a state dict.

    Raises:
        CheckpointError: it is conditioned on classes, a classifier, resamples without weights, or
            is otherwise not an unconditional image model of guided diffusion.
    """
    flat = [name for name, value in state.items() if not value.ndim]
    needed = ("time_embed.0.weight", "input_blocks.0.0.weight")
    flat += [name for name in needed if name in state and state[name].ndim < 2]
    if flat:
        raise CheckpointError(
            f"{flat[0]} has shape {tuple(state[flat[0]].shape)}: not a guided-diffusion model."
        )
    if "label_emb.weight" in state:
        raise CheckpointError(
            "class-conditional (label_emb.weight): echogen paints with unconditional models only."
        )
    inputs, outputs = _count(state, "input_blocks"), _count(state, "output_blocks")
    if inputs and not outputs:
        raise CheckpointError("a classifier (no output_blocks); expected an image model.")
    if absent := [name for name in (*needed, "out.2.weight") if name not in state]:
        raise CheckpointError(
            f"not a guided-diffusion model: {', '.join(absent)} missing; expected the state dict "
            "of its U-Net."
        )
    present = {".".join(name.split(".")[:2]) for name in state}
    if silent := [n for n in range(inputs) if f"input_blocks.{n}" not in present]:
        raise CheckpointError(
            f"input_blocks.{silent[0]} has no weights (it halves the size by pooling): diffusers' "
            "UNet2DModel cannot express it."
        )
    rising = [_rising(state, number) for number in range(outputs)]
    levels = 1 + sum(kind is not None for kind in rising)
    if inputs != outputs or outputs % levels:
        raise CheckpointError(
            f"{inputs} input and {outputs} output blocks on {levels} levels: not a "
            "guided-diffusion U-Net."
        )
    blocks = outputs // levels - 1
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    try:
        channels = tuple(len(state[f"{first}.0.in_layers.2.weight"]) for first in firsts)
        emitted = len(state[f"{firsts[0]}.0.emb_layers.1.weight"])
    except KeyError as error:
        raise CheckpointError(f"not a guided-diffusion model: {error.args[0]} missing.") from None
    model_channels = state["time_embed.0.weight"].shape[1]
    if model_channels != channels[0] or len(state["input_blocks.0.0.weight"]) != channels[0]:
        raise CheckpointError(
            f"the first level has {channels[0]} channels and the timestep embedding "
            f"{model_channels}: diffusers' UNet2DModel needs them equal (a first multiplier of 1)."
        )
    return GuidedArchitecture(
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=len(state["out.2.weight"]),
        channels=channels,
        blocks=blocks,
        attention=tuple(f"{first}.1.qkv.weight" in state for first in firsts),
        scale_shift=emitted == 2 * channels[0],
        resampling="resnet" if "resnet" in rising else "conv",
    )


def head_width(architecture: GuidedArchitecture, options: GuidedOptions) -> int | None:
    """Channels of an attention head; None for one head at levels of different widths.

    Raises:
        CheckpointError: both or none of the two options are given, they do not divide the
            channels, or heads would have different widths, which `UNet2DModel` cannot have.
    """
    channels, heads, widths = options.num_head_channels, options.num_heads, architecture.attended
    divisor = channels or heads
    if divisor is None or (channels and heads):
        raise CheckpointError("heads: give either num_heads or num_head_channels.")
    if any(width % divisor for width in widths):
        named = f"num_head_channels {channels}" if channels else f"num_heads {heads}"
        raise CheckpointError(f"{named}: does not divide {dashed(widths)} channels of attention.")
    if channels:
        return channels
    head_widths = {width // divisor for width in widths}
    if len(head_widths) == 1:
        return head_widths.pop()
    if divisor == 1:
        return None
    raise CheckpointError(
        f"num_heads {heads}: heads over {dashed(widths)} channels would have different widths, "
        "which diffusers' UNet2DModel does not support."
    )


def _count(state: "Mapping[str, Tensor]", stem: str) -> int:
    """How many numbered modules there are: the highest number and one."""
    found = (re.match(rf"{stem}\.(\d+)\.", name) for name in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _rising(state: "Mapping[str, Tensor]", number: int) -> str | None:
    """How an output block doubles the size, if it does."""
    for place in (1, 2):
        if f"output_blocks.{number}.{place}.conv.weight" in state:
            return "conv"
        if f"output_blocks.{number}.{place}.in_layers.2.weight" in state:
            return "resnet"
    return None


def dashed(numbers: Sequence[int]) -> str:
    """64-64-128."""
    return "-".join(map(str, numbers))
