"""`--frames all`: half sequences listed by their headers, moved and painted as one clip."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from typer.testing import CliRunner

from echogen.checks.table import check_table
from echogen.cli import app
from echogen.commands.expand import expand
from echogen.config import DatasetConfig
from echogen.datasets import Dataset, fingerprint_files, open_dataset, select
from echogen.datasets.camus import list_camus
from echogen.errors import DatasetError, StoreError, UsageError
from echogen.geometry.render import frame_grid
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import assess
from echogen.planning.make import build_plan, label_points
from echogen.planning.plan import Plan, sample_seed
from echogen.store import Status, open_store
from tests.support.hearts import SPACING, fan_frame, make_config, write_nifti

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data" / "camus"
CLIP, COUNT = "patient0001_4CH", 5
KEY_FRAMES = [f"patient{case:04d}_4CH_{phase}" for case in (1, 2) for phase in ("ED", "ES")]
MOVES = ("depth", "tilt_deg", "width", "shift_x", "shift_y", "tries", "seed")


def write_volume(path: Path, frames: list[np.ndarray]) -> None:
    picture = sitk.GetImageFromArray(np.stack(frames))
    picture.SetSpacing((SPACING[1], SPACING[0], 1.0))
    sitk.WriteImage(picture, str(path))


def beating() -> list[tuple[np.ndarray, np.ndarray]]:
    """A heart that moves up by four rows a frame, in speckle that does not move."""
    return [fan_frame(7, 88.0 - 4 * k) for k in range(COUNT)]


def write_clip(root: Path, frames: list[tuple[np.ndarray, np.ndarray]], cfg: str = "") -> Path:
    """Two cases with ED and ES; the first has a half sequence, too."""
    for case in (1, 2):
        folder = root / f"patient{case:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        for phase in ("ED", "ES"):
            name = f"{folder.name}_4CH_{phase}"
            for tail, plane in zip(
                ("", "_gt"), fan_frame(10 * case + (phase == "ES")), strict=True
            ):
                write_nifti(folder / f"{name}{tail}.nii.gz", plane)
    folder = root / "patient0001"
    for tail, part in (("", 0), ("_gt", 1)):
        path = folder / f"{CLIP}_half_sequence{tail}.nii.gz"
        write_volume(path, [frame[part] for frame in frames])
    if cfg:
        (folder / "Info_4CH.cfg").write_text(cfg)
    return root


@pytest.fixture
def hearts(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "hearts", beating(), f"ED: 1\nES: {COUNT}\nNbFrame: {COUNT}\n")


@pytest.fixture
def of_clip(settings: dict[str, object], hearts: Path) -> dict[str, object]:
    """A run over `hearts`: 7 frames with 2 copies."""
    return {**settings, "input": str(hearts), "copies": 2, "dataset": {"frames": "all"}}


def all_frames(root: Path) -> Dataset:
    return open_dataset(root, frames="all")


def ids(dataset: Dataset) -> list[str]:
    keys = dataset.keys
    return [key.frame_id for key in keys]


def plan_of(settings: dict[str, object], **changes: object) -> Plan:
    config = make_config(settings, **changes)
    dataset = open_dataset(config.input, frames=config.dataset.frames)
    return build_plan(dataset, select(dataset.keys, config.dataset), config, (32, "stretch"))


def half_sequence(hearts: Path, tail: str = "") -> Path:
    return hearts / "patient0001" / f"{CLIP}_half_sequence{tail}.nii.gz"


def test_all_frames_take_the_place_of_a_recordings_ed_and_es(hearts: Path) -> None:
    dataset = all_frames(hearts)
    assert ids(dataset) == [*(f"{CLIP}_f{k:03d}" for k in range(COUNT)), *KEY_FRAMES[2:]]
    keys = dataset.keys
    assert [key.phase for key in keys] == ["ED", "", "", "", "ES", "ED", "ES"]
    assert [key.index for key in keys] == [0, 1, 2, 3, 4, None, None]
    assert {key.clip_id for key in keys} == {CLIP, *KEY_FRAMES[2:]}
    assert {key.recording_id for key in keys[:COUNT]} == {"patient0001/4CH"}
    assert dataset.notes == (
        "1 recording without a usable half sequence, such as patient0002_4CH: only ED and ES are "
        "read.",
    )


def test_by_default_half_sequences_are_passed_over_in_silence(hearts: Path) -> None:
    before = open_dataset(hearts)
    half_sequence(hearts).unlink()
    half_sequence(hearts, "_gt").write_bytes(b"")
    after = open_dataset(hearts)
    assert ids(before) == KEY_FRAMES
    assert before == after
    assert not before.notes
    assert not before.problems()


def test_listing_reads_headers_alone(hearts: Path) -> None:
    path = half_sequence(hearts)
    path.write_bytes(path.read_bytes()[:400])
    assert len(ids(all_frames(hearts))) == COUNT + 2


@pytest.mark.parametrize(
    ("cfg", "phases", "note"),
    [
        ("ED: 5\nES: 1\n", {0: "ES", 4: "ED"}, ""),
        ("ED: 11\nES: 15\n", {0: "ED", 4: "ES"}, ""),
        ("ED: 2\nES: 4\n", {1: "ED", 3: "ES"}, ""),
        ("ED: 1\nES: 20\n", {}, "none of its frames is called ED or ES"),
        ("ED: 1\n", {0: "ED", 4: "ES"}, "first frame is called ED, its last one ES"),
    ],
)
def test_phases_follow_the_cfg_file(
    tmp_path: Path, cfg: str, phases: dict[int, str], note: str
) -> None:
    dataset = all_frames(write_clip(tmp_path / "hearts", beating(), cfg))
    keys = dataset.keys
    found = {key.index: key.phase for key in keys if key.sequence and key.phase}
    notes = " ".join(dataset.notes)
    assert found == phases
    assert note in notes
    assert (CLIP in notes) == bool(note)


def test_a_frame_is_a_slice_of_image_and_label(hearts: Path) -> None:
    dataset = all_frames(hearts)
    for key, (image, label) in zip(dataset.keys, beating(), strict=False):
        frame = dataset.read(key)
        np.testing.assert_array_equal(frame.image, image)
        np.testing.assert_array_equal(frame.label, label)
        assert frame.spacing_mm == pytest.approx(SPACING)
        frame.image[:] = 0
    again = dataset.read(dataset.keys[0])
    np.testing.assert_array_equal(again.image, beating()[0][0])


def test_the_frames_of_a_copy_share_seed_and_move(of_clip: dict[str, object]) -> None:
    plan = plan_of(of_clip)
    for copy in range(3):
        rows = [row for row in plan.rows if row.copy == copy and row.frame_id.startswith(CLIP)]
        assert len(rows) == COUNT
        assert len({(row.seed, row.params, row.tries, row.rejected) for row in rows}) == 1
        assert rows[0].seed == sample_seed(0, CLIP, copy)
    alone = [row for row in plan.rows if row.frame_id == "patient0002_4CH_ED"]
    assert [row.seed for row in alone] == [sample_seed(0, alone[0].frame_id, k) for k in range(3)]
    assert len({row.params for row in plan.rows}) == 1 + 2 + 4
    assert {frame.sequence for frame in plan.frames} == {CLIP, ""}
    assert Plan.from_dict(plan.to_dict()) == plan


def test_a_move_suits_every_frame_of_its_clip(settings: dict[str, object], tmp_path: Path) -> None:
    frames = [
        (image, np.roll(label, 12 * (k - 2), 1)) for k, (image, label) in enumerate(beating())
    ]
    root = write_clip(tmp_path / "hearts", frames)
    run = {**settings, "input": str(root), "copies": 12, "transforms": {"min_label_inside": 0.9}}
    ends = {"frames": "all", "cases": ["patient0001"], "phases": ["ED"]}
    plan, alone = plan_of(run, dataset={"frames": "all"}), plan_of(run, dataset=ends)
    dataset, transforms = all_frames(root), make_config(run).transforms
    read = {key.frame_id: dataset.read(key) for key in dataset.keys[:COUNT]}
    sectors = {frame.frame_id: frame.sector for frame in plan.frames}
    moved = [row for row in plan.rows if row.frame_id in read and row.to_paint]
    for row in moved:
        frame = read[row.frame_id]
        grid, points = frame_grid(frame), label_points(frame)
        found = assess(row.params, sectors[row.frame_id], grid, points, transforms)
        assert found.accepted(transforms)
    tries, fewer = ({row.copy: row.tries for row in rows} for rows in (moved, alone.rows))
    assert any(tries[copy] > fewer[copy] for copy in tries)


def test_a_clip_is_rejected_as_a_whole(settings: dict[str, object], tmp_path: Path) -> None:
    frames = beating()
    frames[3][1][:] = 0
    frames[3][1][:8, :8] = 1  # outside of the fan, wherever it moves to
    root = write_clip(tmp_path / "hearts", frames)
    plan = plan_of(settings, input=str(root), dataset={"frames": "all"})
    rejected = {row.sample_id for row in plan.rows if row.rejected}
    assert rejected == {f"{CLIP}_f{k:03d}_copy{copy}" for k in range(COUNT) for copy in (1, 2, 3)}


def test_default_plans_are_what_they_were() -> None:
    # Pinned, so that plans of default settings do not change unnoticed. The sector is set by hand
    # because a fit's last bits may differ from machine to machine.
    chosen = {"cases": ["patient0001"]}
    run = {"input": SAMPLE_DATA, "output": "x.zarr", "copies": 2, "dataset": chosen}
    config = make_config({**run, "engine": {"workers": 1}})
    dataset = open_dataset(SAMPLE_DATA)
    plan = build_plan(dataset, select(dataset.keys, config.dataset), config, (32, "stretch"))
    sector = Sector(2.0, 50.0, -0.62, 0.66, 3.0, 114.0)
    found = {"sector": sector, "confidence": 1.0, "stretch": 1.0}
    frames = tuple(replace(frame, **found) for frame in plan.frames)
    pinned = "738063f049ffb506fbbb23b59de5184daa9b59fc315dcd0b635c5014aa76d04a"
    assert replace(plan, frames=frames).digest == pinned
    assert "frames" not in plan.to_dict()["settings"]["dataset"]


def test_default_runs_record_what_they_did_before(
    settings: dict[str, object], hearts: Path
) -> None:
    expand(make_config(settings, input=str(hearts)))
    with open_store(Path(str(settings["output"]))) as store:
        recorded = store.attrs["config"]["dataset"]
        assert len(store) == 16
    before = {"views": [], "phases": [], "split": "", "cases": [], "limit": None, "labels": None}
    assert recorded == before
    with pytest.raises(StoreError, match=r"dataset\.frames = 'key', this run has 'all'"):
        expand(make_config(settings, input=str(hearts), dataset={"frames": "all"}))


def test_copies_of_a_clip_that_stands_still_are_one_picture_each(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """Equal frames under equal moves differ in nothing but noise: none is to be seen."""
    root = write_clip(tmp_path / "hearts", [beating()[0]] * COUNT)
    one = {**settings["engine"], "batch_size": 1}  # type: ignore[dict-item]
    expand(make_config(settings, input=str(root), dataset={"frames": "all"}, engine=one))
    path = Path(str(settings["output"]))
    with open_store(path) as store:
        columns = store.columns
        clip = np.array([str(name).startswith(CLIP) for name in columns["frame_id"]])
        pictures = []
        for copy in (1, 2, 3):
            rows = np.flatnonzero(clip & (columns["copy"] == copy))
            assert len(rows) == COUNT
            assert (columns["status"][rows] == Status.DONE).all()
            assert not store.keep[int(rows[0])].all()
            for row in rows[1:]:
                np.testing.assert_array_equal(store.images[int(row)], store.images[int(rows[0])])
            pictures.append(store.images[int(rows[0])])
    assert (pictures[0] != pictures[1]).any()
    result = CliRunner().invoke(app, ["validate", str(path), "--json"])
    found = {(one["severity"], one["check"]) for one in json.loads(result.stdout)["findings"]}
    assert ("note", "same-pixels") in found
    assert not {("warning", "same-pixels"), ("warning", "near-copies")} & found


def test_the_command_makes_clips_that_validate_finds_again_in_the_source(
    hearts: Path, checkpoint: Path, tmp_path: Path
) -> None:
    store = tmp_path / "clips.zarr"
    command = f"expand --in {hearts} --frames all --copies 2 --out {store} --device cpu -q --json"
    settings = ["--checkpoint", str(checkpoint), "--sampler", "repaint", "--set", "sampler.steps=4"]
    shards = ["--set", "store.shard_size=4", "--workers", "1"]
    made = CliRunner().invoke(app, [*command.split(), *settings, *shards])
    assert made.exit_code == 0, made.output
    with open_store(store) as opened:
        assert len(opened) == (COUNT + 2) * 3
        columns = {name: opened.columns[name] for name in opened.columns}
        assert opened.attrs["config"]["dataset"]["frames"] == "all"
        assert not check_table(opened)
    for copy in range(3):
        rows = [
            row
            for row, name in enumerate(columns["frame_id"])
            if str(name).startswith(CLIP) and columns["copy"][row] == copy
        ]
        assert len(rows) == COUNT
        assert len({tuple(columns[name][row] for name in MOVES) for row in rows}) == 1
        assert [columns["phase"][row] for row in rows] == ["ED", "", "", "", "ES"]
    again = CliRunner().invoke(
        app, ["validate", str(store), "--source", str(hearts), "--workers", "1", "--json", "-q"]
    )
    errors = [one for one in json.loads(again.stdout)["findings"] if one["severity"] == "error"]
    assert again.exit_code == 0
    assert not errors


def test_spoilt_seeds_and_moves_of_a_clip_are_found(of_clip: dict[str, object]) -> None:
    expand(make_config(of_clip, copies=1))
    path = Path(str(of_clip["output"]))
    samples = zarr.open_group(path / "samples", mode="r+")
    with open_store(path) as store:
        names = store.columns["sample_id"].tolist()
        assert not check_table(store)
    first, second = (names.index(f"{CLIP}_f00{k}_copy1") for k in (1, 2))
    for name, row, value in (("width", first, 0.987), ("seed", second, 5)):
        column = samples[name]
        column[row] = np.asarray(value, column.dtype)  # type: ignore[index,union-attr]
    with open_store(path) as store:
        found = [(one.check, one.where) for one in check_table(store)]
    assert ("moves", names[first]) in found
    assert ("seed", names[second]) in found
    assert ("seal", "") in found
    assert len(found) == 3


def test_a_truncated_volume_is_a_problem_of_each_frame(
    of_clip: dict[str, object], hearts: Path
) -> None:
    path = half_sequence(hearts)
    path.write_bytes(path.read_bytes()[:-100])
    plan = plan_of(of_clip)
    assert [one.frame_id for one in plan.problems] == [f"{CLIP}_f{k:03d}" for k in range(COUNT)]
    name = "patient0001/patient0001_4CH_half_sequence.nii.gz"
    assert {one.reason for one in plan.problems} == {f"{name}: truncated or damaged gzip file."}
    assert {frame.case_id for frame in plan.frames} == {"patient0002"}


def test_a_bad_frame_is_named_and_the_others_are_used(
    settings: dict[str, object], tmp_path: Path
) -> None:
    frames = beating()
    frames[2][1][:] = 0
    root = write_clip(tmp_path / "hearts", frames)
    plan = plan_of(settings, input=str(root), dataset={"frames": "all"})
    (problem,) = plan.problems
    assert problem.frame_id == f"{CLIP}_f002"
    assert problem.reason.endswith("half_sequence_gt.nii.gz, frame 2: the label is all background.")
    assert len(plan.frames) == COUNT - 1 + 2


def test_a_sequence_that_cannot_be_listed_leaves_ed_and_es(hearts: Path) -> None:
    label = half_sequence(hearts, "_gt")
    write_volume(label, [frame[1] for frame in beating()[1:]])
    shapes = all_frames(hearts)
    label.unlink()
    alone = all_frames(hearts)
    half_sequence(hearts).write_bytes(b"no volume")
    write_volume(label, [frame[1] for frame in beating()])
    broken = all_frames(hearts)
    reasons = []
    for dataset in (shapes, alone, broken):
        assert ids(dataset) == KEY_FRAMES
        (problem,) = dataset.problems(DatasetConfig(views=("4CH",)))
        assert problem.frame_id == CLIP
        reasons.append(problem.reason)
    expected = (
        "label of 110 x 120 x 4, but patient0001_4CH_half_sequence.nii.gz has 110 x 120 x 5",
        "no label, expected patient0001_4CH_half_sequence_gt.nii.gz beside it.",
        "half_sequence.nii.gz: not a NIfTI file (9 bytes).",
    )
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason


def test_half_a_pair_is_listed_as_a_sequence_too(hearts: Path) -> None:
    half_sequence(hearts, "_gt").unlink()
    ((key, _),) = list_camus(hearts, sequences=True).unusable
    assert (key.sequence, key.detail) == (CLIP, "")


def test_fingerprints_are_of_the_files_and_follow_them(hearts: Path) -> None:
    dataset = all_frames(hearts)
    keys = dataset.keys[:COUNT]
    assert {dataset.fingerprint(key) for key in keys} == {fingerprint_files(hearts, keys[0].paths)}
    pixels = dataset.read(keys[0]).image
    write_volume(half_sequence(hearts), [frame[0] for frame in beating()[::-1]])
    assert dataset.fingerprint(keys[0]) == fingerprint_files(hearts, keys[0].paths)
    assert (dataset.read(keys[0]).image != pixels).any()
    write_volume(half_sequence(hearts), [frame[0] for frame in beating()[:2]])
    with pytest.raises(DatasetError, match="holds 2 frames, and no frame 4"):
        dataset.read(keys[4])


def test_a_dataset_of_half_sequences_alone_needs_the_flag(hearts: Path) -> None:
    for name in KEY_FRAMES:
        for tail in ("", "_gt"):
            (hearts / name[:11] / f"{name}{tail}.nii.gz").unlink()
    dataset = all_frames(hearts)
    assert len(ids(dataset)) == COUNT
    assert [case.case_id for case in dataset.cases] == ["patient0001"]
    assert not dataset.notes
    with pytest.raises(DatasetError, match="half sequences alone; --frames all reads them"):
        open_dataset(hearts)


def test_layouts_without_sequences_say_so(tmp_path: Path) -> None:
    for part, plane in zip(("images", "labels"), fan_frame(0), strict=True):
        (tmp_path / part).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / part / "p_4CH_ED.png"))
    with pytest.raises(UsageError, match="folder has no sequences, only camus and card"):
        all_frames(tmp_path)
    assert len(ids(open_dataset(tmp_path))) == 1


@pytest.mark.parametrize("command", ["validate", "stats"])
def test_datasets_are_looked_at_with_all_their_frames(hearts: Path, command: str) -> None:
    words = [command, str(hearts), "--frames", "all", "--workers", "1", "--json", "-q"]
    result = CliRunner().invoke(app, words)
    found = json.loads(result.stdout)
    count = found["dataset"]["frames"] if command == "validate" else found["samples"]["originals"]
    assert count == COUNT + 2
