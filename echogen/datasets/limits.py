"""How much of anything is read: a header may ask for more than any machine has.

One frame is worked on as several arrays of 8 bytes a pixel, a recording as two of its own type, or
three of floats: with these bounds no file takes more than about 2 GB.
"""

from typing import Any

import numpy as np

from echogen.config import LEAST_MM, MOST_MM

MOST_SIDE = 16_384
MOST_PIXELS = 2**24
"""Of one picture, such as 4,096 x 4,096."""
MOST_FRAMES = 20_000
MOST_RECORDED = 2**29
"""Pixels of a whole recording: 1,100 frames of 800 x 600."""
MOST_BYTES, MOST_FLOAT_BYTES = 6 * 2**27, 5 * 2**27
"""Of the values of a recording, as they are in memory."""


def is_spacing(row_mm: float, col_mm: float) -> bool:
    """Whether millimetres per pixel can be any."""
    return all(LEAST_MM <= side <= MOST_MM for side in (row_mm, col_mm))


def too_large(
    rows: int, cols: int, frames: int = 1, kind: str | np.dtype[Any] = "u1", channels: int = 1
) -> str:
    """Why so much is not read, for the end of a message; empty where it is.

    Args:
        rows, cols: of one picture.
        frames: pictures in the file.
        kind: numpy's name of a value's type, as it is in memory.
        channels: values a pixel.
    """
    if min(rows, cols, frames) < 1:
        return f"{frames:,} pictures of {rows:,} x {cols:,} pixels; expected at least one of each."
    if max(rows, cols) > MOST_SIDE or rows * cols > MOST_PIXELS:
        return (
            f"pictures of {rows:,} x {cols:,} pixels; expected {MOST_SIDE:,} a side and "
            f"{MOST_PIXELS:,} in all, at most."
        )
    of = np.dtype(kind)
    most_bytes = MOST_FLOAT_BYTES if of.kind == "f" else MOST_BYTES
    most = min(MOST_RECORDED, most_bytes // (channels * of.itemsize))
    if frames > MOST_FRAMES or rows * cols * frames > most:
        name = f"{channels} x {of.name}" if channels > 1 else of.name
        return (
            f"{frames:,} pictures of {rows:,} x {cols:,} pixels of {name}; expected "
            f"{MOST_FRAMES:,} pictures and {most:,} pixels, at most: cut the recording."
        )
    return ""
