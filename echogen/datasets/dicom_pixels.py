"""The pictures of a DICOM file as (H, W) uint8 grey levels, black where they show no tissue.

pydicom takes the file apart and undoes its compression, each by one decoder that is always the
same, so that one file gives the same grey levels everywhere. Grey is the luminance: the file's own
Y where it stores one, else ITU-R BT.601's weights, which leave R = G = B as they are. Pictures with
more colour than `bitmaps.grey_of` allows in their tissue, such as colour Doppler, are refused.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.advice import advise
from echogen.datasets.bitmaps import grey_of
from echogen.datasets.dicom_header import Header, damage_told, header_of, quiet_pydicom, read_dicom
from echogen.datasets.dicom_regions import Tissue, blacken, disbelieved, tissue_of
from echogen.datasets.limits import MOST_BYTES
from echogen.datasets.picture_files import fits_in
from echogen.errors import DatasetError
from echogen.support.files import stamp
from echogen.types import UInt8HW

LUMINANCE = (0.299, 0.587, 0.114)
JPEG = "1.2.840.10008.1.2.4."
DECODERS: Mapping[str, str] = {
    "1.2.840.10008.1.2": "",  # implicit VR
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.1.99": "",  # deflated
    "1.2.840.10008.1.2.2": "",  # big endian
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    f"{JPEG}50": "pillow",  # baseline
    f"{JPEG}51": "pillow",  # extended, of 8 bits
    f"{JPEG}57": "gdcm",  # lossless
    f"{JPEG}70": "gdcm",
    f"{JPEG}80": "gdcm",  # JPEG-LS
    f"{JPEG}81": "gdcm",
    f"{JPEG}90": "pillow",  # JPEG 2000
    f"{JPEG}91": "pillow",
}
"""{transfer syntax: pydicom's name of what undoes it}."""
DARKEST = 0.25
LONGEST_S = 300.0
MAX_COLOUR = 0.02
TRIED = 5
"""Pictures of a clip that its regions are held against."""


@dataclass(frozen=True)
class DicomFile:
    """A file that was read.

    Attributes:
        header: of it.
        found: pydicom's `Dataset`, with the pixels still as they are stored.
        tissue: where its pictures show it.
        window: (low, high) stored values that become 0 and 255, where more than 8 bits are stored
            and the file has no window of its own.
        max_colour: share of a picture's pixels that may be coloured in its tissue.
    """

    header: Header
    found: Any
    tissue: Tissue
    window: tuple[float, float] | None = None
    max_colour: float = MAX_COLOUR

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Of the tissue region; without regions, of a pixel spacing that was calibrated."""
        return believed_spacing(self.header, self.tissue)


def believed_spacing(header: Header, tissue: Tissue) -> tuple[float, float] | None:
    """(row, col) mm of a file's pictures, None where it says nothing that can be believed."""
    if header.regions or header.pixel_spacing is None or not header.pixel_spacing[2]:
        return tissue.spacing_mm
    return header.pixel_spacing[:2]


def open_file(
    path: Path, window: tuple[float, float] | None = None, max_colour: float = MAX_COLOUR
) -> DicomFile:
    """A file with its pixels, and where they show tissue; the last ones are kept.

    Raises:
        DatasetError: one line without the file's name: it cannot be read, or holds no picture.
    """
    with quiet_pydicom(), damage_told():  # threads that need the same file wait for one to read it
        return _open(path, stamp(path), window, max_colour)


@lru_cache(maxsize=2)  # a loop may have hundreds of megabytes
def _open(
    path: Path, stamped: tuple[int, ...], window: tuple[float, float] | None, max_colour: float
) -> DicomFile:
    found = read_dicom(path, pixels=True)
    header = header_of(path, found)
    if header.problem:
        raise DatasetError(header.problem)
    if "PixelData" not in found or not all(header.shape):
        raise DatasetError("holds no picture (no PixelData).")
    file = DicomFile(header, found, tissue_of(header.regions, header.shape), window, max_colour)
    if file.tissue.problem:
        raise DatasetError(file.tissue.problem)
    tried = list(_some_pictures(file)) if file.tissue.window is not None else []
    doubt = disbelieved(np.max(tried, axis=0), file.tissue) if tried else ""
    return replace(file, tissue=Tissue(doubt=doubt)) if doubt else file


def _some_pictures(file: DicomFile) -> Iterator[UInt8HW]:
    """A few pictures, evenly spread, of those that can be decoded."""
    count = min(TRIED, file.header.frames)
    for number in range(count):
        with contextlib.suppress(DatasetError):  # told where the picture itself is read
            yield grey_levels(file, number * file.header.frames // count)


def read_picture(file: DicomFile, index: int) -> UInt8HW:
    """Picture `index` (from 0), black outside of the tissue.

    Raises:
        DatasetError: one line without the file's name: it cannot be decoded, or is empty.
    """
    picture = blacken(grey_levels(file, index), file.tissue)
    if picture.min() == picture.max():
        raise DatasetError(f"empty, every pixel of its tissue is {picture.flat[0]}.")
    return picture


def read_pictures(file: DicomFile) -> UInt8HW:
    """The pictures of a file that can be decoded, (N, H, W), black outside of the tissue.

    Raises:
        DatasetError: as `read_picture`, where none can.
    """
    clip = np.empty((file.header.frames, *file.header.shape), np.uint8)
    held, reason = 0, ""
    for index in range(len(clip)):
        try:
            clip[held] = blacken(grey_levels(file, index), file.tissue)
        except DatasetError as error:
            reason = str(error)
        else:
            held += 1
    if not held:
        raise DatasetError(reason)
    return clip[:held]


def grey_levels(file: DicomFile, index: int) -> UInt8HW:
    """Picture `index` (from 0) of a file, (H, W) uint8, nothing blackened.

    Raises:
        DatasetError: one line without the file's name: it is compressed in a way that cannot be
            undone, damaged, shows more colour than it may, or stores its grey levels in a way that
            cannot be shown.
    """
    with quiet_pydicom(), damage_told():
        return _grey_levels(file, index)


def _grey_levels(file: DicomFile, index: int) -> UInt8HW:
    header = file.header
    if not 0 <= index < header.frames:
        raise DatasetError(
            f"holds {header.frames} pictures, and no picture {index}: it changed after it was "
            "listed, run the command again."
        )
    values, kind = decoded(file.found, header.path, index)
    if values.shape[:2] != header.shape:
        raise DatasetError("its pictures are not of the size that it states.")
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        grey = _windowed(values, file)
        return 255 - grey if kind == "MONOCHROME1" else grey
    if kind == "PALETTE COLOR":
        kind, values = "RGB", _looked_up(values, file.found)
    if kind == "RGB":
        _check_colour(_to_uint8(values), file, index)
        return _luminance(values)
    if kind in ("YBR_FULL", "YBR_FULL_422"):
        _check_colour(_to_rgb(_to_uint8(values)), file, index)
        return _to_uint8(values[..., 0])
    raise DatasetError(f"stores colours as {kind[:32]!a}, which cannot be turned into grey levels.")


def decoded(found: Any, path: Path, index: int) -> tuple[npt.NDArray[Any], str]:
    """Stored values of a picture, (H, W) or (H, W, 3), and what they mean.

    Args:
        found: pydicom's `Dataset`.
        path: of its file.
        index: of the picture, from 0.

    Raises:
        DatasetError: one line without the file's name.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(str(found.file_meta.get("TransferSyntaxUID", "") or _guessed(found)))
    name = _called(syntax)
    if syntax not in DECODERS:
        raise DatasetError(
            f"its pixels are compressed as {name}, which is not read; export it uncompressed, or "
            "as JPEG, JPEG 2000 or RLE."
        )
    plugin = DECODERS[syntax]
    if plugin == "gdcm" and find_spec("gdcm") is None:
        raise DatasetError(
            f"its pixels are compressed as {name}, and what undoes that is not installed; pip "
            "install 'echogen[dicom]'"
        )
    broken = (
        f"picture {index} cannot be decoded ({name}); the file is truncated, damaged, or stores "
        "what its compression does not allow."
    )
    if plugin == "gdcm":
        with damage_told(broken):
            about, content = _decoded_apart(path, stamp(path))[index]
            shape = tuple(about["shape"])
            return np.frombuffer(content, about["dtype"]).reshape(shape), str(about["kind"])
    with quiet_pydicom(), damage_told(broken):
        if plugin and not _fits(found, index):
            raise DatasetError(broken)
        values, told = get_decoder(syntax).as_array(
            found, index=index, raw=True, decoding_plugin=plugin
        )
    return values, str(told["photometric_interpretation"])


def _fits(found: Any, index: int) -> bool:
    """Whether a compressed picture states the size that its file does, and could have it."""
    from pydicom.encaps import get_frame

    frames = int(found.get("NumberOfFrames") or 1)
    starts, lengths = (found.get(f"ExtendedOffsetTable{what}") for what in ("", "Lengths"))
    offsets = (starts, lengths) if starts and lengths and len(starts) == len(lengths) else None
    content = get_frame(found.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    each = int(found.get("SamplesPerPixel") or 1) * math.ceil(int(found.BitsAllocated) / 8)
    return fits_in(content, int(found.Rows), int(found.Columns), each)


def _guessed(found: Any) -> str:
    """The transfer syntax of a file without its meta information: pydicom saw its byte order."""
    implicit, little = found.original_encoding
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def _called(syntax: Any) -> str:
    known = str(syntax.name)
    return known if known != str(syntax) else f"an unknown transfer syntax, {str(syntax)[:64]!a}"


@lru_cache(maxsize=2)
def _decoded_apart(path: Path, stamped: tuple[int, ...]) -> list[tuple[dict[str, Any], memoryview]]:
    """What `dicom_apart` decodes of a file: {} and no bytes where a picture cannot be; pictures
    after one that ended the process are not there.
    """
    script = Path(__file__).with_name("dicom_apart.py")
    run = subprocess.run(
        [sys.executable, str(script), str(MOST_BYTES)],
        input=os.fsencode(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=LONGEST_S,
        check=False,
    )
    output, place, found = run.stdout, 0, []
    while (end := output.find(b"\n", place)) >= 0:
        about = json.loads(output[place:end]) or {}
        size = np.dtype(about["dtype"]).itemsize * math.prod(about["shape"]) if about else 0
        place = end + 1 + size
        found.append((about, memoryview(output)[end + 1 : place]))
    return found


def _check_colour(colours: npt.NDArray[np.uint8], file: DicomFile, index: int) -> None:
    """Refuse (H, W, 3) of colours in the tissue; beside it, where all becomes black, any may be."""
    if (colours != colours[..., :1]).any():
        grey_of(blacken(colours, file.tissue), f"picture {index}", file.max_colour)


def _to_rgb(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from pydicom.pixels import convert_color_space

    return convert_color_space(values, "YBR_FULL", "RGB")


def _luminance(values: npt.NDArray[Any]) -> UInt8HW:
    """RGB to grey, rounded; equal channels give their own value."""
    weighted = values.astype(np.float64) @ np.array(LUMINANCE)
    return _to_uint8(np.rint(weighted).astype(values.dtype))


def _to_uint8(values: npt.NDArray[Any]) -> UInt8HW:
    """Unsigned values of 8 or 16 bits to 8."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype != np.uint16:
        raise DatasetError(f"stores colours as {values.dtype}; expected 8 or 16 bits.")
    return (values >> 8).astype(np.uint8)


def _looked_up(values: npt.NDArray[Any], found: Any) -> npt.NDArray[Any]:
    from pydicom.pixels import apply_color_lut

    with quiet_pydicom(), damage_told("its palette of colours is missing or damaged."):
        return apply_color_lut(values, found)


def _windowed(values: npt.NDArray[Any], file: DicomFile) -> UInt8HW:
    """Stored values to grey levels: 8 bits as they are, more through the window that they state."""
    found = file.found
    stored = int(found.get("BitsStored") or values.dtype.itemsize * 8)
    signed = bool(found.get("PixelRepresentation"))
    if int(found.get("HighBit", stored - 1)) != stored - 1:
        raise DatasetError(
            f"stores {stored} bits a pixel with the highest one at {found.HighBit}; expected "
            f"{stored - 1}, export it again."
        )
    if stored == 8 and not signed:
        return values.astype(np.uint8)
    shown = _through_window(values, found)
    if shown is None and file.window is not None:
        shown = (values - file.window[0]) / (file.window[1] - file.window[0])
    if shown is None:
        most = (1 << stored) - 1
        if signed or (stored > 8 and values.max() < DARKEST * most):
            raise DatasetError(
                f"stores {stored} bits a pixel, from {values.min()} to {values.max()}, and no "
                "window (WindowCenter, WindowWidth) that says how to show them; export it with 8 "
                "bits a pixel, or " + advise(f"window = [0, {most}]")
            )
        shown = values / most
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def _through_window(values: npt.NDArray[Any], found: Any) -> npt.NDArray[np.float64] | None:
    """Values as the first window shows them, 0 to 1 within it; None without a window.

    PS3.3, C.11.2: rescaled first, then windowed.
    """
    try:
        center, width = (
            float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
            for value in (found.WindowCenter, found.WindowWidth)
        )
        slope, intercept = (
            float(found.get(name, default))
            for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
        )
    except Exception:  # absent, empty or damaged
        return None
    rescaled = values * slope + intercept
    function = str(found.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(-4 * (rescaled - center) / width)), np.float64)
    if function == "LINEAR_EXACT" and width > 0:
        return np.asarray((rescaled - center) / width + 0.5, np.float64)
    if width <= 1:
        return None
    return np.asarray((rescaled - (center - 0.5)) / (width - 1) + 0.5, np.float64)
