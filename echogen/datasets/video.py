"""One frame of a video as grey levels, by PyAV: the optional extra `video`.

PyAV brings FFmpeg's decoders along. It is imported when the first frame is read.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from echogen.errors import DatasetError
from echogen.types import UInt8HW


def require_decoder(root: Path) -> None:
    """Refuse a dataset of videos where nothing can decode them.

    Raises:
        DatasetError: PyAV is not installed.
    """
    if find_spec("av") is None:
        raise DatasetError(
            f"{root}: holds videos, which PyAV reads, and it is not installed; "
            "pip install 'echogen[video]'"
        )


def read_video_frame(path: Path, number: int, name: str) -> UInt8HW:
    """Frame `number` (from 0) of a video's first stream, (H, W) uint8.

    Frames are decoded from the first one on, by one thread, so that the same file gives the same
    pixels. Colours become luminance, in the full range 0..255.

    Args:
        path: the video.
        number: in the order of display.
        name: how messages call the file.

    Raises:
        DatasetError: it cannot be decoded that far, or ends before; one line.
    """
    import av

    held = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{name}: holds no video.")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for picture in container.decode(stream):
                if held == number and picture.is_corrupt:
                    raise DatasetError(f"{name}: frame {number} is damaged.")
                if held == number:
                    return np.ascontiguousarray(picture.to_ndarray(format="gray"))
                held += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or "damaged"
        raise DatasetError(f"{name}: cannot be decoded up to frame {number} ({reason}).") from error
    raise DatasetError(
        f"{name}: frame {number} is past the end of the video, which holds {held} (from 0)."
    )
