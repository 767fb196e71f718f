"""Engines turn jobs into results; they know the sampler and the device, never the store."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from echogen.types import Job, Result


class Engine(Protocol):
    """Something that paints: takes and yields iterators, results in the order of the jobs."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Paint each job; a job with nothing to paint costs no evaluation."""
        ...
