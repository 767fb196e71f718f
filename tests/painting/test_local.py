from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from echogen.config import RepaintConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.errors import EngineError
from echogen.painting import local
from echogen.painting.engine import Canvas
from echogen.painting.local import LocalEngine
from echogen.painting.trial import Trial
from echogen.types import to_uint8
from tests.support.hearts import make_canvas

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
        return torch.where(keep, image, noise.draw(image.shape).clamp(-1, 1))


def denoiser() -> Denoiser:
    return Denoiser(lambda x, t: x, schedule_from_betas(make_betas("linear", 10, 1e-3, 0.1)))


def canvas(index: int) -> Canvas:
    return make_canvas(index, SIDE)


def paint(canvases: Sequence[Canvas], batch_size: int, sampler: NoiseSampler) -> list[np.ndarray]:
    engine = LocalEngine(denoiser(), sampler, batch_size)
    return [image for image in engine.run(iter(canvases)) if image is not None]


def test_images_come_in_order_with_exact_kept_pixels_and_the_rest_painted() -> None:
    canvases = [canvas(i) for i in range(7)]
    images = paint(canvases, 2, NoiseSampler())
    assert len(images) == 7
    for image, given in zip(images, canvases, strict=True):
        np.testing.assert_array_equal(image[given.keep], given.image[given.keep])
        assert (image[~given.keep] != given.image[~given.keep]).any()


def test_every_grey_level_that_is_kept_comes_back_as_it_was() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    keep = np.ones((16, 16), np.bool_)
    keep[0, 0] = False
    sampler = Sampler(RepaintConfig(steps=4, jump_length=2, resamplings=2))
    image = next(LocalEngine(denoiser(), sampler, 1).run([Canvas("s", 1, levels, keep)]))
    assert image is not None
    np.testing.assert_array_equal(image[keep], levels[keep])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_noise_does_not_depend_on_the_batch(batch_size: int) -> None:
    canvases = [canvas(i) for i in range(8)]
    together = paint(canvases, batch_size, NoiseSampler())
    alone = [paint([c], 1, NoiseSampler())[0] for c in canvases]
    np.testing.assert_array_equal(together, alone)


def test_batches_are_full_and_the_last_one_is_ragged() -> None:
    sampler = NoiseSampler()
    paint([canvas(i) for i in range(7)], 3, sampler)
    assert sampler.batches == [3, 3, 1]


def test_out_of_memory_halves_the_batch_tells_it_and_changes_no_image() -> None:
    told: list[str] = []
    canvases = [canvas(i) for i in range(8)]
    sampler = NoiseSampler(fits=2)
    engine = LocalEngine(denoiser(), sampler, 8, told.append)
    images = list(engine.run(canvases))
    assert sampler.batches == [2, 2, 2, 2]
    assert told == [
        "out of memory: continuing with batches of 4",
        "out of memory: continuing with batches of 2",
    ]
    np.testing.assert_array_equal(images, paint(canvases, 8, NoiseSampler()))


def test_no_room_for_one_image_is_an_error_with_advice() -> None:
    with pytest.raises(EngineError, match="out of memory with a single image"):
        paint([canvas(1)], 4, NoiseSampler(fits=0))


def test_canvases_are_taken_one_batch_at_a_time() -> None:
    taken: list[int] = []

    def canvases() -> Iterator[Canvas]:
        for i in range(100):
            taken.append(i)
            yield canvas(i)

    next(LocalEngine(denoiser(), NoiseSampler(), 4).run(canvases()))
    assert len(taken) <= 8


def test_values_that_are_not_finite_fail_the_sample_alone() -> None:
    class Broken(NoiseSampler):
        def __call__(
            self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
        ) -> Tensor:
            painted = super().__call__(denoiser, image, keep, noise)
            painted[1] = torch.nan
            return painted

    images = list(LocalEngine(denoiser(), Broken(), 3).run([canvas(i) for i in range(3)]))
    assert [image is None for image in images] == [False, True, False]


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
        next(engine.run([canvas(i) for i in range(3)]))
    half = replace(denoiser(), dtype=torch.float16, name="small")
    with pytest.raises(EngineError, match=r"cpu: .* small ran in fp16\. Use --precision fp32"):
        next(LocalEngine(half, Faulty({0: slice(None)}), 3).run([canvas(i) for i in range(3)]))


def test_nothing_finite_in_a_later_batch_fails_its_samples_alone() -> None:
    engine = LocalEngine(denoiser(), Faulty({1: slice(None)}), 2)
    images = list(engine.run([canvas(i) for i in range(6)]))
    assert [image is None for image in images] == [False, False, True, True, False, False]


def test_levels_are_rounded_on_the_device_as_by_to_uint8() -> None:
    levels = torch.linspace(-1.2, 1.2, SIDE * SIDE * 40).reshape(40, 1, SIDE, SIDE)

    class Ramp(NoiseSampler):
        def __call__(
            self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
        ) -> Tensor:
            return levels[: len(image)]

    images = paint([canvas(i) for i in range(40)], 40, Ramp())
    np.testing.assert_array_equal(images, to_uint8(levels[:, 0].numpy()))


def test_a_short_batch_is_filled_up_where_that_is_asked_for() -> None:
    canvases = [canvas(i) for i in range(7)]
    sampler = NoiseSampler()
    images = list(LocalEngine(denoiser(), sampler, 3).run(canvases, pad=True))
    assert sampler.batches == [3, 3, 3]
    np.testing.assert_array_equal(images, paint(canvases, 3, NoiseSampler()))


def test_a_padded_batch_that_does_not_fit_is_halved_and_filled_up_anew() -> None:
    sampler = NoiseSampler(fits=2)
    images = list(LocalEngine(denoiser(), sampler, 8).run([canvas(i) for i in range(5)], pad=True))
    assert sampler.batches == [2, 2, 2]
    assert len(images) == 5


@pytest.mark.parametrize(("wanted", "painted"), [([3, 1], [3, 1]), ([3, 0], [3]), ([0], [])])
def test_a_run_ends_with_the_first_canvas_that_is_no_longer_wanted(
    wanted: list[int], painted: list[int]
) -> None:
    asked: list[list[int]] = []

    def begin(canvases: Sequence[Canvas]) -> int:
        asked.append([c.seed for c in canvases])
        return wanted[len(asked) - 1]

    sampler = NoiseSampler()
    canvases = [canvas(i) for i in range(9)]
    images = list(LocalEngine(denoiser(), sampler, 3).run(iter(canvases), begin))
    assert sampler.batches == painted
    np.testing.assert_array_equal(images, paint(canvases, 3, NoiseSampler())[: sum(wanted)])
    assert asked == [[0, 1, 2], [3, 4, 5]][: len(wanted)]


def test_without_a_batch_size_one_is_found_by_trial_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = [Trial(size, 1.0, 0.0, 0.5) for size in (1, 2, 16)]
    monkeypatch.setattr(local, "try_sizes", lambda *_: trials)
    told: list[str] = []
    gpu = replace(denoiser(), device=torch.device("cuda"))
    engine = LocalEngine(gpu, NoiseSampler(), 0, told.append)
    engine.settle(local.WORTH_A_TRIAL)
    assert engine.batch_size == 16
    assert told == ["cuda: batches of 16, found by a trial of 1.5 s"]
    engine.settle(10 * local.WORTH_A_TRIAL)
    assert (engine.batch_size, len(told)) == (16, 1)


@pytest.mark.parametrize(
    ("device", "expected"), [("cuda", local.WORTH_A_TRIAL - 1), ("cpu", 100 * local.WORTH_A_TRIAL)]
)
def test_with_little_to_paint_and_on_a_cpu_no_batch_size_is_tried(
    device: str, expected: int
) -> None:
    evaluated: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append(len(x))
        return x

    at = {"network": network, "device": torch.device(device)}
    engine = LocalEngine(replace(denoiser(), **at), NoiseSampler(), 0)
    engine.settle(expected)
    assert engine.batch_size == local.UNTRIED
    few = LocalEngine(replace(denoiser(), **at), NoiseSampler(), 0)
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
    assert engine.seconds_per_image(8) == pytest.approx(0.9 * 50 / 4)
    assert engine.seconds_per_image(2) == pytest.approx(0.5 * 50 / 2)
    assert engine.seconds_per_image(0) == 0
