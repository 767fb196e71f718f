"""Small videos of simulated hearts, and their tables, as EchoNet's datasets have them."""

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from echogen.datasets.tracings import LINES
from echogen.phantom import PHASES, make_frame

SIZE, FRAMES = 112, 7
AT = {"ES": 2, "ED": 5}
Rows = list[dict[str, Any]]


def squared(image: np.ndarray) -> np.ndarray:
    """The middle 112 x 112 pixels, black where there are none."""
    out = np.zeros((SIZE, SIZE), np.uint8)
    top, left = ((SIZE - size) // 2 for size in image.shape)
    there = image[max(0, -top) :, max(0, -left) :][:SIZE, :SIZE]
    rows, cols = there.shape
    out[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + cols] = there
    return out


@cache
def phantom(index: int, phase: str) -> tuple[np.ndarray, np.ndarray]:
    made = make_frame(index, "4CH", phase, spacing_mm=(1.5, 1.5))  # type: ignore[arg-type]
    return squared(made.image), squared((made.label == 1).astype(np.uint8))


def pictures(index: int) -> list[np.ndarray]:
    """FRAMES images, darker by frame but for the two phases."""
    named = {AT[phase]: phantom(index, phase)[0] for phase in PHASES}
    dark = [(phantom(index, "ES")[0] // (2 + n)).astype(np.uint8) for n in range(FRAMES)]
    return [named.get(n, dark[n]) for n in range(FRAMES)]


def write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=50)
        stream.bit_rate = 8_000_000
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuvj420p"
        for image in images:
            colours = np.repeat(image[..., None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colours, format="rgb24")))
        container.mux(stream.encode(None))


def traced(video: str, label: np.ndarray, frame: int) -> Rows:
    """A label as EchoNet writes it: the long axis, then 20 chords from the apex down."""
    rows = np.flatnonzero(label.any(axis=1))
    levels = np.linspace(rows[0], rows[-1], LINES - 1).round().astype(int)
    ends = [(np.flatnonzero(label[row])[[0, -1]], row) for row in levels]
    middle = [float(cols.mean()) for cols, _ in ends]
    lines = [(middle[0], levels[0], middle[-1], levels[-1])]
    lines += [(float(cols[0]), row, float(cols[1]), row) for cols, row in ends]
    return [
        {"FileName": f"{video}.avi", "X1": x1, "Y1": y1, "X2": x2, "Y2": y2, "Frame": frame}
        for x1, y1, x2, y2 in lines
    ]


def listed(video: str, split: str = "TRAIN") -> dict[str, Any]:
    return {
        "FileName": video, "EF": 55.5, "ESV": 40.25, "EDV": 90.5, "FrameHeight": SIZE,
        "FrameWidth": SIZE, "FPS": 50, "NumberOfFrames": FRAMES, "Split": split,
    }  # fmt: skip


def write_table(path: Path, rows: Rows) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
