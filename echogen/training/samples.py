"""Unconditional samples while training, as a picture to look at.

Ancestral sampling over evenly respaced steps with x0 clipped to [-1, 1] and the posterior's small
variance (Ho et al. 2020, 2006.11239, equations 6 and 7).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from echogen.training.loss import Predict


@torch.no_grad()
def draw_samples(
    predict: Predict,
    abar: Tensor,
    prediction: str,
    noise_shape: tuple[int, int, int, int],
    *,
    patch: int,
    steps: int,
    seed: int,
) -> npt.NDArray[np.uint8]:
    """(B, S, S) uint8 images of one channel.

    Args:
        predict: the network, in evaluation mode.
        abar: (T,), on the device to sample on.
        prediction: "v_prediction" or "epsilon".
        noise_shape: (B, 1, S, S).
        patch: space-to-depth factor.
        steps: network evaluations.
        seed: of the noise, drawn on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    device = abar.device

    def noise() -> Tensor:
        drawn = torch.randn(noise_shape, generator=generator).to(device)
        return functional.pixel_unshuffle(drawn, patch)

    times = np.linspace(len(abar) - 1, 0, steps).round().astype(int)
    x_t = noise()
    for index, time in enumerate(times):
        abar_t = abar[time]
        last = index + 1 == len(times)
        abar_next = torch.ones((), device=device) if last else abar[times[index + 1]]
        t = torch.full((noise_shape[0],), int(time), device=device)
        output = predict(x_t, t).float()
        if prediction == "v_prediction":
            x0 = abar_t.sqrt() * x_t - (1 - abar_t).sqrt() * output
        else:
            x0 = (x_t - (1 - abar_t).sqrt() * output) / abar_t.sqrt()
        x0 = x0.clamp(-1, 1)
        beta = 1 - abar_t / abar_next
        x_t = (
            abar_next.sqrt() * beta / (1 - abar_t) * x0
            + (1 - beta).sqrt() * (1 - abar_next) / (1 - abar_t) * x_t
        )
        if not last:
            x_t = x_t + ((1 - abar_next) / (1 - abar_t) * beta).sqrt() * noise()
    images = functional.pixel_shuffle(x_t, patch)[:, 0]
    levels: npt.NDArray[np.uint8] = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    return levels


def write_sheet(file: Path, images: npt.NDArray[np.uint8], columns: int = 8) -> None:
    """A PNG of (B, S, S) images in rows of `columns`, one pixel apart."""
    from PIL import Image

    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1), columns * (width + 1)), 96, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(file)
