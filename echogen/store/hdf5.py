"""HDF5 with the same names and values, made from a finished Zarr store in one atomic step.

HDF5 has no writer that survives a kill, so a run that is to end in `x.h5` writes the Zarr store
`x.h5.partial.zarr` beside it, converted at the end. The root attribute is JSON text here.
"""

import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.store.disk import disk_errors, reading
from echogen.store.reader import StoreReader
from echogen.store.schema import (
    CASES,
    COLUMNS,
    MAKE_AGAIN,
    PROBLEMS,
    ROOT_ATTRIBUTE,
    SAMPLES,
    check_root_attributes,
)
from echogen.store.zarr_store import open_zarr
from echogen.support.files import make_folder, write_whole
from echogen.support.reading import open_regular, parse_json

GZIP_LEVEL = 4
FILE_FORMAT = ("v110", "v110")  # the first whose own structures carry checksums
_ROWS_AT_ONCE = 64
_HEAD = 2**20
_COLUMN_CHUNK = 65536


def working_store_path(output: Path) -> Path:
    """Where a run writes: `x.h5.partial.zarr` for `x.h5`, else the output itself."""
    return output.with_name(output.name + ".partial.zarr") if output.suffix == ".h5" else output


def present_store_path(output: Path) -> Path:
    """The store at `output`; while its run has not ended, the one that the run writes."""
    working = working_store_path(output)
    return working if working.exists() and not output.exists() else output


def convert_to_h5(zarr_path: Path, h5_path: Path) -> None:
    """Writes the Zarr store as HDF5, every value equal; replaces `h5_path` in one step.

    Memory stays flat: pixels are copied 64 samples at a time. The Zarr store is left as it is.

    Raises:
        StoreError: the Zarr store is unfinished or damaged, or the disk is full or refuses.
    """
    import h5py

    with open_zarr(zarr_path) as store:
        if not store.complete:
            raise StoreError(
                f"{zarr_path} is unfinished and cannot be converted. "
                "Run the same command again until it is done."
            )

        def write(place: Path) -> None:
            with _Output(place, "w+") as output:
                with h5py.File(output, "w", libver=FILE_FORMAT) as file:
                    _copy(store, file, output)
                output.check()

        with disk_errors(h5_path, _pixel_bytes(store)):
            make_folder(h5_path.parent)
            write_whole(h5_path, write)


def open_h5(path: Path) -> StoreReader:
    """Opens an HDF5 store for reading; see `open_store`."""
    import h5py

    with reading(path, "the file"):
        _check_texts(path)
        file = h5py.File(path, "r")
    try:
        with reading(path, f"the attribute {ROOT_ATTRIBUTE!r}"):
            text = file.attrs.get(ROOT_ATTRIBUTE)
            if not isinstance(text, str | None):
                raise ValueError(f"expected text, got {type(text).__name__}")
        name = f"{path}: attribute {ROOT_ATTRIBUTE!r}"
        try:
            root = None if text is None else parse_json(text, StoreError, name)
        except StoreError as error:
            raise StoreError(f"{error} {MAKE_AGAIN}") from error
        attrs = check_root_attributes(path, root)
        with reading(path, CASES):
            case_names = sorted(file[CASES], key=lambda name: (name != "id", name))
        return StoreReader(path, attrs, partial(_own, file), case_names, file.close)
    except BaseException:
        file.close()
        raise


def _check_texts(path: Path) -> None:
    """Refuses a heap of texts with sizes that libhdf5 would follow round and round, for ever.

    Heaps carry no checksum. Ours, of the root attribute, lies near the start of the file.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD)
    for heap in re.finditer(re.escape(b"GCOL\x01\0\0\0"), head):
        end = heap.start() + int.from_bytes(head[heap.end() : heap.end() + 8], "little")
        at = heap.end() + 8
        while at + 16 <= min(end, len(head)):
            size = int.from_bytes(head[at + 8 : at + 16], "little")
            is_free = head[at : at + 2] == b"\0\0"
            step = size if is_free else 16 + -(-size // 8) * 8
            if step < 16 or at + step > end:
                raise ValueError("its texts are damaged")
            at += step


def _own(file: Any, name: str) -> Any:
    """What lies in the file itself by that name, and not in another one that it points at."""
    import h5py

    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise ValueError("it lies in another file")
    found = file[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise ValueError("its values lie in another file")
    return found


class _Output(io.FileIO):
    # HDF5 cannot close a file that it could not write, and says so on stderr long after. So a
    # failed write is remembered here, the rest is dropped, and `check` raises it.
    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


def _pixel_bytes(store: StoreReader) -> int:
    return len(store.layout.pixels) * int(np.prod(store.images.shape))


def _copy(store: StoreReader, file: Any, output: _Output) -> None:
    file.attrs[ROOT_ATTRIBUTE] = json.dumps(store.attrs)
    n, h, w = store.images.shape
    for name, dtype in store.layout.pixels.items():
        target = file.create_dataset(
            name,
            (n, h, w),
            dtype,
            chunks=(1, h, w),
            compression="gzip",
            compression_opts=GZIP_LEVEL,
            fletcher32=True,
        )
        source = store.pixels(name)
        for start in range(0, n, _ROWS_AT_ONCE):
            target[start : start + _ROWS_AT_ONCE] = source[start : start + _ROWS_AT_ONCE]
            output.check()
    for column in COLUMNS:
        _write(file, f"{SAMPLES}/{column.name}", store.columns[column.name])
        file[f"{SAMPLES}/{column.name}"].attrs["meaning"] = column.meaning
    for name, values in store.case_columns.items():
        _write(file, f"{CASES}/{name}", values)
    problems = store.problems
    for part, name in enumerate(("id", "reason")):
        _write(file, f"{PROBLEMS}/{name}", np.array([row[part] for row in problems], dtype=str))


def _write(file: Any, name: str, values: npt.NDArray[Any]) -> None:
    import h5py

    # text of a fixed length lies in the chunks, which carry checksums, and not in HDF5's heap
    if values.dtype.kind == "U":
        encoded = np.char.encode(values, "utf-8")
        values = encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))
    rows = min(max(1, len(values)), _COLUMN_CHUNK)
    file.create_dataset(
        name,
        data=values,
        chunks=(rows, *values.shape[1:]),
        maxshape=(None, *values.shape[1:]) if not len(values) else None,
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        fletcher32=True,
    )
