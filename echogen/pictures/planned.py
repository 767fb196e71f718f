"""A plan's file and its dataset, joined again into what jobs are rendered from."""

from pathlib import Path

from pydantic import ValidationError

from echogen.config import ExpandConfig
from echogen.datasets import Dataset, open_chosen
from echogen.datasets.base import fits
from echogen.errors import PlanError, UsageError
from echogen.pictures.choice import Choice
from echogen.planning.jobs import Source
from echogen.planning.plan import Row, load_plan
from echogen.types import FrameKey


def planned_source(path: Path, plan_file: Path, format: str = "auto") -> Source:
    """A plan that `echogen expand --dry-run --plan` wrote, over the dataset it was made of.

    Args:
        path: of the dataset.
        plan_file: of the plan.
        format: of the dataset.

    Raises:
        PlanError: the file is no plan, or not of this dataset.
        DatasetError: the dataset cannot be read.
    """
    plan = load_plan(plan_file)
    names = ("copies", "seed", "originals", "transforms")
    try:
        settings = {name: plan.settings[name] for name in names}
        dataset_settings = {**plan.settings["dataset"], "format": format}
        config = ExpandConfig.model_validate(
            {"input": path, "output": "none.zarr", "dataset": dataset_settings, **settings}
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise PlanError(f"{plan_file}: damaged or incomplete; make the plan again.") from error
    dataset = open_chosen(path, config.dataset)
    keys = by_id(dataset)
    absent = sorted({planned.frame_id for planned in plan.frames} - keys.keys())
    if absent:
        raise PlanError(
            f"{plan_file}: was made of another dataset than {path}: {len(absent)} of its "
            f"{len(plan.frames)} frames are not there, such as {absent[0]}. Give its own dataset."
        )
    return Source(dataset, keys, plan, config)


def planned_copies(source: Source, choice: Choice) -> list[Row]:
    """The rows of a plan that a choice may take: copies that have a move.

    Raises:
        UsageError: there is none.
    """
    rows = [
        row
        for row in source.plan.rows
        if row.copy > 0
        and not row.rejected
        and fits(source.frames[row.frame_id], choice.dataset)
        and choice.names(row.sample_id)
    ]
    if not rows:
        raise UsageError(
            f"no copy to show: none of the plan's {len(source.plan.rows)} samples is a copy that "
            "fits --samples, --cases, --views, --phases and --split together."
        )
    return rows


def by_id(dataset: Dataset) -> dict[str, FrameKey]:
    """{frame id: key} of all frames."""
    listed = dataset.keys()
    return {key.frame_id: key for key in listed}
