"""MetaImage headers as other programs write them, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest

from echogen.datasets.meta_files import meta_data_file, read_meta
from echogen.errors import DatasetError

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
FIELDS = {
    "ObjectType": "Image",
    "NDims": "2",
    "DimSize": "4 3",
    "ElementSpacing": "0.5 0.25",
    "ElementType": "MET_UCHAR",
    "ElementDataFile": "LOCAL",
}


def header(root: Path, start: bytes = b"", pixels: bytes = PIXELS.tobytes(), **more: str) -> Path:
    fields = {**FIELDS, **more}
    last = fields.pop("ElementDataFile")
    lines = [f"{name} = {value}\n" for name, value in fields.items()]
    content = start + "".join([*lines, f"ElementDataFile = {last}\n"]).encode()
    path = root / "x.mha"
    path.write_bytes(content + pixels)
    return path


@pytest.mark.parametrize(
    "start",
    [
        b"0008|0060 = US\n",
        b"my key = x\n",
        b"my.key: x\n",
        b"Comment = M\xfcller \x07\n",
        b"Comment = " + b"x" * 9000 + b"\n",
        b"\xef\xbb\xbf",
        b"".join(b"a%d = 1\n" % number for number in range(1000)),
    ],
)
def test_fields_that_are_not_used_may_be_anything(start: bytes, tmp_path: Path) -> None:
    values, spacing, _ = read_meta(header(tmp_path, start), "x.mha")
    np.testing.assert_array_equal(values, PIXELS)
    assert spacing == (0.25, 0.5)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"ElementDataFile": "Local"}, "u1"),
        ({"ElementDataFile": "local"}, "u1"),
        ({"ElementSpacing": "-0.5 -0.25"}, "u1"),
        ({"ElementType": "MET_LONG_LONG"}, "i8"),
        ({"ElementType": "MET_ULONG_LONG"}, "u8"),
    ],
)
def test_fields_are_what_itk_takes_them_for(
    more: dict[str, str], kind: str, tmp_path: Path
) -> None:
    values, spacing, _ = read_meta(header(tmp_path, b"", PIXELS.astype(kind).tobytes(), **more), "")
    np.testing.assert_array_equal(values, PIXELS)
    assert spacing == (0.25, 0.5)


def test_pixels_in_the_same_folder_may_be_called_so(tmp_path: Path) -> None:
    (tmp_path / "p.raw").write_bytes(PIXELS.tobytes())
    path = header(tmp_path, ElementDataFile="./p.raw")
    np.testing.assert_array_equal(read_meta(path, "x")[0], PIXELS)
    assert meta_data_file(path) == tmp_path / "p.raw"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("NDims", "9"),
        ("DimSize", "4 0"),
        ("DimSize", "4"),
        ("ElementSpacing", "1 nan"),
        ("ElementType", "MET_OTHER"),
        ("ElementNumberOfChannels", "9"),
        ("HeaderSize", "-2"),
        ("BinaryData", "False"),
        ("ElementDataFile", "../p.raw"),
        ("ElementDataFile", "./../p.raw"),
        ("ElementDataFile", "p%03d.raw 1 9 1/"),
    ],
)
def test_a_field_that_is_wrong_is_named(field: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"^x: cannot be read as a MetaImage header.*{field}"):
        read_meta(header(tmp_path, **{field: value}), "x")


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    path.write_bytes(b"NDims = 2\nElementDataFile = LOCAL\n")
    with pytest.raises(DatasetError, match="no DimSize"):
        read_meta(path, "x")
