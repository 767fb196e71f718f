from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.errors import EngineError
from echogen.painting import local
from echogen.painting.batches import MOST_PASSING
from echogen.painting.local import LocalEngine
from echogen.types import Job, to_uint8
from tests.support.hearts import make_job

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
    return make_job(index, SIDE, hole)


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


def test_jobs_before_the_first_hole_do_not_wait_for_it_to_be_painted() -> None:
    sampler = NoiseSampler()
    jobs = [job(i, hole=i not in (2, 3)) for i in range(6)]
    results = LocalEngine(denoiser(), sampler, 2).run(jobs)
    for _ in range(4):
        next(results)
    assert sampler.batches == [2]


def test_jobs_with_nothing_to_paint_do_not_pile_up() -> None:
    taken: list[int] = []

    def originals() -> Iterator[Job]:
        for i in range(4 * MOST_PASSING):
            taken.append(i)
            yield job(i, hole=i == 0)

    results = LocalEngine(denoiser(), NoiseSampler(), 4).run(originals())
    next(results)
    assert len(taken) <= 2 * MOST_PASSING + 1
    assert len(list(results)) == 4 * MOST_PASSING - 1


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


class Faulty(NoiseSampler):
    """Gives values that are not finite for some places of its n-th batch."""

    def __init__(self, faults: dict[int, slice]) -> None:
        super().__init__()
        self.faults = faults

    def __call__(
        self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
    ) -> Tensor:
        painted = super().__call__(denoiser, image, keep, noise)
        painted[self.faults.get(len(self.batches) - 1, slice(0)), :, 0, 0] = torch.inf
        return painted


def test_nothing_finite_in_the_first_batch_ends_the_run_with_the_remedy() -> None:
    engine = LocalEngine(denoiser(), Faulty({0: slice(None)}), 3)
    with pytest.raises(EngineError, match=r"no image of the first batch .* --checkpoint"):
        next(engine.run([job(i) for i in range(3)]))
    half = replace(denoiser(), dtype=torch.float16, name="small")
    with pytest.raises(EngineError, match=r"cpu: .* small ran in fp16\. Use --precision fp32"):
        next(LocalEngine(half, Faulty({0: slice(None)}), 3).run([job(i) for i in range(3)]))


def test_nothing_finite_in_a_later_batch_fails_its_samples_alone() -> None:
    engine = LocalEngine(denoiser(), Faulty({1: slice(None)}), 2)
    results = list(engine.run([job(i) for i in range(6)]))
    assert [result.error is None for result in results] == [True, True, False, False, True, True]


def test_levels_are_rounded_on_the_device_as_by_to_uint8() -> None:
    levels = torch.linspace(-1.2, 1.2, SIDE * SIDE * 40).reshape(40, 1, SIDE, SIDE)

    class Ramp(NoiseSampler):
        def __call__(
            self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
        ) -> Tensor:
            return levels[: len(image)]

    jobs = [replace(job(i), keep=np.zeros((SIDE, SIDE), np.bool_)) for i in range(40)]
    images = [result.image for result in LocalEngine(denoiser(), Ramp(), 40).run(jobs)]
    np.testing.assert_array_equal(images, to_uint8(levels[:, 0].numpy()))


def test_a_short_batch_is_filled_up_where_that_is_asked_for() -> None:
    jobs = [job(i, hole=i != 2) for i in range(8)]
    sampler = NoiseSampler()
    results = list(LocalEngine(denoiser(), sampler, 3).run(jobs, pad=True))
    assert sampler.batches == [3, 3, 3]
    images = [result.image for result in results]
    np.testing.assert_array_equal(images, paint(jobs, 3, NoiseSampler()))


def test_a_padded_batch_that_does_not_fit_is_halved_and_filled_up_anew() -> None:
    sampler = NoiseSampler(fits=2)
    results = list(LocalEngine(denoiser(), sampler, 8).run([job(i) for i in range(5)], pad=True))
    assert sampler.batches == [2, 2, 2]
    assert len(results) == 5


@pytest.mark.parametrize(
    ("wanted", "painted", "results"), [([3, 1], [3, 1], 5), ([3, 0], [3], 4), ([0], [], 1)]
)
def test_a_run_ends_with_the_first_job_that_is_no_longer_wanted(
    wanted: list[int], painted: list[int], results: int
) -> None:
    asked: list[list[str]] = []

    def begin(jobs: Sequence[Job]) -> int:
        asked.append([j.sample_id for j in jobs])
        return wanted[len(asked) - 1]

    sampler = NoiseSampler()
    jobs = [job(i, hole=i not in (0, 6)) for i in range(9)]
    made = list(LocalEngine(denoiser(), sampler, 3).run(iter(jobs), begin))
    assert sampler.batches == painted
    assert [result.sample_id for result in made] == [f"s{i}" for i in range(results)]
    assert asked == [["s1", "s2", "s3"], ["s4", "s5", "s7"]][: len(wanted)]


def test_without_a_batch_size_one_is_found_by_trial_and_told() -> None:
    told: list[str] = []
    engine = LocalEngine(replace(denoiser(), image_size=SIDE), NoiseSampler(), 0, told.append)
    engine.settle(local.WORTH_A_TRIAL)
    assert 1 <= engine.batch_size <= 64
    assert f"cpu: batches of {engine.batch_size}" in told[0]
    chosen = engine.batch_size
    engine.settle(10 * local.WORTH_A_TRIAL)
    assert (engine.batch_size, len(told)) == (chosen, 1)


def test_with_little_to_paint_no_batch_size_is_tried() -> None:
    evaluated: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append(len(x))
        return x

    engine = LocalEngine(replace(denoiser(), network=network), NoiseSampler(), 0)
    engine.settle(local.WORTH_A_TRIAL - 1)
    assert engine.batch_size == local.UNTRIED
    few = LocalEngine(replace(denoiser(), network=network), NoiseSampler(), 0)
    few.settle(2)
    assert few.batch_size == 2
    assert evaluated == []


def test_a_given_batch_size_is_used_as_it_is() -> None:
    engine = LocalEngine(denoiser(), NoiseSampler(), 5)
    engine.settle(10**9)
    assert engine.batch_size == 5


def test_an_estimate_is_of_the_batch_and_the_samplers_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Long(NoiseSampler):
        nfe = 50

    monkeypatch.setattr(local, "evaluation_seconds", lambda _, size: 0.1 + 0.2 * size)
    engine = LocalEngine(denoiser(), Long(), 4)
    jobs = [job(i, hole=i > 0) for i in range(9)]
    assert engine.seconds_per_image(jobs) == pytest.approx(0.9 * 50 / 4)
    assert engine.seconds_per_image(jobs[:3]) == pytest.approx(0.5 * 50 / 2)
    assert engine.seconds_per_image(jobs[:1]) == 0
