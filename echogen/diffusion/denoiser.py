"""A network and its noise schedule as one function: a noisy image in, a clean one predicted.

Hides what differs between models: what the network predicts (noise, v or the image), a learned or
a fixed variance, grey or three channels, space-to-depth, what is known as
part of the input or not, and the precision it runs in. With
abar = alphas_cumprod[t], x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps (Ho et al. 2020, 2006.11239) and
v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans and Ho 2022, 2202.00512).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from echogen.diffusion.border import BorderNetwork, Known
from echogen.diffusion.checkpoint import Conditioning, GreyLevels
from echogen.diffusion.schedule import PredictionType, Schedule, VarianceType

Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What the denoiser makes of x_t.

    Attributes:
        x0: (B, C, H, W) float32, the clean image, clipped if the checkpoint says so; where the
            network was shown known pixels, these.
        variance_mix: (B, C, H, W) float32 for a learned range, else None: f in [0, 1] between the
            posterior's log-variance (0) and log beta (1) (2102.09672, eq. 15).
    """

    x0: Tensor
    variance_mix: Tensor | None


Watch = Callable[[Tensor, float, Prediction], None]
"""Called with the picture that the network is shown, (B, C, H, W), the timestep and the prediction,
none of which it may modify.
"""


@dataclass(frozen=True)
class Denoiser:
    """A network with everything a sampler needs to use it.

    Attributes:
        network: (B, C patch^2, H/patch, W/patch), with conditioning patch^2 channels more, and
            (B,) timesteps, all equal, on the CPU, int64 or float32 between them, to the raw output,
            with twice the channels for a learned range.
        schedule: the full schedule it was trained on.
        prediction_type: what its output means.
        variance_type: of the reverse step.
        clip: x0 is clipped to [-clip, clip]; None leaves it.
        channels: C, 1 or 3. Three channels carry three independent noises over one grey image.
        patch: space-to-depth factor.
        conditioning: "known" if it is shown what is known, and where.
        border: corrects what it predicts next to known pixels; None leaves it.
        device, dtype: where and in what precision the network runs.
        image_size: the side it was trained on; None takes any.
        grey_levels: that were usual in training; None where that is not known.
        name: of the checkpoint, for messages.
        watch: called after every prediction: for pictures, never for results.
    """

    network: Network
    schedule: Schedule
    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_small"
    clip: float | None = 1.0
    channels: int = 1
    patch: int = 1
    conditioning: Conditioning = "none"
    border: BorderNetwork | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    image_size: int | None = None
    grey_levels: GreyLevels | None = None
    name: str = ""
    watch: Watch = lambda *_: None

    def predict(self, x: Tensor, t: float, known: Known | None = None) -> Prediction:
        """The clean image behind x_t, and behind what is known of it.

        A network without conditioning is shown x_t alone, whatever is known. One with
        conditioning "known" is shown the known pixels in place of x_t's, and which these are (RAD,
        2412.09191); where nothing is known it is an unconditional model like any other.

        Args:
            x: (B, C, H, W) float32 on `device`.
            t: the model's timestep in [0, T - 1], an index into `schedule` or between two.
            known: of the images; None for nothing.

        Returns:
            float32 tensors of x's shape, whatever precision the network runs in.
        """
        shown = x
        if self.conditioning == "none":
            known = None
        if known is not None:
            shown = torch.where(known.keep, known.pixels, x)
        kind = torch.int64 if float(t).is_integer() else torch.float32
        output = self.network(self._pack(shown, known), torch.full((len(x),), t, dtype=kind))
        mix = None
        if self.variance_type == "learned_range":
            output, mix = output.chunk(2, dim=1)
            mix = (self._unpack(mix) + 1.0) / 2.0
        sigma = self.schedule.sigma_at(t)
        x0 = self._clipped(self._x0(shown, self._unpack(output), 1.0 / (1.0 + sigma**2)))
        if known is not None:
            x0 = torch.where(known.keep, known.pixels, x0)  # there, its output means nothing
            if self.border is not None:
                z = x * math.sqrt(1.0 + sigma**2)
                x0 = self._clipped(self.border.correct(x0, z, known, sigma))
        prediction = Prediction(x0, mix)
        self.watch(shown, t, prediction)
        return prediction

    def _clipped(self, x0: Tensor) -> Tensor:
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)

    def _pack(self, x: Tensor, known: Known | None) -> Tensor:
        """The network's input: the picture, and the map of what is known if it takes one."""
        if self.conditioning == "known":
            nothing = x.new_zeros(len(x), 1, *x.shape[2:])
            mask = nothing if known is None else known.keep.to(x.dtype)
            x = torch.cat([x, mask], dim=1)
        packed = torch.pixel_unshuffle(x, self.patch)
        return packed.to(self.dtype, memory_format=torch.channels_last)

    def _unpack(self, packed: Tensor) -> Tensor:
        return torch.pixel_shuffle(packed, self.patch).to(torch.float32).contiguous()

    def _x0(self, x: Tensor, output: Tensor, abar: float) -> Tensor:
        signal, noise = abar**0.5, (1.0 - abar) ** 0.5
        if self.prediction_type == "epsilon":
            output = torch.add(x, output, alpha=-noise) / signal
        elif self.prediction_type == "v_prediction":
            output = torch.add(signal * x, output, alpha=-noise)
        return output
