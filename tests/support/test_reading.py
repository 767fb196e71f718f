import json
import os
from pathlib import Path

import pytest

from echogen.errors import DatasetError, EchogenError
from echogen.support.reading import (
    MOST_DEPTH,
    open_regular,
    parse_json,
    parse_toml,
    read_bytes,
    read_csv,
    read_json,
    read_text,
    read_toml,
)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        "9" * 5_000,
        "[" + "9" * 40 + "]",
        "18446744073709551616",
        "1e999",
        "NaN",
        "[-Infinity]",
        deep(MOST_DEPTH + 1),
        deep(100_000),
        '{"a":' * 100_000,
        r'"\ud800"',
        r'{"\udcff": 1}',
        r'["a\u0000b"]',
    ],
)
def test_json_that_nothing_should_hold_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(DatasetError, match=r"^a.json: is not valid JSON [(]") as caught:
        parse_json(text, DatasetError, "a.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_json_is_read_as_it_is() -> None:
    value = {"é😀": [1, -2.5e-3, None, True, {"a": 2**64 - 1, "b": -(2**63)}]}
    assert parse_json(json.dumps(value), DatasetError, "a.json") == value
    parse_json(deep(MOST_DEPTH), DatasetError, "a.json")


def test_what_other_tools_write_is_read_where_it_may_be() -> None:
    text = '{"area": NaN, "more": [Infinity, -Infinity, 1.5]}'
    found = parse_json(text, DatasetError, "a.json", foreign=True)
    assert found == {"area": None, "more": [None, None, 1.5]}
    many = json.dumps(dict.fromkeys(map(str, range(300_000)), 0))
    with pytest.raises(DatasetError, match=r"a table of 300,000 keys"):
        parse_json(many, DatasetError, "a.json")
    assert len(parse_json(many, DatasetError, "a.json", keys=10**6)) == 300_000


def test_dots_in_texts_and_comments_are_no_keys() -> None:
    dots = "." * 200
    text = f"# {dots}\na = '{dots}'\nb = \"{dots}\"  # {dots}\n"
    assert parse_toml(text, DatasetError, "a.toml") == {"a": dots, "b": dots}
    for key in ("a." * 200 + "a", '"#"' + ".a" * 200, "'#'" + ".a" * 200):
        with pytest.raises(DatasetError, match=r"nested deeper"):
            parse_toml(f"{key} = 1", DatasetError, "a.toml")


@pytest.mark.parametrize(
    "text",
    ["a =", f"a = {'9' * 5_000}", f"a = {'9' * 40}", f"a = {deep(100_000)}", 'a = "\\u0000"'],
)
def test_toml_too(text: str) -> None:
    with pytest.raises(DatasetError, match=r"^a.toml: is not valid TOML [(]") as caught:
        parse_toml(text, DatasetError, "a.toml")
    assert "\n" not in str(caught.value)


def test_text_has_to_be_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffÄ\r\nb\rc\n".encode())
    assert read_text(file, DatasetError) == "Ä\nb\nc\n"
    file.write_bytes(b"a\nb\xe9\n")
    with pytest.raises(DatasetError, match=r"a.txt, line 2: is not UTF-8"):
        read_text(file, DatasetError)
    assert read_text(file, DatasetError, errors="replace") == "a\nb\ufffd\n"
    file.write_bytes(b"a\0")
    with pytest.raises(DatasetError, match="is not a text file"):
        read_text(file, DatasetError, "a.txt")
    with pytest.raises(DatasetError, match="2 bytes, expected at most 1"):
        read_text(file, DatasetError, most=1)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", DatasetError)
    with pytest.raises(DatasetError, match="null"):
        read_text(Path("a\0b"), DatasetError, "the name")


@pytest.mark.parametrize("read", [read_text, read_json, read_toml])
def test_only_regular_files_are_read(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(EchogenError, match="only regular files are read"):
            read(place, DatasetError)  # type: ignore[operator]
        with pytest.raises(OSError, match="only regular files"):
            open_regular(place)
        with pytest.raises(OSError, match="only regular files"):
            read_bytes(place)


def test_tables_have_numbered_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('a;b\n"1\n2";3\n\n4\n')
    assert list(read_csv(file, DatasetError, delimiter=";")) == [
        (1, ["a", "b"]),
        (3, ["1\n2", "3"]),
        (4, []),
        (5, ["4"]),
    ]
    file.write_text("a" * 200_000)
    with pytest.raises(DatasetError, match=r"a.csv, line 1: field larger"):
        list(read_csv(file, DatasetError))


def test_what_is_no_json_is_said_in_plain_words() -> None:
    for text, words in (
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ('["\\ud800"]', "text that is not valid Unicode"),
        ('["\\u0000"]', "text with a character of code 0"),
    ):
        with pytest.raises(DatasetError, match=words):
            parse_json(text, DatasetError, "x.json")
