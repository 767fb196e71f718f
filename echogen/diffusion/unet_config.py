"""What a network's `config.json` may say: the arguments of diffusers' `UNet2DModel`, in bounds.

It is checked before anything is built, without torch; the weights that lie beside it bound how
large a network it may ask for.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from echogen.diffusion.weights import TensorHeader
from echogen.errors import CheckpointError
from echogen.support.settings import Settings, explain, shown

MOST_PARAMETERS = 10**9
"""Of a network; 4 GB in float32."""

Count = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Side = Annotated[int, Field(strict=True, ge=1, le=4096)]
Flag = Annotated[bool, Field(strict=True)]
Down = Literal[
    "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D",
    "AttnSkipDownBlock2D",
]  # fmt: skip
Up = Literal[
    "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"
]
MOST_LEVELS = 16


class UNetConfig(Settings, extra="allow"):
    """Arguments of `UNet2DModel` with diffusers' defaults, as far as samplers can use them.

    They call a network with an image and any timestep: one that is conditioned on classes, or has
    learned a vector for each whole timestep, is refused.
    """

    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    add_attention: Flag = True
    attention_head_dim: Count | None = 8
    attn_norm_num_groups: Count | None = None
    block_out_channels: tuple[Count, ...] = Field(
        default=(224, 448, 672, 896), min_length=1, max_length=MOST_LEVELS
    )
    center_input_sample: Flag = False
    class_embed_type: None = None
    down_block_types: tuple[Down, ...] = Field(
        default=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        max_length=MOST_LEVELS,
    )
    downsample_padding: int = Field(default=1, strict=True, ge=0, le=1)
    downsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = Field(default=0.0, strict=True, ge=0, lt=1)
    flip_sin_to_cos: Flag = True
    freq_shift: float = Field(default=0, strict=True, ge=0, le=1)
    in_channels: Count = 3
    layers_per_block: int = Field(default=2, strict=True, ge=1, le=64)
    mid_block_scale_factor: float = Field(default=1, strict=True, ge=1e-3, le=1e3)
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    norm_eps: float = Field(default=1e-5, strict=True, gt=1e-12, le=1)
    norm_num_groups: Count = 32
    num_class_embeds: None = None
    num_train_timesteps: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    out_channels: Count = 3
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    sample_size: Side | tuple[Side, Side] | None = None
    time_embedding_dim: Count | None = None
    time_embedding_type: Literal["positional", "fourier"] = "positional"
    up_block_types: tuple[Up, ...] = Field(
        default=("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        max_length=MOST_LEVELS,
    )
    upsample_type: Literal["conv", "resnet"] = "conv"

    @field_validator("block_out_channels")
    @classmethod
    def _of_a_time(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] < 4:
            raise ValueError(f"the first must be 4 or more, got {value[0]}")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        widths = self.block_out_channels
        for name in ("down_block_types", "up_block_types"):
            if len(getattr(self, name)) != len(widths):
                raise ValueError(
                    f"{name}: one for each of {len(widths)} block_out_channels is needed, got "
                    f"{len(getattr(self, name))}"
                )
        for name in ("norm_num_groups", "attn_norm_num_groups"):
            groups = getattr(self, name)
            if wrong := [width for width in widths if groups and width % groups]:
                raise ValueError(f"{name}: must divide all widths, got {groups} for {wrong[0]}")
        head = self.attention_head_dim
        pairs = [*zip(widths, self.down_block_types, strict=True),
                 *zip(widths, reversed(self.up_block_types), strict=True)]  # fmt: skip
        attended = [width for width, kind in pairs if kind.startswith("Attn")]
        attended += [widths[-1]] if self.add_attention and self.mid_block_type else []
        if head and attended and head > min(attended):
            raise ValueError(f"attention_head_dim: at most {min(attended)} is possible, got {head}")
        return self

    @property
    def levels(self) -> int:
        """How many sizes of picture there are; each is half of the one before."""
        return len(self.block_out_channels)

    @property
    def least_parameters(self) -> int:
        """Weights of such a network, at least: 3 x 3 convolutions at each level's width."""
        widths = self.block_out_channels
        inside = sum((2 * self.layers_per_block + 1) * width**2 for width in widths)
        return 9 * (inside + widths[0] * (self.in_channels + self.out_channels))


def read_unet(
    config: Mapping[str, Any], header: Mapping[str, TensorHeader], source: object, weights: object
) -> UNetConfig:
    """A configuration of `UNet2DModel`, if its weights are there; unknown keys are kept.

    Args:
        config: {name: value}.
        header: of the weights' file.
        source, weights: whose they are, for messages.

    Raises:
        CheckpointError: it is of another class, a value is not known or out of range, or the
            network would be larger than the file.
    """
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise CheckpointError(f"{source}: expected a UNet2DModel, found {shown(name)}")
    try:
        read = UNetConfig.model_validate(config)
    except ValidationError as error:
        raise CheckpointError(
            f"{source}: is not a valid network configuration: {explain(error, UNetConfig)}"
        ) from error
    found, needed = sum(tensor.count for tensor in header.values()), read.least_parameters
    if found < needed:
        raise CheckpointError(
            f"{weights}: does not fit the configuration beside it, whose network has {needed:,} "
            f"weights or more; the file holds {found:,}"
        )
    if found > MOST_PARAMETERS:
        raise CheckpointError(
            f"{weights}: holds {found:,} weights, expected at most {MOST_PARAMETERS:,}"
        )
    return read
