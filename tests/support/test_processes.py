"""Worker processes: order, errors, and work that is not begun long before it is wanted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from echogen.errors import EngineError
from echogen.support import processes
from echogen.support.processes import CHUNK, CHUNKS_AHEAD, ProcessDied, apart, in_workers


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_S", 0)


def square(item: int, offset: int) -> int:
    if item < 0:
        raise ValueError(f"negative: {item}")
    return item * item + offset


def whose(item: int) -> int:
    return os.getpid()


def whose_slowly(item: int) -> int:
    time.sleep(0.06)
    return os.getpid()


def die_of_three(item: int) -> int:
    if item % 10 == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return item


def die_once(item: int, folder: Path) -> int:
    """As a worker does that is killed for the memory that all of them take."""
    mark = folder / "died"
    if item == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def leave_a_trace(item: int, folder: Path) -> int:
    (folder / str(item)).touch()
    return item


@pytest.mark.parametrize("start_s", [0, 1e-6, 3600])
def test_results_come_in_the_order_of_the_items(
    start_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "START_S", start_s)
    items = list(range(40))
    assert list(in_workers(square, items, (7,), 2)) == [i * i + 7 for i in items]


def test_one_worker_is_this_process(at_once: None) -> None:
    assert set(in_workers(whose, [1, 2], (), 1)) == {os.getpid()}
    assert os.getpid() not in set(in_workers(whose, list(range(8)), (), 2))


def test_processes_begin_once_their_start_has_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_S", 0.1)
    assert set(in_workers(whose, list(range(8)), (), 2)) == {os.getpid()}
    callers = list(in_workers(whose_slowly, list(range(8)), (), 2))
    assert callers[:2] == [os.getpid()] * 2
    assert os.getpid() not in callers[2:]
    few = range(2 + CHUNK)  # what is left goes to one process, which would save nothing
    assert set(in_workers(whose_slowly, list(few), (), 2)) == {os.getpid()}


def test_what_a_call_raises_comes_out(at_once: None) -> None:
    results = in_workers(square, [1, -2, 3], (0,), 2)
    with pytest.raises(ValueError, match="negative: -2"):
        list(results)


def test_an_item_that_ends_its_process_is_told_and_the_others_go_on(at_once: None) -> None:
    told = []

    def died(item: int, how: ProcessDied) -> int:
        told.append((item, str(how)))
        return -item

    items = list(range(30))
    found = list(in_workers(die_of_three, items, (), 2, died))
    assert found == [-item if item % 10 == 3 else item for item in items]
    assert told == [(item, "signal 11") for item in (3, 13, 23)]
    with pytest.raises(EngineError, match=r"ended twice at the same piece of work \(signal 11\)"):
        list(in_workers(die_of_three, items, (), 2))


def test_what_ended_a_process_once_is_tried_again_alone(tmp_path: Path, at_once: None) -> None:
    assert list(in_workers(die_once, range(20), (tmp_path,), 2)) == list(range(20))
    assert os.getpid() not in {apart(whose, 1), *in_workers(whose, range(8), (), 2)}
    with pytest.raises(ValueError, match="negative: -2"):
        apart(square, -2, 0)


def square_beside(item: int, offset: int, rest: bytes) -> int:
    return square(item, offset)


SCRIPT = """
from echogen.support import processes
from tests.support.test_processes import square_beside

processes.START_S = 0
shared = (7, bytes({size}))
print(list(processes.in_workers(square_beside, [1, 2, 3, 4, 5, 6, 7, 8], shared, 2)))
"""


@pytest.mark.parametrize("size", [1, 1_000_000])  # a pipe holds 65,536 bytes
def test_in_a_script_without_a_main_guard_the_calls_are_made_there(
    size: int, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(size=size))
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == str([i * i + 7 for i in range(1, 9)])


def test_only_so_much_is_done_ahead(tmp_path: Path, at_once: None) -> None:
    """So that results that nobody has taken yet do not fill the memory."""
    items = list(range(400))
    results = in_workers(leave_a_trace, items, (tmp_path,), 2)
    assert next(results) == 0
    bound = 2 * CHUNKS_AHEAD * CHUNK
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < bound and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    made = len(list(tmp_path.iterdir()))
    results.close()
    assert made == bound


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly() -> None:
    raise Odd(1, 2)


def give_a_function() -> object:
    return lambda: None


@pytest.mark.parametrize("call", [fail_oddly, give_a_function])
def test_what_cannot_be_sent_is_told(call: Callable[[], object]) -> None:
    with pytest.raises(EngineError, match=r"1 and 2|function"):
        apart(call)
