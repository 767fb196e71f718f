"""Whether an image file is whole, told from its bytes before SimpleITK sees it.

Needed because ITK fills what a truncated NIfTI file lacks, and turns its NaN into 0, without a
word; and because its C libraries complain on standard error. Also tells formats by suffix.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from echogen.errors import DatasetError

IMAGE_IO: Mapping[str, str] = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mhd": "MetaImageIO",
    ".mha": "MetaImageIO",
    ".png": "PNGImageIO",
    ".jpg": "JPEGImageIO",
    ".jpeg": "JPEGImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
    ".bmp": "BMPImageIO",
}
FORMATS: Mapping[str, str] = {
    "NiftiImageIO": "NIfTI",
    "MetaImageIO": "MetaImage",
    "PNGImageIO": "PNG",
    "JPEGImageIO": "JPEG",
    "TIFFImageIO": "TIFF",
    "BMPImageIO": "BMP",
}
BITMAPS = frozenset({"PNGImageIO", "JPEGImageIO", "TIFFImageIO", "BMPImageIO"})
"""Pictures without millimetres, which Pillow reads."""
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
META_LINES, META_LENGTH = 200, "bytes of the header"
NIFTI_FLOATS: Mapping[int, str] = {16: "f4", 64: "f8"}
NIFTI_HEADER = 540  # bytes of NIfTI-2's, 348 of NIfTI-1's
GZIP_MAGIC = b"\x1f\x8b"
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def suffix_of(name: str) -> str:
    """The part of a file name that tells its format, lower case, or "" where it is none of ours."""
    lowered = name.lower()
    return next((suffix for suffix in IMAGE_IO if lowered.endswith(suffix)), "")


def is_bitmap(name: str) -> bool:
    """Whether a file is a picture without millimetres."""
    return IMAGE_IO.get(suffix_of(name), "") in BITMAPS


def formats_of(names: Iterable[str]) -> tuple[str, ...]:
    """The formats of files by their names, each once, in the order of `FORMATS`."""
    used = {IMAGE_IO[suffix_of(name)] for name in names}
    return tuple(title for reader, title in FORMATS.items() if reader in used)


def meta_data_file(header: Path) -> Path | None:
    """The file that holds a `.mhd` header's pixels; None where the header does not say."""
    try:
        name = _meta_fields(header).get("ElementDataFile", "")
        name = "" if name == "LOCAL" else name
    except (OSError, UnicodeDecodeError):
        return None
    return header.with_name(name) if name and Path(name).name == name else None


def with_data_files(*headers: Path | None) -> tuple[Path, ...]:
    """The headers that there are, each with the file of its pixels where that is another one."""
    paths: list[Path] = []
    for header in headers:
        if header is not None:
            paths.append(header)
            data = meta_data_file(header) if suffix_of(header.name) == ".mhd" else None
            paths += [data] if data is not None else []
    return tuple(paths)


def check_file(path: Path, name: str) -> None:
    """Refuse a file that is not whole, not of its suffix's format, or holds NaN.

    Args:
        path: a file whose `suffix_of` is known.
        name: how messages call it.

    Raises:
        DatasetError: one line of file and reason.
        OSError: it cannot be read.
    """
    reader = IMAGE_IO[suffix_of(path.name)]
    if reader == "NiftiImageIO":
        _check_nifti(path.read_bytes(), name)
    elif reader == "MetaImageIO":
        _check_meta(path, name)
    elif reader == "JPEGImageIO":
        _check_jpeg(path.read_bytes(), name)
    elif reader == "TIFFImageIO":
        _check_start(path, name, TIFF_STARTS, "TIFF")
    elif reader == "BMPImageIO":
        _check_start(path, name, (b"BM",), "BMP")
    else:
        _check_png(path.read_bytes(), name)


def sizes_of(path: Path, name: str) -> tuple[int, ...]:
    """Sizes along x, y and what follows, from the header of a NIfTI or MetaImage file alone.

    Args:
        path, name: as in `check_file`.

    Raises:
        DatasetError: it cannot be read, or has no such header.
    """
    try:
        if IMAGE_IO[suffix_of(path.name)] == "NiftiImageIO":
            return _nifti_header(_first_bytes(path, name), name).sizes
        return _meta_sizes(path, name)
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error}).") from error


def _first_bytes(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            return file.read(NIFTI_HEADER)
        try:
            with gzip.open(file) as content:
                return content.read(NIFTI_HEADER)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{name}: truncated or damaged gzip file.") from error


def labelled_slices(path: Path, name: str) -> tuple[int, ...]:
    """Numbers of the slices (along the last axis) of a NIfTI file that hold more than zeros.

    The file is unpacked slice by slice, so that memory does not grow with it.

    Args:
        path, name: as in `check_file`.

    Raises:
        DatasetError: it cannot be read, is truncated, or is no NIfTI file.
    """
    header = _nifti_header(_first_bytes(path, name), name)
    size = math.prod(header.sizes[:-1]) * header.bits // 8
    empty, found = bytes(size), []
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            with gzip.open(file) if packed else nullcontext(file) as content:
                content.read(header.offset)
                for number in range(header.sizes[-1]):
                    plane = content.read(size)
                    if len(plane) < size:
                        raise DatasetError(f"{name}: truncated, slice {number} is not whole.")
                    if plane != empty:
                        found.append(number)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{name}: truncated or damaged gzip file.") from error
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error}).") from error
    return tuple(found)


class _NiftiHeader(NamedTuple):
    sizes: tuple[int, ...]
    order: str
    kind: int
    bits: int
    offset: int


def _nifti_header(content: bytes, name: str) -> _NiftiHeader:
    for order in "<>":
        if len(content) >= 348 and struct.unpack_from(order + "i", content)[0] == 348:
            dims: tuple[int, ...] = struct.unpack_from(order + "8h", content, 40)
            kind, bits = struct.unpack_from(order + "2h", content, 70)
            start = struct.unpack_from(order + "f", content, 108)[0]
            break
        if len(content) >= NIFTI_HEADER and struct.unpack_from(order + "i", content)[0] == 540:
            dims = struct.unpack_from(order + "8q", content, 16)
            kind, bits = struct.unpack_from(order + "2h", content, 12)
            start = struct.unpack_from(order + "q", content, 168)[0]
            break
    else:
        raise DatasetError(f"{name}: not a NIfTI file ({len(content):,} bytes).")
    sizes = dims[1 : 1 + max(dims[0], 0)]
    if not (1 <= dims[0] <= 7 and min(sizes) >= 1 and math.isfinite(start) and start >= 0):
        raise DatasetError(f"{name}: damaged NIfTI header (dimensions {dims[0]}, {sizes}).")
    return _NiftiHeader(sizes, order, kind, bits, int(start))


def _check_nifti(content: bytes, name: str) -> None:
    if content[:2] == GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{name}: truncated or damaged gzip file.") from error
    sizes, order, kind, bits, offset = _nifti_header(content, name)
    count = math.prod(sizes)
    expected = offset + count * bits // 8
    if len(content) < expected:
        raise DatasetError(
            f"{name}: truncated, {len(content):,} of {expected:,} bytes (uncompressed)."
        )
    if kind in NIFTI_FLOATS and bits == 8 * int(NIFTI_FLOATS[kind][1]):
        values = np.frombuffer(content, order + NIFTI_FLOATS[kind], count, offset)
        wrong = int((~np.isfinite(values)).sum())
        if wrong:
            raise DatasetError(f"{name}: {wrong:,} of {count:,} values are NaN or infinite.")


def _meta_fields(header: Path) -> dict[str, str]:
    """The fields up to the name of the file of pixels; in a `.mha` file, pixels follow."""
    fields: dict[str, str] = {}
    with header.open("rb") as file:
        for line in islice(file, META_LINES):
            field, _, value = line.decode("utf-8").partition("=")
            fields[field.strip()] = value.strip()
            if field.strip() == "ElementDataFile":
                break
        fields[META_LENGTH] = str(file.tell())
    return fields


def _meta_sizes(header: Path, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in _meta_fields(header)["DimSize"].split())
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{name}: cannot be read as a MetaImage header.") from error


def _check_meta(header: Path, name: str) -> None:
    try:
        fields = _meta_fields(header)
        pixel = META_BYTES[fields["ElementType"]] * int(fields.get("ElementNumberOfChannels", "1"))
        local = fields["ElementDataFile"] == "LOCAL"
        data = header if local else header.with_name(fields["ElementDataFile"])
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{name}: cannot be read as a MetaImage header.") from error
    dims = _meta_sizes(header, name)
    if not data.is_file():
        raise DatasetError(f"{name}: its pixels are missing, no file {data.name} beside it.")
    start = int(fields[META_LENGTH]) if local else 0
    found = data.stat().st_size - start
    if fields.get("CompressedData", "False").lower() == "true":
        try:
            found = len(zlib.decompress(data.read_bytes()[start:]))
        except zlib.error as error:
            raise DatasetError(f"{name}: {data.name} is truncated or damaged.") from error
    expected = math.prod(dims) * pixel
    if found < expected:
        raise DatasetError(f"{name}: {data.name} is truncated, {found:,} of {expected:,} bytes.")


def _check_start(path: Path, name: str, starts: tuple[bytes, ...], format: str) -> None:
    """The first bytes; what follows is checked where it is decoded."""
    with path.open("rb") as file:
        if not file.read(4).startswith(starts):
            raise DatasetError(f"{name}: not a {format} file ({path.stat().st_size:,} bytes).")


def _check_png(content: bytes, name: str) -> None:
    """Walk the chunks: 4 bytes of length, 4 of type, the data, 4 of CRC; IEND is the last."""
    if not content.startswith(PNG_SIGNATURE):
        raise DatasetError(f"{name}: not a PNG file ({len(content):,} bytes).")
    if content[24:25] == b"\x10" and content[25:26] != b"\x00":  # Pillow drops their lower halves
        raise DatasetError(f"{name}: colours of 16 bits each; store one grey channel.")
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        body = content[position + 4 : position + 8 + length]
        position += 12 + length
        if position > len(content):
            break
        if zlib.crc32(body) != struct.unpack_from(">I", content, position - 4)[0]:
            raise DatasetError(f"{name}: damaged PNG file, a checksum is wrong.")
        if body[:4] == b"IEND":
            return
    raise DatasetError(f"{name}: truncated PNG file ({len(content):,} bytes).")


def _check_jpeg(content: bytes, name: str) -> None:
    """Start and end markers; what cameras and programs append after the end is let be."""
    if not content.startswith(b"\xff\xd8\xff"):
        raise DatasetError(f"{name}: not a JPEG file ({len(content):,} bytes).")
    if b"\xff\xd9" not in content[-1024:]:
        raise DatasetError(f"{name}: truncated JPEG file ({len(content):,} bytes).")
