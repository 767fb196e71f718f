"""A dataset's frames prepared for training: expand's pixels, in a folder whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from echogen.datasets import image_digest, open_dataset
from echogen.errors import DatasetError, StoreError
from echogen.planning.jobs import plan_dataset
from echogen.planning.plan import PlannedFrame
from echogen.report import Quiet
from echogen.support import processes
from echogen.training.data import open_frames
from echogen.training.frames import (
    PreparedFrames,
    await_frames,
    few_frames,
    prepare_frames,
    read_prepared,
)
from echogen.types import Job, to_uint8
from tests.support.hearts import fan_frame, make_config, write_nifti

GRID = (32, "stretch")


class Heard(Quiet):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[tuple[int, int]] = []

    def tell(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, stage: str, done: int, total: int) -> None:
        self.stages.append((done, total))


def prepare(root: Path, cache: Path | None = None, **options: object) -> PreparedFrames:
    dataset = open_dataset(root, need_labels=False)
    return prepare_frames(dataset, dataset.keys(), GRID, cache, **options)  # type: ignore[arg-type]


def originals(settings: dict[str, object], checkpoint: Path) -> dict[str, np.ndarray]:
    """{frame id: what expand stores as the original}."""
    from echogen.diffusion.checkpoint import read_info

    config = make_config(settings, copies=0)
    dataset = open_dataset(config.input)
    info = read_info(checkpoint)
    source = plan_dataset(dataset, list(dataset.keys()), config, info, Quiet())
    jobs = [job for job in source.jobs(source.plan.rows) if isinstance(job, Job)]
    planned: tuple[PlannedFrame, ...] = source.plan.frames
    return {p.frame_id: to_uint8(job.image) for p, job in zip(planned, jobs, strict=True)}


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_prepared_frames_are_expands_originals_bit_for_bit(
    dataset: Path, checkpoint: Path, settings: dict[str, object], tmp_path: Path
) -> None:
    expected = originals(settings, checkpoint)
    prepared = prepare(dataset, tmp_path / "frames")
    assert prepared.packed.frame_ids == tuple(expected)
    for frame_id, frame in zip(prepared.packed.frame_ids, prepared.packed.frames, strict=True):
        np.testing.assert_array_equal(frame, expected[frame_id])
    assert prepared.packed.case_ids == tuple(name.split("_")[0] for name in expected)
    assert not prepared.problems


def test_in_memory_and_in_a_folder_they_are_the_same(dataset: Path, tmp_path: Path) -> None:
    kept, held = prepare(dataset, tmp_path / "frames"), prepare(dataset)
    assert isinstance(kept.packed.frames, np.memmap)
    assert not kept.packed.frames.flags.writeable
    assert kept.packed.fingerprint == held.packed.fingerprint
    assert kept.packed.digests == held.packed.digests
    assert read_prepared(tmp_path / "frames").splits == held.splits


def test_digests_are_of_the_frames_at_native_resolution(dataset: Path) -> None:
    packed = prepare(dataset).packed
    reader = open_dataset(dataset)
    keys = reader.keys()
    expected = [image_digest(reader.read(key).image)[:12] for key in keys]
    assert list(packed.digests) == expected


def test_they_do_not_depend_on_workers(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = prepare(dataset)
    monkeypatch.setattr(processes, "START_S", 0)
    prepare(dataset, tmp_path / "frames", workers=2)
    assert open_frames(tmp_path / "frames").fingerprint == alone.packed.fingerprint


def test_letters_outside_the_fan_are_removed_and_its_edge_is_whole(own_dataset: Path) -> None:
    clean = prepare(own_dataset)
    image, _ = fan_frame(10, 108.0)
    image[2:8, 2:14:2] = 255  # six strokes in the upper left corner
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", image)
    np.testing.assert_array_equal(prepare(own_dataset).packed.frames, clean.packed.frames)


def test_a_frame_without_a_fan_is_kept_whole_and_told(own_dataset: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", noise)
    prepared = prepare(own_dataset)
    assert not prepared.problems
    assert prepared.notes == (
        "1 frame without a fan that could be found, kept whole, such as patient0001_4CH_ED.",
    )
    assert (prepared.packed.frames[0] > 0).all()


def test_bad_frames_are_skipped_with_their_file_or_end_it(
    own_dataset: Path, tmp_path: Path
) -> None:
    whole = prepare(own_dataset)
    bad = own_dataset / "patient0001" / "patient0001_4CH_ES.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    prepared = prepare(own_dataset, tmp_path / "frames")
    assert [problem.frame_id for problem in prepared.problems] == ["patient0001_4CH_ES"]
    assert bad.name in prepared.problems[0].reason
    np.testing.assert_array_equal(prepared.packed.frames, whole.packed.frames[[0, 2, 3]])
    assert read_prepared(tmp_path / "frames").problems == prepared.problems
    with pytest.raises(DatasetError, match=r"patient0001_4CH_ES.*--on-error fail"):
        prepare(own_dataset, tmp_path / "other", on_error="fail")
    assert not list(tmp_path.glob("*other*"))
    with pytest.raises(DatasetError, match=r"patient0001_4CH_ES.*--on-error fail"):
        prepare(own_dataset, tmp_path / "frames", on_error="fail")


def test_no_usable_frame_is_an_error(own_dataset: Path) -> None:
    for path in own_dataset.rglob("*.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="no frame can be used, of 4 found"):
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
    assert again.packed.fingerprint == first.packed.fingerprint
    assert heard.lines == [f"{cache}: 4 frames already prepared"]
    touch(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz")
    moved = own_dataset.rename(tmp_path / "elsewhere")
    assert prepare(moved, cache).packed.fingerprint == first.packed.fingerprint


def test_changed_files_are_prepared_again_or_refused_where_a_run_needs_the_old(
    own_dataset: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "frames"
    first = prepare(own_dataset, cache)
    image, _ = fan_frame(77)
    write_nifti(own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz", image)
    with pytest.raises(DatasetError, match="1 frame changed, such as patient0002_4CH_ES"):
        prepare(own_dataset, cache, keep_old=True)
    assert open_frames(cache).fingerprint == first.packed.fingerprint
    second = prepare(own_dataset, cache)
    assert second.packed.fingerprint != first.packed.fingerprint
    shutil.rmtree(own_dataset / "patient0001")
    with pytest.raises(DatasetError, match="2 frames missing, such as patient0001_4CH_ED"):
        prepare(own_dataset, cache, keep_old=True)


def test_another_grid_is_refused_where_a_run_needs_the_old(dataset: Path, tmp_path: Path) -> None:
    prepare(dataset, tmp_path / "frames")
    reader = open_dataset(dataset, need_labels=False)
    with pytest.raises(DatasetError, match="on a grid of"):
        prepare_frames(reader, reader.keys(), (16, "stretch"), tmp_path / "frames", keep_old=True)


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
    with pytest.raises(DatasetError, match=r"remove (it|the folder)") as caught:
        read_prepared(cache)
    assert "\n" not in str(caught.value)
    assert prepare(dataset, cache, keep_old=True).packed.fingerprint == first.packed.fingerprint


def test_a_kill_while_preparing_leaves_nothing_that_is_trusted(
    own_dataset: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "frames"
    program = tmp_path / "prepare.py"
    program.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from echogen.datasets import open_dataset\n"
        "from echogen.training.frames import prepare_frames\n"
        "from echogen.report import Quiet\n"
        "class Slow(Quiet):\n"
        "    def progress(self, stage, done, total):\n"
        "        print(done, flush=True)\n"
        "        time.sleep(60 if done == 2 else 0)\n"
        "dataset = open_dataset(sys.argv[1], need_labels=False)\n"
        "prepare_frames(dataset, dataset.keys(), (32, 'stretch'), Path(sys.argv[2]), Slow())\n"
    )
    arguments = [sys.executable, str(program), str(own_dataset), str(cache)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "2":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / ".frames.partial").exists()
    assert not cache.exists()
    assert len(prepare(own_dataset, cache).packed.frame_ids) == 4
    assert not (tmp_path / ".frames.partial").exists()


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
    (note,) = prepare(own_dataset).notes
    assert note.startswith(
        "1 image there under more than one case, such as patient0001_4CH_ED and patient0002_4CH_ED"
    )


def test_another_process_waits_for_the_frames(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_dataset(dataset, need_labels=False)
    waited = []

    def arrive(seconds: float) -> None:
        waited.append(seconds)
        prepare(dataset, tmp_path / "frames")

    monkeypatch.setattr("echogen.training.frames.time.sleep", arrive)
    found = await_frames(reader, reader.keys(), GRID, tmp_path / "frames")  # type: ignore[arg-type]
    assert waited == [1.0]
    assert len(found.packed.frame_ids) == 4


def test_few_frames_are_spread_over_the_dataset(dataset: Path) -> None:
    few = few_frames(dataset, 2, GRID)  # type: ignore[arg-type]
    assert few.case_ids == ("patient0001", "patient0002")
    assert len(few_frames(dataset, 9, GRID).frame_ids) == 4  # type: ignore[arg-type]


def test_progress_counts_frames(dataset: Path) -> None:
    heard = Heard()
    prepare(dataset, reporter=heard)
    assert heard.stages == [(0, 4), (2, 4), (4, 4)]


def test_pictures_of_any_size_come_onto_one_grid(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(40, 50), (70, 33)]):
        image, _ = fan_frame(number)
        picture = sitk.GetImageFromArray(image[:height, :width])
        (tmp_path / "in").mkdir(exist_ok=True)
        sitk.WriteImage(picture, str(tmp_path / "in" / f"x{number}.png"))
    prepared = prepare(tmp_path / "in", tmp_path / "frames")
    assert prepared.packed.frames.shape == (2, 32, 32)
    record = json.loads((tmp_path / "frames" / "frames.json").read_text())
    assert record["source"] == {"format": "images", "root_name": "in"}
    assert str(tmp_path) not in (tmp_path / "frames" / "frames.json").read_text()
