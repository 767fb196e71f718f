"""The noise stream: the same integers on every device, normals, one stream a seed."""

import numpy as np
import pytest
import torch

from echogen.diffusion.noise import SampleNoise, normals, philox_words

SEEDS = [0, 7, 7 + 2**40, 2**64 - 1]


def signed(seeds: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(seeds, np.uint64).view(np.int64))


def test_words_on_a_device_are_those_of_numpys_philox() -> None:
    expected = np.stack([np.random.Philox(key=seed).random_raw(4 * 60) for seed in SEEDS])
    made = philox_words(signed(SEEDS), 0, 60).numpy().view(np.uint64)
    np.testing.assert_array_equal(made, expected)
    later = philox_words(signed(SEEDS), 17, 43).numpy().view(np.uint64)
    np.testing.assert_array_equal(later, expected[:, 4 * 17 :])


def test_both_ways_of_drawing_agree_over_several_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    host, device = SampleNoise(SEEDS), SampleNoise(SEEDS)
    monkeypatch.setattr(device, "_on_device", True)
    monkeypatch.setattr(device, "_keys", signed(SEEDS), raising=False)
    for shape in ((4, 1, 8, 8), (4, 3, 5, 5), (4, 1, 8, 8)):  # 75 is no multiple of a block's 8
        torch.testing.assert_close(host.draw(shape), device.draw(shape), rtol=1e-6, atol=1e-6)


def test_draws_are_standard_normal_and_independent() -> None:
    drawn = SampleNoise(SEEDS).draw((4, 2, 256, 256)).double()
    flat = drawn.reshape(8, -1)
    assert flat.mean(dim=1).abs().max() < 5 / 256
    assert (flat.std(dim=1) - 1).abs().max() < 0.01
    assert ((flat**4).mean(dim=1) - 3).abs().max() < 0.2
    correlation = torch.corrcoef(flat) - torch.eye(8)
    assert correlation.abs().max() < 5 / 256
    first, second = flat.chunk(2, dim=1)  # the cosine and the sine of one angle
    assert (first * second).mean(dim=1).abs().max() < 0.03


def test_the_tails_are_there_and_finite() -> None:
    extremes = torch.tensor([[0, -1, 0xFFFFFFFF, -0x100000000]], dtype=torch.int64)
    made = normals(extremes)
    assert torch.isfinite(made).all()
    assert 6.5 < float(made.abs().max()) < 7


def test_a_batch_draws_what_its_parts_draw() -> None:
    whole = SampleNoise(SEEDS)
    parts = [SampleNoise(SEEDS[:1]), SampleNoise(SEEDS[1:])]
    for _ in range(2):
        joined = torch.cat([parts[0].draw((1, 1, 6, 6)), parts[1].draw((3, 1, 6, 6))])
        assert torch.equal(whole.draw((4, 1, 6, 6)), joined)
