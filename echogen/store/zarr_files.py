"""A Zarr store's files: only those that may be one are read, and what is written is on the disk.

Imported where a store is opened, since it imports zarr.
"""

import asyncio
import errno
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from echogen.support.files import make_folder, remove_folder, to_disk, write_whole

_MOST_BYTES = 2**32  # of a file


class ZarrFiles(LocalStore):
    """zarr's store of a folder; every change is on the disk, file and name, when it is done."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """A file's bytes; see `_check_file`."""
        _check_file(self.root / key)
        return await super().get(key, *args, **kwargs)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        """Parts of files; see `_check_file`."""
        wanted = list(key_ranges)
        for key, _ in wanted:
            _check_file(self.root / key)
        return await super().get_partial_values(prototype, wanted)

    def get_sync(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """A file's bytes; see `_check_file`."""
        _check_file(self.root / key)
        return super().get_sync(key, *args, **kwargs)

    def set_sync(self, key: str, value: Any) -> None:
        """Write a file whole, where the store's folder still is: else half a store would grow."""
        self._check_writable()
        if not self.root.is_dir():
            gone = "it was removed in the meantime"
            raise FileNotFoundError(errno.ENOENT, gone, str(self.root))
        make_folder((self.root / key).parent)
        write_whole(self.root / key, value.to_bytes())

    async def set(self, key: str, value: Any) -> None:
        """As `set_sync`, in a thread."""
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """As `set`, for a key that has no file."""
        if not (self.root / key).exists():
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Remove a file."""
        await super().delete(key)
        to_disk((self.root / key).parent)

    def remove(self, key: str) -> None:
        """Remove what lies in a file's place, a folder too, or a file in that of one above it."""
        place = self.root
        *above, name = key.split("/")
        for part in above:
            place /= part
            if not place.is_dir():
                place.unlink(missing_ok=True)
                return
        place /= name
        if place.is_dir() and not place.is_symlink():
            remove_folder(place)
        else:
            place.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    """Refuse a FIFO, which would be waited for, a folder, and what is too large to be read."""
    try:
        found = path.stat()
    except OSError:
        return  # what is not there is a fill value, as zarr has it
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    if found.st_size > _MOST_BYTES:
        raise ValueError(
            f"{path.name} has {found.st_size:,} bytes, expected at most {_MOST_BYTES:,}"
        )
