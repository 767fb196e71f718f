"""Reading what nothing vouches for: text, JSON and TOML, and the files that they are in.

A file is read where it is a regular one (a FIFO would be waited for), is no larger than it can be
meant, and is text. What is parsed has at most `MOST_DEPTH` levels, whole numbers of 64 bits, and
text that can be written again. Everything else is one sentence that names the file.
"""

import csv
import io
import json
import math
import os
import re
import stat
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NoReturn

from echogen.errors import EchogenError

MOST_BYTES = 2**24
"""Of a small text file; a JSON file of that size takes less than 0.5 GB of memory."""
MOST_VALUES = 2**23
"""Of a JSON text: the memory that it takes depends on their number more than on its length."""
MOST_KEYS = 2**18
"""Of one object: what is unknown in it is told one by one."""
MOST_DEPTH = 32
MOST_DOTS = 100  # in a row with nothing but letters between: a key of so many tables
_TEXT_OR_COMMENT = re.compile(r"""\"(?:[^"\\\n]|\\.)*\"|'[^'\n]*'|#.*""")
_NO_KEY = re.compile(r"[^\w\"' \t.-]+")
MOST_DIGITS = 20  # of 2**64
_lock = RLock()


def open_regular(path: Path, most: int | None = None) -> io.BufferedReader:
    """A file for reading bytes.

    Raises:
        OSError: it cannot be opened, is a folder, a FIFO, a device or a socket, or has more than
            `most` bytes; `strerror` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        wrong = f"{kind}; only regular files are read"
    elif most is not None and found.st_size > most:
        wrong = f"{found.st_size:,} bytes, expected at most {most:,}"
    else:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(0, wrong, str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of libraries about what they read; one thread at a time, since which are
    shown is kept for all threads together.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A file's bytes.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path, most) as file:
        return file.read()


def read_text(
    path: Path,
    error: type[EchogenError],
    name: str = "",
    *,
    most: int = MOST_BYTES,
    errors: str = "strict",
) -> str:
    """A small text file, UTF-8 with or without a byte order mark, its lines ended by "\\n".

    Args:
        path: of the file.
        error: what is raised.
        name: how messages call the file; empty takes the path.
        most: bytes.
        errors: "replace" takes text of another encoding with its strange letters replaced.

    Raises:
        FileNotFoundError: there is no such file, which may mean something to the caller.
        EchogenError: of the type `error`: it cannot be read, is too large, or is not text.
    """
    name = name or str(path)
    try:
        content = read_bytes(path, most)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise error(f"{name}: cannot be read ({reason(cause)}).") from cause
    try:
        text = content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as cause:
        line = content[: cause.start].count(b"\n") + 1
        raise error(f"{name}, line {line}: is not UTF-8; save the file as UTF-8.") from cause
    if "\0" in text:
        raise error(f"{name}: is not a text file (it contains bytes of 0).")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(
    path: Path,
    error: type[EchogenError],
    name: str = "",
    *,
    most: int = MOST_BYTES,
    keys: int = MOST_KEYS,
    foreign: bool = False,
) -> Any:
    """What a JSON file holds; see `read_text` and `parse_json`."""
    text = read_text(path, error, name, most=most)
    return parse_json(text, error, name or str(path), keys=keys, foreign=foreign)


def parse_json(
    text: str,
    error: type[EchogenError],
    name: str,
    *,
    keys: int = MOST_KEYS,
    foreign: bool = False,
) -> Any:
    """What a JSON text holds.

    Args:
        text: of the file.
        error: what is raised.
        name: how messages call it.
        keys: that one object may have.
        foreign: whether NaN and infinity, which no JSON has but Python writes, are read as None.

    Raises:
        EchogenError: of the type `error`: it is not JSON, is nested deeper than `MOST_DEPTH`, or
            holds a number beyond 64 bits, NaN, or text that is no Unicode.
    """
    try:
        if text.count(",") + text.count("{") + text.count("[") > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        constant = (lambda _: None) if foreign else _no_constant
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=constant)
        _check(value, keys)
    except (ValueError, RecursionError) as cause:
        raise error(f"{name}: is not valid JSON ({_why(cause)}).") from cause
    return value


def read_toml(
    path: Path, error: type[EchogenError], name: str = "", *, most: int = MOST_BYTES
) -> dict[str, Any]:
    """The tables of a TOML file; see `read_text` and `parse_toml`."""
    return parse_toml(read_text(path, error, name, most=most), error, name or str(path))


def parse_toml(text: str, error: type[EchogenError], name: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        EchogenError: of the type `error`: it is not TOML, is nested deeper than `MOST_DEPTH`, or
            holds a number beyond 64 bits or text with a NUL.
    """
    try:
        bare = _TEXT_OR_COMMENT.sub("''", text)
        if any(part.count(".") > MOST_DOTS for part in _NO_KEY.split(bare)):
            raise RecursionError  # tomllib would take minutes and gigabytes
        value = tomllib.loads(text)
        _check(value)
    except (ValueError, RecursionError) as cause:
        raise error(f"{name}: is not valid TOML ({_why(cause)}).") from cause
    return value


def check_text(text: str, error: type[EchogenError], name: str) -> str:
    """`text`, such as a flag's.

    Raises:
        EchogenError: of the type `error`: it has a NUL, or is no Unicode.
    """
    try:
        _check_text(text)
    except ValueError as cause:
        raise error(f"{name}: is {reason(cause)}.") from cause
    return text


def read_csv(
    path: Path,
    error: type[EchogenError],
    name: str = "",
    *,
    most: int = MOST_BYTES,
    delimiter: str = ",",
) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, from 1, and its cells) of each line of a table; see `read_text`."""
    text = read_text(path, error, name, most=most)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as cause:
        raise error(f"{name or path}, line {reader.line_num}: {cause}.") from cause


def reason(error: Exception) -> str:
    """Why a file could not be read, for the end of a message: one line."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(told.split()) or type(error).__name__


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested deeper than {MOST_DEPTH} levels"
    if "integer string conversion" in str(error):
        return "a number of thousands of digits"
    return reason(error)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS + 1:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number out of range: {text:.40}")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _check(value: Any, keys: int = MOST_KEYS) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if len(one) > keys:
                    raise ValueError(f"a table of {len(one):,} keys")
                inner += one
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                _check_text(one)
            elif isinstance(one, int) and not -(2**63) <= one < 2**64:
                raise ValueError("a whole number beyond 64 bits")
        if not inner:
            return
        level = inner
    raise RecursionError


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("text with a character of code 0")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text that is not valid Unicode: {text[:40]!a}") from error
