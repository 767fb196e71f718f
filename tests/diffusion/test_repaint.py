import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from echogen.config import RepaintConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.repaint import chain, reverse_step
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.errors import EngineError, UsageError

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "golden").glob("repaint_*.npz"))


class RecordedNoise:
    """Replays draws in their order."""

    def __init__(self, draws):
        self._left = list(draws)

    def draw(self, shape):
        assert tuple(shape) == self._left[0].shape
        return torch.from_numpy(self._left.pop(0))

    @property
    def left(self):
        return len(self._left)


class OneGenerator:
    """Noise for a whole batch at once: fast, where samples need not be told apart."""

    def __init__(self, seed):
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, shape):
        return torch.randn(tuple(shape), generator=self._generator)


# Golden runs


def golden_denoiser(record, called):
    schedule = schedule_from_betas(record["betas"])
    mu, sigma = float(record["mu"]), float(record["sigma"])

    def network(x, timesteps):
        called.append(int(timesteps[0]))
        a = float(schedule.alphas_cumprod[called[-1]])
        gain = sigma**2 * math.sqrt(a) / (a * sigma**2 + 1 - a)
        x0 = mu + gain * (x.double() - math.sqrt(a) * mu)
        eps = (x.double() - math.sqrt(a) * x0) / math.sqrt(1 - a)
        return torch.cat([eps, 0.5 * torch.tanh(x.double())], dim=1).float()

    return Denoiser(network, schedule, "epsilon", "learned_range")


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_published_sampler_is_reproduced_draw_for_draw(file):
    record, called = np.load(file), []
    config = RepaintConfig(
        steps=int(record["steps"]),
        jump_length=int(record["jump_length"]),
        resamplings=int(record["jump_n_sample"]),
    )
    noise = RecordedNoise([record["x_T"], *record["noise"]])
    sample = chain(
        config,
        golden_denoiser(record, called),
        torch.from_numpy(record["image"]),
        torch.from_numpy(record["keep"]).bool(),
        noise,
    )
    np.testing.assert_allclose(sample.numpy(), record["sample"], atol=1e-4)
    np.testing.assert_array_equal(called, record["model_timesteps"])
    assert noise.left == 0
    assert Sampler(config).nfe == len(called)


# A prior whose posterior is known: 16 pixels of a correlated Gaussian, every third one kept

PIXELS, SAMPLES, STEPS = 16, 2000, 100
KNOWN = torch.arange(PIXELS) % 3 == 0


def gaussian_prior():
    place = torch.arange(PIXELS, dtype=torch.float64)
    covariance = 0.25**2 * 0.8 ** (place[:, None] - place).abs()
    return 0.1 * torch.sin(place / 3), covariance


def levels(low, high):
    """Betas of a schedule whose noise-to-signal ratio runs geometrically from low to high."""
    abar = 1 / (1 + np.geomspace(low, high, STEPS) ** 2)
    return schedule_from_betas(1 - abar / np.append(1, abar[:-1]))


def exact_network(believed):
    """E[x_0 | x_t] of the prior, for the noise levels of the schedule `believed`."""
    mean, covariance = gaussian_prior()

    def network(x, timesteps):
        a = float(believed.alphas_cumprod[int(timesteps[0])])
        total = a * covariance + (1 - a) * torch.eye(PIXELS, dtype=torch.float64)
        gain = math.sqrt(a) * torch.linalg.solve(total, covariance).T
        away = x.flatten(1).double() - math.sqrt(a) * mean
        return (mean + away @ gain.T).reshape(x.shape).float()

    return network


def posterior_errors(schedule, believed, jump_length, resamplings):
    """Relative errors of the painted pixels' mean and covariance against the closed form."""
    mean, covariance = gaussian_prior()
    generator = torch.Generator().manual_seed(3)
    truth = mean + torch.linalg.cholesky(covariance) @ torch.randn(
        PIXELS, generator=generator, dtype=torch.float64
    )
    hidden = ~KNOWN
    gain = torch.linalg.solve(covariance[KNOWN][:, KNOWN], covariance[KNOWN][:, hidden]).T
    expected_mean = mean[hidden] + gain @ (truth - mean)[KNOWN]
    expected_covariance = covariance[hidden][:, hidden] - gain @ covariance[KNOWN][:, hidden]
    config = RepaintConfig(steps=STEPS, jump_length=jump_length, resamplings=resamplings)
    painted = Sampler(config)(
        Denoiser(exact_network(believed), schedule, "sample", clip=None),
        (truth * KNOWN).float().reshape(1, 1, 4, 4).expand(SAMPLES, -1, -1, -1),
        KNOWN.reshape(1, 1, 4, 4).expand(SAMPLES, -1, -1, -1),
        OneGenerator(0),
    ).flatten(1)[:, hidden]
    mean_error = (painted.double().mean(0) - expected_mean).norm() / (
        expected_mean - mean[hidden]
    ).norm()
    covariance_error = (
        torch.cov(painted.double().T) - expected_covariance
    ).norm() / expected_covariance.norm()
    return float(mean_error), float(covariance_error)


def test_many_resamplings_converge_to_the_true_posterior():
    schedule = levels(0.02, 20)
    mean_error, covariance_error = posterior_errors(schedule, schedule, 10, 20)
    assert mean_error < 0.09
    assert covariance_error < 0.12


def test_without_resampling_the_posterior_is_missed():
    schedule = levels(0.02, 20)
    mean_error, covariance_error = posterior_errors(schedule, schedule, 1, 1)
    assert mean_error > 0.3
    assert covariance_error > 0.5


def test_with_a_wrong_schedule_the_posterior_is_missed():
    mean_error, covariance_error = posterior_errors(levels(0.02, 20), levels(0.05, 20), 10, 20)
    assert mean_error > 0.15 or covariance_error > 0.3


# Batches


def seeded_batch(count):
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(count, 1, 16, 16, generator=generator) * 2 - 1
    keep = torch.rand(count, 1, 16, 16, generator=generator) < 0.6
    seeds = [2**63 + 17 * index for index in range(count)]
    return image, keep, seeds


def smoothing_denoiser(**settings):
    """A network that couples neighbouring pixels but never two samples."""
    weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(2)) / 6

    def network(x, timesteps):
        return torch.tanh(torch.nn.functional.conv2d(x, weight.to(x.dtype), padding=1))

    schedule = schedule_from_betas(make_betas("linear", 100, 1e-3, 0.2))
    return Denoiser(network, schedule, "v_prediction", patch=2, **settings)


def paint(image, keep, seeds, denoiser=None):
    sampler = Sampler(RepaintConfig(steps=6, jump_length=2, resamplings=2))
    return sampler(denoiser or smoothing_denoiser(), image, keep, SampleNoise(seeds))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_sample_is_the_same_in_any_batch(size):
    image, keep, seeds = seeded_batch(8)
    whole = paint(image, keep, seeds)
    parts = [
        paint(image[i : i + size], keep[i : i + size], seeds[i : i + size])
        for i in range(0, 8, size)  # 3 leaves a ragged last batch of 2
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_noise_is_identical_in_any_batch(size):
    seeds = list(range(8))
    source = SampleNoise(seeds)
    whole = torch.stack([source.draw((8, 1, 4, 4)) for _ in range(3)])
    for start in range(0, 8, size):
        part = SampleNoise(seeds[start : start + size])
        count = len(seeds[start : start + size])
        drawn = torch.stack([part.draw((count, 1, 4, 4)) for _ in range(3)])
        assert torch.equal(drawn, whole[:, start : start + size])


def test_noise_is_normal_and_uses_all_64_bits_of_a_seed():
    drawn = SampleNoise([7, 7 + 2**40, 2**64 - 1]).draw((3, 100_000))
    assert drawn.dtype == torch.float32
    assert drawn.mean(1).abs().max() < 0.02
    assert (drawn.std(1) - 1).abs().max() < 0.02
    assert torch.corrcoef(drawn).triu(1).abs().max() < 0.02


def test_noise_for_another_number_of_samples_is_refused():
    with pytest.raises(ValueError, match="expected 2 samples"):
        SampleNoise([1, 2]).draw((3, 1, 4, 4))


def test_order_and_company_do_not_matter():
    image, keep, seeds = seeded_batch(4)
    order = [2, 0, 3, 1]
    shuffled = paint(image[order], keep[order], [seeds[i] for i in order])
    torch.testing.assert_close(shuffled, paint(image, keep, seeds)[order], atol=1e-5, rtol=0)


# What is kept, what is painted


def test_kept_pixels_are_exact():
    image, keep, seeds = seeded_batch(3)
    painted = paint(image, keep, seeds)
    assert torch.equal(painted[keep], image[keep])
    assert not torch.any(painted[~keep] == image[~keep])
    assert painted.abs().max() <= 1
    assert painted.dtype == torch.float32


def test_unknown_pixels_of_the_input_do_not_matter():
    image, keep, seeds = seeded_batch(2)
    other = torch.where(keep, image, torch.full_like(image, -1))
    assert torch.equal(paint(image, keep, seeds), paint(other, keep, seeds))


@pytest.mark.parametrize("kept", [True, False])
def test_all_kept_and_nothing_kept_are_fine(kept):
    image, _, seeds = seeded_batch(2)
    painted = paint(image, torch.full(image.shape, kept), seeds)
    assert torch.equal(painted, image) == kept


def test_three_channels_over_a_grey_image_average_to_one():
    seen = []

    def network(x, timesteps):
        seen.append(x.clone())
        return torch.cat([0.1 * x, torch.zeros_like(x)], dim=1)

    schedule = schedule_from_betas(make_betas("linear", 100, 1e-3, 0.2))
    denoiser = Denoiser(network, schedule, "sample", "learned_range", channels=3)
    image, keep, seeds = seeded_batch(2)
    painted = paint(image, keep, seeds, denoiser)
    assert painted.shape == image.shape
    assert torch.equal(painted[keep], image[keep])
    assert seen[0].shape == (2, 3, 16, 16)
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])  # as in training: independent noises
    expected = 0.1 * seen[-1].mean(1, keepdim=True)
    torch.testing.assert_close(painted[~keep], expected[~keep])


# Kinds of denoisers


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_all_kinds_of_prediction_mean_the_same(kind):
    schedule = schedule_from_betas(make_betas("linear", 100, 1e-3, 0.2))
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 1, 8, 8, generator=generator) * 2 - 1
    eps = torch.randn(2, 1, 8, 8, generator=generator)
    abar = float(schedule.alphas_cumprod[30])
    signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
    output = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}[kind]
    denoiser = Denoiser(lambda x, t: output, schedule, kind)
    torch.testing.assert_close(
        denoiser.predict(signal * x0 + noise * eps, 30).x0, x0, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_space_to_depth_is_undone(channels):
    shapes = []

    def network(x, timesteps):
        shapes.append(tuple(x.shape))
        return torch.cat([x, x.sign()], dim=1)

    schedule = schedule_from_betas([0.1] * 10)
    x = torch.rand(2, channels, 8, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    denoiser = Denoiser(network, schedule, "sample", "learned_range", channels=channels, patch=4)
    prediction = denoiser.predict(x, 5)
    assert shapes == [(2, channels * 16, 2, 3)]
    assert torch.equal(prediction.x0, x)
    assert torch.equal(prediction.variance_mix, (x.sign() + 1) / 2)


def test_x0_is_clipped_only_when_the_model_says_so():
    schedule = schedule_from_betas([0.1] * 10)
    x = torch.full((1, 1, 2, 2), 3.0)
    for clip, expected in ((1.0, 1.0), (2.0, 2.0), (None, 3.0)):
        denoiser = Denoiser(lambda x, t: x, schedule, "sample", clip=clip)
        assert float(denoiser.predict(x, 0).x0.max()) == expected


def spread(variance_type, mix):
    """Standard deviation of painted pixels for a network that says 0 (and `mix`) everywhere."""
    schedule = schedule_from_betas([0.3, 0.3])

    def network(x, timesteps):
        zero = torch.zeros_like(x)
        return zero if mix is None else torch.cat([zero, zero + mix], dim=1)

    denoiser = Denoiser(network, schedule, "sample", variance_type)
    x = torch.zeros(1, 1, 128, 128)
    noise = OneGenerator(1).draw(x.shape)
    return float(reverse_step(denoiser, schedule, denoiser.predict(x, 1), x, 1, noise).std())


def test_a_learned_range_runs_from_the_small_to_the_large_fixed_variance():
    small, large = spread("fixed_small", None), spread("fixed_large", None)
    assert small < 0.99 * large
    assert spread("learned_range", -1.0) == pytest.approx(small)
    assert spread("learned_range", 1.0) == pytest.approx(large)
    assert small < spread("learned_range", 0.0) < large


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_builtin_model_paints_in_every_precision(precision):
    denoiser = load_checkpoint("builtin", "cpu", precision)
    rows, cols = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    fan = (cols - 128).abs() < 0.6 * rows
    image = torch.where(fan, -0.3, -1.0)[None, None]
    keep = (~fan | (cols < 150))[None, None]
    sampler = Sampler(RepaintConfig(steps=3, jump_length=1, resamplings=1))
    painted = sampler(denoiser, image, keep, SampleNoise([1]))
    assert torch.equal(painted[keep], image[keep])
    assert bool(torch.isfinite(painted).all())
    assert -1 < float(painted[~keep].mean()) < 0.5
    if precision != "fp32":
        exact = sampler(load_checkpoint("builtin", "cpu", "fp32"), image, keep, SampleNoise([1]))
        assert float((painted - exact).abs().mean()) < 0.02


# What is refused


def test_a_sampler_without_settings_is_the_published_one():
    assert Sampler(RepaintConfig()).nfe == 2410


@pytest.mark.parametrize("name", ["steps", "jump_length", "resamplings"])
def test_a_walk_of_nothing_is_refused(name):
    with pytest.raises(ValidationError, match=rf"{name}\n.*greater than or equal to 1"):
        RepaintConfig(**{name: 0})


def test_a_walk_longer_than_the_schedule_is_refused():
    image, keep, seeds = seeded_batch(1)
    sampler = Sampler(RepaintConfig(steps=101, jump_length=1, resamplings=1))
    with pytest.raises(UsageError, match="1 to 100"):
        sampler(smoothing_denoiser(), image, keep, SampleNoise(seeds))


def test_batches_that_do_not_fit_are_refused():
    image, keep, seeds = seeded_batch(2)
    holes = torch.where(keep, image, torch.nan)
    for arguments, word in (
        ((image[:, 0], keep[:, 0]), r"must be \(B, 1, H, W\)"),
        ((image, keep[:1]), r"must be \(B, 1, H, W\)"),
        ((image.double(), keep), "float64"),
        ((image, keep.float()), "torch.float32, torch.float32"),
        ((holes, keep), "not finite"),
    ):
        with pytest.raises(EngineError, match=word):
            paint(*arguments, seeds)
    with pytest.raises(EngineError, match="32 x 32"):
        paint(image, keep, seeds, smoothing_denoiser(image_size=32))


def test_a_sample_that_is_not_finite_is_left_so_and_its_neighbours_are_painted():
    broken = torch.tensor([1.0, torch.nan, 1.0])[:, None, None, None]
    schedule = schedule_from_betas([0.1] * 10)
    denoiser = Denoiser(lambda x, t: x * broken, schedule, "sample")
    image, keep, seeds = seeded_batch(3)
    painted = paint(image, keep, seeds, denoiser)
    assert bool(torch.isfinite(painted[[0, 2]]).all())
    assert bool(painted[1][~keep[1]].isnan().all())
    assert torch.equal(painted[keep], image[keep])
