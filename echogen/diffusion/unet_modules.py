"""The modules of diffusers' `UNet2DModel` without diffusers, whose import takes seconds.

They have diffusers' names, so that its weights load into them, and hold what `FastUNet` takes over;
only that knows how they work together. Networks of other parts are built by diffusers itself.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from echogen.diffusion.unet_config import UNetConfig

BLOCKS = {"DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"}
ONLY = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_padding": (1,),
    "downsample_type": ("conv",),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}


def can_build(config: UNetConfig) -> bool:
    """Whether `UNetModules` has all parts of a network; what is not known of it may mean any."""
    return (
        all(name.startswith("_") for name in config.model_extra or ())
        and {*config.down_block_types, *config.up_block_types} <= BLOCKS
        and all(getattr(config, name) in allowed for name, allowed in ONLY.items())
    )


class UNetModules(nn.Module):
    """What a `UNet2DModel` of a configuration consists of; it cannot be called.

    Attributes:
        config: {argument: value}, all of them.
    """

    def __init__(self, config: UNetConfig) -> None:
        """Builds the modules.

        Args:
            config: one that `can_build` accepts.
        """
        super().__init__()
        self.config = config.model_dump()
        widths, layers = self.config["block_out_channels"], self.config["layers_per_block"]
        first, last = widths[0], widths[-1]
        self.conv_in = nn.Conv2d(self.config["in_channels"], first, 3, padding=1)
        self.time_proj = _Timesteps(
            first, self.config["flip_sin_to_cos"], self.config["freq_shift"]
        )
        self.time_embedding = _TimeEmbedding(first)
        down = []
        for i, kind in enumerate(self.config["down_block_types"]):
            into = [widths[max(i - 1, 0)], *[widths[i]] * (layers - 1)]
            block = _Block(self.config, kind, into, widths[i])
            ends = i == len(widths) - 1
            block.downsamplers = None if ends else nn.ModuleList([_Resize(widths[i], stride=2)])
            down.append(block)
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = _Middle(self.config, last)
        up, before = [], last
        for i, kind in enumerate(self.config["up_block_types"]):
            width, below = widths[-1 - i], widths[max(len(widths) - 2 - i, 0)]
            into = [before, *[width] * layers]
            skips = [*[width] * layers, below]
            both = [a + b for a, b in zip(into, skips, strict=True)]
            block = _Block(self.config, kind, both, width)
            ends = i == len(widths) - 1
            block.upsamplers = None if ends else nn.ModuleList([_Resize(width)])
            up.append(block)
            before = width
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = _norm(self.config, first)
        self.conv_out = nn.Conv2d(first, self.config["out_channels"], 3, padding=1)


class _Block(nn.Module):
    """`DownBlock2D`, `AttnDownBlock2D`, `UpBlock2D` or `AttnUpBlock2D`."""

    downsamplers: nn.ModuleList | None
    upsamplers: nn.ModuleList | None

    def __init__(self, config: Mapping[str, Any], kind: str, into: list[int], width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(config, channels, width) for channels in into)
        if kind.startswith("Attn"):
            groups = config["norm_num_groups"]
            self.attentions = nn.ModuleList(_Attention(config, width, groups) for _ in into)


class _Middle(nn.Module):
    """`UNetMidBlock2D`, whose attention has a norm only beside the "default" kind of time."""

    def __init__(self, config: Mapping[str, Any], width: int) -> None:
        super().__init__()
        scale, groups = config["mid_block_scale_factor"], config["attn_norm_num_groups"]
        if groups is None and config["resnet_time_scale_shift"] == "default":
            groups = config["norm_num_groups"]
        has = config["add_attention"]
        self.attentions = nn.ModuleList(
            [_Attention(config, width, groups, scale)] if has else [None]  # type: ignore[list-item]
        )
        self.resnets = nn.ModuleList(_Resnet(config, width, width, scale) for _ in range(2))


class _Resnet(nn.Module):
    """`ResnetBlock2D`."""

    upsample = downsample = None

    def __init__(
        self, config: Mapping[str, Any], into: int, width: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.time_embedding_norm, self.output_scale_factor = (
            config["resnet_time_scale_shift"], scale,
        )  # fmt: skip
        embedding = 4 * config["block_out_channels"][0]
        self.norm1, self.norm2 = _norm(config, into), _norm(config, width)
        self.conv1 = nn.Conv2d(into, width, 3, padding=1)
        scaled = self.time_embedding_norm == "scale_shift"
        self.time_emb_proj = nn.Linear(embedding, 2 * width if scaled else width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = None if into == width else nn.Conv2d(into, width, 1)


class _Attention(nn.Module):
    """`Attention` over the pixels of a picture."""

    def __init__(
        self, config: Mapping[str, Any], width: int, groups: int | None, scale: float = 1.0
    ) -> None:
        super().__init__()
        head = config["attention_head_dim"]
        self.heads, self.rescale_output_factor = width // (width if head is None else head), scale
        inner = width if head is None else self.heads * head
        self.group_norm = (
            None if groups is None else nn.GroupNorm(groups, width, eps=config["norm_eps"])
        )
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])


class _Resize(nn.Module):
    """`Upsample2D` and `Downsample2D`; the second is nothing but its convolution."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/stride, W/stride)."""
        smaller: Tensor = self.conv(x)
        return smaller


class _Timesteps(nn.Module):
    """`Timesteps`: sines and cosines of a timestep (Ho et al. 2020, 2006.11239)."""

    def __init__(self, width: int, cosines_first: bool, shift: float) -> None:
        super().__init__()
        self.width, self.cosines_first, self.shift = width, cosines_first, shift

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) to (B, width)."""
        half = self.width // 2
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32)
        frequencies = torch.exp(exponent / (half - self.shift)).to(timesteps.device)
        angles = timesteps[:, None].float() * frequencies
        parts = (angles.cos(), angles.sin()) if self.cosines_first else (angles.sin(), angles.cos())
        return functional.pad(torch.cat(parts, dim=-1), (0, self.width % 2))


class _TimeEmbedding(nn.Module):
    """`TimestepEmbedding`, four times as wide as what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) to (B, 4 width)."""
        embedded: Tensor = self.linear_2(functional.silu(self.linear_1(x)))
        return embedded


def _norm(config: Mapping[str, Any], width: int) -> nn.GroupNorm:
    return nn.GroupNorm(config["norm_num_groups"], width, eps=config["norm_eps"])
