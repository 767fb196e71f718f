"""What each step is trained on: rows, variation, holes, steps and noise from its seed alone.

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
from echogen.training.augment import (
    PARAMETERS,
    UNTOLD_DRAWS,
    draw_variation,
    vary,
    vary_untold,
)
from echogen.training.fans import Fans
from echogen.training.frames import PreparedFrames
from echogen.training.holes import HOLE_DRAWS, border_weights, draw_keep, hidden_whole
from echogen.training.loss import draw_steps
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
        keep: (b, patch^2, S / patch, S / patch) bool, True where known; None without conditioning,
            as is the next.
        weight: like keep, float32, how much each pixel counts in the loss: 0 where known.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    variation: Tensor
    keep: Tensor | None = None
    weight: Tensor | None = None

    def parts(self, size: int | None) -> Iterator["TrainingBatch"]:
        """The batch in pieces of at most `size` images; None for the whole."""
        size = size or len(self.t)
        given = {name: value for name, value in vars(self).items() if value is not None}
        pieces = (torch.split(value, size) for value in given.values())
        for piece in zip(*pieces, strict=True):
            yield TrainingBatch(**dict(zip(given, piece, strict=True)))

    @property
    def total(self) -> Tensor:
        """What its pixels count together, of all channels."""
        if self.weight is None:
            return torch.tensor(float(self.x0.numel()), device=self.t.device)
        return self.weight.sum() * (self.x0.shape[1] // self.weight.shape[1])


@dataclass(frozen=True)
class FrameSource:
    """Where the frames of a step come from.

    Attributes:
        frames: (N, S, S) uint8, possibly a memory map.
        fans: (N, 11) float32 of the frames, on the CPU.
        rows: (M,) int64, those of `frames` that are trained on.
        on_device: (M, 1, S, S) uint8 where they all lie on the GPU, or None.
        device: where batches go.
    """

    frames: npt.NDArray[np.uint8]
    fans: Tensor
    rows: npt.NDArray[np.int64]
    on_device: Tensor | None
    device: torch.device

    def gather(self, numbers: Tensor) -> Tensor:
        """(b, 1, S, S) uint8 frames by their place among `rows`, on the device where they lie."""
        if self.on_device is not None:
            return self.on_device[numbers.to(self.device)]
        chosen = torch.from_numpy(self.frames[self.rows[numbers.numpy()]])[:, None]
        return chosen.pin_memory() if self.device.type == "cuda" else chosen

    def fans_of(self, numbers: Tensor) -> Fans:
        """The fans of the same frames, on the device."""
        chosen = self.fans[torch.from_numpy(self.rows[numbers.numpy()])]
        return Fans(chosen.to(self.device, non_blocking=True), self.frames.shape[1])


def frame_source(
    frames: PreparedFrames, rows: npt.NDArray[np.int64], device: torch.device
) -> FrameSource:
    """Frames for training on a device; they are put on a GPU if they fit in `DEVICE_BYTES`."""
    pixels, fans = frames.pixels, torch.from_numpy(frames.fans)
    size = len(rows) * int(np.prod(pixels.shape[1:]))
    on_device = None
    if device.type == "cuda" and size <= DEVICE_BYTES:
        on_device = torch.from_numpy(pixels[rows])[:, None].to(device)
    return FrameSource(pixels, fans, rows, on_device, device)


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
    drawn = ahead(lambda step: _draw(source, recipe, total, step, share), count(start))
    try:
        for draws in drawn:
            yield _on_device(draws, source.device, recipe, share)
    finally:
        drawn.close()


@dataclass(frozen=True)
class _Draws:
    """What is drawn for one process' share of a step, before any pixel is computed.

    Attributes:
        step: its number.
        frames: (b, 1, S, S) uint8, where they lie.
        fans: of the frames, on the device.
        t: (b,).
        variation: (b, 7) that the network is told; without conditioning only.
        untold, holes: (b, UNTOLD_DRAWS) and (b, HOLE_DRAWS) uniform; with conditioning only.
    """

    step: int
    frames: Tensor
    fans: Fans
    t: Tensor
    variation: Tensor
    untold: Tensor
    holes: Tensor


def _draw(source: FrameSource, recipe: Recipe, total: int, step: int, share: slice) -> _Draws:
    size = recipe.optimiser.batch_size
    generator = torch.Generator().manual_seed(step_seed(recipe.seed, step))
    numbers = torch.randint(len(source.rows), (size,), generator=generator)
    variation, more = torch.zeros(size, len(PARAMETERS)), torch.zeros(size, 0)
    if recipe.conditioning == "known":
        more = torch.rand(size, UNTOLD_DRAWS + HOLE_DRAWS, generator=generator)
    else:
        variation = draw_variation(size, recipe.augment, generator)
    t = draw_steps(size, total, recipe.loss, generator)
    numbers, more = numbers[share], more[share]
    frames, fans = source.gather(numbers), source.fans_of(numbers)
    untold, holes = more[:, :UNTOLD_DRAWS], more[:, UNTOLD_DRAWS:]
    return _Draws(step, frames, fans, t[share], variation[share], untold, holes)


def _on_device(draws: _Draws, device: torch.device, recipe: Recipe, share: slice) -> TrainingBatch:
    sent = (draws.frames, draws.variation, draws.t)
    frames, variation, t = (x.to(device, non_blocking=True) for x in sent)
    images, keep, weight = frames.float() / 255, None, None
    if recipe.conditioning == "known":
        whole = hidden_whole(draws.holes, recipe.holes)
        images, varied = vary_untold(images, draws.fans, draws.untold, whole, recipe.augment)
        known = draw_keep(varied, draws.holes, recipe.holes)
        weight = functional.pixel_unshuffle(
            border_weights(known, recipe.holes.border_weight), recipe.patch
        )
        keep = functional.pixel_unshuffle(known, recipe.patch)
    else:
        images = vary(images, variation, recipe.augment)
    images = (images * 2 - 1).expand(-1, recipe.channels, -1, -1)
    x0 = functional.pixel_unshuffle(images, recipe.patch)
    generator = torch.Generator(device).manual_seed(step_seed(recipe.seed, draws.step) ^ 1)
    shape = (recipe.optimiser.batch_size, *x0.shape[1:])
    noise = torch.randn(shape, generator=generator, device=device)[share]
    return TrainingBatch(x0, noise, t, variation, keep, weight)
