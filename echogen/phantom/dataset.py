"""Phantoms as files, in the two layouts that CAMUS was published in.

MetaImage is written here byte by byte, as NIfTI is in `support.nifti`, because the bytes must not
depend on the library at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from echogen.errors import StoreError, UsageError
from echogen.phantom.anatomy import PHASES, VIEWS, View
from echogen.phantom.case import METAIMAGE_SPACING_MM, PhantomCase, make_case
from echogen.report import CommandReport
from echogen.support.files import make_folder, partial_path, remove_partials, write_whole
from echogen.support.lock import lock_path, store_lock
from echogen.support.nifti import gzip_bytes, nifti_bytes
from echogen.types import UInt8HW

METAIMAGE_FROM = 7  # cases: from here on the last one is in the older layout
_LOCKED = ".phantom"
SLICE_MM = 1.54  # what CAMUS' MetaImage files say of the third dimension, which has one slice


@dataclass(frozen=True)
class PhantomReport(CommandReport):
    """The dataset that was written.

    Attributes:
        output: its folder.
        cases: how many.
        seed: of all of them.
        frames: ids of the frames, in order.
    """

    output: str
    cases: int
    seed: int
    frames: tuple[str, ...]


def metaimage_header(shape: tuple[int, int], spacing_mm: tuple[float, float], raw: str) -> str:
    """The `.mhd` text of an (H, W) image whose pixels are in the file `raw` beside it."""
    return (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\nOffset = 0 0 0\n"
        f"ElementSpacing = {spacing_mm[1]:g} {spacing_mm[0]:g} {SLICE_MM:g}\n"
        f"DimSize = {shape[1]} {shape[0]} 1\n"
        f"ElementNumberOfChannels = 1\nElementType = MET_UCHAR\nElementDataFile = {raw}\n"
    )


def _nifti(stem: str, pixels: UInt8HW, spacing: tuple[float, float]) -> dict[str, bytes]:
    return {f"{stem}.nii.gz": gzip_bytes(nifti_bytes(pixels, spacing))}


def _metaimage(stem: str, pixels: UInt8HW, spacing: tuple[float, float]) -> dict[str, bytes]:
    rows, cols = pixels.shape
    header = metaimage_header((rows, cols), spacing, f"{stem}.raw")
    raw = np.ascontiguousarray(pixels).tobytes()
    return {f"{stem}.mhd": header.encode("ascii"), f"{stem}.raw": raw}


def _info(case: PhantomCase, view: View, older: bool) -> bytes:
    patient, last = case.patient, case.patient.n_frames[view]
    lines = [f"ED: 1\nES: {last}\nNbFrame: {last}\nSex: {patient.sex}\nAge: {patient.age}\n"]
    lines.append(f"ImageQuality: {patient.quality}\n")
    if older:
        lines.append(f"LVedv: {case.edv_ml:.1f}\nLVesv: {case.esv_ml:.1f}\nLVef: {case.ef:.1f}\n")
    else:
        lines.append(f"EF: {case.ef:.0f}\nFrameRate: {patient.frame_rate[view]:.1f}\n")
    return "".join(lines).encode("ascii")


@dataclass(frozen=True)
class _Case:
    """One case's files: which they are, and what is in them."""

    index: int
    seed: int
    older: bool

    @property
    def name(self) -> str:
        return f"patient{self.index:04d}"

    @property
    def folder(self) -> str:
        return f"{'training' if self.older else 'database_nifti'}/{self.name}"

    @property
    def frames(self) -> list[str]:
        return [f"{self.name}_{view}_{phase}" for view in VIEWS for phase in PHASES]

    @property
    def names(self) -> list[str]:
        suffixes = (".mhd", ".raw") if self.older else (".nii.gz",)
        images = [f"{s}{gt}{end}" for s in self.frames for gt in ("", "_gt") for end in suffixes]
        infos = [f"Info_{view}.cfg" for view in VIEWS]
        return [f"{self.folder}/{name}" for name in (*infos, *images)]

    def files(self) -> dict[str, bytes]:
        """{path: content} of `names`."""
        case = make_case(self.index, self.seed, METAIMAGE_SPACING_MM if self.older else None)
        encode = _metaimage if self.older else _nifti
        files = {f"Info_{view}.cfg": _info(case, view, self.older) for view in VIEWS}
        for (view, phase), frame in case.frames.items():
            stem = f"{self.name}_{view}_{phase}"
            files |= encode(stem, frame.image, frame.spacing_mm)
            files |= encode(f"{stem}_gt", frame.label, frame.spacing_mm)
        return {f"{self.folder}/{name}": content for name, content in files.items()}


def _split(cases: Sequence[_Case]) -> dict[str, bytes]:
    """Every fourth case to validation, every fourth to testing, the others to training."""
    lists: dict[str, list[str]] = {"training": [], "validation": [], "testing": []}
    for position, case in enumerate(cases):
        lists[("training", "training", "validation", "testing")[position % 4]].append(case.name)
    return {
        f"database_split/subgroup_{name}.txt": "".join(f"{one}\n" for one in members).encode()
        for name, members in lists.items()
    }


def write_dataset(out: Path, cases: int, seed: int = 0) -> list[str]:
    """Write phantoms `patient0001` to `cases` under `out`, in CAMUS' layout.

    `database_nifti/` holds the cases as `.nii.gz`, `database_split/` the lists; with seven cases or
    more the last one is in `training/`, in the older `.mhd` + `.raw` layout. A call that was killed
    is continued by the same call: what it has written is known by its bytes.

    Args:
        out: a folder that does not exist yet, is empty, or holds files of these phantoms alone.
        cases: how many, 1 to 9999.
        seed: of all of them, 0 or more.

    Returns:
        The ids of the frames written, such as `patient0001_2CH_ED`, in order.

    Raises:
        UsageError: `out` holds other files or cannot be written, or a number is out of range.
        StoreError: another process is writing phantoms there.
    """
    if not 1 <= cases <= 9999:
        raise UsageError(f"cases: must be 1 to 9999, got {cases}.")
    if seed < 0:
        raise UsageError(f"seed: must be 0 or more, got {seed}.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: must be a folder, but is a file; give another path.")
    last = cases if cases >= METAIMAGE_FROM else 0
    all_cases = [_Case(index, seed, index == last) for index in range(1, cases + 1)]
    _check_names(out, all_cases)
    try:
        make_folder(out)
        with store_lock(out / _LOCKED):  # inside: what is around `out` may not be writable
            _write(out, all_cases)
    except StoreError:
        raise
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror}); free some space or give another path."
        ) from error
    return [frame for case in all_cases for frame in case.frames]


def _write(out: Path, cases: Sequence[_Case]) -> None:
    """What is not there yet, once all that is there has been found to be what would be written."""
    _check_names(out, cases)
    split = _split(cases)
    remove_partials(out / name for case in cases for name in case.names)
    remove_partials(out / name for name in split)
    there = {name for case in cases for name in case.names if (out / name).exists()}
    begun = (case.files() for case in cases if there.intersection(case.names))
    for files in chain([split], begun):
        for name, content in files.items():
            if (out / name).exists() and (out / name).read_bytes() != content:
                raise _not_ours(out, name)
    for case in cases:
        if not there.issuperset(case.names):
            _write_files(out, case.files())
    _write_files(out, split)
    for name in (name for case in cases for name in case.names):
        if not (out / name).exists():
            raise UsageError(
                f"{out / name}: was removed while others were written; run the same command again."
            )


def _write_files(out: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not (out / name).exists():
            make_folder((out / name).parent)
            write_whole(out / name, content)


def _check_names(out: Path, cases: Sequence[_Case]) -> None:
    """Refuse a folder with anything in it but what a killed call for these cases may have left."""
    names = {out / name for case in cases for name in case.names} | {out / n for n in _split(cases)}
    ours = {*names, *map(partial_path, names), lock_path(out / _LOCKED)}
    folders = {above for name in names for above in name.parents}
    for place in out.rglob("*") if out.is_dir() else ():
        if place.is_symlink() or place not in (folders if place.is_dir() else ours):
            raise _not_ours(out, place.relative_to(out).as_posix())


def _not_ours(out: Path, name: str) -> UsageError:
    return UsageError(
        f"{out}: must be an empty folder, but contains other files, such as {name}; empty it or "
        "give another path."
    )
