"""What this machine will do: the sampler run on simulated frames, and a dataset's share of it.

Nothing is extrapolated that can be painted within the time: whole images go through the engine as
in a run. Only a sampler too slow for that is estimated from its network evaluations.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echogen.commands.expand import compressed_megabytes
from echogen.commands.run import sampler_in_words, with_model
from echogen.config import BenchConfig
from echogen.datasets import open_frames
from echogen.diffusion.schedule import sampler_nfe
from echogen.painting.engine import Canvas, Engine, Levels
from echogen.phantom.samples import phantom_samples
from echogen.report import QUIET, CommandReport, Reporter
from echogen.types import Sample

if TYPE_CHECKING:
    from echogen.painting.local import LocalEngine

PAINTING_S = 20.0
MOST_BATCHES = 16
DISTINCT = 8
EXPECTED = 8000


@dataclass(frozen=True)
class Estimate:
    """What a dataset would take.

    Attributes:
        dataset: what was found, in one line.
        frames, copies: how many; a copy is an image to paint.
        seconds: of painting; reading and planning come on top.
        megabytes: of the store.
    """

    dataset: str
    frames: int
    copies: int
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class BenchReport(CommandReport):
    """What was measured.

    Attributes:
        checkpoint, licence: the model's name and terms.
        sampler: its name and settings.
        nfe: network evaluations an image.
        device, precision, compile: where and how it was painted.
        batch_size: images a batch on one device.
        load_seconds: of loading the model.
        painted: images painted for the measurement; 0 where one would have taken too long.
        images_per_s: of painting on all devices; from evaluations alone where `painted` is 0.
        ms_per_evaluation: of the network, for one image of a full batch.
        gflop_per_evaluation: of one image; None on several devices.
        ceiling_gflop_per_s: of a matrix product in the same precision; None on several devices.
        share_of_ceiling: operations of the network a second of painting over the ceiling.
        peak_memory_mb: of the GPU, or of this process for a CPU; None on several devices.
        megabytes_per_sample: compressed.
        estimate: of the dataset that was given, or None.
    """

    checkpoint: str
    licence: str
    sampler: dict[str, Any]
    nfe: int
    device: str
    precision: str
    compile: str
    batch_size: int
    load_seconds: float
    painted: int
    images_per_s: float
    ms_per_evaluation: float
    gflop_per_evaluation: float | None
    ceiling_gflop_per_s: float | None
    share_of_ceiling: float | None
    peak_memory_mb: float | None
    megabytes_per_sample: float
    estimate: Estimate | None


def bench(
    config: BenchConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    reporter: Reporter = QUIET,
    **settings: Any,
) -> BenchReport:
    """Measure what a configuration costs here, in about a minute or less.

    Args:
        config, preset, settings: as of `expand`; `input` may be missing, and nothing is written.
        reporter: where progress goes.

    Raises:
        EchogenError: as `expand` would.
    """
    from echogen.painting.devices import open_engine
    from echogen.painting.local import LocalEngine

    config, info = with_model(BenchConfig, settings, preset, config, reporter)
    reporter.tell(sampler_in_words(config, info))
    dataset, frames = "", 0
    if config.input is not None:
        reader, keys = open_frames(config.input, config.dataset, reporter.tell)
        dataset, frames = reader.describe(), len(keys)
    began = time.monotonic()
    with closing(
        open_engine(config.checkpoint, config.sampler, config.engine, reporter.tell)
    ) as engine:
        load_seconds = time.monotonic() - began
        engine.settle(frames * config.copies or EXPECTED)
        grid = (info.image_size, info.resize)
        samples = phantom_samples(
            min(engine.at_once, DISTINCT), grid, config.transforms, config.seed
        )
        nfe = sampler_nfe(config.sampler)
        per_image = engine.seconds_per_image(engine.at_once)
        count = images_to_paint(engine.at_once, per_image, PAINTING_S)
        if count and (config.engine.compile != "off" or "cpu" not in engine.device):
            _paint(engine, repeated(samples, engine.at_once), reporter, "warming up")
        _forget_peak_memory(engine)
        painted, seconds = _paint(engine, repeated(samples, count), reporter, "painting")
        rate = count / seconds if count else 1.0 / per_image
        local = engine if isinstance(engine, LocalEngine) else None
        gflop, ceiling, memory = _of_one_device(local) if local else (None, None, None)
        megabytes = compressed_megabytes(
            [
                replace(sample, image=levels)
                for sample, levels in zip(samples, painted, strict=False)
                if levels is not None
            ]
            or samples
        )
        return BenchReport(
            checkpoint=info.name,
            licence=info.licence,
            sampler=config.sampler.model_dump(mode="json", exclude_none=True),
            nfe=nfe,
            device=engine.device,
            precision=engine.precision,
            compile=config.engine.compile,
            batch_size=engine.batch_size,
            load_seconds=load_seconds,
            painted=count,
            images_per_s=rate,
            ms_per_evaluation=1000 * per_image / nfe,
            gflop_per_evaluation=gflop,
            ceiling_gflop_per_s=ceiling,
            share_of_ceiling=gflop * nfe * rate / ceiling if gflop and ceiling else None,
            peak_memory_mb=memory,
            megabytes_per_sample=megabytes,
            estimate=Estimate(
                dataset,
                frames,
                frames * config.copies,
                frames * config.copies / rate,
                frames * (config.copies + config.originals) * megabytes,
            )
            if dataset
            else None,
        )


def images_to_paint(at_once: int, seconds_per_image: float, budget: float) -> int:
    """How many images to paint for a measurement: whole batches if they fit, else what does.

    Args:
        at_once: images that are painted together.
        seconds_per_image: expected of full batches.
        budget: seconds.

    Returns:
        0 where not even one fits.
    """
    fitting = int(budget / seconds_per_image)
    if fitting < at_once:
        return fitting
    return at_once * min(MOST_BATCHES, fitting // at_once)


def repeated(samples: Sequence[Sample], count: int) -> list[Canvas]:
    """`count` canvases with seeds of their own, made of the samples given."""
    chosen = [samples[i % len(samples)] for i in range(count)]
    return [Canvas(f"phantom{i}", i, sample.image, sample.keep) for i, sample in enumerate(chosen)]


def _paint(
    engine: Engine, canvases: Sequence[Canvas], reporter: Reporter, stage: str
) -> tuple[list[Levels], float]:
    painted: list[Levels] = []
    if canvases:
        reporter.progress(stage, 0, len(canvases))
    began = time.monotonic()
    for levels in engine.run(canvases):
        painted.append(levels)
        reporter.progress(stage, len(painted), len(canvases))
    return painted, time.monotonic() - began


def _forget_peak_memory(engine: Engine) -> None:
    """On a GPU, so that the trial of larger batches does not count."""
    if engine.device.startswith("cuda") and "," not in engine.device:
        import torch

        torch.cuda.reset_peak_memory_stats(engine.device)


def _of_one_device(engine: "LocalEngine") -> tuple[float, float, float]:
    """GFLOP an evaluation, the ceiling's GFLOP/s, and peak memory in MB."""
    from echogen.diffusion.cost import evaluation_flops, matmul_ceiling
    from echogen.painting.trial import peak_memory

    denoiser = engine.denoiser
    memory = peak_memory(denoiser.device) / 1e6
    ceiling = matmul_ceiling(denoiser.device, denoiser.dtype)
    return evaluation_flops(denoiser) / 1e9, ceiling / 1e9, memory
