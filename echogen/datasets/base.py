"""The dataset that every reader lists, and the selection of frames.

It is plain data, made from file names and small text files alone, so it is cheap to make and can
be sent to worker processes. Pixels are read and checked one frame at a time.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.config import DatasetConfig, Flip
from echogen.datasets.selection import fits, present
from echogen.errors import DatasetError, UsageError
from echogen.report import Problem
from echogen.support.files import stamp
from echogen.support.reading import open_regular, reason
from echogen.support.words import counted, is_plain, printable
from echogen.types import CAMUS_LABELS, IGNORE, Case, Frame, FrameKey, Provenance

if TYPE_CHECKING:
    from echogen.datasets.fan_table import GivenFan

UInt8Clip = npt.NDArray[np.uint8]
"""(N, H, W) grey levels: the images of a recording in order of time."""
AS_FOUND = DatasetConfig()
"""No settings: files are read as they are."""
FRAME_NAME = re.compile(
    r"(?P<case>.+)_(?P<view>[A-Za-z0-9]+)_(?P<phase>ED|ES)(?P<label>_gt)?", re.DOTALL
)
"""`patient0001_4CH_ED`, and `patient0001_4CH_ED_gt` for its label: CAMUS' file names."""
LONGEST_ID = 255
"""Characters of a name that a table gives, as of a file's."""
LONGEST_REASON = 1000
UNNAMEABLE = "its name is not valid UTF-8, or has control characters; rename it."
BLOCK = 2**20
MOST_BYTES = 2**33  # of any file of a dataset; one may claim a terabyte of zeros
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Dataset:
    """Frames in a folder, listed by key and read one at a time; can be pickled.

    Attributes:
        root: the folder; messages name files relative to it.
        provenance: where it comes from.
        title: the first words of `describe`, such as `camus layout (NIfTI)`.
        keys: of every frame that has an image and, unless labels are not needed, a label; sorted by
            frame id.
        cases: what is known of each, sorted by case id.
        unusable: frames that cannot be read, each with one line of reason.
        notes: what a user should know that costs no frame, one line each.
        read_frame: (root, key, labels) -> Frame; a module's function, so that it can be pickled.
        read_clip: (root, key) -> (N, H, W) uint8, every image of the recording that the frame is
            from, or None where there is only one; a module's function. None where files hold no
            more than their frames.
        fans: {frame id: its fan} where the user gave one; it is not fitted then.
        flip: how what is read is turned.
        reading: the settings that decide pixels, as text; part of every fingerprint.
        said: what settings changed, for `describe`.
    """

    root: Path
    provenance: Provenance
    title: str
    keys: tuple[FrameKey, ...]
    cases: tuple[Case, ...]
    unusable: tuple[tuple[FrameKey, str], ...]
    notes: tuple[str, ...]
    read_frame: Callable[[Path, FrameKey, Mapping[int, str]], Frame]
    read_clip: Callable[[Path, FrameKey], UInt8Clip | None] | None = None
    fans: Mapping[str, "GivenFan"] = field(default_factory=dict)
    flip: Flip = "none"
    reading: str = ""
    said: tuple[str, ...] = ()

    def read(self, key: FrameKey) -> Frame:
        """One checked frame, (H, W) uint8 image and label.

        Raises:
            DatasetError: one line with the file, relative to the root, and the reason.
        """
        frame = self.read_frame(self.root, key, self.provenance.labels)
        image, label = (_turned(pixels, self.flip) for pixels in (frame.image, frame.label))
        spacing = frame.spacing_mm if key.spacing_mm is None else key.spacing_mm
        return replace(frame, image=image, label=label, spacing_mm=spacing)

    def clip(self, key: FrameKey) -> npt.NDArray[np.uint8] | None:
        """(N, H, W) every image of the recording that a frame is from; None where there are none.

        Raises:
            DatasetError: one line with the file and the reason.
        """
        clip = None if self.read_clip is None else self.read_clip(self.root, key)
        return None if clip is None else _turned(clip, self.flip)

    def problems(self, config: DatasetConfig | None = None) -> tuple[Problem, ...]:
        """Frames that listing found unusable; with `config`, only those that it would select."""
        chosen = [
            (key, reason) for key, reason in self.unusable if config is None or fits(key, config)
        ]
        return tuple(Problem(key.frame_id, reason) for key, reason in chosen)

    def fingerprint(self, key: FrameKey) -> str:
        """SHA-256 of the frame's files and of all else that decides its pixels, labels and spacing;
        of a sequence, read once.
        """
        try:
            files = (
                fingerprint_files(self.root, key.paths)
                if key.index is None
                else _fingerprint_sequence(self.root, key.paths, tuple(map(stamp, key.paths)))
            )
        except (DatasetError, OSError):
            if key.private:
                raise DatasetError(f"{key.frame_id}: its files cannot be read.") from None
            raise
        added = self.beside_files(key)
        return hashlib.sha256(f"{files}\n{added}".encode()).hexdigest() if added else files

    def beside_files(self, key: FrameKey) -> str:
        """What decides a frame beside its files: its detail, the spacing given, settings."""
        spacing = "" if key.spacing_mm is None else f" {key.spacing_mm} mm"
        return f"{key.detail}{spacing}" + (f" {self.reading}" if self.reading else "")

    def describe(self) -> str:
        """What was found, in one line."""
        cases = len({key.case_id for key in self.keys})
        parts = [f"{self.title}: {counted(len(self.keys), 'frame')} of {counted(cases, 'case')}"]
        for name in ("view", "phase", "split"):
            values = present(self.keys, name)
            if values:
                parts.append(f"{name if len(values) == 1 else name + 's'} {' '.join(values)}")
        if self.provenance.extra.get("spacing") == "unknown":
            parts.append("spacing unknown")
        if self.fans:
            parts.append(f"fans given for {counted(len(self.fans), 'frame')}")
        parts += self.said
        if self.unusable:
            parts.append(f"{counted(len(self.unusable), 'frame')} unusable")
        return ", ".join(parts)


def _turned(pixels: npt.NDArray[np.uint8], flip: Flip) -> npt.NDArray[np.uint8]:
    """(..., H, W), flipped."""
    if flip == "none":
        return pixels
    axes = {"rows": (-2,), "cols": (-1,), "both": (-2, -1)}[flip]
    return np.ascontiguousarray(np.flip(pixels, axes))


def list_dataset(
    root: Path,
    format: str,
    title: str,
    frames: Iterable[FrameKey],
    read_frame: Callable[[Path, FrameKey, Mapping[int, str]], Frame],
    *,
    labels: Mapping[int, str],
    cases: Iterable[Case] | None = None,
    unusable: Iterable[tuple[FrameKey, str]] = (),
    remarks: Iterable[str] = (),
    licence: str = "",
    extra: Mapping[str, Any],
    read_clip: Callable[[Path, FrameKey], UInt8Clip | None] | None = None,
    root_name: str | None = None,
) -> Dataset:
    """A reader's frames in order; without `cases`, those of its frames, of which nothing is known.

    A frame with a name that no store or table can hold, such as a file's that is not UTF-8, cannot
    be used.

    Args:
        root, title, read_frame, read_clip: see `Dataset`.
        format: the layout's name, such as `camus`.
        frames: those that can be used, in any order.
        labels: {class id: name}, see `resolve_labels`.
        cases: sorted by case id.
        unusable: the other frames, each with one line of reason.
        remarks: the notes.
        licence: of the data, as far as it is known.
        extra: see `Provenance`.
        root_name: what a store calls the folder; None takes its name.
    """
    found = sorted(frames, key=lambda key: key.frame_id)
    frames = tuple(key for key in found if _is_named(root, key))
    lost = list(unusable)
    lost += [
        (key, f"{relative(root, key.paths[0])}: {UNNAMEABLE}")
        for key in found
        if not _is_named(root, key)
    ]
    if cases is None:
        cases = (Case(case_id, {}) for case_id in present(frames, "case_id"))
    return Dataset(
        root=root,
        provenance=Provenance(
            format=format,
            root_name=root.resolve().name if root_name is None else root_name,
            licence=licence,
            labels=labels,
            extra=extra,
        ),
        title=title,
        keys=frames,
        cases=tuple(case for case in cases if is_plain(case.case_id)),
        unusable=tuple(sorted(map(_shown, lost), key=lambda pair: pair[0].frame_id)),
        notes=tuple(printable(remark[:LONGEST_REASON]) for remark in remarks),
        read_frame=read_frame,
        read_clip=read_clip,
    )


def _is_named(root: Path, key: FrameKey) -> bool:
    """Whether all that names a frame can be written; of private files, no name is."""
    files = () if key.private else (_inside(root, path) for path in key.paths)
    names = (key.frame_id, key.case_id, key.view, key.phase, key.split, key.recording, *files)
    return all(map(is_plain, names))


def _shown(lost: tuple[FrameKey, str]) -> tuple[FrameKey, str]:
    """A frame that cannot be used, as messages show it."""
    key, why = lost
    names: dict[str, Any] = {
        name: printable(getattr(key, name)[:LONGEST_ID])
        for name in ("frame_id", "case_id", "view", "phase", "split", "recording", "sequence")
    }
    return replace(key, **names), printable(why[:LONGEST_REASON])


def key_by_name(stem: str, split: str, paths: tuple[Path, ...]) -> FrameKey:
    """The key of a file: its case, view and phase by `FRAME_NAME`, else a case of its own."""
    named = FRAME_NAME.fullmatch(stem)
    if named is None or named["label"]:
        return FrameKey(stem, stem, "", "", split, paths)
    return FrameKey(stem, named["case"], named["view"], named["phase"], split, paths)


def list_pairs(
    root: Path,
    images: Mapping[str, Path],
    labels: Mapping[str, Path] | None,
    expected: tuple[str, str],
    key_of: Callable[[str, tuple[Path, ...]], FrameKey],
) -> tuple[list[FrameKey], list[tuple[FrameKey, str]]]:
    """The frames of images with labels, and of files without their partner, with the reason.

    Args:
        root: messages name files relative to it.
        images: {stem: path}.
        labels: {stem: path}; None where an image needs none.
        expected: where an image and a label lie, {} in place of the stem.
        key_of: (stem, paths) -> the frame's key.
    """
    frames: list[FrameKey] = []
    unusable: list[tuple[FrameKey, str]] = []
    for stem in sorted({*images, *(labels or ())}):
        sides = images.get(stem), None if labels is None else labels.get(stem)
        paths = tuple(path for path in sides if path is not None)
        key, lacking = key_of(stem, paths), ""
        if sides[0] is None:
            lacking = f"no image, expected {expected[0].format(stem)}."
        elif sides[1] is None and labels is not None:
            lacking = f"no label, expected {expected[1].format(stem)}."
        if lacking:
            unusable.append((key, f"{relative(root, paths[0])}: {lacking}"))
        else:
            frames.append(key)
    return frames, unusable


def require_installed(root: Path, module: str, name: str, holds: str, extra: str) -> None:
    """Refuse a dataset that nothing here can read.

    Args:
        root: of the dataset.
        module, name: of the package that reads it, as it is imported and as people call it.
        holds: what it reads, such as `videos`.
        extra: of echogen, which brings the package.

    Raises:
        DatasetError: the package is not installed.
    """
    if find_spec(module) is None:
        raise DatasetError(
            f"{root}: contains {holds}, but {name}, which reads them, is not installed; pip "
            f"install 'echogen[{extra}]'"
        )


def as_number(text: str) -> float | None:
    """A finite number of at most 64 decimal digits and signs, or None."""
    text = text.strip()
    value = float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def is_id(text: str) -> bool:
    """Whether a table's cell can be a name that stores, tables and messages hold."""
    return len(text) <= LONGEST_ID and is_plain(text)


def fingerprint_files(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256, hexadecimal, over each file's length (8 bytes, little-endian) and bytes, in order.

    Raises:
        DatasetError: a file cannot be read; named relative to `root`.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open_regular(path, MOST_BYTES) as file:
                digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
                while block := file.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DatasetError(
                f"{relative(root, path)}: cannot be read ({reason(error)})."
            ) from error
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: it cannot be read, is no regular file, or claims more bytes than any has.
    """
    with open_regular(path, MOST_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _fingerprint_sequence(
    root: Path, paths: tuple[Path, ...], stamps: tuple[tuple[int, ...], ...]
) -> str:
    return fingerprint_files(root, paths)


def relative(root: Path, path: Path) -> str:
    """The path as messages show it: relative to the dataset's folder where it lies in it."""
    return printable(_inside(root, path))


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def resolve_labels(labels: Mapping[int, str] | None) -> dict[int, str]:
    """The class ids that may occur, {id: name}; None means CAMUS' own, background is implied.

    Raises:
        UsageError: an id is outside 0..254 (255 is kept for `ignore`).
    """
    declared = dict(CAMUS_LABELS if labels is None else {0: "background", **labels})
    wrong = sorted(label for label in declared if not 0 <= label < IGNORE)
    if wrong:
        raise UsageError(
            f"labels: class ids must lie in 0..{IGNORE - 1} ({IGNORE} means ignore), got {wrong}."
        )
    return dict(sorted(declared.items()))
