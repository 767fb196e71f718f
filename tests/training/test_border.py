"""Fitting the correction next to known pixels to a network that does not see the border."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from echogen.diffusion.border import Known
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.schedule import read_scheduler
from echogen.training import border as fitting
from echogen.training.batches import frame_source
from echogen.training.border import fit_border
from tests.support.tiny_training import SIDE, recipe, tiny_frames

SCHEDULE = read_scheduler({"num_train_timesteps": 1000}).schedule
SPREAD = 0.3


def blind(x: Tensor, timesteps: Tensor) -> Tensor:
    """The best guess at an image of one grey level, seen through noise, from each pixel alone."""
    sigma = SCHEDULE.sigma_at(float(timesteps[0]))
    z = x[:, :4] * math.sqrt(1.0 + sigma**2)
    return z * SPREAD**2 / (SPREAD**2 + sigma**2)


def flat_images(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 of one grey level each, noise, and half of it known."""
    generator = torch.Generator().manual_seed(seed)
    level = SPREAD * torch.randn(count, 1, 1, 1, generator=generator)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    keep = (torch.arange(SIDE) < SIDE // 2).expand(count, 1, SIDE, SIDE)
    return level.expand(count, 1, SIDE, SIDE), noise, keep


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(blind, SCHEDULE, "sample", conditioning="known", patch=2)


def test_it_learns_that_an_image_goes_on(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: object) -> list[tuple[Tensor, ...]]:
        return list(zip(*(part.split(1) for part in flat_images(48, 0)), strict=True))

    monkeypatch.setattr(fitting, "_images", drawn)
    source = frame_source(tiny_frames(), torch.arange(4).numpy(), torch.device("cpu"))
    border = fit_border(denoiser, source, recipe(), 48)
    x0, noise, keep = flat_images(16, 1)
    for sigma in (0.1, 0.5):
        timestep = SCHEDULE.timestep_at(sigma)
        x = (x0 + sigma * noise) / math.sqrt(1.0 + sigma**2)
        known, ring = Known(x0, keep), (..., SIDE // 2)
        without = (denoiser.predict(x, timestep, known).x0 - x0)[ring]
        corrected = replace(denoiser, border=border).predict(x, timestep, known).x0
        assert (corrected - x0)[ring].square().mean() < 0.5 * without.square().mean()


def test_the_same_run_gets_the_same_correction(denoiser: Denoiser) -> None:
    source = frame_source(tiny_frames(), torch.arange(4).numpy(), torch.device("cpu"))
    before = torch.random.get_rng_state()
    first, second = (fit_border(denoiser, source, recipe(), 6).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["last.weight"].abs().max() > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_borders_it_changes_nothing(denoiser: Denoiser) -> None:
    whole = recipe()
    holes = whole.holes.model_copy(update={"moves": 0.0, "shapes": 0.0, "whole": 1.0})
    source = frame_source(tiny_frames(), torch.arange(4).numpy(), torch.device("cpu"))
    border = fit_border(denoiser, source, whole.model_copy(update={"holes": holes}), 4)
    assert not border.state_dict()["last.weight"].any()
