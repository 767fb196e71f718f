"""A dataset's frames prepared for training: expand's pixels, in a folder whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from echogen.datasets import image_digest, open_dataset
from echogen.datasets.fan_table import GivenFan
from echogen.errors import DatasetError, StoreError
from echogen.geometry.sector import fan_mask
from echogen.planning.dataset import plan_dataset
from echogen.planning.plan import PlannedFrame
from echogen.report import Quiet
from echogen.support import processes
from echogen.training.frame_folder import await_frames, few_frames, prepare_frames
from echogen.training.frames import ModelGrid, PreparedFrames, pack_frames, read_frames
from echogen.types import Sample
from tests.support.hearts import fan_frame, make_config, write_nifti

GRID = ModelGrid(image_size=32, resize="stretch")


class Heard(Quiet):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[tuple[int, int]] = []

    def tell(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.stages.append((done, total))


def prepare(root: Path, cache: Path | None = None, **options: object) -> PreparedFrames:
    dataset = open_dataset(root, need_labels=False)
    return prepare_frames(dataset, dataset.keys, GRID, cache, **options)


def originals(settings: dict[str, object], checkpoint: Path) -> dict[str, np.ndarray]:
    """{frame id: what expand stores as the original}."""
    from echogen.diffusion.checkpoint import read_info

    config = make_config(settings, copies=0)
    dataset = open_dataset(config.input)
    info = read_info(checkpoint)
    source = plan_dataset(dataset, list(dataset.keys), config, info, Quiet())
    samples = [item for item in source.render(source.plan.rows) if isinstance(item, Sample)]
    planned: tuple[PlannedFrame, ...] = source.plan.frames
    return {p.frame_id: sample.image for p, sample in zip(planned, samples, strict=True)}


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_prepared_frames_are_expands_originals_bit_for_bit(
    dataset: Path, checkpoint: Path, settings: dict[str, object], tmp_path: Path
) -> None:
    expected = originals(settings, checkpoint)
    prepared = prepare(dataset, tmp_path / "frames")
    assert prepared.record.frame_ids == tuple(expected)
    for frame_id, frame in zip(prepared.record.frame_ids, prepared.pixels, strict=True):
        np.testing.assert_array_equal(frame, expected[frame_id])
    assert prepared.record.case_ids == tuple(name.split("_")[0] for name in expected)
    assert not prepared.problems


def test_in_memory_and_in_a_folder_they_are_the_same(dataset: Path, tmp_path: Path) -> None:
    kept, held = prepare(dataset, tmp_path / "frames"), prepare(dataset)
    assert isinstance(kept.pixels, np.memmap)
    assert not kept.pixels.flags.writeable
    assert kept.record.fingerprint == held.record.fingerprint
    assert kept.record.digests == held.record.digests
    assert read_frames(tmp_path / "frames").record.splits == held.record.splits


def test_each_frames_fan_is_the_one_that_its_pixels_lie_in(dataset: Path, tmp_path: Path) -> None:
    prepared = prepare(dataset, tmp_path / "frames")
    assert prepared.fans.shape == (4, 11)
    for image, fan in zip(prepared.pixels, prepared.fans, strict=True):
        shown = ndimage.maximum_filter(fan_mask(fan[:6], fan[6], image.shape, fan[7:]), 3)
        assert not image[~shown].any()
        assert (image[shown] > 0).mean() > 0.85
    pack_frames(tmp_path / "frames", tmp_path / "frames.zip")
    np.testing.assert_array_equal(read_frames(tmp_path / "frames.zip").fans, prepared.fans)


def test_frames_of_an_earlier_version_are_refused_or_prepared_again(
    dataset: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "frames"
    first = prepare(dataset, cache)
    record = json.loads((cache / "frames.json").read_text())
    del record["fans"]
    (cache / "frames.json").write_text(json.dumps(record | {"format": 2}))
    pack_frames(cache, tmp_path / "frames.zip")
    for place in (cache, tmp_path / "frames.zip"):
        with pytest.raises(DatasetError, match=r"an earlier version of echogen, without the fans"):
            read_frames(place)
    with pytest.raises(DatasetError, match="earlier version of echogen prepared them"):
        prepare(dataset, cache, keep_old=True)
    assert prepare(dataset, cache).record == first.record
    for change, match in (
        ({}, "fans: expected 4, got 0"),
        ({"fans": [[0.0] * 11] * 4}, "is none, got"),
        ({"fans": [[0.0] * 10] * 4}, "expected at least 11 values"),
    ):
        (cache / "frames.json").write_text(json.dumps(record | change))
        with pytest.raises(DatasetError, match=match):
            read_frames(cache)
    moved = [[fan[0] + 0.5, *fan[1:]] for fan in first.record.fans]
    (cache / "frames.json").write_text(json.dumps(record | {"fans": moved}))
    with pytest.raises(DatasetError, match=r"pixels or fans are not the ones"):
        read_frames(cache)


def test_digests_are_of_the_frames_at_native_resolution(dataset: Path) -> None:
    record = prepare(dataset).record
    reader = open_dataset(dataset)
    keys = reader.keys
    expected = [image_digest(reader.read(key).image)[:12] for key in keys]
    assert list(record.digests) == expected


def test_they_do_not_depend_on_workers(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = prepare(dataset)
    monkeypatch.setattr(processes, "START_S", 0)
    prepare(dataset, tmp_path / "frames", workers=2)
    assert read_frames(tmp_path / "frames").record.fingerprint == alone.record.fingerprint


def test_letters_outside_the_fan_are_removed_and_its_edge_is_whole(own_dataset: Path) -> None:
    clean = prepare(own_dataset)
    image, _ = fan_frame(10, 108.0)
    image[2:8, 2:14:2] = 255  # six strokes in the upper left corner
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", image)
    np.testing.assert_array_equal(prepare(own_dataset).pixels, clean.pixels)


def test_a_frame_without_a_fan_is_left_out_and_told(own_dataset: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", noise)
    prepared = prepare(own_dataset)
    assert [problem.frame_id for problem in prepared.problems] == ["patient0001_4CH_ED"]
    assert "--fans" in prepared.problems[0].reason
    assert "patient0001_4CH_ED" not in prepared.record.frame_ids


def test_bad_frames_are_skipped_with_their_file_or_end_it(
    own_dataset: Path, tmp_path: Path
) -> None:
    whole = prepare(own_dataset)
    bad = own_dataset / "patient0001" / "patient0001_4CH_ES.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    prepared = prepare(own_dataset, tmp_path / "frames")
    assert [problem.frame_id for problem in prepared.problems] == ["patient0001_4CH_ES"]
    assert bad.name in prepared.problems[0].reason
    np.testing.assert_array_equal(prepared.pixels, whole.pixels[[0, 2, 3]])
    assert read_frames(tmp_path / "frames").problems == prepared.problems
    with pytest.raises(DatasetError, match=r"patient0001_4CH_ES.*--on-error fail"):
        prepare(own_dataset, tmp_path / "other", on_error="fail")
    assert not list(tmp_path.glob("*other*"))
    with pytest.raises(DatasetError, match=r"patient0001_4CH_ES.*--on-error fail"):
        prepare(own_dataset, tmp_path / "frames", on_error="fail")


def test_no_usable_frame_is_an_error(own_dataset: Path) -> None:
    for path in own_dataset.rglob("*.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of the 4 frames found can be used"):
        prepare(own_dataset)


def test_the_same_files_are_not_read_again(
    own_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "frames"
    first = prepare(own_dataset, cache)
    monkeypatch.setattr("echogen.datasets.recordings.fit_recording", None)  # making would fail
    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr("echogen.datasets.base.fingerprint_files", None)  # so would hashing
        again = prepare(own_dataset, cache, reporter=heard)
    assert again.record.fingerprint == first.record.fingerprint
    assert heard.lines == [f"{cache}: 4 frames already prepared"]
    touch(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz")
    moved = own_dataset.rename(tmp_path / "elsewhere")
    assert prepare(moved, cache).record.fingerprint == first.record.fingerprint


def test_changed_files_are_prepared_again_or_refused_where_a_run_needs_the_old(
    own_dataset: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "frames"
    first = prepare(own_dataset, cache)
    image, _ = fan_frame(77)
    write_nifti(own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz", image)
    with pytest.raises(DatasetError, match="1 frame changed, such as patient0002_4CH_ES"):
        prepare(own_dataset, cache, keep_old=True)
    assert read_frames(cache).record.fingerprint == first.record.fingerprint
    second = prepare(own_dataset, cache)
    assert second.record.fingerprint != first.record.fingerprint
    shutil.rmtree(own_dataset / "patient0001")
    with pytest.raises(DatasetError, match="2 frames missing, such as patient0001_4CH_ED"):
        prepare(own_dataset, cache, keep_old=True)


def test_frames_are_prepared_again_for_another_fan(dataset: Path, tmp_path: Path) -> None:
    cache, reader = tmp_path / "frames", open_dataset(dataset, need_labels=False)
    first = prepare(dataset, cache)
    values = (2.0, 52.0, -20.0, 20.0, 5.0, 100.0)
    narrow = {"patient0002_4CH_ES": GivenFan(values, None, "fans.csv, line 2")}
    narrowed = replace(reader, fans=narrow)
    with pytest.raises(DatasetError, match="1 frame changed, such as patient0002_4CH_ES"):
        prepare_frames(narrowed, reader.keys, GRID, cache, keep_old=True)
    second = prepare_frames(narrowed, reader.keys, GRID, cache)
    np.testing.assert_array_equal(second.pixels[:3], first.pixels[:3])
    assert (second.pixels[3] != first.pixels[3]).any()
    heard = Heard()
    moved = {name: replace(fan, origin="moved.csv, line 9") for name, fan in narrow.items()}
    prepare_frames(replace(reader, fans=moved), reader.keys, GRID, cache, heard)
    assert heard.lines == [f"{cache}: 4 frames already prepared"]


def test_another_grid_is_refused_where_a_run_needs_the_old(dataset: Path, tmp_path: Path) -> None:
    prepare(dataset, tmp_path / "frames")
    reader = open_dataset(dataset, need_labels=False)
    smaller = ModelGrid(image_size=16, resize="stretch")
    with pytest.raises(DatasetError, match="the grid was"):
        prepare_frames(reader, reader.keys, smaller, tmp_path / "frames", keep_old=True)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("frames.npy", "truncated"),
        ("frames.npy", "altered"),
        ("frames.npy", "missing"),
        ("frames.json", "truncated"),
        ("frames.json", "missing"),
    ],
)
def test_a_damaged_folder_is_never_trusted(
    dataset: Path, tmp_path: Path, name: str, damage: str
) -> None:
    cache = tmp_path / "frames"
    first = prepare(dataset, cache)
    file, content = cache / name, bytearray((cache / name).read_bytes())
    content[-40] ^= 1
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-50] if damage == "truncated" else content)
    with pytest.raises(
        DatasetError,
        match=r"not (prepared frames|the ones that were prepared)|prepare the frames again",
    ) as caught:
        read_frames(cache)
    assert "\n" not in str(caught.value)
    assert prepare(dataset, cache, keep_old=True).record.fingerprint == first.record.fingerprint


def test_packed_frames_are_the_folders_and_damage_is_named(dataset: Path, tmp_path: Path) -> None:
    kept, file = prepare(dataset, tmp_path / "frames"), tmp_path / "frames.zip"
    pack_frames(tmp_path / "frames", file)
    packed = read_frames(file)
    assert packed.record == kept.record
    np.testing.assert_array_equal(packed.pixels, kept.pixels)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:-30], b"nothing"):
        file.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"frames\.zip: not prepared frames") as caught:
            read_frames(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"absent\.zip: not prepared frames"):
        read_frames(tmp_path / "absent.zip")


def test_pixels_that_the_record_does_not_expect_are_never_read(
    dataset: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "frames")
    record = json.loads((tmp_path / "frames" / "frames.json").read_text())
    names = ("frame_ids", "case_ids", "splits", "digests", "fans")
    fewer = {name: record[name][:2] for name in names}
    for change in ({"grid": {"image_size": 64, "resize": "stretch"}}, fewer):
        (tmp_path / "frames" / "frames.json").write_text(json.dumps(record | change))
        with pytest.raises(DatasetError, match=r"frames\.npy is uint8 \(4, 32, 32\), but frames"):
            read_frames(tmp_path / "frames")
    np.save(tmp_path / "frames" / "frames.npy", np.zeros((4, 32, 32)))
    (tmp_path / "frames" / "frames.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match=r"frames\.npy is float64"):
        read_frames(tmp_path / "frames")


@pytest.mark.parametrize(
    "change",
    [
        {"fans": [[1e308] * 11] * 4},
        {"fans": [[True]] * 10**5},
        {"splits": []},
        {"digests": ["x"]},
        {"grid": {"image_size": 10**9, "resize": "stretch"}},
        {"grid": {"image_size": True, "resize": "stretch"}},
        {"frame_ids": list(range(10**5))},
        {"format": 10**30},
    ],
)
def test_a_record_is_not_believed(dataset: Path, tmp_path: Path, change: dict[str, object]) -> None:
    cache = tmp_path / "frames"
    prepare(dataset, cache)
    record = json.loads((cache / "frames.json").read_text())
    (cache / "frames.json").write_text(json.dumps(record | change))
    pack_frames(cache, tmp_path / "frames.zip")
    for place in (cache, tmp_path / "frames.zip"):
        with pytest.raises(DatasetError, match="not prepared frames, or damaged") as caught:
            read_frames(place)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 900


def test_a_fifo_in_place_of_pixels_is_not_waited_for(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "frames"
    prepare(dataset, cache)
    for name in ("frames.npy", "frames.json"):
        (cache / name).unlink()
        os.mkfifo(cache / name)
        with pytest.raises(DatasetError, match="only regular files are read"):
            read_frames(cache)


def test_a_kill_while_preparing_leaves_nothing_that_is_trusted(
    own_dataset: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "frames"
    program = tmp_path / "prepare.py"
    program.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from echogen.datasets import open_dataset\n"
        "from echogen.training.frame_folder import prepare_frames\n"
        "from echogen.training.frames import ModelGrid\n"
        "from echogen.report import Quiet\n"
        "class Slow(Quiet):\n"
        "    def progress(self, stage, done, total, detail=''):\n"
        "        print(done, flush=True)\n"
        "        time.sleep(60 if done == 2 else 0)\n"
        "dataset = open_dataset(sys.argv[1], need_labels=False)\n"
        "grid = ModelGrid(image_size=32, resize='stretch')\n"
        "prepare_frames(dataset, dataset.keys, grid, Path(sys.argv[2]), Slow())\n"
    )
    arguments = [sys.executable, str(program), str(own_dataset), str(cache)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "2":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.suffix for path in cache.iterdir()] == [".partial"]
    assert len(prepare(own_dataset, cache).record.frame_ids) == 4
    assert sorted(path.name for path in cache.iterdir()) == ["frames.json", "frames.npy"]


def test_a_folder_that_cannot_be_written_is_one_line(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="prepared frames cannot be written") as caught:
        prepare(dataset, tmp_path / "file" / "frames")
    assert "\n" not in str(caught.value)


def test_the_same_pixels_under_two_cases_are_told(own_dataset: Path) -> None:
    shutil.copy(
        own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz",
        own_dataset / "patient0002" / "patient0002_4CH_ED.nii.gz",
    )
    (note,) = prepare(own_dataset).record.notes
    assert note.startswith(
        "1 image under more than one case, such as patient0001_4CH_ED and patient0002_4CH_ED"
    )


def test_another_process_waits_for_the_frames(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_dataset(dataset, need_labels=False)
    waited = []

    def arrive(seconds: float) -> None:
        waited.append(seconds)
        prepare(dataset, tmp_path / "frames")

    monkeypatch.setattr("echogen.training.frame_folder.time.sleep", arrive)
    found = await_frames(reader, reader.keys, GRID, tmp_path / "frames")
    assert waited == [1.0]
    assert len(found.record.frame_ids) == 4


def test_few_frames_are_spread_over_the_dataset(dataset: Path) -> None:
    few = few_frames(dataset, 2, GRID)
    assert few.record.case_ids == ("patient0001", "patient0002")
    assert len(few_frames(dataset, 9, GRID).record.frame_ids) == 4


def test_progress_counts_frames(dataset: Path) -> None:
    heard = Heard()
    prepare(dataset, reporter=heard)
    assert heard.stages == [(0, 4), (2, 4), (4, 4)]


def test_pictures_of_any_size_come_onto_one_grid(tmp_path: Path) -> None:
    for number, (below, beside) in enumerate([(0, 0), (30, 10)]):
        image, _ = fan_frame(number)
        picture = sitk.GetImageFromArray(np.pad(image, ((0, below), (beside, beside))))
        (tmp_path / "in").mkdir(exist_ok=True)
        sitk.WriteImage(picture, str(tmp_path / "in" / f"x{number}.png"))
    prepared = prepare(tmp_path / "in", tmp_path / "frames")
    assert prepared.pixels.shape == (2, 32, 32)
    record = json.loads((tmp_path / "frames" / "frames.json").read_text())
    assert (record["source"]["format"], record["source"]["root_name"]) == ("images", "in")
    assert str(tmp_path) not in (tmp_path / "frames" / "frames.json").read_text()
