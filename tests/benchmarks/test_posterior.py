"""The benchmark with a known posterior: its closed forms, its scores, and a small version of it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

SIDE = 12


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import posterior

        yield posterior


@pytest.fixture(scope="module")
def prior(bench: ModuleType) -> Any:
    return bench.make_prior(SIDE)


@pytest.fixture(scope="module")
def denoiser(bench: ModuleType, prior: Any) -> Any:
    return bench.exact_denoiser(prior)


@pytest.fixture(scope="module")
def case(bench: ModuleType, prior: Any) -> Any:
    return bench.make_case(prior, 3, bench.masks(SIDE)["flank"].ravel())


@pytest.fixture(scope="module")
def exact(case: Any) -> np.ndarray:
    return case.posterior.sample(np.random.default_rng(7), 400)


def predict(denoiser: Any, z: np.ndarray, step: int) -> np.ndarray:
    """E[x_0 | z] of (count, n) pictures at a step of the schedule."""
    scale = math.sqrt(1.0 + denoiser.schedule.sigma_at(step) ** 2)
    x = torch.tensor(z / scale, dtype=torch.float32).reshape(-1, 1, SIDE, SIDE)
    return denoiser.predict(x, step).x0.flatten(1).double().numpy()


@pytest.mark.parametrize("step", [50, 400, 700])
def test_the_denoiser_is_the_gradient_of_the_log_density(
    prior: Any, denoiser: Any, step: int
) -> None:
    """Tweedie: E[x_0 | z] = z + sigma^2 grad log p(z), the gradient by finite differences."""
    rng = np.random.default_rng(0)
    sigma = denoiser.schedule.sigma_at(step)
    noise = sigma**2 * np.eye(SIDE**2)
    noisy = replace(prior, covariances=prior.covariances + noise)
    z = prior.sample(rng, 3) + sigma * rng.standard_normal((3, SIDE**2))
    predicted = predict(denoiser, z, step)
    for pixel in rng.choice(SIDE**2, 6, replace=False):
        nudge = np.zeros(SIDE**2)
        nudge[pixel] = 1e-4
        slope = (noisy.log_density(z + nudge) - noisy.log_density(z - nudge)) / 2e-4
        tweedie = z[:, pixel] + sigma**2 * slope
        np.testing.assert_allclose(predicted[:, pixel], tweedie, atol=2e-4)


def test_the_posterior_is_the_prior_weighted_by_what_is_seen(bench: ModuleType) -> None:
    """Its moments against importance weights, in two dimensions of which one is seen."""
    covariances = np.array([[[1.0, 0.6], [0.6, 0.8]], [[0.5, -0.3], [-0.3, 0.4]]])
    means = np.array([[0.0, 1.0], [1.0, -1.0], [-1.0, 0.5]])
    mixture = bench.Mixture(np.array([0.5, 0.3, 0.2]), means, covariances, np.array([0, 1, 0]))
    seen = 0.4
    posterior = mixture.posterior(np.array([seen, np.nan]), np.array([True, False]))
    grid = np.linspace(-8.0, 8.0, 4001)
    density = np.exp(mixture.log_density(np.column_stack([np.full_like(grid, seen), grid])))
    density /= density.sum()
    mean = density @ grid
    found_mean, found_covariance = posterior.moments()
    assert found_mean[0] == pytest.approx(mean, abs=1e-6)
    assert found_covariance[0, 0] == pytest.approx(density @ (grid - mean) ** 2, abs=1e-6)


def test_draws_have_the_moments_of_their_mixture(case: Any) -> None:
    mean, covariance = case.posterior.moments()
    spread = np.sqrt(np.diag(covariance) / len(case.truths))
    assert np.all(abs(case.truths.mean(axis=0) - mean) < 5 * spread)
    assert np.trace(np.cov(case.truths.T)) == pytest.approx(np.trace(covariance), rel=0.1)


def test_responsibilities_are_shares_that_name_the_component(prior: Any) -> None:
    shares = prior.responsibilities(prior.means)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    mode = np.repeat(np.arange(8), 2)  # two strengths of speckle each
    assert np.array_equal(mode[shares.argmax(axis=1)], mode)


def test_grey_levels_of_the_prior_lie_within_the_models_range(prior: Any) -> None:
    drawn = prior.sample(np.random.default_rng(0), 1000)
    assert (abs(drawn) > 1.0).mean() < 1e-3


def test_exact_samples_score_as_right(bench: ModuleType, case: Any, exact: np.ndarray) -> None:
    scores = bench.score(case, exact)
    assert abs(scores["energy"]) < 0.1
    assert scores["modes"] < 0.1
    assert scores["mean"] < 0.15
    assert scores["variance"] == pytest.approx(1.0, abs=0.1)
    assert scores["seam"] == pytest.approx(1.0, abs=0.04)
    assert scores["texture"] == pytest.approx(1.0, abs=0.04)


def test_missing_modes_are_scored(bench: ModuleType, case: Any, exact: np.ndarray) -> None:
    component = case.posterior.responsibilities(exact).argmax(axis=1)
    one = exact[component == np.bincount(component).argmax()]
    scores, right = bench.score(case, one), bench.score(case, exact)
    left_out = 1.0 - len(one) / len(exact)
    assert left_out > 0.2  # or this case would test nothing
    assert scores["modes"] > right["modes"] + 0.5 * left_out
    assert scores["energy"] > right["energy"] + 0.05


def test_a_blur_is_scored_as_texture(bench: ModuleType, case: Any, exact: np.ndarray) -> None:
    blurred = gaussian_filter(case.filled(exact), (0, 0.7, 0.7)).reshape(len(exact), -1)
    assert bench.score(case, blurred[:, ~case.keep])["texture"] < 0.8


def test_a_step_at_the_border_is_scored_as_seam(
    bench: ModuleType, case: Any, exact: np.ndarray
) -> None:
    scores = bench.score(case, exact + 0.3)
    assert scores["seam"] > 1.2
    assert scores["mean"] > 0.5
    assert scores["variance"] == pytest.approx(1.0, abs=0.1)


def test_evaluations_are_counted(bench: ModuleType, denoiser: Any, case: Any) -> None:
    samples, evaluations = bench.paint(bench.repaint(10, 5, 2), denoiser, [case, case], 3)
    assert evaluations == 15
    assert [s.shape for s in samples] == [(3, int((~case.keep).sum()))] * 2
    assert len(np.unique(np.concatenate(samples), axis=0)) == 6  # each with noise of its own


def test_every_rival_goes_on_from_what_is_known(
    bench: ModuleType, denoiser: Any, case: Any
) -> None:
    cheap = {
        "ddnm": {"steps": 10, "travel": 5, "repeats": 2},
        "diffpir": {"steps": 16, "zeta": 0.5},
        "heun": {"levels": 8, "churn": 0.2},
        "lanpaint": {"levels": 8, "inner_steps": 1, "step_size": 0.5, "guidance": 1.0},
    }
    for name, settings in cheap.items():
        sampler = bench.partial(getattr(bench.rivals, name), **settings)
        (samples,), evaluations = bench.paint(sampler, denoiser, [case], 48)
        assert 10 <= evaluations <= 16, name
        scores = bench.score(case, samples)
        # what ignores the known pixels, or leaves out its noise, is beyond one of these
        assert scores["energy"] < 0.6, name
        assert scores["seam"] < 1.4, name


def test_langevin_comes_nearer_to_the_posterior_than_repaint_of_its_cost(
    bench: ModuleType, prior: Any, denoiser: Any
) -> None:
    cases = bench.make_cases(prior, range(100, 103))
    rows = {}
    for name in ("repaint 25/5/5", "langevin balanced"):
        samples, evaluations = bench.paint(bench.SAMPLERS[name], denoiser, cases, 48)
        scores = [bench.score(*of) for of in zip(cases, samples, strict=True)]
        rows[name] = bench.summary(scores, evaluations)
    repaint, langevin = rows["repaint 25/5/5"], rows["langevin balanced"]
    assert langevin["evaluations"] <= repaint["evaluations"]
    assert langevin["energy"][0] < 0.8 * repaint["energy"][0]
    assert abs(langevin["seam"][0] - 1.0) < abs(repaint["seam"][0] - 1.0)
    assert abs(langevin["texture"][0] - 1.0) < abs(repaint["texture"][0] - 1.0)
