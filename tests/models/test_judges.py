"""The judge in the package, and judges among the checkpoints that the commands know."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.diffusion.checkpoint import read_info
from echogen.errors import CheckpointError
from echogen.judging.checkpoint import judge_folder, read_judge_info
from echogen.models.download import download
from echogen.models.registry import parse_cards, read_cards
from echogen.models.resolve import resolve_judge
from echogen.models.verify import verify
from tests.support.judges import write_judge


def test_the_packages_judge_is_whole_small_and_has_seen_no_held_out_patient() -> None:
    info, folder = read_judge_info("builtin"), judge_folder("builtin")
    assert verify(folder).ok
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 1_100_000
    one, two = (member.seen for member in info.networks)
    assert not one & two
    held_out = set(read_info("builtin").training["held_out_cases"])
    assert not held_out & (one | two)
    assert len(one | two | held_out) == 400
    measured = info.measured["held out"]
    assert measured["false alarms"] <= 0.01 * measured["fake holes"]


def test_the_commands_know_judges(tmp_path: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["checkpoint", "list", "--json"]).stdout)
    judges = [model for model in listed["models"] if model["kind"] == "judge"]
    assert [(model["name"], model["here"]) for model in judges] == [("camus-judge", True)]
    for name in ("camus-judge", str(write_judge(tmp_path / "judge"))):
        done = CliRunner().invoke(app, ["checkpoint", "info", name, "--json"])
        assert done.exit_code == 0
        assert json.loads(done.stdout)["kind"] == "judge"
        assert "paints nothing" in CliRunner().invoke(app, ["checkpoint", "info", name]).stdout
    assert download("camus-judge").checkpoint_sha256 == read_judge_info("builtin").sha256


def test_what_judge_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("builtin", "none", str(write_judge(tmp_path / "mine"))):
        assert resolve_judge(name) == name
    with pytest.raises(CheckpointError, match="no such user's home folder"):
        resolve_judge("~nobody-of-this-name/judge")
    for nobody in ("./camus-judge", str(tmp_path), ""):
        with pytest.raises(CheckpointError, match="no such judge"):
            resolve_judge(nobody)
    with pytest.raises(CheckpointError, match=r"no such judge.*did you mean 'camus-judge'\?"):
        resolve_judge("camus-jugde")
    assert resolve_judge("camus-judge") == "builtin"
    for painter in ("camus-256-small", "echogains-camus"):
        with pytest.raises(CheckpointError, match="paints; give it to --checkpoint"):
            resolve_judge(painter)
    write_judge(tmp_path / "camus-judge")
    with pytest.raises(CheckpointError, match=r"names both .* write \./camus-judge"):
        resolve_judge("camus-judge")


def test_a_judge_that_sees_no_heart_or_is_damaged_does_not_pass(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    found = {check.name: check.ok for check in verify(folder).checks}
    assert found == {"hashes": True, "licence": True, "sees hearts": False}
    (folder / "network" / "fold0.safetensors").write_bytes(b"")
    assert {check.name: check.ok for check in verify(folder).checks}["hashes"] is False


def test_a_users_card_cannot_be_of_a_judge_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOGEN_HOME", str(tmp_path))
    own = tmp_path / "models.toml"
    own.write_text(
        '[[model]]\nname = "mine"\nkind = "judge"\nwhat_for = "a"\narchitecture = "b"\n'
        'training_data = "c"\nlicence = "d"\ncitation = "e"\n'
    )
    assert parse_cards(own)[0].kind == "judge"
    with pytest.raises(CheckpointError, match="kind: expected guided or echogen"):
        read_cards()
