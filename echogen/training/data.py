"""Packed frames: every frame of a dataset on the model's grid, in a folder or one `.npz` file.

A folder holds `frames.npy` (N, S, S) uint8, read through a memory map, and `frames.json` with the
rest of `PackedFrames`; `echogen.training.frames` makes it. An `.npz` has `frames`, `case_ids` (N,)
str and, if known, `frame_ids` (N,) str. Cases are set aside as a whole, so that held-out loss is
measured on patients that the model never saw.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.errors import DatasetError, UsageError

PIXELS_FILE, RECORD_FILE = "frames.npy", "frames.json"
FORMAT = 1
DIGEST_LENGTH = 12
HASHED_TOGETHER = 256


@dataclass(frozen=True)
class PackedFrames:
    """Frames on the model's grid.

    Attributes:
        frames: (N, S, S) uint8, in memory or a read-only memory map.
        case_ids: whose frame each is, length N.
        frame_ids: what each frame is called, length N.
        digests: the first 12 hexadecimal digits of each source frame's `datasets.image_digest` at
            native resolution, length N; empty where they are not known.
    """

    frames: npt.NDArray[np.uint8]
    case_ids: tuple[str, ...]
    frame_ids: tuple[str, ...]
    digests: tuple[str, ...] = ()

    def rows_of(self, cases: Sequence[str]) -> npt.NDArray[np.int64]:
        """Where the frames of these cases lie, ascending; no pixel is read."""
        wanted = set(cases)
        return np.flatnonzero([case in wanted for case in self.case_ids]).astype(np.int64)

    def of_cases(self, cases: Sequence[str]) -> npt.NDArray[np.uint8]:
        """A copy of the frames of these cases, in their order here."""
        return self.frames[self.rows_of(cases)]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids and pixels, read a few frames at a time."""
        return frames_fingerprint(self.frame_ids, self.frames)


def frames_fingerprint(frame_ids: Sequence[str], frames: npt.NDArray[np.uint8]) -> str:
    """SHA-256 over the ids, one a line, and then the pixels of (N, S, S) uint8."""
    digest = hashlib.sha256("\n".join(frame_ids).encode())
    for start in range(0, len(frames), HASHED_TOGETHER):
        digest.update(np.ascontiguousarray(frames[start : start + HASHED_TOGETHER]).data)
    return digest.hexdigest()


def open_frames(folder: Path) -> PackedFrames:
    """The frames of a folder that `echogen.training.frames` made, through a read-only memory map.

    Raises:
        DatasetError: a file is missing, damaged, or does not fit the other.
    """
    file = folder / PIXELS_FILE
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        frames = np.load(file, mmap_mode="r", allow_pickle=False)
        packed = PackedFrames(
            frames,
            tuple(record["case_ids"]),
            tuple(record["frame_ids"]),
            tuple(record["digests"]),
        )
        side = record["grid"]["image_size"]
        shape = (len(packed.frame_ids), side, side)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder}: not prepared frames, or damaged ({error}); remove it, and it is made again."
        ) from error
    if record.get("format") != FORMAT or frames.dtype != np.uint8 or frames.shape != shape:
        raise DatasetError(
            f"{file}: {frames.dtype} {frames.shape}, but {RECORD_FILE} tells of {shape[0]} frames "
            f"of {side} x {side}; remove the folder, and it is made again."
        )
    if not len(packed.case_ids) == len(packed.digests) == len(packed.frame_ids) > 0:
        raise DatasetError(
            f"{folder / RECORD_FILE}: ids and digests of different number, or none; remove the "
            "folder, and it is made again."
        )
    return packed


def save_packed(file: Path, packed: PackedFrames) -> None:
    """Writes frames for `load_packed`."""
    np.savez(
        file,
        frames=packed.frames,
        case_ids=np.array(packed.case_ids),
        frame_ids=np.array(packed.frame_ids),
    )


def load_packed(file: Path, image_size: int) -> PackedFrames:
    """Frames from an `.npz` file.

    Raises:
        DatasetError: the file cannot be read, or its arrays are not as the module says.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            frames, case_ids = arrays["frames"], arrays["case_ids"]
            names = arrays["frame_ids"] if "frame_ids" in arrays else np.arange(len(frames))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{file}: not packed frames ({error}); expected an .npz with 'frames' and 'case_ids'."
        ) from error
    side = image_size
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (side, side):
        raise DatasetError(
            f"{file}: 'frames' is {frames.dtype} {frames.shape}, expected uint8 (N, {side}, "
            f"{side}); pack the frames on the model's grid."
        )
    if not len(frames) or len(case_ids) != len(frames) or len(names) != len(frames):
        raise DatasetError(
            f"{file}: {len(frames)} frames, {len(case_ids)} case ids and {len(names)} frame ids; "
            "expected as many of each, and at least one."
        )
    return PackedFrames(frames, tuple(map(str, case_ids)), tuple(map(str, names)))


def hold_out(case_ids: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` cases to set aside, sorted: those whose SHA-256 of "seed:case" comes first.

    A case's rank depends on its id alone, so adding cases moves few others across.

    Raises:
        UsageError: fewer than one case would be left to train on.
    """
    cases = sorted(set(case_ids))
    if not 0 <= count < len(cases):
        raise UsageError(
            f"--hold-out {count}: expected 0 to {len(cases) - 1}, since there are {len(cases)} "
            "cases and one must be left to train on."
        )
    ranked = sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).digest())
    return tuple(sorted(ranked[:count]))
