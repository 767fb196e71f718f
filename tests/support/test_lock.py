import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from echogen.errors import StoreError
from echogen.store import lock_path, store_lock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time; from pathlib import Path; from echogen.store import store_lock
with store_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            with pytest.raises(StoreError, match=f"in use by another process .pid {holder.pid} on"):
                store_lock(store).__enter__()
            assert lock_path(store).exists()
        finally:
            holder.kill()
    assert lock_path(store).exists()  # left behind by the dead one, and no obstacle
    with store_lock(store):
        pass
    assert not lock_path(store).exists()


def test_the_same_process_is_refused_too_and_the_lock_stays(tmp_path: Path) -> None:
    store = tmp_path / "new" / "s.zarr"
    with store_lock(store):
        for _ in range(2):
            with pytest.raises(StoreError, match=f"pid {os.getpid()}"):
                store_lock(store).__enter__()
    with store_lock(store):
        pass


def test_the_lock_goes_with_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), store_lock(tmp_path / "s.zarr"):
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []


def test_two_are_never_inside_at_once(tmp_path: Path) -> None:
    store, inside, most = tmp_path / "s.zarr", [], []

    def enter_often() -> None:
        for _ in range(150):
            try:
                with store_lock(store):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except StoreError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) > 10


def test_a_worker_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from echogen.store import store_lock\n"
        "with store_lock(Path(sys.argv[1])):\n"
        "    if not (worker := os.fork()):\n"
        "        sys.exit()\n"
        "    os.waitpid(worker, 0)\n"
        "    with store_lock(Path(sys.argv[1])):\n"
        "        pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "s.zarr")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "in use by another process (pid" in done.stderr.splitlines()[-1]


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    script = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from echogen.store import store_lock\n"
        "with store_lock(Path(sys.argv[1])):\n"
        "    if os.fork():\n"
        "        time.sleep(60)\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        try:
            with store_lock(store):
                os.kill(worker, 0)  # it lives
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_folder_that_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the lock file"):
        store_lock(tmp_path / "file" / "s.zarr").__enter__()
