"""One sample as files: read from the store, held to its SHA-256, encoded, written whole or not."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from echogen.errors import StoreError
from echogen.exports.target import write_file
from echogen.store import sample_sha256, shared_store
from echogen.support.nifti import gzip_bytes, nifti_bytes
from echogen.types import UInt8HW

Encoding = Literal["png", "nifti"]


@dataclass(frozen=True)
class SampleFiles:
    """One sample and its files.

    Attributes:
        row: of the store.
        name: of the files, without suffix.
        image, label: paths relative to the output's root; `label` is empty where there is none.
        sha256: of the pixels, as the store records it.
        spacing_mm: (row, col); 1 where unknown.
    """

    row: int
    name: str
    image: str
    label: str
    sha256: str
    spacing_mm: tuple[float, float]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, the label last."""
        return (self.image, self.label) if self.label else (self.image,)


@dataclass(frozen=True)
class FilePlan:
    """What a format writes.

    Attributes:
        items: in the order of rows.
        encoding: of images and labels alike.
        tables: {path: text} of everything else, given which items were written.
        kept: which of the chosen samples the items are; None is all of them.
        columns: more columns of `samples.csv`, a value an item.
        ids: {class id in the store: id in the file}; None writes them as they are.
        notes: what a user should know.
        layout: which file holds what, for its README.
    """

    items: tuple[SampleFiles, ...]
    encoding: Encoding
    tables: Callable[[Sequence[bool]], Mapping[str, str]] = lambda there: {}
    kept: npt.NDArray[np.int64] | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ids: Mapping[int, int] | None = None
    notes: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True)
class FilesOutcome:
    """What became of an item: `new` where this run wrote it; `reason` where it could not be."""

    new: bool
    reason: str = ""


def write_item(
    item: SampleFiles, store: Path, root: Path, encoding: Encoding, ids: Mapping[int, int] | None
) -> FilesOutcome:
    """Writes the files of one sample that are not there yet; for `workers.in_workers`.

    Args:
        item: which sample, and where to.
        store, root: read from, and written below.
        encoding, ids: as in `FilePlan`.

    Raises:
        StoreError: the store cannot be opened, or the disk is full or refuses.
    """
    missing = [path for path in item.files if not (root / path).is_file()]
    if not missing:
        return FilesOutcome(new=False)
    reader = shared_store(store)
    try:
        image = reader.images[item.row]
        label = reader.masks[item.row] if item.label else None
    except StoreError as error:
        return FilesOutcome(new=False, reason=str(error))
    if sample_sha256(image, label) != item.sha256:
        return FilesOutcome(
            new=False,
            reason="its pixels do not have their recorded SHA-256: the store is damaged; "
            "`echogen validate` names what is.",
        )
    contents = {item.image: image}
    if label is not None:
        unknown = [] if ids is None else sorted(set(np.unique(label).tolist()) - set(ids))
        if unknown:
            return FilesOutcome(
                new=False, reason=f"its mask has class ids that the store does not name: {unknown}."
            )
        contents[item.label] = label if ids is None else _renumbered(label, ids)
    for path in missing:
        write_file(root / path, encode(contents[path], encoding, item.spacing_mm))
    return FilesOutcome(new=True)


def encode(pixels: UInt8HW, encoding: Encoding, spacing_mm: tuple[float, float]) -> bytes:
    """An (H, W) uint8 array as the bytes of a file: PNG, or NIfTI-1 with (row, col) spacing, mm."""
    if encoding == "nifti":
        return gzip_bytes(nifti_bytes(np.ascontiguousarray(pixels), spacing_mm))
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _renumbered(label: UInt8HW, ids: Mapping[int, int]) -> UInt8HW:
    table: Any = np.zeros(256, np.uint8)
    for there, here in ids.items():
        table[there] = here
    return np.asarray(table[label], dtype=np.uint8)
