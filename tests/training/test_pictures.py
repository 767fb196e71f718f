import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from echogen.config import AugmentationConfig, DpmConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.schedule import read_scheduler
from echogen.support.settings import load_config
from echogen.training.log import RunLog
from echogen.training.options import TrainingOptions
from echogen.training.pictures import (
    SAMPLERS,
    draw_samples,
    inpaint,
    inpainting_sheet,
    png,
    sheet,
)
from tests.support.tiny_training import SCHEDULE, SIDE, cone, read_log


def oracle(level: float = 0.5, channels: int = 1) -> Denoiser:
    """It predicts the v of an image that is `level` everywhere."""
    schedule = read_scheduler(SCHEDULE).schedule

    def network(x, timesteps):
        x = x[:, : 4 * channels]
        abar = 1 / (1 + schedule.sigma_at(float(timesteps[0])) ** 2)
        signal, noise = abar**0.5, (1 - abar) ** 0.5
        return signal * (x - signal * level) / noise - noise * level

    return Denoiser(network, schedule, "v_prediction", channels=channels, patch=2, image_size=SIDE)


def wobbly() -> Denoiser:
    """Its images depend on their noise."""
    schedule = read_scheduler(SCHEDULE).schedule
    return Denoiser(lambda x, t: 0.3 * x.roll(1, dims=2), schedule, "v_prediction", image_size=SIDE)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_an_oracle_are_its_image(channels):
    images = draw_samples(oracle(channels=channels), 3, steps=10, seed=0)
    assert images.shape == (3, SIDE, SIDE)
    assert np.abs(images.astype(int) - 191).max() <= 1


def test_a_sample_depends_on_its_number_alone():
    many = draw_samples(wobbly(), 5, steps=6, seed=1, batch_size=2)
    few = draw_samples(wobbly(), 3, steps=6, seed=1, batch_size=3)
    assert np.array_equal(many[:3], few)
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(many[0], draw_samples(wobbly(), 1, steps=6, seed=2)[0])


@pytest.mark.parametrize("conditioning", ["none", "known"])
def test_what_is_not_kept_is_painted_and_the_rest_kept(conditioning):
    frames = cone(3, SIDE)
    keep = np.ones(frames.shape, np.bool_)
    keep[:, 9:, :8] = False
    denoiser = replace(oracle(), conditioning=conditioning)
    painted = inpaint(denoiser, frames, keep, seed=0)
    assert np.array_equal(painted[keep], frames[keep])
    assert np.abs(painted[~keep].astype(int) - 191).max() <= 1
    page = inpainting_sheet(frames, keep, painted)
    assert page.shape == (2 * (SIDE + 1), 6 * (SIDE + 1))
    assert np.array_equal(page[:SIDE, :SIDE], frames[0])
    assert (page[:SIDE, SIDE + 1 : 2 * SIDE + 1][~keep[0]] == 160).all()


def test_the_samplers_are_those_of_the_commands():
    assert load_config(AugmentationConfig, {}, preset="fast").sampler == SAMPLERS["none"]
    assert DpmConfig().steps == TrainingOptions(steps=1).sample_steps


def test_a_sheet_shows_every_image_in_order():
    images = np.stack([np.full((4, 4), 10 * n, np.uint8) for n in range(5)])
    page = sheet(images, columns=3)
    assert page.shape == (10, 15)
    assert [int(page[r * 5, c * 5]) for r in range(2) for c in range(3)][:5] == [0, 10, 20, 30, 40]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(page)))), page)


# --- what is told


def test_a_log_goes_on_after_its_step_and_drops_what_is_later_or_half(tmp_path):
    file = tmp_path / "log.jsonl"
    log = RunLog(file, 0)
    for step in (1, 2, 3, 4):
        log.write("step", step, loss=1.0 / step)
    with file.open("a") as stream:
        stream.write('{"event": "step", "st')
    again = RunLog(file, 2)
    again.write("step", 3, loss=9.0)
    assert [(line["step"], line["loss"]) for line in read_log(file)] == [(1, 1), (2, 0.5), (3, 9)]
    RunLog(file, 0)
    assert read_log(file) == []


def test_only_the_first_process_writes_a_log(tmp_path):
    RunLog(None, 0, tmp_path).write("step", 1)
    assert list(tmp_path.iterdir()) == []
