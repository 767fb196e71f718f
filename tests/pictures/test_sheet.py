from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echogen.errors import StoreError
from echogen.pictures.files import save_gif, save_png
from echogen.pictures.sheet import GAP, GAP_GREY, PAPER, Line, Sheet, bare_sheet, draw, fitting
from echogen.pictures.tiles import COLOURS, MISSING, contoured, displayed_size, hatched, tile


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


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(StoreError, match=r"no/such\.png: cannot be written"):
        save_png(image, tmp_path / "no" / "such.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        save_png(image, tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_a_tile_has_the_images_true_aspect() -> None:
    assert displayed_size((200, 100), 1.5, 80) == (60, 80)
    assert displayed_size((200, 100), float("nan"), 80) == (40, 80)
    image = np.tile(np.arange(0, 100, dtype=np.uint8), (200, 1))
    shown = np.asarray(tile(image, displayed_size(image.shape, 1.5, 80)))
    assert shown.shape == (80, 60, 3)
    assert (np.diff(shown[40, :, 0].astype(int)) >= 0).all()


def test_what_is_missing_is_hatched_and_the_rest_is_left_alone() -> None:
    missing = np.zeros((64, 64), np.bool_)
    missing[:, 32:] = True
    shown = tile(np.full((64, 64), 90, np.uint8), (64, 64))
    marked = np.asarray(hatched(shown, missing))
    np.testing.assert_array_equal(marked[:, :31], np.asarray(shown)[:, :31])
    inside = marked[:, 34:].reshape(-1, 3)
    assert {tuple(colour) for colour in inside.tolist()} == {
        MISSING,
        tuple(channel + 46 for channel in MISSING),
    }


def test_contours_follow_the_label_between_its_pixels() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[16:48, 20:40] = 1
    shown = tile(np.zeros((64, 64), np.uint8), (256, 256))
    drawn = np.asarray(contoured(shown, label)).astype(int)
    row = drawn[128]
    near = np.abs(row - COLOURS[1]).sum(axis=1) < 60
    assert np.flatnonzero(near).min() == pytest.approx(20 * 4, abs=2)
    assert np.flatnonzero(near).max() == pytest.approx(40 * 4, abs=2)
    assert (drawn[:40] == 0).all()
    assert drawn[128, 120].sum() > 0  # lightly filled


def test_a_sheet_holds_each_tile_unchanged_with_its_heading_place() -> None:
    tiles = [tile(np.full((8, 8), 60 + 20 * i, np.uint8), (90, 80)) for i in range(3)]
    sheet = Sheet(
        title="hearts", subtitle=("one", "two"), headings=("a", "b"),
        lines=(Line((tiles[0], tiles[1]), "first", ""), Line((None, tiles[2]), "second", "")),
        legend=(("LV", COLOURS[1]),), footer=("CC",), columns=2,
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


def test_an_animation_opens_again_with_its_frames(tmp_path: Path) -> None:
    frames = [tile(np.full((8, 8), 40 * i, np.uint8), (32, 32)) for i in range(4)]
    save_gif(frames, tmp_path / "way.gif", [100, 50, 50, 500])
    with Image.open(tmp_path / "way.gif") as opened:
        assert opened.n_frames == 4
        assert opened.info["loop"] == 0
        opened.seek(3)
        assert opened.convert("L").getpixel((5, 5)) == pytest.approx(120, abs=4)
    assert [path.name for path in tmp_path.iterdir()] == ["way.gif"]
