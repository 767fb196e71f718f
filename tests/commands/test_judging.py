"""Samples with a second heart: painted again, failed, found in a store, or not looked at."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from echogen.checks.finding import Severity
from echogen.cli import app
from echogen.cli.expand import show_run
from echogen.commands.expand import dry_run, expand
from echogen.commands.validate import validate
from echogen.errors import CheckpointError, StoreError
from echogen.judging.judge import Judge
from echogen.painting.engine import Levels
from echogen.painting.stream import _Stream, repaint_seed
from echogen.store import MOST_REPAINTS, NOT_FINITE, Status, StoreWriter, mark_pending, open_store
from tests.support.hearts import make_config
from tests.support.judges import write_judge


@pytest.fixture
def judged(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Settings with a judge that condemns about three of four paintings, by what was painted."""

    def look(self: Judge, image: np.ndarray, *_: object) -> SimpleNamespace:
        return SimpleNamespace(why_not="an odd picture" if int(image.sum()) % 4 else "")

    monkeypatch.setattr(Judge, "look", look)
    return {**settings, "judge": str(write_judge(tmp_path / "judge"))}


def everything(path: object) -> dict[str, np.ndarray]:
    with open_store(Path(str(path))) as store:
        return {"images": store.images[:], **{name: store.columns[name] for name in store.columns}}


def test_copies_are_painted_again_or_have_failed(judged: dict[str, object]) -> None:
    report = expand(make_config(judged))
    found = everything(judged["output"])
    copies, done = found["copy"] > 0, found["status"] == Status.DONE
    assert (found["repaints"][~copies] == 0).all()
    assert done[~copies].all()
    assert len(set(found["repaints"][copies].tolist())) > 2
    odd = found["images"].reshape(len(done), -1).sum(1) % 4 > 0
    assert not odd[copies & done].any()
    failed = found["repaints"][~done] if (~done).any() else np.array([MOST_REPAINTS])
    assert (failed == MOST_REPAINTS).all()
    assert report.condemned == len(report.failed) == (~done).sum() > 0
    assert report.exit_code == 0  # nothing is to be mended
    assert all("an odd picture" in reason for reason in found["reason"][~done])
    assert report.judge == "tiny-judge"


def test_each_copy_that_failed_is_named(
    judged: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    report = expand(make_config(judged))
    show_run(report)
    said = capsys.readouterr()
    for problem in report.failed[:3]:
        assert f"{problem.frame_id}: an odd picture" in said.out + said.err


@pytest.mark.parametrize("shard_size", [1, 3, 16])
def test_shards_and_a_run_in_two_parts_change_nothing(
    judged: dict[str, object], shard_size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expand(make_config(judged))
    other = {**judged, "output": str(tmp_path / "b.zarr"), "store": {"shard_size": shard_size}}
    write, left = StoreWriter.write_shard, [1]

    def fails_later(self: StoreWriter, *arguments: object) -> None:
        if not left:
            raise StoreError("the disk is full")
        left.pop()
        write(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(StoreWriter, "write_shard", fails_later)
        if shard_size < 16:
            with pytest.raises(StoreError, match="full"):
                expand(make_config(other))
    expand(make_config(other))
    one, two = everything(judged["output"]), everything(other["output"])
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


def test_a_store_continues_only_with_the_judge_that_it_was_begun_with(
    judged: dict[str, object], tmp_path: Path
) -> None:
    expand(make_config(judged))
    refused = "made with judge = 'tiny-judge', this run has 'none'"
    with pytest.raises(StoreError, match=refused):
        expand(make_config(judged, judge="none"))
    with pytest.raises(StoreError, match=refused):
        dry_run(make_config(judged, judge="none"))
    expand(make_config(judged))
    other = {**json.loads((Path(str(judged["judge"])) / "echogen.json").read_text())}
    folder = write_judge(tmp_path / "other", threshold=0.3)
    (folder / "echogen.json").write_text(json.dumps({**other, "name": "mine", "threshold": 0.3}))
    with pytest.raises(StoreError, match=r"judge\.name = 'tiny-judge', this run has 'mine'"):
        expand(make_config(judged, judge=str(folder)))
    expand(make_config(judged, judge="none"), overwrite=True)
    with pytest.raises(StoreError, match="judge = 'none', this run has 'tiny-judge'"):
        expand(make_config(judged))


def test_without_a_judge_nothing_is_judged_and_a_store_without_the_column_goes_on(
    settings: dict[str, object],
) -> None:
    expand(make_config(settings))
    before = everything(settings["output"])
    assert (before["repaints"] == 0).all()
    shutil.rmtree(Path(str(settings["output"])) / "samples" / "repaints")
    mark_pending(Path(str(settings["output"])), {1, 2, 6})
    assert expand(make_config(settings)).painted == 3
    for name, values in before.items():
        np.testing.assert_array_equal(values, everything(settings["output"])[name], err_msg=name)


def test_stats_tells_of_what_was_condemned(
    judged: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    report = expand(make_config(judged))
    done = CliRunner().invoke(app, ["stats", str(judged["output"])])
    assert done.exit_code == 0, done.output
    assert f"copies, {len(report.failed)} failed" in done.stdout


def test_what_was_condemned_is_a_note_to_validate_and_nothing_to_repair(
    judged: dict[str, object],
) -> None:
    report = expand(make_config(judged))
    path = Path(str(judged["output"]))
    before = everything(path)
    checked = validate(path, judge="none", workers=1, repair=True)
    failed = [finding for finding in checked.findings if finding.check == "failed"]
    assert len(failed) == report.condemned > 0
    assert {finding.severity for finding in failed} == {Severity.NOTE}
    assert all("nothing is to be mended" in finding.message for finding in failed)
    assert (checked.exit_code, checked.repaired) == (0, 0)
    np.testing.assert_array_equal(everything(path)["status"], before["status"])
    with open_store(path) as store:
        row = int(store.condemned.nonzero()[0][0])
    zarr.open_group(path)["samples/reason"][row] = NOT_FINITE  # in its last painting
    with open_store(path) as store:
        assert not store.condemned[row]


def test_what_failed_otherwise_is_a_warning_and_is_repaired(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, given = _Stream.add_painted, []

    def first_is_not_finite(self: _Stream, levels: Levels) -> None:
        given.append(levels)
        add(self, levels if len(given) > 1 else None)

    monkeypatch.setattr(_Stream, "add_painted", first_is_not_finite)
    expand(make_config({**settings, "judge": "none"}))
    path = Path(str(settings["output"]))
    checked = validate(path, judge="none", workers=1)
    warned = [f for f in checked.findings if (f.check, f.severity) == ("failed", "warning")]
    assert len(warned) == checked.exit_code == 1
    assert "--repair tries it again" in warned[0].message
    assert validate(path, judge="none", workers=1, repair=True).repaired == 1


def test_validate_names_samples_with_an_unlabelled_heart(
    settings: dict[str, object], tmp_path: Path
) -> None:
    expand(make_config(settings))
    path = Path(str(settings["output"]))
    strict = str(write_judge(tmp_path / "strict", threshold=1e-9))
    findings = validate(path, judge=strict, workers=1).findings
    named = [finding for finding in findings if finding.check == "unlabelled-heart"]
    with open_store(path) as store:
        copies = set(store.columns["sample_id"][store.columns["copy"] > 0].tolist())
    assert {finding.where for finding in named} <= copies
    assert named
    assert "second, unlabelled heart" in named[0].message
    lenient = str(write_judge(tmp_path / "lenient", threshold=1e9))
    for judge in (lenient, "none"):
        findings = validate(path, judge=judge, workers=1).findings
        assert "unlabelled-heart" not in {finding.check for finding in findings}


def test_a_judge_cannot_paint(settings: dict[str, object], tmp_path: Path) -> None:
    folder = str(write_judge(tmp_path / "judge"))
    with pytest.raises(CheckpointError, match="paints nothing; give it to --judge"):
        expand(make_config(settings, checkpoint=folder))


def test_the_noise_of_a_repaint_follows_from_the_seed_and_its_number() -> None:
    assert repaint_seed(7, 0) == 7
    seeds = {repaint_seed(seed, k) for seed in (7, 2**64 - 1) for k in range(4)}
    assert len(seeds) == 8
    assert max(seeds) < 2**64
    assert repaint_seed(7, 1) == 15263531989544755806


def test_a_judge_that_looks_sees_what_was_painted_of_a_dataset(
    settings: dict[str, object], tmp_path: Path
) -> None:
    strict = write_judge(tmp_path / "strict", threshold=1e-9)
    expand(make_config(settings, judge=str(strict)))
    found = everything(settings["output"])
    assert found["repaints"].max() > 0
    assert (found["repaints"][found["status"] == Status.FAILED] == MOST_REPAINTS).all()
    path = Path(str(settings["output"]))
    named = {finding.check for finding in validate(path, judge=str(strict), workers=1).findings}
    assert "unlabelled-heart" not in named
