"""Which format a file has by its suffix, and whether it is whole, before a library sees it.

Libraries end the process, fill what is lacking or take all memory at files that are damaged.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from echogen.datasets.meta_files import meta_data_file, read_meta_header
from echogen.datasets.nifti_files import check_nifti, read_nifti_header
from echogen.datasets.picture_files import check_picture
from echogen.errors import DatasetError
from echogen.support.reading import reason

IMAGE_IO: Mapping[str, str] = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mhd": "MetaImageIO",
    ".mha": "MetaImageIO",
    ".png": "PNGImageIO",
    ".jpg": "JPEGImageIO",
    ".jpeg": "JPEGImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
    ".bmp": "BMPImageIO",
}
FORMATS: Mapping[str, str] = {
    "NiftiImageIO": "NIfTI",
    "MetaImageIO": "MetaImage",
    "PNGImageIO": "PNG",
    "JPEGImageIO": "JPEG",
    "TIFFImageIO": "TIFF",
    "BMPImageIO": "BMP",
}
BITMAPS = frozenset({"PNGImageIO", "JPEGImageIO", "TIFFImageIO", "BMPImageIO"})
"""Pictures without millimetres, which Pillow reads."""


def suffix_of(name: str) -> str:
    """The part of a file name that tells its format, lower case, or "" where it is none of ours."""
    lowered = name.lower()
    return next((suffix for suffix in IMAGE_IO if lowered.endswith(suffix)), "")


def is_bitmap(name: str) -> bool:
    """Whether a file is a picture without millimetres."""
    return IMAGE_IO.get(suffix_of(name), "") in BITMAPS


def formats_of(names: Iterable[str]) -> tuple[str, ...]:
    """The formats of files by their names, each once, in the order of `FORMATS`."""
    used = {IMAGE_IO[suffix_of(name)] for name in names}
    return tuple(title for reader, title in FORMATS.items() if reader in used)


def with_data_files(*headers: Path | None) -> tuple[Path, ...]:
    """The headers that there are, each with the file of its pixels where that is another one."""
    paths: list[Path] = []
    for header in headers:
        if header is not None:
            paths.append(header)
            data = meta_data_file(header) if suffix_of(header.name) == ".mhd" else None
            paths += [data] if data is not None else []
    return tuple(paths)


def check_file(path: Path, name: str) -> None:
    """Refuse a NIfTI file or a picture that is not whole, larger than is read, not of its suffix's
    format, or holds NaN; a MetaImage file is checked where it is read.

    Args:
        path: a file whose `suffix_of` is known.
        name: how messages call it.

    Raises:
        DatasetError: one line of file and reason.
        OSError: it cannot be read, or is no regular file.
    """
    reader = IMAGE_IO[suffix_of(path.name)]
    if reader == "NiftiImageIO":
        check_nifti(path, name)
    elif reader in BITMAPS:
        check_picture(path, name, reader)


def sizes_of(path: Path, name: str) -> tuple[int, ...]:
    """Sizes along x, y and what follows, from the header of a NIfTI or MetaImage file alone.

    Args:
        path, name: as in `check_file`.

    Raises:
        DatasetError: it cannot be read, has no such header, or states more than is read.
    """
    is_nifti = IMAGE_IO[suffix_of(path.name)] == "NiftiImageIO"
    try:
        return (read_nifti_header if is_nifti else read_meta_header)(path, name).sizes
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({reason(error)}).") from error
