"""A plan's file is not believed: it is read whole, or refused in one sentence with its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from echogen.commands.preview import preview
from echogen.datasets import open_dataset
from echogen.errors import EchogenError, PlanError
from echogen.planning.make import build_plan
from echogen.planning.plan import Plan, load_plan
from tests.support.hearts import make_config
from tests.support.odd_json import mutations

SHOWN = 60
"""Every so manieth of the plans that can be read is shown."""


@pytest.fixture
def plan(settings: dict[str, object]) -> dict[str, Any]:
    config = make_config(settings, copies=1)
    dataset = open_dataset(config.input)
    made = build_plan(dataset, dataset.keys, config, (32, "stretch"), 1)
    plain: dict[str, Any] = json.loads(json.dumps(made.to_dict()))
    return plain


def show(dataset: Path, file: Path) -> None:
    preview(dataset, plan=file, out=file.with_suffix(".png"), n=1, height=64)


def test_every_mutation_is_read_or_refused_in_one_line(
    plan: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    file, read, told = tmp_path / "plan.json", 0, {}
    for what, text in mutations(plan):
        file.write_bytes(text)
        try:
            load_plan(file)
            read += 1
            if read % SHOWN == 0:
                show(dataset, file)
        except EchogenError as error:
            told[what] = str(error)
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert len(told) > 5000
    assert read > 300
    for what, message in told.items():
        assert str(file) in message or str(dataset) in message, what
        assert len(message) < 700, what
        assert "\n" not in message, what


def swapped(plan: dict[str, Any]) -> None:
    plan["rows"][0], plan["rows"][1] = plan["rows"][1], plan["rows"][0]


def doubled(plan: dict[str, Any]) -> None:
    plan["rows"][1] = plan["rows"][0]


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (swapped, "rows.0.copy: expected 0, found 1"),
    (doubled, "rows.1.copy: expected 1, found 0"),
    (lambda plan: plan["rows"].pop(), "rows: expected 2 for each of 4 frames, found 7"),
    (lambda plan: plan["rows"][2].update(frame_id="nobody"), "rows.2.frame_id: expected 'patient0"),
    (lambda plan: plan["rows"][1].update(seed=7), "rows.1.seed: expected"),
    (lambda plan: plan["rows"][1].update(sample_id="x"), "rows.1.sample_id: expected"),
    (lambda plan: plan["rows"][0].update(tries=1), "rows.0.tries: expected 0 to 0, found 1"),
    (lambda plan: plan["rows"][0].update(rejected=True), "rows.0.rejected: not of copy 0"),
    (lambda plan: plan["rows"][0]["params"].update(width=0.5), "rows.0.params: nothing is made"),
    (lambda plan: plan["rows"][1]["params"].update(depth=1e308), "depth: expected a number from"),
    (lambda plan: plan["frames"].reverse(), "frames.1.frame_id: .* does not come after"),
    (lambda plan: plan["frames"][0].update(crop=[9, 0, 9, 50]), "frames.0.crop: is empty"),
    (lambda plan: plan["frames"][0].update(crop=[0, 0, 16385, 50]), "frames.0.crop.2: .* 16384"),
    (
        lambda plan: plan["frames"][0]["sector"].update(radius_far=0),
        "frames.0.sector: is not a fan",
    ),
    (lambda plan: plan["frames"][0].update(cut=[3, 1]), "frames.0.cut: expected class ids that"),
    (lambda plan: plan["frames"][0].update(spacing_mm=[0, 1]), "frames.0.spacing_mm.0: "),
    (lambda plan: plan["settings"].update(image_size=10**6), "settings.image_size: .* 2048"),
    (lambda plan: plan["settings"]["dataset"].update(fans="/etc/passwd"), "names a file"),
    (lambda plan: plan["dataset"].update(root_name="../x"), "dataset: root_name: "),
    (lambda plan: plan["cases"][0].update(case_id="nobody"), "cases: no frame is of the case"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_does_not_go_together_is_named(
    plan: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(plan)
    with pytest.raises(PlanError, match=message) as caught:
        Plan.from_dict(plan)
    assert str(caught.value).endswith(". It is damaged, or was edited: make it again.")


def test_a_frame_that_cannot_be_read_any_more_says_so(
    own_dataset: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    for image in own_dataset.rglob("*_E?.nii*"):
        image.write_bytes(b"nothing")
    with pytest.raises(EchogenError, match=r"[^.]; it could be read when the plan was made\."):
        show(own_dataset, file)


def test_a_crop_beyond_the_picture_is_a_problem_of_its_frame(
    settings: dict[str, object], dataset: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    for frame in plan["frames"]:
        frame["crop"][2] = 9000
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    with pytest.raises(EchogenError, match="another crop or spacing"):
        show(dataset, file)


def test_a_plan_whose_frames_are_of_other_cases_is_another_datasets(
    dataset: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    plan["frames"][0]["case_id"] = "patient0002"
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    with pytest.raises(PlanError, match="1 of its 4 frames are missing or other ones"):
        show(dataset, file)


def test_only_regular_files_of_some_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlanError, match=r"--plan /dev/zero: cannot be read .not a regular file"):
        load_plan(Path("/dev/zero"))
    (tmp_path / "plan.json").write_text("[" * 100)
    monkeypatch.setattr("echogen.planning.plan.MOST_BYTES", 99)
    with pytest.raises(PlanError, match="100 bytes, expected at most 99"):
        load_plan(tmp_path / "plan.json")


def test_a_cut_far_away_takes_no_more_memory_than_the_grid(settings: dict[str, object]) -> None:
    from echogen.geometry.field import field_of
    from echogen.geometry.render import render
    from echogen.geometry.transforms import IDENTITY, Grid
    from echogen.types import Frame, FrameKey
    from tests.support.hearts import FAN, SPACING, fan_frame

    key = FrameKey("f", "c", "", "", "", ())
    field = field_of(Frame(key, *fan_frame(1, 108.0), SPACING), FAN)
    config = make_config(
        settings, transforms={"labels_on_paint": "ignore", "ignore_distance_mm": 1000}
    )
    grid = Grid((32, 32), (1e-4, 1e-4))
    sample = render(field.frame, field.sector, IDENTITY, grid, config.transforms)
    assert sample.image.shape == (32, 32)
