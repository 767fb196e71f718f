"""Moved phantoms: something to paint where there is no dataset."""

import numpy as np

from echogen.config import Resize, TransformConfig
from echogen.errors import UsageError
from echogen.geometry.field import field_of
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
    phantoms = [make_frame(i, *shown, seed) for i, shown in enumerate(SHOWN[:count], 1)]
    fields = [field_of(phantom.frame, phantom.sector) for phantom in phantoms]
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    samples: list[Sample] = []
    for _ in range(TRIES * count):
        field = fields[len(samples) % len(fields)]
        frame, source = field.frame, frame_grid(field.frame)
        labelled = (np.argwhere(frame.label > 0)[::EVERY] + 0.5) * np.array(source.spacing_mm)
        params = draw(rng, transforms)
        if assess(params, field.sector, source, labelled, transforms).accepted(transforms):
            target = model_grid(source.shape, source.spacing_mm, *grid)
            sample = render(frame, field.sector, params, target, transforms)
            if not sample.keep.all():
                samples.append(sample)
        if len(samples) == count:
            return samples
    raise UsageError(
        f"transforms: {len(samples)} of {TRIES * count} draws gave a valid move with something to "
        "paint; widen the ranges or bounds."
    )
