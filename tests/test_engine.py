from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.engine.local import LocalEngine
from echogen.errors import EngineError
from echogen.types import Job, to_model_range

SIDE = 8


class NoiseSampler:
    """Paints the sample's own noise; remembers the batches; may run out of memory."""

    nfe = 1

    def __init__(self, fits: int = 100) -> None:
        self.batches: list[int] = []
        self.fits = fits

    def __call__(
        self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
    ) -> Tensor:
        if len(image) > self.fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        self.batches.append(len(image))
        return noise.draw(image.shape).clamp(-1, 1)


def denoiser() -> Denoiser:
    return Denoiser(lambda x, t: x, schedule_from_betas(make_betas("linear", 10, 1e-3, 0.1)))


def job(index: int, hole: bool = True) -> Job:
    rng = np.random.default_rng(index)
    keep = np.ones((SIDE, SIDE), np.bool_)
    keep[:, : SIDE // 2] = not hole
    image = rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    label = rng.integers(0, 4, (SIDE, SIDE)).astype(np.uint8)
    return Job(f"s{index}", index, to_model_range(image), keep, label, 0.25)


def paint(jobs: Sequence[Job], batch_size: int, sampler: NoiseSampler) -> list[np.ndarray]:
    engine = LocalEngine(denoiser(), sampler, batch_size)
    return [result.image for result in engine.run(iter(jobs))]


def test_results_come_in_order_with_their_labels() -> None:
    jobs = [job(i, hole=i % 3 > 0) for i in range(7)]
    results = list(LocalEngine(denoiser(), NoiseSampler(), 2).run(iter(jobs)))
    assert [result.sample_id for result in results] == [j.sample_id for j in jobs]
    for result, j in zip(results, jobs, strict=True):
        np.testing.assert_array_equal(result.label, j.label)
        assert result.label_on_paint == 0.25


def test_kept_pixels_are_exact_and_the_rest_is_painted() -> None:
    result = next(LocalEngine(denoiser(), NoiseSampler(), 4).run([job(5)]))
    known = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    np.testing.assert_array_equal(result.image[result.keep], known[result.keep])
    assert (result.image[~result.keep] != 0).any()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_noise_does_not_depend_on_the_batch(batch_size: int) -> None:
    jobs = [job(i) for i in range(8)]
    together = paint(jobs, batch_size, NoiseSampler())
    alone = [paint([j], 1, NoiseSampler())[0] for j in jobs]
    np.testing.assert_array_equal(together, alone)


def test_nothing_to_paint_costs_no_evaluation() -> None:
    sampler = NoiseSampler()
    paint([job(i, hole=False) for i in range(4)], 2, sampler)
    assert sampler.batches == []


def test_batches_are_full_and_the_last_one_is_ragged() -> None:
    sampler = NoiseSampler()
    paint([job(i, hole=i != 2) for i in range(8)], 3, sampler)
    assert sampler.batches == [3, 3, 1]


def test_out_of_memory_halves_the_batch_tells_it_and_changes_no_image() -> None:
    told: list[str] = []
    jobs = [job(i) for i in range(8)]
    sampler = NoiseSampler(fits=2)
    engine = LocalEngine(denoiser(), sampler, 8, told.append)
    images = [result.image for result in engine.run(jobs)]
    assert sampler.batches == [2, 2, 2, 2]
    assert told == [
        "out of memory: going on with batches of 4",
        "out of memory: going on with batches of 2",
    ]
    np.testing.assert_array_equal(images, paint(jobs, 8, NoiseSampler()))


def test_no_room_for_one_image_is_an_error_with_advice() -> None:
    with pytest.raises(EngineError, match="out of memory with one image"):
        paint([job(1)], 4, NoiseSampler(fits=0))


def test_jobs_are_taken_one_batch_at_a_time() -> None:
    taken: list[int] = []

    def jobs() -> object:
        for i in range(100):
            taken.append(i)
            yield job(i)

    results = LocalEngine(denoiser(), NoiseSampler(), 4).run(jobs())  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 8


def test_values_that_are_not_finite_fail_the_sample_alone() -> None:
    class Broken(NoiseSampler):
        def __call__(
            self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
        ) -> Tensor:
            painted = super().__call__(denoiser, image, keep, noise)
            painted[1] = torch.nan
            return painted

    results = list(LocalEngine(denoiser(), Broken(), 3).run([job(i) for i in range(3)]))
    assert [result.error is None for result in results] == [True, False, True]
    assert "not finite" in str(results[1].error)
