"""The table of an export: read whole, or refused; another's table of that name is none."""

from pathlib import Path

import pytest

from echogen.datasets import exported
from echogen.datasets.exported import exported_samples
from echogen.errors import DatasetError

HEAD = b"name,case_id,view,phase,copy,spacing_mm_row\n"
LINE = b"a_4CH_ED,a,4CH,ED,1,0.5\n"


def table(root: Path, content: bytes) -> Path:
    (root / "samples.csv").write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"b\x07,b,4CH,ED,1,\n", "line 3"),
        (b"b\xff,b,4CH,ED,1,\n", "line 3"),
        (b"b,b,4CH\n", "line 3"),
        (b'"b,b,4CH,ED,1,\n', "line 3"),
        (b"b,b,4CH,ED,x,\n", "copy"),
        (b"b,b,4CH,ED,-1,\n", "copy"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(line: bytes, what: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"samples\.csv.*{what}"):
        exported_samples(table(tmp_path, HEAD + LINE + line))


@pytest.mark.parametrize(("limit", "most"), [("MOST_BYTES", 80), ("MOST_LINES", 2)])
def test_a_table_that_is_too_large_is_refused(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, limit, most)
    lines = b"".join(LINE.replace(b"a", str(number).encode()) for number in range(3))
    with pytest.raises(DatasetError, match=r"samples\.csv.*at most"):
        exported_samples(table(tmp_path, HEAD + lines))


def test_a_table_of_more_than_64_mb_is_read(tmp_path: Path) -> None:
    wide = HEAD.replace(b"\n", b",note\n")
    line = LINE.replace(b"\n", b"," + b"x" * 100_000 + b"\n")
    found = exported_samples(table(tmp_path, wide + line * 700))
    assert found["a_4CH_ED"]["case_id"] == "a"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_mark_are_those_of_any_program(
    end: bytes, start: bytes, tmp_path: Path
) -> None:
    found = exported_samples(table(tmp_path, start + (HEAD + LINE + b"\n").replace(b"\n", end)))
    assert found["a_4CH_ED"]["copy"] == "1"


@pytest.mark.parametrize(
    "content", [b"", b"sample,patient\n1,\xff\n", b"\xff\xfea\0b\0", b"x" * 3_000_000, b'"a\nb"\n']
)
def test_another_table_of_that_name_is_none(content: bytes, tmp_path: Path) -> None:
    assert exported_samples(table(tmp_path, content)) == {}
