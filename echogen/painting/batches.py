"""Jobs gathered into batches, and painted batches taken apart into results, in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.types import Job, Result, to_uint8

MOST_PASSING = 256
NOT_FINITE = "the sampler gave values that are not finite; try --overwrite --precision fp32"


@dataclass(frozen=True)
class Batch:
    """Consecutive jobs with what of them is to be painted.

    Attributes:
        jobs: all of them, in order; those with nothing to paint only pass through.
        holes: the n jobs that have something to paint.
    """

    jobs: Sequence[Job]
    holes: Sequence[Job]

    @property
    def seeds(self) -> list[int]:
        """n seeds."""
        return [job.seed for job in self.holes]

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """(n, h, w), stacked anew at every call; n must not be 0."""
        return np.stack([job.image for job in self.holes])

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """(n, h, w), stacked anew at every call; n must not be 0."""
        return np.stack([job.keep for job in self.holes])


@dataclass(frozen=True)
class Painted:
    """What a device makes of the first m of a batch's holes.

    Attributes:
        levels: (m, h, w) uint8 grey levels; anything where the job keeps its pixels.
        finite: (m,) bool, False where the sampler gave a value that is not finite.
    """

    levels: npt.NDArray[np.uint8]
    finite: npt.NDArray[np.bool_]


NOTHING = Painted(np.empty((0, 0, 0), np.uint8), np.empty(0, np.bool_))


def batches(jobs: Iterable[Job], size: Callable[[], int]) -> Iterator[Batch]:
    """Gather jobs until `size()` of them have something to paint.

    The last batch may be short, and one before it where hundreds of jobs only pass through.
    """
    gathered: list[Job] = []
    holes: list[Job] = []
    for job in jobs:
        gathered.append(job)
        if not job.keep.all():
            holes.append(job)
        if len(holes) >= size() or len(gathered) - len(holes) >= MOST_PASSING:
            yield Batch(gathered, holes)
            gathered, holes = [], []
    if gathered:
        yield Batch(gathered, holes)


def results(batch: Batch, paint: Callable[[], Painted]) -> Iterator[Result]:
    """Results in the order of the jobs, up to the first hole that was not painted.

    Kept pixels are the bytes that they were. `paint` is called once, when the jobs before the first
    hole have been given back, which may complete what they belong to.
    """
    holes = {id(job) for job in batch.holes}
    painted: Painted | None = None
    position = 0
    for job in batch.jobs:
        image, error = to_uint8(job.image), None
        if id(job) in holes:
            painted = paint() if painted is None else painted
            if position == len(painted.levels):
                return
            levels, finite = painted.levels[position], painted.finite[position]
            position += 1
            error = None if finite else NOT_FINITE
            image = np.where(job.keep, image, levels) if finite else image
        yield Result(job.sample_id, image, job.label, job.keep, job.label_on_paint, error)
