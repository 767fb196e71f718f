"""One fan for the frames of a recording: fitted together, alone where a frame disagrees."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from echogen.errors import DatasetError
from echogen.geometry.fit import agreement, fit_sector
from echogen.geometry.sector import Sector
from echogen.types import Frame

MIN_AGREEMENT = 0.9
FanSource = Literal["frame", "clip", "header", "given"]
"""How a fan was found: in one frame, in a clip, in the file's header, or given by the user."""


@dataclass(frozen=True)
class FittedFrame:
    """A frame and its fan.

    Attributes:
        frame: as it was read.
        sector: in mm, or in pixels without a spacing; None where none was found.
        agreement: IoU of the fan with the image's filled foreground, 0 without a fan.
        reason: why there is no fan, one line; empty where there is one.
        how: where the fan comes from.
    """

    frame: Frame
    sector: Sector | None
    agreement: float
    reason: str = ""
    how: FanSource = "frame"


def fit_recording(
    frames: Iterable[Frame],
    clip: npt.NDArray[Any] | None = None,
    given: Sector | None = None,
) -> Iterator[FittedFrame]:
    """The fans of a recording's frames; those on one grid share theirs if it fits them.

    Args:
        frames: with pixels.
        clip: (N, H, W) uint8, every image of the recording, where its file holds more than the
            frames; used for frames of the same shape.
        given: the recording's fan where the user or the file's header gives it, mm (pixels without
            a spacing); it is taken as it is.

    Yields:
        One item a frame; frames on the same grid come together.
    """
    if given is not None:
        yield from (FittedFrame(frame, given, 1.0, how="given") for frame in frames)
        return
    by_grid: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_grid[(frame.image.shape, frame.spacing_mm)].append(frame)
    for group in by_grid.values():
        yield from _fit(group)


def _fit(frames: list[Frame]) -> Iterator[FittedFrame]:
    try:
        shared = fit_sector([frame.image for frame in frames], frames[0].unit_spacing)
    except DatasetError:
        shared = None
    for frame in frames:
        try:
            sector = shared
            agrees = agreement(sector, frame.image, frame.unit_spacing) if sector else 0.0
            if sector is None or agrees < MIN_AGREEMENT:
                sector = fit_sector([frame.image], frame.unit_spacing)
                agrees = agreement(sector, frame.image, frame.unit_spacing)
        except DatasetError as error:
            yield FittedFrame(frame, None, 0.0, f"no sector found: {error}")
            continue
        if agrees < MIN_AGREEMENT:
            reason = (
                f"no sector found: the best fan covers {agrees:.0%} of the image's foreground, "
                f"expected at least {MIN_AGREEMENT:.0%}; is it a sector scan?"
            )
            yield FittedFrame(frame, None, 0.0, reason)
            continue
        yield FittedFrame(frame, sector, agrees)
