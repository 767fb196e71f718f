"""Folders and files that may not be read: one sentence with the path, and the table's exit code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LEAST = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read all"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of the folder layout."""
    grey, label = np.arange(1, 4097, dtype="u2").reshape(64, 64) % 255, np.zeros((64, 64), "u1")
    label[20:40, 20:40] = 1
    for name, pixels in (("images", grey.astype("u1")), ("labels", label)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "a.png")
    return tmp_path / "data"


def start(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`echogen` by one who may not read what a mode forbids."""
    least = LEAST if os.geteuid() == 0 else []
    return subprocess.run(
        [*least, sys.executable, "-m", "echogen", *words],
        cwd=place.parent, capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


ON_A_DATASET = [
    "validate data",
    "stats data",
    "preview data --out p.png",
    "preview data --fans --out p.png",
    "expand --in data --out x.zarr --copies 1",
    "train --in data --out m --hours 0.001",
]


@pytest.mark.parametrize("inside", ["", "labels"])
@pytest.mark.parametrize("words", ON_A_DATASET)
def test_a_folder_of_a_dataset_that_may_not_be_listed_is_a_dataset_error(
    words: str, inside: str, folder: Path
) -> None:
    (folder / inside).chmod(0)
    done = start(folder, *words.split())
    (folder / inside).chmod(0o755)
    place = f"data/{inside}".rstrip("/")
    assert f"{place}: cannot be read (Permission denied)." in done.stdout + done.stderr
    assert done.returncode == 3
    assert not (folder.parent / "x.zarr").exists()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("export made.zarr --to folder --out e", "made.zarr"),
        ("export data --to folder --out e", "data"),
        ("validate made.zarr", "made.zarr"),
        ("stats made.zarr", "made.zarr"),
        ("preview made.zarr --out p.png", "made.zarr"),
        ("expand --in other --out made.zarr --copies 1", "made.zarr"),
    ],
)
def test_a_store_that_may_not_be_read_is_a_store_error(words: str, name: str, folder: Path) -> None:
    (folder.parent / "made.zarr").mkdir()
    shutil.copytree(folder, folder.parent / "other")
    (folder.parent / name).chmod(0)
    done = start(folder, *words.split())
    (folder.parent / name).chmod(0o755)
    assert done.returncode == 5, done.stderr
    assert re.search(rf"{name}\S*: \w[^\n]* \(Permission denied\)\.\n", done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("expand --in data --out x.zarr --config secret", 2),
        ("expand --in data --out x.zarr --fans secret", 2),
        ("validate data --config secret", 2),
        ("validate secret", 5),
        ("export secret --to folder --out e", 5),
        ("preview data --plan secret --out p.png", 3),
        ("train --frames secret --out m --hours 1", 3),
        ("train --in data --out m --preset secret", 2),
        ("checkpoint import secret --out c --noise-schedule linear --steps 9 --num-heads 1", 4),
    ],
)
def test_a_file_that_may_not_be_read_is_told(words: str, code: int, folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_text("")
    secret.chmod(0)
    done = start(folder, *words.split())
    assert "╭" not in done.stderr
    assert re.search(r"secret: \w[^\n]* \(Permission denied\)[.;]", done.stdout + done.stderr)
    assert done.returncode == code
