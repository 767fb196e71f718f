"""Damaged files, thousands of them from one seed, read in a process of their own.

A reader answers each with what it read or with an `EchogenError` that names the file. Everything
else is a finding: another exception, a signal, more than `MEMORY` or `SECONDS`.
"""

import random
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from echogen.errors import EchogenError

MEMORY = 2**31
"""Bytes that reading one file may take, as address space."""
SECONDS = 30
ODD_NUMBERS = (
    b"-1", b"0", b"1e400", b"-1e400", b"nan", b"inf", b"1000000000", b"9" * 5000, b"1_000",
    b"4294967296", b"-2147483649", b"0x10", b"1.5", "\u0661".encode(), b"", b"NaN", b"true",
    b"null",
)  # fmt: skip
ODD_TEXTS = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"[" * 100_000, b'{"a":' * 9000,
    b"\r", b"\x1b[2J", b'"', b",", b"\xef\xbb\xbf", b"A" * 100_000, b"\n" * 1000,
    b"../../etc/passwd",
)  # fmt: skip
ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?")


def of_bytes(content: bytes, count: int, head: int | None = None, seed: int = 0) -> Iterator[bytes]:
    """A binary file with some bytes changed, most of them in its first `head`; cut; or spliced."""
    chance = random.Random(seed)
    for number in range(count):
        damaged = bytearray(content)
        reach = min(head or len(content), len(content))
        kind = number % 6
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(reach)
            wide = chance.choice((1, 2, 4, 8))
            if kind < 4:
                value = chance.choice(ODD_BYTES) if kind < 2 else chance.randrange(256)
                damaged[at : at + wide] = bytes([value]) * wide
        if kind == 4:
            del damaged[chance.randrange(len(damaged)) :]
        if kind == 5:
            at, other = chance.randrange(reach), chance.randrange(len(content))
            damaged[at:at] = content[other : other + chance.randrange(1, 64)]
        yield bytes(damaged)


def of_text(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """A text file with a number, a word or a line replaced by something odd."""
    chance = random.Random(seed)
    numbers = list(_NUMBER.finditer(content))
    for number in range(count):
        kind = number % 5
        if kind < 2 and numbers:
            place = chance.choice(numbers)
            odd = ODD_NUMBERS[number // 5 % len(ODD_NUMBERS)]
            yield content[: place.start()] + odd + content[place.end() :]
        elif kind == 2:
            at, odd = chance.randrange(len(content)), ODD_TEXTS[number // 5 % len(ODD_TEXTS)]
            yield content[:at] + odd + content[at:]
        elif kind == 3:
            lines = content.splitlines(keepends=True)
            line = chance.randrange(len(lines))
            lines[line : line + 1] = chance.choice(([], [lines[line]] * 2, [lines[line][:-2]]))
            yield b"".join(lines)
        else:
            yield next(of_bytes(content, 1, seed=chance.randrange(2**32)))


def findings(
    read: Callable[[Path], object],
    path: Path,
    contents: Sequence[bytes],
    names: str | None = None,
    memory: int = MEMORY,
) -> list[str]:
    """What goes wrong where the file at `path` has these contents, one after another.

    Args:
        read: of a module; reads the dataset or the file.
        path: of the file that is damaged.
        contents: to try.
        names: what every refusal says; None takes the file's name.
        memory: that it may take, bytes of address space.
    """
    context, found, start = get_context("spawn"), [], 0
    while start < len(contents) and len(found) < 5:
        here, there = context.Pipe(duplex=False)
        names = path.name if names is None else names
        child = context.Process(
            target=_try, args=(there, read, path, contents[start:], names, memory)
        )
        child.start()
        there.close()
        at = -1
        try:
            while True:
                at, problem = here.recv()
                found += [f"number {start + at}: {problem}"] if problem else []
        except EOFError:
            child.join()
        if child.exitcode:
            found.append(f"number {start + at + 1}: the process ended with {child.exitcode}")
        start += at + (2 if child.exitcode else 1)
        if at < 0 and not child.exitcode:
            break
    return found


def _try(
    told: Connection,
    read: Callable[[Path], object],
    path: Path,
    contents: Sequence[bytes],
    names: str,
    memory: int,
) -> None:
    warnings.simplefilter("error")
    for module in ("SimpleITK", "PIL.Image", "numpy", "scipy.ndimage", "pydicom", "av"):
        __import__(module)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, content in enumerate(contents):
        path.write_bytes(content)
        signal.alarm(SECONDS)
        told.send((number, _problem(read, path, names)))
        signal.alarm(0)


def _problem(read: Callable[[Path], object], path: Path, names: str) -> str:
    try:
        read(path)
    except EchogenError as error:
        text = str(error)
        odd = not text.isprintable() or len(text) > 2000
        return f"says {text[:300]!a}" if odd or names not in text else ""
    except BaseException:
        return traceback.format_exc()[-700:]
    return ""
