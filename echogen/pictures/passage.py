"""The animation of one sample being painted: what the network sees and expects at each step."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import Tensor

from echogen.diffusion.denoiser import Prediction
from echogen.painting.local import open_local
from echogen.painting.stream import canvas_of
from echogen.pictures.sheet import PAPER, caption
from echogen.pictures.subject import Subject
from echogen.pictures.tiles import Levels, displayed_size, hatched, tile
from echogen.types import to_model_range, to_uint8

MOST_FRAMES = 40
SHOWN_MS, FIRST_MS, LAST_MS = 90, 900, 2500
GAP = 6  # pixels between the two images of a frame


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        number: from 1.
        sigma: noise level, in units of the model's range.
        noisy: (h, w) what the network is shown.
        estimate: (h, w) the clean image that it expects, with the kept pixels as they are.
    """

    number: int
    sigma: float
    noisy: Levels
    estimate: Levels


def walk(subject: Subject, tell: Callable[[str], None]) -> tuple[list[Step], Levels]:
    """Paint a sample and record its evaluations: evenly spaced, `MOST_FRAMES` at most.

    Returns:
        The evaluations in order, and the painted (h, w) image, the same as without recording.

    Raises:
        CheckpointError, EngineError: as in painting.
    """
    steps: list[Step] = []
    counter = itertools.count()
    engine = open_local(subject.checkpoint, subject.sampler, subject.engine, tell)
    schedule = engine.denoiser.schedule
    last = engine.sampler.nfe - 1
    shown = set(np.linspace(0, last, MOST_FRAMES).round().astype(int).tolist())
    sample = subject.sample
    canvas = canvas_of(sample, subject.name, subject.seed)
    known = to_model_range(sample.image)

    def watch(x: Tensor, t: float, prediction: Prediction) -> None:
        number = next(counter)
        if number not in shown:
            return
        noisy, clean = (values[0].float().mean(0).cpu().numpy() for values in (x, prediction.x0))
        estimate = to_uint8(np.where(sample.keep, known, clean))
        steps.append(Step(number + 1, float(schedule.sigma_at(t)), to_uint8(noisy), estimate))

    engine = replace(engine, denoiser=replace(engine.denoiser, watch=watch), batch_size=1)
    painted = engine.paint([canvas])[0]
    assert painted is not None  # else `paint` raises: it is the engine's first
    return steps, np.where(sample.keep, sample.image, painted)


def animation(
    subject: Subject, steps: Sequence[Step], painted: Levels, height: int
) -> tuple[list[Image.Image], list[int]]:
    """The frames of an animation, and how many milliseconds each is shown.

    Args:
        subject: the sample.
        steps: of `walk`.
        painted: (h, w) the last picture.
        height: of an image in it.
    """
    size = displayed_size((painted.shape[0], painted.shape[1]), subject.aspect, height)
    sample = subject.sample
    start = tile(sample.image, size)
    if not sample.keep.all():
        start = hatched(start, ~sample.keep)
    frames = [_frame(start, start, f"{subject.name}: what is left to paint")]
    total = steps[-1].number
    for step in steps:
        words = (
            f"evaluation {step.number} of {total} · noise {step.sigma:.3g} · "
            "left: what the network sees, right: what it expects"
        )
        frames.append(_frame(tile(step.noisy, size), tile(step.estimate, size), words))
    last = tile(painted, size)
    frames.append(_frame(last, last, f"{subject.name}: painted, {total} evaluations"))
    return frames, [FIRST_MS, *[SHOWN_MS] * (len(frames) - 2), LAST_MS]


def _frame(left: Image.Image, right: Image.Image, words: str) -> Image.Image:
    strip = caption(words, left.width + GAP + right.width)
    frame = Image.new("RGB", (strip.width, left.height + strip.height), PAPER)
    frame.paste(left, (0, 0))
    frame.paste(right, (left.width + GAP, 0))
    frame.paste(strip, (0, left.height))
    return frame
