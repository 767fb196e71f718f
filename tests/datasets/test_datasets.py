"""Telling datasets apart, selecting frames, and what every listing offers."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from echogen.config import DatasetConfig
from echogen.datasets import fingerprint_files, image_digest, open_dataset, select
from echogen.datasets.base import FRAME_NAME, digest_of, resolve_labels
from echogen.datasets.recordings import Recording, each_recording, read_recording, recordings
from echogen.errors import DatasetError, UsageError
from echogen.support import processes
from echogen.types import Frame, FrameKey


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def camus_case(folder: Path, case: str = "patient0001", views: tuple[str, ...] = ("4CH",)) -> None:
    for view in views:
        for phase in ("ED", "ES"):
            stem = f"{case}_{view}_{phase}"
            touch(folder / case / f"{stem}.nii.gz", folder / case / f"{stem}_gt.nii.gz")


def key(case: str, view: str, phase: str, split: str = "") -> FrameKey:
    return FrameKey(f"{case}_{view}_{phase}", case, view, phase, split, ())


KEYS = tuple(
    key(f"patient{number:04d}", view, phase, "training" if number < 3 else "testing")
    for number in (1, 2, 3)
    for view in ("2CH", "4CH")
    for phase in ("ED", "ES")
)


def chosen(**settings: object) -> list[str]:
    return [found.frame_id for found in select(KEYS, DatasetConfig.model_validate(settings))]


def test_importing_and_listing_do_not_load_simpleitk(tmp_path: Path) -> None:
    camus_case(tmp_path / "database_nifti")
    code = (
        "import sys; from echogen.datasets import open_dataset; "
        f"assert len(open_dataset({str(tmp_path)!r}).keys) == 2; "
        "assert not {'SimpleITK', 'torch', 'zarr', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("patient0001_4CH_ED", ("patient0001", "4CH", "ED", None)),
        ("patient0001_2CH_ES_gt", ("patient0001", "2CH", "ES", "_gt")),
        ("site_b_07_A3C_ED", ("site_b_07", "A3C", "ED", None)),
        ("patient0001_4CH_half_sequence", None),
        ("patient0001_4CH_sequence_gt", None),
        ("patient0001_ED", None),
    ],
)
def test_frame_names_parse_as_camus_writes_them(
    name: str, expected: tuple[str, ...] | None
) -> None:
    named = FRAME_NAME.fullmatch(name)
    assert (named and named.group("case", "view", "phase", "label")) == expected


def test_everything_is_selected_by_default_in_order_of_frame_id() -> None:
    ids = [found.frame_id for found in select(tuple(reversed(KEYS)), DatasetConfig())]
    assert ids == sorted(found.frame_id for found in KEYS)


def test_views_phases_split_and_cases_narrow_together() -> None:
    assert chosen(views=("4ch",), phases=("ED",), split="Training", cases=("*1", "*3")) == [
        "patient0001_4CH_ED"
    ]
    assert len(chosen(views=("2CH", "4CH"))) == len(KEYS)
    assert len(chosen(phases=("ES",))) == 6
    assert len(chosen(split="testing")) == 4


def test_a_limit_keeps_the_first_of_what_is_selected() -> None:
    assert chosen(views=("4CH",), limit=2) == ["patient0001_4CH_ED", "patient0001_4CH_ES"]
    assert len(chosen(limit=1000)) == len(KEYS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": ("2CH", "3CH")}, "--views 3CH: not in this dataset; it has 2CH, 4CH."),
        ({"phases": ("MID",)}, "--phases MID: not in this dataset; it has ED, ES."),
        (
            {"split": "validation"},
            "--split validation: not in this dataset; it has testing, training.",
        ),
        ({"cases": ("patient0001", "p9*")}, "--cases p9*: matches none of the 3 cases"),
        ({"cases": ("patient0001",), "split": "testing"}, "none of the 12 frames matches"),
    ],
)
def test_selecting_what_is_not_there_names_what_is(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(**settings)
    assert message in str(caught.value)


def test_a_split_cannot_be_asked_of_a_dataset_without_lists() -> None:
    with pytest.raises(UsageError, match="--split training: not in this dataset; it has none"):
        select((key("a", "4CH", "ED"),), DatasetConfig(split="training"))


def test_declared_labels_always_hold_background_and_never_ignore() -> None:
    assert resolve_labels(None)[2] == "myocardium"
    assert resolve_labels({5: "aorta", 1: "LV"}) == {0: "background", 1: "LV", 5: "aorta"}
    with pytest.raises(UsageError, match=r"0\.\.254.*got \[255\]"):
        resolve_labels({255: "ignore"})


def test_auto_tells_the_layouts_apart_and_says_so(tmp_path: Path) -> None:
    camus_case(tmp_path / "a" / "database_nifti", views=("2CH", "4CH"))
    touch(tmp_path / "b" / "images" / "x.png", tmp_path / "b" / "labels" / "x.png")
    camus, folder = open_dataset(tmp_path / "a"), open_dataset(str(tmp_path / "b"))
    assert camus.provenance.format == "camus"
    assert camus.describe() == (
        "camus layout (NIfTI): 4 frames of 1 case, views 2CH 4CH, phases ED ES"
    )
    assert folder.provenance.format == "folder"
    assert folder.describe() == (
        "folder layout (PNG images, labels as class ids, cases by file name): "
        "1 frame of 1 case, spacing unknown"
    )


def test_a_folder_that_fits_two_layouts_needs_a_format(tmp_path: Path) -> None:
    camus_case(tmp_path)
    touch(tmp_path / "images" / "x.png", tmp_path / "labels" / "x.png")
    with pytest.raises(DatasetError, match="camus and folder; choose one with --format"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, format="folder").keys[0].frame_id == "x"
    assert len(open_dataset(tmp_path, format="camus").keys) == 2


def refusal(path: Path, format: str = "auto") -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(path, format=format)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_that_is_not_there_names_the_nearest_one(tmp_path: Path) -> None:
    camus_case(tmp_path / "CAMUS" / "database_nifti")
    assert f"no such folder; did you mean {tmp_path / 'CAMUS'}?" in refusal(tmp_path / "camus_")
    assert f"{tmp_path} holds CAMUS/." in refusal(tmp_path / "zzz" / "deeper")


def test_a_path_too_high_too_deep_or_of_a_file_names_the_right_one(tmp_path: Path) -> None:
    right = tmp_path / "downloads" / "data"
    camus_case(right / "database_nifti")
    touch(right / "database_split" / "subgroup_training.txt")
    pictures = tmp_path / "other" / "pictures"
    touch(pictures / "images" / "x.png", pictures / "labels" / "x.png")
    assert f"did you mean {right}?" in refusal(tmp_path / "downloads")
    assert f"did you mean {right}?" in refusal(tmp_path)
    assert f"did you mean {right}?" in refusal(right / "database_split")
    assert f"did you mean {pictures}?" in refusal(pictures / "images")
    case = right / "database_nifti" / "patient0001"
    message = refusal(case / "patient0001_4CH_ED.nii.gz")
    assert f"is a file, expected a folder; did you mean {case}?" in message
    touch(tmp_path / "camus.zip")
    assert "unpack the archive" in refusal(tmp_path / "camus.zip")


def test_a_folder_of_something_else_says_what_was_looked_for_and_what_is_there(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"{letter}.jpg" for letter in "abcdefg"))
    message = refusal(tmp_path)
    assert "patient" not in message.replace(str(tmp_path), "")
    assert "CASE_VIEW_PHASE.nii.gz" in message
    assert "images/X.png with labels/X.png" in message
    assert "holds a.jpg, b.jpg, c.jpg, d.jpg, e.jpg and 2 more." in message
    (tmp_path / "empty").mkdir()
    assert "the folder is empty." in refusal(tmp_path / "empty")


def test_a_dataset_without_one_pair_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "patient0001" / "patient0001_4CH_ED.mhd")
    assert "no image has a label; patient0001/patient0001_4CH_ED.mhd: no label, expected" in (
        refusal(tmp_path / "a")
    )
    touch(tmp_path / "b" / "testing" / "patient0001" / "patient0001_4CH_ED.mhd")
    assert "no image has a label; testing/: 1 image without any label" in refusal(tmp_path / "b")


def test_the_wrong_format_names_the_right_one(tmp_path: Path) -> None:
    camus_case(tmp_path)
    assert "it is in the camus layout, use --format camus." in refusal(tmp_path, format="folder")
    with pytest.raises(
        UsageError, match="--format matlab: expected auto, camus, folder, nnunet, echonet"
    ):
        open_dataset(tmp_path, format="matlab")


def test_a_dataset_survives_pickling(tmp_path: Path) -> None:
    camus_case(tmp_path)
    dataset = open_dataset(tmp_path)
    again = pickle.loads(pickle.dumps(dataset))
    assert again == dataset
    assert again.read_frame is dataset.read_frame


def test_the_root_is_recorded_by_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camus_case(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert open_dataset(".").provenance.root_name == "mine"


def test_a_fingerprint_follows_content_and_file_boundaries(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"ab")
    second.write_bytes(b"c")
    before = fingerprint_files(tmp_path, (first, second))
    assert before == fingerprint_files(tmp_path.parent, (first, second))
    first.write_bytes(b"a")
    second.write_bytes(b"bc")
    assert fingerprint_files(tmp_path, (first, second)) != before
    second.unlink()
    with pytest.raises(DatasetError, match=r"^b: cannot be read \(No such file"):
        fingerprint_files(tmp_path, (first, second))


def test_equal_pictures_have_equal_digests() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert image_digest(image) == image_digest(np.asfortranarray(image))
    assert image_digest(image) != image_digest(image.reshape(4, 3))
    assert image_digest(image) != image_digest(image + np.uint8(1))


def test_a_recording_whose_clip_is_damaged_is_a_problem_and_no_end_of_the_run(
    dataset: Path,
) -> None:
    def broken(root: Path, key: FrameKey) -> np.ndarray:
        raise DatasetError(f"{key.paths[0].name}: truncated")

    opened = replace(open_dataset(dataset), read_clip=broken)
    keys = recordings(opened.keys)[0]
    recording = read_recording(opened, keys)
    assert recording.frames == ()
    assert [problem.frame_id for problem in recording.problems] == [key.frame_id for key in keys]
    assert recording.problems[0].reason.endswith(".nii.gz: truncated")


def read_or_die(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
    """As a library does that a damaged file overcomes."""
    if key.frame_id == "patient0002_4CH_ED":
        os.kill(os.getpid(), signal.SIGSEGV)
    if key.frame_id == "patient0001_4CH_ES":
        raise DatasetError(f"{key.paths[0].name}: truncated")
    return Frame(key, np.eye(40, dtype=np.uint8), np.ones((40, 40), np.uint8), None)


def told(recording: Recording) -> tuple[list[str], list[str]]:
    read = [fitted.frame.key.frame_id for fitted in recording.frames]
    return read, [f"{problem.frame_id} {problem.reason}" for problem in recording.problems]


def test_a_frame_that_ends_its_reader_is_a_problem_and_the_others_are_read(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "START_S", 0)
    opened = replace(open_dataset(dataset), read_frame=read_or_die)
    found = list(each_recording(told, opened, opened.keys, workers=2))
    ed, es = "patient0001_4CH_ED", "patient0001_4CH_ES"
    assert found[0] == ([ed], [f"{es} {es}.nii.gz: truncated"])
    dead = "patient0002_4CH_ED"
    reason = f"{dead} {dead}.nii.gz: its reading ended the process (signal 11)."
    assert found[1] == (["patient0002_4CH_ES"], [reason])


def test_a_file_that_claims_a_terabyte_is_not_hashed(tmp_path: Path) -> None:
    with (tmp_path / "x.dcm").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match=r"1,000,000,000,000 bytes, expected at most"):
        digest_of(tmp_path / "x.dcm")
    with pytest.raises(DatasetError, match=r"x\.dcm: cannot be read \(1,000,000,000,000 bytes"):
        fingerprint_files(tmp_path, [tmp_path / "x.dcm"])
