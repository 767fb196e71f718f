"""The batch size by trial: doubled while it pays, within memory and patience.

Measuring and deciding are separate: `next_size` and `best_size` are functions of what was measured.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from echogen.diffusion.cost import ANY_SIDE, synchronise
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import SampleNoise

GAIN = 1.05
SECONDS = 2.0
MEMORY_SHARE = {"cpu": 0.5, "cuda": 0.8, "mps": 0.5}
LARGEST = {"cpu": 64, "cuda": 512, "mps": 64}
REPEATS = 3
SLOW = 0.5

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # version 2, then version 1: folder, limit, use
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Trial:
    """What one batch size was measured to cost.

    Attributes:
        size: images.
        seconds: of one evaluation of the batch; infinite where it did not fit.
        memory: bytes in use at most, whatever else is loaded included.
        spent: seconds that the measurement took.
    """

    size: int
    seconds: float
    memory: float
    spent: float

    @property
    def rate(self) -> float:
        """Images a second and evaluation."""
        return self.size / self.seconds


@dataclass(frozen=True)
class Limits:
    """What a search may use: the largest size, bytes of memory, and about how many seconds."""

    size: int
    memory: float
    seconds: float = SECONDS


def next_size(trials: Sequence[Trial], limits: Limits) -> int | None:
    """The size to try next, or None where the search is over.

    It is over when the last doubling gained under 5% or did not fit, and before one that would be
    too large, by the growth of memory so far not fit, or take the search beyond its time.
    """
    if not trials:
        return 1
    last = trials[-1]
    if not last.rate or (len(trials) > 1 and last.rate < GAIN * trials[-2].rate):
        return None
    growth = last.memory - trials[-2].memory if len(trials) > 1 else 0.0
    within = (
        2 * last.size <= limits.size
        and last.memory + 2 * growth <= limits.memory
        and sum(trial.spent for trial in trials) + 2 * last.spent <= limits.seconds
    )
    return 2 * last.size if within else None


def best_size(trials: Sequence[Trial]) -> int:
    """The smallest size within 5% of the best rate."""
    best = max(trial.rate for trial in trials)
    return min(trial.size for trial in trials if GAIN * trial.rate >= best)


def search(try_size: Callable[[int], Trial], limits: Limits) -> list[Trial]:
    """Try sizes until `next_size` has enough; at least one."""
    trials: list[Trial] = []
    while (size := next_size(trials, limits)) is not None:
        trials.append(try_size(size))
    return trials


def try_sizes(denoiser: Denoiser, largest: int) -> list[Trial]:
    """Search on the denoiser's device, for batches of at most `largest` images."""
    kind = denoiser.device.type
    limits = Limits(
        min(largest, LARGEST.get(kind, LARGEST["cpu"])), allowed_memory(denoiser.device)
    )
    return search(partial(try_size, denoiser), limits)


def try_size(denoiser: Denoiser, size: int) -> Trial:
    """Time one size; one that does not fit is a trial that takes forever."""
    began = time.perf_counter()
    try:
        seconds = evaluation_seconds(denoiser, size)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        seconds = float("inf")
    return Trial(size, seconds, peak_memory(denoiser.device), time.perf_counter() - began)


@torch.inference_mode()
def evaluation_seconds(denoiser: Denoiser, size: int) -> float:
    """The median time of an evaluation of a batch, its draw of noise included, after a warm-up.

    A warm-up of more than half a second is the answer itself.
    """
    side = denoiser.image_size or ANY_SIDE
    shape = (size, denoiser.channels, side, side)
    noise = SampleNoise(range(size), denoiser.device)
    took: list[float] = []
    for _ in range(1 + REPEATS):
        synchronise(denoiser.device)
        began = time.perf_counter()
        denoiser.predict(noise.draw(shape), len(denoiser.schedule.betas) // 2)
        synchronise(denoiser.device)
        took.append(time.perf_counter() - began)
        if took[0] > SLOW:
            return took[0]
    return median(took[1:])


def peak_memory(device: torch.device) -> float:
    """Bytes that this process has had in use at most: of the device, or of the host for a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def allowed_memory(device: torch.device) -> float:
    """Bytes up to which `peak_memory` may rise: what is in use, and a share of what is free."""
    share = MEMORY_SHARE.get(device.type, MEMORY_SHARE["cpu"])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        free, _ = torch.cuda.mem_get_info(device)
        return torch.cuda.memory_allocated(device) + share * free
    if device.type == "mps":
        return share * torch.mps.recommended_max_memory()
    return peak_memory(device) + share * _free_on_host()


def out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free_on_host() -> float:
    """Bytes that can be had without swapping, also inside a container; infinite where unknown."""
    free = [float("inf")]
    if _MEMINFO.exists():
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free.append(1024 * float(fields["MemAvailable"].split()[0]))
    for folder, limit, used in _CGROUPS:
        if (folder / limit).exists() and (folder / used).exists():
            bound = (folder / limit).read_text().strip()
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = float(dict(line.split() for line in lines).get("inactive_file", 0))
            taken = float((folder / used).read_text()) - cached
            free.append(float("inf" if bound == "max" else bound) - taken)
    return max(min(free), 0.0)
