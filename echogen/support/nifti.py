"""NIfTI-1 images byte by byte, and gzip without time or name: the same bytes with every library.

The header is the one that CAMUS' own files carry: two dimensions, uint8, axes turned half round (x
and y negative), as ITK writes identity.
"""

import struct
import zlib

from echogen.types import UInt8HW

_HEADER_BYTES = 348
_DATA_OFFSET = 352


def nifti_bytes(pixels: UInt8HW, spacing_mm: tuple[float, float]) -> bytes:
    """An (H, W) uint8 array as an uncompressed NIfTI-1 file; `spacing_mm` is (row, col)."""
    rows, cols = pixels.shape
    dy, dx = spacing_mm
    header = bytearray(_HEADER_BYTES)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 2, cols, rows, 1, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # uint8, 8 bits
    struct.pack_into("<8f", header, 76, 1.0, dx, dy, 1.0, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<3f", header, 108, float(_DATA_OFFSET), 1.0, 0.0)
    header[123] = 2 | 8  # millimetres, seconds
    struct.pack_into("<2h", header, 252, 1, 1)
    struct.pack_into("<6f", header, 256, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    struct.pack_into("<12f", header, 280, -dx, 0, 0, 0, 0, -dy, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(_DATA_OFFSET - _HEADER_BYTES) + pixels.tobytes()


def gzip_bytes(content: bytes) -> bytes:
    """`content` as a gzip file without time, name or system in its header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(content) + packer.flush()
    tail = struct.pack("<2I", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff" + body + tail
