"""MetaImage files, `.mhd` with its pixels beside it or `.mha` with them inside.

They are read here: ITK's own reader ends the process at headers that are a little wrong.
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.support.reading import open_regular, reason
from echogen.support.words import one_line

TYPES: Mapping[str, str] = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
}
MOST_LINES, MOST_LINE = 5000, 2**16
MOST_DIMENSIONS, MOST_CHANNELS = 5, 4
LOCAL = "LOCAL"
BLOCK = 2**20
_FIELD = re.compile(r"\s*(?P<field>[^=:\n]*[^=:\s])\s*[=:](?P<value>.*)", re.DOTALL)
_WHOLE = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True)
class MetaHeader:
    """What is needed of a header.

    Attributes:
        sizes: along x, y and what follows.
        spacing: (row, col) mm.
        kind: numpy's name of a value's type, with the order of its bytes.
        channels: values a pixel.
        data: the file of the pixels.
        start: where they begin in it; None where they are its last bytes.
        packed: whether they are deflated.
    """

    sizes: tuple[int, ...]
    spacing: tuple[float, float]
    kind: np.dtype[Any]
    channels: int
    data: Path
    start: int | None
    packed: bool

    @property
    def bytes(self) -> int:
        """Of all pixels, unpacked."""
        return math.prod(self.sizes) * self.channels * self.kind.itemsize


def meta_data_file(header: Path) -> Path | None:
    """The file that holds a `.mhd` header's pixels; None where the header does not say."""
    try:
        name = _fields(header)[0].get("ElementDataFile", "").removeprefix("./")
    except (OSError, ValueError):
        return None
    return header.with_name(name) if _is_plain(name) and name.upper() != LOCAL else None


def read_meta_header(path: Path, name: str) -> MetaHeader:
    """A file's header, with every field that is used checked.

    Args:
        path: of the header.
        name: how messages call it.

    Raises:
        DatasetError: it is damaged, of a kind that is not read, or asks for more than is read.
        OSError: the file cannot be read.
    """
    try:
        fields, end = _fields(path)
        for field in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
            if field not in fields:
                raise ValueError(f"it has no {field}")
        count = _whole(fields, "NDims")
        sizes = tuple(_whole({"DimSize": one}, "DimSize") for one in fields["DimSize"].split())
        spacing = _spacing(fields)
        channels = _whole(fields, "ElementNumberOfChannels", "1")
        skipped = _whole(fields, "HeaderSize", "0")
        packed = _is_true(fields.get("CompressedData", "False"))
        data = fields["ElementDataFile"].removeprefix("./")
        fits = {
            "NDims": 2 <= count <= MOST_DIMENSIONS,
            "DimSize": len(sizes) == count and min(sizes) >= 1,
            "ElementSpacing": len(spacing) in (0, count),
            "ElementType": fields["ElementType"] in TYPES,
            "ElementNumberOfChannels": 1 <= channels <= MOST_CHANNELS,
            "HeaderSize": skipped >= (0 if packed else -1),
            "BinaryData": _is_true(fields.get("BinaryData", "True")),
            "ElementDataFile": _is_plain(data),
        }
        for field, fit in fits.items():
            if not fit:
                raise _wrong(fields, field)
    except ValueError as error:
        raise DatasetError(f"{name}: cannot be read as a MetaImage header: {error}.") from error
    kind = np.dtype(TYPES[fields["ElementType"]])
    order = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    kind = kind.newbyteorder(">" if _is_true(order) else "<")
    cols, rows = sizes[:2]
    if problem := too_large(rows, cols, math.prod(sizes[2:]), kind, channels):
        raise DatasetError(f"{name}: holds {problem}")
    local = data.upper() == LOCAL
    return MetaHeader(
        sizes,
        (spacing[1], spacing[0]) if spacing else (1.0, 1.0),
        kind,
        channels,
        path if local else path.with_name(data),
        None if skipped < 0 else skipped or (end if local else 0),
        packed,
    )


def read_meta(path: Path, name: str) -> tuple[npt.NDArray[Any], tuple[float, float], int]:
    """The pixels, (..., H, W) or (..., H, W, C) of the file's own type, (row, col) mm, and C.

    Raises:
        DatasetError, OSError: as `read_meta_header`, or the pixels are missing or cut off.
    """
    header = read_meta_header(path, name)
    of = header.data.name
    try:
        with open_regular(header.data) as file:
            if header.start is None:
                file.seek(max(file.seek(0, 2) - header.bytes, 0))
            else:
                file.seek(header.start)
            content = _unpacked(file, header.bytes) if header.packed else file.read(header.bytes)
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: its pixels are missing, no file {of} beside it.") from error
    except OSError as error:
        raise DatasetError(f"{name}: {of} cannot be read ({reason(error)}).") from error
    except zlib.error as error:
        raise DatasetError(f"{name}: {of} is truncated or damaged.") from error
    if len(content) < header.bytes:
        raise DatasetError(
            f"{name}: {of} is truncated, {len(content):,} of {header.bytes:,} bytes."
        )
    values = np.frombuffer(content, header.kind, math.prod(header.sizes) * header.channels)
    shape = header.sizes[::-1] + ((header.channels,) if header.channels > 1 else ())
    native = header.kind.newbyteorder("=")
    return values.astype(native).reshape(shape), header.spacing, header.channels


def _unpacked(file: BinaryIO, most: int) -> bytes:
    """What is deflated in the rest of a file; of more than `most` bytes, the first and one."""
    unpacker, parts, found = zlib.decompressobj(), [], 0
    packed = b""
    while not unpacker.eof and found <= most:
        packed = packed or file.read(BLOCK)
        if not packed:
            raise zlib.error("ends before it should")
        parts.append(unpacker.decompress(packed, min(BLOCK, most + 1 - found)))
        packed = unpacker.unconsumed_tail
        found += len(parts[-1])
    return b"".join(parts)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields up to the name of the file of pixels, and how long all of them are.

    Raises:
        ValueError: a line is none of a header.
        OSError: the file cannot be read.
    """
    fields: dict[str, str] = {}
    with open_regular(path) as file:
        while "ElementDataFile" not in fields and (line := file.readline(MOST_LINE)):
            text = line.decode("utf-8" if fields else "utf-8-sig", "replace")
            match = _FIELD.fullmatch(text)
            if match is None and text.strip():
                raise ValueError(f"{one_line(text, 40)!r} is not a field")
            if len(fields) == MOST_LINES:
                raise ValueError(f"it has more than {MOST_LINES:,} fields")
            if match is not None:
                fields[match["field"]] = match["value"].strip()
        return fields, file.tell()


def _wrong(fields: Mapping[str, str], field: str) -> ValueError:
    return ValueError(f"{field} is {one_line(fields.get(field, ''), 40)!r}, which is not read")


def _whole(fields: Mapping[str, str], field: str, default: str = "") -> int:
    text = fields.get(field, default)
    if not _WHOLE.fullmatch(text):
        raise _wrong(fields, field)
    return int(text)


def _spacing(fields: Mapping[str, str]) -> list[float]:
    """Along x, y and what follows; none where the header has none."""
    field = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    try:
        found = [abs(float(text)) for text in fields.get(field, "").split()]
    except ValueError:
        raise _wrong(fields, field) from None
    if not all(map(math.isfinite, found)):
        raise _wrong(fields, field)
    return found


def _is_plain(name: str) -> bool:
    """Whether it is the name of a file beside the header, and no path or pattern."""
    return 0 < len(name) <= 255 and Path(name).name == name and name.isprintable()


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "t", "1")
