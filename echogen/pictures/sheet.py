"""Contact sheets: bare images in rows, or tiles with captions, a legend and the licences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from echogen.pictures.colours import Colour

PAPER, INK, FAINT, RULE = (17, 19, 23), (240, 242, 245), (150, 157, 168), (44, 48, 56)
MARGIN, BETWEEN, APART = 28, 6, 34
TITLE, TEXT, SMALL = 26, 15, 13
LEADING = 17  # from line to line of small text
CAPTION = 26  # pixels high
GAP, GAP_GREY = 4, 40


@dataclass(frozen=True)
class Line:
    """A sample's tiles and the text below them.

    Attributes:
        tiles: one under each heading; None leaves its place empty.
        title: the sample's name.
        facts: about it, in one line.
    """

    tiles: tuple[Image.Image | None, ...]
    title: str
    facts: str


@dataclass(frozen=True)
class Sheet:
    """What a contact sheet shows.

    Attributes:
        title: of the whole sheet.
        subtitle: lines of text below the title.
        headings: of the tiles in a line.
        lines: one a sample; at least one.
        legend: names and their colours.
        footer: licences of what is shown, one line each.
        columns: lines side by side.
        facts: lines of text for the facts of each.
    """

    title: str
    subtitle: tuple[str, ...]
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, Colour], ...]
    footer: tuple[str, ...]
    columns: int
    facts: int = 1


def bare_sheet(images: npt.NDArray[np.uint8], columns: int = 8) -> Image.Image:
    """Images alone, in rows of `columns`, with a small dark gap between and around them.

    Args:
        images: (N, h, w) grey levels, N at least 1.
        columns: images in a row; an incomplete last row is filled with the gap's grey.
    """
    count, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    sheet = np.full(shape, GAP_GREY, np.uint8)
    for number, image in enumerate(images):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet).convert("RGB")


def draw(sheet: Sheet) -> Image.Image:
    """The sheet as an RGB picture."""
    shown = [tile for line in sheet.lines for tile in line.tiles if tile is not None]
    width, height = (max(getattr(tile, side) for tile in shown) for side in ("width", "height"))
    block = len(sheet.headings) * (width + BETWEEN) - BETWEEN
    columns = max(1, min(sheet.columns, len(sheet.lines)))
    block = max(block, 420 if columns == 1 else 200)
    step = height + 2 * TEXT + SMALL + 26 + (sheet.facts - 1) * LEADING
    rows = -(-len(sheet.lines) // columns)
    total = 2 * MARGIN + columns * block + (columns - 1) * APART
    head = MARGIN + TITLE + 22 * len(sheet.subtitle) + 54
    foot = 46 + (SMALL + 7) * len(sheet.footer) + MARGIN
    paper = Image.new("RGB", (total, head + rows * step + foot), PAPER)
    pen = ImageDraw.Draw(paper)
    _write(pen, (MARGIN, MARGIN - 4), sheet.title, TITLE, INK, total - 2 * MARGIN, bold=True)
    for number, text in enumerate(sheet.subtitle):
        at = (MARGIN, MARGIN + TITLE + 8 + 22 * number)
        _write(pen, at, text, TEXT, FAINT, total - 2 * MARGIN)
    for number, line in enumerate(sheet.lines):
        left = MARGIN + number % columns * (block + APART)
        top = head + number // columns * step
        if number < columns:
            for place, heading in enumerate(sheet.headings):
                at = (left + place * (width + BETWEEN), top - 24)
                _write(pen, at, heading, SMALL, FAINT, width)
        _draw_line(paper, line, (left, top), (width, height), sheet.facts)
    _draw_foot(pen, sheet, (MARGIN, head + rows * step), total)
    return paper


def caption(text: str, width: int) -> Image.Image:
    """A line of text as a strip, for a picture without a sheet."""
    strip = Image.new("RGB", (width, CAPTION), PAPER)
    _write(ImageDraw.Draw(strip), (8, (CAPTION - SMALL) // 2 - 2), text, SMALL, INK, width - 16)
    return strip


def _draw_line(
    paper: Image.Image, line: Line, at: tuple[int, int], cell: tuple[int, int], facts: int
) -> None:
    (left, top), (width, height) = at, cell
    for place, tile in enumerate(line.tiles):
        if tile is not None:
            paper.paste(tile, (left + place * (width + BETWEEN), top))
    room = len(line.tiles) * (width + BETWEEN) - BETWEEN
    pen = ImageDraw.Draw(paper)
    _write(pen, (left, top + height + 6), line.title, TEXT, INK, room, bold=True)
    for number, text in enumerate(wrapped(line.facts, room, facts)):
        at = (left, top + height + TEXT + 13 + number * LEADING)
        _write(pen, at, text, SMALL, FAINT, room)


def _draw_foot(pen: ImageDraw.ImageDraw, sheet: Sheet, at: tuple[int, int], total: int) -> None:
    left, top = at
    pen.line([(MARGIN, top), (total - MARGIN, top)], RULE)
    for name, colour in sheet.legend:
        pen.rounded_rectangle([left, top + 14, left + 14, top + 28], 3, colour)
        left += 21
        _write(pen, (left, top + 13), name, SMALL, INK, total)
        left += int(_font(SMALL, False).getlength(name)) + 24
    for number, text in enumerate(sheet.footer):
        place = (MARGIN, top + 40 + number * (SMALL + 7))
        _write(pen, place, text, SMALL, FAINT, total - 2 * MARGIN)


def _write(
    pen: ImageDraw.ImageDraw,
    at: Sequence[int],
    text: str,
    size: int,
    colour: Colour,
    room: int,
    bold: bool = False,
) -> None:
    font = _font(size, bold)
    pen.text((at[0], at[1]), fitting(text, room, size, bold), colour, font)


def wrapped(text: str, room: int, most: int) -> list[str]:
    """A text on at most so many lines of so many pixels; the last may be too long."""
    words, lines = text.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".lstrip()
        if len(lines) < most and _font(SMALL, False).getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def fitting(text: str, room: int, size: int = SMALL, bold: bool = False) -> str:
    """As much of a line as fits into so many pixels, with an ellipsis where it was cut."""
    font = _font(size, bold)
    line = " ".join(text.split())
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(f"{line}…") > room:
        line = line[:-1]
    return f"{line.rstrip()}…"


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
