"""`echogen stats`: sets side by side, reports of datasets and stores, tables, exit codes."""

import csv
import dataclasses
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from echogen.cli import app, main
from echogen.commands import stats as stats_module
from echogen.commands.expand import expand
from echogen.commands.stats import StatsConfig, measure, write_csv
from echogen.config import DatasetConfig
from echogen.datasets import open_dataset
from echogen.errors import UsageError
from echogen.measures.cases import agreement, volumes
from echogen.measures.collect import FeatureTable, SampleNames
from echogen.measures.compare import coverage, distribution, diversity, unwrap_axes
from echogen.measures.features import BY_NAME, DIVERSITY, IN_MM
from echogen.measures.report import Measurements, StatsReport, Volume
from echogen.measures.volume import Discs
from echogen.support import processes
from tests.support.hearts import fan_frame, make_config

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data" / "camus"
CAMUS_MHD = Path(
    os.environ.get("ECHOGEN_CAMUS_MHD", Path(__file__).parents[3] / "shared" / "data" / "camus_mhd")
)
NAMES = ["sample_id", "frame_id", "case_id", "view", "phase", "split", "copy"]


def table(rng: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Normal features of standard deviation 3, `shift` of these away."""
    return {name: 3 * rng.normal(shift, 1, n) for name in DIVERSITY}


def test_a_distribution_leaves_out_what_is_not_there() -> None:
    found = distribution(np.array([np.nan, *range(101), np.nan]))
    assert found is not None
    assert (found.n, found.mean, found.low, found.median, found.high) == (101, 50, 5, 50, 95)
    assert distribution(np.full(3, np.nan)) is None


def test_a_set_beside_itself_adds_nothing() -> None:
    one = table(np.random.default_rng(0), 400)
    for found in diversity(one, one):
        assert (found.span, found.distance) == (1, 0)
        assert found.outside == pytest.approx(0.1, abs=0.01)


def test_a_wider_set_has_a_wider_span_and_lies_outside() -> None:
    one = table(np.random.default_rng(0), 4000)
    wide = {name: 3 * values for name, values in one.items()}
    for found in diversity(one, wide):
        # 95 % of both lie below where 90 % of the wide ones do: 3 * 1.282 over 1.645
        assert found.span == pytest.approx(2.34, abs=0.1)
        assert found.outside == pytest.approx(0.58, abs=0.03)  # beyond 0.55 sd
        assert found.distance == pytest.approx(2 * np.sqrt(2 / np.pi), abs=0.1)
    moved = {name: 15 + values for name, values in one.items()}
    assert all(found.distance == pytest.approx(5, abs=0.15) for found in diversity(one, moved))


def test_features_with_too_few_values_are_left_out() -> None:
    one = table(np.random.default_rng(0), 30)
    few = {**one, DIVERSITY[0]: np.r_[np.zeros(4), np.full(26, np.nan)]}
    assert [found.feature for found in diversity(one, few)] == list(DIVERSITY[1:])
    assert DIVERSITY[0] not in [found.feature for found in coverage(one, one, few)]
    assert next(f for f in coverage(few, one, one) if f.feature == DIVERSITY[0]).originals is None


def test_a_set_covers_itself_and_nothing_that_lies_far_away() -> None:
    rng = np.random.default_rng(0)
    target, alike, far = table(rng, 500), table(rng, 500), table(rng, 500, shift=40.0)
    for found in coverage(far, alike, target):
        assert found.originals == 0
        assert found.everything is not None
        assert found.everything > 0.9
        if found.feature != "all":
            assert found.distance_originals == pytest.approx(40, rel=0.1)
            assert found.distance_everything == pytest.approx(0, abs=0.2)
    assert [found.feature for found in coverage(far, alike, target)] == ["all", *DIVERSITY]
    assert all(found.originals is not None and found.originals >= 0.97
               for found in coverage(target, target, target))  # fmt: skip


def test_covered_together_is_more_than_covered_in_each_feature_alone() -> None:
    rng = np.random.default_rng(0)
    line = rng.normal(0, 1, 400)
    target = {name: line + rng.normal(0, 0.05, 400) for name in DIVERSITY}
    turned = {
        name: (line if i % 2 else -line) + rng.normal(0, 0.05, 400)
        for i, name in enumerate(DIVERSITY)
    }
    together, *alone = coverage(turned, turned, target)
    assert all(found.originals is not None and found.originals > 0.95 for found in alone)
    assert together.originals is not None
    assert together.originals < 0.2


def volume(edv: float, recorded: float | None) -> Volume:
    return Volume("c", "biplane", ("4CH", "2CH"), edv, edv / 2, 50, recorded, None, None)


def test_agreement_is_bias_and_limits_over_the_cases_that_record_something() -> None:
    found = agreement([volume(12, 10), volume(23, 20), volume(34, 30), volume(99, None)])
    assert [(one.quantity, one.cases) for one in found] == [("edv_ml", 3)]
    assert (found[0].bias, found[0].limits) == (3, 1.96)
    assert found[0].correlation == 1
    assert agreement([volume(12, 10)])[0].correlation is None
    assert agreement([volume(12, None)]) == ()


@pytest.fixture(scope="module")
def sample_data() -> tuple[StatsReport, Measurements]:
    return measure(SAMPLE_DATA, options=StatsConfig(workers=1))


def test_the_sample_data_is_measured_as_it_was_made(
    sample_data: tuple[StatsReport, Measurements],
) -> None:
    report, measured = sample_data
    assert (report.samples, report.problems, report.exit_code) == ({"originals": 28}, (), 0)
    assert report.counts["view"] == {"2CH": 14, "4CH": 14}
    assert report.counts["split"] == {"testing": 4, "training": 16, "validation": 8}
    assert sum(report.counts["quality"].values()) == 28
    assert [one.feature for one in report.features] == list(BY_NAME)
    assert (report.diversity, report.coverage, report.realism) == ((), (), ())
    assert report.provenance.kind == "dataset"
    assert len(report.volumes) == 7
    assert {(one.method, one.views) for one in report.volumes} == {("biplane", ("4CH", "2CH"))}
    ef = next(one for one in report.agreement if one.quantity == "ef")
    assert (ef.cases, ef.bias) == (7, pytest.approx(0, abs=0.5))
    assert ef.limits < 1
    assert len(measured.samples.names) == 28
    assert not measured.group("copies").names


def test_the_older_layout_records_volumes_and_they_agree(
    sample_data: tuple[StatsReport, Measurements],
) -> None:
    recorded = [one for one in sample_data[0].volumes if one.recorded_edv_ml is not None]
    assert [one.case_id for one in recorded] == ["patient0007"]
    assert recorded[0].edv_ml == pytest.approx(recorded[0].recorded_edv_ml, rel=0.02)
    assert recorded[0].esv_ml == pytest.approx(recorded[0].recorded_esv_ml, rel=0.02)


def same(a: StatsReport, b: StatsReport) -> bool:
    return dataclasses.replace(a, seconds=0) == dataclasses.replace(b, seconds=0)


def test_workers_measure_what_one_process_measures(
    sample_data: tuple[StatsReport, Measurements], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "START_S", 0)
    report, measured = measure(SAMPLE_DATA, options=StatsConfig(workers=2))
    assert same(report, sample_data[0])
    assert measured.samples.names == sample_data[1].samples.names


def test_a_part_of_the_recordings_is_always_the_same_part() -> None:
    some, _ = measure(SAMPLE_DATA, options=StatsConfig(workers=1, most=2))
    again, _ = measure(SAMPLE_DATA, options=StatsConfig(workers=1, most=2))
    assert some.samples["originals"] < 28
    assert same(some, again)


def test_only_one_view_gives_single_plane_volumes() -> None:
    chosen = DatasetConfig(views=("2CH",), cases=("patient0003",))
    report, measured = measure(SAMPLE_DATA, options=StatsConfig(dataset=chosen, workers=1))
    (one,) = report.volumes
    assert (one.method, one.views) == ("single-plane", ("2CH",))
    row = [who.phase for who in measured.samples.names].index("ED")
    assert one.edv_ml == pytest.approx(measured.samples.values["lv_volume"][row], abs=0.01)


def test_one_phase_gives_no_volumes_of_cases() -> None:
    report, _ = measure(
        SAMPLE_DATA, options=StatsConfig(dataset=DatasetConfig(phases=("ED",)), workers=1)
    )
    assert (report.volumes, report.agreement) == ((), ())
    assert any(one.feature == "lv_volume" for one in report.features)


@pytest.fixture(scope="module")
def made(dataset: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 frames with 3 copies each in shards of 5. Do not change."""
    path = tmp_path_factory.mktemp("made") / "x.zarr"
    settings = {
        "input": str(dataset),
        "output": str(path),
        "copies": 3,
        "checkpoint": str(checkpoint),
        "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1},
        "store": {"shard_size": 5},
    }
    expand(make_config(settings))
    return path


@pytest.fixture(scope="module")
def of_store(made: Path, dataset: Path) -> tuple[StatsReport, Measurements]:
    return measure(made, dataset, StatsConfig(workers=1))


def test_a_store_is_measured_in_two_groups(of_store: tuple[StatsReport, Measurements]) -> None:
    report, measured = of_store
    assert report.samples == {"originals": 4, "copies": 12}
    assert len(measured.group("originals").names) == 4
    assert {who.copy for who in measured.group("copies").names} == {1, 2, 3}
    depth = next(one for one in report.features if one.feature == "depth")
    assert (depth.groups["originals"].n, depth.groups["copies"].n) == (4, 12)
    # a copy shows as much or more: the default move only zooms out
    assert depth.groups["originals"].median == pytest.approx(111, abs=3)
    assert depth.groups["copies"].high > 1.05 * depth.groups["originals"].high
    assert depth.groups["copies"].low > 0.97 * depth.groups["originals"].low
    area = next(one for one in report.features if one.feature == "cavity_area")
    assert area.groups["copies"].median == pytest.approx(area.groups["originals"].median, rel=0.1)
    assert report.realism[0].samples > 0
    assert {one.measure for one in report.realism} == {"seam", "grain", "brightness"}
    assert report.provenance.kind == "expanded"
    assert report.provenance.facts["copies"] == "3"
    assert str(report.provenance.facts["made by"]).startswith("echogen ")


def test_volumes_of_a_store_are_those_of_its_originals(
    of_store: tuple[StatsReport, Measurements],
) -> None:
    report, measured = of_store
    for one in report.volumes:
        assert one.method == "single-plane"
        discs = measured.samples.discs[f"{one.case_id}_4CH_ED_copy0"]
        expected = np.pi / 4 * np.square(discs.diameters).sum() * discs.length / 20 / 1000
        assert one.edv_ml == pytest.approx(expected, abs=0.01)
    assert len(report.volumes) == 2


def test_a_dataset_is_covered_by_the_store_that_was_made_of_it(
    made: Path, of_store: tuple[StatsReport, Measurements], dataset: Path
) -> None:
    report, _ = of_store
    assert report.against == str(dataset)
    # four frames are too few for percentiles, and for five neighbours
    assert report.coverage[0].originals is None
    other, _ = measure(SAMPLE_DATA, made, StatsConfig(workers=1))
    assert other.against == str(made)
    assert {one.feature for one in other.coverage} == {"all", *DIVERSITY}
    assert all(0 <= one.originals <= 1 for one in other.coverage if one.originals is not None)
    itself, _ = measure(SAMPLE_DATA, SAMPLE_DATA, StatsConfig(workers=1))
    assert itself.coverage[0].originals == 1
    assert all(one.distance_originals == 0 for one in itself.coverage[1:])


def test_workers_measure_a_store_alike(
    made: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch,
    of_store: tuple[StatsReport, Measurements],
) -> None:  # fmt: skip
    monkeypatch.setattr(processes, "START_S", 0)
    assert same(measure(made, dataset, StatsConfig(workers=2))[0], of_store[0])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two PNG pairs, which carry no millimetres."""
    root = tmp_path / "pictures"
    for name, seed in (("patient0001_4CH_ED", 1), ("patient0001_4CH_ES", 2)):
        for folder, array in zip(("images", "labels"), fan_frame(seed), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(root / folder / f"{name}.png"))
    return root


def test_without_a_spacing_there_are_ratios_and_no_millimetres(pictures: Path) -> None:
    report, measured = measure(pictures, options=StatsConfig(workers=1))
    there = {one.feature for one in report.features}
    assert not there & IN_MM
    assert {"cavity_share", "cavity_radius", "cavity_angle", "fan_angle", "gcnr"} <= there
    (volume,) = report.volumes
    assert (volume.edv_ml, volume.esv_ml, volume.method) == (None, None, "single-plane")
    file = pictures / "x.csv"
    write_csv(measured, file)
    (first, *_) = csv.DictReader(file.read_text().splitlines())
    assert (first["lv_volume_ml"], first["depth_mm"]) == ("", "")
    assert float(first["cavity_share"]) > 0


def test_frames_without_a_fan_are_left_out_with_a_reason(pictures: Path) -> None:
    black = sitk.GetImageFromArray(np.zeros((120, 110), np.uint8))
    sitk.WriteImage(black, str(pictures / "images" / "patient0001_4CH_ES.png"))
    report, _ = measure(pictures, options=StatsConfig(workers=1))
    assert report.samples == {"originals": 1}
    assert [name for name, _ in report.problems] == ["patient0001_4CH_ES"]
    sitk.WriteImage(black, str(pictures / "images" / "patient0001_4CH_ED.png"))
    with pytest.raises(UsageError, match="can be measured: patient0001_4CH_ED: images"):
        measure(pictures, options=StatsConfig(workers=1))


def test_given_fans_are_measured(pictures: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (120, 110)).astype(np.uint8)
    sitk.WriteImage(
        sitk.GetImageFromArray(noise), str(pictures / "images" / "patient0001_4CH_ES.png")
    )
    table = tmp_path / "fans.csv"
    table.write_text(
        "recording,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,radius_far\n"
        "*,2,55,-35,37,3,113\n"
    )
    chosen = StatsConfig(workers=1, dataset=DatasetConfig(fans=table))
    report, measured = measure(pictures, options=chosen)
    assert (report.samples, report.problems) == ({"originals": 2}, ())
    np.testing.assert_allclose(measured.samples.values["fan_angle"], 72, rtol=1e-6)
    first = open_dataset(SAMPLE_DATA).keys[0].recording_id
    table.write_text(table.read_text().replace("*", first))
    measure(SAMPLE_DATA, against=pictures, options=chosen.model_copy(update={"most": 1}))
    with pytest.raises(UsageError, match=f"has no recording '{first}'"):
        measure(pictures, options=chosen)


def test_csv_has_one_row_a_sample_and_a_column_a_feature(
    sample_data: tuple[StatsReport, Measurements], tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    write_csv(sample_data[1], file)
    with file.open(newline="") as opened:
        header, *rows = csv.reader(opened)
    units = [f"{f.name}_{f.unit}" if f.unit else f.name for f in BY_NAME.values()]
    assert header == NAMES + units
    assert [row[0] for row in rows] == [who.sample_id for who in sample_data[1].samples.names]
    column = header.index("lv_volume_ml")
    np.testing.assert_allclose(
        [float(row[column]) for row in rows], sample_data[1].samples.values["lv_volume"], rtol=1e-5
    )
    assert [file.name for file in tmp_path.iterdir()] == ["x.csv"]


def test_csv_that_cannot_be_finished_leaves_the_old_one(
    sample_data: tuple[StatsReport, Measurements], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("old")

    def rows(_: object) -> object:
        yield ["sample_id"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stats_module, "csv_rows", rows)
    with pytest.raises(UsageError, match=r"x\.csv: cannot be written \(No space left on device\)"):
        write_csv(sample_data[1], file)
    assert file.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.csv"]


def invoke(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["stats", *(str(one) for one in arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_json_is_the_report(made: Path, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    code, out, err = invoke(made, "--against", dataset, "--csv", file, "--json", "--quiet")
    report = json.loads(out)
    assert (code, err) == (0, "")
    fields = {field.name for field in dataclasses.fields(StatsReport)}
    assert set(report) == fields | {"format", "exit_code"}
    assert report["samples"] == {"originals": 4, "copies": 12}
    assert len(file.read_text().splitlines()) == 17
    assert {one["feature"] for one in report["diversity"]} <= set(DIVERSITY)


def test_the_console_shows_every_question(
    made: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    code, out, _ = invoke(SAMPLE_DATA, "--against", made)
    assert code == 0
    assert "LV volumes of 7 cases, method of discs (7 biplane)" in out
    assert f"Coverage of {made}" in out
    code, out, _ = invoke(made)
    assert code == 0
    assert "samples   4 originals, 12 copies" in out
    assert "Realism: the painted part over the kept part beside it" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "nowhere: no such folder"),
        (["nowhere.zarr"], 5, "nowhere.zarr"),
        ([SAMPLE_DATA, "--views", "3CH"], 2, "3CH"),
        ([SAMPLE_DATA, "--against", "nowhere"], 3, "nowhere"),
        (
            [SAMPLE_DATA, "--csv", "nowhere/x.csv"],
            2,
            "--csv nowhere/x.csv: the folder nowhere does not exist",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(
    arguments: list[object],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["echogen", "stats", *map(str, arguments), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == code
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_table_that_has_no_folder_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stats_module, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(UsageError, match="create it first"):
        CliRunner().invoke(
            app, ["stats", str(SAMPLE_DATA), "--csv", "nowhere/x.csv"], catch_exceptions=False
        )


def test_damaged_samples_are_left_out_and_told(made: Path, tmp_path: Path) -> None:
    import shutil

    store = Path(shutil.copytree(made, tmp_path / "x.zarr"))
    shard = store / "images/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 255
    shard.write_bytes(bytes(content))
    before, _ = measure(made, options=StatsConfig(workers=1))
    report, measured = measure(store, options=StatsConfig(workers=1))
    assert 0 < len(report.problems) < len(measured.samples.names) + len(report.problems)
    assert "cannot be read" in report.problems[0][1]
    assert sum(before.samples.values()) == len(measured.samples.names) + len(report.problems)


def test_one_process_sees_that_a_store_was_replaced(
    made: Path, tmp_path: Path, dataset: Path, checkpoint: Path
) -> None:
    import shutil

    store = Path(shutil.copytree(made, tmp_path / "x.zarr"))
    first, _ = measure(store, options=StatsConfig(workers=1))
    shutil.rmtree(store)
    settings = {
        "input": str(dataset), "output": str(store), "copies": 1, "seed": 9,
        "checkpoint": str(checkpoint), "engine": {"device": "cpu", "precision": "fp32"},
        "sampler": {"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
    }  # fmt: skip
    expand(make_config(settings))
    second, _ = measure(store, options=StatsConfig(workers=1))
    assert second.samples["copies"] == 4 != first.samples["copies"]


def test_a_reference_that_does_not_vary_has_no_span_and_no_distance() -> None:
    rng = np.random.default_rng(0)
    one, other = table(rng, 50), table(rng, 50)
    one[DIVERSITY[0]] = np.full(50, 111.33)
    found = next(f for f in diversity(one, other) if f.feature == DIVERSITY[0])
    assert (found.span, found.distance) == (None, None)
    against = next(f for f in coverage(other, other, one) if f.feature == DIVERSITY[0])
    assert against.distance_originals is None


def test_the_joint_coverage_leaves_out_what_is_constant_or_rarely_known() -> None:
    rng = np.random.default_rng(0)
    target, ours = table(rng, 400), table(rng, 400)
    target[DIVERSITY[4]] = np.full(400, 120.0)
    ours[DIVERSITY[4]] = np.full(400, 120.001)
    assert (coverage(ours, ours, target)[0].originals or 0) > 0.9
    target, ours = table(rng, 400), table(rng, 400)
    target[DIVERSITY[4]][5:] = np.nan
    assert (coverage(ours, ours, target)[0].originals or 0) > 0.9


def test_axes_that_are_nearly_one_lie_beside_each_other() -> None:
    ours = {"cavity_axis": np.array([88.0, -88.0, 90.0, -90.0, np.nan]), "depth": np.ones(5)}
    other = {"cavity_axis": np.array([-85.0, 0.0]), "depth": np.ones(2)}
    unwrap_axes([ours, other])
    assert np.ptp(ours["cavity_axis"][:4]) == pytest.approx(4)
    assert np.isnan(ours["cavity_axis"][4])
    apart = np.abs(other["cavity_axis"] - ours["cavity_axis"][:4].mean())
    np.testing.assert_allclose(apart, [5, 90])


def test_a_selection_needs_a_dataset(made: Path, tmp_path: Path) -> None:
    chosen = StatsConfig(dataset=DatasetConfig(views=("4CH",)))
    with pytest.raises(UsageError, match="a store is measured as a whole"):
        measure(made, options=chosen)
    report, _ = measure(made, against=SAMPLE_DATA, options=chosen)
    assert report.coverage


def test_a_device_is_not_replaced_by_a_table(made: Path) -> None:
    done = CliRunner().invoke(app, ["stats", str(made), "--csv", os.devnull])
    assert "is not a regular file" in str(done.exception)
    assert not Path(os.devnull).is_file()


def test_views_have_other_names_too() -> None:
    for four, two in (("4ch", "2ch"), ("A4C", "A2C"), ("AP4CH", "ap2ch")):
        axes = {(view, phase): Discs(50.0, np.full(20, 20.0 if phase == "ED" else 15.0))
                for view in (four, two) for phase in ("ED", "ES")}  # fmt: skip
        names = tuple(SampleNames(f"{v}{p}", f"{v}{p}", "a", v, p, "", 0) for v, p in axes)
        discs = {f"{v}{p}": value for (v, p), value in axes.items()}
        (volume,) = volumes(FeatureTable(names, {}, discs, (), ()))
        assert volume.method == "biplane"
        assert volume.ef == pytest.approx(100 * (1 - 15**2 / 20**2), abs=0.01)


def cylinder(diameter: float, **more: bool) -> Discs:
    return Discs(50.0, np.full(20, diameter), **more)


def volume_of(*frames: tuple[str, str, str, Discs]) -> tuple[Volume, ...]:
    """Of one case's frames: id, view, phase, discs."""
    names = tuple(SampleNames(i, i, "a", view, phase, "", 0) for i, view, phase, _ in frames)
    discs = {i: found for i, _, _, found in frames}
    return volumes(FeatureTable(names, {}, discs, (), ()))


def test_both_phases_are_of_one_recording() -> None:
    first = ("v1_4CH_ED", "4CH", "ED", cylinder(40))
    second = [("v2_4CH_ED", "4CH", "ED", cylinder(20)), ("v2_4CH_ES", "4CH", "ES", cylinder(15))]
    third = ("v3_4CH_ES", "4CH", "ES", cylinder(10))
    (volume,) = volume_of(first, *second, third)
    assert volume.ef == pytest.approx(100 * (1 - 15**2 / 20**2), abs=0.01)
    assert volume_of(first, third) == ()
    clip = [("a_4CH_f000", "4CH", "ED", cylinder(20)), ("a_4CH_f017", "4CH", "ES", cylinder(15))]
    assert len(volume_of(*clip)) == 1


def test_parasternal_views_have_no_volume() -> None:
    for view in ("PSAX", "PLAX", "psax-pm"):
        both = [(f"a_{p}", view, p, cylinder(20)) for p in ("ED", "ES")]
        assert volume_of(*both) == ()


def test_without_a_spacing_there_is_the_ef_of_one_plane() -> None:
    frames = [
        (f"a_{view}_{p}", view, p, cylinder(d, in_mm=False))
        for view in ("2CH", "4CH") for p, d in (("ED", 20), ("ES", 15))
    ]  # fmt: skip
    (volume,) = volume_of(*frames)
    assert (volume.views, volume.edv_ml, volume.esv_ml) == (("4CH",), None, None)
    assert volume.ef == pytest.approx(100 * (1 - 15**2 / 20**2), abs=0.01)
    assert agreement([replace(volume, recorded_edv_ml=90.0)]) == ()


@pytest.mark.parametrize(
    ("case", "edv", "esv", "ef"),
    [
        ("patient0001", 94.0, 34.6, 63.2),
        ("patient0002", 119.1, 60.3, 49.4),
        ("patient0003", 105.7, 47.1, 55.4),
    ],
)
def test_camus_first_release_agrees_with_what_its_files_say(
    camus_mhd: StatsReport, case: str, edv: float, esv: float, ef: float
) -> None:
    found = next(one for one in camus_mhd.volumes if one.case_id == case)
    assert (found.recorded_edv_ml, found.recorded_esv_ml, found.recorded_ef) == (edv, esv, ef)
    assert found.edv_ml == pytest.approx(edv, rel=0.03)
    assert found.esv_ml == pytest.approx(esv, rel=0.03)
    assert found.ef == pytest.approx(ef, rel=0.03)


@pytest.fixture(scope="module")
def camus_mhd() -> StatsReport:
    if not CAMUS_MHD.is_dir():
        pytest.skip(
            "no CAMUS of the first release: shared/data/camus_mhd is absent, and "
            "ECHOGEN_CAMUS_MHD names no folder"
        )
    return measure(CAMUS_MHD, options=StatsConfig(workers=1))[0]
