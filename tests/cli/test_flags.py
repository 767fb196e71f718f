import subprocess
import sys
from pathlib import Path

import pytest

from echogen.cli.flags import settings_from
from echogen.errors import UsageError


def set_to(*texts: str) -> dict[str, object]:
    return settings_from({"set_": list(texts)})


def test_values_are_toml_or_texts() -> None:
    given = set_to("seed=1", "transforms.depth=[1, 2]", "checkpoint=my model", "x=a=b", "y=")
    assert given == {
        "seed": 1, "transforms.depth": [1, 2], "checkpoint": "my model", "x": "a=b", "y": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed=" + "9" * 5000, "a number of thousands of digits"),
        ("seed=99999999999999999999999", "beyond 64 bits"),
        ("views=" + "[" * 10**5, "nested deeper than 32 levels"),
        ("views=" + "{a=" * 10**5, "nested deeper than 32 levels"),
        ("checkpoint=a\udcff", "text that is not valid Unicode"),
        ("checkpoint=a\0b", "character of code 0"),
        ("x" * 10**6, "expected KEY=VALUE"),
    ],
)
def test_a_value_that_cannot_be_meant_is_one_line_with_the_flag(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        set_to(text)
    assert str(caught.value).startswith("--set ")
    assert len(str(caught.value)) < 300


def test_a_message_with_a_file_name_of_any_bytes_can_be_printed(tmp_path: Path) -> None:
    name = str(tmp_path / "a\udcff.json")
    command = [sys.executable, "-m", "echogen", "preview", str(tmp_path / "data"), "--plan", name,
               "--out", str(tmp_path / "x.png")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"a\\udcff.json: cannot be read" in done.stderr
    assert b"Traceback" not in done.stderr
