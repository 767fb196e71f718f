"""Pictures of several formats, and what is grey in a picture stored in colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echogen.datasets.bitmaps import grey_of
from echogen.errors import DatasetError
from tests.support.pictures import SIDE, heart, opened, save, speckle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(tmp_path / "labels" / "x.png", heart())
    return tmp_path


def image(root: Path, **settings: object) -> np.ndarray:
    dataset = opened(root, **settings)
    return dataset.read(dataset.keys[0]).image


def reason(root: Path, **settings: object) -> str:
    with pytest.raises(DatasetError) as caught:
        image(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".bmp", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_pictures_of_every_format(root: Path, ending: str, channels: int) -> None:
    smooth = np.linspace(0, 255, SIDE[0] * SIDE[1]).reshape(SIDE).astype(np.uint8)
    stored = smooth if channels == 1 else np.stack([smooth] * channels, axis=-1)
    save(root / "images" / f"x{ending}", stored)
    assert np.abs(image(root).astype(int) - smooth).max() <= (3 if ending == ".jpg" else 0)
    assert opened(root).keys[0].paths[0].suffix == ending


def test_a_tiff_has_no_millimetres(root: Path) -> None:
    save(root / "images" / "x.tif", speckle(), dpi=(300, 300))
    dataset = opened(root)
    assert dataset.read(dataset.keys[0]).spacing_mm is None
    assert "spacing unknown" in dataset.describe()


@pytest.mark.parametrize("ending", [".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_picture_is_one_line(
    root: Path, ending: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(root / "images" / f"x{ending}", speckle())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert reason(root).startswith(f"images/x{ending}: ")
    assert capfd.readouterr() == ("", "")


def test_several_pictures_in_a_file_are_refused(root: Path) -> None:
    pictures = [Image.fromarray(speckle(seed)) for seed in range(3)]
    (root / "images").mkdir()
    pictures[0].save(root / "images" / "x.tif", save_all=True, append_images=pictures[1:])
    assert "holds 3 pictures; expected one" in reason(root)


def test_sixteen_bits_need_a_window(root: Path) -> None:
    deep = speckle().astype(np.uint16) * 16
    save(root / "images" / "x.png", deep)
    assert reason(root).endswith("set in [dataset]: window = [0, 4095]")
    expected = np.rint(deep / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(image(root, window=(0, 4095)), expected)
    half = image(root, window=(1000, 2000))
    assert (half[deep <= 1000] == 0).all()
    assert (half[deep >= 2000] == 255).all()


def test_fractions_need_a_window(root: Path) -> None:
    save(root / "images" / "x.tif", speckle().astype(np.float32) / 255)
    assert reason(root).endswith("set in [dataset]: window = [0, 1]")
    np.testing.assert_array_equal(image(root, window=(0, 1)), speckle())


def test_a_window_leaves_eight_bits_alone(root: Path) -> None:
    save(root / "images" / "x.png", speckle())
    np.testing.assert_array_equal(image(root, window=(0, 4095)), speckle())


def in_colour(tint: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    grey = np.tile(np.arange(SIDE[0] * 6, step=6, dtype=np.uint8)[:, None], (1, SIDE[1]))
    return np.clip(grey[..., None] * np.array(tint), 0, 255).astype(np.uint8)


def test_traces_of_colour_and_a_tint_are_grey() -> None:
    noisy = in_colour().astype(int)
    noisy[..., 0] += np.random.default_rng(0).integers(-20, 20, SIDE)
    plain = in_colour()[..., 0].astype(int)
    shades = grey_of(np.clip(noisy, 0, 255).astype(np.uint8), "x", 0.02)
    assert np.abs(shades - plain).max() <= 8
    sepia = in_colour((1.0, 0.8, 0.5))
    tinted = grey_of(sepia, "x", 0.02)
    assert np.ptp(sepia, axis=-1).max() > 100
    assert (np.diff(tinted[:, 0].astype(int)) > 0).all()


def test_a_small_logo_is_grey_and_a_doppler_box_is_refused() -> None:
    logo = in_colour()
    logo[0:2, 0:8] = (255, 255, 0)
    assert grey_of(logo, "x", 0.02).shape == SIDE
    doppler = in_colour()
    doppler[10:20, 4:14] = (200, 30, 0)
    doppler[10:20, 14:24] = (0, 40, 220)
    with pytest.raises(
        DatasetError, match=r"x: a colour picture: 15.6% .* max_colour = 0.16 in \[dataset\]"
    ):
        grey_of(doppler, "x", 0.02)
    assert grey_of(doppler, "x", 0.16).shape == SIDE


def test_colour_that_a_user_allows_is_read(root: Path) -> None:
    painted = np.stack([speckle()] * 3, axis=-1)
    painted[:3] = (255, 0, 0)
    save(root / "images" / "x.png", painted)
    assert "max_colour = 0.08" in reason(root)
    np.testing.assert_array_equal(image(root, max_colour=0.08)[3:], speckle()[3:])
