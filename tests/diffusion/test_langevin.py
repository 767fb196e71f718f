"""Langevin inpainting: its walk, its exactness where the answer is known, and the usual rules."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from echogen.config import LangevinConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.langevin import predict_at, smoother
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import (
    Move,
    langevin_walk,
    read_scheduler,
    sampler_nfe,
)
from echogen.errors import EngineError

WALK = LangevinConfig()
SCHEDULE = read_scheduler({"num_train_timesteps": 1000}).schedule


def sampler(**changes: float) -> Sampler:
    return Sampler(LangevinConfig(**changes))


def correlated_denoiser(rho: float, mean: float, std: float, **settings: object) -> Denoiser:
    """E[x_0 | x_t] where the pixels of a row are equally correlated Gaussians: closed form.

    The covariance std^2 ((1 - rho) I + rho 1 1^T) has two eigenvalues, of the row's mean and of
    the rest.
    """

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        sigma = SCHEDULE.sigma_at(float(timesteps[0]))
        z = x * math.sqrt(1.0 + sigma**2) - mean
        common = z.mean(dim=-1, keepdim=True)
        width = x.shape[-1]
        shared, rest = std**2 * (1 - rho + rho * width), std**2 * (1 - rho)
        return (
            mean + common * shared / (shared + sigma**2) + (z - common) * rest / (rest + sigma**2)
        )

    return Denoiser(network, SCHEDULE, prediction_type="sample", clip=None, **settings)


def half_known(batch: int, known: float) -> tuple[Tensor, Tensor]:
    image = torch.full((batch, 1, 8, 8), known)
    keep = torch.zeros(batch, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = True
    return image, keep


def split(moves: list[Move]) -> tuple[list[Move], list[Move]]:
    """The main walk, and what comes after it has reached 0 for the first time."""
    end = next(i for i, move in enumerate(moves) if move.sigma_next == 0) + 1
    return moves[:end], moves[end:]


def test_the_walk_falls_to_nothing_and_once_more() -> None:
    moves = langevin_walk(WALK)
    main, refined = split(moves)
    assert main[0].sigma == pytest.approx(20.0)
    assert refined[0].sigma == refined[-1].sigma_next == 0
    assert refined[0].sigma_hat == pytest.approx(0.25)
    for before, after in itertools.pairwise(moves):
        assert after.sigma == before.sigma_next  # a chain
        assert before.sigma_hat >= before.sigma >= before.sigma_next or before is refined[0]


def test_levels_within_the_range_are_visited_again_and_churned() -> None:
    main, refined = split(langevin_walk(WALK))
    for moves, lowest, highest, steps, churn in (
        (main, 0.05, WALK.inner_max, WALK.inner_steps, WALK.churn),
        (refined[1:], 0.02, math.inf, WALK.refine_steps, 0.5),
    ):
        visits: dict[float, int] = {}
        for move in moves:
            visits[move.sigma] = visits.get(move.sigma, 0) + 1
            churned = move.sigma >= lowest
            assert move.sigma_hat == pytest.approx(move.sigma * (1 + churn * churned))
        inside = {s for s in visits if lowest <= s <= highest}
        assert len(visits) > len(inside) > 0
        assert all(n == 1 + steps * (s in inside) for s, n in visits.items())
    assert sampler_nfe(WALK) == len(langevin_walk(WALK)) == sampler().nfe


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"levels": 1}, "levels"),
        ({"memory": 1.0}, "memory"),
        ({"steps": 3}, "steps"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        sampler(**changes)


def test_kept_pixels_are_exact() -> None:
    image, keep = half_known(2, 0.123456)
    painted = sampler()(correlated_denoiser(0.5, -0.2, 0.2), image, keep, SampleNoise([1, 2]))
    assert torch.equal(painted[keep], image[keep])
    assert (painted[~keep] != image[~keep]).all()


@pytest.mark.parametrize("known", [0.1, -0.5])
def test_painted_pixels_have_the_mean_and_spread_of_the_posterior(known: float) -> None:
    rho, mean, std, batch = 0.6, -0.2, 0.2, 256
    image, keep = half_known(batch, known)
    painted = sampler()(correlated_denoiser(rho, mean, std), image, keep, SampleNoise(range(batch)))
    drawn = painted[..., 4:].double().reshape(-1, 4).numpy()
    covariance = std**2 * ((1 - rho) * np.eye(8) + rho * np.ones((8, 8)))
    gain = covariance[4:, :4] @ np.linalg.inv(covariance[:4, :4])
    expected = mean + gain @ np.full(4, known - mean)
    conditional = covariance[4:, 4:] - gain @ covariance[:4, 4:]
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), conditional, atol=0.3 * conditional.max())


@pytest.mark.parametrize(("rho", "known"), [(0.3, 0.4), (0.6, -0.5), (0.9, 0.4)])
def test_guidance_removes_the_bias_towards_the_prior(rho: float, known: float) -> None:
    image, keep = half_known(256, known)
    denoiser = correlated_denoiser(rho, -0.2, 0.2)
    expected = -0.2 + rho * 4 / (1 - rho + rho * 4) * (known + 0.2)
    off, on = (
        sampler(guidance=guidance)(denoiser, image, keep, SampleNoise(range(256)))[..., 4:].mean()
        - expected
        for guidance in (0.0, LangevinConfig().guidance)
    )
    assert off * (known + 0.2) < 0  # towards the prior's mean
    assert abs(on) < 0.3 * abs(off)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_sample_does_not_depend_on_its_batch(size: int) -> None:
    image, keep = half_known(5, 0.2)
    denoiser, seeds = correlated_denoiser(0.6, -0.2, 0.2), list(range(5))
    whole = sampler()(denoiser, image, keep, SampleNoise(seeds))
    for start in range(0, 5, size):
        part = slice(start, start + size)
        alone = sampler()(denoiser, image[part], keep[part], SampleNoise(seeds[part]))
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-5)


def test_a_known_pixel_far_away_in_value_stays_finite_and_in_range() -> None:
    image, keep = half_known(2, 1.0)
    painted = sampler()(correlated_denoiser(0.99, -0.9, 0.01), image, keep, SampleNoise([1, 2]))
    assert torch.isfinite(painted).all()
    assert painted.abs().max() <= 1


def test_three_channels_run_on_grey_images() -> None:
    image, keep = half_known(2, 0.2)
    colour = correlated_denoiser(0.6, -0.2, 0.2, channels=3)
    painted = sampler()(colour, image, keep, SampleNoise([1, 2]))
    assert painted.shape == image.shape
    assert torch.equal(painted[keep], image[keep])


def test_a_network_of_few_timesteps_with_space_to_depth_paints(checkpoint: Path) -> None:
    denoiser = load_checkpoint(str(checkpoint), "cpu", "fp32")
    assert denoiser.patch == 4
    image = torch.full((1, 1, 32, 32), -0.5)
    keep = torch.ones_like(image, dtype=torch.bool)
    keep[..., 20:] = False
    painted = sampler()(denoiser, image, keep, SampleNoise([3]))
    assert torch.isfinite(painted).all()
    assert torch.equal(painted[keep], image[keep])


def test_the_noise_level_decides_the_timestep_between_two_steps() -> None:
    called = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        called.append((float(timesteps[0]), timesteps.dtype, float(x.std())))
        return torch.zeros_like(x)

    denoiser = Denoiser(network, SCHEDULE, prediction_type="sample", clip=None)
    sigma = math.sqrt(SCHEDULE.sigma_at(300) * SCHEDULE.sigma_at(301))
    z = sigma * SampleNoise([1]).draw((1, 1, 64, 64))
    predict_at(denoiser, z, sigma)
    timestep, kind, scale = called[0]
    assert timestep == pytest.approx(300.5)
    assert kind == torch.float32
    assert scale == pytest.approx(sigma / math.sqrt(1 + sigma**2), rel=0.05)
    predict_at(denoiser, z, 1e9)  # beyond the schedule
    assert called[1][0] == 999


def test_smoothing_sees_only_what_is_inside() -> None:
    values = torch.arange(64.0).reshape(1, 1, 8, 8)
    inside = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    inside[..., :3] = True  # the edge runs through a block of 2 x 2
    smooth = smoother(inside, 0.25)
    outside_changed = torch.where(inside, values, torch.full_like(values, 1e6))
    assert torch.equal(smooth(outside_changed), smooth(values))
    assert smooth(values)[0, 0, 0, 0] == values[0, 0, :2, :2].mean()
    ones = smooth(torch.ones_like(values))
    torch.testing.assert_close(ones[inside], torch.ones(24))  # up to the edge
    assert torch.equal(smoother(inside, 0.0)(values), values)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    image, keep = half_known(2, 0.2)
    with pytest.raises(EngineError, match="image and keep"):
        sampler()(correlated_denoiser(0.5, 0, 0.2), image[0], keep, SampleNoise([1, 2]))


def test_known_pixels_are_shown_with_the_levels_noise_and_a_fading_exaggeration() -> None:
    shown: list[Tensor] = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        sigma = SCHEDULE.sigma_at(float(timesteps[0]))
        shown.append((x * math.sqrt(1.0 + sigma**2))[..., :64])
        return torch.full_like(x, -0.5)

    image = torch.full((1, 1, 128, 128), 0.1)
    keep = torch.zeros_like(image, dtype=torch.bool)
    keep[..., :64] = True
    changes = {"churn": 0.5, "guidance": 0.5, "memory": 0.8}
    denoiser = Denoiser(network, SCHEDULE, prediction_type="sample", clip=None)
    sampler(**changes)(denoiser, image, keep, SampleNoise([1]))
    moves = langevin_walk(LangevinConfig(**changes))
    exaggeration = 0.0
    for move, seen in zip(moves, shown, strict=True):
        rough = 0.05 * max(move.sigma_hat, 1.0)  # of the noise's mean over these pixels
        assert float(seen.std()) == pytest.approx(move.sigma_hat, rel=0.05)
        assert float(seen.mean()) == pytest.approx(0.1 + exaggeration, abs=rough)
        exaggeration = 0.8 * exaggeration + 0.5 * 0.6
    assert exaggeration > 1.4
