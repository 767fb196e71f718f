"""The folder that an export fills: begun, continued, finished, replaced; never another one.

A hidden file says which export it is and which files belong to it. It is written first, and marked
complete last, so a killed export is continued by the same command; a file that is there is whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from echogen.errors import StoreError
from echogen.store.disk import disk_errors
from echogen.support.differences import differences
from echogen.support.files import make_folder, remove_partials, to_disk, write_whole
from echogen.support.reading import read_bytes

MANIFEST = ".echogen-export.json"
_MOST_BYTES = 2**28  # a million samples have 0.1 GB


class ExportManifest(BaseModel):
    """What the hidden file says: `files` are relative to the folder, the tables among them.

    While they are being removed it says so: what is left of them then is nobody's.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal[1]
    identity: dict[str, Any]
    complete: bool
    files: tuple[str, ...]
    removing: bool = False

    def write(self, root: Path) -> None:
        """Put it into the folder; raises what `write_file` does."""
        said = self.model_dump(exclude_defaults=True)
        write_file(root / MANIFEST, json.dumps(said, indent=1).encode())


@dataclass(frozen=True)
class FolderOutput:
    """One export's folder.

    Attributes:
        root: the folder.
        identity: what decides its files, JSON-able: format, store, selection, settings.
        files: paths of the samples' files, relative to `root`.
    """

    root: Path
    identity: Mapping[str, Any]
    files: tuple[str, ...]

    def begin(self, overwrite: bool) -> bool:
        """Makes the folder ready; call it under a lock.

        Args:
            overwrite: replace an export that is there.

        Returns:
            Whether everything is there already.

        Raises:
            StoreError: something else is there, another export is, or the disk refuses.
        """
        with disk_errors(self.root, 0):
            remove_partials(inside(self.root, path) for path in (MANIFEST, *self.files))
        found = read_manifest(self.root)
        difference = (
            None if found is None else next(differences(found.identity, self.identity), None)
        )
        replaced = overwrite and found is not None and (difference or found.complete)
        if found is not None and (replaced or found.removing):
            _remove_files(found, self.root)
            found = difference = None
        if difference:
            raise StoreError(
                f"{self.root}: holds another export: it was made with {difference.name} = "
                f"{difference.there!r}, this one has {difference.here!r}. Use the same settings to "
                "continue it, another --out, or --overwrite to replace it."
            )
        if found is None:
            self._mark(self.files, complete=False)
            return False
        return found.complete and all((self.root / path).is_file() for path in self.files)

    def finish(self, tables: Mapping[str, str], complete: bool) -> None:
        """Writes what goes beside the samples, then marks the export as far as it came.

        Args:
            tables: {path: text}.
            complete: whether every sample was written.

        Raises:
            StoreError: the folder is not there any more, or the disk refuses.
        """
        if not (self.root / MANIFEST).is_file():
            raise StoreError(
                f"{self.root}: was removed while it was being filled. Run the same command again."
            )
        self._mark((*self.files, *tables), complete=False)
        for path, text in tables.items():
            write_file(inside(self.root, path), text.encode("utf-8", "backslashreplace"))
        self._mark((*self.files, *tables), complete)

    def _mark(self, files: Sequence[str], complete: bool) -> None:
        whole = tuple(dict.fromkeys(files))
        manifest = ExportManifest(
            format=1, identity=dict(self.identity), complete=complete, files=whole
        )
        manifest.write(self.root)


def read_manifest(root: Path) -> ExportManifest | None:
    """What the folder says it is; None where there is none, or an empty one.

    Raises:
        StoreError: it is a file, or holds files that no export made.
    """
    if not root.exists() and not root.is_symlink():
        return None
    if not root.is_dir():
        raise StoreError(f"{root}: must be a folder, found a file. Choose another --out.")
    file = root / MANIFEST
    if not file.is_file():
        if next(root.iterdir(), None) is None:
            return None
        raise StoreError(
            f"{root}: must be a new or empty folder, found one that no export made. "
            "Nothing in it is touched; choose another --out."
        )
    try:
        return ExportManifest.model_validate_json(read_bytes(file, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file}: is damaged or from a newer echogen, so it is unclear what this folder holds. "
            "Choose another --out; if you do not need the folder, delete it yourself."
        ) from error


def _remove_files(found: ExportManifest, root: Path) -> None:
    """Removes the files that an export made, and folders that this leaves empty; nothing else.

    The manifest stays, to be replaced by that of what comes in their place.

    Raises:
        StoreError: the disk refuses.
    """
    with disk_errors(root, 0):
        found.model_copy(update={"complete": False, "removing": True}).write(root)
        places = [inside(root, path) for path in found.files]
        remove_partials(places)
        parents: set[Path] = set()
        for place in places:
            place.unlink(missing_ok=True)
            parents.update(above for above in place.parents if above.is_relative_to(root))
        for folder in sorted(parents, key=lambda place: -len(place.parts)):
            if folder.is_dir() and next(folder.iterdir(), None) is None:
                folder.rmdir()
            to_disk(folder)


def inside(root: Path, path: str) -> Path:
    """`root / path`, which must lie in `root`.

    Raises:
        StoreError: it does not, or would by way of a link.
    """
    parts = PurePosixPath(path).parts
    place = root / path
    leaves = not parts or path.startswith("/") or ".." in parts or "\0" in path
    if leaves or any(folder.is_symlink() for folder in _below(root, place)):
        raise StoreError(f"{root}: a path would leave this folder: {path!r}. Choose another --out.")
    return place


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, and onto the disk; its folder is made if it is missing.

    Raises:
        StoreError: the disk is full or refuses.
    """
    with disk_errors(path, len(content)):
        make_folder(path.parent)
        write_whole(path, content)


def _below(root: Path, place: Path) -> Iterator[Path]:
    return (folder for folder in place.parents if folder != root and folder.is_relative_to(root))
