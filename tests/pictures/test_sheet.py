import numpy as np
import pytest

from echogen.pictures.colours import CAVITY
from echogen.pictures.sheet import (
    GAP,
    GAP_GREY,
    LEADING,
    PAPER,
    Line,
    Sheet,
    bare_sheet,
    draw,
    fitting,
    wrapped,
)
from echogen.pictures.tiles import tile


@pytest.mark.parametrize(("count", "columns", "grid"), [(5, 3, (2, 3)), (2, 8, (1, 2))])
def test_a_sheet_of_images_has_them_in_order_with_gaps_between_and_around(
    count: int, columns: int, grid: tuple[int, int]
) -> None:
    images = np.stack([np.full((6, 4), 100 + i, np.uint8) for i in range(count)])
    sheet = np.asarray(bare_sheet(images, columns))
    assert sheet.shape == (grid[0] * (6 + GAP) + GAP, grid[1] * (4 + GAP) + GAP, 3)
    for i in range(count):
        top, left = GAP + i // columns * (6 + GAP), GAP + i % columns * (4 + GAP)
        assert (sheet[top : top + 6, left : left + 4] == 100 + i).all()
    assert (sheet == GAP_GREY).sum() == sheet.size - images.size * 3


def test_a_sheet_holds_each_tile_unchanged_with_its_heading_place() -> None:
    tiles = [tile(np.full((8, 8), 60 + 20 * i, np.uint8), (90, 80)) for i in range(3)]
    sheet = Sheet(
        title="hearts", subtitle=("one", "two"), headings=("a", "b"),
        lines=(Line((tiles[0], tiles[1]), "first", ""), Line((None, tiles[2]), "second", "")),
        legend=(("LV", CAVITY),), footer=("CC",), columns=2,
    )  # fmt: skip
    drawn = np.asarray(draw(sheet))
    found = [np.argwhere((drawn == 60 + 20 * i).all(axis=2)) for i in range(3)]
    corners = [(places.min(axis=0).tolist(), len(places)) for places in found]
    assert [count for _, count in corners] == [90 * 80] * 3
    tops = [top for (top, _), _ in corners]
    lefts = [left for (_, left), _ in corners]
    assert tops[0] == tops[1] == tops[2]
    assert lefts[0] < lefts[1] < lefts[2]
    assert lefts[2] - lefts[1] > 90 + 6  # the second line's own first place stays empty
    assert tuple(drawn[0, 0]) == PAPER


def test_text_that_does_not_fit_ends_in_an_ellipsis_and_breaks_no_line() -> None:
    assert fitting("short", 200) == "short"
    cut = fitting("a name that is much too long for its place\nin the page", 100)
    assert cut.endswith("…")
    assert "\n" not in fitting("two\nlines", 300)


def test_facts_take_the_lines_there_are_and_no_word_is_lost() -> None:
    text = "refused: the best fan covers only a part of what is bright in this picture"
    assert wrapped(text, 10_000, 3) == [text]
    lines = wrapped(text, 200, 3)
    assert len(lines) == 3
    assert " ".join(lines) == text
    assert wrapped(text, 200, 1) == [text]
    line = Line((tile(np.zeros((8, 8), np.uint8), (200, 40)),), "a", text)
    one, three = (
        draw(Sheet("t", (), ("fan",), (line,), (), (), columns=1, facts=facts)) for facts in (1, 3)
    )
    assert three.height == one.height + 2 * LEADING
