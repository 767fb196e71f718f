"""Power loss: what was not forced to the disk is gone, for every prefix of a run's calls.

The calls of one run are kept and played to a model of a disk that remembers what was forced. What
a pessimistic disk holds after the k-th call is laid out, and the same command is run there.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.survival.calls import GO, SYNCS, Call, Ended, is_idle
from tests.survival.record import Record
from tests.survival.scenes import Workshop, difference

Names = Literal["kept", "lost", "mixed"]
Contents = Literal["kept", "empty", "zeros", "mixed"]
WORLDS: dict[str, tuple[Names, Contents]] = {
    "names kept, contents lost": ("kept", "empty"),
    "names kept, contents zero": ("kept", "zeros"),
    "all lost that was not forced": ("lost", "empty"),
    "some of each": ("mixed", "mixed"),
}
"""How much a disk keeps of the names and contents that were not forced to it."""


@dataclass
class File:
    """A file's bytes, and those that a power cut spares."""

    data: bytes = b""
    forced: bytes = b""

    def after(self, contents: Contents, draw: random.Random) -> bytes:
        """What is there when the power is back."""
        if contents == "kept" or self.data == self.forced:
            return self.data
        zeros = self.forced + bytes(max(0, len(self.data) - len(self.forced)))
        if contents == "mixed":
            added = self.data.startswith(self.forced)  # to what stays
            kept = len(self.forced) if added else 0
            half = self.data[: (kept + len(self.data)) // 2]
            return draw.choice((self.forced, zeros, half, self.data))
        return zeros if contents == "zeros" else self.forced


@dataclass
class Folder:
    """A folder's names now, and after each change since they were last forced."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    history: list[dict[str, "File | Folder"]] = field(default_factory=lambda: [{}])

    def put(self, name: str, what: "File | Folder | None") -> None:
        """Give or take a name."""
        self.names = {k: v for k, v in self.names.items() if k != name}
        if what is not None:
            self.names[name] = what
        self.history.append(self.names)

    def force(self) -> None:
        """The names are on the disk."""
        self.history = [self.names]

    def after(self, names: Names, draw: random.Random) -> dict[str, "File | Folder"]:
        """The names when the power is back."""
        if names == "mixed":
            return draw.choice(self.history)
        return self.history[-1 if names == "kept" else 0]


class Disk:
    """A folder on a disk that forgets."""

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, _read(place)

    def find(self, path: Path) -> File | Folder | None:
        """What has the path, or None."""
        here: File | Folder | None = self.root
        for name in path.relative_to(self.place).parts:
            here = here.names.get(name) if isinstance(here, Folder) else None
        return here

    def apply(self, call: Call) -> None:
        """Make a call as the kernel would, or nothing where that would refuse it."""
        path, other = call.path, call.other
        if not path.is_relative_to(self.place) or path == self.place:
            if call.name in SYNCS and path == self.place:
                self.root.force()
            return
        found, parent = self.find(path), self.find(path.parent)
        if call.name in ("fsync", "fdatasync"):
            if isinstance(found, Folder):
                found.force()
            elif found is not None:
                found.forced = found.data
        elif not isinstance(parent, Folder):
            return
        elif call.name == "mkdir" and found is None:
            parent.put(path.name, Folder())
        elif call.name == "open":
            if found is None and call.flags & os.O_CREAT:
                parent.put(path.name, File())
            elif isinstance(found, File) and call.flags & os.O_TRUNC:
                found.data = b""
        elif isinstance(found, File) and call.name in ("write", "truncate"):
            start, end = call.offset, call.offset + len(call.data)
            if call.name == "write":
                found.data = found.data[:start].ljust(start, b"\0") + call.data + found.data[end:]
            else:
                found.data = found.data[: call.size].ljust(call.size, b"\0")
        elif call.name in ("unlink", "rmdir") and found is not None:
            if call.name == "unlink" or not (isinstance(found, Folder) and found.names):
                parent.put(path.name, None)
        elif call.name in ("rename", "link") and found is not None and other is not None:
            self._rename(call, found, parent, other)
        elif call.name in ("sendfile", "copy_file_range", "splice", "mmap", "symlink"):
            raise AssertionError(f"{call}: the model of a disk does not know this call")

    def _rename(self, call: Call, found: File | Folder, parent: Folder, other: Path) -> None:
        there, target = self.find(other), self.find(other.parent)
        if not isinstance(target, Folder) or (call.name == "link" and there is not None):
            return
        if call.flags & 1 and there is not None:  # RENAME_NOREPLACE
            return
        if call.name == "rename":
            if isinstance(there, Folder) and there.names and not call.flags & 2:
                return
            parent.put(call.path.name, there if call.flags & 2 else None)  # RENAME_EXCHANGE
        target.put(other.name, found)

    def lay_out(self, folder: Path, names: Names, contents: Contents, seed: int) -> None:
        """Write what the disk holds after a power cut into an empty folder."""
        draw = random.Random(seed)

        def write(here: Folder, place: Path) -> None:
            for name, what in here.after(names, draw).items():
                if isinstance(what, Folder):
                    (place / name).mkdir()
                    write(what, place / name)
                else:
                    (place / name).write_bytes(what.after(contents, draw))

        write(self.root, folder)


def _read(place: Path) -> Folder:
    folder = Folder()
    for path in place.iterdir():
        content = b"" if path.is_dir() else path.read_bytes()
        folder.names[path.name] = _read(path) if path.is_dir() else File(content, content)
    folder.force()
    return folder


def run(workshop: Workshop, record: Record, names: list[str], until: float, every: int = 1) -> None:
    """Cut the power after every `every`-th call of each scene, in each of the `WORLDS`."""
    for name in names:
        if time.monotonic() > until:
            return
        workshop.undisturbed(name)
        made: list[Call] = []

        def keep(call: Call, made: list[Call] = made) -> int:
            if not is_idle(call):
                made.append(call)
            return GO

        words = workshop.reset(name).words
        before = Disk(workshop.place)
        workshop.command(words, watch=keep)
        wrong = _unlike(before, made, workshop)
        if wrong:
            raise AssertionError(f"{name}: the model of a disk differs from the disk: {wrong}")
        for number, world in _points(len(made), every):
            key = f"{name}:{number} {world}"
            if record.has("power", key):
                continue
            if time.monotonic() > until:
                return
            workshop.reset(name)
            disk = Disk(workshop.place)
            for call in made[:number]:
                disk.apply(call)
            workshop.clear()
            disk.lay_out(workshop.place, *WORLDS[world], seed=number)
            fault = workshop.lacks(name) if number == len(made) else ""
            fault = fault or workshop.finished(name, Ended(0, "", 0.0))
            last = str(made[number - 1]) if number else ""
            record.add("power", key, name, fault, after=last, of=len(made))


def _points(total: int, every: int) -> Iterator[tuple[int, str]]:
    for number in range(0, total + 1, every):
        for world in WORLDS:
            yield number, world
    if total % every:
        yield from ((total, world) for world in WORLDS)


def _unlike(disk: Disk, made: list[Call], workshop: Workshop) -> str:
    """In what the model, after all calls, differs from the disk."""
    for call in made:
        disk.apply(call)
    found = workshop.left()
    workshop.clear()
    disk.lay_out(workshop.place, "kept", "kept", 0)
    return difference(workshop.left(), found)
