"""Phantoms as files, in the two layouts that CAMUS was published in.

MetaImage is written here byte by byte, as NIfTI is in `support.nifti`, because the bytes must not
depend on the library at hand.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echogen.errors import UsageError
from echogen.phantom.anatomy import PHASES, VIEWS, View
from echogen.phantom.case import METAIMAGE_SPACING_MM, PhantomCase, make_case
from echogen.report import CommandReport
from echogen.support.nifti import gzip_bytes, nifti_bytes
from echogen.types import UInt8HW

METAIMAGE_FROM = 7  # cases: from here on the last one is in the older layout
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


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_nifti(folder: Path, stem: str, pixels: UInt8HW, spacing: tuple[float, float]) -> None:
    _write(folder / f"{stem}.nii.gz", gzip_bytes(nifti_bytes(pixels, spacing)))


def _write_metaimage(
    folder: Path, stem: str, pixels: UInt8HW, spacing: tuple[float, float]
) -> None:
    rows, cols = pixels.shape
    header = metaimage_header((rows, cols), spacing, f"{stem}.raw")
    _write(folder / f"{stem}.mhd", header.encode("ascii"))
    _write(folder / f"{stem}.raw", np.ascontiguousarray(pixels).tobytes())


def _info(case: PhantomCase, view: View, older: bool) -> bytes:
    patient, last = case.patient, case.patient.n_frames[view]
    lines = [f"ED: 1\nES: {last}\nNbFrame: {last}\nSex: {patient.sex}\nAge: {patient.age}\n"]
    lines.append(f"ImageQuality: {patient.quality}\n")
    if older:
        lines.append(f"LVedv: {case.edv_ml:.1f}\nLVesv: {case.esv_ml:.1f}\nLVef: {case.ef:.1f}\n")
    else:
        lines.append(f"EF: {case.ef:.0f}\nFrameRate: {patient.frame_rate[view]:.1f}\n")
    return "".join(lines).encode("ascii")


def _write_case(root: Path, case: PhantomCase, older: bool) -> list[str]:
    folder = root / ("training" if older else "database_nifti") / case.case_id
    write = _write_metaimage if older else _write_nifti
    written = []
    for view in VIEWS:
        _write(folder / f"Info_{view}.cfg", _info(case, view, older))
        for phase in PHASES:
            frame, stem = case.frames[view, phase], f"{case.case_id}_{view}_{phase}"
            write(folder, stem, frame.image, frame.spacing_mm)
            write(folder, f"{stem}_gt", frame.label, frame.spacing_mm)
            written.append(stem)
    return written


def _write_split(root: Path, case_ids: list[str]) -> None:
    """Every fourth case to validation, every fourth to testing, the others to training."""
    lists: dict[str, list[str]] = {"training": [], "validation": [], "testing": []}
    for position, case_id in enumerate(case_ids):
        lists[("training", "training", "validation", "testing")[position % 4]].append(case_id)
    for name, members in lists.items():
        text = "".join(f"{case_id}\n" for case_id in members)
        _write(root / "database_split" / f"subgroup_{name}.txt", text.encode("ascii"))


def write_dataset(out: Path, cases: int, seed: int = 0) -> list[str]:
    """Write phantoms `patient0001` to `cases` under `out`, in CAMUS' layout.

    `database_nifti/` holds the cases as `.nii.gz`, `database_split/` the lists; with seven cases or
    more the last one is in `training/`, in the older `.mhd` + `.raw` layout.

    Args:
        out: a folder that does not exist yet or is empty.
        cases: how many, 1 to 9999.
        seed: of all of them, 0 or more.

    Returns:
        The ids of the frames written, such as `patient0001_2CH_ED`, in order.

    Raises:
        UsageError: `out` is not an empty folder or cannot be written, or a number is out of range.
    """
    if not 1 <= cases <= 9999:
        raise UsageError(f"cases: must be 1 to 9999, got {cases}.")
    if seed < 0:
        raise UsageError(f"seed: must be 0 or more, got {seed}.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: must be a folder, but is a file; give another path.")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out}: must be an empty folder, but contains files; empty it or give another path."
        )
    written: list[str] = []
    try:
        for index in range(1, cases + 1):
            older = index == cases and cases >= METAIMAGE_FROM
            case = make_case(index, seed, METAIMAGE_SPACING_MM if older else None)
            written += _write_case(out, case, older)
        _write_split(out, [f"patient{index:04d}" for index in range(1, cases + 1)])
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror}); free some space or give another path."
        ) from error
    return written
