"""What a model's record says of the cases that are to be painted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echogen.commands.expand import dry_run, expand
from echogen.config import ExpandConfig
from echogen.datasets import image_digest, open_dataset, open_frames
from echogen.diffusion.checkpoint import CheckpointInfo, read_info
from echogen.geometry.sector import Sector
from echogen.planning.dataset import plan_dataset
from echogen.planning.leakage import leakage_notes
from echogen.planning.plan import Plan, PlannedFrame
from echogen.report import Quiet
from echogen.store import open_store
from tests.support.hearts import fan_frame, make_config, write_nifti

FAN = Sector(0.0, 10.0, -0.5, 0.5, 1.0, 20.0)


def planned(case: str, digest: str, split: str = "training", phase: str = "ED") -> PlannedFrame:
    frame_id = f"{case}_4CH_{phase}"
    return PlannedFrame(
        frame_id, case, "4CH", phase, split, "f" * 64, (0, 0, 20, 20), None, FAN,
        confidence=1.0, stretch=1.0, cut=(), digest=digest,
    )  # fmt: skip


def plan_of(config: ExpandConfig, checkpoint: Path | str) -> Plan:
    frames = open_frames(config.input, config.dataset)
    return plan_dataset(*frames, config, read_info(checkpoint), Quiet()).plan


def record(trained: dict[str, list[str]], held_out: dict[str, list[str]]) -> dict[str, Any]:
    return {"cases": {"trained": trained, "held_out": held_out}}


RECORD = record({"p1": ["aaa", "bbb"], "p2": ["ccc"]}, {"p3": ["ddd", "eee"], "p4": ["fff"]})


def test_training_frames_of_cases_that_the_model_was_trained_on_are_no_news() -> None:
    for split in ("training", "Train", ""):
        assert leakage_notes("m", RECORD, [planned("x", "aaa", split)]) == ()


def test_held_out_cases_are_named_with_the_number_of_their_frames() -> None:
    frames = [
        planned("x", "ddd", phase="ED"),
        planned("x", "zzz", phase="ES"),
        planned("y", "aaa"),
    ]
    (note,) = leakage_notes("m", RECORD, frames)
    assert note == (
        "m was not trained on x, 2 frames here: it was held out to measure it on. Whoever trains "
        "on copies of it can no longer use it for that: leave it out of this run, or measure on "
        "other cases."
    )
    (note,) = leakage_notes("m", RECORD, [planned("x", "ddd"), planned("y", "fff")])
    assert note.startswith("m was not trained on 2 cases (x, y), 2 frames here: they were held out")


def test_cases_of_other_splits_that_were_trained_on_are_named() -> None:
    frames = [planned("x", "aaa", "validation"), planned("y", "ccc", "validation")]
    frames += [planned("z", "bbb", "testing"), planned("w", "aaa", "training")]
    validation, testing = leakage_notes("m", RECORD, frames)[::-1]
    assert validation == (
        "m was trained on 2 cases (x, y) of the validation split, and paints what it has learnt "
        "from them: results on that split come out too good. Leave them out, or use a model that "
        "was not trained on them."
    )
    assert testing.startswith("m was trained on z of the testing split")


def test_ids_do_not_count_pixels_do() -> None:
    assert leakage_notes("m", RECORD, [planned("p3", "xyz"), planned("p1", "q", "testing")]) == ()


def test_many_cases_are_shortened() -> None:
    trained = {f"p{i}": [f"d{i}"] for i in range(9)}
    frames = [planned(f"c{i}", f"d{i}", "testing") for i in range(9)]
    (note,) = leakage_notes("m", record(trained, {}), frames)
    assert "9 cases (c0, c1, c2, ...)" in note


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"held_out_cases": ["p3"]},
        {"cases": ["p3"]},
        {"cases": {"trained": 3, "held_out": {"p3": 4}}},
        {"cases": {"held_out": {"p3": [5, None]}}},
        record({}, {"p3": []}),
    ],
)
def test_records_that_do_not_tell_give_no_notes(training: dict[str, Any]) -> None:
    assert leakage_notes("m", training, [planned("p3", "", "testing")]) == ()


def test_frames_planned_before_digests_were_recorded_match_nothing() -> None:
    assert leakage_notes("m", record({}, {"p3": [""]}), [planned("p3", "")]) == ()


@pytest.fixture
def knowing(dataset: Path, checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny model with a record that holds out the dataset's first case."""
    import shutil

    reader = open_dataset(dataset)
    digests = [image_digest(reader.read(key).image)[:12] for key in reader.keys[:1]]
    folder = tmp_path / "knowing"
    shutil.copytree(checkpoint, folder)
    info = json.loads((folder / "echogen.json").read_text())
    info["training"] = record({}, {"someone": digests})
    (folder / "echogen.json").write_text(json.dumps(info))
    return folder


class Heard(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, message: str) -> None:
        self.lines.append(message)


def test_expand_tells_before_painting_reports_and_stores_it(
    settings: dict[str, object], knowing: Path
) -> None:
    config = make_config(settings, checkpoint=str(knowing), copies=1)
    heard = Heard()
    report = expand(config, reporter=heard)
    note = "tiny was not trained on patient0001, 2 frames here: it was held out"
    assert [line for line in heard.lines if line.startswith(f"note: {note}")]
    assert report.notes[-1].startswith(note)
    with open_store(config.output) as store:
        assert store.attrs["notes"][-1].startswith(note)
    plan, estimate = dry_run(config)
    assert plan.notes[-1].startswith(note)
    assert estimate.notes[:-1] == plan.notes
    assert "is complete already" in estimate.notes[-1]


def test_originals_alone_are_not_painted_and_need_no_note(
    settings: dict[str, object], knowing: Path
) -> None:
    config = make_config(settings, checkpoint=str(knowing), copies=0)
    assert plan_of(config, knowing).notes == ()


def test_a_run_begun_before_the_record_was_known_goes_on(
    settings: dict[str, object], checkpoint: Path, knowing: Path
) -> None:
    """The record enters neither the checkpoint's hash nor the plan's digest."""
    before = plan_of(make_config(settings), checkpoint)
    config = make_config(settings, checkpoint=str(knowing))
    after = plan_of(config, knowing)
    assert after.notes != before.notes
    assert after.digest == before.digest


def test_the_built_in_models_record_lists_its_cases() -> None:
    info: CheckpointInfo = read_info("builtin")
    cases = info.training["cases"]
    assert len(cases["trained"]) == 360
    assert sorted(cases["held_out"]) == info.training["held_out_cases"]
    counts = {part: sum(map(len, cases[part].values())) for part in cases}
    assert counts == {"trained": 1440, "held_out": 158}
    assert not cases["trained"].keys() & cases["held_out"].keys()
    digests = [d for part in cases.values() for found in part.values() for d in found]
    assert all(len(d) == 12 and int(d, 16) >= 0 for d in digests)


def test_simulated_cases_are_not_taken_for_patients_of_the_same_name(
    settings: dict[str, object], own_dataset: Path
) -> None:
    image, _ = fan_frame(3)
    folder = own_dataset / "patient0001"
    for phase in ("ED", "ES"):  # patient0004 was held out from the built-in model
        label = folder / f"patient0001_4CH_{phase}_gt.nii.gz"
        label.rename(folder / f"patient0004_4CH_{phase}_gt.nii.gz")
        (folder / f"patient0001_4CH_{phase}.nii.gz").unlink()
        write_nifti(folder / f"patient0004_4CH_{phase}.nii.gz", np.asarray(image))
    config = make_config(settings, input=str(own_dataset), checkpoint="builtin")
    plan = plan_of(config, "builtin")
    assert "patient0004" in {frame.case_id for frame in plan.frames}
    assert plan.notes == ()
