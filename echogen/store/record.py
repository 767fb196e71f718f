"""What a store's root attribute says of the run that made it, read as one typed record.

Older versions wrote fewer keys and newer ones may write more: what is missing (or null) has a
default, and what is unknown is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from echogen.config import Resize
from echogen.errors import StoreError
from echogen.store.schema import MAKE_AGAIN
from echogen.support.settings import in_words, shown


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, found: Any) -> Any:
        if not isinstance(found, Mapping):
            return found
        return {name: value for name, value in found.items() if value is not None}

    @property
    def recorded(self) -> dict[str, Any]:
        """What the store says, without defaults."""
        return self.model_dump(exclude_unset=True)


class TransformsRecord(_Record):
    """The moves' ranges, of which these decide more than a move."""

    labels_on_paint: str = ""
    outside: str = "background"
    min_label_inside: float | None = None


class FramesRecord(_Record):
    """Which frames of the dataset were taken."""

    frames: str = "key"


class UnitRecord(_Record):
    """The unit of work; 0 where it is not recorded."""

    shard_size: int = 0


class ConfigRecord(_Record):
    """The run's settings, as far as they decide its samples."""

    copies: int = 0
    dataset: FramesRecord = FramesRecord()
    transforms: TransformsRecord = TransformsRecord()
    store: UnitRecord = UnitRecord()


class DatasetRecord(_Record):
    """The dataset that was expanded; `fans` is a digest of those that the user gave."""

    format: str = ""
    root_name: str = ""
    fingerprint: str = ""
    fans: str = ""
    licence: str = ""


class CheckpointRecord(_Record):
    """The model that painted."""

    name: str = ""
    sha256: str = ""
    licence: str = ""


class JudgeRecord(_Record):
    """The judge of what was painted; empty where there was none."""

    name: str = ""
    sha256: str = ""
    licence: str = ""


class SamplerRecord(_Record):
    """How it painted: the sampler's own settings are among the unknown keys."""

    name: str = ""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    nfe: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The sampler's name and settings, as a configuration has them."""
        return {k: v for k, v in self.recorded.items() if k not in ("precision", "nfe", "noise")}


class PaintingRecord(_Record):
    """What decides how the painting was rounded."""

    device: str = ""
    batch_size: int = 0


class GridRecord(_Record):
    """The model's grid."""

    image_size: int
    resize: Resize


class PartRecord(_Record):
    """Of which store a part was exported: its name, and the rows `rows` of `of` that were taken."""

    source: str = Field(default="", alias="from")
    rows: int = 0
    of: int = 0


class StoreRecord(_Record):
    """The root attribute `echogen`."""

    version: str = "?"
    created: str = "?"
    kind: str = "expanded"
    complete: bool = False
    seal: str = ""
    seed: int | None = None
    plan_digest: str = ""
    labels: dict[int, str] = {}
    config: ConfigRecord = ConfigRecord()
    dataset: DatasetRecord = DatasetRecord()
    checkpoint: CheckpointRecord = CheckpointRecord()
    sampler: SamplerRecord = SamplerRecord()
    judge: JudgeRecord = JudgeRecord()
    painting: PaintingRecord | None = None
    grid: GridRecord | None = None
    exported: PartRecord | None = None
    problems_at_planning: int | None = None


def read_record(path: Path, attrs: Mapping[str, Any]) -> StoreRecord:
    """The record that a root attribute holds.

    Args:
        path: of the store, for the message.
        attrs: the root attribute.

    Raises:
        StoreError: a value has another type than echogen writes.
    """
    try:
        return StoreRecord.model_validate(attrs)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"{path}: damaged metadata: {where!r}: {in_words(first)}, got {shown(first['input'])}. "
            + MAKE_AGAIN
        ) from error
