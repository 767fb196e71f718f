"""The plan in the store's words: one array a column, and the attributes of the whole run.

Also the other way round: whether a store that is already there was made with these settings.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen import __version__
from echogen.config import ExpandConfig
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import StoreError
from echogen.geometry.transforms import Grid, model_grid, sample_spacing, sector_on_grid
from echogen.plan import Plan, PlannedFrame
from echogen.store.schema import FORMAT


def grid_of(planned: PlannedFrame, plan: Plan) -> Grid:
    """The model's grid over a frame's field."""
    spacing = planned.spacing_mm or (1.0, 1.0)
    return model_grid(planned.shape, spacing, plan.settings["image_size"], plan.settings["resize"])


def columns(plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """The columns of `/samples`, one row a row of the plan, that are known before painting."""
    frames = {planned.frame_id: planned for planned in plan.frames}
    text: dict[str, list[str]] = {
        name: [] for name in ("sample_id", "frame_id", "case_id", "view", "phase", "split")
    }
    spacing, sector, aspect, cut = [], [], [], []
    for row in plan.rows:
        planned = frames[row.frame_id]
        grid = grid_of(planned, plan)
        fan, pixel_aspect = sector_on_grid(planned.sector, grid)
        known = planned.spacing_mm is not None
        spacing.append(sample_spacing(row.params, grid) if known else (np.nan, np.nan))
        sector.append(fan)
        aspect.append(pixel_aspect)
        cut.append(planned.cut)
        for name in ("frame_id", "case_id", "view", "phase", "split"):
            text[name].append(getattr(planned, name))
        text["sample_id"].append(row.sample_id)
    rows = plan.rows
    params = {
        name: np.array([getattr(row.params, name) for row in rows], dtype=np.float32)
        for name in ("depth", "tilt_deg", "width", "shift_x", "shift_y")
    }
    return {
        **{name: np.array(values, dtype=object) for name, values in text.items()},
        **params,
        "copy": np.array([row.copy for row in rows], dtype=np.uint16),
        "seed": np.array([row.seed for row in rows], dtype=np.uint64),
        "tries": np.array([row.tries for row in rows], dtype=np.uint8),
        "spacing_mm": np.array(spacing, dtype=np.float32).reshape(-1, 2),
        "sector": np.array(sector, dtype=np.float32).reshape(-1, 6),
        "aspect": np.array(aspect, dtype=np.float32),
        "cut": np.array(cut, dtype=np.uint8),
    }


def attributes(plan: Plan, config: ExpandConfig, info: CheckpointInfo, nfe: int) -> dict[str, Any]:
    """The store's `echogen` attribute for a new run."""
    return {
        "format": FORMAT,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan_digest": plan.digest,
        "seed": config.seed,
        "config": _recorded_config(config),
        "checkpoint": {"name": info.name, "sha256": info.sha256, "licence": info.licence},
        "dataset": {k: v for k, v in plan.dataset.items() if k != "labels"},
        "labels": plan.dataset["labels"],
        "sampler": {**config.sampler.model_dump(mode="json"), "nfe": nfe},
        "notes": list(plan.notes),
        "complete": False,
    }


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> None:
    """Refuse to continue a store that other settings made.

    Args:
        found: the `echogen` attribute of the store.
        wanted: the attribute that this run would write.
        path: of the store, for the message.

    Raises:
        StoreError: names the setting, its value in the store and its value now.
    """
    compared = ("config", "seed", "checkpoint", "sampler", "labels", "dataset", "plan_digest")
    for name in compared:
        difference = _first_difference(name, found.get(name), wanted.get(name))
        if difference is None:
            continue
        key, there, here = difference
        what = (
            "the dataset's files have changed since"
            if key.startswith(("dataset.fingerprint", "plan_digest"))
            else f"it was made with {key} = {there!r}, this run has {here!r}"
        )
        raise StoreError(
            f"{path}: holds another run: {what}. Use the same settings to continue it, another "
            "--out, or --overwrite to replace it."
        )


def _recorded_config(config: ExpandConfig) -> dict[str, Any]:
    """What decides the samples; not where they are read, written or painted."""
    recorded: dict[str, Any] = config.model_dump(
        mode="json", exclude={"input", "output", "engine", "sampler", "checkpoint", "on_error"}
    )
    return recorded


def _first_difference(name: str, found: Any, wanted: Any) -> tuple[str, Any, Any] | None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*found, *wanted} - {"nfe"}):
            below = _first_difference(f"{name}.{key}", found.get(key), wanted.get(key))
            if below is not None:
                return below
        return None
    return None if found == wanted else (name, found, wanted)
