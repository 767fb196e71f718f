"""A dataset with the plan made from it: what the samples of a run are rendered from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from echogen.config import AugmentationConfig
from echogen.datasets import Dataset
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import DatasetError
from echogen.geometry.field import cut_to_field
from echogen.geometry.render import render, render_original
from echogen.planning.leakage import leakage_notes
from echogen.planning.make import build_plan
from echogen.planning.plan import Plan, PlannedFrame, Row
from echogen.report import Problem, Reporter
from echogen.types import Frame, FrameKey, Sample


@dataclass(frozen=True)
class PlannedDataset:
    """What samples are rendered from.

    Attributes:
        dataset: the opened reader.
        keys: of its frames, those of the plan among them.
        plan: rows and frames.
        leakage: the plan's notes on what the model was trained on and what was held out from it.
    """

    dataset: Dataset
    keys: Sequence[FrameKey]
    plan: Plan
    leakage: tuple[str, ...] = ()

    @cached_property
    def frames(self) -> dict[str, PlannedFrame]:
        """{frame id: what was planned of it}."""
        return {planned.frame_id: planned for planned in self.plan.frames}

    @cached_property
    def _keys(self) -> dict[str, FrameKey]:
        return {key.frame_id: key for key in self.keys}

    def render(self, rows: Sequence[Row]) -> Iterator[Sample | Problem | None]:
        """One item a row: a sample with nothing painted, a problem where the frame can no longer be
        read, or None where the row was rejected. Rows of one frame in sequence read it once.

        Raises:
            DatasetError: the dataset's folder has gone.
        """
        frame: Frame | Problem | None = None
        at = ""
        for row in rows:
            if row.rejected:
                yield None
                continue
            if row.frame_id != at:
                frame, at = self._read(row.frame_id), row.frame_id
            yield self._render_row(row, frame) if isinstance(frame, Frame) else frame

    def _read(self, frame_id: str) -> Frame | Problem:
        """A frame cut to its field."""
        key = self._keys[frame_id]
        try:
            frame = self.dataset.read(key)
            same = self.dataset.fingerprint(key) == self.frames[frame_id].fingerprint
        except DatasetError as error:
            _check_there(self.dataset.root)
            told = str(error).removesuffix(".")
            return Problem(frame_id, f"{told}; it could be read when the plan was made.")
        planned = self.frames[frame_id]
        if not same:
            changed = f"{key.file_names[0]}: its files changed after the plan was made"
            return Problem(frame_id, changed)
        rows, cols = frame.image.shape
        inside = planned.crop[2] <= rows and planned.crop[3] <= cols
        if not inside or frame.spacing_mm != planned.spacing_mm:
            other = f"{key.file_names[0]}: the plan has another crop or spacing; make it again"
            return Problem(frame_id, other)
        return cut_to_field(frame, planned.crop, planned.sector)

    def _render_row(self, row: Row, frame: Frame) -> Sample:
        planned = self.frames[row.frame_id]
        grid = self.plan.grid_of(planned)
        if row.copy == 0:
            return render_original(frame, grid)
        transforms = self.plan.settings.transforms
        return render(frame, planned.sector, row.params, grid, transforms)


def _check_there(root: Path) -> None:
    """Of a network's disk that has gone, no frame is at fault: the run ends, to be continued."""
    try:
        there = any(root.iterdir())
    except OSError:
        there = False
    if not there:
        raise DatasetError(
            f"{root}: has gone while it was read. Bring it back, and run the same command again."
        )


def plan_dataset(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    config: AugmentationConfig,
    info: CheckpointInfo,
    reporter: Reporter,
    workers: int = 0,
) -> PlannedDataset:
    """Plan every sample of the selected frames for a model.

    Args:
        dataset: the opened reader.
        keys: the frames to use.
        config: what to make of them.
        info: of the model.
        reporter: where progress goes.
        workers: processes; 0 takes one a core.

    Raises:
        DatasetError, PlanError: nothing can be planned.
    """
    plan = build_plan(
        dataset,
        keys,
        config,
        (info.image_size, info.resize),
        workers,
        partial(reporter.progress, "planning"),
    )
    leakage = leakage_notes(info.name, info.training, plan.frames) if config.copies else ()
    plan = replace(plan, notes=(*plan.notes, *leakage))
    return PlannedDataset(dataset, keys, plan, leakage)
