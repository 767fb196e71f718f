"""The scripts in benchmarks/ that no other test runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "benchmarks" / "gpu.py")
NOT_THERE = ("typer", "SimpleITK", "zarr", "h5py", "tomli_w", "rich")


@pytest.fixture
def record_class(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from record import Record

    return Record


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def packed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packed") / "frames.npz"
    sampler = json.dumps({"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2})
    done = run(
        "--pack", str(file), "--checkpoint", str(checkpoint), "--sampler", sampler, "--smoke"
    )
    assert done.returncode == 0, done.stderr
    return file


def test_the_gpu_benchmark_runs_with_little_installed_and_on_several_devices(
    packed: Path, tmp_path: Path
) -> None:
    for name in NOT_THERE:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
    out = tmp_path / "gpu.json"
    done = run(
        "--frames", str(packed), "--out", str(out), "--device", "cpu,cpu", "--smoke",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    stages = {name: entry.get("result") for name, entry in found["stages"].items()}
    assert stages["in_one_go"]["images"] == 5
    assert stages["in_one_go"]["devices"] == "cpu,cpu"
    assert set(stages["eager_bf16"]) == {"1", "2"}
    assert stages["agreement"]["fp32"]["rms"] < 0.1
    assert stages["agreement"]["bf16"]["kept_pixels_are_exact"] is True
    assert stages["painting_2"]["images_per_s"] > 0
    failed = [name for name, entry in found["stages"].items() if "failed" in entry]
    assert set(failed) <= {"nvidia_smi"}
    assert found["summary"]["nfe"] == 6
    assert found["summary"]["share_of_matmul_ceiling"] > 0
    assert not list(tmp_path.glob("*.part.json"))


@pytest.mark.slow
def test_the_gpu_benchmark_ends_in_time(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run("--frames", str(packed), "--out", str(out), "--smoke", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    stages = json.loads(out.read_text())["stages"]
    assert len(stages) > 5
    assert all(entry["failed"].startswith("left out") for entry in stages.values())


def test_an_interrupted_record_goes_on_and_failed_stages_are_tried_again(
    record_class: type, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    first = record_class(out, "command", {"size": 1})
    assert first.stage("a", lambda: [1.5, (2,)]) == [1.5, [2]]
    assert first.stage("b", lambda: 1 / 0) is None
    assert not out.exists()
    part = json.loads((tmp_path / "r.part.json").read_text())
    assert part["stages"]["b"] == {"failed": "ZeroDivisionError: division by zero"}

    again = record_class(out, "command", {"size": 1})
    assert again.stage("a", lambda: pytest.fail("measured twice")) == [1.5, [2]]
    assert again.stage("b", lambda: 4) == 4
    again.finish({"b": 4})
    made = json.loads(out.read_text())
    assert (made["summary"], made["stages"]["b"]["result"]) == ({"b": 4}, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_a_record_of_other_settings_begins_anew(record_class: type, tmp_path: Path) -> None:
    record_class(tmp_path / "r.json", "command", {"size": 1}).stage("a", lambda: 1)
    other = record_class(tmp_path / "r.json", "command", {"size": 2})
    assert other.stage("a", lambda: 2) == 2


def test_second_hearts_are_counted_by_share_with_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from second_hearts import by_share, interval

    found = by_share([0.1, 0.2, 0.21, 0.9], [True, False, True, True], (0.2, 1.0))
    assert found == {"0.2": [2, 1], "1.0": [2, 2]}
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 973) == (0.0, 0.0039)
    assert interval(181, 1000) == (0.1584, 0.2061)
