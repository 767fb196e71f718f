"""`cases.csv`: what file names do not say; and the spacing and the turn that settings give."""

from pathlib import Path

import numpy as np
import pytest

from echogen.datasets import open_dataset
from echogen.errors import DatasetError
from tests.support.pictures import heart, opened, save, speckle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("f1", "f2", "f3")):
        save(tmp_path / "images" / f"{name}.png", speckle(seed))
        save(tmp_path / "labels" / f"{name}.png", heart())
    return tmp_path


def test_a_table_gives_case_view_phase_split_and_spacing(root: Path) -> None:
    (root / "cases.csv").write_text(
        "frame,case,view,phase,split,spacing_mm,remark\n"
        "f1,anna,4CH,ED,train,0.3,good\n"
        "images/f2.png,anna,4CH,ES,train,,\n"
        "gone,bob,,,,,\n"
    )
    dataset = opened(root)
    found = [(k.case_id, k.view, k.phase, k.split, k.spacing_mm) for k in dataset.keys]
    assert found == [
        ("anna", "4CH", "ED", "train", (0.3, 0.3)),
        ("anna", "4CH", "ES", "train", None),
        ("f3", "", "", "", None),
    ]
    assert dataset.keys[0].recording_id == dataset.keys[1].recording_id
    assert dataset.read(dataset.keys[0]).spacing_mm == (0.3, 0.3)
    assert "cases by cases.csv" in dataset.describe()
    assert "cases.csv: does not list 1 frame; by name instead." in dataset.notes
    assert "cases.csv: 1 line without a frame here, such as gone." in dataset.notes


def test_semicolons_and_sides_of_their_own(root: Path) -> None:
    (root / "cases.csv").write_text("Frame;spacing_mm_row;spacing_mm_col\nf1;0.3;0.2\n")
    assert opened(root).keys[0].spacing_mm == (0.3, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,case\nf1,anna\n", "expected a column 'frame', found name, case"),
        ("frame\nf1\nf1\n", "cases.csv: lines 2 and 3 name the same frame; remove one of them"),
        ("frame,spacing_mm\nf1,wide\n", "cases.csv line 2: spacing 'wide'; expected millimetres"),
        ("frame,spacing_mm\nf1,-1\n", "cases.csv line 2: spacing '-1'"),
        ("frame,spacing_mm\nf1,1e308\n", "spacing '1e308'; expected .* 1e-06 to 10000"),
        ("frame,spacing_mm_row\nf1,1\n", "cases.csv line 2: spacing '1'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(root: Path, text: str, message: str) -> None:
    (root / "cases.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        opened(root)


def test_a_bare_name_that_several_files_have_is_refused(tmp_path: Path) -> None:
    for seed, place in enumerate(("A", "B")):
        save(tmp_path / place / "x.png", speckle(seed))
        save(tmp_path / place / "x_mask.png", heart())
    (tmp_path / "cases.csv").write_text("frame,case\nA/x,anna\nx,bob\n")
    with pytest.raises(DatasetError, match=r"line 3: names several files; write the folder too"):
        opened(tmp_path)
    (tmp_path / "cases.csv").write_text("frame,case\nA/x,anna\nB/x.png,bob\n")
    assert [key.case_id for key in opened(tmp_path).keys] == ["anna", "bob"]
    save(tmp_path / "x.png", speckle(2))
    save(tmp_path / "x_mask.png", heart())
    (tmp_path / "cases.csv").write_text("frame,case\nx,eve\n")
    assert [key.case_id for key in opened(tmp_path).keys] == ["A", "B", "eve"]


def test_a_spacing_for_all_gives_way_to_the_table_and_wins_over_files(root: Path) -> None:
    (root / "cases.csv").write_text("frame,spacing_mm\nf1,0.5\n")
    dataset = opened(root, spacing_mm=0.25)
    assert [dataset.read(key).spacing_mm for key in dataset.keys] == [
        (0.5, 0.5),
        *[(0.25, 0.25)] * 2,
    ]
    assert "spacing 0.25 x 0.25 mm as set, spacing of 1 frame by a table" in dataset.describe()
    assert "spacing unknown" not in dataset.describe()
    assert not any("carry no spacing" in note for note in dataset.notes)
    prints = [opened(root).fingerprint(key) for key in opened(root).keys]
    assert dataset.fingerprint(dataset.keys[1]) != prints[1]


@pytest.mark.parametrize(("flip", "axes"), [("rows", 0), ("cols", 1), ("both", (0, 1))])
def test_pictures_and_labels_are_turned_alike(root: Path, flip: str, axes: object) -> None:
    dataset = opened(root, flip=flip)
    frame = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(frame.image, np.flip(speckle(0), axes))
    np.testing.assert_array_equal(frame.label, np.flip(heart(), axes))
    assert f"turned: flip = '{flip}'" in dataset.describe()
    assert dataset.fingerprint(dataset.keys[0]) != opened(root).fingerprint(dataset.keys[0])


def test_phases_of_names_that_all_tell(tmp_path: Path) -> None:
    for name in ("diastole1", "sistole1", "diastole2"):
        save(tmp_path / "frames" / f"{name}.png", speckle())
        save(tmp_path / "masks" / f"{name}.png", heart())
    keys = open_dataset(tmp_path).keys
    assert [(key.case_id, key.phase) for key in keys] == [("1", "ED"), ("2", "ED"), ("1", "ES")]
    save(tmp_path / "frames" / "other.png", speckle())
    save(tmp_path / "masks" / "other.png", heart())
    assert {key.phase for key in open_dataset(tmp_path).keys} == {""}


def test_folders_are_cases_and_splits(tmp_path: Path) -> None:
    for place in ("train/p1", "train/p2", "val/p3"):
        save(tmp_path / place / "x.png", speckle())
        save(tmp_path / place / "x_mask.png", heart())
    dataset = open_dataset(tmp_path)
    found = [(key.frame_id, key.case_id, key.split) for key in dataset.keys]
    assert found[0] == ("train/p1/x", "p1", "train")
    assert found[2] == ("val/p3/x", "p3", "val")
    assert "cases by folder" in dataset.describe()
    assert not any("several splits" in note for note in dataset.notes)
    save(tmp_path / "val" / "p1" / "x.png", speckle())
    save(tmp_path / "val" / "p1" / "x_mask.png", heart())
    torn = "frames of 1 case, such as p1, are in several splits"
    assert any(torn in note for note in open_dataset(tmp_path).notes)
