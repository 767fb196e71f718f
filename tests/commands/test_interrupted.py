import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from echogen.commands.expand import expand
from echogen.errors import StoreError
from echogen.store import lock_path, open_store
from tests.support.faults import on_rename
from tests.support.hearts import make_config

RUNS = Path(__file__).parents[1] / "support" / "runs.py"


def start(
    settings: dict[str, object],
    tmp_path: Path,
    *arguments: str,
    pause: float = 0.0,
    new_session: bool = False,
) -> subprocess.Popen[str]:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, str(RUNS), str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
        env={**os.environ, "PAUSE": str(pause), "OMP_NUM_THREADS": "1"},
    )


def wait_for_painting(process: subprocess.Popen[str], images: int = 1) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        word, _, count = line.partition(" ")
        if word == "painting" and int(count) >= images:
            return
    raise AssertionError(f"it never painted: {process.stderr and process.stderr.read()}")


@pytest.mark.parametrize(
    ("suffix", "kills"),
    [
        ("zarr", 5), ("h5", 4),
        pytest.param("zarr", 20, marks=pytest.mark.slow),
        pytest.param("h5", 20, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_killed_again_and_again_it_ends_as_an_undisturbed_run(
    settings: dict[str, object], tmp_path: Path, suffix: str, kills: int
) -> None:
    small = {
        **settings,
        "output": str(tmp_path / f"out.{suffix}"),
        "copies": 2,
        "store": {"shard_size": 2},
    }
    process = start(small, tmp_path, "--kill", str(kills), "1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = [line.split() for line in out.splitlines()]
    reference = next(value for word, value in lines if word == "reference")
    resumed = [value for word, value in lines if word == "resumed"]
    assert ["kills", str(kills)] in lines
    assert resumed
    assert set(resumed) == {reference}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_shard_and_the_same_call_continues(
    settings: dict[str, object], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(settings, tmp_path, pause=0.3)
    wait_for_painting(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopping after the current shard" in err
    output = Path(str(settings["output"]))
    with open_store(output) as store:
        made = int((store.columns["status"] == 1).sum())
        assert 0 < made < 16
        assert not store.complete
    report = expand(make_config(settings))
    assert report.exit_code == 0
    assert report.counts.originals + report.counts.copies == 16
    assert report.painted < 12


def test_a_second_run_into_the_same_store_is_refused_while_the_first_lives(
    settings: dict[str, object], tmp_path: Path
) -> None:
    first = start(settings, tmp_path, pause=60)
    wait_for_painting(first, images=0)
    second = start(settings, tmp_path)
    _, err = second.communicate(timeout=60)
    first.kill()
    first.communicate(timeout=60)
    assert second.returncode == 5
    assert str(first.pid) in err
    assert lock_path(Path(str(settings["output"]))).exists()
    assert expand(make_config(settings)).exit_code == 0


def test_a_full_disk_ends_in_one_line_and_a_store_that_resumes(
    settings: dict[str, object],
) -> None:
    def full(place: str) -> None:
        if "/masks/c/1/" in place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

    with on_rename(full), pytest.raises(StoreError, match="full") as caught:
        expand(make_config(settings))
    assert "\n" not in str(caught.value)
    report = expand(make_config(settings))
    assert report.exit_code == 0
    assert 0 < report.painted < 12


def test_planning_workers_end_with_a_killed_parent(
    settings: dict[str, object], tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from echogen.support.processes import die_with_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(2, get_context('spawn'), initializer=die_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600)\n"
        "    time.sleep(600)\n"
    )
    program = tmp_path / "plan.py"
    program.write_text(code)
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    # The pipe closes when its last holder, a worker, has ended.
    parent.communicate(timeout=60)
    assert (
        not Path(f"/proc/{worker}/stat").exists()
        or " Z " in Path(f"/proc/{worker}/stat").read_text()
    )
