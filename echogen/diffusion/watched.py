"""A denoiser that shows each of its evaluations to a watcher: for pictures, never for results."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from echogen.diffusion.denoiser import Denoiser, Prediction

Watch = Callable[[Tensor, float, Prediction], None]
"""Called with x_t (B, C, H, W), the timestep and the prediction, all of which it must leave."""


@dataclass(frozen=True)
class WatchedDenoiser(Denoiser):
    """A denoiser that calls `watch` after every prediction; what it predicts is the same.

    Attributes:
        watch: see `Watch`.
    """

    watch: Watch = lambda *_: None

    def predict(self, x: Tensor, t: float) -> Prediction:
        """As `Denoiser.predict`."""
        prediction = super().predict(x, t)
        self.watch(x, t, prediction)
        return prediction


def watched(denoiser: Denoiser, watch: Watch) -> WatchedDenoiser:
    """The same denoiser under a watch."""
    parts: dict[str, Any] = {part.name: getattr(denoiser, part.name) for part in fields(Denoiser)}
    return WatchedDenoiser(**parts, watch=watch)
