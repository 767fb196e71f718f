"""The plan: every sample that will be made, with its move and seed, before any pixel is painted.

A row's seed is the first 8 bytes of SHA-256 over (root seed, frame id, copy), or over the id of the
sequence that its frame belongs to; its parameters are drawn from that seed alone. So a plan depends
on the files' content and on the settings, never on workers, order or time, and its digest names the
whole run.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
)

from echogen.config import (
    MOST_FACTOR,
    MOST_SHIFT,
    DatasetConfig,
    ImageSide,
    Millimetres,
    Resize,
    TransformConfig,
)
from echogen.errors import PlanError
from echogen.geometry.field import Crop, field_grid
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import IDENTITY, Grid, TransformParams
from echogen.report import Problem
from echogen.support.files import write_whole
from echogen.support.reading import read_json
from echogen.support.settings import Settings, explain, in_words, shown
from echogen.support.words import counted, one_line
from echogen.types import Case

FORMAT = 2
DIGEST_LENGTH = 12
MOST_BYTES = 2**27
"""Of a plan's file: some 280,000 samples; it takes less than 2 GB of memory."""
MOST_PIXELS = 16_384
"""Of a picture, a side."""

T = TypeVar("T")
Several = Annotated[tuple[T, ...], FailFast()]  # a million wrong rows are told once
Whole = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Text = Annotated[str, Field(max_length=1000)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Pixel = Annotated[Whole, Field(le=MOST_PIXELS)]


def _numbers(ranges: dict[str, tuple[float, float]], value: Any) -> Any:
    """Numbers as a file has them, each within its range; what is unknown is left."""
    for name, (low, high) in ranges.items() if isinstance(value, dict) else ():
        number = value.get(name)
        if type(number) not in (int, float) or not low <= number <= high:
            expected = f"a number from {low:g} to {high:g}"
            raise ValueError(f"{name}: expected {expected}, found {shown(number)}")
    return value


def _fan(value: Sector) -> Sector:
    if value.angle_left >= value.angle_right or value.radius_near >= value.radius_far:
        raise ValueError(
            "is not a fan: expected angle_left < angle_right, radius_near < radius_far"
        )
    return value


def _crop(value: Crop) -> Crop:
    if value[0] >= value[2] or value[1] >= value[3]:
        raise ValueError("is empty: expected (row0, col0, row1, col1), row0 < row1 and col0 < col1")
    return value


def _rising(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(before >= after for before, after in pairwise(value)):
        raise ValueError("expected class ids that rise")
    return value


class PlanSettings(Settings):
    """What decided a plan's rows: the run's settings, and how frames come onto the model's grid.

    A row's image is `image_size` pixels high and wide.
    """

    copies: Annotated[Whole, Field(le=65535)]
    seed: Annotated[Whole, Field(lt=2**63)]
    originals: Annotated[bool, Field(strict=True)]
    dataset: DatasetConfig
    transforms: TransformConfig
    image_size: ImageSide
    resize: Resize


class _Source(Settings):
    """What `Plan.dataset` says of the source."""

    format: Text
    root_name: Annotated[Text, Field(pattern=r"^[^/\\]*$")]
    fingerprint: Hash
    licence: str
    labels: dict[Annotated[int, Field(ge=0, le=255)], str]
    fans: Hash | None = None


def _source(value: dict[str, Any]) -> dict[str, Any]:
    try:
        _Source.model_validate(value)
    except ValidationError as error:
        raise ValueError(explain(error, _Source)) from error
    return value


_LENGTH = (-1e9, 1e9)
_ANGLE = (-3.15, 3.15)
_SECTOR = {
    "apex_row": _LENGTH, "apex_col": _LENGTH, "angle_left": _ANGLE, "angle_right": _ANGLE,
    "radius_near": (0.0, 1e9), "radius_far": (0.0, 1e9),
}  # fmt: skip
_FACTOR, _SHIFT = (1 / MOST_FACTOR, MOST_FACTOR), (-MOST_SHIFT, MOST_SHIFT)
_MOVE = {
    "depth": _FACTOR, "tilt_deg": (-180.0, 180.0), "width": _FACTOR, "shift_x": _SHIFT,
    "shift_y": _SHIFT,
}  # fmt: skip


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

    frame_id: Text
    case_id: Text
    view: Text
    phase: Text
    split: Text
    fingerprint: Hash
    crop: Annotated[tuple[_Pixel, _Pixel, _Pixel, _Pixel], AfterValidator(_crop)]
    spacing_mm: tuple[Millimetres, Millimetres] | None
    sector: Annotated[Sector, BeforeValidator(partial(_numbers, _SECTOR)), AfterValidator(_fan)]
    confidence: Share
    stretch: Annotated[float, Field(strict=True, gt=0, le=1e3)]
    cut: Annotated[
        tuple[Annotated[Whole, Field(le=255)], ...], Field(max_length=256), AfterValidator(_rising)
    ]
    digest: Annotated[str, Field(pattern=f"^([0-9a-f]{{{DIGEST_LENGTH}}})?$")] = ""
    sequence: Text = ""

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

    sample_id: Text
    frame_id: Text
    copy: Annotated[Whole, Field(le=65535)]
    seed: Annotated[Whole, Field(lt=2**64)]
    rejected: Annotated[bool, Field(strict=True)]
    tries: Annotated[Whole, Field(le=255)]
    params: Annotated[TransformParams, BeforeValidator(partial(_numbers, _MOVE))]

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

    # holds for the records in it, too
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    settings: PlanSettings
    dataset: Annotated[dict[str, Any], AfterValidator(_source)]
    frames: Annotated[Several[PlannedFrame], Field(min_length=1)]
    rows: Several[Row]
    cases: Several[Case]
    problems: Several[Problem]
    notes: Several[str]

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
    def from_dict(cls, data: Any, source: str = "plan") -> "Plan":
        """Rebuild a plan from `to_dict`.

        Args:
            data: what a file holds.
            source: how messages call it.

        Raises:
            PlanError: another format; something is missing, unknown, of another type or out of
                range; or the rows are not those of the frames.
        """
        if not isinstance(data, dict):
            raise PlanError(f"{source}: expected a plan, found a {type(data).__name__}.")
        if data.get("format") != FORMAT or isinstance(data["format"], bool):
            raise PlanError(
                f"{source}: format: expected {FORMAT}, found {shown(data.get('format'))}; make the "
                "plan again with this version of echogen."
            )
        try:
            plan = _PLAN.validate_python({k: v for k, v in data.items() if k != "format"})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = one_line(".".join(map(str, first["loc"])), 100)
            reason = one_line(in_words(first), 300)
        else:
            where, reason = next(_faults(plan), ("", ""))
        if where:
            raise PlanError(
                f"{source}: {where}: {reason}. It is damaged, or was edited: make it again."
            )
        return plan


def _faults(plan: Plan) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) of what does not go together in a plan."""
    settings, names = plan.settings, [frame.frame_id for frame in plan.frames]
    files = DatasetConfig(fans=settings.dataset.fans, case_salt=settings.dataset.case_salt)
    if files != DatasetConfig():
        yield "settings.dataset", "names a file, which no plan does"
    for number, (before, name) in enumerate(pairwise(names), 1):
        if before >= name:
            yield f"frames.{number}.frame_id", f"{shown(name)} does not come after {shown(before)}"
    cases = [case.case_id for case in plan.cases]
    if len(set(cases)) < len(cases):
        yield "cases", "one comes twice"
    if others := set(cases) - {frame.case_id for frame in plan.frames}:
        yield "cases", f"no frame is of the case {shown(min(others))}"
    copies = range(0 if settings.originals else 1, settings.copies + 1)
    if len(plan.rows) != len(names) * len(copies):
        yield (
            "rows",
            f"expected {len(copies)} for each of {len(names)} frames, found {len(plan.rows)}",
        )
        return
    planned = ((frame, copy) for frame in plan.frames for copy in copies)
    for number, (row, (frame, copy)) in enumerate(zip(plan.rows, planned, strict=True)):
        clip = frame.sequence or frame.frame_id
        values = {
            "frame_id": frame.frame_id,
            "copy": copy,
            "sample_id": f"{frame.frame_id}_copy{copy}",
            "seed": sample_seed(settings.seed, clip, copy),
        }
        for name, value in values.items():
            if (found := getattr(row, name)) != value:
                yield f"rows.{number}.{name}", f"expected {shown(value)}, found {shown(found)}"
        most = settings.transforms.max_tries if copy else 0
        if row.rejected and (not copy or row.tries < most):
            yield (
                f"rows.{number}.rejected",
                f"not of copy {copy} after {counted(row.tries, 'try', 'tries')}",
            )
        if not min(copy, 1) <= row.tries <= most:
            yield f"rows.{number}.tries", f"expected {min(copy, 1)} to {most}, found {row.tries}"
        if not row.to_paint and row.params != IDENTITY:
            yield f"rows.{number}.params", "nothing is made of it, but it is moved"


_PLAN = TypeAdapter(Plan)


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, whole or not at all.

    Raises:
        PlanError: the file cannot be written, or would be too large to be read.
    """
    text = json.dumps(plan.to_dict(), indent=1)
    if len(text) > MOST_BYTES:
        raise PlanError(
            f"--plan {path}: a plan of {len(plan.rows):,} samples would have {len(text):,} bytes, "
            f"expected at most {MOST_BYTES:,}; plan fewer with --cases or --limit, or leave it out."
        )
    try:
        write_whole(path, text)
    except OSError as error:
        raise PlanError(f"--plan {path}: cannot be written ({error.strerror}).") from error


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote.

    Raises:
        PlanError: the file cannot be read or is not a plan; see `Plan.from_dict`.
    """
    name = f"--plan {path}"
    try:
        return Plan.from_dict(read_json(path, PlanError, name, most=MOST_BYTES), name)
    except FileNotFoundError as error:
        raise PlanError(f"{name}: cannot be read ({error.strerror}).") from error


def sample_seed(root_seed: int, clip_id: str, copy: int) -> int:
    """The first 8 bytes, big-endian, of SHA-256 over "root seed/clip id/copy"."""
    name = f"{root_seed}/{clip_id}/{copy}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def _canonical(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
