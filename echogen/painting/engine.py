"""Canvases in, painted images out: what every engine does, whatever its devices.

An engine knows the sampler and the device, never the store, labels or what needs no painting.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from echogen.types import BoolGrid, UInt8Grid

MANY = 1_000_000  # images to expect where nobody says how many


@dataclass(frozen=True)
class Canvas:
    """An image with pixels to paint.

    Attributes:
        sample_id: of the row of the plan.
        seed: of the sample; the noise depends on nothing else.
        image: grey levels; 0 where nothing is known.
        keep: True where the pixel is known, False where it is to be painted.
        real: True where a known pixel is ultrasound; None where that is not known, and grey levels
            are left as they are.
    """

    sample_id: str
    seed: int
    image: UInt8Grid
    keep: BoolGrid
    real: BoolGrid | None = None


Levels = UInt8Grid | None
"""A painted canvas, kept pixels unchanged; None where the sampler's values are not finite."""
Begin = Callable[[Sequence[Canvas]], int]


class Engine(Protocol):
    """Something that paints: takes and yields iterators, images in the order of the canvases."""

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
        self, canvases: Iterable[Canvas], begin: Begin = len, pad: bool = False
    ) -> Generator[Levels, None, None]:
        """Paint each canvas.

        Args:
            canvases: taken as they are needed, in the caller's thread.
            begin: asked before a batch is begun: how many of its canvases, from the first, are
                still wanted. Where fewer than all, the run ends after them.
            pad: fill up a short batch with its last image, so that every batch has one size and
                a sample's arithmetic does not depend on where the stream began or ended.

        Raises:
            EngineError: painting failed; what was yielded before stays valid.
        """
        ...

    def seconds_per_image(self, images: int) -> float:
        """An estimate from a few evaluations for so many images; 0 where there are none."""
        ...

    def close(self) -> None:
        """Give back the devices; the engine cannot be used afterwards."""
        ...


def batches(canvases: Iterable[Canvas], engine: Engine) -> Iterator[list[Canvas]]:
    """Canvases by the batch size of an engine, which is settled first; the last may be short."""
    engine.settle(len(canvases) if isinstance(canvases, Sized) else MANY)
    rest = iter(canvases)
    while batch := list(islice(rest, engine.batch_size)):
        yield batch
