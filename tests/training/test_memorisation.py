import io

import numpy as np
import pytest
from measures.grid import grid_amplitude
from PIL import Image

from echogen.training import memorisation
from echogen.training.memorisation import distances_plot, memorisation_of, nearest_neighbours

RED, BLUE, GREY = (200, 40, 40), (30, 90, 180), (130, 130, 130)


def test_a_copy_is_found_and_a_stranger_is_not():
    rng = np.random.default_rng(0)
    known = rng.integers(20, 255, (20, 128, 128), dtype=np.uint8)
    strangers = rng.integers(20, 255, (5, 128, 128), dtype=np.uint8)
    copies = np.clip(known[3:5].astype(int) + rng.integers(-3, 4, (2, 128, 128)), 0, 255)
    found = nearest_neighbours(copies.astype(np.uint8), known)
    assert found.nearest.tolist() == [3, 4]
    assert found.rms.max() < 2
    assert found.correlation.min() > 0.99
    other = nearest_neighbours(strangers, known)
    assert other.rms.min() > 20
    assert other.correlation.max() < 0.5
    assert nearest_neighbours(known, known).rms.max() == pytest.approx(0, abs=1e-3)
    assert nearest_neighbours(known, known, leave_out=np.arange(20)).rms.min() > 20


def test_a_grid_of_period_four_is_seen_through_texture_and_slopes():
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 60, 128)[None, :, None] + np.linspace(30, 0, 128)[None, None]
    plain = rng.normal(80, 20, (20, 128, 128)) + slope
    grid = 6.0 * ((np.arange(128) % 4 == 0)[None, :, None])
    assert grid_amplitude(plain.clip(0, 255).astype(np.uint8), 4) < 0.5
    seen = grid_amplitude((plain + grid).clip(0, 255).astype(np.uint8), 4)
    assert seen == pytest.approx(6 * np.sqrt(3) / 4, abs=0.5)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 255, (count, 64, 64), dtype=np.uint8)


def test_blocks_of_frames_give_what_all_at_once_give(monkeypatch):
    frames, images = noise(50), noise(6, seed=1)
    rows, own = np.arange(0, 50, 2), np.array([0, 2, 4, 6, 8, 10])
    whole = nearest_neighbours(images, frames, rows, leave_out=own)
    monkeypatch.setattr(memorisation, "_BLOCK", 7)
    cut = nearest_neighbours(images, frames, rows, leave_out=own)
    assert np.array_equal(cut.nearest, whole.nearest)
    assert cut.rms == pytest.approx(whole.rms, rel=1e-5)
    assert cut.correlation == pytest.approx(whole.correlation, abs=1e-5)
    differences = images[:, None].astype(float) - frames[rows][None]
    direct = np.sqrt((differences**2).mean(axis=(2, 3)))
    direct[own[:, None] == rows[None]] = np.inf
    assert whole.rms == pytest.approx(direct.min(axis=1), rel=1e-5)
    assert np.array_equal(whole.nearest, rows[direct.argmin(axis=1)])
    assert np.array_equal(cut.alike, whole.alike)
    assert set(whole.alike) <= set(rows)


def blends(frames: np.ndarray, share: float, seed: int) -> np.ndarray:
    return (share * frames + (1 - share) * noise(len(frames), seed)).astype(np.uint8)


def test_a_model_that_copies_is_called_out():
    frames = noise(60)
    trained, held_out = np.arange(40), np.arange(40, 60)
    copies = np.concatenate([blends(frames[:3], 0.97, 7), noise(13, seed=8)])
    found = memorisation_of(copies, frames, trained, held_out)
    assert found.verdict.startswith("3 of 16 samples lie less than half as far")
    assert found.samples.nearest[:3].tolist() == [0, 1, 2]
    near = memorisation_of(blends(frames[:16], 0.45, 9), frames, trained, held_out)
    assert near.verdict.startswith("16 of 16 samples in grey levels, 16 in pattern, lie as near")
    fainter = np.concatenate([(frames[:1] * 0.4 + 60).astype(np.uint8), noise(15, seed=11)])
    faint = memorisation_of(fainter, frames, trained, held_out)
    assert faint.verdict.startswith("1 of 16 samples lies less than half as far")
    assert faint.samples.rms[0] > faint.held_out.rms.min() / 2
    assert int(faint.samples.alike[0]) == 0
    assert not faint.fit_to_show[0]
    assert not found.fit_to_show[:3].any()
    assert found.as_dict()["nearer_than_held_out"] == (~found.fit_to_show).sum()
    assert found.fit_to_show[3:].sum() >= 10
    fresh = memorisation_of(noise(16, seed=10), frames, trained, held_out)
    assert fresh.verdict.startswith("Samples lie no nearer")
    assert "do not prove" in fresh.verdict
    alone = memorisation_of(copies, frames, trained, held_out[:0])
    assert alone.held_out is None
    assert alone.fit_to_show.all()
    assert alone.as_dict()["nearer_than_held_out"] is None
    assert "nothing to compare with" in alone.verdict


def test_the_plot_shows_each_curve_that_there_is():
    def pixels(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    frames = noise(30)
    found = memorisation_of(noise(8, seed=2), frames, np.arange(20), np.arange(20, 30))
    picture = pixels(distances_plot(found))
    assert picture.shape == (1080, 900, 3)
    drawn = [int((picture == colour).all(axis=2).sum()) for colour in (RED, BLUE, GREY)]
    assert min(drawn) > 100
    assert distances_plot(found) == distances_plot(found)
    alone = pixels(
        distances_plot(memorisation_of(noise(8, seed=2), frames, np.arange(20), np.arange(0)))
    )
    assert not (alone == BLUE).all(axis=2).any()
