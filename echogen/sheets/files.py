"""Pictures as files, whole or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echogen.errors import StoreError, UsageError
from echogen.sheets.grids import Rgb

if TYPE_CHECKING:
    from PIL.Image import Image


def check_picture_path(flag: str, path: Path, suffix: str) -> None:
    """Refuse, before any work, a picture that could not be written after it.

    Raises:
        UsageError: another suffix, a folder in its place, or no folder to write to.
    """
    if path.suffix != suffix:
        raise UsageError(f"{flag} {path}: expected a {suffix} file; name it so.")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; expected a {suffix} file to write.")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: no such folder as {path.parent}; make it first.")


def save_png(image: Rgb, path: Path) -> None:
    """Write an (H, W, 3) uint8 image.

    Raises:
        StoreError: the file cannot be written.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    _write(path, lambda beside: picture.save(beside, format="PNG", optimize=True))


def save_gif(frames: "Sequence[Image]", path: Path, milliseconds: Sequence[int]) -> None:
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
    writing = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save(writing)
        writing.replace(path)
    except OSError as error:
        writing.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}). Choose a {path.suffix} file "
            "in a folder that you may write to."
        ) from error
