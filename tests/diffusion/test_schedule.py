import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echogen.config import RepaintConfig
from echogen.diffusion.schedule import (
    make_betas,
    read_scheduler,
    repaint_times,
    respace,
    sampler_nfe,
    schedule_from_betas,
)
from echogen.errors import CheckpointError, UsageError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FILES = sorted(GOLDEN.glob("repaint_*.npz"))


def walk_of(steps, jump_length, resamplings):
    return RepaintConfig(steps=steps, jump_length=jump_length, resamplings=resamplings)


def golden_schedule(record):
    train_steps = int(record["train_steps"])
    if str(record["noise_schedule"]) == "cosine":
        return schedule_from_betas(make_betas("squaredcos_cap_v2", train_steps))
    ends = (0.1 / train_steps, 20 / train_steps)
    return schedule_from_betas(make_betas("linear", train_steps, *ends))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_schedule_respacing_and_walk_match_the_published_sampler(file):
    record = np.load(file)
    steps = int(record["steps"])
    schedule = golden_schedule(record)
    np.testing.assert_allclose(schedule.betas, record["betas"], rtol=1e-10)
    spaced = respace(schedule, steps)
    np.testing.assert_allclose(spaced.betas, record["spaced_betas"], rtol=1e-9)
    np.testing.assert_array_equal(spaced.timesteps, record["timestep_map"])
    times = repaint_times(walk_of(steps, int(record["jump_length"]), int(record["jump_n_sample"])))
    np.testing.assert_array_equal(times, record["times"])
    down = [now for now, after in itertools.pairwise(times) if after < now]
    np.testing.assert_array_equal(spaced.timesteps[down], record["model_timesteps"])


def test_the_published_walk_has_4570_transitions_and_2410_evaluations():
    config = RepaintConfig()
    assert (len(repaint_times(config)) - 1, sampler_nfe(config)) == (4570, 2410)


@pytest.mark.parametrize(("walk", "cost"), [((25, 5, 5), 105), ((20, 5, 3), 50), ((1, 1, 1), 1)])
def test_short_walks_cost_what_is_documented(walk, cost):
    assert sampler_nfe(walk_of(*walk)) == cost


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_every_walk_moves_by_one_within_the_schedule_and_ends_at_minus_one(steps, jump, again):
    times = repaint_times(walk_of(steps, jump, again))
    assert times[0] == steps - 1
    assert times[-1] == -1
    assert set(np.abs(np.diff(times))) <= {1}
    assert max(times) == steps - 1
    down = sampler_nfe(walk_of(steps, jump, again))
    up = len(times) - 1 - down
    assert down == steps + up
    assert up == max(0, len(range(0, steps - jump, jump))) * jump * (again - 1)


@given(st.integers(1, 200))
def test_respaced_betas_reproduce_the_signal_levels_they_skip_to(steps):
    full = schedule_from_betas(make_betas("linear", 200, 1e-4, 0.02))
    spaced = respace(full, steps)
    np.testing.assert_allclose(
        spaced.alphas_cumprod, full.alphas_cumprod[spaced.timesteps], rtol=1e-12
    )
    assert spaced.timesteps[0] == 0
    assert steps == 1 or spaced.timesteps[-1] == 199


def test_posterior_of_a_step_agrees_with_bayes_rule():
    schedule = schedule_from_betas(make_betas("scaled_linear", 50, 1e-3, 0.02))
    step = 30
    beta, prev = schedule.betas[step], schedule.alphas_cumprod[step - 1]
    # Prior N(sqrt(prev) x0, 1 - prev) of x_{t-1}; x_t given it is N(sqrt(1 - beta) x_{t-1}, beta).
    precision = 1 / (1 - prev) + (1 - beta) / beta
    of_x0, of_xt = schedule.posterior_mean_coefficients
    assert schedule.posterior_variance[step] == pytest.approx(1 / precision)
    assert of_x0[step] == pytest.approx(np.sqrt(prev) / (1 - prev) / precision)
    assert of_xt[step] == pytest.approx(np.sqrt(1 - beta) / beta / precision)
    assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1]


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_configurations_mean_what_diffusers_reads_in_them(name):
    diffusers = pytest.importorskip("diffusers")
    config = {
        "num_train_timesteps": 100,
        "beta_schedule": name,
        "beta_start": 0.001,
        "beta_end": 0.03,
    }
    theirs = diffusers.DDPMScheduler(**config).betas.numpy()
    np.testing.assert_allclose(read_scheduler(config).schedule.betas, theirs, rtol=2e-5)


def test_trained_betas_are_taken_as_they_are():
    schedule = read_scheduler({"trained_betas": [0.1, 0.2], "beta_schedule": "linear"}).schedule
    np.testing.assert_array_equal(schedule.betas, [0.1, 0.2])


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"trained_betas": [0.1, 1.5]}, "betas"),
        ({"trained_betas": []}, "betas"),
        ({"beta_start": "low"}, "low"),
        ({"num_train_timesteps": None}, "num_train_timesteps: .*got None"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps: .*less than or equal to"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(config, word):
    with pytest.raises(CheckpointError, match=word):
        read_scheduler(config)


@pytest.mark.parametrize("steps", [0, 11])
def test_more_steps_than_the_model_has_are_refused(steps):
    with pytest.raises(UsageError, match=f"1 to 10 .* got {steps}"):
        respace(schedule_from_betas([0.1] * 10), steps)
