"""Packed frames: every frame of a dataset on the model's grid, in one `.npz` file.

Arrays: `frames` (N, S, S) uint8, `case_ids` (N,) str, and if known `frame_ids` (N,) str. Cases are
set aside as a whole, so that held-out loss is measured on patients that the model never saw.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from echogen.errors import DatasetError, UsageError


@dataclass(frozen=True)
class PackedFrames:
    """Frames in memory.

    Attributes:
        frames: (N, S, S) uint8.
        case_ids: whose frame each is, length N.
        frame_ids: what each frame is called, length N.
    """

    frames: npt.NDArray[np.uint8]
    case_ids: tuple[str, ...]
    frame_ids: tuple[str, ...]

    def of_cases(self, cases: Sequence[str]) -> npt.NDArray[np.uint8]:
        """The frames of these cases, in their order here."""
        wanted = set(cases)
        return self.frames[[case in wanted for case in self.case_ids]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over ids and pixels."""
        digest = hashlib.sha256("\n".join(self.frame_ids).encode())
        digest.update(np.ascontiguousarray(self.frames).tobytes())
        return digest.hexdigest()


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
