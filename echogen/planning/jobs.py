"""A dataset with the plan made from it: where the jobs of a run come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from echogen.config import DatasetConfig, ExpandConfig
from echogen.datasets import Dataset, open_chosen, select
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import DatasetError
from echogen.geometry.render import render, render_original
from echogen.planning.leakage import leakage_notes
from echogen.planning.make import build_plan
from echogen.planning.plan import Plan, PlannedFrame, Row
from echogen.planning.record import grid_of
from echogen.report import Reporter
from echogen.types import Frame, FrameKey, Job, Problem


@dataclass(frozen=True)
class Source:
    """What jobs are rendered from.

    Attributes:
        dataset: the opened reader.
        keys: {frame id: key} of the frames that were selected.
        plan: rows and frames.
        config: of the run.
    """

    dataset: Dataset
    keys: dict[str, FrameKey]
    plan: Plan
    config: ExpandConfig

    @cached_property
    def frames(self) -> dict[str, PlannedFrame]:
        """{frame id: what was planned of it}."""
        return {planned.frame_id: planned for planned in self.plan.frames}

    def jobs(self, rows: Sequence[Row]) -> Iterator[Job | Problem | None]:
        """One item a row: a job, a problem where the frame can no longer be read, or None where
        the row was rejected. Rows of one frame in sequence read it once.
        """
        frame: Frame | Problem | None = None
        at = ""
        for row in rows:
            if row.rejected:
                yield None
                continue
            if row.frame_id != at:
                frame, at = self._read(row.frame_id), row.frame_id
            yield self._job(row, frame) if isinstance(frame, Frame) else frame

    def _read(self, frame_id: str) -> Frame | Problem:
        key = self.keys[frame_id]
        try:
            frame = self.dataset.read(key)
            same = self.dataset.fingerprint(key) == self.frames[frame_id].fingerprint
        except DatasetError as error:
            return Problem(frame_id, f"{error} (it could be read when the plan was made)")
        changed = f"{key.paths[0].name}: its files changed after the plan was made"
        return frame if same else Problem(frame_id, changed)

    def _job(self, row: Row, frame: Frame) -> Job:
        planned = self.frames[row.frame_id]
        grid = grid_of(planned, self.plan)
        if row.copy == 0:
            return render_original(frame, grid, row.sample_id, row.seed)
        transforms = self.config.transforms
        return render(frame, planned.sector, row.params, grid, transforms, row.sample_id, row.seed)


def list_source(
    path: Path, chosen: DatasetConfig, reporter: Reporter
) -> tuple[Dataset, list[FrameKey]]:
    """Open the dataset and select frames; no pixel is read.

    Raises:
        DatasetError, UsageError: there is nothing to read.
    """
    dataset = open_chosen(path, chosen)
    reporter.tell(dataset.describe())
    return dataset, list(select(dataset.keys(), chosen))


def open_source(config: ExpandConfig, info: CheckpointInfo, reporter: Reporter) -> Source:
    """Open the dataset, select frames, and plan every sample.

    Raises:
        DatasetError, UsageError, PlanError: nothing can be planned.
    """
    dataset, keys = list_source(config.input, config.dataset, reporter)
    return _plan(config, info, dataset, keys, reporter)[0]


def plan_source(
    config: ExpandConfig,
    info: CheckpointInfo,
    dataset: Dataset,
    keys: list[FrameKey],
    reporter: Reporter,
) -> Source:
    """Plan every sample of the selected frames; tells before painting what the model saw of them.

    Raises:
        DatasetError, PlanError: nothing can be planned.
    """
    source, warnings = _plan(config, info, dataset, keys, reporter)
    for line in warnings:
        reporter.tell(f"note: {line}")
    return source


def _plan(
    config: ExpandConfig,
    info: CheckpointInfo,
    dataset: Dataset,
    keys: list[FrameKey],
    reporter: Reporter,
) -> tuple[Source, tuple[str, ...]]:
    plan = build_plan(
        dataset,
        keys,
        config,
        (info.image_size, info.resize),
        lambda done, total: reporter.progress("planning", done, total),
    )
    warnings = leakage_notes(info.name, info.training, plan.frames) if config.copies else ()
    plan = replace(plan, notes=(*plan.notes, *warnings))
    return Source(dataset, {key.frame_id: key for key in keys}, plan, config), warnings
