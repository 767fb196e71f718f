from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.painting import trial
from echogen.painting.trial import Limits, Trial, best_size, search

AMPLE = Limits(size=512, memory=1e12, seconds=1e6)


def machine(rates: Mapping[int, float], bytes_an_image: float = 0.0) -> object:
    """A device that paints so many images a second, and remembers nothing else."""

    def try_size(size: int) -> Trial:
        return Trial(size, size / rates[size], 1e9 + size * bytes_an_image, 1.0)

    return try_size


def found(rates: Mapping[int, float], limits: Limits = AMPLE, bytes_an_image: float = 0.0) -> int:
    return best_size(search(machine(rates, bytes_an_image), limits))  # type: ignore[arg-type]


def sizes(rates: Mapping[int, float], limits: Limits, bytes_an_image: float = 0.0) -> list[int]:
    trials = search(machine(rates, bytes_an_image), limits)  # type: ignore[arg-type]
    return [trial.size for trial in trials]


GROWING = {1: 10.0, 2: 20.0, 4: 40.0, 8: 60.0, 16: 62.0, 32: 900.0}


def test_doubling_ends_where_it_gains_less_than_a_twentieth() -> None:
    assert sizes(GROWING, AMPLE) == [1, 2, 4, 8, 16]


def test_the_smallest_size_within_a_twentieth_of_the_best_is_taken() -> None:
    assert found(GROWING) == 8
    assert found({1: 10.0, 2: 9.0}) == 1
    assert found({1: 100.0, 2: 106.0, 4: 112.0, 8: 113.0}) == 4


def test_the_largest_size_is_not_passed() -> None:
    assert found({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, Limits(8, 1e12, 1e6)) == 8
    assert found({1: 1.0, 2: 2.0, 4: 4.0}, Limits(7, 1e12, 1e6)) == 4


def test_a_size_that_would_not_fit_by_the_growth_so_far_is_not_tried() -> None:
    rates = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}
    # 1e9 bytes and 1e8 an image: 4 images take 1.4e9, 8 would take 1.8e9.
    assert sizes(rates, Limits(512, 1.7e9, 1e6), 1e8) == [1, 2, 4]
    assert sizes(rates, Limits(8, 1.8e9, 1e6), 1e8) == [1, 2, 4, 8]


def test_a_size_that_ran_out_of_memory_ends_the_search_and_is_not_taken() -> None:
    assert found({1: 1.0, 2: 2.0, 4: 0.0001, 8: 9.0}) == 2


def test_a_device_on_which_one_image_does_not_fit_is_left_to_painting_to_report() -> None:
    def nothing_fits(size: int) -> Trial:
        return Trial(size, float("inf"), 1e9, 1.0)

    trials = search(nothing_fits, AMPLE)
    assert len(trials) == 1
    assert best_size(trials) == 1


def test_the_search_ends_before_it_takes_too_long() -> None:
    rates = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}
    # Each measurement takes a second, and the next is expected to take two.
    assert sizes(rates, Limits(512, 1e12, 2.9)) == [1]
    assert sizes(rates, Limits(512, 1e12, 3.0)) == [1, 2]
    assert sizes(rates, Limits(512, 1e12, 4.0)) == [1, 2, 4]


def denoiser(network: object) -> Denoiser:
    schedule = schedule_from_betas(make_betas("linear", 10, 1e-3, 0.1))
    return Denoiser(network, schedule, image_size=8)  # type: ignore[arg-type]


def test_a_network_that_runs_out_of_memory_is_a_trial_that_takes_forever() -> None:
    def small(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return x

    assert trial.try_size(denoiser(small), 2).rate > 0
    assert trial.try_size(denoiser(small), 4).rate == 0


def test_another_error_of_the_network_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("expected stride to be a single integer value")

    with pytest.raises(RuntimeError, match="stride"):
        trial.try_size(denoiser(broken), 2)


def test_a_slow_network_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def network(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x

    monkeypatch.setattr(trial, "SLOW", -1.0)
    trial.evaluation_seconds(denoiser(network), 3)
    assert calls == [3]
    monkeypatch.setattr(trial, "SLOW", 1e6)
    trial.evaluation_seconds(denoiser(network), 3)
    assert calls == [3] * (2 + trial.REPEATS)


@pytest.mark.parametrize("bound", ["3000000000", "max"])
def test_the_memory_of_a_container_bounds_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n")
    (tmp_path / "memory.max").write_text(f"{bound}\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    monkeypatch.setattr(trial, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(trial, "_CGROUPS", ((tmp_path, "memory.max", "memory.current"),))
    cpu = torch.device("cpu")
    free = 2e9 if bound != "max" else 4000000 * 1024
    allowed = trial.allowed_memory(cpu) - trial.peak_memory(cpu)
    assert allowed == pytest.approx(trial.MEMORY_SHARE["cpu"] * free, abs=1e7)
