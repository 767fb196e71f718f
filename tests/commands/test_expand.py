import hashlib
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from scipy import ndimage

from echogen.checks.finding import Severity
from echogen.cli.expand import show_run
from echogen.commands.expand import ExpandReport, dry_run, expand
from echogen.commands.export import export
from echogen.commands.preview import preview
from echogen.commands.validate import validate
from echogen.config import RepaintConfig
from echogen.datasets import open_dataset
from echogen.diffusion.samplers import Sampler
from echogen.errors import (
    CheckpointError,
    DatasetError,
    EngineError,
    PlanError,
    StoreError,
    UsageError,
)
from echogen.exports.selection import Selection
from echogen.geometry.render import warp_image, warp_label
from echogen.geometry.transforms import Grid, TransformParams, footprint, matrix
from echogen.painting import local
from echogen.planning.make import build_plan
from echogen.planning.plan import Row
from echogen.report import Problem, Quiet
from echogen.store import (
    Status,
    StoreReader,
    StoreWriter,
    mark_pending,
    open_store,
    working_store_path,
)
from echogen.types import Sample
from tests.support.hearts import make_config, write_nifti

PIXELS = ("images", "masks", "keep")


def write_table(path: Path, **fans: str) -> None:
    """A table of fans; a case's name stands for its recording."""
    columns = "recording,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far"
    names = {name: name if "_" in name else f"{name}/4CH" for name in fans}
    path.write_text("\n".join([columns, *(f"{names[name]},{fan}" for name, fan in fans.items())]))


def run(settings: dict[str, object], overwrite: bool = False, **changes: object) -> ExpandReport:
    return expand(make_config(settings, **changes), overwrite=overwrite)


def everything(path: Path) -> dict[str, np.ndarray]:
    with open_store(path) as store:
        arrays = {name: getattr(store, name)[:] for name in PIXELS}
        return {**arrays, **{name: store.columns[name] for name in store.columns}}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture
def store(settings: dict[str, object]) -> StoreReader:
    report = run(settings)
    return open_store(Path(report.output))


def test_a_run_makes_every_sample(settings: dict[str, object]) -> None:
    report = run(settings)
    assert (report.counts.originals, report.counts.copies) == (4, 12)
    assert (report.counts.rejected, report.counts.failed, report.counts.pending) == (0, 0, 0)
    assert report.exit_code == 0
    assert report.painted == 12
    with open_store(Path(report.output)) as store:
        assert store.complete
        assert (store.columns["status"] == Status.DONE).all()
        assert len(store) == 16


def test_kept_pixels_and_labels_are_the_moved_source_bit_for_bit(
    settings: dict[str, object], store: StoreReader
) -> None:
    # From the plan and the source alone: no code of the renderer but the warp itself.
    config = make_config(settings)
    dataset = open_dataset(config.input)
    plan = build_plan(dataset, dataset.keys, config, (32, "stretch"))
    planned = {frame.frame_id: frame for frame in plan.frames}
    listed = dataset.keys
    keys = {key.frame_id: key for key in listed}
    columns = store.columns
    for i in range(len(store)):
        frame = dataset.read(keys[columns["frame_id"][i]])
        where = planned[frame.key.frame_id]
        row0, col0, row1, col1 = columns["crop"][i]
        field = np.s_[row0:row1, col0:col1]
        source = Grid((row1 - row0, col1 - col0), frame.unit_spacing)
        grid = plan.grid_of(where)
        recorded = {
            name: float(columns[name][i])
            for name in ("depth", "tilt_deg", "width", "shift_x", "shift_y")
        }
        move = matrix(TransformParams(**recorded), where.sector, source.size_mm[0])
        fan = where.sector.mask(source.shape, source.spacing_mm)
        image = np.where(ndimage.binary_dilation(fan, np.ones((3, 3))), frame.image[field], 0)
        shown = footprint(where.sector, source, *grid.centres_mm())
        real = store.keep[i] & (shown | (columns["copy"][i] == 0))
        warped = warp_image(image.astype(np.uint8), source, move, grid)
        np.testing.assert_array_equal(store.images[i][real], warped[real])
        label = warp_label(frame.label[field], source, move, grid)
        np.testing.assert_array_equal(store.masks[i], label)


def test_outside_the_sector_is_black_and_inside_is_painted(
    settings: dict[str, object], store: StoreReader
) -> None:
    copies = np.flatnonzero(store.columns["copy"] > 0)
    for i in copies:
        fan = store.columns["sector"][i].astype(float)
        rows = np.arange(32)[:, None] - fan[0]
        cols = (np.arange(32)[None, :] - fan[1]) * store.columns["aspect"][i]
        angle = np.arctan2(cols, rows)
        # 0.05 rad and a pixel around the edge belong to neither side.
        outside = (angle < fan[2] - 0.05) | (angle > fan[3] + 0.05) | (rows < fan[4] - 1)
        assert (store.images[i][outside] == 0).all()
        assert not store.keep[i].all()


def test_hashes_are_of_the_bytes_in_the_store(store: StoreReader) -> None:
    for i in range(len(store)):
        content = store.images[i].tobytes() + store.masks[i].tobytes()
        assert store.columns["sha256"][i] == hashlib.sha256(content).hexdigest()


def test_originals_are_the_frames_themselves(store: StoreReader) -> None:
    originals = store.columns["copy"] == 0
    assert store.keep[:][originals].all()
    assert (store.columns["label_on_paint"][originals] == 0).all()


def test_originals_can_be_left_out(settings: dict[str, object]) -> None:
    report = run(settings, originals=False)
    assert (report.counts.originals, report.counts.copies) == (0, 12)


def test_spacing_follows_depth_and_width(store: StoreReader) -> None:
    columns = store.columns
    height, width = (columns["crop"][:, 2:] - columns["crop"][:, :2]).T
    assert (height < 120).all()  # the fan is 116 rows high
    rows, cols = (columns["seen"][:, 2:] - columns["seen"][:, :2]).T
    assert (rows <= 32).all()
    row, col = height * 1.0 / rows, width * 0.9 / cols
    np.testing.assert_allclose(columns["spacing_mm"][:, 0], row * columns["depth"], rtol=1e-5)
    np.testing.assert_allclose(
        columns["spacing_mm"][:, 1], col * columns["depth"] / columns["width"], rtol=1e-5
    )


def test_two_runs_with_one_seed_give_one_result(
    settings: dict[str, object], tmp_path: Path
) -> None:
    run(settings)
    run(settings, output=str(tmp_path / "again.zarr"))
    assert_same(everything(tmp_path / "out.zarr"), everything(tmp_path / "again.zarr"))


def test_another_seed_gives_another_result(settings: dict[str, object], tmp_path: Path) -> None:
    run(settings)
    run(settings, output=str(tmp_path / "other.zarr"), seed=1)
    a, b = everything(tmp_path / "out.zarr"), everything(tmp_path / "other.zarr")
    assert (a["depth"] != b["depth"]).any()
    assert (a["images"] != b["images"]).any()


@pytest.mark.parametrize("batch_size", [1, 16])
def test_batch_size_changes_images_by_rounding_only(
    settings: dict[str, object], tmp_path: Path, batch_size: int
) -> None:
    run(settings)
    engine = {"batch_size": batch_size}
    run(settings, output=str(tmp_path / "other.zarr"), engine=engine)
    a, b = everything(tmp_path / "out.zarr"), everything(tmp_path / "other.zarr")
    for name in a:
        if name not in ("images", "sha256"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert abs(a["images"].astype(int) - b["images"]).max() <= 1


def test_the_same_call_on_a_finished_store_does_nothing(settings: dict[str, object]) -> None:
    run(settings)
    report = run(settings)
    assert report.painted == 0
    assert report.counts.copies == 12


def test_other_settings_are_refused_by_name(settings: dict[str, object]) -> None:
    run(settings)
    with pytest.raises(StoreError, match=r"config\.copies = 3, this run has 2"):
        run(settings, copies=2)
    with pytest.raises(StoreError, match=r"config\.transforms\.depth"):
        run(settings, transforms={"depth": [1.0, 1.2]})
    both = r"config\.copies = 3, this run has 2; with config\.seed = 0, this run has 7"
    with pytest.raises(StoreError, match=both):
        run(settings, copies=2, seed=7)
    three = {"depth": [1.0, 1.2], "width": [0.9, 1.0], "max_tries": 9}
    with pytest.raises(StoreError, match=r"; and 2 more\. Use the same settings"):
        run(settings, copies=2, seed=7, originals=False, transforms=three)
    with pytest.raises(StoreError, match=r"sampler\.resamplings = 2, this run has 1"):
        run(settings, sampler={"steps": 6, "resamplings": 1})


def test_another_checkpoint_is_refused(
    settings: dict[str, object], checkpoint: Path, tmp_path: Path
) -> None:
    import json

    run(settings)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    info = json.loads((other / "echogen.json").read_text())
    info["name"] = "other"
    (other / "echogen.json").write_text(json.dumps(info))
    with pytest.raises(StoreError, match=r"checkpoint\.name = 'tiny', this run has 'other'"):
        run(settings, checkpoint=str(other))


def test_an_exported_part_of_a_store_is_not_continued(
    settings: dict[str, object], tmp_path: Path
) -> None:
    run(settings)
    part = tmp_path / "part.zarr"
    chosen = Selection(cases=("patient0002",))
    export(str(settings["output"]), to="zarr", output=part, selection=chosen)
    with pytest.raises(StoreError, match=r"holds 8 of the 16 samples of out\.zarr"):
        run(settings, output=str(part))


def test_changed_files_are_refused(settings: dict[str, object], own_dataset: Path) -> None:
    run(settings, input=str(own_dataset))
    shutil.copy(
        own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz",
        own_dataset / "patient0002" / "patient0002_4CH_ED.nii.gz",
    )
    with pytest.raises(StoreError, match="the dataset's files have changed"):
        run(settings, input=str(own_dataset))


def test_given_fans_are_used_and_other_ones_are_refused(
    settings: dict[str, object], tmp_path: Path
) -> None:
    table, moved = tmp_path / "fans.csv", tmp_path / "moved.csv"
    write_table(table, patient0001="2,52,-30,30,5,100")
    first = run(settings, fans=str(table))
    with open_store(Path(first.output)) as store:
        assert str(tmp_path) not in json.dumps(store.attrs)
        own = store.columns["case_id"] == "patient0001"
        sectors = np.rad2deg(store.columns["sector"])
        np.testing.assert_allclose(sectors[own, 2:4], [[-30, 30]] * 8, atol=1e-4)
        assert (np.abs(sectors[~own, 2:4]) > 34).all()
    table.rename(moved)
    assert run(settings, fans=str(moved)).painted == 0  # fans count, not their file
    write_table(moved, patient0001="2,53,-30,30,5,100")  # the same fan, a pixel farther right
    with pytest.raises(StoreError, match=r"out\.zarr: .* made with other fans in --fans\. Use"):
        run(settings, fans=str(moved))
    with pytest.raises(StoreError, match=r"it was made with --fans\. Use"):
        run(settings)
    run(settings, overwrite=True)
    with pytest.raises(StoreError, match=r"it was made without --fans\. Use"):
        run(settings, fans=str(moved))


def test_a_frame_without_a_fan_is_used_once_it_is_given_one(
    settings: dict[str, object], own_dataset: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    write_nifti(own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz", noise)
    settings = {**settings, "input": str(own_dataset)}
    plan, report = dry_run(make_config(settings))
    assert [problem.frame_id for problem in report.skipped] == ["patient0001_4CH_ED"]
    (advice,) = (note for note in plan.notes if "without a fan" in note)
    assert "`echogen preview DATASET --fans" in advice
    assert "`echogen validate DATASET --fans fans.csv`" in advice
    table = tmp_path / "fans.csv"
    write_table(table, patient0001_4CH_ED="2,55,-35,37,3,113")
    done = run(settings, fans=str(table))
    assert (done.skipped, done.counts.originals, done.counts.copies) == ((), 4, 12)
    checked = validate(str(settings["output"]), source=own_dataset, fans=table)
    assert checked.count(Severity.ERROR) == 0
    (other,) = (
        one.message
        for one in validate(str(settings["output"]), source=own_dataset).findings
        if one.severity is Severity.ERROR and not one.where
    )
    assert "the run was given other fans, or none; give the same table by --fans" in other


def test_no_frame_with_a_fan_says_what_to_do(
    settings: dict[str, object], own_dataset: Path
) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    for path in own_dataset.rglob("*_E?.nii.gz"):
        write_nifti(path, noise)
    with pytest.raises(PlanError, match=r"The first reason: .* 4 frames without a fan: `echogen"):
        run(settings, input=str(own_dataset))


def test_overwrite_replaces_a_store_and_nothing_else(
    settings: dict[str, object], tmp_path: Path
) -> None:
    run(settings)
    assert run(settings, overwrite=True, copies=1).counts.copies == 4
    other = tmp_path / "thesis.zarr"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis\.zarr"):
        run(settings, overwrite=True, output=str(other))
    assert (other / "chapter.txt").read_text() == "years of work"


def test_hdf5_equals_zarr_in_every_value(settings: dict[str, object], tmp_path: Path) -> None:
    run(settings)
    run(settings, output=str(tmp_path / "out.h5"))
    assert_same(everything(tmp_path / "out.zarr"), everything(tmp_path / "out.h5"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == [
        "out.h5",
        "out.zarr",
    ]
    assert run(settings, output=str(tmp_path / "out.h5")).painted == 0


def test_a_kill_while_the_working_store_is_removed_leaves_a_finished_output(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, **_: object) -> None:
        (folder / "zarr.json").unlink()
        raise KeyboardInterrupt

    output = tmp_path / "x.h5"
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings, output=str(output))
    assert output.exists()
    assert run(settings, output=str(output)).painted == 0


def test_a_working_store_left_beside_a_finished_output_is_removed(
    settings: dict[str, object], tmp_path: Path
) -> None:
    output = tmp_path / "x.h5"
    run(settings)
    run(settings, output=str(output))
    working = working_store_path(output)
    shutil.copytree(tmp_path / "out.zarr", working)  # as a kill between the two steps leaves it
    assert run(settings, output=str(output)).painted == 0
    assert not working.exists()


def test_plain_zarr_and_plain_h5py_read_it(settings: dict[str, object], tmp_path: Path) -> None:
    run(settings)
    run(settings, output=str(tmp_path / "out.h5"))
    group = zarr.open(str(tmp_path / "out.zarr"), mode="r")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(group["images"][5], file["images"][5])
        assert group.attrs["echogen"]["complete"] is True


def test_a_bad_frame_is_skipped_recorded_and_told(
    settings: dict[str, object], own_dataset: Path
) -> None:
    (own_dataset / "patient0001" / "patient0001_4CH_ED_gt.nii.gz").write_bytes(b"broken")
    report = run(settings, input=str(own_dataset))
    assert report.exit_code == 1
    assert [problem.frame_id for problem in report.skipped] == ["patient0001_4CH_ED"]
    assert report.counts.copies == 9
    with open_store(Path(report.output)) as store:
        assert store.problems[0][0] == "patient0001_4CH_ED"
        assert "patient0001_4CH_ED_gt.nii.gz" in store.problems[0][1]


def test_a_frame_that_vanishes_between_plan_and_painting_fails_alone(
    settings: dict[str, object], own_dataset: Path
) -> None:
    class Vanishing(Quiet):
        def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
            if stage == "painting" and done == 0:
                (own_dataset / "patient0002" / "patient0002_4CH_ES.nii.gz").write_bytes(b"")

    report = expand(make_config(settings, input=str(own_dataset)), reporter=Vanishing())
    assert report.counts.failed == 4
    assert report.counts.copies == 9
    assert report.exit_code == 1
    assert "patient0002_4CH_ES" in report.failed[0].frame_id
    with open_store(Path(report.output)) as store:
        failed = store.columns["status"] == Status.FAILED
        assert (store.images[:][failed] == 0).all()


def test_rejected_rows_are_recorded_and_empty(settings: dict[str, object]) -> None:
    report = run(settings, transforms={"probability": 0.0})
    assert (report.counts.rejected, report.counts.copies, report.counts.originals) == (12, 0, 4)
    assert report.exit_code == 0
    with open_store(Path(report.output)) as store:
        rejected = store.columns["status"] == Status.REJECTED
        assert (rejected == (store.columns["copy"] > 0)).all()
        assert (store.images[:][rejected] == 0).all()


def test_on_error_fail_paints_nothing(settings: dict[str, object], own_dataset: Path) -> None:
    (own_dataset / "patient0001" / "patient0001_4CH_ED_gt.nii.gz").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="--on-error fail"):
        run(settings, input=str(own_dataset), on_error="fail")
    assert not Path(str(settings["output"])).exists()


def test_dry_run_counts_what_a_run_makes_and_paints_nothing(settings: dict[str, object]) -> None:
    plan, estimate = dry_run(make_config(settings))
    assert not Path(str(settings["output"])).exists()
    assert estimate.seconds > 0
    assert estimate.megabytes > 0
    report = run(settings)
    assert estimate.copies == report.counts.copies
    assert estimate.originals == report.counts.originals
    assert estimate.nfe == report.nfe
    with open_store(Path(report.output)) as store:
        assert store.attrs["plan_digest"] == plan.digest == estimate.plan_digest
        assert store.attrs["grid"] == {"image_size": 32, "resize": "stretch"}


def test_dry_run_of_a_plan_without_a_sample_to_paint(settings: dict[str, object]) -> None:
    _, estimate = dry_run(
        make_config(settings, originals=False, transforms={"min_hole": 0.98, "max_hole": 0.99})
    )
    assert (estimate.copies, estimate.seconds, estimate.megabytes) == (0, 0, 0)
    assert estimate.rejected == 12
    (note,) = (note for note in estimate.notes if "rejected" in note)
    assert note.startswith("12 of 12 copies were rejected: none of 30 drawn moves kept 50%")


def test_a_store_of_rejected_copies_alone_is_called_that(
    settings: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(settings, originals=False, transforms={"min_hole": 0.98, "max_hole": 0.99})
    show_run(report)
    assert "next: nothing was made, as said above" in capsys.readouterr().out
    checked = validate(report.output, workers=1)
    (found,) = (one for one in checked.findings if one.check == "complete")
    assert found.message.startswith("no sample was made: all 12 were rejected or failed")
    assert checked.exit_code == StoreError.exit_code
    with pytest.raises(UsageError, match="no sample was made: all were rejected or failed"):
        preview(report.output, out=Path(report.output).with_suffix(".png"))


def test_dry_run_refuses_what_a_run_refuses_and_says_what_is_there(
    settings: dict[str, object], tmp_path: Path
) -> None:
    path = Path(str(settings["output"]))
    path.mkdir()
    (path / "photo.jpg").touch()
    with pytest.raises(StoreError, match="not an echogen store"):
        dry_run(make_config(settings))
    (path / "photo.jpg").unlink()
    path.rmdir()
    with pytest.raises(CheckpointError, match="no such judge"):
        dry_run(make_config(settings, judge=str(tmp_path / "nobody")))
    run(settings)
    with pytest.raises(StoreError, match=r"made with config\.seed = 0, this run has 6"):
        dry_run(make_config(settings, seed=6))
    assert dry_run(make_config(settings, seed=6), overwrite=True)[1].copies > 0
    done = dry_run(make_config(settings))[1]
    assert done.notes[-1].endswith("out.zarr: is complete already; nothing is left to do.")
    assert (done.seconds, done.left) == (0, 0)
    mark_pending(path, [1, 2])
    again = dry_run(make_config(settings))[1]
    assert again.notes[-1].endswith("was begun already; 2 of 16 samples left to do.")
    assert again.left == 2


def test_the_store_says_where_it_comes_from(
    settings: dict[str, object], store: StoreReader
) -> None:
    attrs = store.attrs
    assert attrs["checkpoint"]["name"] == "tiny"
    assert len(attrs["checkpoint"]["sha256"]) == 64
    assert attrs["dataset"]["format"] == "camus"
    assert attrs["dataset"]["root_name"] == "hearts"
    assert attrs["sampler"]["nfe"] == 6
    assert attrs["labels"]["1"] == "LV cavity"
    assert str(Path(str(settings["input"]))) not in str(attrs)


def test_the_paper_preset_paints_the_background(
    settings: dict[str, object], tmp_path: Path
) -> None:
    run(settings, transforms={"outside": "inpaint"})
    with open_store(tmp_path / "out.zarr") as store:
        copies = store.columns["copy"] > 0
        keep = store.keep[:][copies]
        assert (store.images[:][copies][~keep] > 0).any()
        # Unlike by default, most of the corners outside the fan are painted too.
        assert (~keep[:, :2, :2]).mean() > 0.5


def test_a_wrong_input_makes_no_folder(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        run(settings, input=str(tmp_path / "nowhere"), output=str(tmp_path / "new" / "out.zarr"))
    assert not (tmp_path / "new").exists()


def test_the_precision_is_recorded_compared_and_continued(settings: dict[str, object]) -> None:
    run(settings, engine={"precision": "bf16"})
    with open_store(Path(str(settings["output"]))) as store:
        assert store.attrs["sampler"]["precision"] == "bf16"
    with pytest.raises(StoreError, match=r"sampler\.precision = 'bf16', this run has 'fp32'"):
        run(settings, engine={"precision": "fp32"})
    assert run(settings, engine={"precision": "auto"}).painted == 0


def test_an_interrupted_overwrite_is_continued_by_the_same_call(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, copies=1)
    real = StoreWriter.write_shard
    written: list[int] = []

    def killed(writer: StoreWriter, shard: int, *rest: object) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        written.append(shard)
        real(writer, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreWriter, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        run(settings, overwrite=True)
    assert written == [0, 1]
    monkeypatch.setattr(StoreWriter, "write_shard", real)
    report = run(settings, overwrite=True)
    assert report.counts.copies == 12
    assert 0 < report.painted < 12


@pytest.mark.parametrize("shard_size", [1, 2, 16])
def test_shards_change_no_sample_and_a_larger_batch_takes_several(
    settings: dict[str, object], tmp_path: Path, shard_size: int
) -> None:
    run(settings)
    other = run(
        settings,
        output=str(tmp_path / "other.zarr"),
        store={"shard_size": shard_size},
        engine={"batch_size": 7},
    )
    assert other.painted == 12
    a, b = everything(tmp_path / "out.zarr"), everything(tmp_path / "other.zarr")
    for name in ("sample_id", "masks", "keep", "status"):
        np.testing.assert_array_equal(a[name], b[name])
    assert abs(a["images"].astype(int) - b["images"]).max() <= 1


class Spy:
    """The sampler, telling each batch's size to a list or a function before it paints."""

    nfe = 6

    def __init__(self, hear: Callable[[int], object]) -> None:
        self.hear = hear
        self.sampler = Sampler(RepaintConfig(steps=4, jump_length=2, resamplings=2))

    def __call__(self, *arguments: Any) -> Any:
        spoilt = self.hear(len(arguments[1]))
        painted = self.sampler(*arguments)
        if isinstance(spoilt, int):
            painted[spoilt] = math.nan
        return painted


def spy(monkeypatch: pytest.MonkeyPatch, hear: Callable[[int], object]) -> None:
    monkeypatch.setattr(local, "Sampler", lambda *_: Spy(hear))


@pytest.mark.parametrize("shard_size", [1, 5, 16])
def test_batches_cross_the_borders_of_shards_and_all_have_one_size(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, shard_size: int
) -> None:
    sizes: list[int] = []
    spy(monkeypatch, sizes.append)
    run(settings, store={"shard_size": shard_size}, engine={"batch_size": 5})
    assert sizes == [5, 5, 5]  # 12 copies, the last batch filled up


def test_a_sample_that_is_not_finite_fails_alone(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(settings)
    batches: list[int] = []

    def spoil_the_second_of_the_third(size: int) -> int | None:
        batches.append(size)
        return 1 if len(batches) == 3 else None

    spy(monkeypatch, spoil_the_second_of_the_third)
    report = run(settings, output=str(tmp_path / "spoilt.zarr"))
    assert (report.counts.copies, report.counts.failed, report.exit_code) == (11, 1, 1)
    assert "not finite" in report.failed[0].reason
    good, spoilt = everything(tmp_path / "out.zarr"), everything(tmp_path / "spoilt.zarr")
    failed = spoilt["status"] == Status.FAILED
    assert np.flatnonzero(failed) == [np.flatnonzero(good["copy"] > 0)[7]]
    assert (spoilt["images"][failed] == 0).all()
    np.testing.assert_array_equal(spoilt["images"][~failed], good["images"][~failed])


def test_no_finite_image_in_the_first_batch_ends_the_run(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy(monkeypatch, lambda _: 0)
    with pytest.raises(EngineError, match="tiny ran in fp32"):
        run(settings, engine={"batch_size": 1})


@pytest.mark.parametrize(("at", "shards"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2])])
def test_a_signal_begins_no_batch_that_no_begun_shard_needs(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, at: int, shards: list[int]
) -> None:
    # Rows 0, 4, 8, 12 are originals: the batches of 3 are rows 1-3, 5-7, 9-11, 13-15. In shards of
    # 5 shard 0 needs the first batch alone, shard 1 the second and one image of the third.
    sizes: list[int] = []

    def interrupt(size: int) -> None:
        sizes.append(size)
        if len(sizes) == at:
            os.kill(os.getpid(), signal.SIGINT)

    spy(monkeypatch, interrupt)
    report = run(settings)
    assert report.exit_code == 130
    assert len(sizes) == {1: 1, 2: 3, 3: 4}[at]
    done = everything(Path(report.output))["status"] == Status.DONE
    assert np.flatnonzero(done).tolist() == [i for s in shards for i in range(5 * s, 5 * s + 5)]


def test_a_signal_stops_a_run_that_has_nothing_to_paint(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from echogen.planning.dataset import PlannedDataset

    real = PlannedDataset.render

    def interrupt(self: PlannedDataset, rows: Sequence[Row]) -> Iterator[Sample | Problem | None]:
        if not rendered:
            os.kill(os.getpid(), signal.SIGINT)
        rendered.append(len(rows))
        return real(self, rows)

    rendered: list[int] = []
    monkeypatch.setattr(PlannedDataset, "render", interrupt)
    report = run(settings, copies=0, store={"shard_size": 1})
    assert (report.exit_code, report.counts.pending) == (130, 4)
    assert run(settings, copies=0, store={"shard_size": 1}).counts.originals == 4


def test_an_interrupted_run_goes_on_with_batches_of_the_size_it_had_found(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def interrupt_the_first(size: int) -> None:
        sizes.append(size)
        if len(sizes) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    spy(monkeypatch, interrupt_the_first)
    automatic = {"batch_size": 0}
    monkeypatch.setattr(local, "UNTRIED", 4)
    assert run(settings, engine=automatic).exit_code == 143
    monkeypatch.setattr(local, "UNTRIED", 7)
    assert run(settings, engine=automatic).exit_code == 0
    assert set(sizes) == {4}
    with open_store(Path(str(settings["output"]))) as store:
        assert store.attrs["painting"] == {"device": "cpu", "batch_size": 4}
    run(settings, engine=automatic, overwrite=True)
    assert sizes[-1] == 7


def test_no_more_is_rendered_than_the_next_rounds_need(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from echogen.planning.dataset import PlannedDataset

    rendered: list[int] = []
    ahead: list[int] = []
    real = PlannedDataset.render

    def counted(self: PlannedDataset, rows: Sequence[Row]) -> Iterator[Sample | Problem | None]:
        rendered.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(PlannedDataset, "render", counted)
    painted: list[int] = []

    def look(size: int) -> None:
        painted.append(size)
        ahead.append(sum(rendered) - sum(painted))

    spy(monkeypatch, look)
    run(settings, copies=40, engine={"batch_size": 2})
    assert sum(rendered) == 4 * 41
    assert max(ahead) < 40


def test_a_failure_of_the_writer_ends_the_run_before_the_next_batch(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, sizes = threading.Event(), []

    def fail(*_: object) -> None:
        failed.set()
        raise StoreError("the disk is full")

    def wait_for_it(size: int) -> None:
        sizes.append(size)
        if len(sizes) == 4:
            assert failed.wait(10)

    monkeypatch.setattr(StoreWriter, "write_shard", fail)
    spy(monkeypatch, wait_for_it)
    with pytest.raises(StoreError, match="the disk is full"):
        run(settings, engine={"batch_size": 1})
    assert len(sizes) <= 5  # the fourth begins the second shard, which takes four batches


def test_a_failure_of_the_renderer_ends_the_run_and_keeps_finished_shards(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from echogen.planning.dataset import PlannedDataset

    real = PlannedDataset.render

    def fail(self: PlannedDataset, rows: Sequence[Row]) -> Iterator[Sample | Problem | None]:
        if rows[0].frame_id == "patient0002_4CH_ES":
            raise MemoryError("no room for a frame")
        return real(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(PlannedDataset, "render", fail)
        with pytest.raises(MemoryError, match="no room"):
            run(settings, copies=20)
    with open_store(Path(str(settings["output"]))) as store:
        assert 0 < (store.columns["status"] == Status.DONE).sum() < 84
    report = run(settings, copies=20)
    assert (report.counts.copies, report.exit_code) == (80, 0)
    assert report.painted < 80


def test_ignoring_near_cuts_needs_millimetres(settings: dict[str, object], tmp_path: Path) -> None:
    import SimpleITK

    from echogen.errors import PlanError
    from tests.support.hearts import fan_frame

    for folder, array in zip(("images", "labels"), fan_frame(3), strict=True):
        (tmp_path / "png" / folder).mkdir(parents=True)
        path = str(tmp_path / "png" / folder / "a.png")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), path)
    png = str(tmp_path / "png")
    with pytest.raises(PlanError, match="ignore: needs millimetres"):
        run(settings, input=png, transforms={"labels_on_paint": "ignore"})
    report = run(settings, input=png)
    assert report.counts.copies == 3
    with open_store(Path(report.output)) as store:
        assert np.isnan(store.columns["spacing_mm"]).all()


def test_the_builtin_models_terms_are_told() -> None:
    from echogen.diffusion.checkpoint import read_info
    from echogen.painting.fill import terms

    line = terms(read_info("builtin"))
    assert "CC BY-NC-SA 4.0 (non-commercial research only)" in line
    assert "Leclerc" in line
    assert "\n" not in line


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_damaged_rows_alone_are_painted_again(
    settings: dict[str, object], tmp_path: Path, suffix: str
) -> None:
    from echogen.store import damaged_rows, mark_pending

    output = tmp_path / f"out{suffix}"
    run(settings, output=str(output))
    before = everything(output)
    if suffix == ".zarr":
        shard = output / "images/c/1/0/0"
        bad = bytearray(shard.read_bytes())
        bad[3] ^= 1
        shard.write_bytes(bad)
    else:
        with h5py.File(output, "r+") as file:
            file["images"][5] = 0
    with open_store(output) as store:
        rows = damaged_rows(store)
    assert list(rows) == [5]
    mark_pending(output, rows)
    report = run(settings, output=str(output))
    assert (report.painted, report.counts.copies, report.counts.pending) == (1, 12, 0)
    after = everything(output)
    assert_same(before, after)
