"""One image and its label from NIfTI, MetaImage or picture files, checked, as (H, W) uint8.

SimpleITK reads volumes, `bitmaps` pictures. SimpleITK gives arrays as (slices, rows, columns) and
spacing as (x, y, z): both are turned here, once. A frame of a sequence is a slice of a file, which
is read once for all.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from echogen.config import LEAST_MM, MOST_MM, DatasetConfig
from echogen.datasets.advice import advise
from echogen.datasets.base import relative
from echogen.datasets.bitmaps import Bitmap, grey_of, read_bitmap
from echogen.datasets.integrity import (
    BITMAPS,
    IMAGE_IO,
    check_file,
    sizes_of,
    suffix_of,
    with_data_files,
)
from echogen.datasets.limits import is_spacing
from echogen.datasets.meta_files import read_meta
from echogen.errors import DatasetError
from echogen.support.files import stamp
from echogen.support.reading import reason
from echogen.support.words import some
from echogen.types import Frame, FrameKey, UInt8HW

FEWEST_LEVELS = 8
"""An image with fewer grey levels is a label map or a drawing."""
WHOLE_TOLERANCE = 1e-3
"""How far from a whole number a scaled intensity may lie: NIfTI's slope is a float32."""

Array = npt.NDArray[Any]
R = TypeVar("R")


@dataclass(frozen=True)
class Reading:
    """How intensities become grey levels; see `DatasetConfig`."""

    window: tuple[float, float] | None = None
    max_colour: float = 0.02

    @classmethod
    def of(cls, settings: DatasetConfig) -> "Reading":
        """As settings say."""
        return cls(settings.window, settings.max_colour)


AS_STORED = Reading()


def as_set(function: Callable[..., Frame], settings: DatasetConfig) -> Callable[..., Frame]:
    """A function such as `read_frame` that reads as settings say."""
    reading = Reading.of(settings)
    return function if reading == AS_STORED else partial(function, reading=reading)


def read_frame(
    root: Path, key: FrameKey, labels: Mapping[int, str], *, reading: Reading = AS_STORED
) -> Frame:
    """A checked frame; of `key.paths`, the image's header file comes first, then the label's.

    With `key.index` both files hold sequences, and the frame is that slice of each. Whole-numbered
    intensities from 0 to 255 of any type become uint8 unchanged; anything else needs a window.
    The spacing is the image's.

    Raises:
        DatasetError: missing, truncated or unreadable files, several slices, colours, NaN,
            intensities outside 0..255 without a window, a constant image, shapes that differ, class
            ids outside `labels`, or a label that is all background.
    """
    image_path, label_path = (path for path in key.paths if suffix_of(path.name))
    label_name = shown(root, label_path, key.index)
    grey, spacing = read_grey(root, image_path, key.index, reading)
    plane, _ = read_plane(root, label_path, key.index)
    if plane.ndim > 2:
        raise DatasetError(
            f"{label_name}: a colour picture (3 channels that differ); store one channel of class "
            "ids."
        )
    classes = as_uint8(plane, label_name, "class ids")
    check_classes(classes, label_name, grey, image_path.name, labels)
    return Frame(key=key, image=grey, label=classes, spacing_mm=spacing)


def check_classes(
    classes: UInt8HW, name: str, image: UInt8HW, image_name: str, labels: Mapping[int, str]
) -> None:
    """Refuse a label that does not go with its image, or with the classes that are declared.

    Raises:
        DatasetError: one line with the reason.
    """
    if classes.shape != image.shape:
        raise DatasetError(
            f"{name}: label of {_by(classes)} pixels, but its image "
            f"{image_name} has {_by(image)}; they must be the same."
        )
    found = np.flatnonzero(np.bincount(classes.ravel(), minlength=256))
    unknown = [int(value) for value in found if int(value) not in labels]
    if unknown:
        raise DatasetError(
            f"{name}: class ids {some(unknown, 6)} are not declared (labels: "
            f"{some(labels, 6)}); store raw class ids, or declare these."
        )
    if not classes.any():
        raise DatasetError(f"{name}: the label is all background.")


def read_image(
    root: Path, key: FrameKey, labels: Mapping[int, str], *, reading: Reading = AS_STORED
) -> Frame:
    """A checked image as a frame whose label is all background; no label is read.

    Args:
        root: messages name files relative to it.
        key: its first path is the image's header file.
        labels: of the dataset; not used.
        reading: how intensities become grey levels.

    Raises:
        DatasetError: as `read_frame` for images, or fewer than 8 grey levels, as a label map has.
    """
    path = key.paths[0]
    grey, spacing = read_grey(root, path, key.index, reading)
    levels = int(np.count_nonzero(np.bincount(grey.ravel(), minlength=256)))
    if levels < FEWEST_LEVELS:
        raise DatasetError(
            f"{shown(root, path, key.index)}: only {levels} grey levels; expected an ultrasound "
            "image, is it a label map?"
        )
    return Frame(key=key, image=grey, label=np.zeros_like(grey), spacing_mm=spacing)


def read_clip(root: Path, key: FrameKey) -> UInt8HW:
    """Every image of the file that a frame of a sequence lies in, (N, H, W) uint8.

    Args:
        root: messages name files relative to it.
        key: its first path is the images' file.

    Raises:
        DatasetError: as `read_frame` for images.
    """
    name = relative(root, key.paths[0])
    images, _ = _sequence(key.paths[0], name)
    return as_uint8(images, name, "intensities")


def read_values(path: Path, name: str, what: str) -> npt.NDArray[np.uint8]:
    """A file of one or several slices as (N, H, W) whole numbers from 0 to 255, in one channel.

    Args:
        path: of a format that is read.
        name: how messages call it.
        what: it holds, in messages.

    Raises:
        DatasetError: it cannot be read, or holds other values.
    """
    if IMAGE_IO[suffix_of(path.name)] not in BITMAPS:
        return as_uint8(_sequence(path, name)[0], name, what)
    pixels = open_bitmap(path, name).pixels
    if pixels.ndim > 2:
        raise DatasetError(f"{name}: a colour picture; store one channel of {what}.")
    return as_uint8(pixels[None], name, what)


def image_digest(image: UInt8HW) -> str:
    """SHA-256 of an image's shape and pixels: equal for two frames that show the same picture."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def shown(root: Path, path: Path, index: int | None) -> str:
    """How messages call what was read: the file, and of a sequence its frame."""
    name = relative(root, path)
    return name if index is None else f"{name}, frame {index}"


def read_grey(
    root: Path, path: Path, index: int | None, reading: Reading
) -> tuple[UInt8HW, tuple[float, float] | None]:
    """An image that is not empty, and its (row, col) mm where the file tells.

    Raises:
        DatasetError: as `read_frame` for images.
    """
    name = shown(root, path, index)
    image, spacing = read_plane(root, path, index)
    if image.ndim > 2:
        image = grey_of(image, name, reading.max_colour)
    grey = _windowed(image, name, reading.window)
    if grey.min() == grey.max():
        raise DatasetError(f"{name}: empty image, every pixel is {grey.flat[0]}.")
    return grey, spacing


def _windowed(image: Array, name: str, window: tuple[float, float] | None) -> UInt8HW:
    """Grey levels: what the window holds, from 0 to 255; 8 bits as they are."""
    if window is None or image.dtype == np.uint8:
        return as_uint8(image, name, "intensities")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DatasetError(f"{name}: intensities are NaN or infinite.")
    low, high = window
    share = np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    return np.rint(255 * share).astype(np.uint8)


def read_plane(
    root: Path, path: Path, index: int | None
) -> tuple[Array, tuple[float, float] | None]:
    """One slice as (H, W) of the file's own type, (H, W, 3) uint8 of colours, and its (row, col)
    mm; pictures have none.

    Raises:
        DatasetError: missing, truncated or unreadable files, or several slices.
    """
    name = relative(root, path)
    if index is not None:
        array, spacing = _sequence(path, name)
        if index >= len(array):
            raise DatasetError(
                f"{name}: holds {len(array)} frames, and no frame {index}: it changed after it was "
                "listed, run the command again."
            )
        return array[index].copy(), spacing
    if IMAGE_IO[suffix_of(path.name)] in BITMAPS:
        return open_bitmap(path, name).pixels, None
    sizes = sizes_of(path, name)
    if (slices := math.prod(sizes[2:4])) > 1:
        raise DatasetError(
            f"{name}: holds {slices} slices of {sizes[1]} x {sizes[0]} pixels; "
            "expected one, store each frame in its own file."
        )
    array, spacing, channels = _read_volume(path, name)
    while array.ndim > 2 + channels and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 + channels:
        rows, cols = array.shape[array.ndim - channels - 2 : array.ndim - channels]
        slices = array.size // math.prod(array.shape[array.ndim - channels - 2 :])
        raise DatasetError(
            f"{name}: holds {slices} slices of {rows} x {cols} pixels; "
            "expected one, store each frame in its own file."
        )
    return array, spacing


def open_bitmap(path: Path, name: str, *, see_through: bool = False) -> Bitmap:
    """A picture's file, checked and decoded; see `bitmaps.read_bitmap`.

    Raises:
        DatasetError: it is missing, truncated or damaged.
    """
    _told(check_file, path, name)
    return read_bitmap(path, name, see_through=see_through)


_one_reader = Lock()  # threads that need the frames of one sequence wait for one of them to read it


def _sequence(path: Path, name: str) -> tuple[Array, tuple[float, float] | None]:
    with _one_reader:
        stamps = tuple(stamp(one) for one in with_data_files(path))
        return _read_sequence(path, name, stamps)


@lru_cache(maxsize=4)
def _read_sequence(
    path: Path, name: str, stamps: tuple[tuple[int, ...], ...]
) -> tuple[Array, tuple[float, float] | None]:
    """A whole file as (frames, H, W), and (row, col) mm. Images and labels of two are kept: threads
    may still work on one while others begin the next.
    """
    array, spacing, channels = _read_volume(path, name)
    if channels:
        raise DatasetError(f"{name}: a sequence in colours; store one grey channel.")
    return array.reshape(-1, *array.shape[-2:]), spacing


def _told(function: Callable[[Path, str], R], path: Path, name: str) -> R:
    """What a function of a file gives; that the file cannot be read is a DatasetError, too."""
    try:
        str(path).encode()
        return function(path, name)
    except UnicodeEncodeError as error:
        raise DatasetError(f"{name!a}: its name is not valid UTF-8; rename it.") from error
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({reason(error)}).") from error


def _read_nifti(path: Path, name: str) -> tuple[Array, tuple[float, float], int]:
    """As `meta_files.read_meta`, of a file that `check_file` finds whole."""
    import SimpleITK as sitk

    process: Any = sitk.ProcessObject
    process.SetGlobalWarningDisplay(False)
    try:
        picture: Any = sitk.ReadImage(str(path), imageIO="NiftiImageIO")
    except RuntimeError as error:
        raise DatasetError(f"{name}: cannot be read; truncated, or not a NIfTI file.") from error
    spacing = picture.GetSpacing()
    components = picture.GetNumberOfComponentsPerPixel()
    return sitk.GetArrayFromImage(picture), (float(spacing[1]), float(spacing[0])), components


def _read_volume(path: Path, name: str) -> tuple[Array, tuple[float, float], int]:
    """All slices as (..., H, W) of the file's own type, (row, col) mm, and 1 where three channels
    of colours follow.
    """
    _told(check_file, path, name)
    if IMAGE_IO[suffix_of(path.name)] == "MetaImageIO":
        array, (row_mm, col_mm), components = _told(read_meta, path, name)
    else:
        array, (row_mm, col_mm), components = _read_nifti(path, name)
    channels = 0
    if components > 1:
        first = array[..., 0]
        if (array == first[..., None]).all():
            array = first
        elif components == 3 and array.dtype == np.uint8:
            channels = 1
        else:
            raise DatasetError(f"{name}: {components} channels of {array.dtype}; store one.")
    if not is_spacing(row_mm, col_mm):
        raise DatasetError(
            f"{name}: spacing of {row_mm:g} x {col_mm:g} mm; expected {LEAST_MM:g} to {MOST_MM:g}."
        )
    return array, (row_mm, col_mm), channels


def as_uint8(array: Array, name: str, what: str) -> UInt8HW:
    """Whole numbers from 0 to 255, unchanged.

    Raises:
        DatasetError: there are others; names their range.
    """
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iuf":
        raise DatasetError(f"{name}: {what} of type {array.dtype}; expected whole numbers.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).sum())
        raise DatasetError(f"{name}: {wrong:,} of {array.size:,} {what} are NaN or infinite.")
    low, high = array.min(), array.max()
    whole = np.rint(array) if array.dtype.kind == "f" else array
    broken = array.dtype.kind == "f" and _is_fractional(array, whole)
    if np.rint(low) < 0 or np.rint(high) > 255 or broken:
        raise DatasetError(
            f"{name}: {what} from {low:g} to {high:g} ({array.dtype}{', fractional' * broken}); "
            f"expected whole numbers from 0 to 255, {_help(what, float(low), float(high))}"
        )
    return whole.astype(np.uint8)


def _is_fractional(array: Array, whole: Array) -> bool:
    apart = array - whole
    np.abs(apart, out=apart)
    return bool(apart.max() > WHOLE_TOLERANCE)


def _help(what: str, low: float, high: float) -> str:
    if what != "intensities":
        return "convert the file."
    top = 2 ** math.ceil(math.log2(high + 1)) - 1 if high > 1 else 1
    bottom = min(0, math.floor(low))
    return (
        "convert the file, or say which intensities become black and white, the same in every "
        "file: " + advise(f"window = [{bottom}, {top}]")
    )


def _by(array: Array) -> str:
    return f"{array.shape[-2]} x {array.shape[-1]}"
