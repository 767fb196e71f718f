"""What each step is trained on: rows, variation, steps and noise from the step's seed alone.

Rows are gathered while the step before runs: from the device where all frames fit there, from
memory or the disk elsewhere. A read-only memory map is never copied as a whole.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from echogen.support.threads import ahead
from echogen.training.augment import draw_variation, vary
from echogen.training.loss import stratified_steps
from echogen.training.recipe import Recipe

DEVICE_BYTES = 4 * 2**30
"""Frames that take more stay where they are, and each step's are sent to the GPU."""


@dataclass(frozen=True)
class TrainingBatch:
    """One process' share of a step's images.

    Attributes:
        x0, noise: (b, C patch^2, S / patch, S / patch) float32.
        t: (b,) int64.
        variation: (b, 7) float32, what the network is told.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    variation: Tensor

    def parts(self, size: int | None) -> Iterator["TrainingBatch"]:
        """The batch in pieces of at most `size` images; None for the whole."""
        pieces = (torch.split(x, size or len(self.t)) for x in vars(self).values())
        for piece in zip(*pieces, strict=True):
            yield TrainingBatch(*piece)


@dataclass(frozen=True)
class FrameSource:
    """Where the frames of a step come from.

    Attributes:
        frames: (N, S, S) uint8, possibly a memory map.
        rows: (M,) int64, those of `frames` that are trained on.
        on_device: (M, 1, S, S) uint8 where they all lie on the GPU, or None.
        device: where batches go.
    """

    frames: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    on_device: Tensor | None
    device: torch.device

    def gather(self, numbers: Tensor) -> Tensor:
        """(b, 1, S, S) uint8 frames by their place among `rows`, on the device where they lie."""
        if self.on_device is not None:
            return self.on_device[numbers.to(self.device)]
        chosen = torch.from_numpy(self.frames[self.rows[numbers.numpy()]])[:, None]
        return chosen.pin_memory() if self.device.type == "cuda" else chosen


def frame_source(
    frames: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], device: torch.device
) -> FrameSource:
    """Frames for training on a device; they are put on a GPU if they fit in `DEVICE_BYTES`."""
    size = len(rows) * int(np.prod(frames.shape[1:]))
    on_device = None
    if device.type == "cuda" and size <= DEVICE_BYTES:
        on_device = torch.from_numpy(frames[rows])[:, None].to(device)
    return FrameSource(frames, rows, on_device, device)


def step_seed(seed: int, step: int) -> int:
    """The seed of everything that is drawn at a step."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def batches(
    source: FrameSource, recipe: Recipe, total: int, start: int, share: slice
) -> Generator[TrainingBatch, None, None]:
    """The batches of all steps from `start` on, without an end; close it.

    Args:
        source: of the frames.
        recipe: the recipe.
        total: T, steps of the noise schedule.
        start: number of the first step.
        share: which images of a batch are wanted.
    """
    size = recipe.optimiser.batch_size

    def draw(step: int) -> tuple[int, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step_seed(recipe.seed, step))
        numbers = torch.randint(len(source.rows), (size,), generator=generator)
        variation = draw_variation(size, recipe.augment, generator)
        t = stratified_steps(size, total, generator)
        return step, source.gather(numbers[share]), variation[share], t[share]

    drawn = ahead(draw, count(start))
    try:
        for step, frames, variation, t in drawn:
            yield _on_device(frames, variation, t, source.device, recipe, step, share)
    finally:
        drawn.close()


def _on_device(
    frames: Tensor,
    variation: Tensor,
    t: Tensor,
    device: torch.device,
    recipe: Recipe,
    step: int,
    share: slice,
) -> TrainingBatch:
    frames, variation, t = (x.to(device, non_blocking=True) for x in (frames, variation, t))
    images = vary(frames.float() / 255, variation, recipe.augment) * 2 - 1
    x0 = functional.pixel_unshuffle(images.expand(-1, recipe.channels, -1, -1), recipe.patch)
    generator = torch.Generator(device).manual_seed(step_seed(recipe.seed, step) ^ 1)
    shape = (recipe.optimiser.batch_size, *x0.shape[1:])
    noise = torch.randn(shape, generator=generator, device=device)[share]
    return TrainingBatch(x0, noise, t, variation)
