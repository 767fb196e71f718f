"""One image and its label from NIfTI, MetaImage or PNG files, checked, as (H, W) uint8.

SimpleITK reads every format. It gives arrays as (slices, rows, columns) and spacing as (x, y, z):
both are turned here, once. It fills what a truncated NIfTI file lacks without a word, so the
files' sizes are checked against their headers first.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.base import relative
from echogen.errors import DatasetError
from echogen.types import Frame, FrameKey, UInt8HW

READERS: Mapping[str, str] = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mhd": "MetaImageIO",
    ".png": "PNGImageIO",
}
FORMATS: Mapping[str, str] = {
    "NiftiImageIO": "NIfTI",
    "MetaImageIO": "MetaImage",
    "PNGImageIO": "PNG",
}
META_BYTES: Mapping[str, int] = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
WHOLE_TOLERANCE = 1e-3
"""How far from a whole number a scaled intensity may lie: NIfTI's slope is a float32."""

Array = npt.NDArray[Any]


def suffix_of(name: str) -> str:
    """The part of a file name that tells its format, lower case, or "" where it is none of ours."""
    lowered = name.lower()
    return next((suffix for suffix in READERS if lowered.endswith(suffix)), "")


def read_frame(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """A checked frame; of `key.paths`, the image's header file comes first, then the label's.

    Whole-numbered intensities from 0 to 255 of any type become uint8 unchanged; anything else is
    refused, since the right window cannot be guessed. The spacing is the image's.

    Raises:
        DatasetError: missing, truncated or unreadable files, several slices, colours, NaN,
            intensities outside 0..255, a constant image, shapes that differ, class ids outside
            `labels`, or a label that is all background.
    """
    image_path, label_path = (path for path in key.paths if suffix_of(path.name))
    image_name, label_name = relative(root, image_path), relative(root, label_path)
    image, spacing = _read_plane(image_path, image_name)
    label, _ = _read_plane(label_path, label_name)
    grey = _as_uint8(image, image_name, "intensities")
    if grey.min() == grey.max():
        raise DatasetError(f"{image_name}: empty image, every pixel is {grey.flat[0]}.")
    classes = _as_uint8(label, label_name, "class ids")
    if classes.shape != grey.shape:
        raise DatasetError(
            f"{label_name}: label of {_by(classes)} pixels, but its image "
            f"{image_path.name} has {_by(grey)}; they must be the same."
        )
    found = np.flatnonzero(np.bincount(classes.ravel(), minlength=256))
    unknown = [int(value) for value in found if int(value) not in labels]
    if unknown:
        raise DatasetError(
            f"{label_name}: class ids {_some(unknown)} are not declared (labels: "
            f"{_some(list(labels))}); store raw class ids, or declare these."
        )
    if not classes.any():
        raise DatasetError(f"{label_name}: the label is all background.")
    return Frame(key=key, image=grey, label=classes, spacing_mm=spacing)


def image_digest(image: UInt8HW) -> str:
    """SHA-256 of an image's shape and pixels: equal for two frames that show the same picture."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def meta_data_file(header: Path) -> Path | None:
    """The file that holds a `.mhd` header's pixels; None where the header does not say."""
    try:
        name = _meta_fields(header).get("ElementDataFile", "")
    except (OSError, UnicodeDecodeError):
        return None
    return header.with_name(name) if name and name not in ("LOCAL", "LIST") else None


def _read_plane(path: Path, name: str) -> tuple[Array, tuple[float, float] | None]:
    """One slice as (H, W) of the file's own type, and its (row, col) mm; PNG has none."""
    import SimpleITK as sitk

    reader = READERS[suffix_of(path.name)]
    try:
        _check_complete(path, name, reader)
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error}).") from error
    process: Any = sitk.ProcessObject
    process.SetGlobalWarningDisplay(False)
    try:
        picture: Any = sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        raise DatasetError(
            f"{name}: cannot be read; truncated, or not a {FORMATS[reader]} file."
        ) from error
    array: Array = sitk.GetArrayFromImage(picture)
    if picture.GetNumberOfComponentsPerPixel() > 1:
        array = _one_channel(array, name)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise DatasetError(
            f"{name}: holds {math.prod(array.shape[:-2])} slices of {_by(array)} pixels; "
            "expected one, store each frame in its own file."
        )
    if reader == "PNGImageIO":
        return array, None
    spacing = picture.GetSpacing()
    row_mm, col_mm = float(spacing[1]), float(spacing[0])
    if not (0 < row_mm < math.inf and 0 < col_mm < math.inf):
        raise DatasetError(f"{name}: spacing of {row_mm} x {col_mm} mm; it must be above 0.")
    return array, (row_mm, col_mm)


def _one_channel(array: Array, name: str) -> Array:
    channels = array.shape[-1]
    if channels in (2, 4):
        if (array[..., -1] != np.iinfo(array.dtype).max).any():
            raise DatasetError(f"{name}: has transparent pixels; store grey levels without alpha.")
        array = array[..., :-1]
    first = array[..., 0]
    if (array != first[..., None]).any():
        raise DatasetError(
            f"{name}: a colour picture ({channels} channels that differ); store one channel."
        )
    return first


def _as_uint8(array: Array, name: str, what: str) -> UInt8HW:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iuf":
        raise DatasetError(f"{name}: {what} of type {array.dtype}; expected whole numbers.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).sum())
        raise DatasetError(f"{name}: {wrong:,} of {array.size:,} {what} are NaN or infinite.")
    whole = np.rint(array)
    low, high = array.min(), array.max()
    broken = array.dtype.kind == "f" and bool((np.abs(array - whole) > WHOLE_TOLERANCE).any())
    if whole.min() < 0 or whole.max() > 255 or broken:
        raise DatasetError(
            f"{name}: {what} from {low:g} to {high:g} ({array.dtype}{', fractional' * broken}); "
            "expected whole numbers from 0 to 255, convert the file."
        )
    return whole.astype(np.uint8)


def _check_complete(path: Path, name: str, reader: str) -> None:
    """Raises DatasetError where a file holds fewer bytes of pixels than its header says."""
    if reader == "NiftiImageIO":
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            try:
                content = gzip.decompress(content)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DatasetError(f"{name}: truncated or damaged gzip file.") from error
        expected = _nifti_size(content)
        if expected is None:
            raise DatasetError(f"{name}: not a NIfTI file ({len(content):,} bytes).")
        if len(content) < expected:
            raise DatasetError(
                f"{name}: truncated, {len(content):,} of {expected:,} bytes (uncompressed)."
            )
    elif reader == "MetaImageIO":
        _check_meta(path, name)
    elif not path.is_file():
        raise DatasetError(f"{name}: no such file.")


def _nifti_size(content: bytes) -> int | None:
    """Bytes that a single-file NIfTI-1 or NIfTI-2 header promises; None for anything else."""
    for order in "<>":
        if len(content) >= 348 and struct.unpack_from(order + "i", content)[0] == 348:
            dims: tuple[int, ...] = struct.unpack_from(order + "8h", content, 40)
            (bits,) = struct.unpack_from(order + "h", content, 72)
            offset = int(struct.unpack_from(order + "f", content, 108)[0])
        elif len(content) >= 540 and struct.unpack_from(order + "i", content)[0] == 540:
            dims = struct.unpack_from(order + "8q", content, 16)
            (bits,) = struct.unpack_from(order + "h", content, 14)
            (offset,) = struct.unpack_from(order + "q", content, 168)
        else:
            continue
        return int(offset) + math.prod(dims[1 : 1 + dims[0]]) * int(bits) // 8
    return None


def _meta_fields(header: Path) -> dict[str, str]:
    lines = header.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {field.strip(): value.strip() for field, _, value in pairs}


def _check_meta(header: Path, name: str) -> None:
    try:
        fields = _meta_fields(header)
        dims = [int(value) for value in fields["DimSize"].split()]
        pixel = META_BYTES[fields["ElementType"]] * int(fields.get("ElementNumberOfChannels", "1"))
        data = header.with_name(fields["ElementDataFile"])
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{name}: not a MetaImage header that can be read.") from error
    if not data.is_file():
        raise DatasetError(f"{name}: its pixels are missing, no file {data.name} beside it.")
    content_size = data.stat().st_size
    if fields.get("CompressedData", "False").lower() == "true":
        try:
            content_size = len(zlib.decompress(data.read_bytes()))
        except zlib.error as error:
            raise DatasetError(f"{name}: {data.name} is truncated or damaged.") from error
    expected = math.prod(dims) * pixel
    if content_size < expected:
        raise DatasetError(
            f"{name}: {data.name} is truncated, {content_size:,} of {expected:,} bytes."
        )


def _by(array: Array) -> str:
    return f"{array.shape[-2]} x {array.shape[-1]}"


def _some(values: list[int]) -> str:
    shown = ", ".join(str(value) for value in values[:6])
    return shown if len(values) <= 6 else f"{shown} and {len(values) - 6} more"
