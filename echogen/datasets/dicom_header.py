"""What a DICOM file says before its pixels: who, how large, how many, how fast, and which regions.

Only elements of the standard are read, never a vendor's private ones, and of these only what is
named here. Nothing but pydicom, the optional extra `dicom`, parses a file.

DICOM PS3.3, C.8.5.5 (ultrasound regions), C.7.6.5 (cine), C.7.6.6 (multi-frame).
"""

import logging
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from echogen.datasets.dicom_regions import Region
from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.support.files import stamp
from echogen.support.reading import open_regular, quiet
from echogen.support.words import one_line

MAGIC, MAGIC_AT = b"DICM", 128
INDEX = "DICOMDIR"
"""Modality of the index of a medium, whatever it is called."""
MOST_LETTERS = 200
EXTENSIONS = (".dcm", ".dicom", ".ima")
MOST_FILE_BYTES = 2**30
MOST_INFLATED = 2**28
DEFLATED = "1.2.840.10008.1.2.1.99"
VIEWS = {
    "399214001": "4CH",
    "G-A19C": "4CH",
    "399232001": "2CH",
    "G-A19B": "2CH",
    "399339008": "3CH",
    "G-0395": "3CH",
    "399139001": "PLAX",
    "G-0396": "PLAX",
    "399306005": "PSAX",
    "G-0397": "PSAX",
}
"""Codes of a view (SNOMED CT, and SNOMED RT before it; DICOM PS3.16, CID 12226): its name."""
WANTED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "PatientName",
    "IssuerOfPatientID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "HeartRate",
    "ViewCodeSequence",
    "SequenceOfUltrasoundRegions",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
)
CORNERS = ("MinX0", "MinY0", "MaxX1", "MaxY1")
DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Header:
    """What is known of a file without its pixels.

    Attributes:
        path: of the file.
        instance, study: its unique ids; empty where it has none.
        patient: who, for grouping alone: (issuer, id); empty strings where it is not said.
        patient_name: for the table that a user asks for, and nothing else.
        modality: such as `US`.
        shape: (rows, columns); zeros where it holds no picture.
        frames: as it states them, 1 where it does not.
        problem: why its pictures cannot be read, one line without the file's name.
        frame_rate: pictures a second, or None.
        heart_rate: beats a minute, or None.
        view: of `VIEWS`, or empty.
        scanner: maker and model.
        regions: of the ultrasound, as stated.
        pixel_spacing: (row, col) mm of the element that is not made for ultrasound, and whether
            the file says how it was calibrated; None where it is absent.
    """

    path: Path
    instance: str
    study: str
    patient: tuple[str, str]
    patient_name: str
    modality: str
    shape: tuple[int, int]
    frames: int
    problem: str
    frame_rate: float | None
    heart_rate: float | None
    view: str
    scanner: str
    regions: tuple[Region, ...]
    pixel_spacing: tuple[float, float, bool] | None


def may_be_dicom(path: Path) -> bool:
    """Whether a file's name and first bytes are those of a DICOM file; with a known extension a
    file may lack the preamble.
    """
    suffix = path.suffix.lower()
    unnamed = not suffix or suffix[1:].isdigit()  # a name may be a UID
    if (suffix not in EXTENSIONS and not unnamed) or path.name.upper() == INDEX:
        return False
    try:
        with open_regular(path) as file:
            start = file.read(MAGIC_AT + len(MAGIC))
    except OSError:
        return False
    if start[MAGIC_AT:] == MAGIC:
        return True
    return suffix in EXTENSIONS and _starts_bare(start)


def stem_of(path: Path) -> str:
    """The file's name without an extension of DICOM; names that are UIDs have none."""
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """One thread at a time reads, and pydicom says nothing: its warnings quote what files hold."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    with quiet():
        known = logger.propagate, config.settings.reading_validation_mode
        logger.propagate = False
        config.settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            logger.propagate, config.settings.reading_validation_mode = known


@contextmanager
def damage_told(
    what: str = "a damaged or truncated DICOM file; export it again.",
) -> Iterator[None]:
    """Whatever pydicom and decoders raise becomes one line: values are converted late, each with
    errors of its own kind, and their words quote what the file holds.

    Raises:
        DatasetError: those of ours as they are, all others as `what`.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception:
        raise DatasetError(what) from None


def read_dicom(path: Path, *, pixels: bool, wanted: tuple[str, ...] = ()) -> Any:
    """A file as a pydicom `Dataset`.

    Args:
        path: a file for which `may_be_dicom`.
        pixels: whether all of it is read, or only what stands before the pixels.
        wanted: keywords of the elements to read; all of them where it is empty.

    Raises:
        DatasetError: one line without the file's name: not there, too large, damaged.
    """
    import pydicom

    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_FILE_BYTES:
                raise DatasetError(f"{size:,} bytes; at most {MOST_FILE_BYTES:,} are read.")
            with quiet_pydicom(), damage_told():
                _check_deflated(file)
                file.seek(0)
                return pydicom.dcmread(
                    file,
                    force=True,
                    stop_before_pixels=not pixels,
                    specific_tags=list(wanted) or None,
                )
    except OSError as error:  # its words name the file, and so perhaps the patient
        raise DatasetError(f"cannot be read ({error.strerror}).") from None


def read_header(path: Path) -> Header:
    """What a file says of itself; reads no pixel, and an unchanged file once.

    Raises:
        DatasetError: as `read_dicom`.
    """
    return _read_header(path, stamp(path))


@lru_cache(maxsize=100_000)
def _read_header(path: Path, stamped: tuple[int, ...]) -> Header:
    return header_of(path, read_dicom(path, pixels=False, wanted=WANTED))


def header_of(path: Path, found: Any) -> Header:
    """The header of a file that was read.

    Raises:
        DatasetError: it is damaged.
    """
    with quiet_pydicom(), damage_told():
        rows, columns = _whole(found, "Rows", 0), _whole(found, "Columns", 0)
        frames = _whole(found, "NumberOfFrames", 1)
        modality = _text(found, "Modality").upper()
        if not modality and "Ultrasound" in _class_name(found):
            modality = "US"
        if str(getattr(found, "file_meta", {}).get("MediaStorageSOPClassUID", "")) == DIRECTORY:
            modality = INDEX
        maker = f"{_text(found, 'Manufacturer')} {_text(found, 'ManufacturerModelName')}"
        return Header(
            path=path,
            instance=_text(found, "SOPInstanceUID"),
            study=_text(found, "StudyInstanceUID"),
            patient=(_text(found, "IssuerOfPatientID"), _text(found, "PatientID")),
            patient_name=_text(found, "PatientName"),
            modality=modality,
            shape=(max(rows, 0), max(columns, 0)),
            frames=frames,
            problem=_problem(rows, columns, frames, _whole(found, "SamplesPerPixel", 1)),
            frame_rate=_frame_rate(found),
            heart_rate=_positive(found, "HeartRate"),
            view=_view(found),
            scanner=one_line(maker, MOST_LETTERS),
            regions=tuple(_regions(found)),
            pixel_spacing=_pixel_spacing(found),
        )


def _starts_bare(start: bytes) -> bool:
    """Whether a file without a preamble begins with an element of group 2 or 8, either order."""
    return start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and len(start) > 8


def _problem(rows: int, columns: int, frames: int, samples: int) -> str:
    if frames < 1:
        return f"states {frames} frames; expected at least 1."
    if samples not in (1, 3):
        return f"states {samples} samples a pixel; expected 1 (grey) or 3 (colour)."
    problem = too_large(rows, columns, frames) if rows and columns else ""
    return f"states {problem}" if problem else ""


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated file that would become larger than any that is read."""
    from pydicom.filereader import read_dataset, read_preamble

    try:
        read_preamble(file, False)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    except Exception:  # no preamble, so not deflated
        return
    if str(meta.get("TransferSyntaxUID", "")) != DEFLATED:
        return
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while chunk := file.read(1 << 16):
        while chunk:
            total += len(inflater.decompress(chunk, 1 << 20))
            chunk = inflater.unconsumed_tail
            if total > MOST_INFLATED:
                raise DatasetError(f"inflates to more than {MOST_INFLATED:,} bytes.")


def _regions(found: Any) -> Iterator[Region]:
    """The regions whose elements are whole; others are none."""
    for item in found.get("SequenceOfUltrasoundRegions") or ():
        corners = [_whole(item, f"RegionLocation{name}", -1) for name in CORNERS]
        if min(corners) < 0 or corners[0] > corners[2] or corners[1] > corners[3]:
            continue
        delta = _number(item, "PhysicalDeltaY"), _number(item, "PhysicalDeltaX")
        units = (
            _whole(item, "PhysicalUnitsYDirection", 0),
            _whole(item, "PhysicalUnitsXDirection", 0),
        )
        yield Region(
            spatial=_whole(item, "RegionSpatialFormat", 0),
            kind=_whole(item, "RegionDataType", 0),
            low_priority=bool(_whole(item, "RegionFlags", 0) & 1),
            first=(corners[1], corners[0]),
            last=(corners[3], corners[2]),
            units=units,
            delta=None if None in delta else (abs(delta[0] or 0.0), abs(delta[1] or 0.0)),
        )


def _frame_rate(found: Any) -> float | None:
    """Pictures a second: of the time of a frame, of the mean of their times, or as it is played."""
    times = [_positive(found, "FrameTime")]
    vector = found.get("FrameTimeVector")
    try:
        steps = [float(step) for step in vector] if vector else []
    except (TypeError, ValueError):
        steps = []
    steps = [step for step in steps if math.isfinite(step) and step > 0]  # the first one is 0
    times.append(sum(steps) / len(steps) if steps else None)
    for time in times:
        if time is not None:
            return round(1000 / time, 3)
    return _positive(found, "CineRate")


def _view(found: Any) -> str:
    for item in found.get("ViewCodeSequence") or ():
        if name := VIEWS.get(_text(item, "CodeValue")):
            return name
    return ""


def _pixel_spacing(found: Any) -> tuple[float, float, bool] | None:
    try:
        row, col = (float(value) for value in found.get("PixelSpacing") or ())
    except (TypeError, ValueError):
        return None
    if not (0 < row < math.inf and 0 < col < math.inf):
        return None
    return row, col, _text(found, "PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL")


def _class_name(found: Any) -> str:
    from pydicom.uid import UID

    return str(UID(_text(found, "SOPClassUID")).name)


def _text(found: Any, keyword: str) -> str:
    try:
        return str(found.get(keyword) or "").strip()
    except Exception:  # a damaged value
        return ""


def _number(found: Any, keyword: str) -> float | None:
    try:
        value = float(found.get(keyword))
    except Exception:  # absent, empty or damaged
        return None
    return value if math.isfinite(value) else None


def _positive(found: Any, keyword: str) -> float | None:
    value = _number(found, keyword)
    return value if value is not None and value > 0 else None


def _whole(found: Any, keyword: str, default: int) -> int:
    """A whole number; `default` where there is none, and 0 where what is there is no number."""
    try:
        value = found.get(keyword)
        return default if value is None or value == "" else int(value)
    except Exception:  # a damaged value
        return 0
