"""Grey levels of DICOM pictures: every way of storing them that can be written or is at hand."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from echogen.datasets import dicom_apart, dicom_header, dicom_pixels
from echogen.datasets.dicom_pixels import grey_levels, open_file, read_picture, read_pictures
from echogen.errors import DatasetError
from tests.support.dicoms import a_region, an_ultrasound, as_jpeg, save
from tests.support.hearts import fan_frame

OWN = Path(pydicom.__file__).parent / "data" / "test_files"
HEART = fan_frame(1)[0]
CLIP = np.stack([fan_frame(seed)[0] for seed in range(3)])


def colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def written(found: Dataset, folder: Path) -> Path:
    return save(found, folder / "x.dcm")


def first(found: Dataset, folder: Path, index: int = 0, max_colour: float = 0.02) -> np.ndarray:
    return grey_levels(open_file(written(found, folder), None, max_colour), index)


def reason(found: Dataset, folder: Path, index: int = 0) -> str:
    with pytest.raises(DatasetError) as caught:
        first(found, folder, index)
    assert "\n" not in str(caught.value)
    assert "x.dcm" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_that_lose_nothing_are_read_exactly(
    syntax: UID, channels: int, tmp_path: Path
) -> None:
    pixels = CLIP if channels == 1 else colour(CLIP)
    kind = "MONOCHROME2" if channels == 1 else "RGB"
    native = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    found = an_ultrasound(pixels, kind, syntax=native)
    if syntax == RLELossless:
        found.compress(RLELossless)
    file = open_file(written(found, tmp_path))
    assert (read_pictures(file) == CLIP).all()
    assert (grey_levels(file, 2) == CLIP[2]).all()


@pytest.mark.parametrize(("channels", "sampling"), [(1, 0), (3, 0), (3, 1), (3, 2)])
def test_jpeg_gives_its_own_luminance(channels: int, sampling: int, tmp_path: Path) -> None:
    pixels = CLIP if channels == 1 else colour(CLIP)
    options = {"subsampling": sampling} if channels == 3 else {}
    found = as_jpeg(an_ultrasound(pixels, "RGB" if channels == 3 else "MONOCHROME2"), pixels,
                    **options)  # fmt: skip
    for index, picture in enumerate(CLIP):
        error = np.abs(first(found, tmp_path, index).astype(int) - picture)
        assert error.mean() < 4
        assert np.corrcoef(picture.ravel(), first(found, tmp_path, index).ravel())[0, 1] > 0.99


def test_a_jpeg_of_ybr_that_is_called_rgb_is_seen_through(tmp_path: Path) -> None:
    pixels = colour(CLIP[:1])
    honest = as_jpeg(an_ultrasound(pixels, "RGB"), pixels)
    mistaken = as_jpeg(an_ultrasound(pixels, "RGB"), pixels, ybr=False)
    assert (first(mistaken, tmp_path / "a") == first(honest, tmp_path / "b")).all()


def test_planes_of_colours_one_after_the_other_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (1, 24, 30, 3)).astype(np.uint8)
    woven, stacked = an_ultrasound(pixels, "RGB"), an_ultrasound(pixels, "RGB")
    stacked.PlanarConfiguration = 1
    stacked.PixelData = np.ascontiguousarray(pixels[0].transpose(2, 0, 1)).tobytes()
    assert (first(woven, tmp_path / "a", 0, 1) == first(stacked, tmp_path / "b", 0, 1)).all()
    expected = np.rint(pixels[0] @ np.array([0.299, 0.587, 0.114]))
    assert (first(woven, tmp_path / "c", 0, 1) == expected).all()


def test_luminance_and_chroma_uncompressed_give_the_luminance(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (1, 24, 30, 3)).astype(np.uint8)
    whole = an_ultrasound(pixels, "YBR_FULL")
    assert (first(whole, tmp_path / "a", 0, 1) == pixels[0, ..., 0]).all()
    half = an_ultrasound(pixels, "YBR_FULL_422")
    pairs = pixels[0].reshape(24, 15, 2, 3)
    woven = np.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]])
    half.PixelData = np.ascontiguousarray(woven.transpose(1, 2, 0)).tobytes()
    assert (first(half, tmp_path / "b", 0, 1) == pixels[0, ..., 0]).all()


def a_flow() -> np.ndarray:
    """(1, H, W, 3): a heart with a box of colour Doppler."""
    pixels = colour(CLIP[:1])
    pixels[0, 50:70, 40:70] = (255, 30, 0)
    pixels[0, 60:70, 40:70] = (0, 60, 255)
    return pixels


@pytest.mark.parametrize("kind", ["RGB", "JPEG", "YBR_FULL", "PALETTE COLOR"])
def test_colour_doppler_is_refused(kind: str, tmp_path: Path) -> None:
    pixels = a_flow()
    found = an_ultrasound(pixels, "RGB")
    if kind == "JPEG":
        found = as_jpeg(found, pixels)
    elif kind == "YBR_FULL":
        found = an_ultrasound(convert_color_space(pixels, "RGB", "YBR_FULL"), "YBR_FULL")
    elif kind == "PALETTE COLOR":
        indices = CLIP[:1] // 2
        indices[0, 50:70, 40:70] += 128
        found = an_ultrasound(indices, "PALETTE COLOR")
        for number, name in enumerate(("Red", "Green", "Blue")):
            table = np.r_[np.arange(128) * 2, np.full(128, 0 if number else 255)]
            setattr(found, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            data = (table.astype(np.uint16) * 257).tobytes()
            setattr(found, f"{name}PaletteColorLookupTableData", data)
    assert "picture 0: a colour picture: " in reason(found, tmp_path / "a")
    assert first(found, tmp_path / "b", 0, 0.1).shape == CLIP[0].shape


def test_colour_beside_the_tissue_is_read(tmp_path: Path) -> None:
    pixels = np.zeros((1, 200, 200, 3), np.uint8)
    pixels[0, 20:140, 20:130] = colour(CLIP[0])
    pixels[0, 150:190, :] = (255, 30, 0)
    bare = an_ultrasound(pixels, "RGB")
    assert "a colour picture: 20.0%" in reason(bare, tmp_path / "a")
    told = an_ultrasound(pixels, "RGB", regions=[a_region((20, 20, 139, 129))])
    assert (first(told, tmp_path / "b")[20:140, 20:130] == CLIP[0]).all()


def test_the_other_monochrome_is_turned_round(tmp_path: Path) -> None:
    assert (first(an_ultrasound(255 - CLIP[:1], "MONOCHROME1"), tmp_path) == CLIP[0]).all()


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    found = an_ultrasound(CLIP[:1], "PALETTE COLOR")
    table = (np.arange(256)[::-1].astype(np.uint16) * 257).tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(found, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(found, f"{name}PaletteColorLookupTableData", table)
    assert (first(found, tmp_path / "a") == 255 - CLIP[0]).all()
    del found.BluePaletteColorLookupTableData
    assert "palette" in reason(found, tmp_path / "b")


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"WindowCenter": 2048, "WindowWidth": 4096}, [0, 0, 64, 128, 255, 255]),
        ({"WindowCenter": [1024, 9], "WindowWidth": [2048, 9]}, [0, 0, 128, 255, 255, 255]),
        (
            {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"},
            [0, 0, 64, 128, 255, 255],
        ),
        (
            {"WindowCenter": 4096, "WindowWidth": 8192, "RescaleSlope": 2, "RescaleIntercept": 0},
            [0, 0, 64, 128, 255, 255],
        ),
    ],
)
def test_sixteen_bits_are_shown_through_the_window(
    window: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    values = np.array([[[0, 1, 1024, 2048, 4095, 60000]]], np.uint16)
    shown = first(an_ultrasound(values, **window), tmp_path)
    assert np.abs(shown[0].astype(int) - expected).max() <= 1


def test_bits_above_those_stored_are_not_part_of_the_picture(tmp_path: Path) -> None:
    values = np.array([[[0, 2048, 4095, 0xF000 + 2048]]], np.uint16)
    found = an_ultrasound(values, BitsStored=12, HighBit=11)
    assert first(found, tmp_path / "a")[0].tolist() == [0, 128, 255, 128]
    shifted = an_ultrasound(values << 4, BitsStored=12, HighBit=15)
    assert "highest one at 15; expected 11" in reason(shifted, tmp_path / "b")


def test_sixteen_bits_without_a_window_are_refused_where_they_would_be_black(
    tmp_path: Path,
) -> None:
    values = np.array([[[0, 900, 4095, 7]]], np.uint16)
    assert "from 0 to 4095, and no window" in reason(an_ultrasound(values), tmp_path / "a")
    signed = np.array([[[-5, 900, 4095, 7]]], np.int16)
    assert "no window" in reason(an_ultrasound(signed), tmp_path / "b")


@pytest.mark.parametrize(
    "file",
    [
        "SC_rgb_jpeg_gdcm.dcm",  # JPEG, lossless
        "JPEGLSNearLossless_08.dcm",
        "examples_jpeg2k.dcm",  # YBR_RCT
        "examples_rgb_color.dcm",
        "examples_ybr_color.dcm",
        "SC_rgb_jpeg_app14_dcmd.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
    ],
)
def test_files_of_pydicom_decode_to_the_luminance_of_their_colours(file: str) -> None:
    opened = open_file(OWN / file, None, 1.0)
    shown = grey_levels(opened, 0)
    reference = pydicom.dcmread(OWN / file)
    pixels = pydicom.pixels.pixel_array(reference, index=0).astype(float)
    expected = pixels @ [0.299, 0.587, 0.114] if pixels.ndim == 3 else pixels
    assert np.abs(shown - expected).mean() < 1


def test_the_region_of_a_larger_matrix_is_not_believed() -> None:
    file = open_file(OWN / "examples_ybr_color.dcm")  # its region is of 640 x 480 pixels
    assert (file.spacing_mm, file.tissue.window) == (None, None)
    assert "row 414 and column 595, but the picture has 240 x 320" in file.tissue.doubt
    assert read_pictures(file).shape == (30, 240, 320)


def test_a_scaled_picture_is_told_from_its_own_grey_levels(tmp_path: Path) -> None:
    wide = np.zeros((3, 240, 240), np.uint8)
    wide[:, 20:140, 20:130] = CLIP
    half = np.zeros((3, 240, 240), np.uint8)
    half[:, 10:70, 10:65] = CLIP[:, ::2, ::2]
    region = a_region((20, 20, 139, 129))
    believed = open_file(written(an_ultrasound(wide, regions=[region]), tmp_path / "a"))
    assert (believed.spacing_mm, believed.tissue.doubt) == ((1.0, 0.9), "")
    doubted = open_file(written(an_ultrasound(half, regions=[region]), tmp_path / "b"))
    assert (doubted.spacing_mm, doubted.tissue.window) == (None, None)
    assert "stated for a picture of another size" in doubted.tissue.doubt


def test_pixel_spacing_is_believed_only_where_it_was_calibrated(tmp_path: Path) -> None:
    loose = an_ultrasound(CLIP, PixelSpacing=[0.5, 0.4])
    assert open_file(written(loose, tmp_path / "a")).spacing_mm is None
    loose.PixelSpacingCalibrationType = "GEOMETRY"
    assert open_file(written(loose, tmp_path / "b")).spacing_mm == (0.5, 0.4)
    loose.SequenceOfUltrasoundRegions = [a_region((0, 0, 119, 109))]
    assert open_file(written(loose, tmp_path / "c")).spacing_mm == (1.0, 0.9)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"NumberOfFrames": 0}, "states 0 frames"),
        ({"Rows": 60000, "Columns": 60000}, "60,000 x 60,000 pixels"),
        ({"NumberOfFrames": 30000}, "30,000 pictures"),
        ({"Rows": 4000, "Columns": 4000, "NumberOfFrames": 19000}, "19,000 pictures of 4,000"),
        ({"SamplesPerPixel": 4}, "4 samples"),
        ({"PixelData": None}, "no PixelData"),
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "cannot be decoded"),
    ],
)
def test_what_a_header_states_is_checked_before_anything_is_decoded(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    found = an_ultrasound(CLIP)
    for name, value in changes.items():
        if value is None:
            del found[name]
        else:
            setattr(found, name, value)
    assert expected in reason(found, tmp_path)


def test_a_truncated_file_and_a_truncated_picture_are_refused(tmp_path: Path) -> None:
    path = written(an_ultrasound(CLIP), tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    file_reason = "damaged|truncated"
    with pytest.raises(DatasetError, match=file_reason):
        read_picture(open_file(path), 2)


def test_a_clip_goes_without_the_pictures_that_cannot_be_decoded(tmp_path: Path) -> None:
    found = as_jpeg(an_ultrasound(CLIP), CLIP)
    content = written(found, tmp_path).read_bytes()
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    spoilt = content[: starts[1]] + bytes(40) + content[starts[1] + 40 :]
    path = tmp_path / "y.dcm"
    path.write_bytes(spoilt)
    assert read_pictures(open_file(written(found, tmp_path))).shape[0] == 3
    assert read_pictures(open_file(path)).shape[0] == 2
    assert reason_of(path, 1).startswith("picture 1 cannot be decoded (JPEG Baseline")


def reason_of(path: Path, index: int) -> str:
    with pytest.raises(DatasetError) as caught:
        grey_levels(open_file(path), index)
    return str(caught.value)


def test_compression_that_is_not_read_is_called_by_its_name(tmp_path: Path) -> None:
    found = as_jpeg(an_ultrasound(CLIP), CLIP)
    found.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    said = reason(found, tmp_path)
    assert "MPEG-4 AVC/H.264" in said
    assert "export it uncompressed" in said


def test_a_decoder_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = as_jpeg(an_ultrasound(CLIP), CLIP)
    found.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.70")
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda name: None)
    assert "pip install 'echogen[dicom]'" in reason(found, tmp_path)


@pytest.mark.parametrize(
    ("file", "marker"), [("SC_rgb_jpeg_gdcm.dcm", 0xC3), ("JPEGLSNearLossless_08.dcm", 0xF7)]
)
def test_a_decoder_that_ends_its_process_costs_one_picture_and_no_run(
    file: str, marker: int, tmp_path: Path
) -> None:
    content = bytearray((OWN / file).read_bytes())
    content[content.index(bytes((0xFF, marker))) + 4] = 255  # bits of a sample
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    ended = subprocess.run(
        [sys.executable, dicom_apart.__file__, "10000000"],
        input=os.fsencode(path),
        capture_output=True,
        check=False,
    )
    assert ended.returncode < 0
    assert "picture 0 cannot be decoded (JPEG" in reason_of(path, 0)


def test_the_memory_of_a_decoder_is_bounded_where_the_system_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def refused(*limit: object) -> None:
        tried.append(limit)
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr("resource.setrlimit", refused)
    dicom_apart.bound_memory()
    monkeypatch.setattr(dicom_apart, "OWN_SIZE", "/nowhere/statm")
    dicom_apart.bound_memory()
    assert len(tried) == 1


def test_an_extended_table_of_offsets_is_followed(tmp_path: Path) -> None:
    """It leaves out an item that is no picture, so that without it no picture would be found."""
    found = an_ultrasound(CLIP)
    found.compress(RLELossless)
    items = [bytes(64), *generate_frames(found.PixelData, number_of_frames=len(CLIP))]
    starts = np.cumsum([0, *(8 + len(item) for item in items[:-1])])[1:]
    found.PixelData = encapsulate(items, has_bot=False)
    found.ExtendedOffsetTable = starts.astype("<u8").tobytes()
    found.ExtendedOffsetTableLengths = np.array([*map(len, items[1:])], "<u8").tobytes()
    np.testing.assert_array_equal(first(found, tmp_path, 2), CLIP[2])


def test_damage_of_any_kind_ends_in_one_line(tmp_path: Path) -> None:
    rng = random.Random(5)
    found = an_ultrasound(CLIP, regions=[a_region((0, 0, 119, 109))])
    packed = an_ultrasound(CLIP, regions=[a_region((0, 0, 119, 109))])
    packed.compress(RLELossless)
    whole = [written(found, tmp_path).read_bytes(), written(packed, tmp_path).read_bytes()]
    path, said = tmp_path / "y.dcm", []
    for _ in range(150):
        content = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 3, 20))):
            content[rng.randrange(132, 1400)] = rng.randrange(256)
        path.write_bytes(
            content[: rng.choice((len(content), len(content), rng.randrange(200, 4000)))]
        )
        try:
            grey_levels(open_file(path), 1)
        except DatasetError as error:
            said.append(str(error))
    assert 50 < len(said) < 150
    assert not any("\n" in reason for reason in said)


def test_a_file_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = an_ultrasound(np.zeros((3, 400, 400), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    path = written(found, tmp_path)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(dicom_header, "MOST_INFLATED", 100_000)
    with pytest.raises(DatasetError, match="inflates to more than 100,000 bytes"):
        open_file(path)
