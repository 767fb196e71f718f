"""What the functions of the commands take as keywords: the names of their flags."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from echogen.support.settings import Settings

Table = Mapping[str, Any] | Settings


class DatasetKeywords(TypedDict, total=False):
    """What may be said of a dataset's frames as keywords; see `DatasetConfig`."""

    format: str
    views: str | Sequence[str]
    phases: str | Sequence[str]
    split: str
    cases: str | Sequence[str]
    frames: str


class EngineKeywords(TypedDict, total=False):
    """What may be said of painting as keywords; see `EngineConfig`."""

    checkpoint: str | Path
    sampler: str | Table
    device: str
    precision: str
    batch_size: int
    compile: str
    engine: Table
    store: Table


class AugmentationKeywords(DatasetKeywords, EngineKeywords, total=False):
    """What may be said of an augmented dataset as keywords; see `ExpandConfig`."""

    input: str | Path
    output: str | Path
    copies: int
    seed: int
    originals: bool
    on_error: str
    limit: int | None
    labels_on_paint: str
    workers: int
    dataset: Table
    transforms: Table


class SampleKeywords(EngineKeywords, total=False):
    """What may be said of generated images as keywords; see `SampleConfig`."""

    output: str | Path
    n: int
    seed: int
    background: str
    steps: int
