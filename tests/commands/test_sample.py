"""Whole images: the sampler, the fan that is fitted afterwards, the store, and the command."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from torch import Tensor
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands import sample as making
from echogen.commands.expand import expand
from echogen.commands.sample import SampleReport, generated_rows, sample, write_sheet
from echogen.config import DpmConfig, SampleConfig
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import karras_sigmas, read_scheduler, sampler_nfe
from echogen.errors import StoreError, UsageError
from echogen.geometry.aspect import fit_fan
from echogen.pictures.sheet import GAP, GAP_GREY
from echogen.planning.plan import sample_seed
from echogen.store import Status, damaged_rows, open_store, working_store_path
from echogen.support.settings import load_config
from tests.support.hearts import fan_frame, make_config
from tests.support.shapes import printed

SCHEDULE = read_scheduler({"num_train_timesteps": 1000}).schedule
RUNS = Path(__file__).parents[1] / "support" / "runs.py"


@pytest.fixture
def given(checkpoint: Path, tmp_path: Path) -> dict[str, object]:
    """Seven images of the tiny model in shards of two."""
    return {
        "output": str(tmp_path / "out.zarr"),
        "n": 7,
        "checkpoint": str(checkpoint),
        "sampler": {"steps": 4},
        "engine": {"device": "cpu", "precision": "fp32", "batch_size": 3},
        "store": {"shard_size": 2},
    }


def config(given: dict[str, object], **changes: object) -> SampleConfig:
    return load_config(SampleConfig, {**given, **changes})


def run(given: dict[str, object], **changes: object) -> SampleReport:
    return sample(config(given, **changes))


def images(path: str | Path) -> np.ndarray:
    with open_store(Path(path)) as store:
        return store.images[:]


def gaussian(mean: float, std: float) -> Denoiser:
    """E[x_0 | x_t] of independent pixels N(mean, std^2), in closed form."""

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        sigma = SCHEDULE.sigma_at(float(timesteps[0]))
        z = x * math.sqrt(1.0 + sigma**2)
        return (std**2 * z + sigma**2 * mean) / (std**2 + sigma**2)

    return Denoiser(network, SCHEDULE, prediction_type="sample", clip=None)


@pytest.mark.parametrize(("eta", "order", "steps"), [(1.0, 2, 40), (0.0, 2, 40), (1.0, 1, 400)])
def test_it_samples_the_distribution_that_the_denoiser_knows(
    eta: float, order: int, steps: int
) -> None:
    sampler = Sampler(DpmConfig(eta=eta, order=order, steps=steps))
    empty = torch.full((2, 1, 64, 64), -1.0)
    drawn = sampler(
        gaussian(-0.2, 0.1), empty, torch.zeros_like(empty, dtype=torch.bool), SampleNoise([1, 2])
    )
    assert float(drawn.mean()) == pytest.approx(-0.2, abs=0.005)
    assert float(drawn.std()) == pytest.approx(0.1, abs=0.004)


def test_the_noise_levels_fall_and_the_cost_is_their_number() -> None:
    sigmas = karras_sigmas(10, 0.01, 80.0, 7.0)
    assert sigmas == sorted(sigmas, reverse=True)
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(80.0), pytest.approx(0.01))
    assert sampler_nfe(DpmConfig(steps=10)) == Sampler(DpmConfig(steps=10)).nfe == len(sigmas) == 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 1}, r"sampler\.steps: .*greater than or equal to 2"),
        ({"sigma_min": 0.0}, r"sampler\.sigma_min: .*greater than 0"),
        ({"sigma_max": 0.01}, "sampler: must have sigma_min < sigma_max, got 0.01 and 0.01"),
        ({"rho": 0.0}, r"sampler\.rho: .*greater than 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_config(SampleConfig, {"output": "out.zarr", "sampler": changes})


def stretched(aspect: float) -> np.ndarray:
    """The fan of `fan_frame`, its pixels `aspect` times as wide as high: (120, ...)."""
    image, _ = fan_frame(1)
    columns = np.arange(0, 110 - 1, aspect / 0.9).round().astype(int)
    return image[:, columns]


@pytest.mark.parametrize("aspect", [0.8, 1.0, 1.3])
def test_a_fan_is_found_whatever_the_shape_of_a_pixel(aspect: float) -> None:
    image = stretched(aspect)
    fan = fit_fan(image)
    assert fan is not None
    assert fan.aspect == pytest.approx(aspect, abs=0.08)
    found, shown = fan.mask(image.shape), image > 0
    assert (found & shown).sum() / (found | shown).sum() > 0.97
    known = fit_fan(image, aspect)
    assert known is not None
    assert known.aspect == aspect


def test_a_dark_band_below_the_apex_does_not_cut_it_off() -> None:
    rows, cols = np.indices((128, 128)) + 0.5
    radius, angle = np.hypot(rows, cols - 64), np.arctan2(cols - 64, rows)
    fan = (radius < 126) & (abs(angle) < 0.5)
    image = np.where(fan, 90, 0).astype(np.uint8)
    ring = fan & (radius > 12) & (radius < 20)
    image[ring] = 0
    found = fit_fan(image, 1.0)
    assert found is not None
    assert found.sector.radius_near == 0
    image[fan & (radius < 20)] = 0
    truncated = fit_fan(image, 1.0)
    assert truncated is not None
    assert truncated.sector.radius_near == pytest.approx(20, abs=1.5)


def test_no_fan_is_found_where_there_is_none_or_much_lies_outside() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    assert fit_fan(noise) is None
    assert fit_fan(np.zeros((64, 64), np.uint8)) is None
    image = stretched(1.0)
    image[90:, :24] = np.random.default_rng(1).integers(60, 180, (30, 24))
    assert fit_fan(image) is None


def test_the_recorded_fan_is_the_one_that_was_cut_out(
    given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fans(*_: object, **__: object) -> object:
        image, _ = fan_frame(3)
        grid = np.zeros((32, 32), np.float32)
        rows = np.linspace(0, 119, 32).astype(int)
        cols = np.linspace(0, 109, 32).astype(int)
        grid[:] = image[np.ix_(rows, cols)] / 127.5 - 1.0
        glow = torch.from_numpy(np.maximum(grid, 4 / 127.5 - 1.0))  # a background that glows

        class Painted:
            nfe = 1

            def __call__(self, _d: object, of: Tensor, *_: object) -> Tensor:
                return glow.expand(len(of), 1, -1, -1)

        return Painted()

    monkeypatch.setattr("echogen.painting.local.Sampler", fans)
    run(given, n=2)
    other = str(Path(str(given["output"])).with_name("as-is.zarr"))
    run(given, n=2, output=other, background="as-is")
    with open_store(Path(str(given["output"]))) as black, open_store(Path(other)) as as_is:
        np.testing.assert_array_equal(black.columns["sector"], as_is.columns["sector"])
        assert np.isfinite(black.columns["sector"]).all()
        apex_row, apex_col, left, right, near, far = black.columns["sector"][0].astype(float)
        down = np.arange(32)[:, None] - apex_row
        across = (np.arange(32)[None, :] - apex_col) * float(black.columns["aspect"][0])
        radius, angle = np.hypot(down, across), np.arctan2(across, down)
        inside = (radius >= near) & (radius <= far) & (angle >= left) & (angle <= right)
        np.testing.assert_array_equal(black.images[0][inside], as_is.images[0][inside])
        assert (black.images[0][~inside] == 0).all()
        assert (as_is.images[0][~inside] > 0).all()
        assert not damaged_rows(black)


def test_a_run_makes_images_alone(given: dict[str, object]) -> None:
    report = run(given)
    assert (report.images, report.painted, report.exit_code) == (7, 7, 0)
    assert report.nfe == 4
    with open_store(Path(report.output)) as store:
        assert store.complete
        assert store.kind == "generated"
        assert store.attrs["format"] == 2
        assert (store.columns["status"] == Status.DONE).all()
        names = [f"generated_{number:06d}" for number in range(1, 8)]
        for column in ("sample_id", "frame_id", "case_id"):
            assert store.columns[column].tolist() == names
        assert (store.columns["copy"] == 1).all()
        assert [case["id"] for case in store.cases] == names
        assert store.columns["seed"][2] == sample_seed(0, names[2], 1)
        assert not damaged_rows(store)
        assert len({image.tobytes() for image in store.images}) == 7
        with pytest.raises(StoreError, match="have no masks"):
            _ = store.masks
        with pytest.raises(StoreError, match="have no keep"):
            _ = store.keep


def test_plain_zarr_and_plain_h5py_read_it(given: dict[str, object], tmp_path: Path) -> None:
    run(given)
    run(given, output=str(tmp_path / "out.h5"))
    group = zarr.open(str(tmp_path / "out.zarr"), mode="r")
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file) == {"images", "samples", "cases", "problems"} == set(group)
        np.testing.assert_array_equal(group["images"][:], file["images"][:])
        assert json.loads(file.attrs["echogen"])["kind"] == "generated"
        np.testing.assert_array_equal(group["samples/sector"][:], file["samples/sector"][:])
    assert not working_store_path(tmp_path / "out.h5").exists()
    assert run(given, output=str(tmp_path / "out.h5")).painted == 0


def test_the_first_images_of_more_are_those_of_fewer(
    given: dict[str, object], tmp_path: Path
) -> None:
    run(given)
    run(given, n=3, output=str(tmp_path / "few.zarr"))
    np.testing.assert_array_equal(images(tmp_path / "out.zarr")[:3], images(tmp_path / "few.zarr"))
    assert generated_rows(9, 5)[:4] == generated_rows(4, 5)


def test_batch_size_changes_images_by_rounding_only(
    given: dict[str, object], tmp_path: Path
) -> None:
    run(given)
    run(given, output=str(tmp_path / "one.zarr"), engine={"device": "cpu", "batch_size": 1,
        "precision": "fp32"})  # fmt: skip
    a, b = images(tmp_path / "out.zarr"), images(tmp_path / "one.zarr")
    assert abs(a.astype(int) - b).max() <= 1


def test_another_seed_gives_other_images(given: dict[str, object], tmp_path: Path) -> None:
    run(given)
    run(given, seed=1, output=str(tmp_path / "other.zarr"))
    assert (images(tmp_path / "out.zarr") != images(tmp_path / "other.zarr")).mean() > 0.5


def test_other_settings_are_refused_by_name(given: dict[str, object]) -> None:
    run(given)
    assert run(given).painted == 0
    for changes, what in (
        ({"n": 8}, r"config\.n = 7, this run has 8"),
        ({"seed": 3}, r"seed = 0, this run has 3"),
        ({"background": "as-is"}, r"config\.background = 'black'"),
        ({"sampler": {"steps": 5}}, r"sampler\.steps = 4, this run has 5"),
    ):
        with pytest.raises(StoreError, match=what):
            run(given, **changes)
    assert sample(config(given, n=2), overwrite=True).images == 2


def test_expand_and_sample_do_not_continue_each_others_stores(
    given: dict[str, object], settings: dict[str, object]
) -> None:
    run(given)
    with pytest.raises(StoreError, match="its images are generated, this run's are expanded"):
        expand(make_config(settings))
    expand(make_config(settings), overwrite=True)
    with pytest.raises(StoreError, match="its images are expanded, this run's are generated"):
        run(given)


@pytest.mark.parametrize(("suffix", "kills"), [("zarr", 3), ("h5", 2)])
def test_killed_again_and_again_it_ends_as_an_undisturbed_run(
    given: dict[str, object], tmp_path: Path, suffix: str, kills: int
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({**given, "output": str(tmp_path / f"killed.{suffix}")}))
    done = subprocess.run(
        [sys.executable, str(RUNS), str(file), "--kill", str(kills), "1"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    reference = next(value for word, value in lines if word == "reference")
    assert ["kills", str(kills)] in lines
    assert {value for word, value in lines if word == "resumed"} == {reference}


def test_an_image_that_is_not_finite_fails_alone(
    given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from echogen.painting import local

    real = local.Sampler

    def spoil(sampler: DpmConfig) -> object:
        paint = real(sampler)

        class Spoilt:
            nfe = paint.nfe

            def __call__(self, *arguments: object) -> Tensor:
                painted = paint(*arguments)  # type: ignore[arg-type]
                painted[1] = float("nan")
                return painted

        return Spoilt()

    monkeypatch.setattr(local, "Sampler", spoil)
    report = run(given, n=3)
    assert (report.images, len(report.failed), report.exit_code) == (2, 1, 1)
    with open_store(Path(report.output)) as store:
        assert store.columns["status"].tolist() == [Status.DONE, Status.FAILED, Status.DONE]
        assert (store.images[1] == 0).all()
        assert store.columns["sha256"][1] == ""


def test_the_sheet_shows_the_images_in_order(given: dict[str, object], tmp_path: Path) -> None:
    import SimpleITK

    sheet = tmp_path / "sheet.png"
    report = sample(config(given), sheet=sheet, columns=3)
    assert report.sheet == str(sheet)
    shown = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(sheet)))
    assert shown.shape == (3 * (32 + GAP) + GAP, 3 * (32 + GAP) + GAP, 3)
    for number, image in enumerate(images(report.output)):
        top, left = (GAP + k * (32 + GAP) for k in divmod(number, 3))
        np.testing.assert_array_equal(shown[top : top + 32, left : left + 32, 1], image)
    assert (shown[-32:, -32:] == GAP_GREY).all()
    assert (shown[:GAP] == GAP_GREY).all()
    with open_store(Path(report.output)) as store:
        write_sheet(store, tmp_path / "again.png", 3)
    assert (tmp_path / "again.png").read_bytes() == sheet.read_bytes()
    assert not list(tmp_path.glob(".*"))
    sheet.unlink()
    again = sample(config(given), sheet=sheet)
    assert again.painted == 0
    assert sheet.exists()


def test_a_long_store_shows_its_first_images(
    given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import SimpleITK

    monkeypatch.setattr(making, "MOST_ON_A_SHEET", 4)
    sample(config(given), sheet=tmp_path / "sheet.png", columns=8)
    assert SimpleITK.ReadImage(str(tmp_path / "sheet.png")).GetSize() == (4 * 36 + 4, 32 + 8)


def echogen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "echogen", "sample", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"},
        check=False,
    )


def flags(given: dict[str, object]) -> list[str]:
    return ["--out", str(given["output"]), "--checkpoint", str(given["checkpoint"]), "--steps", "4",
            "--n", "5", "--device", "cpu", "--precision", "fp32"]  # fmt: skip


def test_the_command_makes_images_and_tells_whose_terms_they_carry(
    given: dict[str, object], tmp_path: Path
) -> None:
    done = echogen(*flags(given), "--sheet", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stderr
    assert "5 done, without labels" in done.stdout
    assert "under the model's terms, CC0-1.0" in " ".join(done.stdout.split())
    assert "model tiny: CC0-1.0" in done.stderr
    assert "painting: 5 of 5" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "sheet.png").exists()
    again = CliRunner().invoke(app, ["sample", *flags(given), "--json", "--quiet"])
    assert printed("sample", again.stdout)["images"] == 5
    assert json.loads(again.stdout)["painted"] == 0
    assert again.stderr == ""


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--n", "0"], 2, "n: "),
        (["--out", "x.png"], 2, "must end in .zarr or .h5"),
        (["--sheet", "sheet.jpg"], 2, "expected a .png"),
        (["--sheet", "/nowhere/sheet.png"], 2, "the folder /nowhere does not exist"),
        (["--background", "white"], 2, "background"),
        (["--preset", "poster"], 2, "expected one of fast, balanced, high"),
        (["--steps", "1"], 2, "steps"),
        (["--checkpoint", "/nowhere"], 4, "/nowhere"),
        (["--device", "cuda:7"], 6, "cuda:7"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_its_exit_code(
    given: dict[str, object], more: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from echogen.cli import main

    monkeypatch.setattr(sys, "argv", ["echogen", "sample", *flags(given), *more])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == code
    assert message in told
    assert "Traceback" not in told
    assert not Path(str(given["output"])).exists()
    assert not Path("x.png").exists()


def test_a_folder_in_the_sheets_place_is_refused_before_any_work(
    given: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(UsageError, match=r"sheet\.png: is a folder"):
        sample(config(given), sheet=tmp_path / "sheet.png")
    assert not Path(str(given["output"])).exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # one of them is what auto means here
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_finished_store_is_finished_on_a_machine_of_another_precision_too(
    given: dict[str, object], tmp_path: Path, suffix: str, precision: str
) -> None:
    given["output"] = str(tmp_path / f"out{suffix}")
    run(given, n=1, engine={"device": "cpu", "precision": precision})
    again = run(given, n=1, engine={"device": "cpu", "precision": "auto"})
    assert (again.painted, again.images) == (0, 1)
