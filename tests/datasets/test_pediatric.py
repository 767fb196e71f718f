"""EchoNet-Pediatric's layout: two views, outlines as corners, folds, untraced phases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.config import DatasetConfig
from echogen.datasets import open_dataset
from echogen.datasets.echonet import PEDIATRIC
from echogen.datasets.recordings import recordings
from echogen.datasets.selection import select
from echogen.errors import DatasetError
from echogen.phantom import PHASES
from tests.support.echonet import AT, SIZE, Rows, phantom, pictures, write_table, write_video
from tests.support.shapes import printed

FIRST, SECOND = "CR32a7555-CR32a7582-000039", "CR32a7555-CR32a7590-000012"  # one child, two visits
OTHER = "CR32a9999-CR32a9998-000001"


def outline(video: str, label: np.ndarray, frame: int) -> Rows:
    """A label's border as whole corners: down its left side, up its right one."""
    rows = [int(row) for row in np.flatnonzero(label.any(axis=1))[::3]]
    ends = {row: np.flatnonzero(label[row])[[0, -1]].tolist() for row in rows}
    corners = [(ends[row][0], row) for row in rows] + [(ends[row][1], row) for row in rows[::-1]]
    return [{"FileName": f"{video}.avi", "X": x, "Y": y, "Frame": frame} for x, y in corners]


def untraced(video: str, phase: str) -> Rows:
    return [{"FileName": f"{video}.avi", "X": "", "Y": "", "Frame": f"No {phase}"}]


def listed(video: str, split: object, **changes: Any) -> dict[str, Any]:
    return {
        "FileName": f"{video}.avi", "EF": 61.5, "Sex": "F", "Age": 9, "Weight": 31.2,
        "Height": 132.0, "Split": split, **changes,
    }  # fmt: skip


def traced(video: str, index: int) -> Rows:
    return [row for p in PHASES for row in outline(video, phantom(index, p)[1], AT[p])]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pediatric(tmp_path_factory.mktemp("pediatric") / "pediatric_echo_avi")


def write_pediatric(root: Path) -> Path:
    """Videos of two views, some frames of them not traced."""
    for view, videos in (("A4C", (FIRST, SECOND, OTHER)), ("PSAX", (FIRST.replace("39", "40"),))):
        for video in videos:
            write_video(root / view / "Videos" / f"{video}.avi", pictures(1))
    a4c, psax = root / "A4C", root / "PSAX"
    write_table(
        a4c / "FileList.csv",
        [listed(FIRST, 7), listed(SECOND, 7, EF=40, Age=11), listed(OTHER, 0, Sex="M")],
    )
    write_table(
        a4c / "VolumeTracings.csv",
        [*traced(FIRST, 1), *traced(SECOND, 1)[: len(outline("", phantom(1, "ED")[1], 0))],
         *untraced(SECOND, "Systolic"), *untraced(OTHER, "Systolic"),
         *untraced(OTHER, "Diastolic")],
    )  # fmt: skip
    write_table(psax / "FileList.csv", [listed(FIRST.replace("39", "40"), 7)])
    write_table(psax / "VolumeTracings.csv", traced(FIRST.replace("39", "40"), 1))
    return root


def test_both_views_are_listed_by_child_and_fold(made: Path) -> None:
    dataset = open_dataset(made)
    found = [(k.frame_id, k.case_id, k.view, k.phase, k.split) for k in dataset.keys]
    assert found == [
        (f"{FIRST}_4CH_ED", "CR32a7555", "4CH", "ED", "fold7"),
        (f"{FIRST}_4CH_ES", "CR32a7555", "4CH", "ES", "fold7"),
        ("CR32a7555-CR32a7582-000040_PSAX_ED", "CR32a7555", "PSAX", "ED", "fold7"),
        ("CR32a7555-CR32a7582-000040_PSAX_ES", "CR32a7555", "PSAX", "ES", "fold7"),
        (f"{SECOND}_4CH_ED", "CR32a7555", "4CH", "ED", "fold7"),
    ]
    assert not dataset.problems()
    assert dataset.provenance.licence == PEDIATRIC.licence
    assert len(select(dataset.keys, DatasetConfig(views=("4CH",)))) == 3
    assert len(select(dataset.keys, DatasetConfig(split="fold7"))) == 5


def test_each_video_has_a_fan_of_its_own(made: Path) -> None:
    groups = recordings(open_dataset(made).keys)
    assert [len(group) for group in groups] == [2, 2, 1]
    assert len({group[0].recording_id for group in groups}) == 3


def test_corners_are_filled_and_the_larger_cavity_is_the_end_of_diastole(made: Path) -> None:
    dataset = open_dataset(made)
    for key in dataset.keys[:2]:
        frame, truth = dataset.read(key), phantom(1, key.phase)[1]
        assert ((frame.label & truth).sum() / (frame.label | truth).sum()) > 0.9
        shown = pictures(1)[AT[key.phase]].astype(int)
        assert np.abs(frame.image.astype(int) - shown).mean() < 4
    assert dataset.read_clip is not None
    assert dataset.read_clip(made, dataset.keys[0]).shape == (7, SIZE, SIZE)


def test_what_was_not_traced_is_told_and_is_no_fault(made: Path) -> None:
    notes = open_dataset(made).notes
    assert "A4C/VolumeTracings.csv: 2 videos not traced at ES." in notes
    assert "A4C/VolumeTracings.csv: 1 video not traced at ED." in notes
    assert any(note.startswith("PSAX/: parasternal short-axis views") for note in notes)


def test_of_a_child_is_known_what_its_visits_agree_on_and_nothing_that_points_at_it(
    made: Path,
) -> None:
    dataset = open_dataset(made)
    assert {case.case_id: case.info for case in dataset.cases} == {
        "CR32a7555": {"sex": "F"},
        "CR32a9999": {"sex": "M", "ef": 61.5, "age": 9.0},
    }
    assert (
        "FileList.csv: ef differs between the videos of 1 case; left out of them." in dataset.notes
    )


@pytest.mark.parametrize("view", ["A4C", "PSAX"])
def test_a_views_folder_is_a_dataset_too(made: Path, view: str) -> None:
    dataset = open_dataset(made / view)
    assert {key.view for key in dataset.keys} == {"4CH" if view == "A4C" else "PSAX"}
    assert open_dataset(made).fingerprint(
        next(key for key in open_dataset(made).keys if key.view == dataset.keys[0].view)
    ) == dataset.fingerprint(dataset.keys[0])


def rewritten(made: Path, to: Path, rows: Rows) -> Path:
    write_video(to / "A4C" / "Videos" / f"{FIRST}.avi", pictures(1))
    write_table(to / "A4C" / "FileList.csv", [listed(FIRST, 3)])
    write_table(to / "A4C" / "VolumeTracings.csv", rows)
    return to


def test_odd_outlines_are_one_line(made: Path, tmp_path: Path) -> None:
    short = traced(FIRST, 1)[:2]
    root = rewritten(made, tmp_path / "a", short)
    with pytest.raises(
        DatasetError, match=r"line 2: .* frame 5: an outline of 2 corners, expected 3"
    ):
        open_dataset(root)
    root = rewritten(made, tmp_path / "b", [{**traced(FIRST, 1)[0], "Frame": "No Idea"}])
    with pytest.raises(DatasetError, match="frame No Idea: expected the number of a frame"):
        open_dataset(root)
    late = [{**row, "Frame": row["Frame"] + 2} for row in traced(FIRST, 1)]
    dataset = open_dataset(rewritten(made, tmp_path / "c", late))
    with pytest.raises(DatasetError, match=r"frame 7 is past the end of the video, which holds 7"):
        dataset.read(dataset.keys[0])


def test_the_commands_take_it(made: Path) -> None:
    done = CliRunner().invoke(app, ["validate", str(made), "--json"])
    report = printed("validate", done.stdout)
    assert (report["dataset"]["layout"], report["dataset"]["usable"]) == ("echonet", 5)
    assert not [found for found in report["findings"] if found["severity"] == "error"]
