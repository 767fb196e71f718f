"""diffusers' `UNet2DModel` for sampling: the same function without costs that a sampler can avoid.

All samples of a batch are at one timestep, so the time embedding is one row, and its effect on
every residual block is an affine map that folds into a bias or into a group norm's weights: one
vector, computed in float32 and kept for each timestep. Queries, keys and values are one product;
activations and sums are in place; channels stay last; divisions by 1 are left out. On a CPU,
doubling the size before a 3 x 3 convolution becomes one transposed convolution, at 4/9 of its
products. Every change is exact but for rounding: `tests/diffusion/test_fast.py`.
"""

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from echogen.diffusion.unet_modules import UNetModules

KEPT_TIMESTEPS = 1024  # of some 20 KB each
SMALL = 1024  # pixels; below, torch takes another way through group norms


class FastUNet(nn.Module):
    """A `UNet2DModel`, rebuilt for sampling from its own modules, or from `UNetModules`.

    Attributes:
        sizes: how the vector of `modulation` is shared out among residual blocks, in their order.
    """

    def __init__(self, unet: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """Takes the network's modules over and moves them to the device and type.

        Args:
            unet: a network that `is_supported`, in float32.
            device, dtype: where and in what precision it is to run; timesteps stay in float32.
        """
        super().__init__()
        parts = cast(Any, unet)
        transposed = device.type == "cpu"
        self.conv_in = parts.conv_in
        self.down = nn.ModuleList(_Stage(block, transposed) for block in parts.down_blocks)
        self.middle = nn.ModuleList()
        if parts.mid_block is not None:
            first, *others = parts.mid_block.resnets
            self.middle.append(_Residual(first))
            for attention, block in zip(parts.mid_block.attentions, others, strict=True):
                if attention is not None:
                    self.middle.append(_Attention(attention))
                self.middle.append(_Residual(block))
        self.up = nn.ModuleList(_Stage(block, transposed) for block in parts.up_blocks)
        self.norm_out, self.conv_out = parts.conv_norm_out, parts.conv_out
        self.time = [copy.deepcopy(parts.time_proj), copy.deepcopy(parts.time_embedding)]
        maps = [block.modulation() for block in _residuals(self)]
        self.sizes = [len(bias) for _, bias in maps]
        self.weight = torch.cat([weight for weight, _ in maps]).to(device)
        self.bias = torch.cat([bias for _, bias in maps]).to(device)
        for module in self.time:
            module.to(device)
        self._kept: dict[float, Tensor] = {}
        self.eval().requires_grad_(False)
        self.to(device, dtype)
        cast(Any, self.to)(memory_format=torch.channels_last)
        self.dtype = dtype

    def modulation(self, t: float) -> Tensor:
        """What timestep t does to all residual blocks: (sum of `sizes`,) in the network's type."""
        if t not in self._kept:
            if len(self._kept) >= KEPT_TIMESTEPS:
                self._kept.clear()
            projection, embedding = self.time
            timestep = torch.full((1,), t, dtype=torch.float32, device=self.weight.device)
            row = functional.silu(embedding(projection(timestep)))
            self._kept[t] = functional.linear(row, self.weight, self.bias)[0].to(self.dtype)
        return self._kept[t]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The raw output for one batch.

        Args:
            x: (B, C, H, W) in the network's type, channels last.
            modulation: of the batch's timestep.

        Returns:
            (B, C', H, W) as `UNet2DModel` gives it.
        """
        shares = iter(torch.split(modulation, self.sizes))
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down:
            x = stage(x, shares, skips)
        for module in self.middle:
            x = module(x, next(shares)) if isinstance(module, _Residual) else module(x)
        for stage in self.up:
            x = stage(x, shares, skips)
        output: Tensor = self.conv_out(functional.silu(normalise(self.norm_out, x), inplace=True))
        return output


def is_supported(unet: nn.Module) -> bool:
    """Whether a network is built of what `FastUNet` knows; others are run as they are."""
    if isinstance(unet, UNetModules):
        return True
    if type(unet).__name__ != "UNet2DModel":
        return False
    config = cast(Any, unet).config
    stages = {"DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"}
    return (
        {*config["down_block_types"], *config["up_block_types"]} <= stages
        and config["mid_block_type"] in ("UNetMidBlock2D", None)
        and config["time_embedding_type"] == "positional"
        and config["act_fn"] in ("silu", "swish")
        and config["class_embed_type"] is None
        and config["num_class_embeds"] is None
        and not config["center_input_sample"]
        and config["resnet_time_scale_shift"] in ("default", "scale_shift")
        and config["downsample_type"] in ("conv", "resnet")
        and config["upsample_type"] in ("conv", "resnet")
    )


class _Residual(nn.Module):
    """diffusers' `ResnetBlock2D`; the time enters as a share of the modulation."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = (
            block.norm1, block.conv1, block.norm2, block.conv2,
        )  # fmt: skip
        self.time_projection = [block.time_emb_proj]  # in a list: it does not go to the device
        self.shortcut = block.conv_shortcut
        self.resample = block.upsample or block.downsample
        self.scaled = block.time_embedding_norm == "scale_shift"
        self.divisor = float(block.output_scale_factor)

    def modulation(self) -> tuple[Tensor, Tensor]:
        """The affine map from the time embedding, weight (n, E) and bias (n,), to this share.

        That is the first convolution's bias with the time added, or the weight w (1 + scale) and
        the bias b (1 + scale) + shift of the second norm with the time's scale and shift.
        """
        weight, bias = self.time_projection[0].weight, self.time_projection[0].bias
        if not self.scaled:
            return weight, bias + self.conv1.bias
        of_scale, of_shift = weight.chunk(2)
        scale, shift = bias.chunk(2)
        w, b = self.norm2.weight, self.norm2.bias
        return (
            torch.cat([w[:, None] * of_scale, b[:, None] * of_scale + of_shift]),
            torch.cat([w * (1.0 + scale), b * (1.0 + scale) + shift]),
        )

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        h = functional.silu(normalise(self.norm1, x), inplace=True)
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        if self.scaled:
            h = normalise(self.norm2, self.conv1(h), *share.chunk(2))
        else:
            h = normalise(self.norm2, functional.conv2d(h, self.conv1.weight, share, padding=1))
        h = cast(Tensor, self.conv2(functional.silu(h, inplace=True)))
        h += x if self.shortcut is None else self.shortcut(x)
        return h if self.divisor == 1.0 else h / self.divisor


class _Attention(nn.Module):
    """diffusers' `Attention` over pixels, with its residual."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm, self.out, self.heads = block.group_norm, block.to_out[0], block.heads
        taken = (block.to_q, block.to_k, block.to_v)
        self.weight = nn.Parameter(torch.cat([linear.weight for linear in taken]))
        self.bias = nn.Parameter(torch.cat([linear.bias for linear in taken]))
        self.divisor = float(block.rescale_output_factor)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        batch, channels, height, width = x.shape
        rows = x if self.norm is None else normalise(self.norm, x)
        rows = rows.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = functional.linear(rows, self.weight, self.bias)
        q, k, v = qkv.view(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        rows = cast(Tensor, self.out(mixed.transpose(1, 2).flatten(2)))
        h = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        h += x
        return h if self.divisor == 1.0 else h / self.divisor


class _Stage(nn.Module):
    """A down or an up block of diffusers: residual blocks with attention, then another size."""

    def __init__(self, block: Any, transposed: bool) -> None:
        super().__init__()
        self.rising = hasattr(block, "upsamplers")
        self.residuals = nn.ModuleList(_Residual(resnet) for resnet in block.resnets)
        attentions = getattr(block, "attentions", [])
        self.attentions = nn.ModuleList(_Attention(attention) for attention in attentions)
        self.resize: nn.Module | None = None
        (resize,) = (block.upsamplers if self.rising else block.downsamplers) or [None]
        if resize is not None:
            if hasattr(resize, "conv1"):
                self.resize = _Residual(resize)
            else:
                self.resize = _Double(resize.conv, transposed) if self.rising else resize

    def forward(self, x: Tensor, shares: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """Takes the skip connections from `skips` going up, and leaves them there going down."""
        for i, residual in enumerate(self.residuals):
            if self.rising:
                x = torch.cat([x, skips.pop()], dim=1)
            x = residual(x, next(shares))
            if len(self.attentions):
                x = self.attentions[i](x)
            if not self.rising:
                skips.append(x)
        if self.resize is not None:
            x = (
                self.resize(x, next(shares))
                if isinstance(self.resize, _Residual)
                else self.resize(x)
            )
            if not self.rising:
                skips.append(x)
        return x


class _Double(nn.Module):
    """Each pixel doubled both ways, then a 3 x 3 convolution.

    Convolving a doubled image with K is the transposed convolution of stride 2 of the image with K
    convolved with a 2 x 2 box: 16 products an input pixel in place of 36.
    """

    def __init__(self, conv: Any, transposed: bool) -> None:
        super().__init__()
        self.conv = None if transposed else conv
        if transposed:
            box = functional.conv2d(
                conv.weight.reshape(-1, 1, 3, 3), torch.ones(1, 1, 2, 2), padding=1
            )
            kernel = box.view(*conv.weight.shape[:2], 4, 4).flip(2, 3).transpose(0, 1)
            self.weight = nn.Parameter(kernel.contiguous())
            self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', 2 H, 2 W)."""
        if self.conv is None:
            return functional.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1)[:, :, None, :, None]
        rows = rows.expand(batch, height, 2, width, 2, channels)
        rows = rows.reshape(batch, 2 * height, 2 * width, channels)
        doubled: Tensor = self.conv(rows.permute(0, 3, 1, 2))
        return doubled


def normalise(
    norm: nn.GroupNorm, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """`norm` of x, with its own weight and bias or others, both (C,).

    Small images of 16 bits on a CPU go through float32, where torch normalises them up to seven
    times faster.
    """
    weight, bias = norm.weight if weight is None else weight, norm.bias if bias is None else bias
    if x.device.type == "cpu" and x.dtype != torch.float32 and x.shape[2:].numel() < SMALL:
        wide = functional.group_norm(
            x.float(), norm.num_groups, weight.float(), bias.float(), norm.eps
        )
        return wide.to(x.dtype)
    return functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)


def _residuals(network: FastUNet) -> list[_Residual]:
    """In the order in which they take their shares."""
    found: list[_Residual] = []
    for stage in [*network.down, *network.middle, *network.up]:
        found += [module for module in stage.modules() if isinstance(module, _Residual)]
    return found
