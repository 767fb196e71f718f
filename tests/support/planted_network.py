"""A small network of guided diffusion that denoises under a schedule and heads that are known.

`python -m tests.support.planted_network` trained it, in minutes on one core, and wrote
`data/planted_network.npz`: weights in 7 bits, with one scale a row. Tests only read that.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echogen.diffusion.schedule import make_betas
from echogen.models.guided.architecture import GuidedOptions
from echogen.types import to_model_range
from tests.support import guided_network
from tests.support.hearts import fan_frame

FILE = Path(__file__).parents[1] / "data" / "planted_network.npz"
PLANTED = GuidedOptions(noise_schedule="cosine", steps=4000, num_heads=4)
SIDE, STEPS, BATCH = 16, 900, 8
LEVELS = 63


def small_fans(seeds: range) -> np.ndarray:
    """(N, 16, 16) uint8, simulated."""
    frames = np.stack([fan_frame(seed, 84.0 + seed % 25)[0] for seed in seeds])
    shrunk = torch.nn.functional.interpolate(
        torch.from_numpy(frames)[:, None].float(), size=(SIDE, SIDE), mode="area"
    )
    return shrunk[:, 0].round().to(torch.uint8).numpy()


def load_planted() -> dict[str, Tensor]:
    """The state dict, float32; 3 -> 6 channels, one level of 32."""
    with np.load(FILE) as arrays:
        names = [name for name in arrays if not name.endswith("/scale")]
        return {
            name: torch.from_numpy(arrays[name] * arrays[f"{name}/scale"].astype(np.float32))
            for name in names
        }


def train(steps: int = STEPS, batch: int = BATCH) -> dict[str, Tensor]:
    """Adam on the plain loss of the noise; the heads weigh enough to matter from the start."""
    torch.manual_seed(0)
    state = guided_network.random_state((32,))
    for name in state:
        if name.endswith(("qkv.weight", "proj_out.weight")):
            state[name] *= 2
    for value in state.values():
        value.requires_grad_()
    frames = torch.from_numpy(to_model_range(small_fans(range(100, 400))))[:, None]
    alphas_cumprod = torch.from_numpy(
        np.cumprod(1 - make_betas("squaredcos_cap_v2", PLANTED.steps))
    ).float()
    optimiser = torch.optim.Adam(state.values(), lr=4e-3)
    for step in range(steps):
        x0 = frames[torch.randint(len(frames), (batch,))].expand(-1, 3, -1, -1)
        t = torch.randint(PLANTED.steps, (batch,))
        abar, noise = alphas_cumprod[t][:, None, None, None], torch.randn(x0.shape)
        noisy = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
        predicted = guided_network.forward(state, noisy, t, heads=PLANTED.num_heads)[:, :3]
        loss = (predicted - noise).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        if step % 100 == 0:
            print(step, float(loss.detach()), file=sys.stderr, flush=True)
    return {name: value.detach() for name, value in state.items()}


def save_planted(state: dict[str, Tensor]) -> None:
    arrays = {}
    for name, value in state.items():
        values = value.numpy()
        largest = np.abs(values).reshape(len(values), -1).max(axis=1)
        scale = (largest / LEVELS + 1e-8).astype(np.float16).reshape(-1, *[1] * (values.ndim - 1))
        scale = np.maximum(scale, np.float16(1e-6))
        arrays[f"{name}/scale"] = scale
        arrays[name] = np.clip(np.rint(values / scale.astype(np.float32)), -LEVELS, LEVELS).astype(
            "i1"
        )
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_planted(train())
