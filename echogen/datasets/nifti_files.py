"""NIfTI files, checked before ITK sees them: it fills what a truncated one lacks, turns NaN into 0,
and takes whatever memory a header asks for.

Files are unpacked block by block, so that memory does not grow with what is behind a small file.
"""

import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from echogen.datasets.limits import too_large
from echogen.errors import DatasetError
from echogen.support.reading import open_regular

TYPES: Mapping[int, tuple[int, int]] = {
    2: (8, 1),
    4: (16, 1),
    8: (32, 1),
    16: (32, 1),
    64: (64, 1),
    128: (24, 3),
    256: (8, 1),
    512: (16, 1),
    768: (32, 1),
    1024: (64, 1),
    1280: (64, 1),
    2304: (32, 4),
}
"""{datatype: (bits, channels)} of those that can be grey levels, class ids or colours."""
FLOATS: Mapping[int, str] = {16: "f4", 64: "f8"}
MOST_CHANNELS = 4  # along the fifth axis
HEADER = 540  # bytes of NIfTI-2's, 348 of NIfTI-1's
MAGIC: Mapping[int, tuple[int, bytes]] = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}
"""{bytes of the header: (where, what)} of a file that holds its own pixels."""
OTHER_MAGIC: Mapping[int, tuple[bytes, ...]] = {348: (b"ni1\0", bytes(4))}
"""Of a header beside its pixels, and of Analyze's, where one file holds both all the same."""
MOST_OFFSET = 2**26  # extensions stand before the pixels
GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 2**20
SPARE = 2**20
"""Bytes that may follow the pixels."""
MOST_MEMBERS = 2**14  # of a gzip file; bgzip writes one each 64 kB
MOST_PADDING = 2**20  # zeros after a gzip file, as tapes and disks leave them


@dataclass(frozen=True)
class NiftiHeader:
    """What is needed of a header.

    Attributes:
        sizes: along x, y and what follows.
        order: of bytes, `<` or `>`.
        kind: a key of `TYPES`.
        offset: where the pixels begin.
    """

    sizes: tuple[int, ...]
    order: str
    kind: int
    offset: int

    @property
    def bytes(self) -> int:
        """Of all pixels as they are stored."""
        return math.prod(self.sizes) * TYPES[self.kind][0] // 8


def read_nifti_header(path: Path, name: str) -> NiftiHeader:
    """A file's header, with every field that ITK uses checked.

    Args:
        path: of the file.
        name: how messages call it.

    Raises:
        DatasetError: it is damaged, or asks for more than is read.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return _header(_Unpacked(file, name, block=HEADER).read(HEADER), name)


def check_nifti(path: Path, name: str) -> None:
    """Refuse a file that is not whole, holds more than its header says, or NaN.

    Raises:
        DatasetError, OSError: as `read_nifti_header`.
    """
    header = read_nifti_header(path, name)
    expected = header.offset + header.bytes
    with open_regular(path) as file:
        content = _Unpacked(file, name)
        if not content.packed:
            found = os.fstat(file.fileno()).st_size
            if header.kind not in FLOATS or found < expected:
                _check_length(found, expected, name)
                return
        found, wrong = len(content.read(header.offset)), 0
        while block := content.read(min(BLOCK, expected - found)):
            found += len(block)
            if header.kind in FLOATS:  # every block but a truncated file's last has whole values
                kind = np.dtype(header.order + FLOATS[header.kind])
                values = np.frombuffer(block, kind, len(block) // kind.itemsize)
                wrong += int((~np.isfinite(values)).sum())
        while found <= expected + SPARE and (block := content.read(BLOCK)):
            found += len(block)
    _check_length(found, expected, name)
    if wrong:
        count = math.prod(header.sizes)
        raise DatasetError(f"{name}: {wrong:,} of {count:,} values are NaN or infinite.")


def labelled_slices(path: Path, name: str) -> tuple[int, ...]:
    """Numbers of the slices (along the last axis) of a file that hold more than zeros.

    Args:
        path, name: as in `read_nifti_header`.

    Raises:
        DatasetError: it cannot be read, is truncated, or is no NIfTI file.
    """
    try:
        header = read_nifti_header(path, name)
        size = header.bytes // header.sizes[-1]
        empty, found = bytes(size), []
        with open_regular(path) as file:
            content = _Unpacked(file, name)
            content.read(header.offset)
            for number in range(header.sizes[-1]):
                plane = content.read(size)
                if len(plane) < size:
                    raise DatasetError(f"{name}: truncated, slice {number} is not whole.")
                if plane != empty:
                    found.append(number)
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error}).") from error
    return tuple(found)


def _check_length(found: int, expected: int, name: str) -> None:
    if found < expected:
        raise DatasetError(f"{name}: truncated, {found:,} of {expected:,} bytes (uncompressed).")
    if found > expected + SPARE:
        raise DatasetError(
            f"{name}: holds more than the {expected:,} bytes that its header states; damaged, or "
            "not a NIfTI file."
        )


def _header(content: bytes, name: str) -> NiftiHeader:
    for order in "<>":
        length = struct.unpack_from(order + "i", content)[0] if len(content) >= 348 else 0
        if length == 348 or (length == 540 and len(content) >= 540):
            break
    else:
        raise DatasetError(f"{name}: not a NIfTI file ({len(content):,} bytes).")

    def fields(first: tuple[str, int], second: tuple[str, int]) -> tuple[int | float, ...]:
        layout, at = first if length == 348 else second
        return struct.unpack_from(order + layout, content, at)

    dims = tuple(map(int, fields(("8h", 40), ("8q", 16))))
    kind = int(fields(("h", 70), ("h", 12))[0])
    (start,) = fields(("f", 108), ("q", 168))
    slope, inter = fields(("2f", 112), ("2d", 176))
    pixel = fields(("8f", 76), ("8d", 104))
    quaternion, srow = fields(("6f", 256), ("6d", 352)), fields(("12f", 280), ("12d", 400))
    codes = fields(("2h", 252), ("2i", 344))
    at, magic = MAGIC[length]
    sizes = dims[1 : 1 + max(dims[0], 0)]
    damaged = f"{name}: damaged NIfTI header"
    if not (2 <= dims[0] <= 7 and min(sizes) >= 1):
        raise DatasetError(f"{damaged} (dimensions {dims[0]}, {sizes}).")
    if content[at : at + len(magic)] not in (magic, *OTHER_MAGIC.get(length, ())):
        raise DatasetError(f"{damaged} (not of one file with header and pixels).")
    if kind not in TYPES:
        raise DatasetError(f"{damaged} (pixels of type {kind}).")
    if not 0 <= start <= MOST_OFFSET:
        raise DatasetError(f"{damaged} (its pixels begin at byte {start}).")
    placed = [*pixel[1:3], *(quaternion if codes[0] > 0 else ()), *(srow if codes[1] > 0 else ())]
    if not all(math.isfinite(value) for value in placed):
        raise DatasetError(f"{damaged} (a spacing or position that is not a number).")
    scaled = math.isfinite(slope) and slope != 0 and (slope != 1 or inter != 0)
    cols, rows = sizes[:2]
    channels, planes = math.prod(sizes[4:]), math.prod(sizes[2:4])
    bits = TYPES[kind][0] // TYPES[kind][1]
    if kind in FLOATS or scaled:  # ITK makes floats of what the header scales
        held = "f4" if bits <= 16 or kind == 16 else "f8"
    else:
        held = f"u{bits // 8}"
    if channels > MOST_CHANNELS:
        raise DatasetError(f"{damaged} ({channels:,} channels).")
    if problem := too_large(rows, cols, planes, held, channels * TYPES[kind][1]):
        raise DatasetError(f"{name}: holds {problem}")
    return NiftiHeader(sizes, order, kind, max(int(start), length))  # as ITK does


class _Unpacked:
    """The bytes of a file, without gzip where it is packed; no more of them than are asked for.

    Not `gzip`, whose reader takes a byte at a time of what stands before the data.
    """

    def __init__(self, file: BinaryIO, name: str, block: int = BLOCK) -> None:
        self.file, self.name, self.block = file, name, block
        self.packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        self.blocks: Iterator[bytes] = self._members() if self.packed else iter(())
        self.left = b""

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end.

        Raises:
            DatasetError: the gzip file is damaged.
        """
        if not self.packed:
            return self.file.read(size)
        parts, held = [self.left], len(self.left)
        while held < size and (block := next(self.blocks, b"")):
            parts.append(block)
            held += len(block)
        content = b"".join(parts)
        self.left = content[size:]
        return content[:size]

    def _members(self) -> Iterator[bytes]:
        damaged = DatasetError(f"{self.name}: truncated or damaged gzip file.")
        packed = self.file.read(self.block)
        for _ in range(MOST_MEMBERS):
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not unpacker.eof:
                try:
                    block = unpacker.decompress(packed, self.block)
                except zlib.error as error:
                    raise damaged from error
                packed = unpacker.unconsumed_tail
                if block:
                    yield block
                elif not unpacker.eof and not (packed := packed or self.file.read(self.block)):
                    raise damaged
            packed, padding = unpacker.unused_data.lstrip(b"\0"), 0
            while not packed and (block := self.file.read(self.block)):
                packed, padding = block.lstrip(b"\0"), padding + len(block)
                if padding > MOST_PADDING + self.block:
                    raise damaged
            if not packed:
                return
        raise damaged
