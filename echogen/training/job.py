"""What is asked of a run, and which of its frames are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.training.checkpoint import ModelFacts
from echogen.training.data import PackedFrames
from echogen.training.options import RunOptions
from echogen.training.recipe import TrainConfig

PICTURES = "pictures"
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """What is asked for: a recipe, its frames, a folder, options, and facts for the card."""

    config: TrainConfig
    packed: PackedFrames
    out: Path
    options: RunOptions
    facts: ModelFacts


@dataclass(frozen=True)
class Split:
    """Rows of the frames that are trained on and those set aside.

    Attributes:
        trained, held_out: (N,) int64.
        held_out_cases: whose frames are set aside, sorted.
    """

    trained: Rows
    held_out: Rows
    held_out_cases: tuple[str, ...]


def split_of(packed: PackedFrames, held_out_cases: Sequence[str]) -> Split:
    """The rows of held-out cases, and all others."""
    aside = set(held_out_cases)
    others = sorted(set(packed.case_ids) - aside)
    return Split(packed.rows_of(others), packed.rows_of(sorted(aside)), tuple(sorted(aside)))
