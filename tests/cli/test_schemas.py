"""Every command has `--json`, and its shape is the one in docs/schemas."""

import json
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError
from typer.testing import CliRunner

from echogen.cli import app
from echogen.cli.console import show_json
from tests.cli.test_cli import COMMANDS
from tests.support.shapes import SCHEMAS, printed

sys.path.insert(0, str(SCHEMAS.parent))
from make_schemas import REPORTS, file_of, text_of


@pytest.mark.parametrize("command", REPORTS)
def test_the_committed_schema_is_the_records(command: str) -> None:
    assert file_of(command).read_text(encoding="utf-8") == text_of(command), (
        "python docs/make_schemas.py writes them anew"
    )
    schema = json.loads(file_of(command).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    undocumented = [
        f"{name}.{field}"
        for name, part in {"": schema, **schema.get("$defs", {})}.items()
        for field, value in part.get("properties", {}).items()
        if not value.get("description") and "Attributes:" in (part.get("description") or "")
    ]
    assert not undocumented


def test_every_command_has_json_and_a_schema() -> None:
    leaves = {words: one for words, one in COMMANDS.items() if not hasattr(one, "commands")}
    assert set(REPORTS) >= {" ".join(words) for words in leaves}
    for words, one in leaves.items():
        assert any("--json" in option.opts for option in one.params), words
    assert {path.name for path in SCHEMAS.iterdir()} == {file_of(one).name for one in REPORTS}


def test_a_wrong_shape_is_noticed() -> None:
    good = {"format": 1, "exit_code": 0, "output": "x", "cases": 1, "seed": 0, "frames": []}
    printed("phantom", json.dumps(good))
    for wrong in ({**good, "cases": "1"}, {**good, "more": 1}, {"format": 1}):
        with pytest.raises(ValidationError):
            printed("phantom", json.dumps(wrong))
    with pytest.raises(AssertionError, match="NaN"):
        printed("phantom", json.dumps({**good, "seed": float("nan")}))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("phantom", ["phantom", "--out", "{tmp}/phantoms", "--cases", "1"]),
        ("checkpoint-list", ["checkpoint", "list"]),
        ("checkpoint-info", ["checkpoint", "info", "builtin"]),
    ],
)
def test_quick_commands_print_their_shape(schema: str, words: list[str], tmp_path: Path) -> None:
    given = [word.format(tmp=tmp_path) for word in words]
    done = CliRunner().invoke(app, [*given, "--json"])
    assert done.exit_code == printed(schema, done.stdout)["exit_code"] == 0


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    class Measured:
        def to_dict(self) -> dict[str, float]:
            return {"loss": float("nan"), "most": float("inf"), "seen": 0.5}

    show_json(Measured())
    assert json.loads(capsys.readouterr().out) == {"loss": None, "most": None, "seen": 0.5}
