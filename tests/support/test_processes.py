"""Worker processes: order, errors, and work that is not begun long before it is wanted."""

import os
import time
from pathlib import Path

import pytest

from echogen.support import processes
from echogen.support.processes import CHUNK, CHUNKS_AHEAD, in_workers


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
