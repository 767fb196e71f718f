import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from echogen.datasets import image_digest, open_dataset
from echogen.errors import DatasetError, PlanError
from echogen.planning.dataset import PlannedDataset
from echogen.planning.make import build_plan
from echogen.planning.plan import Plan, load_plan, sample_seed, save_plan
from tests.support.hearts import make_config, write_nifti

GRID = (32, "stretch")


def plan_of(settings: dict[str, object], **changes: object) -> Plan:
    config = make_config(settings, **changes)
    dataset = open_dataset(config.input)
    return build_plan(dataset, dataset.keys, config, GRID, config.engine.workers)  # type: ignore[arg-type]


def test_seed_is_the_start_of_a_sha256_over_seed_frame_and_copy() -> None:
    # printf '7/patient0001_4CH_ED/2' | sha256sum | cut -c1-16
    assert sample_seed(7, "patient0001_4CH_ED", 2) == 0xD0F0BB4B396AB059
    assert sample_seed(7, "patient0001_4CH_ED", 3) != sample_seed(7, "patient0001_4CH_ED", 2)


def test_rows_are_sorted_and_numbered_from_the_original(settings: dict[str, object]) -> None:
    plan = plan_of(settings)
    assert [(row.frame_id, row.copy) for row in plan.rows] == [
        (f"patient{case:04d}_4CH_{phase}", copy)
        for case in (1, 2)
        for phase in ("ED", "ES")
        for copy in range(4)
    ]
    assert len({row.sample_id for row in plan.rows}) == 16
    assert len({row.seed for row in plan.rows}) == 16


def test_plan_does_not_depend_on_workers(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = plan_of(settings)
    monkeypatch.setattr("echogen.support.processes.START_S", 0)
    assert plan_of(settings, engine={"workers": 2}) == alone


def test_a_frames_draws_do_not_depend_on_the_other_frames(
    settings: dict[str, object], own_dataset: Path
) -> None:
    both = plan_of(settings, input=str(own_dataset))
    shutil.rmtree(own_dataset / "patient0001")
    alone = plan_of(settings, input=str(own_dataset))
    assert alone.rows == tuple(row for row in both.rows if row.frame_id.startswith("patient0002"))


def test_more_copies_leave_the_first_ones_as_they_were(settings: dict[str, object]) -> None:
    few, many = plan_of(settings), plan_of(settings, copies=5)
    assert set(few.rows) <= set(many.rows)


def test_json_round_trip_keeps_everything(settings: dict[str, object], tmp_path: Path) -> None:
    plan = plan_of(settings)
    save_plan(plan, tmp_path / "plan.json")
    again = load_plan(tmp_path / "plan.json")
    assert again == plan
    assert again.digest == plan.digest


def test_digest_tells_seed_and_file_content(settings: dict[str, object], own_dataset: Path) -> None:
    before = plan_of(settings, input=str(own_dataset))
    assert plan_of(settings, input=str(own_dataset), seed=1).digest != before.digest
    shutil.copy(
        own_dataset / "patient0001" / "patient0001_4CH_ES.nii.gz",
        own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz",
    )
    assert plan_of(settings, input=str(own_dataset)).digest != before.digest


def test_frames_carry_the_start_of_their_pixels_digest(settings: dict[str, object]) -> None:
    plan = plan_of(settings)
    dataset = open_dataset(str(settings["input"]))
    expected = [image_digest(dataset.read(key).image)[:12] for key in list(dataset.keys)]
    assert [frame.digest for frame in plan.frames] == expected


def test_notes_and_pixel_digests_do_not_change_the_plans_digest(
    settings: dict[str, object],
) -> None:
    """They tell of other things, and a store begun without them must go on."""
    plan = plan_of(settings)
    bare = tuple(replace(frame, digest="") for frame in plan.frames)
    told = replace(plan, notes=("something",), frames=bare)
    assert told.digest == plan.digest
    moved = replace(plan, rows=plan.rows[1:])
    assert moved.digest != plan.digest


def test_a_plan_from_before_pixel_digests_can_be_read(settings: dict[str, object]) -> None:
    plan = plan_of(settings)
    data = plan.to_dict()
    for frame in data["frames"]:
        del frame["digest"]
    again = Plan.from_dict(data)
    assert {frame.digest for frame in again.frames} == {""}
    assert again.digest == plan.digest


def test_a_draw_that_never_succeeds_is_rejected_and_not_an_original(
    settings: dict[str, object],
) -> None:
    still = {"probability": 0.0, "max_tries": 4}
    plan = plan_of(settings, transforms=still)
    copies = [row for row in plan.rows if row.copy > 0]
    assert copies
    assert all(row.rejected and row.tries == 4 for row in copies)
    assert not any(row.rejected for row in plan.rows if row.copy == 0)


def test_cut_labels_are_recorded(settings: dict[str, object]) -> None:
    cut = {frame.frame_id: frame.cut for frame in plan_of(settings).frames}
    assert 3 in cut["patient0001_4CH_ED"]
    assert 3 not in cut["patient0002_4CH_ED"]


def test_a_frame_without_a_fan_is_a_problem_with_its_file(
    settings: dict[str, object], own_dataset: Path
) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", noise)
    plan = plan_of(settings, input=str(own_dataset))
    assert [problem.frame_id for problem in plan.problems] == ["patient0001_4CH_ED"]
    assert "no sector found" in plan.problems[0].reason
    assert "patient0001_4CH_ED.nii.gz" in plan.problems[0].reason
    assert "patient0001_4CH_ES" in {frame.frame_id for frame in plan.frames}


def test_on_error_fail_stops_at_the_first_bad_frame(
    settings: dict[str, object], own_dataset: Path
) -> None:
    (own_dataset / "patient0001" / "patient0001_4CH_ED_gt.nii.gz").unlink()
    skipped = plan_of(settings, input=str(own_dataset))
    assert len(skipped.problems) == 1
    with pytest.raises(DatasetError, match="patient0001_4CH_ED"):
        plan_of(settings, input=str(own_dataset), on_error="fail")


def test_a_dataset_that_has_gone_ends_the_run_and_no_frame_is_at_fault(
    settings: dict[str, object], own_dataset: Path
) -> None:
    plan = plan_of(settings, input=str(own_dataset))
    dataset = open_dataset(own_dataset)
    source = PlannedDataset(dataset, dataset.keys, plan)
    samples = source.render(plan.rows)
    next(samples)
    shutil.move(own_dataset, own_dataset.with_name("away"))
    with pytest.raises(DatasetError, match=r"has gone while it was read.*the same command again"):
        list(samples)
    own_dataset.mkdir()  # where it was mounted
    with pytest.raises(DatasetError, match="has gone while it was read"):
        list(source.render(plan.rows))


def test_the_same_pixels_under_two_cases_are_reported(
    settings: dict[str, object], own_dataset: Path
) -> None:
    shutil.copy(
        own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz",
        own_dataset / "patient0002" / "patient0002_4CH_ED.nii.gz",
    )
    notes = " ".join(plan_of(settings, input=str(own_dataset)).notes)
    assert "patient0001_4CH_ED and patient0002_4CH_ED hold the same pixels" in notes


def test_no_usable_frame_is_an_error(settings: dict[str, object], own_dataset: Path) -> None:
    for path in own_dataset.rglob("*_gt.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(PlanError, match="no frame can be used, of 4 found"):
        plan_of(settings, input=str(own_dataset))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a plan"),
        ("{", "is not valid JSON"),
        (json.dumps({"format": 9}), "expected 2, found 9"),
        (json.dumps({"format": 2, "settings": {}}), "settings.copies: Field required"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match=message):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("frames", {"crop": "large"}, r"frames\.0\.crop: expected a list"),
        ("rows", {"seed": "x"}, r"rows\.0\.seed: expected a whole number"),
        ("rows", {"colour": 1}, r"rows\.0\.colour: "),
        ("rows", {"params": {"roll": 1.0}}, r"rows\.0\.params: depth: "),
        ("frames", {"digests": ""}, r"frames\.0\.digests: "),
    ],
)
def test_a_plan_with_an_unknown_key_or_a_value_of_another_type_is_refused(
    settings: dict[str, object], part: str, value: dict[str, object], message: str
) -> None:
    data = plan_of(settings).to_dict()
    data[part][0] |= value
    with pytest.raises(PlanError, match=f"plan: {message}"):
        Plan.from_dict(data)


def test_a_fan_that_is_not_round_in_mm_is_noted(
    settings: dict[str, object], own_dataset: Path
) -> None:
    import SimpleITK

    assert not any("not round" in note for note in plan_of(settings).notes)
    for name in ("patient0002_4CH_ED.nii.gz", "patient0002_4CH_ED_gt.nii.gz"):
        path = str(own_dataset / "patient0002" / name)
        image = SimpleITK.ReadImage(path)
        image.SetSpacing((0.9, 0.5))
        SimpleITK.WriteImage(image, path)
    notes = plan_of(settings, input=str(own_dataset)).notes
    assert any("not round" in note and "patient0002_4CH_ED" in note for note in notes)


def test_planning_goes_on_here_where_workers_die(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    alone = plan_of(settings)
    here = os.getpid()
    monkeypatch.setattr("echogen.support.processes.START_S", 0)
    monkeypatch.setattr(
        "echogen.support.processes.get_context", lambda _: multiprocessing.get_context("fork")
    )

    def dies_elsewhere(*arguments: object) -> None:
        assert os.getpid() != here
        os._exit(1)

    monkeypatch.setattr("echogen.support.processes._enter", dies_elsewhere)
    assert plan_of(settings, engine={"workers": 2}) == alone
