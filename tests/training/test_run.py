import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import echogen
from echogen.cli import main
from echogen.diffusion.border import Known
from echogen.diffusion.checkpoint import BORDER_WEIGHTS, read_info, verify_checkpoint
from echogen.diffusion.network import load_checkpoint
from echogen.errors import CheckpointError, EngineError, UsageError
from echogen.support.signals import Stop
from echogen.training import loop
from echogen.training.card import ModelFacts
from echogen.training.evaluation import compare
from echogen.training.frames import PreparedFrames
from echogen.training.learner import make_learner
from echogen.training.options import TrainingOptions
from echogen.training.recipe import Recipe
from echogen.training.session import TrainingTask
from echogen.training.start import load_start
from echogen.training.state import Progress, read_state
from tests.support.faults import on_change
from tests.support.tiny_training import (
    NETWORK,
    QUICK,
    SCHEDULE,
    SIDE,
    learning_variance,
    prepared,
    read_log,
    recipe,
    same,
    state_of,
    tiny_frames,
    unconditional,
    write_frames,
    write_recipe,
)

STILL = recipe().optimiser.model_copy(update={"dropout": 0.0})


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[tuple[str, int, int, str]] = []

    def tell(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.shown.append((stage, done, total, detail))


def train(
    recipe: Recipe,
    frames: PreparedFrames,
    out: Path,
    options: TrainingOptions,
    *,
    facts: ModelFacts | None = None,
    start_from: Path | str | None = None,
    **how: Any,
) -> Progress:
    facts = facts or ModelFacts(recipe.name)
    task = TrainingTask(recipe, frames, out, options, facts, start_from)
    return loop.train(task, **how)


def quick(**changes: object) -> TrainingOptions:
    return QUICK.model_copy(update=changes)


@pytest.fixture
def packed() -> PreparedFrames:
    return tiny_frames()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of six steps; do not change."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(), tiny_frames(), out, QUICK)
    return out


def arguments(
    folder: Path, frames: PreparedFrames, out: str, *, still: bool = False, **more: object
) -> list[str]:
    """Of a tiny run on the CPU from prepared frames; `still` without dropout."""
    place, toml = folder / "frames", folder / f"{'still' if still else 'tiny'}.toml"
    write_frames(place, frames)
    write_recipe(toml, recipe(optimiser=STILL) if still else recipe())
    flags = {
        "frames": place, "out": folder / out, "preset": toml, "steps": 6, "hold-out": 2,
        "device": "cpu", "precision": "fp32", "evaluations": 2, "samples": 2, "sample-steps": 4,
        "inpainted": 0, "border-images": 3, "compared": 0, "log-every": 2, **more,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return ["train", *words, "--json"]


def command(words: list[str]) -> int:
    """The exit code of the command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["echogen", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def nearly(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Equal but for rounding; the gradient of a key's bias is rounding alone, as softmax drops it,
    and AdamW makes as much of it as of others.
    """
    return one.keys() == two.keys() and all(
        torch.allclose(value, two[name], atol=1e-5)
        for name, value in one.items()
        if not name.endswith("to_k.bias")
    )


def steps_in(log: Path) -> list[tuple[str, int, float]]:
    """What a log says, without the time it took."""
    return [
        (line["event"], line["step"], line.get("loss", line.get("score")))
        for line in read_log(log)
        if line["event"] != "start"
    ]


# --- to go on is to do the same


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, packed, finished):
    short = quick(stop_after=0.0)
    part = train(recipe(), packed, tmp_path, short)
    assert part.step == 1
    rest = train(recipe(), packed, tmp_path, QUICK, resume=True)
    assert (rest.step, rest.images) == (6, 24)
    assert same(state_of(tmp_path), state_of(finished))
    assert steps_in(tmp_path / "log.jsonl") == steps_in(finished / "log.jsonl")


def test_moments_of_saving_change_nothing(tmp_path, packed, finished):
    train(recipe(), packed, tmp_path, quick(save_every=0.0))
    assert same(state_of(tmp_path), state_of(finished))


LONG = {"steps": 40, "evaluations": 2, "save-every": 0.05, "log-every": 7}
TOGETHER = {"steps": 4, "evaluations": 1}


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    """A run that was killed twice, and one of two processes: the folder, and how they ended."""
    folder, packed = tmp_path_factory.mktemp("processes"), tiny_frames()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    asked = {
        "killed": arguments(folder, packed, "killed", **LONG),
        "kills": 2,
        "seed": 3,
        "two": arguments(folder, packed, "two", still=True, **TOGETHER),
        "place": {**place, "ACCELERATE_USE_CPU": "true"},
    }
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).parents[1] / "support" / "training_processes.py",
            json.dumps(asked),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_killed_run_goes_on_to_the_same_weights(processes, tmp_path, packed):
    folder, ended = processes
    assert ended["code"] == 0
    assert len(ended["hits"]) == 2
    assert command(arguments(tmp_path, packed, "whole", **LONG)) == 0
    killed, whole = folder / "killed", tmp_path / "whole"
    assert same(state_of(killed), state_of(whole))
    assert steps_in(killed / "log.jsonl") == steps_in(whole / "log.jsonl")
    best = [verify_checkpoint(run / "checkpoint") for run in (killed, whole)]
    assert best[0].sha256 == best[1].sha256
    assert not list(killed.glob(".checkpoint*"))


def test_a_signal_ends_the_run_after_its_step_with_its_state_saved(tmp_path, packed, finished):
    stop = Stop()

    class Impatient(Told):
        def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
            assert stop.finishing
            stop.signum = signal.SIGTERM

    shown = pytest.MonkeyPatch()
    with shown.context() as patch:
        patch.setattr("echogen.training.meter.SHOW_EVERY_S", 0.0)
        part = train(
            recipe(), packed, tmp_path, quick(save_every=1e6), reporter=Impatient(), stop=stop
        )
    assert part.step == 1
    assert not stop.finishing
    assert read_state(tmp_path).progress.step == 1
    train(recipe(), packed, tmp_path, QUICK)
    assert same(state_of(tmp_path), state_of(finished))


def test_the_command_stops_at_a_signal_and_says_how_to_go_on(tmp_path, packed, capsys):
    log = tmp_path / "run" / "log.jsonl"

    def stop_after_the_first_steps() -> None:
        while not log.exists() or '"event": "step"' not in log.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_after_the_first_steps, daemon=True).start()
    long = arguments(tmp_path, packed, "run", steps=100_000, evaluations=1)
    assert command(long) == 143
    told = capsys.readouterr()
    assert "stopping after the current step" in told.err
    summary = json.loads(told.out)
    assert 0 < summary["step"] == read_state(tmp_path / "run").progress.step < 100_000


# --- how a batch is cut, and over how many processes


def test_pieces_of_a_batch_learn_what_the_batch_learns(tmp_path, packed):
    config = recipe(optimiser=STILL)
    for name, size in (("whole", None), ("pieces", 3)):
        options = quick(micro_batch=size, evaluations=1)
        train(config, packed, tmp_path / name, options)
    one, two = (state_of(tmp_path / name) for name in ("whole", "pieces"))
    assert not same(one, two)  # rounding differs, else nothing was cut
    assert nearly(one, two)


def test_two_processes_learn_what_one_learns(processes, tmp_path, packed):
    folder, ended = processes
    assert ended["codes"] == [0, 0]
    said = [(folder / f"two.{rank}.log").read_text() for rank in (0, 1)]
    assert (json.loads(said[0])["step"], said[1]) == (4, "")
    assert command(arguments(tmp_path, packed, "one", still=True, **TOGETHER)) == 0
    one, two = tmp_path / "one", folder / "two"
    assert nearly(state_of(one), state_of(two))
    logs = [steps_in(run / "log.jsonl") for run in (one, two)]
    assert [line[:2] for line in logs[0]] == [line[:2] for line in logs[1]]
    assert [line[2] for line in logs[0]] == pytest.approx([line[2] for line in logs[1]], rel=1e-4)
    assert read_info(two / "checkpoint").training["hardware"].startswith("2 x ")


def test_what_a_failed_run_held_is_gone_when_its_machine_closes(monkeypatch):
    from accelerate import Accelerator

    from echogen.training.machine import open_machine

    class Network:
        pass

    alive, at_the_end = [], []

    def fail() -> None:
        network = Network()
        alive.append(weakref.ref(network))
        raise EngineError("the loss is not finite")

    monkeypatch.setattr(Accelerator, "end_training", lambda _: at_the_end.append(alive[0]()))
    with pytest.raises(EngineError, match="not finite"), open_machine(QUICK):
        fail()
    assert at_the_end == [None]


def test_fewer_images_than_processes_are_refused():
    class Two:
        num_processes, process_index = 2, 0

    from echogen.training.machine import share_of

    with pytest.raises(UsageError, match="batch_size 1: expected at least one image for each"):
        share_of(Two(), 1)
    assert share_of(Two(), 5) == slice(0, 2)


# --- which folder is whose


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(tmp_path, packed, finished):
    train(recipe(), packed, tmp_path, QUICK)
    before = (tmp_path / "log.jsonl").read_text()
    again = train(recipe(), packed, tmp_path, QUICK)
    assert again.step == 6
    assert same(state_of(tmp_path), state_of(finished))
    assert (tmp_path / "log.jsonl").read_text().startswith(before)
    told = Told()
    longer = quick(steps=8)
    assert train(recipe(), packed, tmp_path, longer, reporter=told).step == 8
    assert any("planned for 6 steps, now for 8 steps" in line for line in told.lines)


def test_a_run_killed_before_its_report_gets_it_the_next_time(tmp_path, packed, monkeypatch):
    options = quick(compared=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), packed, tmp_path, options)
    assert read_info(tmp_path / "checkpoint").training["memorisation"] == {}
    train(recipe(), packed, tmp_path, options)
    assert read_info(tmp_path / "checkpoint").training["memorisation"]["samples"]["count"] == 2
    made = (tmp_path / "checkpoint/README.md").stat().st_mtime_ns
    train(recipe(), packed, tmp_path, options)
    assert (tmp_path / "checkpoint/README.md").stat().st_mtime_ns == made


def test_a_run_made_shorter_than_its_first_measurement_is_measured(tmp_path, packed):
    train(recipe(), packed, tmp_path, quick(stop_after=0.0))
    assert not (tmp_path / "checkpoint").exists()
    shorter = quick(steps=1)
    assert train(recipe(), packed, tmp_path, shorter).step == 1
    assert read_info(tmp_path / "checkpoint").training["step"] == 1
    assert read_state(tmp_path).progress.best < float("inf")


def test_starting_anew_removes_no_pictures_of_others(tmp_path, packed):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.png").touch()
    with pytest.raises(UsageError, match="such as pictures, but no training run"):
        train(recipe(), packed, tmp_path, QUICK, overwrite=True)
    assert (tmp_path / "pictures" / "mine.png").exists()


def test_a_finished_run_says_so(tmp_path, packed, finished):
    out = shutil.copytree(finished, tmp_path / "run")
    told = Told()
    train(recipe(), packed, out, QUICK, reporter=told)
    assert told.lines == [
        "the run is finished, after step 6: nothing is left to train; more --steps or --hours make "
        "it longer, --overwrite starts over."
    ]


def test_a_report_of_no_samples_is_refused(finished, packed):
    with pytest.raises(UsageError, match="--compared 0: expected 1 or more"):
        compare(finished, packed, QUICK, ModelFacts("x"))


def test_another_run_is_refused_with_what_differs(tmp_path, packed):
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        train(recipe(), packed, tmp_path, QUICK, resume=True)
    train(recipe(), packed, tmp_path, quick(stop_after=0.0))
    optimiser = recipe().optimiser.model_copy(update={"batch_size": 8})
    with pytest.raises(CheckpointError, match=r"config\.optimiser\.batch_size was 4, is 8"):
        train(recipe(optimiser=optimiser), packed, tmp_path, QUICK)
    others = prepared(255 - packed.pixels, packed.record.case_ids)
    with pytest.raises(CheckpointError, match="data_fingerprint was"):
        train(recipe(), others, tmp_path, QUICK)
    with pytest.raises(CheckpointError, match="held_out_cases was"):
        train(recipe(), packed, tmp_path, quick(hold_out=1))
    options = quick(stop_after=0.0)
    assert train(recipe(seed=1), packed, tmp_path, options, overwrite=True).step == 1


def test_a_checkpoint_without_its_state_is_not_overwritten(tmp_path, packed, finished):
    shutil.copytree(finished / "checkpoint", tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="contains a checkpoint but no state"):
        train(recipe(), packed, tmp_path, QUICK)


def test_a_damaged_or_older_state_is_one_line(tmp_path, packed):
    from safetensors.torch import save_file

    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="the saved state is damaged"):
        train(recipe(), packed, tmp_path, QUICK)
    header = {"identity": json.dumps({"config": {}}), "progress": "{}"}
    save_file({"x": torch.zeros(1)}, tmp_path / "state.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match="another version of echogen"):
        train(recipe(), packed, tmp_path, QUICK)


PROGRESS = {"step": 1, "images": 4, "seconds": 1.0, "best": float("inf"), "loss_sum": 0.0,
            "norm_sum": 0.0, "since": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("identity", "[" * 10**5),
        ("identity", '{"format": 4, "x": ' + "9" * 5000 + "}"),
        ("identity", '{"format": 4, "start_from": [1]}'),
        ("identity", "[]"),
        ("progress", json.dumps({**PROGRESS, "step": -1})),
        ("progress", json.dumps({**PROGRESS, "step": True})),
        ("progress", json.dumps({**PROGRESS, "images": "many"})),
        ("progress", json.dumps({**PROGRESS, "colour": 1})),
        ("progress", "[" * 10**5),
    ],
)
def test_what_a_state_says_of_its_run_is_not_believed(tmp_path, part, text):
    from safetensors.torch import save_file

    from echogen.training.state import read_state

    header = {"identity": '{"format": 4}', "progress": json.dumps(PROGRESS), "length": "1 step"}
    save_file({"x": torch.zeros(1)}, tmp_path / "state.safetensors", metadata=header)
    assert read_state(tmp_path).progress.step == 1
    save_file({"x": torch.zeros(1)}, tmp_path / "state.safetensors", metadata=header | {part: text})
    with pytest.raises(CheckpointError, match="the saved state is damaged") as caught:
        read_state(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def a_learner():
    from echogen.training.learner import make_learner

    return make_learner(recipe(), torch.device("cpu"))


def test_a_state_that_was_changed_is_refused(tmp_path, finished):
    from echogen.training.state import load_state

    content = bytearray((finished / "state.safetensors").read_bytes())
    content[-5] ^= 0x01
    (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="its content does not fit its digest"):
        load_state(tmp_path, a_learner())


def test_a_state_that_is_not_finite_is_refused(tmp_path, finished):
    from echogen.training.state import load_state, save_state

    learner = a_learner()
    load_state(finished, learner)
    next(learner.average.parameters()).data[0] = float("-inf")
    save_state(tmp_path, learner, read_state(finished).progress, {}, "1 step")
    with pytest.raises(CheckpointError, match=r"average\..* has values that are not finite"):
        load_state(tmp_path, a_learner())


def test_an_average_without_a_finite_loss_ends_the_run(tmp_path, packed):
    from echogen.training.state import load_state, save_state

    train(recipe(), packed, tmp_path, quick(stop_after=0.0))
    learner = a_learner()
    load_state(tmp_path, learner)
    saved = read_state(tmp_path)
    next(learner.average.parameters()).data.fill_(1e38)
    save_state(tmp_path, learner, saved.progress, saved.identity, saved.length)
    with pytest.raises(EngineError, match=r"the loss is not finite; lower \[optimiser\]"):
        train(recipe(), packed, tmp_path, QUICK)


def test_a_state_with_a_tensor_of_another_shape_is_refused(tmp_path, finished):
    from safetensors.torch import load_file, save_file

    from echogen.training.learner import make_learner
    from echogen.training.state import load_state

    state = load_file(finished / "state.safetensors")
    name = next(name for name in state if name.endswith("conv_in.bias"))
    save_file({**state, name: state[name][:1].clone()}, tmp_path / "state.safetensors")
    with pytest.raises(CheckpointError, match=r"conv_in\.bias is 1, expected"):
        load_state(tmp_path, make_learner(recipe(), torch.device("cpu")))


@pytest.mark.parametrize("name", ["log.jsonl", r"pictures/\..*png\.partial"])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on(tmp_path, packed, finished, name):
    def full(event, places):
        if event in ("open", "change") and re.search(f"/{name}$", places[0]):
            raise OSError(28, "No space left on device", places[0])

    with (
        on_change(full),
        pytest.raises(CheckpointError, match=rf"{name}: cannot be written \(No space .*again"),
    ):
        train(recipe(), packed, tmp_path, QUICK)
    train(recipe(), packed, tmp_path, QUICK)
    assert same(state_of(tmp_path), state_of(finished))


@pytest.mark.parametrize(
    "line", ["[" * 10**5 + "}", '{"step": 1e999}', '{"step": "9"', '{"step": [1]}']
)
def test_a_line_of_the_log_that_is_none_is_dropped(tmp_path, line):
    from echogen.training.log import RunLog

    kept = json.dumps({"step": 1})
    (tmp_path / "log.jsonl").write_text(f"{kept}\n{line}\n")
    RunLog(tmp_path / "log.jsonl", 1)
    assert (tmp_path / "log.jsonl").read_text() == f"{kept}\n"


# --- what it learns and says


@pytest.mark.parametrize("kind", [recipe, unconditional])
def test_a_run_learns_and_says_what_happens(tmp_path, packed, kind):
    optimiser = recipe().optimiser.model_copy(update={"learning_rate": 3e-3, "batch_size": 8})
    config = kind(optimiser=optimiser)
    options = quick(steps=40, inpainted=3)
    told = Told()
    progress = train(config, packed, tmp_path, options, reporter=told)
    assert options.done(progress) == 1
    log = read_log(tmp_path / "log.jsonl")
    losses = [entry["loss"] for entry in log if entry["event"] == "step"]
    if config.conditioning == "none":  # else it depends on the holes more than on what is learnt
        assert losses[-1] < 0.8 * losses[0]
    start = log[0]
    assert len(start["held_out_cases"]) == 2
    assert start["frames"] == {"trained": 8, "held_out": 4}
    measured = [entry for entry in log if entry["event"] == "evaluation"]
    assert [entry["step"] for entry in measured] == [20, 40]
    assert len(measured[0]["held_out_loss"]) == len(measured[0]["training_loss"]) == 12
    assert measured[1]["score"] < measured[0]["score"]
    whole = [measured[0][f"{frames}_loss_whole"] for frames in ("held_out", "training")]
    assert [len(table) for table in whole] == [12 * (kind is recipe)] * 2
    assert kind is unconditional or whole[0] != measured[0]["held_out_loss"]
    card = (tmp_path / "checkpoint/README.md").read_text()
    assert ("With the whole image hidden" in card) == (kind is recipe)
    assert (BORDER_WEIGHTS in read_info(tmp_path / "checkpoint").files) == (kind is recipe)
    for kind in ("samples", "inpainted"):
        assert len(list((tmp_path / "pictures").glob(f"{kind}_*.png"))) == 2
    assert any("held-out loss" in line for line in told.lines)
    *last, detail = told.shown[-1]
    assert last == ["training", 40, 40]
    assert re.fullmatch(r"loss \d\.\d{4}, \S+ images/s", detail)


def test_without_held_out_cases_it_says_what_it_measures_on(tmp_path, packed):
    told = Told()
    options = quick(hold_out=0, steps=2, border_images=0)
    train(recipe(), packed, tmp_path, options, reporter=told)
    assert any("no case is held out" in line for line in told.lines)
    assert any("training loss" in line for line in told.lines)
    card = (tmp_path / "checkpoint/README.md").read_text()
    assert "No case was held out" in card
    assert "not selected by their distance" in card
    assert "any held-out frame is" not in card
    info = read_info(tmp_path / "checkpoint")
    assert info.training["held_out_loss"] == {}
    assert BORDER_WEIGHTS not in info.files


def test_a_learned_variance_trains_and_paints(tmp_path, packed):
    options = quick(steps=2, evaluations=1, inpainted=2)
    train(learning_variance(), packed, tmp_path, options)
    denoiser = load_checkpoint(tmp_path / "checkpoint", "cpu", "fp32")
    found = denoiser.predict(torch.zeros(2, 3, SIDE, SIDE), 500)
    assert found.x0.shape == found.variance_mix.shape == (2, 3, SIDE, SIDE)
    assert read_info(tmp_path / "checkpoint").channels == 3


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_state(tmp_path, packed):
    optimiser = recipe().optimiser.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(EngineError, match=r"the loss is not finite; lower \[optimiser\]"):
        train(recipe(optimiser=optimiser), packed, tmp_path, QUICK)
    assert read_state(tmp_path).progress.step < 3
    assert all(bool(torch.isfinite(value).all()) for value in state_of(tmp_path).values())


# --- what is exported


def test_the_checkpoint_is_the_average_without_the_variation(finished):
    from diffusers import DDPMScheduler, UNet2DModel
    from safetensors.torch import load_file

    folder = finished / "checkpoint"
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False)
    assert unet.config.class_embed_type is None
    state = state_of(finished)
    assert (unet.config.in_channels, unet.config.out_channels) == (8, 4)
    info = read_info(folder)
    assert (info.conditioning, info.keep_channels, info.known_pixels) == ("known", 4, "clean")
    for name, value in load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        assert value.dtype == torch.float16
        assert torch.equal(value, state[f"average.unet.{name}"].half())
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    assert schedule.config.prediction_type == "v_prediction"
    denoiser = load_checkpoint(finished / "checkpoint", "cpu", "fp32")
    x, known = torch.randn(2, 1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(x.shape, dtype=torch.bool)
    keep[..., :8] = True
    shown = torch.where(keep, known, x)
    packed = torch.cat([torch.pixel_unshuffle(y, 2) for y in (shown, keep.float())], dim=1)
    with torch.no_grad():
        v = torch.pixel_shuffle(unet(packed, torch.tensor(300), return_dict=False)[0], 2)
    abar = float(schedule.alphas_cumprod[300])
    expected = (abar**0.5 * shown - (1 - abar) ** 0.5 * v).clamp(-1, 1)
    assert denoiser.border is not None
    assert "`border/`" in (finished / "checkpoint" / "README.md").read_text()
    found = replace(denoiser, border=None).predict(x, 300, Known(known, keep)).x0
    assert torch.allclose(found[~keep], expected[~keep], atol=1e-5)


# --- to start from given weights


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """A run of a network without conditioning; do not change."""
    out = tmp_path_factory.mktemp("noisy") / "run"
    train(unconditional(), tiny_frames(), out, quick(steps=3))
    return out


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    file = run / "checkpoint/unet/diffusion_pytorch_model.safetensors"
    return {name: value.float() for name, value in load_file(file).items()}


def test_a_network_that_sees_what_is_known_starts_as_one_that_did_not(tmp_path, noisy):
    learner, plain = (make_learner(kind(), torch.device("cpu")) for kind in (recipe, unconditional))
    load_start(noisy, recipe(), learner)
    load_start(noisy, unconditional(), plain)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    keep = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    t = torch.tensor([5, 700])
    for one, two in zip((learner.network, learner.average), (plain.network, plain.average),
                        strict=True):  # fmt: skip
        one.eval(), two.eval()
        found = one.unvaried(torch.cat([x, keep.float()], dim=1), t)
        assert torch.allclose(found, two.unvaried(x, t), atol=1e-6)
    for name, value in weights_of(noisy).items():
        if name != "conv_in.weight":
            assert torch.equal(learner.network.unet.state_dict()[name], value)


def test_a_run_says_where_it_started_and_does_not_need_it_again(tmp_path, packed, noisy):
    start, out = shutil.copytree(noisy, tmp_path / "start"), tmp_path / "run"
    told = Told()
    train(recipe(), packed, out, quick(stop_after=0.0), start_from=start, reporter=told)
    assert any("starting from the weights of tiny" in line for line in told.lines)
    expected = {"name": "tiny", "sha256": read_info(noisy / "checkpoint").sha256}
    assert read_state(out).identity["start_from"] == expected
    shutil.rmtree(start)
    train(recipe(), packed, out, QUICK)
    record = read_info(out / "checkpoint").training
    assert record["start_from"] == expected
    assert (
        f"weights of tiny, sha256 {expected['sha256'][:12]}"
        in (out / "checkpoint/README.md").read_text()
    )
    whole = tmp_path / "whole"
    train(recipe(), packed, whole, QUICK, start_from=noisy)
    assert same(state_of(whole), state_of(out))
    train(recipe(), packed, tmp_path / "fresh", QUICK)
    assert not same(state_of(whole), state_of(tmp_path / "fresh"))
    with pytest.raises(CheckpointError, match=r"start_from\.sha256 was"):
        train(recipe(), packed, out, QUICK, start_from=whole)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"network": {**NETWORK, "block_out_channels": [8, 16]}}, r"conv_norm_out|is 8.*recipe's"),
        ({"network": {**NETWORK, "layers_per_block": 2}}, r"is missing, the recipe's"),
        ({"patch": 1, "network": {**NETWORK, "sample_size": 16, "in_channels": 2,
                                  "out_channels": 1}}, "has patch 2, but the recipe tiny 1"),
        ({"schedule": {**SCHEDULE, "prediction_type": "epsilon"}},
         "has prediction_type v_prediction, but the recipe tiny epsilon"),
    ],
)  # fmt: skip
def test_a_start_of_another_network_is_refused(tmp_path, packed, noisy, changes, match):
    with pytest.raises(CheckpointError, match=rf"--start-from .*{match}"):
        train(recipe(**changes), packed, tmp_path / "run", QUICK, start_from=noisy)


def test_a_network_without_conditioning_does_not_start_from_one_with(tmp_path, packed, finished):
    with pytest.raises(CheckpointError, match="is shown what is known, but the recipe tiny has"):
        train(unconditional(), packed, tmp_path / "run", QUICK, start_from=finished)
    assert not (tmp_path / "run/state.safetensors").exists()


def test_held_out_cases_that_the_start_was_trained_on_are_told(tmp_path, packed, noisy):
    told, again = Told(), Told()
    options = quick(stop_after=0.0)
    train(recipe(seed=4), packed, tmp_path / "a", options, start_from=noisy, reporter=told)
    train(recipe(), packed, tmp_path / "b", options, start_from=noisy, reporter=again)
    own = set(read_info(noisy / "checkpoint").training["held_out_cases"])
    others = set(read_state(tmp_path / "a").identity["held_out_cases"]) - own
    assert others
    (line,) = [line for line in told.lines if line.startswith("note:")]
    assert f"{len(others)} held-out case" in line
    assert f"such as {min(others)}: tiny was trained on them" in line
    assert not [line for line in again.lines if line.startswith("note:")]


def test_the_command_starts_from_a_run_by_its_folder_or_name(tmp_path, packed, noisy, capsys):
    words = arguments(tmp_path, packed, "run", steps=1)
    assert command([*words, "--start-from", str(noisy)]) == 0
    record = read_info(tmp_path / "run/checkpoint").training
    assert record["start_from"]["name"] == "tiny"
    assert "--start-from run" in record["command"]
    assert command([*words, "--start-from", str(tmp_path / "gone")]) == 0  # it is finished
    words = arguments(tmp_path, packed, "other", steps=1)
    capsys.readouterr()
    assert command([*words, "--start-from", str(tmp_path / "gone")]) == 4
    assert "--start-from" in capsys.readouterr().err
    assert command([*words, "--start-from", "builtin"]) == 4
    assert "has patch 4, but the recipe tiny 2" in capsys.readouterr().err


def test_the_record_says_what_the_model_has_seen(finished, packed):
    info = verify_checkpoint(finished / "checkpoint")
    record = info.training
    assert Recipe.model_validate(record["config"]) == recipe()
    assert record["data_fingerprint"] == packed.record.fingerprint
    assert set(record["cases"]["held_out"]) == set(record["held_out_cases"])
    assert len(record["cases"]["trained"]) == 4
    known = dict(zip(packed.record.frame_ids, packed.record.digests, strict=True))
    for part in record["cases"].values():
        for case, digests in part.items():
            assert digests == sorted(d for name, d in known.items() if name.startswith(case + "_"))
    assert (record["images_seen"], record["step"], record["precision"]) == (24, 6, "fp32")
    assert list(record["held_out_loss"]) == list(record["training_loss"])
    card = (finished / "checkpoint/README.md").read_text()
    for said in ("24", "fp32", "What it must not be used for", "Not measured yet", "samples.png"):
        assert said in card
    assert (finished / "checkpoint/samples.png").read_bytes()[:4] == b"\x89PNG"


def test_only_a_better_model_replaces_the_exported_one(tmp_path, packed, monkeypatch):
    scores = iter([0.5, 0.7, 0.4])

    class Scored(loop.Evaluation):
        @property
        def score(self) -> float:
            return self.held_out[0]

    def evaluated(*_):
        return Scored({0: next(scores)}, {0: 1.0}, np.zeros((2, SIDE, SIDE), np.uint8), {})

    monkeypatch.setattr(loop, "evaluate", evaluated)
    exported: list[int] = []
    original = loop.write_checkpoint

    def watched(out, average, facts, record, *rest):
        exported.append(record.step)
        return original(out, average, facts, record, *rest)

    monkeypatch.setattr(loop, "write_checkpoint", watched)
    progress = train(recipe(), packed, tmp_path, quick(evaluations=3))
    assert exported == [2, 6]
    assert progress.best == 0.4


def test_the_report_compares_samples_with_training_frames(tmp_path, packed):
    options = quick(compared=5)
    facts = ModelFacts("mine", "phantoms", "CC0-1.0", "nobody", {"format": "camus"}, "the command")
    train(recipe(), packed, tmp_path, options, facts=facts)
    info = verify_checkpoint(tmp_path / "checkpoint")
    found = info.training["memorisation"]
    assert (found["samples"]["count"], found["held_out"]["count"]) == (5, 4)
    assert found["training"]["count"] == 8
    assert info.training["run"]["images"] == 24
    card = (tmp_path / "checkpoint/README.md").read_text()
    for said in ("phantoms", "CC0-1.0", "the command", "memorisation.png", "format camus",
                 "any held-out frame is"):  # fmt: skip
        assert said in card
    assert (tmp_path / "checkpoint/memorisation.png").is_file()
    assert (tmp_path / "pictures/nearest.png").is_file()
    before = info.sha256
    compare(tmp_path, packed, quick(compared=3), facts)
    again = verify_checkpoint(tmp_path / "checkpoint")
    assert again.training["memorisation"]["samples"]["count"] == 3
    assert again.sha256 == before
    others = prepared(255 - packed.pixels, packed.record.case_ids)
    with pytest.raises(CheckpointError, match="trained on frames other"):
        compare(tmp_path, others, options, facts)


# --- options


def test_compile_that_fails_is_told_and_training_goes_on(tmp_path, packed, monkeypatch):
    def broken(network, **_):
        def run(*_args, **_kwargs):
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    told = Told()
    options = quick(compile=True, evaluations=1, steps=2)
    progress = train(recipe(), packed, tmp_path, options, reporter=told)
    assert progress.step == 2
    said = "torch.compile failed (RuntimeError: no compiler here); training without it."
    assert said in told.lines


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": None}, "either --steps or --hours"),
        ({"hours": 1.0}, "either --steps or --hours"),
        ({"precision": "int8"}, r"options\.precision: .*'bf16'.*got 'int8'"),
        ({"device": "abacus"}, "--device 'abacus'"),
        ({"hold_out": 6}, "--hold-out 6"),
        ({"hold_out": -1}, r"options\.hold_out: .*greater than or equal to 0 \(got -1\)"),
        ({"micro_batch": 0}, r"options\.micro_batch: .*greater than or equal to 1 \(got 0\)"),
        ({"stop_after": float("inf")}, r"options\.stop_after: .*finite number"),
    ],
)
def test_wrong_options_are_refused(tmp_path, packed, changes, match):
    place = write_frames(tmp_path / "frames", packed)
    wanted = QUICK.model_dump() | {"frames": place, "output": tmp_path / "run"} | changes
    with pytest.raises(UsageError, match=match):
        echogen.train(write_recipe(tmp_path / "tiny.toml", recipe()), **wanted)


def test_a_missing_tensorboard_is_named_with_its_remedy(tmp_path, packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = quick(tensorboard=True)
    with pytest.raises(UsageError, match=r"pip install 'echogen\[tensorboard\]'"):
        train(recipe(), packed, tmp_path, options)


def test_a_run_by_the_clock_ends_when_its_time_is_over():
    options = TrainingOptions(hours=1.0, evaluations=4)
    assert options.done(Progress(step=9, seconds=900)) == 0.25
    assert options.done(Progress(step=9, seconds=4000)) == 1
    assert options.evaluation_due(Progress(seconds=899), Progress(seconds=901))
    assert not options.evaluation_due(Progress(seconds=901), Progress(seconds=1799))


# --- the command


def test_the_command_trains_on_prepared_frames_and_reports(tmp_path, packed, capsys):
    words = arguments(tmp_path, packed, "run", steps=2, seed=3, **{"batch-size": 2})
    assert command([*words, "--licence", "CC0-1.0"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["images"]) == (1.0, 4)
    assert command([*words, "--report", "--compared", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["record"]["memorisation"]["samples"]["count"] == 2
    kept = read_info(tmp_path / "run/checkpoint")
    assert (kept.licence, kept.name) == ("CC0-1.0", "run")
    assert "echogen train --frames frames --out run --preset tiny.toml" in kept.training["command"]
    assert "--licence CC0-1.0" in kept.training["command"]
    assert str(tmp_path) not in kept.training["command"]
    absent = ["train", "--frames", "absent.zip", "--out", str(tmp_path / "x"), "--steps", "1"]
    assert command(absent) == 3
    assert "absent.zip" in capsys.readouterr().err
    assert command(arguments(tmp_path, packed, "run", **{"batch-size": 0})) == 2
    assert "optimiser.batch_size" in capsys.readouterr().err


def test_frames_of_another_size_are_refused(tmp_path, packed):
    network = {**NETWORK, "sample_size": 16}
    with pytest.raises(UsageError, match="the frames are 16 x 16, but the recipe tiny needs 32"):
        train(recipe(image_size=32, network=network), packed, tmp_path, QUICK)
