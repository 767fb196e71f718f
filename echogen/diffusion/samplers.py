"""A batch painted under a sampler's configuration: checked, sent down its chain, composited."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from echogen.config import SamplerConfig
from echogen.diffusion import dpm, langevin, repaint
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import EngineError

CHAINS: Mapping[str, Callable[..., Tensor]] = {
    "dpm": dpm.chain,
    "langevin": langevin.chain,
    "repaint": repaint.chain,
}


@dataclass(frozen=True)
class Sampler:
    """A function that paints a batch, and its cost.

    Attributes:
        config: which sampler, and its settings.
    """

    config: SamplerConfig

    @property
    def nfe(self) -> int:
        """Network function evaluations for one image."""
        return sampler_nfe(self.config)

    @torch.inference_mode()
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
            EngineError: shapes or types do not fit the model.
            UsageError: the sampler has more steps than the model's schedule.
        """
        check_batch(denoiser, image, keep)
        known, kept = known_image(denoiser, image), keep.to(denoiser.device)
        painted = CHAINS[self.config.name](self.config, denoiser, known, kept, noise)
        return composite(painted, image, keep)


def check_batch(denoiser: Denoiser, image: Tensor, keep: Tensor) -> None:
    """Refuses a batch that the denoiser cannot take.

    Raises:
        EngineError: the shapes of image, keep and model do not fit, or types are wrong.
    """
    side = denoiser.image_size
    if image.ndim != 4 or image.shape[1] != 1 or keep.shape != image.shape:
        raise EngineError(
            f"image and keep: both must be (B, 1, H, W), found {tuple(image.shape)} and "
            f"{tuple(keep.shape)}"
        )
    if side is not None and tuple(image.shape[2:]) != (side, side):
        raise EngineError(
            f"image: the model paints {side} x {side}, found {tuple(image.shape[2:])}"
        )
    if image.dtype != torch.float32 or keep.dtype != torch.bool:
        raise EngineError(
            f"image and keep: expected float32 and bool, found {image.dtype}, {keep.dtype}"
        )
    if not bool(torch.isfinite(image).all()):
        raise EngineError(
            "image: contains values that are not finite; use -1 where nothing is known."
        )


def known_image(denoiser: Denoiser, image: Tensor) -> Tensor:
    """(B, 1, H, W) on any device to (B, C, H, W) float32 on the denoiser's."""
    return image.to(denoiser.device, torch.float32).expand(-1, denoiser.channels, -1, -1)


def composite(painted: Tensor, image: Tensor, keep: Tensor) -> Tensor:
    """The end of a chain as the picture it stands for.

    Args:
        painted: (B, C, H, W) float32, on the denoiser's device.
        image: (B, 1, H, W) float32.
        keep: (B, 1, H, W) bool.

    Returns:
        (B, 1, H, W) float32 in [-1, 1] on `image`'s device; equal to `image` where kept.
    """
    grey = painted.mean(dim=1, keepdim=True).clamp(-1.0, 1.0).to(image.device)
    return torch.where(keep, image, grey)
