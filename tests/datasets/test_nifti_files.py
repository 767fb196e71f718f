"""NIfTI headers and values as other programs write them, and what is refused of them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.datasets.nifti_files import check_nifti
from echogen.datasets.pixels import read_plane
from echogen.errors import DatasetError
from echogen.support.nifti import nifti_bytes
from tests.support.pictures import speckle


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("at", [(0, 0), (450, 500)])
def test_nan_is_found_in_an_odd_number_of_floats(
    ending: str, at: tuple[int, int], tmp_path: Path
) -> None:
    values = np.zeros((451, 501), np.float32)
    values[at] = np.nan
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    with pytest.raises(DatasetError, match=r"1 of 225,951 values are NaN"):
        check_nifti(path, path.name)


@pytest.mark.parametrize(
    ("layout", "at", "value"),
    [
        ("<h", 72, 0),
        ("<h", 72, 64),
        ("<f", 76, float("nan")),
        ("<4s", 344, b"ni1\0"),
        ("<4s", 344, bytes(4)),
        ("<f", 108, 2.0**24),
        ("<f", 108, 0.0),
    ],
)
def test_headers_that_itk_accepts_are_read(
    layout: str, at: int, value: float | bytes, tmp_path: Path
) -> None:
    content = bytearray(nifti_bytes(speckle(), (1.0, 1.0)))
    struct.pack_into(layout, content, at, value)
    if at == 108:
        content[348:352] = bytes(int(value) - 348) if value else b""
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_plane(tmp_path, path, None)[0], speckle())
