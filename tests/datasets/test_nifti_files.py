"""NIfTI headers and values as other programs write them, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.datasets.nifti_files import check_nifti
from echogen.errors import DatasetError


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
