"""A dataset's images on the model's grid, one recording after the other.

Each image is resampled once, from native resolution, as `expand` does it for originals: its field,
black outside of the fan. A picture in which no fan is found is left out.
"""

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from echogen.datasets import Dataset, image_digest
from echogen.datasets.recordings import Recording, each_recording
from echogen.errors import DatasetError
from echogen.geometry.field import field_grid, field_of, seen_on
from echogen.geometry.render import frame_grid, warp_image
from echogen.geometry.transforms import sector_on_grid
from echogen.report import Problem, Reporter
from echogen.support.words import counted
from echogen.training.frames import DIGEST_LENGTH, ModelGrid
from echogen.types import FrameKey, UInt8Grid

STAGE = "preparing frames"


@dataclass(frozen=True)
class _Row:
    """A frame that can be used."""

    frame_id: str
    case_id: str
    split: str
    digest: str
    fan: tuple[float, ...]


@dataclass(frozen=True)
class _Outcome:
    """Of one recording: rows with their images, and {frame id: fingerprint} of all its keys."""

    rows: list[_Row]
    images: list[UInt8Grid]
    problems: list[Problem]
    files: dict[str, str]


class FramePass:
    """One pass over a dataset's frames, and what is known of them after `images`."""

    def __init__(
        self, dataset: Dataset, keys: Sequence[FrameKey], grid: ModelGrid, on_error: str
    ) -> None:
        self.dataset, self.keys, self.grid, self.on_error = dataset, keys, grid, on_error
        self.rows: list[_Row] = []
        self.problems: list[Problem] = []
        self.files: dict[str, str] = {}

    def images(self, workers: int, reporter: Reporter) -> Generator[UInt8Grid, None, None]:
        """(S, S) of every frame that can be used, in order of recording and frame id."""
        recordings = each_recording(
            _prepare_recording,
            self.dataset,
            self.keys,
            (self.dataset, self.grid),
            workers=workers,
            progress=lambda done, total: reporter.progress(STAGE, done, total),
        )
        with closing(recordings) as outcomes:
            for outcome in outcomes:
                if outcome.problems and self.on_error == "fail":
                    raise DatasetError(f"{outcome.problems[0].reason} (--on-error fail)")
                self.rows += outcome.rows
                self.problems += outcome.problems
                self.files |= outcome.files
                yield from outcome.images
        if not self.rows:
            raise DatasetError(
                f"{self.dataset.provenance.root_name}: none of the {len(self.keys)} frames found "
                f"can be used. The first reason: {self.problems[0].reason}"
            )

    def notes(self) -> Iterator[str]:
        """What a user should know of these frames, one line each."""
        by_pixels = defaultdict(list)
        for row in self.rows:
            by_pixels[row.digest].append(row)
        twins = [group for group in by_pixels.values() if len({row.case_id for row in group}) > 1]
        if twins:
            names = " and ".join(row.frame_id for row in twins[0][:2])
            yield (
                f"{counted(len(twins), 'image')} under more than one case, such as {names}: "
                "one may be held out and the other trained on."
            )


def _prepare_recording(recording: Recording, dataset: Dataset, grid: ModelGrid) -> _Outcome:
    files = {key.frame_id: files_fingerprint(dataset, key) for key in recording.keys}
    outcome = _Outcome([], [], list(recording.problems), files)
    for fitted in sorted(recording.frames, key=lambda fitted: fitted.frame.key.frame_id):
        key = fitted.frame.key
        digest = image_digest(fitted.frame.image)[:DIGEST_LENGTH]
        if fitted.sector is None:  # kept whole, it would show what is written beside the fan
            reason = f"{key.file_names[0]}: {fitted.reason}; a fan can be given by --fans."
            outcome.problems.append(Problem(key.frame_id, reason))
            continue
        field = field_of(fitted.frame, fitted.sector)
        source = frame_grid(field.frame)
        target = field_grid(field.sector, source, grid.image_size, grid.resize)
        sector, aspect = sector_on_grid(field.sector, target)
        fan = np.array([*sector, aspect, *seen_on(target, source)], np.float32)
        numbers = tuple(map(float, fan))
        outcome.rows.append(_Row(key.frame_id, key.case_id, key.split, digest, numbers))
        outcome.images.append(warp_image(field.frame.image, source, np.eye(3), target))
    return outcome


def files_fingerprint(dataset: Dataset, key: FrameKey) -> str:
    """SHA-256 of a frame's files, and of its fan where the user gave one; empty where a file cannot
    be read, which is a problem already.
    """
    try:
        files = dataset.fingerprint(key)
    except DatasetError:
        return ""
    given = dataset.fans.get(key.frame_id)
    return hashlib.sha256(f"{files}\n{given.values}".encode()).hexdigest() if given else files
