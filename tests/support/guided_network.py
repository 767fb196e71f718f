"""The U-Net of guided diffusion as one function over its state dict: a reference to test against.

Written from the papers (2102.09672, 2105.05233) and checked against recorded outputs; it shares
nothing with `echogen.models`.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


def forward(
    state: State,
    x: Tensor,
    t: Tensor,
    *,
    heads: int | None = None,
    head_channels: int | None = None,
    new_order: bool = False,
) -> Tensor:
    """The raw output for images (B, C, H, W) at timesteps (B,)."""
    width = state["time_embed.0.weight"].shape[1]
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = t[:, None].float() * rates
    time = _linear(state, "time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1))
    time = _linear(state, "time_embed.2", functional.silu(time))

    def module(name: str, x: Tensor) -> Tensor:
        if f"{name}.in_layers.2.weight" in state:
            resample = _resampling_of(state, name)
            return _residual(state, name, x, time, resample)
        if f"{name}.qkv.weight" in state:
            count = heads or x.shape[1] // (head_channels or 1)
            return _attention(state, name, x, count, new_order)
        if f"{name}.op.weight" in state:
            return _conv(state, f"{name}.op", x, stride=2)
        if f"{name}.conv.weight" in state:
            return _conv(state, f"{name}.conv", functional.interpolate(x, scale_factor=2))
        return _conv(state, name, x)

    skips = []
    for number in range(_count(state, "input_blocks")):
        for name in _modules(state, f"input_blocks.{number}"):
            x = module(name, x)
        skips.append(x)
    for name in _modules(state, "middle_block"):
        x = module(name, x)
    for number in range(_count(state, "output_blocks")):
        x = torch.cat([x, skips.pop()], dim=1)
        for name in _modules(state, f"output_blocks.{number}"):
            x = module(name, x)
    return _conv(state, "out.2", functional.silu(_norm(state, "out.0", x)))


def random_state(
    channels: tuple[int, ...],
    *,
    blocks: int = 1,
    attention: tuple[int, ...] = (),
    into: int = 3,
    out: int = 6,
    scale_shift: bool = True,
    residual_resampling: bool = False,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """A random state dict; `attention` names levels. On the device "meta" only shapes."""
    state: dict[str, Tensor] = {}
    emb = 4 * channels[0]

    def weighted(name: str, *shape: int) -> None:
        scale = 1 / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.weight"] = torch.randn(shape, device=device) * scale
        state[f"{name}.bias"] = torch.randn(shape[0], device=device) * 0.1

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, device=device)
        state[f"{name}.bias"] = 0.1 * torch.randn(width, device=device)

    def residual(name: str, before: int, after: int) -> None:
        norm(f"{name}.in_layers.0", before)
        weighted(f"{name}.in_layers.2", after, before, 3, 3)
        weighted(f"{name}.emb_layers.1", after * (1 + scale_shift), emb)
        norm(f"{name}.out_layers.0", after)
        weighted(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            weighted(f"{name}.skip_connection", after, before, 1, 1)

    def attend(name: str, width: int) -> None:
        norm(f"{name}.norm", width)
        weighted(f"{name}.qkv", 3 * width, width, 1)
        weighted(f"{name}.proj_out", width, width, 1)

    def resample(name: str, word: str, width: int) -> None:
        if residual_resampling:
            residual(name, width, width)
        else:
            weighted(f"{name}.{word}", width, width, 3, 3)

    weighted("time_embed.0", emb, channels[0])
    weighted("time_embed.2", emb, emb)
    weighted("input_blocks.0.0", channels[0], into, 3, 3)
    number, width, skips = 1, channels[0], [channels[0]]
    for level, after in enumerate(channels):
        for _ in range(blocks):
            residual(f"input_blocks.{number}.0", width, after)
            if level in attention:
                attend(f"input_blocks.{number}.1", after)
            width = after
            skips.append(width)
            number += 1
        if level < len(channels) - 1:
            resample(f"input_blocks.{number}.0", "op", width)
            skips.append(width)
            number += 1
    residual("middle_block.0", width, width)
    attend("middle_block.1", width)
    residual("middle_block.2", width, width)
    number = 0
    for level in reversed(range(len(channels))):
        for block in range(blocks + 1):
            name = f"output_blocks.{number}"
            residual(f"{name}.0", width + skips.pop(), channels[level])
            width = channels[level]
            if level in attention:
                attend(f"{name}.1", width)
            if level and block == blocks:
                resample(f"{name}.{1 + (level in attention)}", "conv", width)
            number += 1
    norm("out.0", width)
    weighted("out.2", out, width, 3, 3)
    return state


def _residual(state: State, name: str, x: Tensor, time: Tensor, resample: str | None) -> Tensor:
    h = functional.silu(_norm(state, f"{name}.in_layers.0", x))
    if resample == "up":
        x, h = (functional.interpolate(y, scale_factor=2) for y in (x, h))
    elif resample == "down":
        x, h = (functional.avg_pool2d(y, 2) for y in (x, h))
    h = _conv(state, f"{name}.in_layers.2", h)
    shift = _linear(state, f"{name}.emb_layers.1", functional.silu(time))[:, :, None, None]
    if shift.shape[1] == 2 * h.shape[1]:
        scale, shift = shift.chunk(2, dim=1)
        h = _norm(state, f"{name}.out_layers.0", h) * (1 + scale) + shift
    else:
        h = _norm(state, f"{name}.out_layers.0", h + shift)
    h = _conv(state, f"{name}.out_layers.3", functional.silu(h))
    skip = f"{name}.skip_connection"
    return h + (_conv(state, skip, x) if f"{skip}.weight" in state else x)


def _attention(state: State, name: str, x: Tensor, heads: int, new_order: bool) -> Tensor:
    batch, channels = x.shape[:2]
    h = _norm(state, f"{name}.norm", x).flatten(2)
    qkv = functional.conv1d(h, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
    shape = (batch, 3, heads, -1, h.shape[2]) if new_order else (batch, heads, 3, -1, h.shape[2])
    q, k, v = qkv.reshape(shape).unbind(1 if new_order else 2)
    weight = torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(channels // heads)
    mixed = torch.einsum("bhts,bhcs->bhct", weight.softmax(dim=-1), v).reshape(h.shape)
    out = functional.conv1d(mixed, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"])
    return x + out.reshape(x.shape)


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = weight.shape[-1] // 2
    return functional.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=padding)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _resampling_of(state: State, name: str) -> str | None:
    """Of a residual block: up where it comes last in its output block, down by its number."""
    stem, number, place = name.split(".") if name.count(".") == 2 else (name, "", "")
    if stem == "output_blocks" and place != "0":
        return "up"
    rises = [key for key in state if _is_rising_residual(key)]
    if stem == "input_blocks" and rises:
        blocks = _count(state, "output_blocks") // (len(rises) + 1)
        return "down" if int(number) % blocks == 0 else None
    return None


def _is_rising_residual(key: str) -> bool:
    parts = key.split(".")
    return parts[0] == "output_blocks" and parts[2] != "0" and key.endswith("in_layers.2.weight")


def _count(state: State, stem: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{stem}."))


def _modules(state: State, stem: str) -> list[str]:
    depth = stem.count(".") + 2
    found = {".".join(n.split(".")[:depth]) for n in state if n.startswith(f"{stem}.")}
    return sorted(found)
