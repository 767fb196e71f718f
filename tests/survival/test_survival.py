"""An excerpt of the campaign, which `python -m tests.survival` runs whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.survival import calls
from tests.survival.__main__ import EXCERPT, RESULTS, table

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(calls.unsupported()), reason=calls.unsupported())


def campaign(record: Path, *words: str) -> dict[str, dict[str, int]]:
    """{part: counts} of a run in which nothing was lost."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.survival", "--record", str(record), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_is_lost(tmp_path: Path) -> None:
    found = campaign(tmp_path / "record.jsonl", "--excerpt")
    assert set(found) == {part for part in EXCERPT if part != "strace" or shutil.which("strace")}
    assert all(found[part]["tried"] >= 10 for part in found if part != "strace")


def test_the_page_has_the_recorded_figures() -> None:
    found = json.loads((RESULTS / "survival.json").read_text())
    assert table(found) in (ROOT / "docs" / "survival.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["kills", "disk", "power"])
@pytest.mark.parametrize("scene", ["export-folder-overwrite", "import-overwrite"])
def test_nothing_is_lost_at_any_call(part: str, scene: str, tmp_path: Path) -> None:
    found = campaign(tmp_path / "record.jsonl", "--part", part, "--scene", scene)
    assert found[part]["tried"] >= 20
