"""Changes of a file's bytes and of its kind; see `mutate`."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

Mutator = Callable[[Path, Random], str | None]


def _span(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    if rng.random() < 0.5:
        start = min(start, rng.randrange(400))  # headers lie at the start
    return start, min(len(content), start + rng.choice((1, 1, 2, 4, 8, 64, 512)))


def flip(path: Path, rng: Random) -> str | None:
    content = bytearray(path.read_bytes())
    if not content:
        return None
    places = [_span(bytes(content[:-1]), rng)[0] for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for place in places:
        content[place] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return f"at {places}"


def edit(path: Path, rng: Random, new: Callable[[bytes], bytes], *, cut: bool) -> str | None:
    content = path.read_bytes()
    start, stop = _span(content, rng)
    inserted = new(content[start:stop])
    path.write_bytes(content[:start] + inserted + content[stop if cut else start :])
    return f"[{start}:{stop}] of {len(content)}, {len(inserted)} bytes"


def insert(path: Path, rng: Random) -> str | None:
    return edit(path, rng, lambda part: rng.randbytes(rng.choice((1, 2, 4, 100))), cut=False)


def delete(path: Path, rng: Random) -> str | None:
    return edit(path, rng, lambda part: b"", cut=True)


def duplicate(path: Path, rng: Random) -> str | None:
    return edit(path, rng, lambda part: part * rng.choice((1, 1, 3, 50)), cut=False)


def zeros(path: Path, rng: Random) -> str | None:
    return edit(path, rng, lambda part: bytes(len(part)), cut=True)


def ones(path: Path, rng: Random) -> str | None:
    return edit(path, rng, lambda part: b"\xff" * len(part), cut=True)


def splice(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    start, stop = _span(content, rng)
    part = content[start:stop]
    return edit(path, rng, lambda _: part, cut=True)


def truncate(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    size = rng.choice((0, 1, rng.randrange(len(content) + 1), max(0, len(content) - 1)))
    path.write_bytes(content[:size])
    return f"to {size} of {len(content)}"


def append(path: Path, rng: Random) -> str | None:
    more = rng.choice((b"\0" * 100, rng.randbytes(100), path.read_bytes()))
    with path.open("ab") as file:
        file.write(more)
    return f"{len(more)} bytes"


BYTES: tuple[Mutator, ...] = (
    flip, flip, flip, insert, delete, duplicate, zeros, ones, splice, truncate, append,
)  # fmt: skip

# Kinds of files


def folder(path: Path, rng: Random) -> str | None:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def fifo(path: Path, rng: Random) -> str | None:
    path.unlink()
    os.mkfifo(path)
    return "a FIFO in its place"


def link(path: Path, rng: Random) -> str | None:
    to = rng.choice(("nowhere", path.name, "/dev/zero", "/dev/full", "/proc/self/mem", ".."))
    path.unlink()
    path.symlink_to(to)
    return f"to {to}"


def gone(path: Path, rng: Random) -> str | None:
    path.unlink()
    return "no file"


def empty(path: Path, rng: Random) -> str | None:
    path.write_bytes(b"")
    return "no bytes"


def unreadable(path: Path, rng: Random) -> str | None:
    path.chmod(0)
    return "mode 000"


def sparse(path: Path, rng: Random) -> str | None:
    size = rng.choice((10**8, 5 * 10**9, 10**12))
    os.truncate(path, size)
    return f"{size:.0e} bytes, zeros at its end"


def renamed(path: Path, rng: Random) -> str | None:
    odd = os.fsdecode(rng.choice((b"\xff", b"\n", b"\x1b[2J", b"\xc3", "é\u202e".encode(), b" ",
    b"%d",
                                  b"'\"", b"\r", b"\\", b"x" * 150)))  # fmt: skip
    stem, dot, ending = path.name.partition(".")
    path.rename(path.with_name(f"{stem}{odd}{dot}{ending}"))
    return repr(odd)


def beside(path: Path, rng: Random) -> str | None:
    """Another file beside it, of an odd name or another ending."""
    endings = (
        ".png",
        ".nii.gz",
        ".json",
        ".csv",
        ".dcm",
        ".avi",
        ".mhd",
        ".zarr",
        ".h5",
        ".txt",
        "",
    )
    name = rng.choice((f"{path.name}\udcff", f"a\nb{path.suffix}", f"é{path.suffix}",
                       path.stem + rng.choice(endings), path.name.upper(),
                       f".{path.name}"))  # fmt: skip
    if (path.parent / name).exists():
        return None
    shutil.copyfile(path, path.parent / name)
    return repr(name)


KINDS: tuple[Mutator, ...] = (
    folder, fifo, link, link, gone, empty, unreadable, sparse, renamed, renamed, beside,
)  # fmt: skip
