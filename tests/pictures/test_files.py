from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echogen.errors import StoreError
from echogen.pictures.files import save_gif, save_png
from echogen.pictures.tiles import tile


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(StoreError, match=r"no/such\.png: cannot be written"):
        save_png(image, tmp_path / "no" / "such.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        save_png(image, tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_an_animation_opens_again_with_its_frames(tmp_path: Path) -> None:
    frames = [tile(np.full((8, 8), 40 * i, np.uint8), (32, 32)) for i in range(4)]
    save_gif(frames, tmp_path / "way.gif", [100, 50, 50, 500])
    with Image.open(tmp_path / "way.gif") as opened:
        assert opened.n_frames == 4
        assert opened.info["loop"] == 0
        opened.seek(3)
        assert opened.convert("L").getpixel((5, 5)) == pytest.approx(120, abs=4)
    assert [path.name for path in tmp_path.iterdir()] == ["way.gif"]
