"""Train the small network that tells whether and where a picture shows a fan.

    python benchmarks/fan_network.py --work DIR

makes the pictures of `fan_pictures` (kept in DIR), trains on them, folds the normalisations into
the convolutions and writes the weights, float16, to `echogen/geometry/network.npz`. Seeded, on one
thread: about ten minutes of one core.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fan_pictures import phantom_beams, picture
from torch import Tensor, nn
from torch.nn import functional

from echogen.geometry.network import MAPS, REACH, SIDE

WIDTHS = (12, 24, 32, 40, 48)
WHOLE = 32
BATCH, RATE, WARM_UP = 48, 2e-3, 200


def block(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Network(nn.Module):
    """`echogen.geometry.network.answer`, to be trained."""

    def __init__(self) -> None:
        super().__init__()
        last = WIDTHS[-1]
        self.down = nn.ModuleList([nn.ModuleList([block(1, WIDTHS[0], 2, 5)])])
        for before, after in pairwise(WIDTHS):
            self.down.append(nn.ModuleList([block(before, after, 2), block(after, after)]))
        self.whole = nn.Linear(last * (SIDE // 32) ** 2, WHOLE)
        self.likely, self.lift = nn.Linear(WHOLE, 1), nn.Linear(WHOLE, WIDTHS[3])
        self.mix = nn.ModuleDict(
            {str(i): nn.Conv2d(WIDTHS[i + 1], WIDTHS[i], 1) for i in (3, 2, 1)}
        )
        self.up = nn.ModuleDict({str(i): block(WIDTHS[i], WIDTHS[i]) for i in (3, 2, 1)})
        self.maps = nn.Conv2d(WIDTHS[1], 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, SIDE, SIDE) in [0, 1] to maps (B, 4, MAPS, MAPS) and logits (B,)."""
        seen = []
        for level in self.down:
            for part in level:
                x = part(x)
            seen.append(x)
        whole = functional.relu(self.whole(x.flatten(1)))
        for i in (3, 2, 1):
            wide = functional.interpolate(self.mix[str(i)](x), scale_factor=2)
            if i == 3:
                wide = wide + self.lift(whole)[:, :, None, None]
            x = self.up[str(i)](seen[i] + wide)
        return self.maps(x), self.likely(whole)[:, 0]


def true_maps(fans: Tensor) -> Tensor:
    """(B, 4, MAPS, MAPS): `echogen.geometry.network.distances` of (B, 6) fans."""
    place = (torch.arange(MAPS) + 0.5) * (SIDE / MAPS)
    row, col, left, right, near, far = (fans[:, i, None, None] for i in range(6))
    down, across = place[None, :, None] - row, place[None, None, :] - col
    radius = torch.hypot(down, across)
    beside = [
        torch.cos(left) * across - torch.sin(left) * down,
        torch.sin(right) * down - torch.cos(right) * across,
        radius - near,
        far - radius,
    ]
    return torch.tanh(torch.stack(beside, 1) / REACH)


def losses(maps: Tensor, logits: Tensor, fans: Tensor) -> tuple[Tensor, Tensor]:
    shown, true = fans[:, 6], true_maps(fans)
    weight = shown[:, None, None, None] * (0.25 + (true.abs() < 0.98))
    apart = ((maps.float() - true).abs() * weight).sum() / weight.sum().clamp(min=1)
    return apart, functional.binary_cross_entropy_with_logits(logits.float(), shown)


def pictures(count: int, seed: int, beams: Any) -> tuple[Tensor, Tensor]:
    """(count, SIDE, SIDE) uint8, (count, 7): fans in pixels, and 1 where there is one."""
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    fans = np.zeros((count, 7), np.float32)
    for i in range(count):
        made = picture(np.random.default_rng([seed, i]), beams)
        images[i] = made.image
        if made.fan is not None:
            fan = made.fan
            fans[i] = (
                fan.apex_row, fan.apex_col, fan.angle_left, fan.angle_right, fan.radius_near,
                fan.radius_far, 1,
            )  # fmt: skip
        if i % 5000 == 4999:
            print(i + 1, "pictures", flush=True)
    return torch.from_numpy(images), torch.from_numpy(fans)


def varied(images: Tensor, fans: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored, every other one shifted by up to 8 pixels, at another gain."""
    x, fans = (images.float() / 255).sqrt(), fans.clone()
    flip = torch.rand(len(x), generator=generator) < 0.5
    x[flip] = x[flip].flip(-1)
    fans[flip, 2:4] = -fans[flip, 2:4].flip(-1)
    fans[flip, 1] = SIDE - fans[flip, 1]
    padded, out = functional.pad(x, (8, 8, 8, 8)), torch.empty_like(x)
    shifts = torch.randint(0, 17, (len(x), 2), generator=generator)
    shifts[::2] = 8
    for i, (row, col) in enumerate(shifts.tolist()):
        out[i] = padded[i, row : row + SIDE, col : col + SIDE]
    fans[:, :2] -= shifts - 8
    gain = torch.exp(0.25 * torch.randn(len(x), 1, 1, generator=generator))
    return (out * gain).clamp(0, 1)[:, None], fans


def checked(state: dict[str, Tensor], images: Tensor, fans: Tensor) -> dict[str, float]:
    network = Network().eval()
    network.load_state_dict(state)
    with torch.no_grad():
        answers = [network((x.float() / 255).sqrt()[:, None]) for x in images.split(100)]
    maps, logits = (torch.cat(part) for part in zip(*answers, strict=True))
    apart, unlike = losses(maps, logits, fans)
    right = ((logits > 0) == (fans[:, 6] > 0)).float().mean()
    return {"maps": float(apart), "likelihood": float(unlike), "right": float(right)}


def trained(images: Tensor, fans: Tensor, steps: int, held_out: tuple[Tensor, Tensor]) -> Any:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = Network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    mean = {name: value.detach().clone() for name, value in network.state_dict().items()}
    order: list[int] = []
    began = time.monotonic()
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(images), generator=generator).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        x, true = varied(images[chosen], fans[chosen], generator)
        falling = 0.5 + 0.5 * np.cos(np.pi * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * falling + 1e-6
        with torch.autocast("cpu", torch.bfloat16):
            maps, logits = network(x.to(memory_format=torch.channels_last))
        apart, unlike = losses(maps, logits, true)
        optimizer.zero_grad()
        (apart + 0.3 * unlike).backward()
        optimizer.step()
        keep = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.dtype.is_floating_point:
                    mean[name].lerp_(value, 1 - keep)
                else:
                    mean[name] = value.clone()
        if step % 250 == 249:
            minutes = (time.monotonic() - began) / 60
            print(step + 1, f"{minutes:.1f} min", checked(mean, *held_out), flush=True)
            yield mean
    yield mean


def folded(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The weights as `echogen.geometry.network` reads them."""
    network = Network()
    network.load_state_dict(state)
    out: dict[str, Tensor] = {}
    for name, part in network.named_modules():
        words = name.split(".")
        plain = (
            words[0] + words[1] + "".join(f".{w}" for w in words[2:]) if len(words) > 1 else name
        )
        if isinstance(part, nn.Sequential):
            convolution, norm = part[0], part[1]
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            out[f"{plain}.weight"] = convolution.weight * scale[:, None, None, None]
            out[f"{plain}.bias"] = norm.bias - norm.running_mean * scale
        elif isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.bias is not None):
            weight = part.weight
            out[f"{plain}.weight"] = weight.flatten(1) if weight.ndim == 4 else weight
            out[f"{plain}.bias"] = part.bias
    return {name: value.detach().numpy().astype(np.float16) for name, value in out.items()}


def main() -> None:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3_500)
    parser.add_argument("--out", type=Path, default=root / "echogen" / "geometry" / "network.npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    made = options.work / f"pictures_{options.pictures}_{options.phantoms}.pt"
    if not made.exists():
        beams = phantom_beams(options.phantoms, seed=777)
        held_out = pictures(1_500, 5, beams)
        torch.save((pictures(options.pictures, 1, beams), held_out), made)
    (images, fans), held_out = torch.load(made)
    for state in trained(images, fans, options.steps, held_out):
        np.savez(options.out, **folded(state))
    print(json.dumps(checked(state, *held_out)), options.out, options.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
