"""How much of anything is read: a header may ask for more than any machine has.

One frame is worked on as several arrays of 8 bytes a pixel, a recording as a few of its own type:
with these bounds no file takes more than about 1.5 GB.
"""

MOST_SIDE = 16_384
MOST_PIXELS = 2**24
"""Of one picture, such as 4,096 x 4,096."""
MOST_FRAMES = 20_000
MOST_BYTES = 2**29
"""Of the values of a whole recording: 1,100 frames of 800 x 600 grey levels."""
MOST_FILE = 2**30


def too_large(rows: int, cols: int, frames: int = 1, bytes_each: int = 1) -> str:
    """Why so much is not read, for the end of a message; empty where it is.

    Args:
        rows, cols: of one picture.
        frames: pictures in the file.
        bytes_each: of a pixel, as it is in memory.
    """
    if min(rows, cols, frames) < 1:
        return f"{frames:,} pictures of {rows:,} x {cols:,} pixels; expected at least one of each."
    if max(rows, cols) > MOST_SIDE or rows * cols > MOST_PIXELS:
        return (
            f"pictures of {rows:,} x {cols:,} pixels; expected {MOST_SIDE:,} a side and "
            f"{MOST_PIXELS:,} in all, at most."
        )
    if frames > MOST_FRAMES or rows * cols * frames * bytes_each > MOST_BYTES:
        return (
            f"{frames:,} pictures of {rows:,} x {cols:,} pixels, {bytes_each} bytes each; expected "
            f"{MOST_FRAMES:,} pictures and {MOST_BYTES:,} bytes, at most: cut the recording."
        )
    return ""
