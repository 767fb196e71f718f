"""Videos as grey levels: each is decoded once, from its first frame to its last, and kept a while.

PyAV decodes them, the optional extra `video`; it is imported when the first frame is read.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from echogen.datasets.base import UInt8Clip, relative
from echogen.datasets.limits import MOST_FRAMES, MOST_RECORDED, too_large
from echogen.errors import DatasetError
from echogen.support.files import stamp
from echogen.support.reading import open_regular, reason
from echogen.types import FrameKey, UInt8HW

LARGEST = MOST_RECORDED
"""Pixels in all; an echocardiogram of some beats has far fewer."""
OPTIONS = {"format_whitelist": "avi,mov,matroska,mpeg,mpegts", "protocol_whitelist": "file"}
"""Of FFmpeg: containers that hold a video themselves. Others name files and addresses to open."""


@dataclass(frozen=True)
class _Video:
    """What could be decoded.

    Attributes:
        frames: (N, H, W), in the order of display.
        damaged: numbers of frames that the decoder had to guess.
        broken: why decoding ended before the video did; empty where it did not.
    """

    frames: UInt8Clip
    damaged: frozenset[int]
    broken: str


def read_video_frame(path: Path, number: int, name: str) -> UInt8HW:
    """Frame `number` (from 0) of a video's first stream, (H, W) uint8.

    Decoded by one thread, so that the same file gives the same pixels. Colours become luminance, in
    the full range 0..255.

    Args:
        path: the video.
        number: in the order of display.
        name: how messages call the file.

    Raises:
        DatasetError: it cannot be decoded that far, ends before, or is too large; one line.
    """
    video = _decoded(path, name)
    held = len(video.frames)
    if number in video.damaged:
        raise DatasetError(f"{name}: frame {number} is damaged.")
    if number < held:
        frame: UInt8HW = video.frames[number].copy()
        return frame
    if video.broken:
        raise DatasetError(f"{name}: cannot be decoded up to frame {number} ({video.broken}).")
    raise DatasetError(
        f"{name}: frame {number} is past the end of the video, which holds {held} (from 0)."
    )


def read_video(root: Path, key: FrameKey) -> UInt8Clip:
    """Every frame of a key's video that is whole, (N, H, W) uint8.

    Args:
        root: messages name files relative to it.
        key: its first path is the video.

    Raises:
        DatasetError: not one frame can be decoded, or it is too large.
    """
    name = relative(root, key.paths[0])
    video = _decoded(key.paths[0], name)
    whole = [number for number in range(len(video.frames)) if number not in video.damaged]
    if not whole:
        raise DatasetError(f"{name}: not one frame can be decoded.")
    return np.asarray(video.frames[whole], dtype=np.uint8)


_one_decoder = Lock()  # threads that need the frames of one video wait for one of them to decode it


def _decoded(path: Path, name: str) -> _Video:
    with _one_decoder:
        return _decode(path, name, stamp(path))


@lru_cache(maxsize=2)
def _decode(path: Path, name: str, stamps: tuple[int, ...]) -> _Video:
    import av

    frames: list[UInt8HW] = []
    damaged, broken, pixels = set(), "", 0
    try:
        open_regular(path).close()
        with av.open(str(path), options=OPTIONS) as container:
            if not container.streams.video:
                raise DatasetError(f"{name}: holds no video.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DatasetError(f"{name}: its video is of a kind that is not known.")
            stream.codec_context.thread_count = 1
            for picture in container.decode(stream):
                pixels += picture.width * picture.height
                if problem := too_large(picture.height, picture.width):
                    raise DatasetError(f"{name}: holds {problem}")
                if pixels > LARGEST or len(frames) == MOST_FRAMES:
                    raise DatasetError(
                        f"{name}: more than {LARGEST:,} pixels or {MOST_FRAMES:,} frames in all; "
                        "expected a recording of some beats, cut the video."
                    )
                grey = np.asarray(picture.to_ndarray(format="gray"), dtype=np.uint8)
                if frames and grey.shape != frames[0].shape:
                    broken = "its frames change their size"
                    break
                if picture.is_corrupt:
                    damaged.add(len(frames))
                frames.append(grey)
    except DatasetError:
        raise
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        broken = reason(error)
    held = np.stack(frames) if frames else np.zeros((0, 0, 0), np.uint8)
    return _Video(held, frozenset(damaged), broken)
