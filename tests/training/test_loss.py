import numpy as np
import pytest
import torch

from echogen.diffusion.schedule import read_scheduler
from echogen.training.batches import TrainingBatch
from echogen.training.loss import (
    clean,
    counted,
    geometric_mean,
    log_likelihood,
    loss_by_level,
    make_objective,
    noised,
    shown,
    stratified_steps,
    variational_bound,
    weights,
)
from echogen.training.recipe import LossConfig
from tests.support.tiny_training import SCHEDULE, SIDE, learning_variance, recipe

ABAR = torch.from_numpy(read_scheduler(SCHEDULE).schedule.alphas_cumprod).float()


def test_a_perfect_v_gives_back_the_image_and_its_noise():
    x0, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    abar_t = ABAR[torch.tensor([0, 100, 400, 700, 999])]
    x_t, v = noised(x0, noise, abar_t, "v_prediction")
    signal, sigma = abar_t.sqrt()[:, None, None, None], (1 - abar_t).sqrt()[:, None, None, None]
    assert torch.allclose(signal * x_t - sigma * v, x0, atol=1e-5)
    assert torch.allclose(sigma * x_t + signal * v, noise, atol=1e-5)


def test_min_snr_weights_agree_for_both_predictions():
    # An error of x0 weighs min(SNR, 5) whichever target it is expressed in.
    snr = ABAR / (1 - ABAR)
    config = LossConfig(snr_gamma=5.0)
    v, epsilon = (weights(ABAR, kind, config) for kind in ("v_prediction", "epsilon"))
    assert torch.allclose(v * (snr + 1), snr.clamp(max=5), rtol=1e-4)
    assert torch.allclose(epsilon * snr, snr.clamp(max=5), rtol=1e-4)
    assert weights(ABAR, "v_prediction", LossConfig(snr_gamma=5.0, weight_floor=0.25)).min() == 0.25


def test_steps_are_spread_evenly():
    steps = stratified_steps(100, 1000, torch.Generator().manual_seed(0)).sort().values
    assert (steps.diff() == 10).float().mean() > 0.9
    assert 0 <= int(steps.min()) <= int(steps.max()) < 1000


def test_loss_by_level_is_zero_for_an_oracle_and_does_not_depend_on_the_batch():
    frames = torch.full((5, 1, SIDE, SIDE), 0.25)

    def oracle(x_t, t):
        a = ABAR[t].sqrt()[:, None, None, None]
        s = (1 - ABAR[t]).sqrt()[:, None, None, None]
        return a * (x_t - a * 0.25) / s - s * 0.25

    exact = loss_by_level(oracle, frames, ABAR, "v_prediction", 2)
    assert max(exact.values()) < 1e-6

    def nothing(x_t, t):
        return torch.zeros_like(x_t)

    figures = [
        loss_by_level(nothing, frames, ABAR, "v_prediction", 2, batch_size=size) for size in (2, 5)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert geometric_mean({1: 1.0, 2: 4.0}) == pytest.approx(2.0)


def test_no_min_snr_weighting_counts_every_step_the_same():
    assert torch.equal(weights(ABAR, "epsilon", LossConfig(snr_gamma=0.0)), torch.ones(1000))


def test_clean_undoes_noised_for_both_predictions():
    x0, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    abar_t = ABAR[torch.tensor([3, 400, 800])]
    for kind in ("v_prediction", "epsilon"):
        x_t, target = noised(x0, noise, abar_t, kind)
        assert torch.allclose(clean(x_t, target, abar_t, kind), x0, atol=1e-4)


# --- what is known


def known_batch(config):
    generator = torch.Generator().manual_seed(2)
    channels, side = config.channels * config.patch**2, SIDE // config.patch
    x0, noise = torch.randn(2, 3, channels, side, side, generator=generator).clamp(-1, 1)
    keep = torch.rand(3, config.patch**2, side, side, generator=generator) < 0.5
    return TrainingBatch(
        x0, noise, torch.tensor([3, 400, 900]), torch.zeros(3, 7), keep, (~keep).float() * 2
    )


@pytest.mark.parametrize("config", [recipe(), learning_variance()], ids=["v", "variance"])
def test_known_pixels_are_shown_clean_and_as_a_map(config):
    batch = known_batch(config)
    abar = make_objective(config, torch.device("cpu")).abar
    x_t, _ = noised(batch.x0, batch.noise, abar[batch.t], "epsilon")
    picture, kept = shown(x_t, batch.x0, batch.keep).split([len(x_t[0]), config.keep_channels], 1)
    assert torch.equal(kept.bool(), batch.keep)
    for channel in range(picture.shape[1]):
        known = batch.keep[:, channel % config.keep_channels]
        assert torch.equal(picture[:, channel][known], batch.x0[:, channel][known])
        assert torch.equal(picture[:, channel][~known], x_t[:, channel][~known])
    assert shown(x_t, batch.x0, None) is x_t


@pytest.mark.parametrize("config", [recipe(), learning_variance()], ids=["v", "variance"])
def test_loss_and_gradient_do_not_see_what_is_known(config):
    batch, objective = known_batch(config), make_objective(config, torch.device("cpu"))
    known = batch.keep.repeat(1, config.channels * (1 + config.learns_variance), 1, 1)
    output = torch.randn(known.shape, generator=torch.Generator().manual_seed(3))
    losses = []
    for other in (0.0, 5.0):
        given = torch.where(known, output + other, output).requires_grad_()
        errors = objective(given, batch.x0, batch.noise, batch.t)
        loss = counted(errors, batch.weight) / batch.total
        loss.backward()
        assert not given.grad[known].any()
        assert (given.grad[~known] != 0).float().mean() > 0.99
        losses.append(float(loss.detach()))
    assert losses[0] == losses[1]
    hidden = ~batch.keep.repeat(1, config.channels, 1, 1)
    errors = objective(output, batch.x0, batch.noise, batch.t)
    assert losses[0] == pytest.approx(float(errors[hidden].mean()), rel=1e-5)


def test_loss_by_level_is_of_hidden_pixels_whatever_the_batch():
    frames = torch.rand(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keep = torch.zeros(5, 1, SIDE, SIDE, dtype=torch.bool)
    keep[:, :, :, : SIDE // 2] = True

    def network(x, t):
        assert x.shape[1] == 8
        return torch.where(x[:, 4:] > 0, 99.0, 0.0)  # nonsense where known

    found = [loss_by_level(network, frames, ABAR, "v_prediction", 2, batch_size=size, keep=keep)
             for size in (2, 5)]  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert max(found[0].values()) < 2


# --- the learned variance


def bound_case(t: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randint(0, 256, (2, 3, 4, 4), generator=generator) / 127.5 - 1
    x0[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    noise = torch.randn(x0.shape, generator=generator)
    schedule = read_scheduler(SCHEDULE).schedule
    abar = schedule.alphas_cumprod[t]
    x_t = float(np.sqrt(abar)) * x0 + float(np.sqrt(1 - abar)) * noise
    predicted = x0 + 0.3 * torch.randn(x0.shape, generator=generator)
    share = 2 * torch.rand(x0.shape, generator=generator) - 1
    return schedule, x0, x_t, predicted, share


@pytest.mark.parametrize("t", [1, 200, 999])
def test_the_bound_is_the_divergence_of_two_gaussians_by_numerical_integration(t):
    schedule, x0, x_t, predicted, share = bound_case(t)
    found = variational_bound(schedule, torch.device("cpu")).bits(
        x0, x_t, torch.full((2,), t), predicted, share
    )
    found = found.mean(dim=(1, 2, 3))
    beta, abar, before = (
        schedule.betas[t],
        schedule.alphas_cumprod[t],
        schedule.alphas_cumprod[t - 1],
    )

    def mean(x):
        x, x_now = x.double().numpy(), x_t.double().numpy()
        weight = np.sqrt(before) * beta * x + np.sqrt(1 - beta) * (1 - before) * x_now
        return weight / (1 - abar)

    true_variance = beta * (1 - before) / (1 - abar)
    f = (share.double().numpy() + 1) / 2
    variance = np.exp(f * np.log(beta) + (1 - f) * np.log(true_variance))
    true_mean, model_mean = mean(x0)[..., None], mean(predicted)[..., None]
    x = true_mean + np.sqrt(true_variance) * np.linspace(-9, 9, 4001)

    def log_density(at, centre, spread):
        return -0.5 * (np.log(2 * np.pi * spread) + (at - centre) ** 2 / spread)

    q = log_density(x, true_mean, true_variance)
    p = log_density(x, model_mean, variance[..., None])
    nats = np.trapezoid(np.exp(q) * (q - p), x)
    assert found.numpy() == pytest.approx(nats.mean(axis=(1, 2, 3)) / np.log(2), rel=2e-3)


def test_the_first_step_is_the_mass_on_each_grey_level():
    mean = torch.linspace(-1.1, 1.1, 7)
    log_variance = torch.full((7,), -7.0)
    levels = torch.arange(256) / 127.5 - 1
    masses = torch.exp(log_likelihood(levels[:, None], mean, log_variance))
    assert torch.allclose(masses.sum(dim=0), torch.ones(7), atol=1e-5)
    middle = masses[124, 3] / (2 / 255)
    density = torch.exp(-0.5 * levels[124] ** 2 / np.exp(-7.0)) / np.sqrt(2 * np.pi * np.exp(-7.0))
    assert float(middle) == pytest.approx(float(density), rel=0.02)
    schedule, x0, x_t, predicted, share = bound_case(0)
    t = torch.zeros(2, dtype=torch.long)
    bits = variational_bound(schedule, torch.device("cpu")).bits(x0, x_t, t, predicted, share)
    bits = bits.mean(dim=(1, 2, 3))
    f = (share + 1) / 2
    log_variance = f * np.log(schedule.betas[0]) + (1 - f) * schedule.posterior_log_variance[0]
    nats = -log_likelihood(x0, predicted, log_variance).mean(dim=(1, 2, 3))
    assert torch.allclose(bits, nats / np.log(2), rtol=1e-4)


def test_the_bound_moves_the_variance_and_leaves_the_prediction_alone():
    config = learning_variance()
    objective = make_objective(config, torch.device("cpu"))
    without = config.model_copy(
        update={"loss": LossConfig(snr_gamma=0.0, weight_floor=0.0, vlb_weight=0.0)}
    )
    simple = make_objective(without, torch.device("cpu"))
    _, x0, _, _, _ = bound_case(0)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    t = torch.tensor([0, 700])
    output = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(6))
    gradients = []
    for loss in (objective, simple):
        given = output.clone().requires_grad_()
        loss(given, x0, noise, t).sum().backward()
        gradients.append(given.grad)
    assert torch.equal(gradients[0][:, :3], gradients[1][:, :3])
    assert gradients[0][:, 3:].abs().min() > 0
    assert not gradients[1][:, 3:].any()


def test_the_bound_is_least_at_the_variance_of_what_is_left_to_guess():
    # A prediction that is off by little wants the posterior's variance, f = 0 (share -1).
    schedule, x0, x_t, _, _ = bound_case(300)
    bound = variational_bound(schedule, torch.device("cpu"))
    t = torch.full((2,), 300)
    by_share = [
        float(bound.bits(x0, x_t, t, x0, torch.full_like(x0, share)).sum())
        for share in (-1.5, -1.0, -0.5)
    ]
    assert by_share[1] < min(by_share[0], by_share[2])
    assert by_share[1] == pytest.approx(0, abs=1e-4)
