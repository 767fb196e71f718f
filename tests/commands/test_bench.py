import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands import bench as module
from echogen.commands.bench import bench, images_to_paint, repeated
from echogen.config import BenchConfig, TransformConfig
from echogen.diffusion.cost import evaluation_flops, matmul_ceiling
from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.noise import NoiseSource
from echogen.diffusion.schedule import make_betas, schedule_from_betas
from echogen.errors import DatasetError, UsageError
from echogen.phantom.samples import phantom_samples
from echogen.report import Quiet
from echogen.support.settings import load_config, merge
from tests.support.shapes import printed

GRID = (32, "stretch")


class Recorder(Quiet):
    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        self.stages.append((stage, done, total))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough time for one batch or so of the tiny network, on a machine of any speed."""
    monkeypatch.setattr(module, "images_to_paint", lambda at_once, *_: at_once)


def config(settings: dict[str, object], **changes: object) -> BenchConfig:
    chosen = {name: value for name, value in settings.items() if name != "input"}
    return load_config(BenchConfig, merge(chosen, changes))


@pytest.mark.parametrize(
    ("at_once", "seconds", "count"),
    [(4, 1.0, 20), (4, 0.01, 64), (4, 6.0, 3), (1, 19.0, 1), (8, 21.0, 0), (6, 1.0, 18)],
)
def test_whole_batches_are_painted_where_they_fit(at_once: int, seconds: float, count: int) -> None:
    assert images_to_paint(at_once, seconds, 20.0) == count


def test_phantom_samples_have_something_to_paint_and_canvases_seeds_of_their_own() -> None:
    samples = phantom_samples(5, GRID, TransformConfig())  # type: ignore[arg-type]
    assert all(sample.image.shape == (32, 32) and not sample.keep.all() for sample in samples)
    assert all(sample.keep.any() and sample.label.any() for sample in samples)
    assert len({sample.image.tobytes() for sample in samples}) == 5
    assert len({canvas.seed for canvas in repeated(samples, 12)}) == 12


@pytest.mark.parametrize("bounds", [{}, {"min_hole": 0.0, "border": 0.0}])
def test_transforms_that_leave_nothing_to_paint_are_refused(bounds: dict[str, float]) -> None:
    still = TransformConfig(probability=0, **bounds)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 of 200 draws gave a valid move"):
        phantom_samples(2, GRID, still)  # type: ignore[arg-type]


def test_images_go_through_the_sampler_and_the_rate_is_theirs(
    settings: dict[str, object], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []

    class Half:
        nfe = 6

        def __call__(
            self, denoiser: Denoiser, image: Tensor, keep: Tensor, noise: NoiseSource
        ) -> Tensor:
            painted.append(len(image))
            return torch.zeros_like(image)

    clock = iter([0.0, 1.0, 10.0, 11.5])  # loading, painting
    monkeypatch.setattr("echogen.painting.local.Sampler", lambda *_: Half())
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    recorder = Recorder()
    report = bench(config(settings), reporter=recorder)
    assert painted == [3]
    assert report.painted == 3
    assert report.images_per_s == pytest.approx(3 / 1.5)
    assert report.load_seconds == 1.0
    assert recorder.stages == [("painting", done, 3) for done in range(4)]


def test_the_report_is_complete_and_consistent(settings: dict[str, object], short: None) -> None:
    report = bench(config(settings))
    assert (report.checkpoint, report.licence) == ("tiny", "CC0-1.0")
    assert (report.nfe, report.batch_size, report.painted) == (6, 3, 3)
    assert (report.device, report.precision, report.compile) == ("cpu", "fp32", "off")
    assert report.gflop_per_evaluation is not None
    assert report.ceiling_gflop_per_s is not None
    assert report.share_of_ceiling == pytest.approx(
        report.gflop_per_evaluation * 6 * report.images_per_s / report.ceiling_gflop_per_s
    )
    assert 0 < report.share_of_ceiling < 1
    assert report.peak_memory_mb is not None
    assert report.peak_memory_mb > 50
    assert 0 < report.megabytes_per_sample < 3 * 32 * 32 / 1e6
    assert report.estimate is None
    assert not Path(str(settings["output"])).exists()


def test_a_datasets_copies_are_counted_and_timed(
    settings: dict[str, object], short: None, dataset: Path
) -> None:
    report = bench(config(settings, input=str(dataset), copies=7))
    assert report.estimate is not None
    assert (report.estimate.frames, report.estimate.copies) == (4, 28)
    assert report.estimate.seconds == pytest.approx(28 / report.images_per_s)
    assert report.estimate.megabytes == pytest.approx(32 * report.megabytes_per_sample)


def test_a_sampler_too_slow_to_run_is_estimated_and_said_to_be(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAINTING_S", 0.0)
    report = bench(config(settings))
    assert report.painted == 0
    assert report.images_per_s == pytest.approx(1000 / (6 * report.ms_per_evaluation))
    assert report.megabytes_per_sample > 0


def test_several_devices_are_measured_together(settings: dict[str, object], short: None) -> None:
    settings["engine"] = {**settings["engine"], "device": "cpu,cpu"}  # type: ignore[dict-item]
    report = bench(config(settings))
    assert (report.device, report.painted, report.share_of_ceiling) == ("cpu,cpu", 6, None)


def test_a_dataset_that_is_not_there_ends_before_the_model_is_loaded(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echogen.painting.devices.open_engine", pytest.fail)
    with pytest.raises(DatasetError, match="/nowhere"):
        bench(config(settings, input="/nowhere"))
    with pytest.raises(UsageError, match=r"--fans none\.csv: no such file"):
        bench(config(settings, input=settings["input"], fans="none.csv"))


def test_operations_are_counted_as_multiplications_and_additions() -> None:
    conv = torch.nn.Conv2d(1, 1, 3, padding=1)
    schedule = schedule_from_betas(make_betas("linear", 10, 1e-3, 0.1))
    denoiser = Denoiser(lambda x, t: conv(x), schedule, image_size=16)
    assert evaluation_flops(denoiser) == 2 * 9 * 16 * 16


def test_the_ceiling_is_above_what_a_slow_product_reaches() -> None:
    fast = matmul_ceiling(torch.device("cpu"), torch.float32, (256,))
    tiny = matmul_ceiling(torch.device("cpu"), torch.float32, (8,))
    assert 0 < tiny < fast < math.inf


def arguments(settings: dict[str, object], tmp_path: Path) -> list[str]:
    import tomli_w

    file = tmp_path / "run.toml"
    used = {name: value for name, value in settings.items() if name not in ("input", "output")}
    file.write_text(tomli_w.dumps(used))
    return ["bench", "--config", str(file)]


def test_the_command_shows_a_table_or_json(
    settings: dict[str, object], short: None, tmp_path: Path, dataset: Path
) -> None:
    given = [*arguments(settings, tmp_path), "--quiet"]
    shown = CliRunner().invoke(app, [*given, "--in", str(dataset), "--copies", "2"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    for part in ("tiny, CC0-1.0", "6 network evaluations", "images/s", "8 copies of 4 frames"):
        assert part in words
    report = printed("bench", CliRunner().invoke(app, [*given, "--json"]).stdout)
    assert report["estimate"] is None
    assert report["sampler"] == {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom echogen.cli import app\n"
        "try: app(['bench', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'zarr', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--batch-size" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
