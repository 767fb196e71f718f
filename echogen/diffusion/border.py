"""What the border tells: the painted pixels next to known ones, corrected by what these show.

A network with space-to-depth sees 4 x 4 pixels as one and hardly uses that the pixel beside a
hidden one is known: at the border its prediction is no better than inside of the hole, and what is
painted does not go on where the image ends. Kriging does use it (Matheron 1963): the value at a
pixel is the network's, plus a weighted sum of how its neighbours differ. The weights follow from
which neighbours are known, the noise level, brightness and local contrast. There they are not
solved for, but predicted by a network of a few thousand weights, which is fitted to the errors of
the large one (`echogen.training.border`). It computes nothing but these pixels, about 3% of an
image.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from echogen.diffusion.weights import load_weights

REACH = 2
"""Hidden pixels at most so far from a known one, in rows and columns, are corrected, by as many
neighbours to each side."""
HIGHEST = 1.0
"""The noise level above which nothing is corrected."""

_NEIGHBOURS = (2 * REACH + 1) ** 2
_LEVELS = (-3.5, -2.8, -2.1, -1.4, -0.7)  # log sigma, where weights may change
_STEEP = 1.5
_MOST = 0.25  # differences in [-1, 1] are clipped: beyond the fan all is black
_FAINT = 1e-4  # a variance of less than this is none
_WIDTH = 48


@dataclass(frozen=True)
class Known:
    """What is known of a batch of images.

    Attributes:
        pixels: (B, C, H, W) float32, x_0; only where kept does it count.
        keep: (B, 1, H, W) bool, True where known.
    """

    pixels: Tensor
    keep: Tensor

    @cached_property
    def borders(self) -> tuple[Tensor, ...]:
        """The hidden pixels near known ones and their neighbours, as places in a flat (B, H, W).

        Each (N, neighbours) int64, rows first, those beyond an edge on it; on the CPU one for each
        image, so that an image's result does not depend on its batch.
        """
        height, width = self.keep.shape[2:]
        side = 2 * REACH + 1
        near = functional.max_pool2d(self.keep.float(), side, stride=1, padding=REACH) > 0
        image, row, col = torch.nonzero((near & ~self.keep)[:, 0], as_tuple=True)
        away = torch.arange(-REACH, REACH + 1, device=row.device)
        rows = (row[:, None] + away.repeat_interleave(side)).clamp(0, height - 1)
        cols = (col[:, None] + away.repeat(side)).clamp(0, width - 1)
        places = (image[:, None] * height + rows) * width + cols
        if self.keep.device.type != "cpu":
            return (places,)
        counts = torch.bincount(image, minlength=len(self.keep)).tolist()
        return torch.split(places, counts)

    @cached_property
    def kept_at_borders(self) -> tuple[Tensor, ...]:
        """Like `borders`, float32: 1 where a neighbour is known, else 0."""
        keep = self.keep[:, 0].float().flatten()
        return tuple(keep[places] for places in self.borders)


class BorderNetwork(nn.Module):
    """Weights of the neighbours, from which are known, noise level, brightness and contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(_NEIGHBOURS + len(_LEVELS) + 3, _WIDTH)
        self.second = nn.Linear(_WIDTH, _WIDTH)
        self.last = nn.Linear(_WIDTH, 2 * _NEIGHBOURS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x0: Tensor, z: Tensor, keep: Tensor, sigma: Tensor) -> Tensor:
        """The middle pixels, corrected.

        Args:
            x0: (N, neighbours) float32, predicted, and known where kept.
            z: (N, neighbours) float32, x_0 + sigma n; where kept it does not count.
            keep: (N, neighbours) float32, 1 where known, else 0.
            sigma: (N, 1) float32, noise level.

        Returns:
            (N,) float32.
        """
        middle = x0[:, _NEIGHBOURS // 2, None]
        differences = (x0 - middle).clamp(-_MOST, _MOST)
        residuals = (z - x0) * (1.0 - keep)
        spread = differences.square().mean(dim=1) - differences.mean(dim=1).square()
        contrast = (spread[:, None].clamp(min=0.0) + _FAINT).log()
        level = sigma.log()
        steps = torch.sigmoid(_STEEP * (level - level.new_tensor(_LEVELS)))
        told = [keep, level / 4, steps, contrast / 4, middle]
        h = functional.silu(self.first(torch.cat(told, dim=1)))
        h = h + functional.silu(self.second(h))
        around = torch.cat([differences, residuals], dim=1)
        corrected: Tensor = middle[:, 0] + (self.last(h) * around).sum(dim=1)
        return corrected

    @torch.no_grad()
    def correct(self, x0: Tensor, z: Tensor, known: Known, sigma: float) -> Tensor:
        """A prediction with its hidden pixels near known ones corrected.

        Args:
            x0: (B, C, H, W) float32, predicted, and known where kept.
            z: like x0, x_0 + sigma n.
            known: of the same images.
            sigma: noise level; above `HIGHEST` nothing is changed.

        Returns:
            Like x0.
        """
        if sigma > HIGHEST:
            return x0
        channels = []
        for predicted, noisy in zip(x0.unbind(dim=1), z.unbind(dim=1), strict=True):
            flat, noisy = predicted.flatten(), noisy.flatten()
            corrected = flat.clone()
            for places, keep in zip(known.borders, known.kept_at_borders, strict=True):
                level = flat.new_full((len(places), 1), sigma)
                found = self(flat[places], noisy[places], keep, level)
                corrected[places[:, _NEIGHBOURS // 2]] = found
            channels.append(corrected.view_as(predicted))
        return torch.stack(channels, dim=1)


def load_border(file: Path) -> BorderNetwork:
    """The network of a checkpoint's file, in float32 on the CPU.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    border = BorderNetwork()
    wanted = {name: tuple(value.shape) for name, value in border.state_dict().items()}
    border.load_state_dict(load_weights(file, wanted, "a border network"))
    return border.eval().requires_grad_(False)
