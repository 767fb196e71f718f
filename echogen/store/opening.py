"""Stores of both kinds by their path: told apart by what they are, opened, removed."""

from pathlib import Path

from echogen.errors import StoreError
from echogen.store.hdf5 import open_h5, working_store_path
from echogen.store.reader import StoreReader
from echogen.store.schema import GIVE_ONE
from echogen.store.zarr_store import check_zarr, open_zarr, remove_zarr
from echogen.support.reading import open_regular, reason
from echogen.support.words import printable

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OUR_NAMES = (b"label_on_paint", b"sample_id", b"spacing_mm")


def is_store(path: Path) -> bool:
    """Whether a path is a store or is called one, rather than a dataset's folder."""
    if path.suffix in (".zarr", ".h5"):
        return True
    try:
        return path.is_file() or (path / "zarr.json").is_file()
    except OSError:  # a folder that cannot be looked into, which opening it as a dataset tells
        return False


def open_store(path: str | Path) -> StoreReader:
    """Opens a store for reading: a Zarr folder or an HDF5 file, told apart by what it is.

    An unfinished Zarr store opens, too; see `complete`.

    Raises:
        StoreError: not there, not a store, of a newer format, or damaged.
    """
    path = Path(path)
    try:
        return _opened(path)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        where = printable(str(error.filename or path))
        raise StoreError(f"{where}: cannot be read ({reason(error)}).") from error


def _opened(path: Path) -> StoreReader:
    if path.is_file():
        _check_h5(path)
        return open_h5(path)
    working = working_store_path(path)
    if working != path and not path.exists() and working.exists():
        raise StoreError(
            f"{path} is not there yet: the run that makes it is unfinished, in {working.name}. "
            "Run the same command again, or give that path."
        )
    return open_zarr(path)


def check_replaceable(path: Path) -> None:
    """Refuses to call something a store that may be removed, unless it is one; see `remove_store`.

    Raises:
        StoreError: what lies at `path`, or at its working store's place, is not an echogen store.
    """
    for place in dict.fromkeys((path, working_store_path(path))):
        if place.is_file():
            try:
                open_h5(place).close()
            except StoreError as error:
                if _names_ours(place):
                    continue
                _check_h5(place)
                raise StoreError(
                    f"{place} is left as it is: it cannot be recognised as an echogen store. "
                    "Choose another --out or, if you do not need it, delete it yourself."
                ) from error
        elif place.exists():
            check_zarr(place)


def remove_store(path: Path) -> None:
    """Removes the store at `path` and, for an `.h5`, its working store; nothing that is not one.

    Call it under `own_output`. Where nothing exists, nothing happens.

    Raises:
        StoreError: what lies there is not an echogen store, or the disk refuses.
    """
    check_replaceable(path)
    for place in dict.fromkeys((path, working_store_path(path))):
        if place.is_file():
            try:
                place.unlink()
            except OSError as error:
                raise StoreError(f"{place}: cannot be removed ({error.strerror}).") from error
        elif place.exists():
            remove_zarr(place)


def _names_ours(path: Path) -> bool:
    """Whether a damaged file holds names that an HDF5 store of ours has, anywhere in its bytes."""
    lacking, before = set(_OUR_NAMES), b""
    with open_regular(path) as file:
        while lacking and (part := file.read(2**20)):
            lacking -= {name for name in lacking if name in before + part}
            before = part[-len(max(_OUR_NAMES, key=len)) :]
    return not lacking


def _check_h5(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}).") from error
    if start != _HDF5_SIGNATURE:
        raise StoreError(
            f"{path} is not an echogen store: it is neither a Zarr folder nor an HDF5 file. "
            f"{GIVE_ONE}"
        )
