"""An excerpt of the mutations and flips of `tests.survival`, always the same one."""

import json
from pathlib import Path

import pytest

from tests.survival import flips, mutations

TEXTS = ("camus", "coco", "nnunet", "echonet", "fans", "settings", "set", "plan", "checkpoint",
         "judge", "cards", "recipe", "manifest", "zarr", "h5")  # fmt: skip
EXCERPT, LONG = 30, 2000


def failures(found: dict[str, object], record: Path) -> str:
    """What failed, with a line for each kind."""
    lines = mutations.kinds_of_faults(mutations.read_record(record))
    return "\n".join([json.dumps(found["outcomes"]), *lines]) if found["failed"] else ""


def test_an_excerpt_of_the_mutations_ends_in_plain_sentences(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    found = mutations.run(record, 600, count=EXCERPT, names=TEXTS, quiet=True)
    assert found["cases"] == EXCERPT
    assert failures(found, record) == ""
    again = mutations.run(record, 600, count=EXCERPT, names=TEXTS, quiet=True)
    assert again == found  # nothing is tried twice


def test_an_excerpt_of_the_flipped_bytes_is_found_and_repaired(tmp_path: Path) -> None:
    found = flips.run(tmp_path / "record.jsonl", 600, part=120, repairs=-1, quiet=True)
    assert found["failed"] == []


@pytest.mark.slow
def test_mutations_of_everything_end_in_plain_sentences(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    assert failures(mutations.run(record, 7200, count=LONG, quiet=True), record) == ""


@pytest.mark.slow
def test_flipped_bytes_are_found_and_repaired(tmp_path: Path) -> None:
    found = flips.run(tmp_path / "record.jsonl", 7200, part=8, repairs=40, quiet=True)
    assert found["failed"] == []
