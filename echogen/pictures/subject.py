"""One sample to be painted again, with the sampler and the model that painted or would paint it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from echogen.config import AugmentationConfig, EngineConfig, SamplerConfig
from echogen.datasets import open_chosen
from echogen.diffusion.checkpoint import read_info
from echogen.errors import CheckpointError, StoreError, UsageError
from echogen.geometry.sector import fan_mask
from echogen.models.resolve import is_path, load_with_model, resolve_checkpoint
from echogen.pictures.choice import Choice
from echogen.planning.dataset import PlannedDataset
from echogen.planning.make import build_plan
from echogen.report import Reporter
from echogen.store import StoreReader, is_store, open_store, present_store_path
from echogen.types import Sample

_SAMPLERS: TypeAdapter[SamplerConfig] = TypeAdapter(SamplerConfig)


@dataclass(frozen=True)
class Subject:
    """A sample to be painted again.

    Attributes:
        name: its id.
        sample: as it was rendered, with nothing painted.
        aspect: displayed width of a pixel over its height.
        seed: of its noise.
        sampler: settings of the sampler.
        checkpoint: a folder, or "builtin".
        engine: device and precision.
    """

    name: str
    sample: Sample
    aspect: float
    seed: int
    sampler: SamplerConfig
    checkpoint: str
    engine: EngineConfig


def subject_of(
    path: Path,
    source: PlannedDataset | None,
    name: str,
    choice: Choice,
    checkpoint: str,
    engine: EngineConfig,
    reporter: Reporter,
) -> Subject:
    """The sample of a name.

    Args:
        path: of the dataset or store.
        source: of a plan over the dataset, or None: then a first copy of the frame is drawn.
        name: of the sample; of the frame where there is no plan.
        choice: for the seed and the layout.
        checkpoint: to paint with; empty takes the store's own, or the built-in one.
        engine: device and precision.
        reporter: told when a model is converted.

    Raises:
        UsageError: the sample is an original, or the frame has no valid move.
        CheckpointError: the model is not on this machine.
    """
    if is_store(path):
        subject = _in_store(path, name, checkpoint, engine, reporter)
    else:
        folder = str(resolve_checkpoint(checkpoint or "builtin", reporter.tell))
        subject = _of_source(source or _drawn(path, name, choice, folder), name, folder, engine)
    info = read_info(subject.checkpoint)
    if subject.sample.image.shape[0] != info.image_size:
        raise UsageError(
            f"--checkpoint: {info.name} paints images of {info.image_size} pixels, but {name} has "
            f"{subject.sample.image.shape[0]}; give the model that the sample was planned for."
        )
    return subject


def _in_store(
    path: Path, name: str, checkpoint: str, engine: EngineConfig, reporter: Reporter
) -> Subject:
    with open_store(present_store_path(path)) as store:
        recorded = store.record.checkpoint
        own = recorded.name
        try:
            if not checkpoint and is_path(own):
                raise CheckpointError(f"{path}: names a path as its model.")
            folder = str(resolve_checkpoint(checkpoint or own, reporter.tell))
        except CheckpointError as error:
            if checkpoint:
                raise
            raise UsageError(
                f"--gif: the store was painted by the model {own}, which is not known here under "
                "that name; give its folder with --checkpoint."
            ) from error
        info = read_info(folder)
        if info.sha256 != recorded.sha256:
            reporter.tell(f"note: painted by {info.name}, not by the store's own model")
        return _of_store(store, name, folder, engine)


def _drawn(path: Path, frame_id: str, choice: Choice, checkpoint: str) -> PlannedDataset:
    """A plan of one copy of one frame."""
    dataset = open_chosen(path, choice.dataset, need_labels=False)
    listed = dataset.keys
    keys = [key for key in listed if key.frame_id == frame_id]
    config = AugmentationConfig(copies=1, originals=False, seed=choice.seed, dataset=choice.dataset)
    info = read_info(checkpoint)
    plan = build_plan(dataset, keys, config, (info.image_size, info.resize))
    return PlannedDataset(dataset, keys, plan)


def _of_source(source: PlannedDataset, name: str, checkpoint: str, engine: EngineConfig) -> Subject:
    row = next(row for row in source.plan.rows if name in (row.sample_id, row.frame_id))
    sample = next(source.render([row]))
    if not isinstance(sample, Sample):
        raise UsageError(f"--gif: {name} has no valid move; choose another with --seed.")
    grid = source.plan.grid_of(source.frames[row.frame_id])
    aspect = grid.spacing_mm[1] / grid.spacing_mm[0]
    config, _, _ = load_with_model(AugmentationConfig, {"checkpoint": checkpoint})
    return Subject(
        row.sample_id, sample, aspect, row.seed, config.sampler, checkpoint, engine,
    )  # fmt: skip


def _of_store(store: StoreReader, name: str, checkpoint: str, engine: EngineConfig) -> Subject:
    columns = store.columns
    row = columns["sample_id"].tolist().index(name)
    if store.kind == "generated":
        nothing = np.zeros(store.image_shape, np.uint8)
        sample = Sample(nothing, nothing.astype(np.bool_), nothing, float("nan"))
    elif columns["copy"][row]:
        keep, fan = store.keep[row], store.fan(row)
        whole = fan_mask(columns["sector"][row], columns["aspect"][row], store.image_shape)
        sample = Sample(
            np.where(keep, store.images[row], np.uint8(0)), keep, store.masks[row], float("nan"),
            real=keep & fan, beyond=keep & whole & ~fan,
        )  # fmt: skip
    else:
        raise UsageError(f"--gif: {name} is an original with nothing painted in it; choose a copy.")
    recorded = store.record.sampler
    sampler = _sampler(store.path, recorded.settings)
    precision = recorded.precision if engine.precision == "auto" else engine.precision
    aspect = float(columns["aspect"][row])
    return Subject(
        name, sample, aspect, int(columns["seed"][row]), sampler, checkpoint,
        engine.model_copy(update={"precision": precision}),
    )  # fmt: skip


def _sampler(path: Path, settings: Mapping[str, Any]) -> SamplerConfig:
    try:
        return _SAMPLERS.validate_python(settings)
    except ValidationError as error:
        raise StoreError(f"{path}: this version of echogen does not have its sampler.") from error
