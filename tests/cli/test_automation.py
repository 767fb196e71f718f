"""The documented pipeline, cron job, CI steps and SLURM job, each run as it is written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from echogen.store import Status, open_store
from tests.support.shapes import printed

PAGE = Path(__file__).parents[2] / "docs" / "automation.md"
BIN = Path(sys.executable).parent
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def block(section: str, language: str) -> str:
    """The first code block of a language below a heading."""
    below = PAGE.read_text().split(f"## {section}\n")[1]
    found = re.search(rf"```{language}\n(.*?)```", below, re.S)
    assert found
    return found[1]


@pytest.fixture
def place(dataset: Path, checkpoint: Path, tmp_path: Path) -> Path:
    """A folder with `camus/` in it, and an `echogen` that paints with the tiny model."""
    shutil.copytree(dataset, tmp_path / "camus")
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    settings = tmp_path / "tiny.toml"
    settings.write_text(
        f'checkpoint = "{checkpoint}"\n[engine]\ndevice = "cpu"\nprecision = "fp32"\nworkers = 1\n'
    )
    echogen = tools / "echogen"
    echogen.write_text(
        "#!/bin/bash\n"
        f'if [ "$1" = expand ]; then shift; set -- expand --config {settings} "$@"; fi\n'
        f'exec {sys.executable} -m echogen "$@"\n'
    )
    echogen.chmod(0o755)
    return tmp_path


def run(script: str, place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A script by bash in a bare environment, as cron gives."""
    path = f"{place / 'venv' / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": str(place), "OMP_NUM_THREADS": "1", **more},
        check=False,
    )


@needs_jq
def test_the_pipeline_counts_and_checks(place: Path) -> None:
    done = run(block("JSON", "bash"), place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16 copies, 0 failed, 0 frames skipped\n"
    shutil.rmtree(place / "camus")
    failed = run(block("JSON", "bash"), place)
    assert (failed.returncode, failed.stdout) == (3, "")


def test_the_nightly_job_is_silent_unless_something_is_wrong(place: Path) -> None:
    script = block("cron", "bash").replace("/srv/echo", str(place))
    first = run(script, place)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert printed("expand", (place / "expand.json").read_text())["painted"] == 16
    assert printed("validate", (place / "validate.json").read_text())["usable"]
    again = run(script, place)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert printed("expand", (place / "expand.json").read_text())["painted"] == 0
    shutil.rmtree(place / "camus" / "patient0002")
    changed = run(script, place)
    assert changed.returncode == 5
    assert re.fullmatch(r"echogen ended with 5; see \S+/echogen.log\n", changed.stderr)
    assert "the dataset's files have changed" in (place / "echogen.log").read_text()


def test_the_crontab_line_starts_one_job_at_a_time(place: Path) -> None:
    line = block("cron", "crontab").strip().replace("/srv/echo", str(place))
    found = re.fullmatch(r"15 3 \* \* \*  (.*)", line)
    assert found
    job = place / "nightly.sh"
    job.write_text("#!/bin/bash\necho ran >>ran.log\nsleep 5\n")
    job.chmod(0o755)
    with subprocess.Popen(
        ["bash", "-c", found[1]], cwd=place, env={"PATH": "/usr/bin:/bin"}
    ) as one:
        while not (place / "ran.log").exists():
            time.sleep(0.05)
        second = run(found[1], place)
        assert second.returncode != 0
        one.terminate()
    assert (place / "ran.log").read_text() == "ran\n"


@needs_jq
def test_the_steps_of_the_ci_job_pass(place: Path) -> None:
    workflow = yaml.safe_load(block("CI", "yaml"))
    steps = workflow["jobs"]["check"]["steps"]
    own = [step["run"] for step in steps if "run" in step and step["name"] != "install"]
    assert len(own) == 3
    for step in own:
        done = run(f"set -eo pipefail\n{step}", place)
        assert done.returncode == 0, (step, done.stdout, done.stderr)
    assert json.loads((place / "expand.json").read_text())["counts"]["copies"] == 2
    assert printed("validate", (place / "store.json").read_text())["usable"]


def write_slurm(place: Path) -> None:
    """`srun` and `scontrol` as far as one job on one node needs them."""
    tools = place / "venv" / "bin"
    for name, text in (
        ("srun", 'exec "$@"\n'),
        ("scontrol", 'echo "$@" >>requeued.log\n'),
    ):
        (tools / name).write_text(f"#!/bin/bash\n{text}")
        (tools / name).chmod(0o755)


def test_the_slurm_job_goes_back_into_the_queue_and_continues(place: Path) -> None:
    many = "--copies 25 --batch-size 4 --set store.shard_size=4"  # so that much is left to do
    script = block("SLURM", "bash").replace("--copies 4", many)
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script, re.M))
    assert (asked["signal"], asked["open-mode"], "requeue" in asked) == ("TERM@120", "append", True)
    write_slurm(place)
    job = place / "expand.sbatch"
    job.write_text(script)
    environment = {
        "PATH": f"{place / 'venv' / 'bin'}:/usr/bin:/bin",
        "HOME": str(place),
        "SLURM_JOB_ID": "7",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(["bash", str(job)], cwd=place, env=environment) as first:
        os.kill(painting_step(first, place / "camus_aug.zarr"), signal.SIGTERM)
        first.wait(60)
    assert first.returncode == 143
    assert (place / "requeued.log").read_text() == "requeue 7\n"
    assert printed("expand", (place / "expand-7.json").read_text())["interrupted"] == signal.SIGTERM
    second = subprocess.run(
        ["bash", str(job)], cwd=place, env=environment, capture_output=True, check=False
    )
    assert second.returncode == 0
    report = printed("expand", (place / "expand-7.json").read_text())
    assert report["counts"]["copies"] == 100
    assert report["painted"] < 100


def painting_step(job: subprocess.Popen[bytes], store: Path) -> int:
    """The process id of the job's step, once a sample is done."""
    while job.poll() is None:
        if store.exists():
            with open_store(store) as opened:
                if (opened.columns["status"] == Status.DONE).any():
                    break
        time.sleep(0.05)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    return int(children[0])


def test_every_exit_code_of_the_help_is_in_the_table() -> None:
    table = re.findall(r"^\| ([\d, ]+) \|", PAGE.read_text(), re.M)
    codes = {int(code) for row in table for code in row.split(",")}
    assert codes == {0, 1, 2, 3, 4, 5, 6, 130, 143}


def test_the_page_names_every_schema() -> None:
    named = set(re.findall(r"\]\(schemas/([a-z-]+)\.json\)", PAGE.read_text()))
    assert named == {path.stem for path in (PAGE.parent / "schemas").iterdir()}
