"""One fan for the frames of a recording: fitted together, alone where a frame disagrees."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from echogen.errors import DatasetError
from echogen.geometry.fit import FanFit, find_fan, fits, is_upside_down
from echogen.geometry.sector import Sector
from echogen.types import Frame

FanSource = Literal["frame", "clip", "given"]
"""How a fan was found: in one frame, in a clip, or given by the user."""

LENGTH_DIGITS, ANGLE_DIGITS, SHARE_DIGITS = 3, 5, 3
"""Of a found fan: decimals of a pixel, of a radian, and of its confidence and stretch."""


@dataclass(frozen=True)
class FittedFrame:
    """A frame and its fan.

    Attributes:
        frame: as it was read.
        sector: in mm, or in pixels without a spacing; None where none was found.
        confidence: 0 to 1, how sure the fan is; 1 where it is given, 0 without a fan.
        reason: why there is no fan, one line; empty where there is one.
        how: where the fan comes from.
        stretch: the factor on the row spacing that would make the far arc round, 1 where it is
            round or too little of it is seen to tell.
    """

    frame: Frame
    sector: Sector | None
    confidence: float
    reason: str = ""
    how: FanSource = "frame"
    stretch: float = 1.0


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
        given: the recording's fan where the user gives it, mm (pixels without a spacing); it is
            taken as it is.

    Yields:
        One item a frame; frames on the same grid come together.
    """
    if given is not None:
        yield from (FittedFrame(frame, given, 1.0, how="given") for frame in frames)
        return
    by_grid: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_grid[(frame.image.shape, frame.spacing_mm)].append(frame)
    for (shape, _), group in by_grid.items():
        whole = clip if clip is not None and clip.shape[1:] == shape and len(clip) > 1 else None
        yield from _fit(group, whole)


def _fit(frames: list[Frame], clip: npt.NDArray[Any] | None) -> Iterator[FittedFrame]:
    spacing = frames[0].unit_spacing
    shared, how = _together([frame.image for frame in frames], clip, spacing)
    for frame in frames:
        if shared is not None and fits(shared.sector, frame.image, spacing):
            yield _fitted(frame, shared, how)
            continue
        try:
            alone = find_fan([frame.image], spacing)
        except DatasetError as error:
            yield FittedFrame(frame, None, 0.0, _reason(frame, error))
            continue
        yield _fitted(frame, alone, "frame")


def _fitted(frame: Frame, found: FanFit, how: FanSource) -> FittedFrame:
    """With its numbers rounded far below what a fit can tell: other processors add up in another
    order, and a plan made on one has to be the plan made on the other.
    """
    unit, fan = min(frame.unit_spacing), found.sector
    lengths = (fan.apex_row, fan.apex_col, fan.radius_near, fan.radius_far)
    row, col, near, far = (round(length / unit, LENGTH_DIGITS) * unit for length in lengths)
    left, right = (round(angle, ANGLE_DIGITS) for angle in (fan.angle_left, fan.angle_right))
    return FittedFrame(
        frame,
        Sector(row, col, left, right, near, far),
        round(found.confidence, SHARE_DIGITS),
        how=how,
        stretch=round(found.stretch, SHARE_DIGITS),
    )


def _together(
    images: list[Any], clip: npt.NDArray[Any] | None, spacing: tuple[float, float]
) -> tuple[FanFit | None, FanSource]:
    """The fan of the clip, or where that shows none, of the frames."""
    if clip is not None:
        try:
            return find_fan(list(clip), spacing), "clip"
        except DatasetError:
            pass
    try:
        return find_fan(images, spacing), "frame"
    except DatasetError:
        return None, "frame"


def _reason(frame: Frame, error: DatasetError) -> str:
    if is_upside_down(frame.image, frame.unit_spacing):
        return (
            "no sector found: the picture is upside down, for a fan is found in it when it is "
            'flipped; its apex has to be up, set in [dataset]: flip = "rows"'
        )
    return f"no sector found: {error}"
