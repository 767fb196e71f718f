"""The network in training: diffusers' `UNet2DModel`, told how its input was varied.

The linear map of the variation (see `augment`) has no bias and is left out of what is saved for
use: for unvaried frames it adds zero, so the exported U-Net is exactly the network without it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from echogen.errors import UsageError
from echogen.training.augment import PARAMETERS
from echogen.training.config import TrainConfig


class VariedUNet(nn.Module):
    """x_t (B, C, H, W), t (B,), variation (B, 7) to an output like x_t.

    Attributes:
        unet: diffusers' network, whose "class embedding" takes the variation's embedding.
        variation: the bias-free map from parameters to the time embedding.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        channels = config.channels * config.patch**2
        network = dict(config.network)
        for key in ("in_channels", "out_channels"):
            if network.get(key) != channels:
                raise UsageError(
                    f"[network] {key} {network.get(key)}: expected channels x patch^2 = {channels}."
                )
        network_class: Any = UNet2DModel
        self.unet: nn.Module = network_class(
            **network, class_embed_type="identity", dropout=config.optimiser.dropout
        )
        width = 4 * int(network["block_out_channels"][0])
        self.variation = nn.Linear(len(PARAMETERS), width, bias=False)
        nn.init.zeros_(self.variation.weight)

    def forward(self, x_t: Tensor, t: Tensor, variation: Tensor) -> Tensor:
        """The network's output."""
        output: Tensor = self.unet(x_t, t, self.variation(variation), return_dict=False)[0]
        return output

    def unvaried(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the exported U-Net gives."""
        output: Tensor = self(x_t, t, x_t.new_zeros(len(x_t), len(PARAMETERS)))
        return output


def export_network(
    network: VariedUNet, config: TrainConfig, folder: Path, record: Mapping[str, Any]
) -> None:
    """Writes `unet/` (fp16), `scheduler/` as diffusers reads them, and `training.json`."""
    from diffusers import DDPMScheduler, UNet2DModel

    network_class: Any = UNet2DModel
    scheduler_class: Any = DDPMScheduler
    plain = network_class(**config.network)
    plain.load_state_dict(network.unet.state_dict())
    plain.half().save_pretrained(folder / "unet")
    scheduler_class.from_config(dict(config.schedule)).save_pretrained(folder / "scheduler")
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
