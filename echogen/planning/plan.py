"""The plan: every sample that will be made, with its move and seed, before any pixel is painted.

A row's seed is the first 8 bytes of SHA-256 over (root seed, frame id, copy), or over the id of the
sequence that its frame belongs to; its parameters are drawn from that seed alone. So a plan depends
on the files' content and on the settings, never on workers, order or time, and its digest names the
whole run.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from echogen.config import DatasetConfig, Resize, TransformConfig
from echogen.errors import PlanError
from echogen.geometry.field import Crop, field_grid
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, TransformParams
from echogen.report import Problem
from echogen.support.files import write_whole
from echogen.support.settings import Settings
from echogen.types import Case

FORMAT = 2
DIGEST_LENGTH = 12


class PlanSettings(Settings):
    """What decided a plan's rows: the run's settings, and how frames come onto the model's grid.

    A row's image is `image_size` pixels high and wide.
    """

    copies: int
    seed: int
    originals: bool
    dataset: DatasetConfig
    transforms: TransformConfig
    image_size: int
    resize: Resize


@dataclass(frozen=True)
class PlannedFrame:
    """A frame that can be used, and what was measured of it.

    Attributes:
        frame_id, case_id, view, phase, split: as in `FrameKey`.
        fingerprint: SHA-256 of the frame's files.
        crop: where the frame's field lies in its picture, as in `geometry.field`.
        spacing_mm: (row, col), or None where the dataset gives none.
        sector: of the frame's recording, measured from the crop's corner; in mm, or in pixels
            without a spacing.
        confidence: 0 to 1, how sure the fan is.
        stretch: the factor on the row spacing that would make the fan's far arc round.
        cut: ids of the classes that touch the sector's edge, rising.
        digest: the first 12 hexadecimal digits of `datasets.image_digest`; empty in plans that
            were made before it was recorded.
        sequence: as in `FrameKey`.
    """

    frame_id: str
    case_id: str
    view: str
    phase: str
    split: str
    fingerprint: str
    crop: Crop
    spacing_mm: tuple[float, float] | None
    sector: Sector
    confidence: float
    stretch: float
    cut: tuple[int, ...]
    digest: str = ""
    sequence: str = ""

    @property
    def grid(self) -> Grid:
        """The field's own pixels."""
        row0, col0, row1, col1 = self.crop
        return Grid((row1 - row0, col1 - col0), self.spacing_mm or (1.0, 1.0))


@dataclass(frozen=True)
class Row:
    """One sample to make.

    Attributes:
        sample_id: frame id and copy.
        frame_id: of the source.
        copy: 0 for the original, else from 1.
        seed: of parameters and noise.
        rejected: no valid draw was found in `tries`; nothing is made.
        tries: draws made; 0 for an original.
        params: the accepted move; the identity for originals and rejected rows.
    """

    sample_id: str
    frame_id: str
    copy: int
    seed: int
    rejected: bool
    tries: int
    params: TransformParams

    @property
    def to_paint(self) -> bool:
        """Whether it costs network evaluations: a copy with a move."""
        return self.copy > 0 and not self.rejected


@dataclass(frozen=True)
class Plan:
    """The full, ordered list of samples.

    Attributes:
        settings: everything that decided the rows.
        dataset: format, root name, fingerprint, licence and labels of the source.
        frames: usable frames, sorted by id.
        rows: sorted by frame id, then copy.
        cases: of the usable frames.
        problems: frames that cannot be used, with the reason.
        notes: what a user should know, such as two cases with the same pixels.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # holds for the records in it, too

    settings: PlanSettings
    dataset: dict[str, Any]
    frames: tuple[PlannedFrame, ...]
    rows: tuple[Row, ...]
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of what decides the samples.

        Notes are left out, since some are about the model, and so are the frames' pixel digests,
        which follow from their fingerprints; a frame that stands alone names no sequence.
        """
        deciding = self.to_dict()
        del deciding["notes"]
        for frame in deciding["frames"]:
            del frame["digest"]
            if not frame["sequence"]:
                del frame["sequence"]
        return hashlib.sha256(_canonical(deciding).encode()).hexdigest()

    def grid_of(self, planned: PlannedFrame) -> Grid:
        """The model's grid over a frame's fan."""
        settings = self.settings
        return field_grid(planned.sector, planned.grid, settings.image_size, settings.resize)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; `from_dict` is the inverse."""
        unrecorded = {"settings": {"dataset": self.settings.dataset.unrecorded}}
        return {"format": FORMAT, **_PLAN.dump_python(self, mode="json", exclude=unrecorded)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Plan":
        """Rebuild a plan from `to_dict`.

        Raises:
            PlanError: another format, or something is missing, unknown or of another type.
        """
        if data.get("format") != FORMAT:
            raise PlanError(
                f"plan format: expected {FORMAT}, found {data.get('format')!r}; "
                "make the plan again with this version of echogen."
            )
        try:
            return _PLAN.validate_python({k: v for k, v in data.items() if k != "format"})
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise PlanError(f"plan: damaged or incomplete ({reason}); make it again.") from error


_PLAN = TypeAdapter(Plan)


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, whole or not at all.

    Raises:
        PlanError: the file cannot be written.
    """
    try:
        write_whole(path, json.dumps(plan.to_dict(), indent=1))
    except OSError as error:
        raise PlanError(f"--plan {path}: cannot be written ({error.strerror}).") from error


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote.

    Raises:
        PlanError: the file cannot be read or is not a plan.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise PlanError(f"{path}: expected a plan in JSON, found something else.") from error
    if not isinstance(data, dict):
        raise PlanError(f"{path}: expected a plan in JSON, found something else.")
    return Plan.from_dict(data)


def sample_seed(root_seed: int, clip_id: str, copy: int) -> int:
    """The first 8 bytes, big-endian, of SHA-256 over "root seed/clip id/copy"."""
    name = f"{root_seed}/{clip_id}/{copy}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def _canonical(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
