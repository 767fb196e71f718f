"""One recording of a dataset: its fan, grey levels and labels. Runs in worker processes."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.checks.finding import Finding, error, warning
from echogen.checks.overlay import find_overlay
from echogen.datasets import image_digest
from echogen.datasets.fans import FoundFan, found_fans
from echogen.datasets.recordings import Recording
from echogen.errors import DatasetError
from echogen.geometry.field import crop_of
from echogen.geometry.fit import objection
from echogen.geometry.recording import FittedFrame
from echogen.geometry.render import frame_grid
from echogen.geometry.sector import Sector
from echogen.measures.classes import NO_CLASSES, Classes
from echogen.planning.make import MOST_STRETCH
from echogen.types import BACKGROUND, Frame, FrameKey, UInt8HW

PLAUSIBLE_DEPTH_MM = (50.0, 320.0)
PLAUSIBLE_CAVITY_MM2 = (200.0, 12000.0)
MOST_OUTSIDE = 1 / 3
LEAST_LOST = 0.005
IN_ONE_PIECE = 0.9
LEAST_CONTRAST = 30  # grey levels between the 5th and the 95th percentile in the fan
MOST_SATURATED = 0.1


@dataclass(frozen=True)
class FrameFacts:
    """What was measured of one frame.

    Attributes:
        key: of the frame.
        shape: (rows, cols).
        spacing_mm: (row, col), or None.
        pixels, label: digests of the image and of the label.
        unit: of areas: mm2 or pixels.
        areas: {class id: area}.
        depth: of the fan, mm or pixels; None where there is none.
        angle_deg: of the fan.
        outside: share of the labelled pixels that lie outside of the fan.
        mirrored: whether the left ventricle lies left of the right one; None where one is missing.
        lost: share of them that lie outside of its field, and are in no sample.
        fan: as it was found.
    """

    key: FrameKey
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    pixels: str
    label: str
    unit: str
    areas: Mapping[int, float]
    depth: float | None
    angle_deg: float | None
    outside: float
    lost: float
    mirrored: bool | None
    fan: FoundFan


@dataclass(frozen=True)
class RecordingCheck:
    """A recording's frames that can be read, and what is wrong with them."""

    frames: tuple[FrameFacts, ...]
    findings: tuple[Finding, ...]


def check_recording(
    recording: Recording, parts: Classes, names: Mapping[int, str]
) -> RecordingCheck:
    """What there is to say of a recording's frames: their fans, grey levels and labels.

    Args:
        recording: as it was read.
        parts: which class is which part of the heart.
        names: {class id: name}.
    """
    findings = [
        error("unreadable", problem.frame_id, problem.reason) for problem in recording.problems
    ]
    facts = []
    doubted = {fitted.frame.doubt: fitted.frame.key for fitted in reversed(recording.frames)}
    for doubt, key in doubted.items():
        if doubt:
            findings.append(warning("header", key.frame_id, f"{key.file_names[0]}: {doubt}"))
    for fitted, fan in zip(recording.frames, found_fans(recording), strict=True):
        facts.append(_facts(fitted, fan, parts))
        findings += _problems(fitted, facts[-1], parts, names)
    findings += _overlay(recording)
    return RecordingCheck(tuple(facts), tuple(findings))


def _overlay(recording: Recording) -> Iterator[Finding]:
    """What is drawn into the fan, where enough images of the recording are there to tell."""
    with_fan = [(one.frame, one.sector) for one in recording.frames if one.sector is not None]
    if not with_fan:
        return
    frame, sector = with_fan[0]
    try:
        clip = recording.clip()
    except DatasetError:
        clip = None  # a frame can be read, and its fan was given: what it shows is all there is
    if clip is None or clip.shape[1:] != frame.image.shape:
        images = [other.image for other, _ in with_fan]
        clip = np.stack([image for image in images if image.shape == frame.image.shape])
    if drawn := find_overlay(clip, sector, frame.unit_spacing):
        row0, col0, row1, col1 = drawn.box
        yield warning(
            "overlay",
            frame.key.frame_id,
            f"{frame.key.file_names[0]}: letters or lines seem to be drawn into its fan, rows "
            f"{row0} to {row1 - 1}, columns {col0} to {col1 - 1}; samples would show them. If it "
            "is a name, blacken it in the file, or leave the case out (--cases).",
        )


def _facts(fitted: FittedFrame, fan: FoundFan, parts: Classes) -> FrameFacts:
    frame, sector = fitted.frame, fitted.sector
    label = frame.label
    known = frame.spacing_mm is not None
    pixel = math.prod(frame.unit_spacing)
    counts = np.bincount(label.ravel(), minlength=1)
    outside = lost = 0.0
    if sector is not None and (label != BACKGROUND).any():
        labelled = label != BACKGROUND
        outside = float((labelled & ~_mask(frame, sector)).sum()) / int(labelled.sum())
        row0, col0, row1, col1 = crop_of(frame, sector)
        lost = 1.0 - float(labelled[row0:row1, col0:col1].sum()) / int(labelled.sum())
    return FrameFacts(
        key=frame.key,
        shape=(int(frame.image.shape[0]), int(frame.image.shape[1])),
        spacing_mm=frame.spacing_mm,
        pixels=image_digest(frame.image),
        label=hashlib.sha256(label.tobytes()).hexdigest(),
        unit="mm2" if known else "pixels",
        areas={k: float(n) * pixel for k, n in enumerate(counts.tolist()) if n and k},
        depth=None if sector is None else sector.radius_far - sector.radius_near,
        angle_deg=None if sector is None else math.degrees(sector.angle_right - sector.angle_left),
        outside=outside,
        lost=lost,
        mirrored=_is_mirrored(label, parts),
        fan=fan,
    )


def _is_mirrored(label: UInt8HW, parts: Classes) -> bool | None:
    """Whether the left ventricle lies left of the right one, by their middle columns."""
    left, right = (
        np.nonzero(label == part)[1] if part is not None else np.zeros(0)
        for part in (parts.cavity, parts.right)
    )
    return bool(left.mean() < right.mean()) if left.size and right.size else None


def _problems(
    fitted: FittedFrame, facts: FrameFacts, parts: Classes, names: Mapping[int, str]
) -> Iterator[Finding]:
    frame, sector = fitted.frame, fitted.sector
    name, file = frame.key.frame_id, frame.key.file_names[0]
    if sector is None or facts.depth is None:
        yield error("sector", name, f"{file}: {fitted.reason}")
        return
    if abs(fitted.stretch - 1) > MOST_STRETCH and not frame.key.copy:  # a width move is on purpose
        yield warning(
            "sector",
            name,
            f"{file}: its fan is not round in the millimetres given, but would be with a row "
            f"spacing {fitted.stretch:.2f} times as large: the spacing, or the fan, is in doubt.",
        )
    if fitted.how == "given":
        against = objection(sector, frame.image, frame.unit_spacing)
        if against:
            yield warning("sector", name, f"{file}: the fan that was given is in doubt: {against}.")
    low, high = PLAUSIBLE_DEPTH_MM
    if frame.spacing_mm is not None and not low <= facts.depth <= high:
        yield warning(
            "spacing",
            name,
            f"{file}: by its spacing of {frame.spacing_mm[0]:g} x {frame.spacing_mm[1]:g} mm its "
            f"fan is {facts.depth:.0f} mm deep; expected {low:g} to {high:g} mm.",
        )
    yield from _grey_levels(frame, sector)
    yield from _labels(frame, sector, facts, parts, names)


def _grey_levels(frame: Frame, sector: Sector) -> Iterator[Finding]:
    levels = frame.image[_mask(frame, sector)]
    if not levels.size:
        return
    low, high = np.percentile(levels, [5, 95])
    name, file = frame.key.frame_id, frame.key.file_names[0]
    if high - low < LEAST_CONTRAST:
        yield warning(
            "grey-levels",
            name,
            f"{file}: hardly any contrast: 90% of the fan's pixels lie within {high - low:.0f} "
            "grey levels.",
        )
    saturated = float((levels == 255).mean())
    if saturated > MOST_SATURATED:
        yield warning("grey-levels", name, f"{file}: {saturated:.0%} of the fan is saturated.")


def _labels(
    frame: Frame, sector: Sector, facts: FrameFacts, parts: Classes, names: Mapping[int, str]
) -> Iterator[Finding]:
    name, file = frame.key.frame_id, frame.key.file_names[-1]
    if not facts.areas:
        if parts != NO_CLASSES:  # a dataset without labels has none
            yield warning("labels", name, f"{file}: nothing is labelled.")
        return
    if facts.outside > MOST_OUTSIDE:
        yield warning(
            "labels-outside",
            name,
            f"{file}: {facts.outside:.0%} of its labelled pixels lie outside of the fan.",
        )
    if facts.lost > LEAST_LOST:
        yield warning(
            "labels-outside",
            name,
            f"{file}: {facts.lost:.1%} of its labelled pixels lie beyond the box around the fan, "
            "which is all that samples show; they are left out.",
        )
    for label in facts.areas:
        pieces, count = ndimage.label(frame.label == label)
        if count > 1:
            sizes = np.bincount(pieces.ravel())[1:]
            if sizes.max() < IN_ONE_PIECE * sizes.sum():
                yield warning(
                    "labels",
                    name,
                    f"{file}: {names.get(label, f'class {label}')} is in {count} pieces, the "
                    f"largest {sizes.max() / sizes.sum():.0%} of it.",
                )
    low, high = PLAUSIBLE_CAVITY_MM2
    cavity = facts.areas.get(parts.cavity or 0)
    if cavity is not None and facts.unit == "mm2" and not low <= cavity <= high:
        yield warning(
            "spacing",
            name,
            f"{file}: the LV cavity covers {cavity:.0f} mm2; expected {low:g} to {high:g}: is the "
            "spacing right?",
        )
    middles = [_radius(frame, sector, part) for part in (parts.cavity, parts.atrium)]
    if None not in middles and middles[0] > middles[1]:  # type: ignore[operator]  # both are numbers
        yield warning(
            "orientation",
            name,
            f"{file}: the atrium lies nearer to the probe than the LV cavity; apical views have it "
            "the other way round.",
        )


def _radius(frame: Frame, sector: Sector, label: int | None) -> float | None:
    """Distance of a class' centroid from the fan's apex."""
    index = np.argwhere(frame.label == label) if label is not None else np.zeros((0, 2))
    if not len(index):
        return None
    row, col = (index.mean(axis=0) + 0.5) * frame.unit_spacing
    return math.hypot(row - sector.apex_row, col - sector.apex_col)


def _mask(frame: Frame, sector: Sector) -> npt.NDArray[np.bool_]:
    grid = frame_grid(frame)
    return sector.mask(grid.shape, grid.spacing_mm, grid.origin_mm)
