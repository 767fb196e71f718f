"""The judge's U-Net: MONAI's `monai.networks.nets.UNet` without normalisations, in plain torch.

Weights have MONAI's names and load there too, with the arguments in the checkpoint's
`network/config.json`. It is written out here because importing MONAI takes seconds and its place
on the disk is 16 MB, for eighteen tensors.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from echogen.judging.checkpoint import BELOW


def levels_of(names: Mapping[str, object]) -> int:
    """How many times the network halves the image, by its weights' names."""
    level = 0
    while f"{_at(level)}.0.conv.weight" in names:
        level += 1
    return level


def answer(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits of the classes.

    Args:
        weights: by MONAI's names.
        x: (B, 2, h, w) float32: images in [-1, 1], and labels in [0, 1]; h and w are multiples of
            2^levels.

    Returns:
        (B, classes, h, w) float32.
    """
    levels = levels_of(weights)
    shown = []
    for level in range(levels):
        x = functional.relu(functional.conv2d(x, *_of(weights, f"{_at(level)}.0"), 2, 1))
        shown.append(x)
    x = functional.relu(functional.conv2d(x, *_of(weights, f"{_at(levels)}"), 1, 1))
    for level in reversed(range(levels)):
        x = torch.cat([shown[level], x], 1)
        x = functional.conv_transpose2d(x, *_of(weights, f"{_at(level)}.2"), 2, 1, 1)
        if level:
            x = functional.relu(x)
    return x


def _at(level: int) -> str:
    return "model" + BELOW * level


def _of(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
