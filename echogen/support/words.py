"""Words for messages and tables."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 frame`, `1,598 frames`; with a plural of its own, `2 copies`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def one_line(text: object, most: int = 300) -> str:
    """A text, such as an error's, on one line of at most so many characters."""
    return " ".join(str(text).split())[:most]


def both(originals: int, copies: int) -> str:
    """`1 original, 4 copies`."""
    return f"{counted(originals, 'original')}, {counted(copies, 'copy', 'copies')}"
