"""Fitting a border network to the errors that a trained network makes next to known pixels.

The large network stays as it is: it is evaluated once on varied training frames with holes, as they
are drawn for its own training, each at one of the noise levels that count. All that the border
network is fitted to, pixels and their neighbours, then fits into memory, and fitting it takes about
a minute on one core.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from echogen.diffusion.border import HIGHEST, BorderNetwork, Known
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.langevin import predict_at
from echogen.training.batches import FrameSource, batches
from echogen.training.recipe import Recipe

PIXELS, BATCH, STEPS_PER_IMAGE, RATE = 1024, 2048, 12.5, 3e-3
HUBER, BINS = 2.0, 12
LOWEST = 0.02
"""The least noise level that is fitted to; below it pixels hardly move."""

_FAR = 2**40  # images as of no step that is ever trained on


@dataclass(frozen=True)
class _Pixels:
    """Hidden pixels next to known ones, their neighbours, and what is right.

    Attributes:
        x0, z, keep: (N, neighbours), as `BorderNetwork.forward` takes them.
        sigma: (N, 1) noise levels.
        truth: (N,).
    """

    x0: Tensor
    z: Tensor
    keep: Tensor
    sigma: Tensor
    truth: Tensor

    def __getitem__(self, rows: Tensor) -> "_Pixels":
        return _Pixels(**{name: value[rows] for name, value in vars(self).items()})


def fit_border(
    denoiser: Denoiser, source: FrameSource, recipe: Recipe, images: int
) -> BorderNetwork:
    """A border network for a network that sees what is known; the same for the same arguments.

    Args:
        denoiser: the network, on the source's device.
        source: of the frames that it was trained on.
        recipe: of its training, for variation, holes and seed.
        images: how many are drawn; the fit is as long as they are many.

    Returns:
        In evaluation mode, on the CPU. Where no image has a border it changes nothing.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    pixels = _all_pixels(replace(denoiser, border=None), source, recipe, images, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        border = BorderNetwork()
    if len(pixels.truth):
        _fit(border, pixels, round(STEPS_PER_IMAGE * images), generator)
    return border.eval().requires_grad_(False)


@torch.enable_grad()
def _fit(border: BorderNetwork, pixels: _Pixels, steps: int, generator: torch.Generator) -> None:
    """AdamW with a cosine decay of the rate.

    Errors count as shares of what the network's are at about the same noise, so that all levels
    count alike, and large ones by Huber's loss.
    """
    usual = _usual_errors(pixels)
    optimiser = torch.optim.AdamW(border.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(steps):
        rows = torch.randint(len(pixels.truth), (BATCH,), generator=generator)
        part = pixels[rows]
        found = border(part.x0, part.z, part.keep, part.sigma)
        error = (found - part.truth) / usual[rows]
        loss = functional.huber_loss(error, torch.zeros_like(error), delta=HUBER)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(border.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def _usual_errors(pixels: _Pixels) -> Tensor:
    """(N,) root mean square errors of the network at about the noise level of each pixel."""
    middle = pixels.x0[:, pixels.x0.shape[1] // 2]
    level = pixels.sigma[:, 0].log()
    bounds = torch.linspace(math.log(LOWEST), math.log(HIGHEST), BINS + 1)
    number = torch.bucketize(level, bounds[1:-1])
    squares = torch.zeros(BINS).index_add(0, number, (middle - pixels.truth).square())
    count = torch.bincount(number, minlength=BINS).clamp(min=1)
    return (squares / count)[number].sqrt().clamp(min=1e-6)


@torch.no_grad()
def _all_pixels(
    denoiser: Denoiser,
    source: FrameSource,
    recipe: Recipe,
    images: int,
    generator: torch.Generator,
) -> _Pixels:
    parts = []
    for x0, noise, keep in _images(source, recipe, denoiser.schedule.steps, images):
        low, high = math.log(LOWEST), math.log(HIGHEST)
        sigma = math.exp(low + (high - low) * float(torch.rand(1, generator=generator)))
        known, z = Known(x0, keep), x0 + sigma * noise
        predicted = predict_at(denoiser, z, sigma, known)
        places = torch.cat(known.borders)
        chosen = torch.randperm(len(places), generator=generator)[:PIXELS]
        places = places[chosen.to(places.device)].cpu()
        flat = [values[:, 0].flatten().cpu() for values in (predicted, z, keep.float(), x0)]
        level = torch.full((len(places), 1), sigma)
        given, truth = [values[places] for values in flat[:3]], flat[3]
        middle = places[:, places.shape[1] // 2]
        parts.append(_Pixels(given[0], given[1], given[2], level, truth[middle]))
    names = vars(parts[0])
    return _Pixels(**{name: torch.cat([vars(one)[name] for one in parts]) for name in names})


def _images(
    source: FrameSource, recipe: Recipe, total: int, count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One by one as a step has them: x_0 and noise (1, C, S, S), and what is known (1, 1, S, S)."""
    size = recipe.optimiser.batch_size
    with closing(batches(source, recipe, total, _FAR, slice(0, size))) as drawn:
        for image in islice((image for batch in drawn for image in batch.parts(1)), count):
            assert image.keep is not None
            x0, noise, keep = (
                torch.pixel_shuffle(values.float(), recipe.patch)
                for values in (image.x0, image.noise, image.keep)
            )
            yield x0, noise, keep > 0.5
