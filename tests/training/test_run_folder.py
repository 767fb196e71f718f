"""A run's folder is one run's or another's, whenever the process that changes it dies."""

import os
import shutil
from pathlib import Path

import pytest

from echogen.errors import CheckpointError
from echogen.training.run_folder import check_run_folder, open_run_folder, recover_checkpoint
from tests.support.faults import contents, every_kill, in_child


def write_run(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for name in ("frames/frames.npy", "pictures/000/samples.png", "tensorboard/events",
                 "checkpoint/echogen.json", "checkpoint/unet/config.json"):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(name.encode())
    (out / "state.safetensors").write_bytes(b"state")
    (out / "log.jsonl").write_bytes(b"log")
    (out / ".state.safetensors.partial").write_bytes(b"sta")


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_killed_while_it_is_removed_is_removed_by_the_next_one(
    tmp_path: Path, overwrite: bool
) -> None:
    out = tmp_path / "run"
    left = []

    def start_over() -> None:
        open_run_folder(out, resume=False, overwrite=True)

    def again() -> None:
        open_run_folder(out, resume=False, overwrite=overwrite)

    def check(where: str) -> None:
        if overwrite or not (out / "state.safetensors").exists():
            assert contents(out) == {"frames": None, "frames/frames.npy": b"frames/frames.npy"}
        else:  # nothing had been removed, so the old run goes on
            left.append(where)
            assert (out / "checkpoint/unet/config.json").exists()
            assert (out / "log.jsonl").exists()

    assert every_kill(tmp_path, lambda: write_run(out), start_over, check, again=again) > 12
    assert left[-1:] == ([] if overwrite else ["os.rename run/state.safetensors run/.overwritten"])


def test_a_run_killed_as_its_log_begins_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / ".log.jsonl.partial").write_bytes(b"")
    open_run_folder(tmp_path, resume=False, overwrite=False)
    assert contents(tmp_path) == {"frames": None}


def test_a_run_that_was_removed_in_part_is_nothing_to_resume(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "state.safetensors").rename(tmp_path / ".overwritten")
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        check_run_folder(tmp_path, resume=True, overwrite=False)


def test_a_checkpoint_half_replaced_is_put_back_whatever_the_clock_said(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.replaced")
    (tmp_path / ".checkpoint.creating").mkdir()
    (tmp_path / ".checkpoint.creating" / "echogen.json").write_bytes(b"half")
    recover_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint/echogen.json").read_bytes() == b"checkpoint/echogen.json"
    assert not list(tmp_path.glob(".checkpoint*"))


def test_what_safetensors_leaves_of_a_state_half_written_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors import torch as files

    from echogen.training.learner import make_learner
    from echogen.training.state import Progress, save_state
    from tests.support.tiny_training import recipe

    def killed(tensors: object, place: Path, metadata: object) -> None:
        (Path(place).parent / ".tmpz3o57W").write_bytes(b"half")
        os._exit(9)

    learner = make_learner(recipe(), torch.device("cpu"))
    monkeypatch.setattr(files, "save_file", killed)
    (tmp_path / "log.jsonl").touch()
    progress = Progress(step=1, images=4, seconds=1.0)
    assert in_child(lambda: save_state(tmp_path, learner, progress, {}, "1 step")) == 9
    open_run_folder(tmp_path, resume=False, overwrite=False)
    assert [place.name for place in tmp_path.rglob("*")] == ["log.jsonl"]


def test_folders_on_another_disk_are_emptied(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_run(out)
    for name in ("checkpoint", "pictures"):
        (out / name).rename(tmp_path / name)
        (out / name).symlink_to(tmp_path / name)
    open_run_folder(out, resume=False, overwrite=True)
    assert contents(tmp_path / "checkpoint") == contents(tmp_path / "pictures") == {}
    assert (out / "checkpoint").is_symlink()
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint", "frames", "pictures"]
