"""Words for messages and tables."""

from collections.abc import Iterable
from unicodedata import category


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 frame`, `1,598 frames`; with a plural of its own, `2 copies`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(values: Iterable[object], most: int) -> str:
    """`a, b and 3 more`: the first so many of them."""
    listed = [str(value) for value in values]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def one_line(text: object, most: int = 300) -> str:
    """A text, such as an error's, on one line of at most so many characters, all printable."""
    return printable(" ".join(str(text).split())[:most])


def printable(text: str) -> str:
    """A text with what no terminal or file should get, such as the bytes of a file's name that is
    not UTF-8, as escapes: `\\udcff`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_plain(text: str) -> bool:
    """Whether a text is Unicode on one line without control characters, so that any file, table and
    terminal can hold it.
    """
    return text.isprintable() or not any(category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def both(originals: int, copies: int) -> str:
    """`1 original, 4 copies`."""
    return f"{counted(originals, 'original')}, {counted(copies, 'copy', 'copies')}"
