"""In-painting with a network that is shown what is known; commands/test_sample has whole images."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from echogen.config import DpmConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import read_scheduler, sampler_nfe
from echogen.errors import UsageError

SCHEDULE = read_scheduler({"num_train_timesteps": 1000}).schedule
RHO, MEAN, STD, KNOWN = 0.6, -0.2, 0.2, 4
COVARIANCE = STD**2 * ((1 - RHO) * np.eye(8) + RHO * np.ones((8, 8)))
GAIN = COVARIANCE[KNOWN:, :KNOWN] @ np.linalg.inv(COVARIANCE[:KNOWN, :KNOWN])
CONDITIONAL = COVARIANCE[KNOWN:, KNOWN:] - GAIN @ COVARIANCE[:KNOWN, KNOWN:]


def exact_denoiser() -> Denoiser:
    """E[x_0 | x_t, what is known] of rows of 8 Gaussian pixels, the first 4 of them known."""
    gain, conditional = (torch.from_numpy(value).float() for value in (GAIN, CONDITIONAL))

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        picture, keep = x.chunk(2, dim=1)
        assert bool((keep[..., :KNOWN] == 1).all())
        assert not bool(keep[..., KNOWN:].any())
        sigma = SCHEDULE.sigma_at(float(timesteps[0]))
        expected = MEAN + (picture[..., :KNOWN] - MEAN) @ gain.T
        z = picture[..., KNOWN:] * math.sqrt(1.0 + sigma**2)
        trust = conditional @ torch.linalg.inv(conditional + sigma**2 * torch.eye(4))
        mean = expected + (z - expected) @ trust.T
        return torch.cat([torch.full_like(picture[..., :KNOWN], 9.0), mean], dim=-1)

    return Denoiser(network, SCHEDULE, "sample", clip=None, conditioning="known")


def half_known(batch: int, value: float) -> tuple[Tensor, Tensor]:
    image = torch.full((batch, 1, 8, 8), value)
    keep = torch.zeros(batch, 1, 8, 8, dtype=torch.bool)
    keep[..., :KNOWN] = True
    return image, keep


@pytest.mark.parametrize("value", [0.1, -0.5])
@pytest.mark.parametrize(("refine_steps", "refine_visits"), [(0, 1), (6, 1), (6, 3)])
def test_what_is_painted_is_a_draw_of_the_posterior(
    value: float, refine_steps: int, refine_visits: int
) -> None:
    image, keep = half_known(512, value)
    config = DpmConfig(
        steps=40, refine_steps=refine_steps, refine_from=0.1, refine_visits=refine_visits
    )
    painted = Sampler(config)(exact_denoiser(), image, keep, SampleNoise(range(512)))
    assert torch.equal(painted[keep], image[keep])
    drawn = painted[..., KNOWN:].double().reshape(-1, 4).numpy()
    expected = MEAN + GAIN @ np.full(KNOWN, value - MEAN)
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), CONDITIONAL, atol=0.08 * CONDITIONAL.max())


@dataclass
class Counted:
    """Noise that counts its draws."""

    inner: SampleNoise
    draws: int = field(default=0)

    def draw(self, shape: torch.Size) -> Tensor:
        self.draws += 1
        return self.inner.draw(shape)


@pytest.mark.parametrize(
    ("changes", "draws", "evaluations"),
    [
        ({}, 5, 5),
        ({"refine_steps": 3}, 8, 8),
        ({"refine_steps": 3, "refine_visits": 4}, 17, 17),
        ({"eta": 0}, 1, 5),
    ],
)
def test_cost_and_draws_depend_on_the_settings_alone(
    known_checkpoint: Path, changes: dict[str, float], draws: int, evaluations: int
) -> None:
    denoiser = load_checkpoint(known_checkpoint, "cpu", "fp32")
    config = DpmConfig(steps=5, **changes)
    calls: list[float] = []
    denoiser = replace(denoiser, watch=lambda _, t, __: calls.append(t))
    for left in (0, 10, 32):
        keep = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
        keep[..., :left] = True
        noise = Counted(SampleNoise([1]))
        calls.clear()
        Sampler(config)(denoiser, torch.zeros(1, 1, 32, 32), keep, noise)
        assert noise.draws == draws
        assert len(calls) == sampler_nfe(config) == evaluations


def test_a_sample_does_not_depend_on_its_neighbours(known_checkpoint: Path) -> None:
    denoiser = load_checkpoint(known_checkpoint, "cpu", "fp32")
    sampler = Sampler(DpmConfig(steps=6, refine_steps=2))
    image = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keep = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.5
    together = sampler(denoiser, image, keep, SampleNoise([1, 2, 3]))
    alone = sampler(denoiser, image[1:2], keep[1:2], SampleNoise([2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    other = sampler(denoiser, -image[1:2], keep[1:2], SampleNoise([2]))
    assert (other - alone)[~keep[1:2]].abs().max() > 0.01  # it sees what is known
    hidden = torch.where(keep, image, 0.5)
    assert torch.equal(sampler(denoiser, hidden, keep, SampleNoise([1, 2, 3])), together)


def test_a_network_that_would_not_see_what_is_known_is_refused(checkpoint: Path) -> None:
    denoiser = load_checkpoint(checkpoint, "cpu", "fp32")
    image, sampler = torch.zeros(1, 1, 32, 32), Sampler(DpmConfig(steps=3))
    keep = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    assert sampler(denoiser, image, keep, SampleNoise([1])).std() > 0  # a whole image
    keep[0, 0, 3, 4] = True
    with pytest.raises(UsageError, match=r"dpm: checkpoint tiny takes no keep map.*langevin"):
        sampler(denoiser, image, keep, SampleNoise([1]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"refine_steps": 1}, "refine_steps must be 0 or at least 2, got 1"),
        ({"refine_steps": 3, "refine_from": 0.01}, "refine_from must be above sigma_min"),
    ],
)
def test_refinements_that_cannot_be_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DpmConfig(**changes)
