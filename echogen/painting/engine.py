"""Engines turn jobs into results; they know the sampler and the device, never the store."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from echogen.types import Job, Result

Begin = Callable[[Sequence[Job]], int]


class Engine(Protocol):
    """Something that paints: takes and yields iterators, results in the order of the jobs."""

    @property
    def device(self) -> str:
        """Where it paints, as torch names it; several joined by commas."""
        ...

    @property
    def precision(self) -> str:
        """The network's number format: fp32, bf16 or fp16."""
        ...

    @property
    def batch_size(self) -> int:
        """Images a batch; 0 before `settle` has found it."""
        ...

    @property
    def at_once(self) -> int:
        """Images painted at the same time, on all devices together."""
        ...

    def settle(self, expected: int) -> None:
        """Find the batch size by trial where none was given; `expected` images will be painted."""
        ...

    def run(
        self, jobs: Iterable[Job], begin: Begin = len, pad: bool = False
    ) -> Generator[Result, None, None]:
        """Paint each job; a job with nothing to paint costs no evaluation.

        Args:
            jobs: taken as they are needed, in the caller's thread.
            begin: asked before a batch is begun: how many of its jobs, from the first, are still
                wanted. Where fewer than all, the run ends after them.
            pad: fill up a short batch with its last image, so that every batch has one size and
                a sample's arithmetic does not depend on where the stream of jobs began or ended.

        Raises:
            EngineError: painting failed; what was yielded before stays valid.
        """
        ...

    def seconds_per_image(self, jobs: Sequence[Job]) -> float:
        """An estimate from a few evaluations; 0 without jobs to paint."""
        ...

    def close(self) -> None:
        """Give back the devices; the engine cannot be used afterwards."""
        ...
