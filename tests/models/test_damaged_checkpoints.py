"""A checkpoint's or a judge's folder is not believed, also where its hashes fit what it says."""

import json
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echogen.diffusion.checkpoint import (
    INFO_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    check_sees_known,
    file_sha256,
    read_info,
    verify_checkpoint,
)
from echogen.diffusion.network import load_checkpoint
from echogen.errors import CheckpointError, EchogenError, UsageError
from echogen.judging.describe import describe_judge
from echogen.judging.judge import open_judge
from echogen.models.describe import describe
from echogen.models.registry import read_cards
from echogen.models.verify import verify
from tests.support.judges import write_judge
from tests.support.odd_json import changed, mutations

MOST_SECONDS = 10
EVERY = 8  # mutations are tried; `tests.survival` tries thousands
VERIFIED = 40
"""Every so manieth that can be loaded is verified, too."""


@pytest.fixture
def tiny(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "tiny"))


@pytest.fixture
def limited() -> Iterator[None]:
    """4 GB more than now, so that a bomb is a MemoryError."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 4 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def rehash(folder: Path) -> None:
    """Makes hashes those of the files, as somebody would who wants them to be believed."""
    record = json.loads((folder / INFO_FILE).read_text())
    record["files"] = {name: file_sha256(folder / name) for name in record["files"]}
    record.pop("sha256", None)
    (folder / INFO_FILE).write_text(json.dumps(record))


def outcome(what: str, action: Callable[[], object], folder: Path) -> bool:
    """Whether it worked; else it ended in one line that names the file or the model."""
    began = time.process_time()
    try:
        action()
        worked, message = True, ""
    except EchogenError as error:
        worked, message = False, str(error)
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert time.process_time() - began < MOST_SECONDS, what
    if not worked:
        assert folder.name in message, f"{what}: {message}"
        assert len(message) < 1000, what
        assert "\n" not in message, what
    return worked


def try_mutations(
    folder: Path, file: str, info: Callable[[Path], object], use: Callable[[], object]
) -> None:
    """Use a model with mutations of one of its JSON files: each works, or is refused in one line.

    What can be used can be described by `info`, and each `VERIFIED`th of it verified.
    """
    record = (folder / INFO_FILE).read_text()
    whole = json.loads((folder / file).read_text())
    whole.pop("sha256", None)  # of a record: with it, nothing else is looked at
    used, refused = 0, 0
    for what, text in islice(mutations(whole), 0, None, EVERY):
        (folder / file).write_bytes(text)
        if file != INFO_FILE:
            (folder / INFO_FILE).write_text(record)
            rehash(folder)
        described = outcome(f"info, {what}", lambda: info(folder), folder)
        if outcome(what, use, folder):
            assert described, what
            used += 1
            if used % VERIFIED == 0:
                assert outcome(f"verify, {what}", lambda: verify(folder), folder)
        else:
            refused += 1
    assert used > 2
    assert refused > 40


@pytest.mark.parametrize("file", [UNET_CONFIG, SCHEDULER_CONFIG, INFO_FILE])
def test_every_mutation_of_a_checkpoint_is_used_or_refused_in_one_line(
    tiny: Path, file: str, limited: None
) -> None:
    try_mutations(tiny, file, describe, lambda: load_checkpoint(tiny, "cpu", "fp32"))


def test_every_mutation_of_a_judge_is_used_or_refused_in_one_line(
    tmp_path: Path, limited: None
) -> None:
    folder = write_judge(tmp_path / "small", seen=(("a", "b"), ()))
    image = np.zeros((64, 64), np.uint8)
    label = image.copy()
    label[:32] = 1

    def look() -> None:
        judge = open_judge(folder, describe_judge(folder).labels, lambda line: None)
        if judge is not None:
            judge.look(image, label, label > 0, "a")

    try_mutations(folder, INFO_FILE, describe_judge, look)


@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    [
        (UNET_CONFIG, "layers_per_block", 10**6, "layers_per_block: .* 64"),
        (UNET_CONFIG, "layers_per_block", 40, "has 377,856 weights or more; the file holds"),
        (UNET_CONFIG, "block_out_channels", [65536, 65536], "weights or more; the file holds"),
        (
            UNET_CONFIG,
            "block_out_channels",
            [16] * 17,
            "block_out_channels: expected at most 16 values",
        ),
        (UNET_CONFIG, "down_block_types", ["DownBlock2D"], "one for each of 2 block_out_channels"),
        (UNET_CONFIG, "in_channels", -16, "in_channels: "),
        (UNET_CONFIG, "in_channels", True, "in_channels: "),
        (UNET_CONFIG, "norm_num_groups", 5, "must divide all widths, got 5 for 16"),
        (UNET_CONFIG, "sample_size", [8] * 9, "sample_size"),
        (SCHEDULER_CONFIG, "num_train_timesteps", 10**9, "num_train_timesteps: .* 100000"),
        (
            SCHEDULER_CONFIG,
            "num_train_timesteps",
            True,
            "num_train_timesteps: expected a whole number",
        ),
        (SCHEDULER_CONFIG, "beta_start", 0.5, "beta_start must be at most beta_end"),
        (SCHEDULER_CONFIG, "trained_betas", [0.999] * 100, "betas must leave 1e-30 of a picture"),
        (SCHEDULER_CONFIG, "trained_betas", [0.1, "x"], r"trained_betas\.1: "),
        (INFO_FILE, "name", "../../../etc", "name: "),
        (INFO_FILE, "name", "a\nb", "name: "),
        (INFO_FILE, "image_size", 10**6, "image_size: .* 2048"),
        (INFO_FILE, "format", True, "expected format 1, found True"),
        (INFO_FILE, "labels", {"999": "x"}, "labels"),
    ],
)
def test_the_field_is_named(tiny: Path, file: str, path: str, value: object, message: str) -> None:
    whole = json.loads((tiny / file).read_text())
    (tiny / file).write_bytes(changed(whole, (path,), value))
    rehash(tiny)
    for use in (lambda: load_checkpoint(tiny, "cpu"), lambda: describe(tiny)):
        with pytest.raises(CheckpointError, match=message) as caught:
            use()
        assert str(tiny / file) in str(caught.value) or str(tiny / WEIGHTS) in str(caught.value)


def with_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["conv_in.bias"].update(shape=[10**12]),
        lambda header: header["conv_in.bias"].update(shape=[-1, -16]),
        lambda header: header["conv_in.bias"].update(shape=[True] * 16),
        lambda header: header["conv_in.bias"].update(dtype="I64"),
        lambda header: header["conv_in.bias"].update(data_offsets=[0, 10**12]),
        lambda header: header["conv_in.bias"].pop("shape"),
        lambda header: header.update({"conv_in.bias": 7}),
        lambda header: header.update({"conv_in.bias": header["conv_out.weight"]}),
        lambda header: header.update({"x" * 10**5: header.pop("conv_in.bias")}),
        lambda header: header.pop("conv_in.bias"),
        lambda header: header.update(__metadata__=[1]),
    ],
)
def test_a_header_is_not_believed(tiny: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with_header(tiny / WEIGHTS, change)
    rehash(tiny)
    with pytest.raises(CheckpointError, match=WEIGHTS) as caught:
        load_checkpoint(tiny, "cpu")
    assert len(str(caught.value)) < 700


def test_a_header_longer_than_its_file_and_a_folder_are_no_weights(tiny: Path) -> None:
    (tiny / WEIGHTS).write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match=r"a header of 1,152,921,504,606,846,976 bytes"):
        describe(tiny)
    (tiny / WEIGHTS).unlink()
    (tiny / WEIGHTS).mkdir()
    with pytest.raises(CheckpointError, match="only regular files are read"):
        describe(tiny)


def test_a_judge_with_another_network_is_refused(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    file = folder / "network" / "fold0.safetensors"
    with_header(file, lambda header: header.pop("model.0.conv.bias"))
    rehash(folder)
    with pytest.raises(CheckpointError, match=r"fold0.safetensors: not a judge's network"):
        open_judge(folder, {1: "LV cavity"}, lambda line: None)


def test_a_model_without_a_name_is_one_all_the_same(tiny: Path) -> None:
    whole = json.loads((tiny / INFO_FILE).read_text())
    (tiny / INFO_FILE).write_bytes(changed(whole, ("name",), ""))
    with pytest.raises(UsageError, match="without a name"):
        check_sees_known("none", read_info(tiny).name)


def test_weights_that_claim_a_terabyte_are_not_hashed(tiny: Path) -> None:
    with (tiny / WEIGHTS).open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(CheckpointError, match=r"safetensors has 1,000,000,000,000 bytes"):
        verify_checkpoint(tiny)


def test_a_file_of_cards_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOGEN_HOME", str(tmp_path))
    (tmp_path / "models.toml").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"models\.toml: cannot be read"):
        read_cards()
