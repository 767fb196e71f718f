"""The engine of one process and one device: batches of canvases through a sampler.

A batch that does not fit is halved and tried again. Noise belongs to the sample, so neither the
batch's size nor its neighbours change what a sample is meant to be. The sampler puts kept pixels
back, and the two conversions of grey levels give them as the bytes they were.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from echogen.config import EngineConfig, SamplerConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.levels import LevelCurve, curve_to
from echogen.diffusion.network import load_checkpoint, precision_name
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.errors import EngineError
from echogen.painting.engine import Begin, Canvas, Levels, batches
from echogen.painting.trial import best_size, evaluation_seconds, out_of_memory, try_sizes
from echogen.support.threads import ahead
from echogen.types import to_model_range

UNTRIED = 8
WORTH_A_TRIAL = 1000  # evaluations of one image; a trial up to batches of 32 costs 252


def open_local(
    checkpoint: str, sampler: SamplerConfig, engine: EngineConfig, tell: Callable[[str], None]
) -> "LocalEngine":
    """Load a checkpoint onto the one device that was asked for.

    Raises:
        EngineError: no such device.
        CheckpointError: the network cannot be loaded.
    """
    denoiser = load_checkpoint(
        checkpoint, engine.device, engine.precision, compile=engine.compile, tell=tell
    )
    return LocalEngine(denoiser, Sampler(sampler), engine.batch_size, tell)


@dataclass(frozen=True)
class _Batch:
    """Canvases with the curves that their grey levels were put on, if any, and on the host their
    (n, h, w) float32 in [-1, 1] and (n, h, w) bool.
    """

    canvases: Sequence[Canvas]
    curves: Sequence[LevelCurve | None]
    image: Tensor
    keep: Tensor


@dataclass
class LocalEngine:
    """Paints on one device; see `engine.Engine`.

    Attributes:
        denoiser: the loaded network.
        sampler: what turns noise into an image.
        batch_size: images at once; 0 until `settle`; halved for good where memory runs out.
        tell: called with one line where something changed that a user should know.
    """

    denoiser: Denoiser
    sampler: Sampler
    batch_size: int
    tell: Callable[[str], None] = field(default=lambda _: None)
    _painted: bool = field(default=False, init=False)

    @property
    def device(self) -> str:
        """Where it paints, as torch names it."""
        return str(self.denoiser.device)

    @property
    def precision(self) -> str:
        """The network's number format: fp32, bf16 or fp16."""
        return precision_name(self.denoiser.dtype)

    @property
    def at_once(self) -> int:
        """Images painted at the same time."""
        return self.batch_size

    def settle(self, expected: int) -> None:
        """Find the batch size by trial, where none was given and there is enough to paint.

        On a CPU nothing is tried: from `UNTRIED` on, larger batches are no faster
        (`benchmarks/results/speed.json`), and a run would begin seconds later.
        """
        if self.batch_size:
            return
        on_cpu = self.denoiser.device.type == "cpu"
        if on_cpu or expected * self.sampler.nfe < WORTH_A_TRIAL:
            self.batch_size = max(1, min(expected, UNTRIED))
            return
        trials = try_sizes(self.denoiser, expected)
        self.batch_size = best_size(trials)
        took = sum(trial.spent for trial in trials)
        self.tell(f"{self.device}: batches of {self.batch_size}, found by a trial of {took:.1f} s")

    def run(
        self, canvases: Iterable[Canvas], begin: Begin = len, pad: bool = False
    ) -> Generator[Levels, None, None]:
        """Paint canvases in order; holds two batches and one of painted images."""
        with closing(ahead(self._prepare, batches(canvases, self))) as prepared:
            for batch in prepared:
                wanted = begin(batch.canvases)
                yield from self._paint(batch, wanted, pad)
                if wanted < len(batch.canvases):
                    return

    def paint(self, canvases: Sequence[Canvas], pad: bool = False) -> list[Levels]:
        """Paint canvases together, in parts where memory runs out; `pad` as in `Engine.run`.

        Raises:
            EngineError: painting failed, or nothing of the first batch is finite.
        """
        return self._paint(self._prepare(canvases), len(canvases), pad)

    def seconds_per_image(self, images: int) -> float:
        """An estimate from a few evaluations of one batch; 0 without images."""
        if not images:
            return 0.0
        self.settle(images)
        size = min(images, self.batch_size)
        return evaluation_seconds(self.denoiser, size) * self.sampler.nfe / size

    def close(self) -> None:
        """Nothing to give back: the device is this process's own."""

    def _prepare(self, canvases: Sequence[Canvas]) -> _Batch:
        """Stack canvases on the host, in memory that a GPU copies from without waiting."""
        curves = [self._curve(canvas) for canvas in canvases]
        images = [
            canvas.image if curve is None or canvas.real is None
            else curve.apply(canvas.image, canvas.real)
            for canvas, curve in zip(canvases, curves, strict=True)
        ]  # fmt: skip
        image = torch.from_numpy(to_model_range(np.stack(images)))
        keep = torch.from_numpy(np.stack([canvas.keep for canvas in canvases]))
        if self.denoiser.device.type == "cuda":
            image, keep = image.pin_memory(), keep.pin_memory()
        return _Batch(canvases, curves, image, keep)

    def _curve(self, canvas: Canvas) -> LevelCurve | None:
        usual = self.denoiser.grey_levels
        if usual is None or canvas.real is None:
            return None
        return curve_to(usual, canvas.image, canvas.real)

    def _paint(self, batch: _Batch, count: int, pad: bool) -> list[Levels]:
        """The first `count` of a batch."""
        painted: list[Levels] = []
        while len(painted) < count:
            part = slice(len(painted), min(len(painted) + self.batch_size, count))
            seeds = [canvas.seed for canvas in batch.canvases[part]]
            try:
                painted += self._paint_part(batch.image[part], batch.keep[part], seeds, pad)
            except EngineError:
                raise
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not out_of_memory(error):
                    raise EngineError(
                        f"painting failed on {self.device}: {_first_line(error)}"
                    ) from error
            else:
                continue
            self._halve()  # here the error, which holds on to the batch, is gone
        return [
            levels if levels is None or curve is None
            else np.where(canvas.keep, canvas.image, curve.undo(levels))
            for canvas, curve, levels in zip(batch.canvases, batch.curves, painted, strict=False)
        ]  # fmt: skip

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise EngineError(
                f"{self.device}: out of memory with a single image; close other programs on this "
                "device, or use --device cpu."
            )
        self.batch_size //= 2
        if self.denoiser.device.type == "cuda":
            torch.cuda.empty_cache()
        self.tell(f"out of memory: continuing with batches of {self.batch_size}")

    @torch.inference_mode()
    def _paint_part(self, image: Tensor, keep: Tensor, seeds: list[int], pad: bool) -> list[Levels]:
        count, missing = len(seeds), self.batch_size - len(seeds)
        if pad and missing:
            image = torch.cat([image, image[-1:].expand(missing, -1, -1)])
            keep = torch.cat([keep, keep[-1:].expand(missing, -1, -1)])
            seeds = seeds + seeds[-1:] * missing
        device = self.denoiser.device
        painted = self.sampler(
            self.denoiser,
            image.to(device, non_blocking=True)[:, None],
            keep.to(device, non_blocking=True)[:, None],
            SampleNoise(seeds, device),
        )[:count, 0].float()
        finite = torch.isfinite(painted).flatten(1).all(1)
        # As types.to_uint8, but on the device: a quarter of the bytes to copy back, in one piece.
        levels = ((painted.nan_to_num() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        packed = torch.cat([levels.flatten(1), finite[:, None].to(torch.uint8)], dim=1).cpu()
        images = packed[:, :-1].reshape(levels.shape).numpy()
        if not self._painted and not packed[:, -1].any():
            raise EngineError(self._nothing_finite())
        self._painted = True
        return [image if ok else None for image, ok in zip(images, packed[:, -1], strict=True)]

    def _nothing_finite(self) -> str:
        found = (
            f"{self.device}: no image of the first batch is finite; the network of "
            f"{self.denoiser.name or 'this model'} ran in {self.precision}"
        )
        if self.precision == "fp32":
            return f"{found}, so its weights or schedule are at fault; use another --checkpoint."
        return f"{found}. Use --precision fp32, with --overwrite if the store already exists."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
