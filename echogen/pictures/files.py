"""Pictures as files, whole or not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL.Image import Image

from echogen.errors import StoreError
from echogen.support.files import write_whole


def save_png(picture: Image, path: Path) -> None:
    """Write a picture.

    Raises:
        StoreError: the file cannot be written.
    """
    _write(path, lambda beside: picture.save(beside, format="PNG", optimize=True))


def save_gif(frames: Sequence[Image], path: Path, milliseconds: Sequence[int]) -> None:
    """Write frames of one size as an animation that runs for ever.

    Args:
        frames: at least one.
        path: of the file.
        milliseconds: how long each is shown.

    Raises:
        StoreError: the file cannot be written.
    """
    first, *others = [frame.quantize(48) for frame in frames]
    _write(
        path,
        lambda beside: first.save(
            beside,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=list(milliseconds),
            loop=0,
        ),
    )


def _write(path: Path, save: Callable[[Path], None]) -> None:
    try:
        write_whole(path, save)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}). Choose a {path.suffix} file "
            "in a folder that you can write to."
        ) from error
