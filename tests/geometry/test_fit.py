"""The fan is found through text, traces, noise, compression and shadows; no fan, no sector."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from echogen.errors import DatasetError
from echogen.geometry.fit import find_fan, fits, is_upside_down
from echogen.geometry.foreground import background_level, joined
from echogen.geometry.sector import Sector
from echogen.phantom import View, make_frame

SHAPE = (420, 560)
SPACING = (0.3, 0.3)
DATA = Path(__file__).parents[3] / "shared" / "data"

SECTORS = {
    "pointed": Sector(3.0, 84.0, -0.65, 0.65, 0.0, 118.0),
    "blunt": Sector(2.0, 80.0, -0.70, 0.70, 12.0, 115.0),
    "tilted": Sector(4.0, 70.0, -0.35, 0.75, 3.0, 116.0),
    "narrow": Sector(1.0, 90.0, -0.38, 0.38, 0.0, 120.0),
    "apex above the image": Sector(-12.0, 84.0, -0.60, 0.60, 20.0, 130.0),
    "cut at the sides": Sector(1.0, 84.0, -0.90, 0.90, 0.0, 122.0),
    "cut at the bottom": Sector(3.0, 84.0, -0.60, 0.60, 0.0, 150.0),
    "cut at the left and the bottom": Sector(2.0, 40.0, -0.70, 0.70, 0.0, 135.0),
}

Image = npt.NDArray[np.uint8]


def speckled(sector: Sector, seed: int, spacing: tuple[float, float] = SPACING) -> Image:
    """Log-compressed speckle in the fan, zero outside, with a dark cavity in its middle."""
    rng = np.random.default_rng(seed)
    envelope = np.abs(
        ndimage.gaussian_filter(rng.normal(size=SHAPE), (1.0, 1.8))
        + 1j * ndimage.gaussian_filter(rng.normal(size=SHAPE), (1.0, 1.8))
    )
    tissue = ndimage.gaussian_filter(rng.normal(size=SHAPE), 25.0)
    level = 95 + 45 * tissue / np.abs(tissue).max() + 9 * np.log(envelope / envelope.mean())
    rows, cols = np.indices(SHAPE)
    cavity = ((rows - 200) / 90) ** 2 + ((cols - 280) / 50) ** 2 < 1
    level = np.where(cavity, level - 60, level)
    return np.where(sector.mask(SHAPE, spacing), np.clip(level, 1, 255), 0).astype(np.uint8)


def with_text_and_trace(image: Image, sector: Sector, seed: int) -> Image:
    """Rows of glyph-like blobs in two corners, one over the fan's edge, and an ECG-like line."""
    rng = np.random.default_rng(seed)
    out = image.copy()
    glyphs = np.kron(rng.random((7, 60)) < 0.5, np.ones((2, 2)))
    glyphs[:, ::12] = 0
    out[10:24, 4:124][glyphs > 0] = 230
    out[30:44, -124:-4][glyphs > 0] = 200
    row = 150
    edge = sector.apex_col + (row * SPACING[0] - sector.apex_row) * np.tan(sector.angle_right)
    at = int(np.clip(edge / SPACING[1] - 6, 0, SHAPE[1] - 26))
    out[row : row + 14, at : at + 26][glyphs[:, :26] > 0] = 220
    cols = np.arange(SHAPE[1])
    trace = (395 - 12 * (np.sin(cols / 9.0) ** 20)).astype(int)
    out[trace, cols] = 180
    out[trace + 1, cols] = 180
    return out


def with_noise(image: Image, seed: int) -> Image:
    noise = np.random.default_rng(seed).integers(0, 7, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def compressed(image: Image, step: float = 16.0) -> Image:
    """As a JPEG or a video key frame: 8 x 8 cosine blocks, coarser for finer detail."""
    rows, cols = (size // 8 * 8 for size in image.shape)
    blocks = image[:rows, :cols].reshape(rows // 8, 8, cols // 8, 8).swapaxes(1, 2).astype(float)
    quantum = step * (1 + 0.35 * np.add.outer(np.arange(8), np.arange(8)))
    spectrum = np.round(fft.dctn(blocks, axes=(2, 3), norm="ortho") / quantum) * quantum
    back = fft.idctn(spectrum, axes=(2, 3), norm="ortho").swapaxes(1, 2).reshape(rows, cols)
    out = image.copy()
    out[:rows, :cols] = np.clip(np.rint(back), 0, 255).astype(np.uint8)
    return out


def with_dark_edges(image: Image, sector: Sector) -> Image:
    """Shadows that eat into both edges and the far arc, up to 40 pixels deep."""
    out = image.copy()
    places = [
        (0.45, sector.angle_left, 36.0),
        (0.75, sector.angle_left, 24.0),
        (0.60, sector.angle_right, 40.0),
        (1.00, 0.4 * sector.angle_left + 0.6 * sector.angle_right, 30.0),
    ]
    rows, cols = np.indices(SHAPE)
    for share, angle, size in places:
        radius = share * sector.radius_far
        row = (sector.apex_row + radius * np.cos(angle)) / SPACING[0]
        col = (sector.apex_col + radius * np.sin(angle)) / SPACING[1]
        out[np.hypot(rows - row, cols - col) < size] = 0
    return out


def assert_close(found: Sector, truth: Sector, spacing: tuple[float, float] = SPACING) -> None:
    row = (found.apex_row - truth.apex_row) / spacing[0]
    col = (found.apex_col - truth.apex_col) / spacing[1]
    assert np.hypot(row, col) < 1.0, f"apex off by ({row:.2f}, {col:.2f}) px"
    assert abs(np.rad2deg(found.angle_left - truth.angle_left)) < 0.5
    assert abs(np.rad2deg(found.angle_right - truth.angle_right)) < 0.5


def iou(found: Sector, image: Image, spacing: tuple[float, float]) -> float:
    """Of a fan with a clean image on black, its columns filled."""
    bright = image > 0
    filled = (
        np.maximum.accumulate(bright, axis=0) & np.maximum.accumulate(bright[::-1], axis=0)[::-1]
    )
    fan = found.mask((image.shape[0], image.shape[1]), spacing)
    return float((fan & filled).sum() / (fan | filled).sum())


def arc_is_seen(truth: Sector) -> bool:
    return truth.apex_row + truth.radius_far < SHAPE[0] * SPACING[0]


@pytest.mark.parametrize("name", SECTORS)
def test_a_clean_fan_is_found(name: str) -> None:
    truth = SECTORS[name]
    image = speckled(truth, 1)
    fan = find_fan([image], SPACING)
    found = fan.sector
    assert_close(found, truth)
    assert fan.confidence > 0.9
    assert fan.stretch == pytest.approx(1.0, abs=0.02)
    if arc_is_seen(truth):
        assert abs(found.radius_far - truth.radius_far) < 0.5 * SPACING[0]
    if truth.apex_row > 0:
        assert abs(found.radius_near - truth.radius_near) < 1.5 * SPACING[0]


@pytest.mark.parametrize("name", SECTORS)
def test_text_and_a_trace_do_not_move_the_fan(name: str) -> None:
    truth = SECTORS[name]
    image = with_text_and_trace(speckled(truth, 2), truth, 2)
    assert_close(find_fan([image], SPACING).sector, truth)


@pytest.mark.parametrize("name", SECTORS)
def test_background_noise_does_not_move_the_fan(name: str) -> None:
    truth = SECTORS[name]
    assert_close(find_fan([with_noise(speckled(truth, 3), 3)], SPACING).sector, truth)


@pytest.mark.parametrize("name", SECTORS)
def test_compression_does_not_move_the_fan(name: str) -> None:
    truth = SECTORS[name]
    assert_close(find_fan([compressed(speckled(truth, 4))], SPACING).sector, truth)


@pytest.mark.parametrize("name", SECTORS)
def test_dark_edges_do_not_move_the_fan(name: str) -> None:
    truth = SECTORS[name]
    assert_close(find_fan([with_dark_edges(speckled(truth, 5), truth)], SPACING).sector, truth)


@pytest.mark.parametrize("name", SECTORS)
def test_everything_at_once_does_not_move_the_fan(name: str) -> None:
    truth = SECTORS[name]
    image = with_dark_edges(speckled(truth, 6), truth)
    image = compressed(with_noise(with_text_and_trace(image, truth, 6), 6), 8.0)
    assert_close(find_fan([image], SPACING).sector, truth)


def test_millimetres_count_when_pixels_are_not_square() -> None:
    truth = Sector(2.0, 56.0, -0.62, 0.62, 0.0, 61.0)
    spacing = (0.154, 0.2)
    found = find_fan([speckled(truth, 7, spacing)], spacing).sector
    assert_close(found, truth, spacing)
    assert abs(found.radius_far - truth.radius_far) < 0.1


def test_several_images_see_more_than_one() -> None:
    truth = SECTORS["pointed"]
    halves = [speckled(truth, 8), speckled(truth, 9)]
    halves[0][:, : SHAPE[1] // 2 - 20] = 0
    halves[1][:, SHAPE[1] // 2 + 20 :] = 0
    assert_close(find_fan(halves, SPACING).sector, truth)


def test_a_video_gives_the_fan_of_its_frames() -> None:
    truth = SECTORS["tilted"]
    frames = [compressed(speckled(truth, seed)) for seed in range(6)]
    assert_close(find_fan(frames, SPACING).sector, truth)


def test_a_grey_background_and_bars_do_not_move_the_fan() -> None:
    truth = SECTORS["blunt"]
    image = speckled(truth, 21)
    rows = np.indices(SHAPE)[0]
    outside = ~truth.mask(SHAPE, SPACING)
    image[outside] = (20 + 20 * rows / SHAPE[0]).astype(np.uint8)[outside]
    image = np.pad(image, ((0, 0), (60, 60)), constant_values=128)
    across = 60 * SPACING[1]
    found = find_fan([image], SPACING).sector
    assert_close(found, replace(truth, apex_col=truth.apex_col + across))


def test_dark_flanks_do_not_make_the_fan_narrow() -> None:
    truth = SECTORS["pointed"]
    rows, cols = np.indices(SHAPE) + 0.5
    angle = np.arctan2(
        cols * SPACING[1] - truth.apex_col, np.maximum(rows * SPACING[0] - truth.apex_row, 1e-3)
    )
    shade = np.clip((truth.angle_right - np.abs(angle)) / 0.3, 0.15, 1)
    found = find_fan(
        [compressed((speckled(truth, 22) * shade).astype(np.uint8), 8.0)], SPACING
    ).sector
    assert found.angle_left == pytest.approx(truth.angle_left, abs=0.01)
    assert found.angle_right == pytest.approx(truth.angle_right, abs=0.01)
    assert found.apex_row == pytest.approx(truth.apex_row, abs=0.01 * truth.radius_far)


def test_what_stands_still_in_a_clip_is_no_part_of_its_fan() -> None:
    truth = SECTORS["pointed"]
    frames = [speckled(truth, seed) for seed in range(30, 39)]
    for frame in frames:
        frame[300:330, 10:90] = 200
    together = joined(frames)
    fan = truth.mask(SHAPE, SPACING)
    assert together[305:325, 15:85].max() < 20
    assert np.median(together[fan]) > 80
    assert np.median(joined([frames[0]] * 9)[fan]) > 80  # a still picture is taken as it is


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_a_wrong_spacing_is_told_by_the_arc(factor: float) -> None:
    truth = SECTORS["pointed"]
    found = find_fan([speckled(truth, 23)], (SPACING[0] / factor, SPACING[1]))
    assert found.stretch == pytest.approx(factor, abs=0.01)
    dark = with_dark_edges(speckled(truth, 24), truth)
    assert find_fan([dark], SPACING).stretch == pytest.approx(1.0, abs=0.02)


def test_a_fan_whose_edges_are_dark_is_less_sure() -> None:
    truth = SECTORS["pointed"]
    image = speckled(truth, 25)
    clean = find_fan([image], SPACING).confidence
    dark = find_fan([with_dark_edges(image, truth)], SPACING).confidence
    assert 0.4 < dark < clean <= 1


def test_the_fan_of_a_recording_is_one_of_its_frames_if_little_lies_outside() -> None:
    truth = SECTORS["pointed"]
    image = speckled(truth, 26)
    hollow = image.copy()
    hollow[150:, :200] = 0
    assert fits(truth, hollow, SPACING)
    assert not fits(replace(truth, angle_left=-0.3), image, SPACING)


@pytest.mark.parametrize("shape", [(16, 3000), (3000, 16), (1, 1), (2, 900)])
def test_a_picture_of_any_shape_is_no_failure(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    fan = Sector(0.0, shape[1] / 2, -0.7, 0.7, 0.0, float(shape[0]))
    assert isinstance(fits(fan, noise, (1.0, 1.0)), bool)


def test_a_picture_that_is_upside_down_is_told() -> None:
    image = speckled(SECTORS["pointed"], 27)
    assert is_upside_down(np.ascontiguousarray(image[::-1]), SPACING)
    assert not is_upside_down(image, SPACING)


def test_the_fit_is_deterministic() -> None:
    image = with_noise(speckled(SECTORS["blunt"], 10), 10)
    assert find_fan([image], SPACING).sector == find_fan([image.copy()], SPACING).sector


def test_the_background_level_of_a_black_background_is_zero() -> None:
    image = speckled(SECTORS["pointed"], 13)
    assert background_level(image) == 0
    assert 6 <= background_level(with_noise(image, 13)) <= 10


def disc() -> Image:
    rows, cols = np.indices(SHAPE)
    return np.where(np.hypot(rows - 210, cols - 280) < 150, 90, 0).astype(np.uint8)


def spectrum() -> Image:
    """Bright humps on a baseline, as a Doppler spectrum's."""
    rows, cols = np.indices(SHAPE)
    humps = 160 * np.abs(np.sin(cols / 45)) ** 1.5
    grain = np.random.default_rng(1).rayleigh(60, SHAPE).clip(0, 255)
    return np.where((rows < 300) & (rows > 300 - humps), grain, 0).astype(np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(SHAPE, np.uint8),
        np.full(SHAPE, 120, np.uint8),
        np.pad(np.full((200, 300), 90, np.uint8), ((60, 160), (100, 160))),
        np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8),
        disc(),
        spectrum(),
        speckled(SECTORS["pointed"], 14)[::-1],
        np.rot90(speckled(SECTORS["pointed"], 14)).copy(),
    ],
    ids=["black", "white", "rectangle", "noise", "disc", "spectrum", "upside down", "on its side"],
)
def test_an_image_without_a_fan_is_refused(image: Image) -> None:
    with pytest.raises(DatasetError, match="expected a fan, apex up"):
        find_fan([image], SPACING)


def test_a_fan_is_found_in_a_screenshot_between_panels() -> None:
    image, sector = speckled(SECTORS["blunt"], 21), SECTORS["blunt"]
    around = np.zeros((SHAPE[0] + 200, SHAPE[1] + 500), np.uint8)
    around[100:-100, 250:-250] = image
    around[40:400, 20:200] = np.random.default_rng(2).integers(60, 200, (360, 180))
    around[300:, -220:-20] = 130
    around[:20] = 70

    found = find_fan([around], SPACING)

    row, col = 100 * SPACING[0], 250 * SPACING[1]
    assert (
        np.hypot(
            found.sector.apex_row - sector.apex_row - row,
            found.sector.apex_col - sector.apex_col - col,
        )
        < 0.015 * sector.radius_far
    )
    assert abs(found.sector.angle_left - sector.angle_left) < np.deg2rad(1)
    assert abs(found.sector.angle_right - sector.angle_right) < np.deg2rad(1)
    assert found.confidence > 0.9


def test_wrong_arguments_are_named() -> None:
    image = speckled(SECTORS["pointed"], 15)
    with pytest.raises(DatasetError, match="no image"):
        find_fan([], SPACING)
    with pytest.raises(DatasetError, match="one shape"):
        find_fan([image, image[:-1]], SPACING)
    with pytest.raises(DatasetError, match="uint8"):
        find_fan([image.astype(np.float32)], SPACING)  # type: ignore[list-item]
    with pytest.raises(DatasetError, match="positive"):
        find_fan([image], (0.0, 0.3))


fans = st.builds(
    Sector,
    apex_row=st.floats(-10, 20),
    apex_col=st.floats(40, 110),
    angle_left=st.floats(-1.0, -0.2),
    angle_right=st.floats(0.2, 1.0),
    radius_near=st.floats(0, 15),
    radius_far=st.floats(40, 150),
)


@given(fans, st.integers(2, 5))
def test_a_mask_is_the_same_on_every_grid_of_the_same_field(sector: Sector, odd: int) -> None:
    factor = 2 * (odd // 2) + 1  # an odd factor has the coarse centres among the fine ones
    coarse = sector.mask((63, 84), (2.0, 2.0))
    fine = sector.mask((63 * factor, 84 * factor), (2.0 / factor, 2.0 / factor))
    shared = fine[factor // 2 :: factor, factor // 2 :: factor]
    assert np.mean(coarse != shared) < 1e-3  # a centre within rounding of the edge may differ


@given(fans, st.floats(-30, 30), st.floats(-30, 30))
def test_a_mask_moves_with_its_origin(sector: Sector, row: float, col: float) -> None:
    moved = Sector(
        sector.apex_row + row,
        sector.apex_col + col,
        sector.angle_left,
        sector.angle_right,
        sector.radius_near,
        sector.radius_far,
    )
    here = sector.mask((60, 80), (2.0, 2.0))
    there = moved.mask((60, 80), (2.0, 2.0), origin_mm=(row, col))
    assert np.mean(here != there) < 1e-3


@given(fans)
def test_the_area_of_a_mask_is_that_of_the_fan(sector: Sector) -> None:
    reach = sector.radius_far + 2
    origin = (sector.apex_row - 2, sector.apex_col - reach)
    size = (int(2 * reach), int(4 * reach))
    area = sector.mask(size, (0.5, 0.5), origin).sum() * 0.25
    width = sector.angle_right - sector.angle_left
    expected = 0.5 * width * (sector.radius_far**2 - sector.radius_near**2)
    assert area == pytest.approx(expected, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    row=st.floats(0.5, 8),
    col=st.floats(65, 100),
    left=st.floats(-0.75, -0.3),
    right=st.floats(0.3, 0.75),
    near=st.floats(0, 10),
    far=st.floats(85, 115),
    seed=st.integers(0, 99),
)
def test_any_fan_is_found(
    row: float, col: float, left: float, right: float, near: float, far: float, seed: int
) -> None:
    truth = Sector(row, col, left, right, near, far)
    assert_close(find_fan([speckled(truth, seed)], SPACING).sector, truth)


def read_camus(path: Path) -> tuple[Image, tuple[float, float]]:
    import SimpleITK as sitk

    found = sitk.ReadImage(str(path))
    col, row = found.GetSpacing()[:2]
    return np.squeeze(sitk.GetArrayFromImage(found)).astype(np.uint8), (row, col)


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("camus/database_nifti/*/*_4CH_ED.nii.gz", 0.998),
        ("camus_mhd/training/*/*_2CH_ED.mhd", 0.998),
    ],
)
def test_real_fans_agree_with_their_foreground(pattern: str, least: float) -> None:
    paths = sorted(DATA.glob(pattern))[::40]
    if not paths:
        pytest.skip(f"no {pattern} under ../shared/data")
    for path in paths:
        image, spacing = read_camus(path)
        assert iou(find_fan([image], spacing).sector, image, spacing) >= least, path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # imageio-ffmpeg leaves its pipes open
def test_a_real_compressed_recording_is_found() -> None:
    imageio = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg reads the video")
    path = DATA / "e95" / "a4c.mp4"
    if not path.exists():
        pytest.skip("no e95/a4c.mp4 under ../shared/data")
    frames = imageio.read_frames(str(path), pix_fmt="gray", bits_per_pixel=8)
    width, height = next(frames)["size"]
    video = [np.frombuffer(frame, np.uint8).reshape(height, width) for frame in frames]
    del frames
    gc.collect()
    found = find_fan(video, (1.0, 1.0)).sector
    for frame in video[::30]:
        assert_close(find_fan([frame], (1.0, 1.0)).sector, found, (1.0, 1.0))


@pytest.mark.parametrize(
    ("index", "view"), [(1, "4CH"), (2, "2CH"), (3, "2CH"), (4, "4CH"), (5, "2CH")]
)
def test_the_fan_of_a_phantom_is_found(index: int, view: View) -> None:
    frame = make_frame(index, view, "ED")
    found = find_fan([frame.image], frame.spacing_mm).sector
    assert_close(found, frame.sector, frame.spacing_mm)


@pytest.mark.slow
def test_the_fan_of_a_compressed_noisy_phantom_is_found() -> None:
    for index in range(1, 7):
        frame = make_frame(index, "4CH", "ES")
        image = compressed(with_noise(frame.image, index))
        assert_close(find_fan([image], frame.spacing_mm).sector, frame.sector, frame.spacing_mm)
