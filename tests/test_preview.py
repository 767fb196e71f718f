from pathlib import Path

import numpy as np
from conftest import make_config

from echogen.generate import expand
from echogen.preview import GAP, MISSING, contact_sheet, grey, outlined, save_png
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
