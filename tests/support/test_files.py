"""Files are the old ones or the new ones, whole, whatever happens while they are written."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from echogen.support.files import remove_partials, write_whole


@pytest.mark.parametrize("durable", [False, True])
def test_text_bytes_and_what_a_function_writes_replace_a_file(
    tmp_path: Path, durable: bool
) -> None:
    path = tmp_path / "a.txt"
    for content, expected in (
        ("µm", "µm".encode()),
        (b"\0\1", b"\0\1"),
        (lambda place: place.write_text("new"), b"new"),
    ):
        write_whole(path, content, durable=durable)
        assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file_and_what_it_left_beside_goes(tmp_path: Path) -> None:
    path, other = tmp_path / "a.bin", tmp_path / ".b.bin.12.partial"
    path.write_bytes(b"old")
    other.write_bytes(b"of another file")
    killed = (
        "import os, sys; from pathlib import Path; from echogen.support.files import write_whole\n"
        "def half(place):\n    place.write_bytes(b'ne')\n    os.kill(os.getpid(), 9)\n"
        "write_whole(Path(sys.argv[1]), half)"
    )
    assert subprocess.run([sys.executable, "-c", killed, path], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
    remove_partials([path, tmp_path / "not" / "there.txt"])
    assert sorted(tmp_path.iterdir()) == [other, path]
