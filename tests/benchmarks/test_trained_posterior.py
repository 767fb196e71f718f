"""The benchmark of trained networks: the exact denoiser of what is hidden, and a short training."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from echogen.diffusion.border import Known

SIDE = 8


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import trained_posterior

        yield trained_posterior


@pytest.fixture(scope="module")
def case(bench: ModuleType) -> Any:
    return bench.make_cases(bench.make_prior(SIDE), range(3, 4))[0]


def test_the_exact_denoiser_knows_the_known_pixels(bench: ModuleType, case: Any) -> None:
    """At a high noise level the answer is the posterior's mean; at a low one, the picture."""
    denoiser = bench.exact_known_denoiser(case.posterior, case.keep)
    picture = torch.tensor(case.picture, dtype=torch.float32).reshape(1, 1, SIDE, SIDE)
    keep = torch.tensor(case.keep).reshape(1, 1, SIDE, SIDE)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    hidden = ~case.keep
    for step, expected in ((999, case.posterior.moments()[0]), (0, case.picture[hidden])):
        scale = math.sqrt(1.0 + denoiser.schedule.sigma_at(step) ** 2)
        x = (picture + denoiser.schedule.sigma_at(step) * noise) / scale
        found = denoiser.predict(x, step, Known(picture, keep)).x0
        assert torch.equal(found[keep], picture[keep])
        np.testing.assert_allclose(found[~keep].numpy(), expected, atol=0.05)


def test_the_sampler_paints_the_posterior_with_the_exact_denoiser(
    bench: ModuleType, case: Any
) -> None:
    found = bench.exact_row(bench.SEEING["dpm 25"], [case, case], 1024)
    assert found["evaluations"] == 25
    assert found["energy"][0] < 0.08
    assert found["variance"][0] == pytest.approx(1.0, abs=0.15)


def test_a_short_training_learns_to_use_what_is_known(bench: ModuleType, case: Any) -> None:
    one, count = np.ones(1), SIDE**2
    brightness = 0.09 * np.ones((count, count)) + 0.001 * np.eye(count)
    prior = bench.Mixture(one, np.zeros((1, count)), brightness[None], np.zeros(1, dtype=int))
    seeing = bench.trained(prior, True, 150, 0)
    pictures = torch.tensor(prior.sample(np.random.default_rng(1), 256), dtype=torch.float32)
    pictures = pictures.reshape(-1, 1, SIDE, SIDE)
    keep = torch.tensor(case.keep).reshape(1, 1, SIDE, SIDE).expand_as(pictures)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(2))

    def error(known: Known | None) -> float:
        found = seeing.predict(noise, 999, known).x0
        return float((found - pictures)[~keep].square().mean())

    with torch.inference_mode():
        assert error(Known(pictures, keep)) < 0.6 * error(None)


def test_holes_are_partial_or_whole(bench: ModuleType) -> None:
    keep = bench.drawn_keep(torch.Generator().manual_seed(0), 500, 20)
    share = keep.float().mean(dim=(1, 2, 3))
    assert keep.shape == (500, 1, 20, 20)
    assert 0.05 < float((share == 0).float().mean()) < 0.2
    assert float(share.max()) < 1.0
