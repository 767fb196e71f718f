"""The network in training: diffusers' `UNet2DModel`, told how its input was varied.

The linear map of the variation (see `augment`) has no bias and is left out of what is saved for
use: for unvaried frames it adds zero, so the exported U-Net is exactly the network without it.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from echogen.errors import UsageError
from echogen.training.augment import PARAMETERS
from echogen.training.recipe import OptimiserConfig, TrainConfig


class VariedUNet(nn.Module):
    """x_t (B, C, H, W), t (B,), variation (B, 7) to an output like x_t, or of 2 C channels.

    Attributes:
        unet: diffusers' network, whose "class embedding" takes the variation's embedding.
        variation: the bias-free map from parameters to the time embedding.
        channels: C; channels of the output beyond it are the learned variance.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.channels = config.channels * config.patch**2
        self.unet = make_unet(config, class_embed_type="identity", dropout=config.optimiser.dropout)
        width = 4 * int(config.network["block_out_channels"][0])
        self.variation = nn.Linear(len(PARAMETERS), width, bias=False)
        nn.init.zeros_(self.variation.weight)

    def forward(self, x_t: Tensor, t: Tensor, variation: Tensor) -> Tensor:
        """The network's output."""
        output: Tensor = self.unet(x_t, t, self.variation(variation), return_dict=False)[0]
        return output

    def unvaried(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the exported U-Net predicts, its variance left out."""
        output: Tensor = self(x_t, t, x_t.new_zeros(len(x_t), len(PARAMETERS)))
        return output[:, : self.channels]


def make_unet(config: TrainConfig, **more: Any) -> nn.Module:
    """The recipe's plain `UNet2DModel`, with settings that only training has in `more`.

    Raises:
        UsageError: the table [network] does not describe one, or not one of the right channels.
    """
    from diffusers import UNet2DModel

    into = config.channels * config.patch**2
    out = 2 * into if config.learns_variance else into
    why = "channels x patch^2" + (" x 2 for a learned variance" if config.learns_variance else "")
    for key, expected in (("in_channels", into), ("out_channels", out)):
        if config.network.get(key) != expected:
            raise UsageError(
                f"[network] {key} {config.network.get(key)}: expected {expected}, "
                f"{why if key == 'out_channels' else 'channels x patch^2'}."
            )
    side = config.image_size // config.patch
    sample = config.network.get("sample_size")
    if sample not in (None, side, [side, side], (side, side)):
        raise UsageError(
            f"[network] sample_size {sample}: expected {side}, image_size / patch; set it."
        )
    network_class: Any = UNet2DModel
    try:
        network: nn.Module = network_class(**{**config.network, **more})
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"[network]: describes no UNet2DModel: {reason}") from error
    halvings = len(config.network.get("block_out_channels", ())) - 1
    if side % 2 ** max(halvings, 0):
        raise UsageError(
            f"[network]: halves {side} x {side} (image_size / patch) {halvings} times, which does "
            f"not come out even; make image_size a multiple of {config.patch * 2**halvings}."
        )
    return network


def make_average(network: VariedUNet) -> VariedUNet:
    """A copy that will follow the network; it is never trained itself."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def follow(average: VariedUNet, network: VariedUNet, config: OptimiserConfig, images: int) -> None:
    """Moves the average towards the network, with a half-life in images."""
    half_life = min(config.ema_half_life, config.ema_ramp * images)
    share = 1 - 0.5 ** (config.batch_size / max(half_life, 1e-8))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)
