"""The engine of one process and one device: batches of jobs through a sampler.

A batch that does not fit is halved and tried again. Noise belongs to the sample, so neither the
batch's size nor its neighbours change what a sample is meant to be; kept pixels are composited
back as the bytes they were.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from echogen.diffusion.checkpoint import load_checkpoint
from echogen.diffusion.denoiser import Denoiser, precision_name
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.repaint import Sampler, make_sampler
from echogen.errors import EngineError
from echogen.types import FloatGrid, Job, Result, to_uint8

if TYPE_CHECKING:
    from echogen.config import EngineConfig, SamplerConfig

BATCH_SIZE = {"cpu": 16, "cuda": 64, "mps": 16}


def open_local(
    checkpoint: str, sampler: "SamplerConfig", engine: "EngineConfig", tell: Callable[[str], None]
) -> "LocalEngine":
    """Load a checkpoint onto the device that was asked for.

    Raises:
        EngineError: no such device.
        CheckpointError: the network cannot be loaded.
    """
    denoiser = load_checkpoint(checkpoint, engine.device, engine.precision)
    settings = sampler.model_dump(exclude={"name"})
    return LocalEngine(
        denoiser,
        make_sampler(sampler.name, **settings),
        engine.batch_size or BATCH_SIZE[denoiser.device.type],
        tell,
    )


@dataclass
class LocalEngine:
    """Paints on one device.

    Attributes:
        denoiser: the loaded network.
        sampler: what turns noise into an image.
        batch_size: images at once; halved for good where memory runs out.
        tell: called with one line where something changed that a user should know.
    """

    denoiser: Denoiser
    sampler: Sampler
    batch_size: int
    tell: Callable[[str], None] = field(default=lambda _: None)

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Paint jobs in order; holds one batch and the finished jobs that wait for it."""
        waiting: list[Job] = []
        to_paint = 0
        for job in jobs:
            waiting.append(job)
            to_paint += not job.keep.all()
            if to_paint == self.batch_size:
                yield from self._flush(waiting)
                waiting, to_paint = [], 0
        yield from self._flush(waiting)

    @property
    def device(self) -> str:
        """Where it paints, as torch names it."""
        return str(self.denoiser.device)

    @property
    def precision(self) -> str:
        """The network's number format: fp32, bf16 or fp16."""
        return precision_name(self.denoiser.dtype)

    def seconds_per_image(self, jobs: Sequence[Job]) -> float:
        """An estimate from three evaluations of one batch; 0 without jobs to paint."""
        holes = [job for job in jobs if not job.keep.all()][: self.batch_size]
        if not holes:
            return 0.0
        image = torch.from_numpy(np.stack([job.image for job in holes]))[:, None]
        image = image.to(self.denoiser.device)
        took = []
        for _ in range(4):
            began = time.perf_counter()
            self.denoiser.predict(image, len(self.denoiser.schedule.betas) // 2).x0.cpu()
            took.append(time.perf_counter() - began)
        return float(np.median(took[1:])) * self.sampler.nfe / len(holes)

    def _flush(self, jobs: Sequence[Job]) -> Iterator[Result]:
        holes = [job for job in jobs if not job.keep.all()]
        painted = iter(self._paint(holes))
        for job in jobs:
            yield _result(job, None if job.keep.all() else next(painted))

    def _paint(self, jobs: Sequence[Job]) -> list[FloatGrid]:
        painted: list[FloatGrid] = []
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + self.batch_size]
            try:
                painted.extend(self._paint_batch(batch))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _out_of_memory(error):
                    raise EngineError(
                        f"painting failed on {self.denoiser.device}: {_first_line(error)}"
                    ) from error
                self._halve()
                continue
            start += len(batch)
        return painted

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise EngineError(
                f"{self.denoiser.device}: out of memory with one image; close other programs on "
                "this device, or use --device cpu."
            )
        self.batch_size //= 2
        if self.denoiser.device.type == "cuda":
            torch.cuda.empty_cache()
        self.tell(f"out of memory: going on with batches of {self.batch_size}")

    def _paint_batch(self, jobs: Sequence[Job]) -> list[FloatGrid]:
        device = self.denoiser.device
        image = torch.from_numpy(np.stack([job.image for job in jobs]))[:, None].to(device)
        keep = torch.from_numpy(np.stack([job.keep for job in jobs]))[:, None].to(device)
        noise = SampleNoise([job.seed for job in jobs], device)
        painted = self.sampler(self.denoiser, image, keep, noise)
        return list(painted[:, 0].float().cpu().numpy())


def _result(job: Job, painted: FloatGrid | None) -> Result:
    known = to_uint8(job.image)
    if painted is None:
        return Result(job.sample_id, known, job.label, job.keep, job.label_on_paint)
    if not np.isfinite(painted).all():
        error = "the sampler gave values that are not finite; try --overwrite --precision fp32"
        return Result(job.sample_id, known, job.label, job.keep, job.label_on_paint, error)
    image = np.where(job.keep, known, to_uint8(painted))
    return Result(job.sample_id, image, job.label, job.keep, job.label_on_paint)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
