"""Several devices: two processes on the CPU, with the small model."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from echogen.commands.expand import expand
from echogen.config import EngineConfig, RepaintConfig
from echogen.errors import CheckpointError, EngineError
from echogen.painting import devices, worker
from echogen.painting.devices import DevicesEngine, open_engine, resolve_devices
from echogen.painting.engine import Canvas, Levels
from echogen.painting.local import LocalEngine
from echogen.report import Quiet
from echogen.store import open_store
from echogen.types import UInt8HW
from tests.commands.test_interrupted import start, wait_for_painting
from tests.painting.test_local import NoiseSampler, denoiser
from tests.support.hearts import make_canvas, make_config

SIDE = 32
SAMPLER = RepaintConfig(steps=4, jump_length=2, resamplings=2)
SLOW_SAMPLER = {"name": "repaint", "steps": 20, "jump_length": 1, "resamplings": 6}


def canvas(index: int) -> Canvas:
    return make_canvas(index, SIDE)


def settings_of(device: str, batch_size: int = 3) -> EngineConfig:
    return EngineConfig(device=device, precision="fp32", batch_size=batch_size)


@pytest.fixture(scope="module")
def two(checkpoint: Path) -> Iterator[DevicesEngine]:
    engine = open_engine(str(checkpoint), SAMPLER, settings_of("cpu,cpu"), lambda _: None)
    assert isinstance(engine, DevicesEngine)
    yield engine
    engine.close()


def assert_painted(images: Sequence[Levels], seeds: Iterable[int]) -> None:
    """Each image has the kept pixels of its own canvas."""
    for image, seed in zip(images, seeds, strict=True):
        given = canvas(seed)
        assert image is not None
        np.testing.assert_array_equal(image[given.keep], given.image[given.keep])


def test_two_devices_give_the_images_of_one_in_the_same_order(
    two: DevicesEngine, checkpoint: Path
) -> None:
    canvases = [canvas(i) for i in range(20)]
    one = open_engine(str(checkpoint), SAMPLER, settings_of("cpu"), lambda _: None)
    expected, found = list(one.run(canvases, pad=True)), list(two.run(iter(canvases), pad=True))
    assert_painted(found, range(20))
    assert abs(np.array(expected).astype(int) - np.array(found)).max() <= 1
    assert (two.device, two.precision, two.at_once) == ("cpu,cpu", "fp32", 6)


def test_order_and_memory_hold_while_one_device_stands_still(two: DevicesEngine) -> None:
    taken: list[int] = []
    images: list[UInt8HW] = []

    def canvases() -> Iterator[Canvas]:
        for i in range(90):
            taken.append(i)
            yield canvas(i)

    process = multiprocessing.active_children()[0]  # there are no others
    assert len(multiprocessing.active_children()) == len(two.device.split(","))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    seen_while_still: list[int] = []

    def go_on() -> None:
        seen_while_still.append(len(taken) - len(images))
        os.kill(process.pid or 0, signal.SIGCONT)

    timer = threading.Timer(1.0, go_on)
    timer.start()
    images.extend(two.run(canvases()))
    timer.join()
    assert_painted(images, range(90))
    assert 9 < seen_while_still[0] <= 3 * 8  # four batches of three a device, and no more


def test_a_run_ends_with_the_first_canvas_that_is_no_longer_wanted(two: DevicesEngine) -> None:
    asked: list[int] = []

    def begin(canvases: Sequence[Canvas]) -> int:
        asked.extend(c.seed for c in canvases)
        return sum(c.seed < 8 for c in canvases)

    found = list(two.run(iter([canvas(i) for i in range(60)]), begin))
    assert_painted(found, range(8))
    assert set(range(8)) <= set(asked)
    assert max(asked) < 60 - 2 * 6
    # What the workers still paint of it is not taken for the next run's.
    assert_painted(list(two.run([canvas(i) for i in range(100, 110)])), range(100, 110))


def test_a_run_that_was_left_does_not_cut_the_next_one_short(two: DevicesEngine) -> None:
    left = two.run([canvas(i) for i in range(60)])
    next(left)
    left.close()
    assert_painted(list(two.run([canvas(i) for i in range(100, 110)])), range(100, 110))


def test_an_estimate_is_of_all_devices_together(two: DevicesEngine) -> None:
    assert two.seconds_per_image(6) > 0
    assert two.seconds_per_image(0) == 0


class KillAWorker(Quiet):
    """Kills one process of the run as soon as some images are painted."""

    def __init__(self) -> None:
        self.others = set(multiprocessing.active_children())
        self.processes: list[multiprocessing.process.BaseProcess] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "painting" and done >= 6 and not self.processes:
            self.processes = list(set(multiprocessing.active_children()) - self.others)
            self.processes[0].kill()


def test_the_death_of_a_worker_ends_the_run_and_keeps_finished_shards(
    settings: dict[str, object],
) -> None:
    long = {**settings, "sampler": SLOW_SAMPLER}
    reporter = KillAWorker()
    engine = {"device": "cpu,cpu", "batch_size": 1}
    with pytest.raises(EngineError, match=r"cpu: its process was killed by SIGKILL") as caught:
        expand(make_config(long, engine=engine), reporter=reporter)
    assert "\n" not in str(caught.value)
    assert len(reporter.processes) == 2
    assert set(multiprocessing.active_children()) == reporter.others
    with open_store(Path(str(settings["output"]))) as store:
        assert 0 < (store.columns["status"] == 1).sum() < 16
    report = expand(make_config(long))
    assert (report.counts.copies, report.exit_code) == (12, 0)
    assert report.painted < 12


def two_processes(settings: dict[str, object]) -> dict[str, object]:
    """A run that takes about half a minute if nothing ends it."""
    return {
        **settings,
        "copies": 20,
        "sampler": {**SLOW_SAMPLER, "resamplings": 20},
        "engine": {"device": "cpu,cpu", "precision": "fp32", "batch_size": 1, "workers": 1},
    }


def test_workers_end_with_a_killed_parent_amid_a_batch(
    settings: dict[str, object], tmp_path: Path
) -> None:
    endless = {"sampler": {**SLOW_SAMPLER, "resamplings": 100}}
    engine = {"device": "cpu,cpu", "precision": "fp32", "batch_size": 64, "workers": 1}
    parent = start({**two_processes(settings), **endless, "engine": engine}, tmp_path)
    wait_for_painting(parent, images=0)
    parent.kill()
    # The pipes close when their last holder, a worker, has ended.
    parent.communicate(timeout=20)


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_the_parents_to_answer(
    settings: dict[str, object], tmp_path: Path
) -> None:
    parent = start(two_processes(settings), tmp_path, new_session=True)
    wait_for_painting(parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 130, err
    assert "Traceback" not in err
    with open_store(Path(str(settings["output"]))) as store:
        done = store.columns["status"] == 1
        assert 0 < done.sum() < 84
        assert done.sum() % 5 == 0  # whole shards


def test_workers_start_with_signals_held_back(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[set[int]] = []

    def mask() -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def start_nothing(_: SpawnProcess) -> None:
        masks.append(mask())
        raise OSError("no more processes")

    monkeypatch.setattr(SpawnProcess, "start", start_nothing)
    with pytest.raises(OSError, match="no more"):
        open_engine(str(checkpoint), SAMPLER, settings_of("cpu,cpu"), lambda _: None)
    assert {signal.SIGINT, signal.SIGTERM} <= masks[0]
    assert mask().isdisjoint({signal.SIGINT, signal.SIGTERM})


def test_the_last_message_of_a_dead_worker_is_what_its_death_says() -> None:
    class Dead:
        exitcode = -9

        def join(self, _: float) -> None:
            return

    for last in (worker.Failure(EngineError("cpu: too hot")), worker.Notice("a line")):
        ours, theirs = multiprocessing.Pipe()
        theirs.send(last)
        theirs.close()
        error = devices.death_of("cpu", Dead(), ours)  # type: ignore[arg-type]
        failed = isinstance(last, worker.Failure)
        message = "cpu: too hot" if failed else "cpu: its process was killed"
        assert str(error).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu9", "'tpu9'"),
        ("cpu,tpu9", "'tpu9'"),
        ("cpu,", "must name each device"),
        ("auto,cpu", "auto cannot be combined"),
        ("cpu,cuda:99", "'cuda:99'.* finds no such device"),
    ],
)
def test_an_unknown_device_is_refused(name: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        resolve_devices(name)


def test_auto_and_cuda_mean_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert resolve_devices("auto") == resolve_devices("cuda") == both
    assert resolve_devices("cuda:1") == both[1:]
    assert resolve_devices("cuda:1, cuda:0") == both[::-1]
    assert resolve_devices("cpu") == [torch.device("cpu")]


def test_a_model_that_cannot_be_loaded_is_one_error_and_leaves_no_process(tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_engine(str(tmp_path / "none"), SAMPLER, settings_of("cpu,cpu"), lambda _: None)
    assert set(multiprocessing.active_children()) == others


class Pipe:
    """The worker's end of a pipe, in memory."""

    def __init__(self) -> None:
        self.sent: list[worker.Answer] = []

    def send(self, answer: worker.Answer) -> None:
        self.sent.append(answer)


def serve(engine: LocalEngine, *orders: worker.Order) -> tuple[list[worker.Answer], worker.Failure]:
    """What a worker answers to these orders, of which the last must fail."""
    pipe, inbox = Pipe(), queue.SimpleQueue[worker.Order]()
    for order in orders:
        inbox.put(order)
    failed = worker.until_failure("cpu", lambda _: engine, inbox.get, pipe.send)
    return pipe.sent, failed


def test_a_worker_answers_in_order_and_its_last_word_names_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fails(NoiseSampler):
        def __call__(self, *arguments: object) -> torch.Tensor:
            if self.batches:
                raise KeyError("surprise")
            return super().__call__(*arguments)  # type: ignore[arg-type]

    batch = [canvas(i) for i in range(2)]
    sent, failed = serve(
        LocalEngine(denoiser(), Fails(), 0),
        worker.FindBatchSize(5),
        worker.UseBatchSize(2),
        worker.Paint(7, batch, pad=False),
        worker.Paint(8, batch, pad=False),
    )
    assert sent[:2] == [worker.Ready("fp32"), worker.BatchSize(5)]
    assert isinstance(sent[2], worker.PaintedBatch)
    assert sent[2].number == 7
    assert len(sent) == 3
    assert isinstance(failed.error, EngineError)
    assert str(failed.error) == "cpu: KeyError: 'surprise'"
