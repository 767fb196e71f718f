"""Moved phantoms: something to paint where there is no dataset."""

import numpy as np

from echogen.config import Resize, TransformConfig
from echogen.errors import UsageError
from echogen.geometry.render import frame_grid, render
from echogen.geometry.transforms import assess, draw, model_grid
from echogen.phantom.anatomy import Phase, View
from echogen.phantom.case import make_frame
from echogen.types import Sample

SHOWN: tuple[tuple[View, Phase], ...] = (("2CH", "ED"), ("4CH", "ES"))
TRIES = 100  # draws for each sample
EVERY = 16  # one labelled pixel in so many is looked at to judge a move


def phantom_samples(
    count: int,
    grid: tuple[int, Resize],
    transforms: TransformConfig,
    seed: int = 0,
) -> list[Sample]:
    """Two simulated frames under `count` valid moves; all have something to paint.

    Args:
        count: how many samples.
        grid: the model's image size and how frames are resized to it.
        transforms: what moves to draw.
        seed: of frames and moves.

    Raises:
        UsageError: the transforms hardly ever give a valid move that leaves something to paint.
    """
    frames = [make_frame(i, view, phase, seed) for i, (view, phase) in enumerate(SHOWN[:count], 1)]
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    samples: list[Sample] = []
    for _ in range(TRIES * count):
        phantom = frames[len(samples) % len(frames)]
        labelled = (np.argwhere(phantom.label > 0)[::EVERY] + 0.5) * np.array(phantom.spacing_mm)
        params = draw(rng, transforms)
        if assess(params, phantom.sector, frame_grid(phantom.frame), labelled, transforms).accepted(
            transforms
        ):
            target = model_grid(phantom.image.shape[:2], phantom.spacing_mm, *grid)
            sample = render(phantom.frame, phantom.sector, params, target, transforms)
            if not sample.keep.all():
                samples.append(sample)
        if len(samples) == count:
            return samples
    raise UsageError(
        f"transforms: {len(samples)} of {TRIES * count} draws gave a valid move with something to "
        "paint; widen the ranges or bounds."
    )
