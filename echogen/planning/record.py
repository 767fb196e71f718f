"""The plan in the store's words: one array a column, and the attributes of the whole run.

Also the other way round: whether a store that is already there was made with these settings.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from echogen import __version__
from echogen.config import DpmConfig, ExpandConfig, RunConfig, SampleConfig, SamplerConfig
from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import StoreError
from echogen.geometry.field import seen_on
from echogen.geometry.transforms import MOVES, sample_spacing, sector_on_grid
from echogen.planning.plan import Plan, Row
from echogen.store.record import read_record
from echogen.store.schema import EXPANDED, GENERATED
from echogen.support.differences import differences
from echogen.types import FrameKey

OF_FRAME = ("frame_id", "case_id", "view", "phase", "split")
"""Columns of `/samples` that every row has from its frame."""
MOST_TOLD = 4
"""Differences that a refusal names."""
NOISE = "philox4x64-10"  # the stream of `diffusion.noise`, which this module must not import


def columns(plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """The columns of `/samples`, one row a row of the plan, that are known before painting."""
    of_id = {frame.frame_id: frame for frame in plan.frames}
    frames = [of_id[row.frame_id] for row in plan.rows]
    grids = [plan.grid_of(frame) for frame in frames]
    fans = [sector_on_grid(frame.sector, grid) for frame, grid in zip(frames, grids, strict=True)]
    seen = [seen_on(grid, frame.grid) for frame, grid in zip(frames, grids, strict=True)]
    spacing = [
        (np.nan, np.nan) if frame.spacing_mm is None else sample_spacing(row.params, grid)
        for row, frame, grid in zip(plan.rows, frames, grids, strict=True)
    ]
    return {
        "sample_id": np.array([row.sample_id for row in plan.rows], dtype=object),
        **{
            name: np.array([getattr(frame, name) for frame in frames], dtype=object)
            for name in OF_FRAME
        },
        **_drawn(plan.rows),
        "spacing_mm": np.array(spacing, dtype=np.float32).reshape(-1, 2),
        "sector": np.array([fan for fan, _ in fans], dtype=np.float32).reshape(-1, 6),
        "aspect": np.array([aspect for _, aspect in fans], dtype=np.float32),
        "cut": np.array([_bits(frame.cut) for frame in frames], dtype=np.uint8),
        "cut_ids": np.array([" ".join(map(str, frame.cut)) for frame in frames], dtype=object),
        "crop": np.array([frame.crop for frame in frames], dtype=np.int32).reshape(-1, 4),
        "seen": np.array(seen, dtype=np.float32).reshape(-1, 4),
    }


def generated_columns(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    """The columns that are known of generated images before painting: each is its own case."""
    ids = np.array([row.sample_id for row in rows], dtype=object)
    unknown = np.full(len(rows), "", dtype=object)
    return {
        **dict.fromkeys(("sample_id", "frame_id", "case_id"), ids),
        **dict.fromkeys(("view", "phase", "split"), unknown),
        **_drawn(rows),
        "spacing_mm": np.full((len(rows), 2), np.nan, dtype=np.float32),
        "cut": np.zeros(len(rows), dtype=np.uint8),
        "cut_ids": unknown,
        "crop": np.zeros((len(rows), 4), dtype=np.int32),
        "seen": np.full((len(rows), 4), np.nan, dtype=np.float32),
    }


def frame_keys(table: Mapping[str, npt.NDArray[Any]]) -> list[FrameKey]:
    """The frame of each row of `/samples`, without its files."""
    rows = zip(*(table[name].tolist() for name in OF_FRAME), strict=True)
    return [
        FrameKey(frame, case, view, phase, split, ()) for frame, case, view, phase, split in rows
    ]


def _bits(class_ids: Sequence[int]) -> int:
    """Bit k set for class k; ids above 7 have none."""
    return sum(1 << class_id for class_id in class_ids if class_id < 8)


def _drawn(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    return {
        **{
            name: np.array([getattr(row.params, name) for row in rows], dtype=np.float32)
            for name in MOVES
        },
        "copy": np.array([row.copy for row in rows], dtype=np.uint16),
        "seed": np.array([row.seed for row in rows], dtype=np.uint64),
        "tries": np.array([row.tries for row in rows], dtype=np.uint8),
    }


def attributes(
    plan: Plan,
    config: ExpandConfig,
    info: CheckpointInfo,
    nfe: int,
    precision: str,
    judge: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The store's `echogen` attribute for a new run; `precision` is the resolved one.

    `judge` is the record of the judge that samples are judged by, None of a run without.
    """
    return {
        **({} if judge is None else {"judge": dict(judge)}),
        **_run_attributes(config, info, nfe, precision),
        "kind": EXPANDED.kind,
        "plan_digest": plan.digest,
        "grid": {"image_size": plan.settings.image_size, "resize": plan.settings.resize},
        "config": config.model_dump(
            mode="json",
            include={"copies", "seed", "originals", "dataset", "transforms", "store"},
            exclude={"dataset": config.dataset.unrecorded},
        ),
        "dataset": {k: v for k, v in plan.dataset.items() if k != "labels"},
        "labels": plan.dataset["labels"],
        "notes": list(plan.notes),
    }


def generated_attributes(
    rows: Sequence[Row], config: SampleConfig, info: CheckpointInfo, nfe: int, precision: str
) -> dict[str, Any]:
    """The `echogen` attribute of a new store of generated images."""
    named = "".join(f"{row.sample_id} {row.seed}\n" for row in rows)
    return {
        **_run_attributes(config, info, nfe, precision),
        "kind": GENERATED.kind,
        "plan_digest": hashlib.sha256(named.encode()).hexdigest(),
        "config": config.model_dump(mode="json", include={"n", "seed", "background", "store"}),
        "labels": {},
    }


def _run_attributes(
    config: RunConfig, info: CheckpointInfo, nfe: int, precision: str
) -> dict[str, Any]:
    return {
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "checkpoint": {"name": info.name, "sha256": info.sha256, "licence": info.licence},
        "sampler": {
            **_recorded(config.sampler),
            "precision": precision,
            "nfe": nfe,
            "noise": NOISE,
        },
        "complete": False,
    }


def _recorded(sampler: SamplerConfig) -> dict[str, Any]:
    """Its settings, without those that are newer than the first stores and change nothing."""
    newer = {"refine_steps", "refine_from", "refine_visits"}
    unused = isinstance(sampler, DpmConfig) and not sampler.refine_steps
    return sampler.model_dump(mode="json", exclude=newer if unused else None)


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> None:
    """Refuse to continue a store that other settings made.

    Args:
        found: the `echogen` attribute of the store.
        wanted: the attribute that this run would write.
        path: of the store, for the message.

    Raises:
        StoreError: names the setting, its value in the store and its value now; or the store's
            record is damaged.
    """
    theirs, ours = (read_record(Path(path), attrs) for attrs in (found, wanted))
    if theirs.kind != ours.kind:
        _refuse(path, f"its images are {theirs.kind}, this run's are {ours.kind}")
    if part := theirs.exported:
        _refuse(path, f"it holds {part.rows} of the {part.of} samples of {part.source}")
    changed = []
    for name in ("checkpoint", "sampler", "judge", "labels", "config"):
        of_name = list(differences({name: found.get(name)}, {name: wanted.get(name)}))
        # Another sampler has other settings: its name tells all, and so does a model's.
        named = [change for change in of_name if change.name == f"{name}.name"]
        changed += named or [change for change in of_name if change.name != "sampler.nfe"]
    if changed:
        told = [
            f"{key} = {_in_words(key, old)!r}, this run has {_in_words(key, new)!r}"
            for key, old, new in changed[:MOST_TOLD]
        ]
        more = f"; and {len(changed) - MOST_TOLD} more" if len(changed) > MOST_TOLD else ""
        _refuse(path, f"it was made with {'; with '.join(told)}{more}")
    if theirs.dataset.fans != ours.dataset.fans:
        how = "with other fans in" if ours.dataset.fans else "with"
        _refuse(path, f"it was made {how if theirs.dataset.fans else 'without'} --fans")
    if theirs.dataset.fingerprint != ours.dataset.fingerprint:
        _refuse(path, "the dataset's files have changed since, or some were added or removed")
    if theirs.plan_digest != ours.plan_digest:
        _refuse(
            path,
            f"its plan differs, though settings and files are the same; it was made by echogen "
            f"{theirs.version}, this is {__version__}, and libraries may have changed too",
        )


def _refuse(path: str, what: str) -> NoReturn:
    raise StoreError(
        f"{path}: holds another run: {what}. Use the same settings to continue it, another "
        "--out, or --overwrite to replace it."
    )


_UNRECORDED = {"config.dataset.frames": "key", "judge": "none"}


def _in_words(name: str, value: Any) -> Any:
    """A setting for a message; what is recorded only where it differs from a default is that."""
    if value is None and name in _UNRECORDED:
        return _UNRECORDED[name]
    if name == "judge":
        return value.get("name", "(without a name)")
    return "(not recorded)" if value is None or isinstance(value, Mapping) else value
