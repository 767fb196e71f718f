"""EchoNet-Dynamic's layout, on simulated videos: tables, outlines, frames of videos."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.export import export
from echogen.datasets import Dataset, open_dataset, videos
from echogen.datasets.echonet import DYNAMIC, list_echonet
from echogen.datasets.tracings import LINES, Tracing, fill_polygon, polygon_area, tracing_of
from echogen.errors import DatasetError, UsageError
from echogen.geometry.recording import fit_recording
from echogen.phantom import PHASES
from echogen.types import FrameKey
from tests.support.echonet import (
    AT,
    FRAMES,
    SIZE,
    Rows,
    listed,
    phantom,
    pictures,
    traced,
    write_table,
    write_video,
)
from tests.support.export_stores import cohort
from tests.support.shapes import printed

VIDEOS = {"0X1A": 1, "0X2B": 2}  # {video: phantom}; the second one's fan is wider than the video


def tracings(video: str, index: int) -> Rows:
    return [row for p in PHASES for row in traced(video, phantom(index, p)[1], AT[p])]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("echonet") / "tiny"
    for video, index in VIDEOS.items():
        write_video(root / "Videos" / f"{video}.avi", pictures(index))
    splits = dict(zip(VIDEOS, ("TRAIN", "VAL"), strict=True))
    write_table(root / "FileList.csv", [listed(video, splits[video]) for video in VIDEOS])
    rows = [row for video, index in VIDEOS.items() for row in tracings(video, index)]
    write_table(root / "VolumeTracings.csv", rows)
    return root


@pytest.fixture
def one(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """A dataset of the first video, its tables edited."""

    def build(
        files: Callable[[Rows], Rows] = lambda rows: rows,
        outlines: Callable[[Rows], Rows] = lambda rows: rows,
    ) -> Path:
        (tmp_path / "Videos").mkdir(exist_ok=True)
        content = (made / "Videos" / "0X1A.avi").read_bytes()
        (tmp_path / "Videos" / "0X1A.avi").write_bytes(content)
        write_table(tmp_path / "FileList.csv", files([listed("0X1A")]))
        write_table(tmp_path / "VolumeTracings.csv", outlines(tracings("0X1A", 1)))
        return tmp_path

    return build


def keys_of(dataset: Dataset) -> tuple[FrameKey, ...]:
    return dataset.keys


def test_a_video_gives_its_two_traced_frames(made: Path) -> None:
    dataset = open_dataset(made)
    found = [(k.frame_id, k.case_id, k.view, k.phase, k.split) for k in keys_of(dataset)]
    assert found == [
        ("0X1A_4CH_ED", "0X1A", "4CH", "ED", "TRAIN"),
        ("0X1A_4CH_ES", "0X1A", "4CH", "ES", "TRAIN"),
        ("0X2B_4CH_ED", "0X2B", "4CH", "ED", "VAL"),
        ("0X2B_4CH_ES", "0X2B", "4CH", "ES", "VAL"),
    ]
    assert dataset.describe() == (
        "echonet layout (AVI): 4 frames of 2 cases, view 4CH, phases ED ES, splits TRAIN VAL, "
        "spacing unknown"
    )
    assert not dataset.problems()
    assert dataset.provenance.labels == {0: "background", 1: "LV cavity"}
    assert dataset.provenance.licence == DYNAMIC.licence
    assert "580, 252-256, 2020" in dataset.provenance.extra["citation"]


def test_images_are_those_frames_and_labels_fill_their_outlines(made: Path) -> None:
    dataset = pickle.loads(pickle.dumps(open_dataset(made)))
    for key in keys_of(dataset):
        frame = dataset.read(key)
        case, label = key.case_id, phantom(VIDEOS[key.case_id], key.phase)[1]
        assert frame.spacing_mm is None
        away = [np.abs(frame.image.astype(int) - shown).mean() for shown in pictures(VIDEOS[case])]
        assert (int(np.argmin(away)), min(away) < 4) == (AT[key.phase], True)  # JPEG has its loss
        np.testing.assert_array_equal(frame.image, dataset.read(key).image)
        assert set(np.unique(frame.label)) == {0, 1}
        common = (frame.label & label).sum() / (frame.label | label).sum()
        assert common > 0.93


def test_the_larger_cavity_is_the_end_of_diastole_whatever_the_order(
    one: Callable[..., Path],
) -> None:
    root = one(outlines=lambda rows: rows[LINES:] + rows[:LINES])
    traces = {key.phase: tracing_of(key.detail) for key in keys_of(open_dataset(root))}
    assert {phase: trace.frame for phase, trace in traces.items()} == AT
    assert traces["ED"].area > traces["ES"].area


def test_what_the_list_knows_of_a_video_is_known_of_its_case(made: Path) -> None:
    assert open_dataset(made).cases[0].info == {
        "ef": 55.5, "lv_edv_ml": 90.5, "lv_esv_ml": 40.25, "frame_rate": 50.0, "frames_4ch": 7.0,
    }  # fmt: skip


def test_tracings_between_the_two_are_left_out_and_told(one: Callable[..., Path]) -> None:
    between = traced(
        "0X1A", phantom(1, "ES")[1] | (phantom(1, "ED")[1] * (np.arange(SIZE) < 60)), 3
    )
    dataset = open_dataset(one(outlines=lambda rows: between + rows))
    assert [tracing_of(key.detail).frame for key in keys_of(dataset)] == [AT["ED"], AT["ES"]]
    assert any("1 tracing between the largest" in note for note in dataset.notes)


def test_the_fan_of_a_small_video_is_found(made: Path) -> None:
    dataset = open_dataset(made)
    for case in VIDEOS:
        frames = [dataset.read(key) for key in keys_of(dataset) if key.case_id == case]
        for fitted in fit_recording(frames):
            assert fitted.sector is not None, fitted.reason
            assert fitted.confidence > 0.95


def test_the_clip_is_every_frame_of_the_video_decoded_once(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(made)
    opened = []
    real = av.open
    monkeypatch.setattr(
        av, "open", lambda path, **options: opened.append(path) or real(path, **options)
    )
    videos._decode.cache_clear()
    assert dataset.read_clip is not None
    for video, index in VIDEOS.items():
        keys = [key for key in keys_of(dataset) if key.case_id == video]
        frames = {key.phase: dataset.read(key).image for key in keys}
        clip = dataset.read_clip(dataset.root, keys[0])
        assert (clip.shape, clip.dtype) == ((FRAMES, SIZE, SIZE), np.uint8)
        for phase, image in frames.items():
            np.testing.assert_array_equal(clip[AT[phase]], image)
        away = np.abs(clip.astype(int) - np.stack(pictures(index))).mean(axis=(1, 2))
        assert away.max() < 4
    assert len(opened) == len(VIDEOS)


def test_of_a_broken_video_the_clip_is_what_can_be_decoded(one: Callable[..., Path]) -> None:
    root = one()
    path = root / "Videos" / "0X1A.avi"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    dataset = open_dataset(root)
    early, late = sorted(keys_of(dataset), key=lambda key: tracing_of(key.detail).frame)
    dataset.read(early)
    assert dataset.read_clip is not None
    held = len(dataset.read_clip(root, early))
    assert AT["ES"] < held < FRAMES
    with pytest.raises(DatasetError, match=r"0X1A.avi: (frame 5 is past|cannot be decoded)"):
        dataset.read(late)


def test_a_video_that_would_fill_the_memory_is_refused(
    one: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "LARGEST", 3 * SIZE**2)
    videos._decode.cache_clear()
    assert all("more than 37,632 pixels or" in reason for reason in reading(one()))
    videos._decode.cache_clear()


def test_a_fingerprint_follows_the_video_and_its_own_tracing(one: Callable[..., Path]) -> None:
    def fingerprints() -> list[str]:
        dataset = open_dataset(root)
        return [dataset.fingerprint(key) for key in keys_of(dataset)]

    root = one()
    first = fingerprints()
    assert first[0] != first[1]
    one(files=lambda rows: [*rows, listed("0X9Z")])
    assert fingerprints() == first

    def moved(rows: Rows) -> Rows:
        rows[5]["X1"] = float(rows[5]["X1"]) + 1
        return rows

    one(outlines=moved)
    diastole, systole = fingerprints()
    assert diastole != first[0]
    assert systole == first[1]
    one()
    assert fingerprints() == first
    with (root / "Videos" / "0X1A.avi").open("ab") as file:
        file.write(b"\0")
    assert all(a != b for a, b in zip(fingerprints(), first, strict=True))


def test_listing_decodes_no_video(made: Path) -> None:
    code = (
        "import sys; from echogen.datasets import open_dataset; "
        f"assert len(open_dataset({str(made)!r}).keys) == 4; "
        "assert not {'av', 'SimpleITK', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def setting(column: str, value: object, row: int = 0) -> Callable[[Rows], Rows]:
    def edit(rows: Rows) -> Rows:
        rows[row][column] = value
        return rows

    return edit


def same(rows: Rows) -> Rows:
    return rows


@pytest.mark.parametrize(
    ("files", "outlines", "reason"),
    [
        (setting("FileName", "0X3C"), same,
         "FileList.csv: does not list 0X1A.avi, which VolumeTracings.csv traces."),
        (same, setting("FileName", "0X3C.avi"),
         "VolumeTracings.csv line 3: 0X1A.avi frame 5: traced by 20 lines, expected 21"),
        (same, setting("Y2", "low", 3),
         "VolumeTracings.csv line 5: Y2 of 0X1A.avi is 'low', expected a number "
         "within 100,000 pixels."),
        (same, setting("X1", "nan"),
         "VolumeTracings.csv line 2: X1 of 0X1A.avi is 'nan', expected a number "
         "within 100,000 pixels."),
        (same, setting("Frame", "last"), "0X1A.avi frame last: expected the number of a frame"),
        (same, lambda rows: rows[:LINES], "frame 5: the only traced frame of its video"),
        (same, lambda rows: [{**row, "FileName": "0X3C"} for row in rows],
         "VolumeTracings.csv: does not trace 0X1A.avi."),
    ],
)  # fmt: skip
def test_odd_lines_make_a_videos_frames_unusable(
    one: Callable[..., Path],
    files: Callable[[Rows], Rows],
    outlines: Callable[[Rows], Rows],
    reason: str,
) -> None:
    listing = list_echonet(one(files, outlines))
    problems = [p for p in listing.problems() if p.frame_id.startswith("0X1A")]
    assert [problem.frame_id for problem in problems] == ["0X1A_4CH_ED", "0X1A_4CH_ES"]
    assert all(reason in problem.reason for problem in problems)
    assert not listing.keys


def test_a_missing_video_and_a_frame_past_the_end_are_problems(one: Callable[..., Path]) -> None:
    root = one(files=lambda rows: [{**rows[0], "NumberOfFrames": 5}, listed("0X9Z")])
    dataset = open_dataset(root)
    assert [(problem.frame_id, problem.reason) for problem in dataset.problems()] == [
        ("0X1A_4CH_ED", "VolumeTracings.csv: frame 5 of 0X1A.avi is traced, but FileList.csv says "
         "that it holds 5 (from 0)."),
        ("0X9Z_4CH_ED", "Videos/0X9Z.avi: no such file, but FileList.csv lists it."),
        ("0X9Z_4CH_ES", "Videos/0X9Z.avi: no such file, but FileList.csv lists it."),
    ]  # fmt: skip
    assert [key.frame_id for key in keys_of(dataset)] == ["0X1A_4CH_ES"]
    (root / "Videos" / "extra.avi").touch()
    assert any("1 video not in FileList.csv" in note for note in open_dataset(root).notes)


def test_numbers_that_are_none_are_left_out_and_told(one: Callable[..., Path]) -> None:
    dataset = open_dataset(one(files=setting("EF", "high")))
    assert "ef" not in dataset.cases[0].info
    assert "FileList.csv line 2: EF is 'high', expected a number; left out." in dataset.notes


def reading(root: Path) -> Iterator[str]:
    dataset = open_dataset(root)
    for key in dataset.keys:
        with pytest.raises(DatasetError) as caught:
            dataset.read(key)
        assert "\n" not in str(caught.value)
        yield str(caught.value)


def test_damaged_videos_are_one_line(
    one: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root = one()
    path = root / "Videos" / "0X1A.avi"
    content = path.read_bytes()
    for wrong in (b"", b"RIFF" + bytes(500), content[: len(content) // 8]):
        path.write_bytes(wrong)
        assert all(reason.startswith("Videos/0X1A.avi: ") for reason in reading(root))
    write_video(path, pictures(1)[:2])
    assert list(reading(root)) == [
        f"Videos/0X1A.avi: frame {AT[phase]} is past the end of the video, which holds 2 (from 0)."
        for phase in ("ED", "ES")
    ]
    write_video(path, [np.zeros((SIZE, SIZE), np.uint8)] * FRAMES)
    assert all("is empty, every pixel is 0" in reason for reason in reading(root))
    assert capfd.readouterr() == ("", "")


def test_an_outline_outside_of_the_picture_is_refused(one: Callable[..., Path]) -> None:
    def away(rows: Rows) -> Rows:
        return [{**row, "X1": row["X1"] + 500, "X2": row["X2"] + 500} for row in rows]

    assert all("traced outside of the image" in reason for reason in reading(one(outlines=away)))


def test_without_pyav_one_sentence_says_what_to_install(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echogen.datasets.base.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"pip install 'echogen\[video\]'"):
        open_dataset(made)


def test_tables_of_other_datasets_are_refused(one: Callable[..., Path]) -> None:
    root = one(outlines=lambda rows: [{"FileName": "0X1A.avi", "X": 1, "Z": 2, "Frame": 3}])
    with pytest.raises(DatasetError, match="expected the columns FileName, Frame, X1, Y1, X2, Y2,"):
        open_dataset(root)
    (root / "VolumeTracings.csv").unlink()
    with pytest.raises(DatasetError, match=r"expected a file VolumeTracings.csv, found none"):
        open_dataset(root)


def test_classes_may_be_renamed_but_the_cavity_stays_declared(made: Path) -> None:
    assert open_dataset(made, labels={1: "LV"}).provenance.labels[1] == "LV"
    with pytest.raises(UsageError, match="the tracings are of class 1"):
        open_dataset(made, labels={2: "wall"})


def test_without_labels_the_same_frames_are_images(made: Path) -> None:
    labelled, bare = open_dataset(made), open_dataset(made, need_labels=False)
    assert keys_of(labelled) == keys_of(bare)
    key = keys_of(bare)[0]
    assert not bare.read(key).label.any()
    np.testing.assert_array_equal(bare.read(key).image, labelled.read(key).image)


def test_its_citation_goes_with_an_export(tmp_path: Path) -> None:
    store = cohort(1, attrs={"dataset": {"licence": DYNAMIC.licence}}).put(tmp_path / "store.h5")
    export(store, to="folder", output=tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "the dataset: D. Ouyang" in text


def test_a_tracing_survives_its_text() -> None:
    tracing = Tracing(46, np.random.default_rng(0).random((LINES, 2)) * 112)
    again = tracing_of(tracing.text())
    assert again.frame == 46
    np.testing.assert_array_equal(again.outline, tracing.outline)


def test_polygons_are_filled_with_their_edges() -> None:
    square = np.array([[1, 1], [1, 3], [3, 3], [3, 1]])
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(fill_polygon(square, (5, 6)), expected)
    np.testing.assert_array_equal(fill_polygon(square[::-1], (5, 6)), expected)
    assert polygon_area(square) == 4.0
    hourglass = np.array([[0, 0], [0, 4], [4, 0], [4, 4]])
    assert fill_polygon(hourglass, (5, 5)).sum() == 5 + 3 + 1 + 3 + 5
    beyond = np.array([[-5, -5], [-5, 9], [9, 9], [9, -5]])
    assert fill_polygon(beyond, (5, 6)).all()
    lozenge = np.array([[0, 2], [2, 4], [4, 2], [2, 0]])
    assert fill_polygon(lozenge, (5, 5)).sum(axis=1).tolist() == [1, 3, 5, 3, 1]


def test_the_commands_take_it(made: Path, tmp_path: Path) -> None:
    run = CliRunner()
    expand = ["expand", "--in", str(made), "--format", "auto", "--copies", "1", "--dry-run"]
    done = run.invoke(app, [*expand, "--out", str(tmp_path / "a.zarr"), "--json"])
    assert done.exit_code == 0, done.output
    assert printed("expand-dry-run", done.stdout)["frames"] == 4
    done = run.invoke(app, ["validate", str(made), "--json"])
    assert done.exit_code == 0, done.output
    report = printed("validate", done.stdout)
    assert (report["dataset"]["layout"], report["dataset"]["usable"]) == ("echonet", 4)
    assert not [found for found in report["findings"] if found["severity"] == "error"]
