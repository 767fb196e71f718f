"""What a network is shown of a noisy picture and of what is known of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from echogen.config import LangevinConfig, RepaintConfig, SamplerConfig
from echogen.diffusion.border import Known
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import schedule_from_betas

SCHEDULE = schedule_from_betas([0.1] * 10)


def watched(conditioning: str, channels: int = 1) -> tuple[Denoiser, list[Tensor]]:
    """A denoiser that says 0.5 everywhere, and what its network was shown, in pixels."""
    shown: list[Tensor] = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        shown.append(torch.pixel_shuffle(x, 4))
        return torch.full_like(x[:, : channels * 16], 0.5)

    return (
        Denoiser(
            network, SCHEDULE, "sample", channels=channels, patch=4,
            conditioning=conditioning,  # type: ignore[arg-type]
        ),
        shown,
    )  # fmt: skip


def pictures(channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, x_0 and keep."""
    generator = torch.Generator().manual_seed(0)
    x, known = (torch.rand(2, channels, 8, 12, generator=generator) for _ in range(2))
    return x, known, torch.rand(2, 1, 8, 12, generator=generator) > 0.4


@pytest.mark.parametrize("channels", [1, 3])
def test_known_pixels_are_shown_as_they_are_with_a_map_of_them(channels: int) -> None:
    denoiser, shown = watched("known", channels)
    x, known, keep = pictures(channels)
    seen: list[Tensor] = []
    denoiser = replace(denoiser, watch=lambda x, *_: seen.append(x))
    x0 = denoiser.predict(x, 5, Known(known, keep)).x0
    picture, mask = shown[0][:, :channels], shown[0][:, channels:]
    assert torch.equal(picture, torch.where(keep, known, x))
    assert torch.equal(mask, keep.float())
    assert torch.equal(x0, torch.where(keep, known, 0.5))
    assert torch.equal(seen[0], picture)


def test_without_known_pixels_it_is_an_unconditional_network() -> None:
    denoiser, shown = watched("known")
    x, known, keep = pictures()
    assert torch.equal(denoiser.predict(x, 5).x0, torch.full_like(x, 0.5))
    assert torch.equal(shown[0], torch.cat([x, torch.zeros_like(x)], dim=1))
    denoiser.predict(x, 5, Known(known, torch.zeros_like(keep)))
    assert torch.equal(shown[1], shown[0])


def test_a_network_without_conditioning_is_shown_the_noisy_picture_alone() -> None:
    denoiser, shown = watched("none")
    x, known, keep = pictures()
    assert torch.equal(denoiser.predict(x, 5, Known(known, keep)).x0, torch.full_like(x, 0.5))
    assert torch.equal(shown[0], x)


@pytest.mark.parametrize(
    "config",
    [
        LangevinConfig(levels=3, inner_steps=1, refine_steps=0),
        RepaintConfig(steps=4, jump_length=2, resamplings=2),
    ],
    ids=["langevin", "repaint"],
)
def test_samplers_for_unconditional_networks_use_one_with_conditioning_as_such(
    known_checkpoint: Path, config: SamplerConfig
) -> None:
    denoiser = load_checkpoint(known_checkpoint, "cpu", "fp32")

    def unconditional(x: Tensor, timesteps: Tensor) -> Tensor:
        return denoiser.network(torch.cat([x, torch.zeros_like(x)], dim=1), timesteps)

    plain = replace(denoiser, network=unconditional, conditioning="none")
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keep = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    keep[..., :20] = True
    painted = [
        Sampler(config)(each, image, keep, SampleNoise([1, 2])) for each in (denoiser, plain)
    ]
    assert torch.equal(painted[0], painted[1])
    assert torch.equal(painted[0][keep], image[keep])
    assert painted[0][~keep].std() > 0.1
