from pathlib import Path

import numpy as np
import pytest
from conftest import make_config

from echogen.errors import StoreError
from echogen.generate import expand
from echogen.sheets import (
    GAP,
    MISSING,
    SHEET_GREY,
    contact_sheet,
    grey,
    image_sheet,
    outlined,
    save_png,
)
from echogen.store import open_store


def test_outline_is_drawn_around_each_class_and_nowhere_else() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[2:7, 2:7] = 1
    image = grey(np.full((9, 9), 50, np.uint8))
    drawn = outlined(image, label)
    changed = (drawn != image).any(axis=2)
    ring = label.astype(bool).copy()
    ring[3:6, 3:6] = False
    np.testing.assert_array_equal(changed, ring)
    assert (image == 50).all()


def test_sheet_shows_original_moved_painted_and_mask(
    settings: dict[str, object], tmp_path: Path
) -> None:
    import SimpleITK

    expand(make_config(settings))
    with open_store(tmp_path / "out.zarr") as store:
        sheet = contact_sheet(store, [1, 6], scale=2)
        assert sheet.shape == (2 * (2 * 32 + GAP), 2 * (4 * 32 + 3 * GAP), 3)
        moved = sheet[:64:2, 2 * (32 + GAP) : 2 * (64 + GAP) : 2]
        np.testing.assert_array_equal((moved == MISSING).all(axis=2), ~store.keep[1])
        painted = sheet[:64:2, 4 * (32 + GAP) : 2 * (96 + 2 * GAP) : 2]
        np.testing.assert_array_equal(painted[..., 0], store.images[1])
    save_png(sheet, tmp_path / "sheet.png")
    back = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "sheet.png")))
    np.testing.assert_array_equal(back, sheet)


@pytest.mark.parametrize(("count", "columns", "grid"), [(5, 3, (2, 3)), (2, 8, (1, 2))])
def test_a_sheet_of_images_has_them_in_order_with_gaps_between_and_around(
    count: int, columns: int, grid: tuple[int, int]
) -> None:
    images = np.stack([np.full((6, 4), 100 + i, np.uint8) for i in range(count)])
    sheet = image_sheet(images, columns)
    assert sheet.shape == (grid[0] * (6 + GAP) + GAP, grid[1] * (4 + GAP) + GAP, 3)
    for i in range(count):
        top, left = GAP + i // columns * (6 + GAP), GAP + i % columns * (4 + GAP)
        assert (sheet[top : top + 6, left : left + 4] == 100 + i).all()
    assert (sheet == SHEET_GREY).sum() == sheet.size - images.size * 3


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(StoreError, match=r"no/such\.png: cannot be written"):
        save_png(image, tmp_path / "no" / "such.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        save_png(image, tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]
