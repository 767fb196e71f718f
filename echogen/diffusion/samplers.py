"""The samplers by name: each a function that paints a batch, and tells its cost."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.dpm import DpmSampler
from echogen.diffusion.langevin import LangevinSampler
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.repaint import RepaintSampler
from echogen.diffusion.schedule import LangevinWalk
from echogen.errors import UsageError


class Sampler(Protocol):
    """How a batch is painted. Any sampler is a function of these four, and tells its cost."""

    @property
    def nfe(self) -> int:
        """Network function evaluations for one image."""

    def __call__(
        self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
    ) -> Tensor:
        """Paints what is not kept.

        Args:
            denoiser: an image prior.
            image: (B, 1, H, W) float32 in [-1, 1], on any device.
            keep: (B, 1, H, W) bool, True where `image` is known.
            noise: one stream a sample, drawing on the denoiser's device.

        Returns:
            (B, 1, H, W) float32 in [-1, 1] on `image`'s device; equal to `image` where kept. A
            sample for which the network gave NaN has NaN where it is painted: the caller judges
            it alone.

        Raises:
            EngineError: shapes do not fit the model.
        """


def langevin_sampler(
    *,
    guidance: float,
    guidance_scale: float,
    memory: float,
    noise_gain: float,
    **walk: Any,
) -> LangevinSampler:
    """A `LangevinSampler` from one flat table of settings, as the configuration has it.

    Raises:
        UsageError: a value is out of range.
        TypeError: a setting is missing or unknown.
    """
    return LangevinSampler(LangevinWalk(**walk), guidance, guidance_scale, memory, noise_gain)


SAMPLERS: Mapping[str, Callable[..., Sampler]] = {
    "dpm": DpmSampler,
    "langevin": langevin_sampler,
    "repaint": RepaintSampler,
}


def make_sampler(name: str, **settings: Any) -> Sampler:
    """The sampler of a name, with its settings.

    Raises:
        UsageError: the name or a setting is not known, or a value is out of range.
    """
    if name not in SAMPLERS:
        raise UsageError(f"sampler: expected one of {', '.join(SAMPLERS)}; got {name!r}")
    try:
        return SAMPLERS[name](**settings)
    except TypeError as error:
        raise UsageError(f"sampler {name}: {error}") from error
