"""Frames on the model's grid, as training reads them: a folder, or that folder packed as a .zip.

`frames.npy` (N, S, S) uint8 is read through a memory map, or from a .zip into memory;
`frames.json` says what each frame is, where its fan lies and where it came from. `echogen train`
makes both (see `frame_folder`); reading them needs neither the dataset nor a library for its files.
Cases are set aside as a whole, so that held-out loss is measured on patients that the model never
saw.
"""

import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import FailFast, Field, ValidationError, model_validator

from echogen.config import ImageSide, Resize
from echogen.errors import DatasetError, UsageError
from echogen.report import Problem
from echogen.support.files import write_whole
from echogen.support.reading import open_regular, parse_json, read_json, reason
from echogen.support.settings import Settings, explain

PIXELS_FILE, RECORD_FILE = "frames.npy", "frames.json"
MOST_KEYS = 2**20
MOST_BYTES = 2**27
"""Of the record: some 300,000 frames."""
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    RuntimeError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What a folder or a .zip that holds no prepared frames raises."""
DIGEST_LENGTH = 12
HASHED_TOGETHER = 256

FAN_COLUMNS = (
    "apex_row", "apex_col", "angle_left", "angle_right", "radius_near", "radius_far",
    "aspect", "seen_row0", "seen_col0", "seen_row1", "seen_col1",
)  # fmt: skip
"""A frame's fan on the model's grid: `sector` of `geometry.transforms.sector_on_grid` (pixels, rows
and radians), the aspect of a displayed pixel, and the part of the grid that the source's picture
covers (`geometry.field.seen_on`).
"""

FanNumbers = Annotated[
    tuple[Annotated[float, Field(ge=-1e9, le=1e9)], ...], Field(min_length=11, max_length=11)
]
"""One number for each of `FAN_COLUMNS`."""

T = TypeVar("T")
Several = Annotated[tuple[T, ...], FailFast()]
Rows = npt.NDArray[np.int64]
"""Indices into all frames."""


class ModelGrid(Settings, extra="ignore"):
    """The model's image size, and how frames are resized to it."""

    image_size: ImageSide
    resize: Resize


class FrameOrigin(Settings, extra="ignore"):
    """The dataset that frames were prepared from, and its terms where they are known."""

    format: str = ""
    root_name: str = ""
    licence: str = ""
    citation: str = ""


class FrameRecord(Settings, extra="ignore"):
    """`frames.json`: what the pixels are, N frames in their order.

    Attributes:
        format: 1 of whole pictures and 2 without their fans, as earlier versions prepared them.
        grid: of the model.
        source: of the frames.
        listing: SHA-256 over names, sizes and times of the dataset's files.
        fingerprint: SHA-256 over ids, fans and pixels, see `frames_fingerprint`.
        notes: what a user should know, one line each.
        problems: frames that cannot be used, each with the reason.
        files: {frame id: fingerprint of its files}, also of frames that cannot be used.
        frame_ids, case_ids: what each frame is called, and whose it is.
        splits: of each frame as the dataset says, "" where it does not.
        digests: the first 12 hexadecimal digits of each source frame's `datasets.image_digest` at
            native resolution.
        fans: of each frame, its `FAN_COLUMNS`, whole float32 numbers.
    """

    format: Literal[1, 2, 3] = 3
    grid: ModelGrid
    source: FrameOrigin = FrameOrigin()
    listing: str = ""
    fingerprint: str
    notes: Several[str] = ()
    problems: Several[tuple[str, str]] = ()
    files: dict[str, str] = Field(default_factory=dict)
    frame_ids: Several[str]
    case_ids: Several[str]
    splits: Several[str]
    digests: Several[str]
    fans: Several[FanNumbers] = ()

    @model_validator(mode="after")
    def _with_their_fans(self) -> Self:
        for name in ("case_ids", "splits", "digests"):
            if (found := len(getattr(self, name))) != len(self.frame_ids):
                raise ValueError(f"{name}: expected {len(self.frame_ids)}, got {found}")
        if not self.is_current:
            return self
        if len(self.fans) != len(self.frame_ids):
            raise ValueError(f"fans: expected {len(self.frame_ids)}, got {len(self.fans)}")
        fans, side = np.array(self.fans, np.float32).reshape(-1, 11).T, self.grid.image_size
        left, right, near, far, aspect, row0, col0, row1, col1 = fans[2:]
        fitting = (left < right) & (right - left <= 2 * np.pi) & (aspect > 0)
        fitting &= (near >= 0) & (near < far)
        fitting &= (row0 >= 0) & (row0 < row1) & (row1 <= side)
        fitting &= (col0 >= 0) & (col0 < col1) & (col1 <= side)
        if not fitting.all():
            row = int(np.argmin(fitting))
            raise ValueError(f"fans: of {self.frame_ids[row]}: is none, got {self.fans[row]}")
        return self

    @property
    def is_current(self) -> bool:
        """Whether this version of echogen prepared them so."""
        return bool(self.format == type(self).model_fields["format"].default)


@dataclass(frozen=True)
class PreparedFrames:
    """Frames on the model's grid, and their record.

    Attributes:
        pixels: (N, S, S) uint8, in memory or a read-only memory map.
        record: of them.
    """

    pixels: npt.NDArray[np.uint8]
    record: FrameRecord

    @property
    def fans(self) -> npt.NDArray[np.float32]:
        """(N, 11) `FAN_COLUMNS` of each frame."""
        return np.array(self.record.fans, np.float32).reshape(-1, len(FAN_COLUMNS))

    @property
    def cases(self) -> list[str]:
        """All cases, sorted."""
        return sorted(set(self.record.case_ids))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Frames that cannot be used."""
        return tuple(Problem(*problem) for problem in self.record.problems)

    def rows_of(self, cases: Sequence[str]) -> Rows:
        """Where the frames of these cases lie, ascending; no pixel is read."""
        wanted = set(cases)
        return np.flatnonzero([case in wanted for case in self.record.case_ids]).astype(np.int64)


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


def split_of(frames: PreparedFrames, held_out_cases: Sequence[str]) -> Split:
    """The rows of held-out cases, and all others."""
    aside = set(held_out_cases)
    others = [case for case in frames.cases if case not in aside]
    return Split(frames.rows_of(others), frames.rows_of(held_out_cases), tuple(sorted(aside)))


def hold_out(case_ids: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` cases to set aside, sorted: those whose SHA-256 of "seed:case" comes first.

    A case's rank depends on its id alone, so adding cases moves few others across.

    Raises:
        UsageError: fewer than one case would be left to train on.
    """
    cases = sorted(set(case_ids))
    if not 0 <= count < len(cases):
        raise UsageError(
            f"--hold-out {count}: expected 0 to {len(cases) - 1}, because there are {len(cases)} "
            "cases and one must be left to train on."
        )
    ranked = sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).digest())
    return tuple(sorted(ranked[:count]))


def frames_fingerprint(
    frame_ids: Sequence[str], fans: Sequence[Sequence[float]], pixels: npt.NDArray[np.uint8]
) -> str:
    """SHA-256 over the ids, one a line, the fans as little-endian float32, and (N, S, S) pixels,
    read a few frames at a time.
    """
    digest = hashlib.sha256("\n".join(frame_ids).encode())
    digest.update(np.array(fans, "<f4").tobytes())
    for start in range(0, len(pixels), HASHED_TOGETHER):
        digest.update(np.ascontiguousarray(pixels[start : start + HASHED_TOGETHER]).data)
    return digest.hexdigest()


def read_frames(place: Path) -> PreparedFrames:
    """The frames of a folder or a .zip, their pixels compared with their fingerprint.

    Raises:
        DatasetError: a file is missing, damaged, or does not fit the other, or an earlier version
            of echogen prepared them.
    """
    try:
        record = read_record(place)
        if not record.is_current:
            raise DatasetError(
                f"{place}: prepared by an earlier version of echogen, without the fans that holes "
                "are drawn from; prepare the frames again from the dataset: echogen train --in "
                "DATASET --out RUN --pack FRAMES.zip"
            )
        pixels = _read_pixels(place, (len(record.frame_ids), *[record.grid.image_size] * 2))
    except UNREADABLE as error:
        why = explain(error, FrameRecord) if isinstance(error, ValidationError) else reason(error)
        raise DatasetError(
            f"{place}: not prepared frames, or damaged ({why}); expected a folder with "
            f"{PIXELS_FILE} and {RECORD_FILE}, or one packed by `echogen train --pack`."
        ) from error
    if record.fingerprint != frames_fingerprint(record.frame_ids, record.fans, pixels):
        raise DatasetError(
            f"{place}: pixels or fans are not the ones that were prepared; prepare the frames "
            "again."
        )
    return PreparedFrames(pixels, record)


def read_record(place: Path) -> FrameRecord:
    """`frames.json` of a folder or a .zip.

    Raises:
        OSError, ValueError, or another of `UNREADABLE`: it is missing or damaged.
    """
    if not place.is_file():
        file = place / RECORD_FILE
        found = read_json(file, DatasetError, RECORD_FILE, most=MOST_BYTES, keys=MOST_KEYS)
        return FrameRecord.model_validate(found)
    with zipfile.ZipFile(place) as packed, packed.open(RECORD_FILE) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DatasetError(f"{RECORD_FILE}: expected at most {MOST_BYTES:,} bytes.")
    found = parse_json(content.decode(), DatasetError, RECORD_FILE, keys=MOST_KEYS)
    return FrameRecord.model_validate(found)


def pack_frames(folder: Path, file: Path) -> None:
    """Write a folder's frames as one .zip.

    Raises:
        OSError: it cannot be written.
    """

    def write(place: Path) -> None:
        with zipfile.ZipFile(place, "w", zipfile.ZIP_BZIP2) as packed:  # a quarter below deflate
            for name in (RECORD_FILE, PIXELS_FILE):
                packed.write(folder / name, name)

    write_whole(file, write)


def _read_pixels(place: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Pixels of this shape; the file's own word for it is compared before anything is read."""
    packed = place.is_file()
    with (
        zipfile.Path(place, PIXELS_FILE).open("rb") if packed else open_regular(place / PIXELS_FILE)
    ) as stream:
        np.lib.format.read_magic(stream)
        stored, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype != np.uint8 or stored != shape:
            raise ValueError(
                f"{PIXELS_FILE} is {dtype} {stored}, but {RECORD_FILE} says uint8 {shape}"
            )
        if not packed:
            return np.memmap(place / PIXELS_FILE, np.uint8, "r", stream.tell(), shape)
        return np.frombuffer(stream.read(math.prod(shape)), np.uint8).reshape(shape)
