"""Making a plan: read every frame once, fit its sector, draw its moves.

Frames of one recording share one fitted sector, and frames of one sequence moves and seeds too.
Reading and fitting run in worker processes; only small records come back, so memory does not grow
with the dataset's pixels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from echogen.config import AugmentationConfig, Resize, TransformConfig
from echogen.datasets import Dataset, image_digest
from echogen.datasets.fans import to_do_about
from echogen.datasets.recordings import Progress, Recording, each_recording
from echogen.errors import DatasetError, PlanError
from echogen.geometry.field import field_of
from echogen.geometry.render import cut_pixels, frame_grid
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import IDENTITY, Grid, TransformParams, assess, draw
from echogen.planning.plan import DIGEST_LENGTH, Plan, PlannedFrame, PlanSettings, Row, sample_seed
from echogen.report import Problem
from echogen.support.words import counted
from echogen.types import Case, Frame, FrameKey

MOST_STRETCH = 0.08
"""A fan whose arc is rounder with spacing changed by more than this share is not round."""
MAX_LABEL_POINTS = 4000


def build_plan(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    config: AugmentationConfig,
    grid: tuple[int, Resize],
    workers: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Read every frame once, fit the sectors, draw the moves.

    Args:
        dataset: the opened reader.
        keys: the frames to use.
        config: what to make of them.
        grid: the model's image size and how frames are resized to it.
        workers: processes; 0 takes one a core.
        progress: called with (frames done, frames in all).

    Raises:
        DatasetError: with `on_error = "fail"`, the first frame that cannot be used.
        PlanError: no usable frame is left.
    """
    whole = _plan_recordings(dataset, keys, config, workers, progress)
    frames, rows, problems = whole.frames, whole.rows, whole.problems
    if not frames:
        reason = f" The first reason: {problems[0].reason}" if problems else ""
        reason += "".join(f" {line}" for line in whole.notes())
        raise PlanError(
            f"{dataset.provenance.root_name}: no frame can be used, of {len(keys)} found.{reason}"
        )
    _check_millimetres(frames, config.transforms)
    frames.sort(key=lambda planned: planned.frame_id)
    rows.sort(key=lambda row: (row.frame_id, row.copy))
    used_cases = {planned.case_id for planned in frames}
    return Plan(
        settings=PlanSettings(
            copies=config.copies,
            seed=config.seed,
            originals=config.originals,
            dataset=config.dataset,
            transforms=config.transforms,
            image_size=grid[0],
            resize=grid[1],
        ),
        dataset={
            "format": dataset.provenance.format,
            "root_name": dataset.provenance.root_name,
            "fingerprint": _fingerprint(frames),
            "licence": dataset.provenance.licence,
            "labels": {str(k): v for k, v in dataset.provenance.labels.items()},
            **_given_fans(frames, dataset.fans),
        },
        frames=tuple(frames),
        rows=tuple(rows),
        cases=tuple(
            Case(c.case_id, dict(c.info)) for c in dataset.cases if c.case_id in used_cases
        ),
        problems=tuple(sorted(problems, key=lambda p: (p.frame_id, p.reason))),
        notes=(
            *dataset.notes,
            *whole.notes(),
            *_copies(keys),
            *_same_pixels(frames),
            *_not_round(frames, {key.frame_id for key in keys if key.copy}),
            *_rejected(rows, config.transforms),
        ),
    )


@dataclass(frozen=True)
class _RecordingPlan:
    frames: list[PlannedFrame]
    rows: list[Row]
    problems: list[Problem]
    refused: list[str] = field(default_factory=list)
    """Frames without a fan."""

    def notes(self) -> Iterator[str]:
        if self.refused:
            yield to_do_about(len(self.refused))


def _plan_recordings(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    config: AugmentationConfig,
    workers: int,
    progress: Progress | None,
) -> _RecordingPlan:
    """All of them together; with `on_error = "fail"`, no further than the first problem."""
    whole = _RecordingPlan([], [], [])
    listed = _RecordingPlan([], [], list(dataset.problems(config.dataset)))
    outcomes = each_recording(
        _plan_recording, dataset, keys, (dataset, config), workers=workers, progress=progress
    )
    for outcome in chain([listed], outcomes):
        if outcome.problems and config.on_error == "fail":
            raise DatasetError(f"{outcome.problems[0].reason} (--on-error fail)")
        whole.problems.extend(outcome.problems)
        whole.refused.extend(outcome.refused)
        whole.frames.extend(outcome.frames)
        whole.rows.extend(outcome.rows)
    return whole


def _plan_recording(
    recording: Recording, dataset: Dataset, config: AugmentationConfig
) -> _RecordingPlan:
    outcome = _RecordingPlan([], [], list(recording.problems))
    clips: dict[str, list[_FrameGeometry]] = defaultdict(list)
    for fitted in recording.frames:
        frame, sector = fitted.frame, fitted.sector
        if sector is None:
            reason = f"{frame.key.file_names[0]}: {fitted.reason}"
            outcome.problems.append(Problem(frame.key.frame_id, reason))
            outcome.refused.append(frame.key.frame_id)
            continue
        field = field_of(frame, sector)
        grid = frame_grid(field.frame)
        planned = PlannedFrame(
            frame_id=frame.key.frame_id,
            case_id=frame.key.case_id,
            view=frame.key.view,
            phase=frame.key.phase,
            split=frame.key.split,
            fingerprint=dataset.fingerprint(frame.key),
            crop=field.crop,
            spacing_mm=frame.spacing_mm,
            sector=field.sector,
            confidence=fitted.confidence,
            stretch=fitted.stretch,
            cut=tuple(sorted(cut_pixels(field.frame.label, field.sector, grid))),
            digest=image_digest(frame.image)[:DIGEST_LENGTH],
            sequence=frame.key.sequence,
        )
        outcome.frames.append(planned)
        geometry = _FrameGeometry(frame.key.frame_id, field.sector, grid, label_points(field.frame))
        clips[frame.key.clip_id].append(geometry)
    for clip_id, clip in clips.items():
        outcome.rows.extend(_draw_rows(clip_id, clip, config))
    return outcome


@dataclass(frozen=True)
class _FrameGeometry:
    """What a draw is judged by: a field's fan, its grid, and (K, 2) mm of labelled pixels."""

    frame_id: str
    sector: Sector
    grid: Grid
    points: npt.NDArray[np.float64]


def _draw_rows(
    clip_id: str, clip: Sequence[_FrameGeometry], config: AugmentationConfig
) -> Iterator[Row]:
    """Rows of the frames that move together; one frame is a clip of its own."""
    first = 0 if config.originals else 1
    for copy in range(first, config.copies + 1):
        seed = sample_seed(config.seed, clip_id, copy)
        params, tries = (IDENTITY, 0) if copy == 0 else _draw_valid(clip, seed, config.transforms)
        for frame_id in (frame.frame_id for frame in clip):
            name, move = f"{frame_id}_copy{copy}", params or IDENTITY
            yield Row(name, frame_id, copy, seed, params is None, tries, move)


def _draw_valid(
    clip: Sequence[_FrameGeometry], seed: int, config: TransformConfig
) -> tuple[TransformParams | None, int]:
    """The first draw that every frame of the clip accepts."""
    # A stream of its own: the sampler's noise comes from PCG64(seed).
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    for tries in range(1, config.max_tries + 1):
        params = draw(rng, config)
        if all(
            assess(params, frame.sector, frame.grid, frame.points, config).accepted(config)
            for frame in clip
        ):
            return params, tries
    return None, config.max_tries


def label_points(frame: Frame) -> npt.NDArray[np.float64]:
    """(K, 2) mm of labelled pixels, every n-th where there are many."""
    index = np.argwhere(frame.label > 0)
    index = index[:: max(1, len(index) // MAX_LABEL_POINTS)]
    return np.asarray((index + 0.5) * np.array(frame.unit_spacing), dtype=np.float64)


def _check_millimetres(frames: Sequence[PlannedFrame], config: TransformConfig) -> None:
    unknown = [planned.frame_id for planned in frames if planned.spacing_mm is None]
    if unknown and config.labels_on_paint == "ignore":
        raise PlanError(
            f"--labels-on-paint ignore: needs millimetres, but {counted(len(unknown), 'frame')} "
            f"came without a spacing, such as {unknown[0]}; use keep or clip."
        )


def _same_pixels(frames: Iterable[PlannedFrame]) -> Iterator[str]:
    by_pixels: dict[str, list[PlannedFrame]] = defaultdict(list)
    for planned in frames:
        by_pixels[planned.digest].append(planned)
    for alike in by_pixels.values():
        if len({planned.case_id for planned in alike}) > 1:
            names = " and ".join(planned.frame_id for planned in alike)
            yield f"{names} hold the same pixels under different cases."


def _copies(keys: Sequence[FrameKey]) -> Iterator[str]:
    names = [key.frame_id for key in keys if key.copy]
    if names:
        yield (
            f"{counted(len(names), 'frame')} of {len(keys)} are painted copies already, such as "
            f"{names[0]}: copies of copies would keep paint as if it were real. Expand the dataset "
            "they were made from, or an export with --copies originals."
        )


def _not_round(frames: Iterable[PlannedFrame], copies: Set[str]) -> Iterator[str]:
    """Frames that their spacing does not fit; a copy's width may have been changed on purpose."""
    names = [
        planned.frame_id
        for planned in frames
        if abs(planned.stretch - 1) > MOST_STRETCH and planned.frame_id not in copies
    ]
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        yield (
            f"{counted(len(names), 'frame')} whose fan is not round in the millimetres given, so "
            f"their spacing is in doubt and tilt may distort the heart a little: {shown}"
        )


def _rejected(rows: Iterable[Row], config: TransformConfig) -> Iterator[str]:
    """Where most copies are rejected, what no draw of theirs fulfilled."""
    copies = [row for row in rows if row.copy > 0]
    rejected = sum(row.rejected for row in copies)
    if 2 * rejected > len(copies):
        yield (
            f"{rejected} of {counted(len(copies), 'copy', 'copies')} were rejected: none of "
            f"{counted(config.max_tries, 'drawn move')} kept {config.min_label_inside:.0%} of the "
            f"labels inside of the fan and left {config.min_hole:.1%} to {config.max_hole:.1%} of "
            "it empty. Change transforms.min_label_inside, min_hole or max_hole, or the moves."
        )


def _given_fans(frames: Iterable[PlannedFrame], given: Container[str]) -> dict[str, str]:
    """A SHA-256 of the fans that the user gave; nothing where none was given."""
    fans = "".join(f"{f.frame_id} {f.crop} {f.sector}\n" for f in frames if f.frame_id in given)
    return {"fans": hashlib.sha256(fans.encode()).hexdigest()} if fans else {}


def _fingerprint(frames: Iterable[PlannedFrame]) -> str:
    lines = "".join(f"{planned.frame_id} {planned.fingerprint}\n" for planned in frames)
    return hashlib.sha256(lines.encode()).hexdigest()
