import threading
from collections.abc import Iterator

import pytest

from echogen.support.threads import Behind, ahead


def counted(taken: list[int], n: int = 100) -> Iterator[int]:
    for i in range(n):
        taken.append(i)
        yield i


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    first_goes_last = threading.Event()

    def slow_start(i: int) -> int:
        if threads > 1 and i == 0:
            assert first_goes_last.wait(10)
        if i == 2:
            first_goes_last.set()
        return 10 * i

    assert list(ahead(slow_start, range(9), threads=threads, depth=4)) == [10 * i for i in range(9)]


@pytest.mark.parametrize("depth", [1, 5])
def test_no_more_is_taken_than_the_depth_allows(depth: int) -> None:
    taken: list[int] = []
    results = ahead(lambda i: i, counted(taken), depth=depth)
    for expected in range(3):
        assert next(results) == expected
        assert len(taken) == expected + 1 + depth
    results.close()


def test_the_next_result_is_made_while_the_caller_works() -> None:
    made = threading.Event()
    results = ahead(lambda i: made.set() if i == 1 else None, range(2))
    next(results)
    assert made.wait(10)
    results.close()


def test_an_error_is_raised_before_the_results_in_front_of_it() -> None:
    failed = threading.Event()

    def fail_at_2(i: int) -> int:
        if i == 2:
            failed.set()
            raise ValueError("third")
        return i

    results = ahead(fail_at_2, range(9), depth=3)
    next(results)
    assert failed.wait(10)
    threading.Event().wait(0.01)  # from the event to the end of the call
    with pytest.raises(ValueError, match="third"):
        next(results)  # the second is ready, but of no use any more


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    results = ahead(lambda i: i, range(100), threads=4, depth=8)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_what_is_left_behind_is_done_in_order_before_the_block_ends() -> None:
    done: list[int] = []
    with Behind(done.append) as behind:
        for i in range(9):
            behind.put(i)
    assert done == list(range(9))


def test_the_caller_goes_on_while_a_call_runs_but_not_far() -> None:
    go, done = threading.Event(), []

    def wait(i: int) -> None:
        assert go.wait(10)
        done.append(i)

    with Behind(wait, depth=1) as behind:
        behind.put(0)
        behind.put(1)
        assert done == []
        releaser = threading.Timer(0.05, go.set)
        releaser.start()
        behind.put(2)  # must wait for the first
        assert 0 in done
    assert done == [0, 1, 2]


def test_an_error_behind_is_raised_by_a_later_use_and_no_further_call_is_made() -> None:
    all_put, done, put = threading.Event(), [], []

    def fail_at_0(i: int) -> None:
        assert all_put.wait(10)
        if i == 0:
            raise OSError("disk full")
        done.append(i)

    def put_many() -> None:
        with Behind(fail_at_0, depth=2) as behind:
            for i in range(9):
                if i == 3:
                    all_put.set()
                behind.put(i)
                put.append(i)

    with pytest.raises(OSError, match="disk full"):
        put_many()
    assert done == []
    assert put == [0, 1, 2]


def test_an_error_behind_is_raised_at_the_end_of_the_block() -> None:
    def fail(_: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind(fail) as behind:
        behind.put(0)


@pytest.mark.parametrize(("error", "finished"), [(ValueError, [0, 1]), (KeyboardInterrupt, [0])])
def test_an_error_of_the_caller_lets_what_waits_finish_and_an_interrupt_does_not(
    error: type[BaseException], finished: list[int]
) -> None:
    begun, done = threading.Event(), []

    def slow(i: int) -> None:
        begun.set()
        threading.Event().wait(0.05)
        done.append(i)

    def fail() -> None:
        with Behind(slow) as behind:
            behind.put(0)
            behind.put(1)
            assert begun.wait(10)
            raise error

    with pytest.raises(error):
        fail()
    assert done == finished
