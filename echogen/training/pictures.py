"""Pictures to look at while a model learns: its samples, and held-out frames painted by it.

Both are made as users make them: by the samplers of `echogen sample` and `echogen expand`, the
frames with holes that moves of the latter leave.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from echogen.config import AugmentationConfig, DpmConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.presets import KNOWN_PRESETS, PRESETS
from echogen.support.files import write_whole
from echogen.types import to_model_range, to_uint8

Images = npt.NDArray[np.uint8]
"""(N, S, S) grey levels."""

GAP = 96
"""Grey level of the gaps between the images of a sheet."""

SAMPLERS = {
    conditioning: AugmentationConfig.model_validate(presets["fast"]).sampler
    for conditioning, presets in (("none", PRESETS), ("known", KNOWN_PRESETS))
}
"""What paints frames with holes, by the network's conditioning."""


@torch.inference_mode()
def draw_samples(
    denoiser: Denoiser, count: int, *, steps: int, seed: int, batch_size: int = 64
) -> Images:
    """(count, S, S) uint8 images; the first ones of a larger count are the same.

    Args:
        denoiser: an image prior.
        count: how many.
        steps: network evaluations for each.
        seed: of the noise; each image has a stream of its own.
        batch_size: at most so many at once.
    """
    if denoiser.image_size is None:
        raise ValueError("the denoiser has no image size")
    sampler = Sampler(DpmConfig(steps=steps))
    side = denoiser.image_size
    drawn = []
    for first in range(0, count, batch_size):
        seeds = _seeds(seed, 0, range(first, min(first + batch_size, count)))
        nothing = torch.zeros(len(seeds), 1, side, side)
        images = sampler(denoiser, nothing, nothing > 0, SampleNoise(seeds, denoiser.device))
        drawn.append(to_uint8(images[:, 0].cpu().numpy()))
    return np.concatenate(drawn)


def inpaint(
    denoiser: Denoiser,
    frames: Images,
    keep: npt.NDArray[np.bool_],
    *,
    seed: int,
    batch_size: int = 64,
) -> Images:
    """Frames painted where they are not kept, with `SAMPLERS`; (N, S, S).

    Args:
        denoiser: an image prior.
        frames: (N, S, S).
        keep: (N, S, S), True where known.
        seed: of the noise.
        batch_size: at most so many at once.
    """
    sampler = Sampler(SAMPLERS[denoiser.conditioning])
    painted = []
    for first in range(0, len(frames), batch_size):
        part = slice(first, first + batch_size)
        image = torch.from_numpy(to_model_range(frames[part]))[:, None]
        kept = torch.from_numpy(keep[part])[:, None]
        seeds = _seeds(seed, 1, range(first, first + len(image)))
        shown = torch.where(kept, image, -1.0)
        result = sampler(denoiser, shown, kept, SampleNoise(seeds, denoiser.device))
        painted.append(to_uint8(result[:, 0].cpu().numpy()))
    return np.concatenate(painted)


def inpainting_sheet(frames: Images, keep: npt.NDArray[np.bool_], painted: Images) -> Images:
    """(H, W): a row for each frame, with the frame, what was hidden (light), and painted."""
    covered = np.where(keep, frames, 160).astype(np.uint8)
    triplets = np.stack([frames, covered, painted], axis=1)
    return sheet(triplets.reshape(-1, *frames.shape[1:]), columns=6)


def sheet(images: Images, columns: int = 8) -> Images:
    """(H, W) with (N, S, S) images in rows of `columns`, one pixel apart."""
    count, height, width = images.shape
    rows = -(-count // columns)
    page = np.full((rows * (height + 1), min(columns, count) * (width + 1)), GAP, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        page[top : top + height, left : left + width] = image
    return page


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """A (H, W) or (H, W, 3) picture as a PNG file's content."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def write_png(file: Path, image: npt.NDArray[np.uint8]) -> None:
    """Writes a picture, whole and onto the disk.

    Its folder is made, but not the run's above it: that may have been removed.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(exist_ok=True)
    write_whole(file, png(image))


def _seeds(seed: int, kind: int, numbers: Iterable[int]) -> list[int]:
    """One seed an image; those of samples (0) and of painted frames (1) differ."""
    return [
        int(np.random.SeedSequence((seed, kind, n)).generate_state(1, np.uint64)[0])
        for n in numbers
    ]
