"""PNG, JPEG, TIFF and BMP files, checked before Pillow sees them: whole, and not too large.

Pillow warns or allocates by what a header states, walks as many directories as a TIFF has, and
decodes as many passes as a JPEG has. Only what decides that is looked at here.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.support.reading import read_bytes

MOST_FILE = 2**28
MOST_CHUNKS = 100_000  # of a PNG; those of pixels have 8 kB and more
MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
MOST_DIRECTORIES = 100  # of a TIFF: one a picture
MOST_STRIPS = 2**17
MOST_VALUES = 2**22  # of one entry of a TIFF's directory
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that state a picture's size."""
J2K_START = b"\xff\x4f\xff\x51"
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323
STRIPS = (273, 279, 324, 325)
MOST_OF: Mapping[int, int] = dict.fromkeys(STRIPS, MOST_STRIPS)
TIFF_TYPES: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""{type of an entry: struct's letter} of whole numbers."""


def check_picture(path: Path, name: str, reader: str) -> None:
    """Refuse a file that is not whole, not of its suffix's format, or larger than is read.

    Args:
        path: of the file.
        name: how messages call it.
        reader: a key of `CHECKS`.

    Raises:
        DatasetError: one line of file and reason.
        OSError: it cannot be read.
    """
    CHECKS[reader](read_bytes(path, MOST_FILE), name)


def _check_size(rows: int, cols: int, name: str) -> None:
    if problem := too_large(rows, cols):
        raise DatasetError(f"{name}: states {problem}")


def _check_png(content: bytes, name: str) -> None:
    """Walk the chunks: 4 bytes of length, 4 of type, the data, 4 of CRC; IEND is the last."""
    if not content.startswith(PNG_SIGNATURE):
        raise DatasetError(f"{name}: not a PNG file ({len(content):,} bytes).")
    if content[24:25] == b"\x10" and content[25:26] != b"\x00":  # Pillow drops their lower halves
        raise DatasetError(f"{name}: colours of 16 bits each; store one grey channel.")
    position = len(PNG_SIGNATURE)
    for number in range(MOST_CHUNKS):
        if position + 12 > len(content):
            break
        (length,) = struct.unpack_from(">I", content, position)
        body = content[position + 4 : position + 8 + length]
        position += 12 + length
        if position > len(content):
            break
        if zlib.crc32(body) != struct.unpack_from(">I", content, position - 4)[0]:
            raise DatasetError(f"{name}: damaged PNG file, a checksum is wrong.")
        if (body[:4] == b"IHDR") != (number == 0) or (number == 0 and length != 13):
            raise DatasetError(f"{name}: damaged PNG file, its header is not where it should be.")
        if number == 0:
            cols, rows = struct.unpack_from(">2I", body, 4)
            _check_size(rows, cols, name)
        if body[:4] == b"IEND":
            return
    else:
        raise DatasetError(f"{name}: more than {MOST_CHUNKS:,} chunks; store the picture again.")
    raise DatasetError(f"{name}: truncated PNG file ({len(content):,} bytes).")


def _check_jpeg(content: bytes, name: str) -> None:
    """Start, sizes and end; what cameras and programs append after the end is let be."""
    if not content.startswith(b"\xff\xd8\xff"):
        raise DatasetError(f"{name}: not a JPEG file ({len(content):,} bytes).")
    if b"\xff\xd9" not in content[-1024:]:
        raise DatasetError(f"{name}: truncated JPEG file ({len(content):,} bytes).")
    for rows, cols in jpeg_sizes(content):
        _check_size(rows, cols, name)
    if content.count(b"\xff\xda") > MOST_SCANS:
        raise DatasetError(f"{name}: more than {MOST_SCANS} passes; store the picture again.")


def jpeg_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """(rows, columns) as the segments before a JPEG's pixels state them: one pair in a whole file.

    Args:
        content: of a JPEG, JPEG-LS or lossless JPEG file, from its first byte.
    """
    position = 2
    while 0 <= (position := content.find(b"\xff", position)) < len(content) - 9:
        marker = content[position + 1]
        if marker in (0x00, 0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # padding, or without a length
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker in JPEG_SIZES or marker == 0xF7:
            rows, cols = struct.unpack_from(">2H", content, position + 5)
            yield rows, cols
        position += 2 + max(length, 2)


def fits_in(content: bytes, rows: int, cols: int, bytes_each: int) -> bool:
    """Whether a picture compressed as RLE, JPEG or JPEG 2000 can be of a size: what it states of
    its own is the same, and it takes no more bytes than it would uncompressed, or few more.

    Args:
        content: as a DICOM file holds it.
        rows, cols, bytes_each: of the picture and its pixels.
    """
    if len(content) > 2 * rows * cols * bytes_each + 2**16:
        return False
    if content.startswith(b"\xff\xd8"):
        return (
            set(jpeg_sizes(content)) <= {(rows, cols)} and content.count(b"\xff\xda") <= MOST_SCANS
        )
    if (place := content.find(J2K_START)) >= 0 and len(content) >= place + 24:
        right, low, left, top = struct.unpack_from(">4I", content, place + 8)
        return (low - top, right - left) == (rows, cols)
    return True


def _check_tiff(content: bytes, name: str) -> None:
    """Walk the directories, each with a count, its entries, and the place of the next."""
    if not content.startswith(TIFF_STARTS):
        raise DatasetError(f"{name}: not a TIFF file ({len(content):,} bytes).")
    order, big = "<" if content[:1] == b"I" else ">", content[2:4].strip(b"\0") == b"+"
    number, count, size, offset = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    width = struct.calcsize(number)
    try:
        (place,) = struct.unpack_from(order + number, content, offset)
        for _ in range(MOST_DIRECTORIES):
            if not place:
                return
            (entries,) = struct.unpack_from(order + count, content, place)
            place += struct.calcsize(count)
            if place + entries * size > len(content):
                break
            stated: dict[int, int] = {}
            for at in range(place, place + entries * size, size):
                tag, kind, values = struct.unpack_from(f"{order}2H{number}", content, at)
                if values > MOST_OF.get(tag, MOST_VALUES):
                    raise DatasetError(f"{name}: a damaged TIFF file, entry {tag} is too long.")
                if tag in (WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT) and kind in TIFF_TYPES:
                    letter = TIFF_TYPES[kind]
                    (value,) = struct.unpack_from(order + letter, content, at + 4 + width)
                    stated[tag] = max(value, stated.get(tag, 0))
            _check_size(stated.get(HEIGHT, 1), stated.get(WIDTH, 1), name)
            if TILE_WIDTH in stated or TILE_HEIGHT in stated:
                _check_size(stated.get(TILE_HEIGHT, 1), stated.get(TILE_WIDTH, 1), name)
            (place,) = struct.unpack_from(order + number, content, place + entries * size)
        else:
            raise DatasetError(
                f"{name}: holds {MOST_DIRECTORIES} pictures and more; expected one, store each "
                "frame in its own file."
            )
    except (struct.error, OverflowError):
        pass  # a place beyond the end
    raise DatasetError(f"{name}: truncated TIFF file ({len(content):,} bytes).")


def _check_bmp(content: bytes, name: str) -> None:
    if not content.startswith(b"BM"):
        raise DatasetError(f"{name}: not a BMP file ({len(content):,} bytes).")
    if len(content) < 26:
        raise DatasetError(f"{name}: truncated BMP file ({len(content):,} bytes).")
    (header,) = struct.unpack_from("<I", content, 14)
    cols, rows = struct.unpack_from("<2H" if header == 12 else "<Ii", content, 18)
    _check_size(abs(rows), cols, name)


CHECKS: Mapping[str, Callable[[bytes, str], None]] = {
    "PNGImageIO": _check_png,
    "JPEGImageIO": _check_jpeg,
    "TIFFImageIO": _check_tiff,
    "BMPImageIO": _check_bmp,
}
