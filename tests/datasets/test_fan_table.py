"""Tables of fans: what is written is read back, what a spreadsheet makes of it too, or refused."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest

from echogen.config import DatasetConfig
from echogen.datasets import Dataset, open_chosen, open_dataset
from echogen.datasets.fan_table import COLUMNS, GEOMETRY, MOST_BYTES, with_fans, write_fans
from echogen.datasets.fans import FoundFan, found_fans
from echogen.datasets.recordings import Recording, read_recording, recordings
from echogen.errors import UsageError
from tests.support.hearts import SHAPE

HEAD = "recording," + ",".join(GEOMETRY)
VALUES = "2.5,50,-35,35,3,110"
MADE = (2.5, 50.0, -35.0, 35.0, 3.0, 110.0)
FIRST, SECOND = "patient0001/4CH", "patient0002/4CH"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "fans.csv"


def given(dataset: Path, table: Path, content: str | bytes) -> Dataset:
    """The dataset with the fans of a table of this content."""
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return with_fans(open_dataset(dataset), table)


def values(dataset: Dataset) -> dict[str, tuple[float, ...]]:
    return {name: fan.values for name, fan in dataset.fans.items()}


def read(dataset: Dataset) -> list[Recording]:
    return [read_recording(dataset, keys) for keys in recordings(dataset.keys)]


def test_what_is_written_is_read_back(dataset: Path, table: Path) -> None:
    opened = open_dataset(dataset)
    found = [fan for recording in read(opened) for fan in found_fans(recording)]
    assert write_fans(found, table) == 2  # the frames of a recording share a line
    lines = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert {line["recording"] for line in lines} == {FIRST, SECOND}
    assert {(line["rows"], line["cols"], line["how"]) for line in lines} == {
        (str(SHAPE[0]), str(SHAPE[1]), "frame")
    }
    again = pickle.loads(pickle.dumps(with_fans(opened, table)))
    assert "fans given for 4 frames" in again.describe()
    for before, after in zip(read(opened), read(again), strict=True):
        for fitted, taken in zip(before.frames, after.frames, strict=True):
            assert taken.how == "given"
            assert taken.sector is not None
            assert fitted.sector is not None
            np.testing.assert_allclose(
                list(vars(taken.sector).values()), list(vars(fitted.sector).values()), atol=1e-3
            )


COMMAS = f'{HEAD},reason\n{FIRST},{VALUES},"because, so"\n'
POINTS_TO_COMMAS = VALUES.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize(
    "content",
    [
        COMMAS,
        COMMAS.replace("\n", "\r\n"),
        COMMAS.replace("\n", "\r"),
        ("\ufeff" + COMMAS).encode(),
        COMMAS.replace(",", "\t").encode("utf-16"),
        f"# pixels\n\n{HEAD}\n{FIRST},{VALUES}\n,,,,,,\n",
        f"{HEAD}\n  {FIRST} , {VALUES},,,\n".upper().replace(FIRST.upper(), FIRST),
        f"{HEAD}\n{FIRST},{VALUES}\n".replace(",", ";"),
        f"{HEAD.replace(',', ';')}\n{FIRST};{POINTS_TO_COMMAS}\n",
        f'{HEAD}\n"{FIRST}",' + ",".join(f'"{value}"' for value in VALUES.split(",")),
        f"{','.join(reversed(HEAD.split(',')))}\n{','.join(reversed(VALUES.split(',')))},{FIRST}\n",
        f"{HEAD},rows,cols\n{FIRST},{VALUES},{SHAPE[0]},{SHAPE[1]}.0\n{SECOND},,,,,,,{SHAPE[0]},\n",
    ],
)  # fmt: skip
def test_what_a_spreadsheet_makes_of_a_table_is_read(
    dataset: Path, table: Path, content: str | bytes
) -> None:
    opened = given(dataset, table, content)
    assert values(opened) == dict.fromkeys(("patient0001_4CH_ED", "patient0001_4CH_ES"), MADE)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "expected the columns recording, apex_row"),
        ("recording,apex_row\n", "apex_col, angle_left_deg"),
        (f"{HEAD},apex_row\n{FIRST},{VALUES},1\n", "apex_row is not"),
        (f"{HEAD}\n", "no line has a fan"),
        (f"{HEAD}\n{FIRST},,,,,,\n", "no line has a fan"),
        (f"{HEAD}\n\n{FIRST},{VALUES[:-4]}\n", r"fans\.csv, line 3: .* lacks radius_far"),
        (f"{HEAD}\n{FIRST},2,5,{VALUES}\n", r"line 2: has more values than the 7 columns"),
        (f"{HEAD}\n,{VALUES}\n", "line 2: no recording"),
        ("rows," + HEAD.replace("recording,", "") + ",recording\n1,2\n", "line 2: no recording"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('50', 'nan')}\n", "apex_col: expected a number"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('50', '12. Mai')}\n", "found '12. Mai'"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('-35', '35')}\n", "angle_left_deg < angle_right_deg"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('-35', '-95')}\n", "-90 to 90 degrees"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('110', '3')}\n", "radius_near < radius_far, found 3 an"),
        (f"{HEAD}\n{FIRST},{VALUES.replace(',3,', ',-3,')}\n", "0 <= radius_near"),
        (f"{HEAD}\n{FIRST},{VALUES.replace('110', '1e9')}\n", "pixels, at most"),
        (f"{HEAD},rows,cols\n{FIRST},{VALUES},2,90\n", "an apex above the picture's last row"),
        (f"{HEAD},rows,cols\n{FIRST},{VALUES},120,\n", "cols: expected a number"),
        (f"{HEAD},rows,cols\n{FIRST},{VALUES},120,0\n", "expected rows and cols"),
        (f"{HEAD}\n{FIRST},{VALUES}\n{FIRST},{VALUES}\n", r"line 3: .* already, in fans"),
        (f"{HEAD}\npatient001/4CH,{VALUES}\n", "hearts has no recording 'patient001/4CH'; did you"),
        (f"{HEAD}\nz*,{VALUES}\n", r"no recording 'z\*'; such as patient0001/4CH is known"),
        (f'{HEAD}\n"{FIRST},{VALUES}\n', "line 2: unexpected end of data"),
        (f"{HEAD}\n{'x' * 200_000},{VALUES}\n", "line 2: field larger than"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: is not UTF-8"),
        (f"{HEAD}\nM\u00fcller,{VALUES}\n".encode("cp1252"), "line 2: is not UTF-8; save the"),
        (b"recording\0\0\0\0", "is not a text file"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_by_its_line(
    dataset: Path, table: Path, content: str | bytes, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as refused:
        given(dataset, table, content)
    assert "fans.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_table_is_refused(dataset: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; `echogen validate DATASET --fans"):
        with_fans(open_dataset(dataset), table)
    with pytest.raises(UsageError, match="is not a file"):
        with_fans(open_dataset(dataset), tmp_path)
    with table.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="has 64 MB, expected a table of at most 64"):
        with_fans(open_dataset(dataset), table)


def test_the_nearest_name_wins_whatever_the_order(dataset: Path, table: Path) -> None:
    """A spreadsheet may have sorted the lines."""

    def fan(far: int) -> str:
        return VALUES.replace("110", str(far))

    lines = [
        f"patient0001_4CH_ES,{fan(104)}",
        f"{FIRST},{fan(103)}",
        f"*,{fan(101)}",
        f"*_ED,{fan(102)}",
    ]
    expected = {
        "patient0001_4CH_ED": 103, "patient0001_4CH_ES": 104,
        "patient0002_4CH_ED": 102, "patient0002_4CH_ES": 101,
    }  # fmt: skip
    for order in (lines, [*lines[2:], *lines[:2]]):
        opened = given(dataset, table, "\n".join([HEAD, *order]))
        assert {name: fan[5] for name, fan in values(opened).items()} == expected


def test_a_fan_that_cannot_be_this_pictures_is_refused_by_its_line(
    dataset: Path, table: Path
) -> None:
    content = (
        f"{HEAD},rows,cols\n{FIRST},{VALUES},240,220\n"
        f"patient0002_4CH_ED,{VALUES.replace('2.5', '120')},,\n"
        f"patient0002_4CH_ES,{VALUES.replace('50', '5000')},,\n"
    )
    opened = given(dataset, table, content)
    fitted = [frame for recording in read(opened) for frame in recording.frames]
    reasons = {frame.frame.key.frame_id: frame.reason for frame in fitted}
    assert all(frame.sector is None and frame.how == "given" for frame in fitted)
    assert reasons["patient0001_4CH_ED"].startswith(
        "fans.csv, line 2 gives a fan for a picture of 240 x 220 pixels, found 120 x 110;"
    )
    assert "line 3 gives a fan that covers" in reasons["patient0002_4CH_ED"]
    assert "line 4 gives a fan that covers 0.0% of" in reasons["patient0002_4CH_ES"]


def test_names_that_are_not_ascii_survive(table: Path) -> None:
    found = FoundFan("M\u00fcller", "M\u00fcller", (9, 9), None, 1.0, 0.0, "frame", "")
    assert write_fans([found], table) == 1
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    refused = table.read_text(encoding="utf-8-sig").splitlines()[1]
    assert refused == "M\u00fcller,9,9,,,,,,,0.000,,"


def test_settings_name_the_table(dataset: Path, table: Path) -> None:
    table.write_text(f"{HEAD}\n*,{VALUES}\n")
    assert len(open_chosen(dataset, DatasetConfig(fans=table)).fans) == 4
    assert not open_chosen(dataset, DatasetConfig()).fans
