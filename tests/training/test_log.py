"""A run's log: what a kill or a stranger left in it costs lines, and no run."""

import os
from pathlib import Path

import pytest

from echogen.errors import CheckpointError
from echogen.training.log import RunLog
from tests.support.tiny_training import read_log

ODD = ("[" * 100_000 + '{"step": 1}\n', '{"step": 1e999}\n', '{"step": NaN}\n', "[1]}\n",
       '{"step": "1"}\n',
       f'{{"step": {"9" * 5000}}}\n', '{"event": "\\ud800", "step": 1}\n', "\0\0{}\n")  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_a_line_that_is_none_of_ours_is_dropped(tmp_path: Path, odd: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"event": "start", "step": 0}\n' + odd + '{"event": "train", "step": 2}\n')
    RunLog(file, 2).close()
    assert [line["step"] for line in read_log(file)] == [0, 2]


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(CheckpointError, match=r"log\.jsonl: cannot be read \(not a regular file"):
        RunLog(tmp_path / "log.jsonl", 2)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        RunLog(tmp_path / "log.jsonl", 2)
