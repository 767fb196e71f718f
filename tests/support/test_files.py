"""Files and folders are the old ones or the new ones, whole, whatever happens meanwhile."""

import errno
import os
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from echogen.support import files
from echogen.support.files import (
    clear_leftovers,
    creating_path,
    put_folder,
    remove_folder,
    remove_partials,
    write_private,
    write_whole,
)
from tests.support.faults import contents, every_kill, in_child, on_rename


def test_text_bytes_and_what_a_function_writes_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, expected in (
        ("µm", "µm".encode()),
        (b"\0\1", b"\0\1"),
        (lambda place: place.write_text("new"), b"new"),
    ):
        write_whole(path, content)
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


def test_a_killed_write_leaves_the_old_file_and_nothing_after_the_next_one(tmp_path: Path) -> None:
    path, other = tmp_path / "a.bin", tmp_path / ".b.bin.partial"
    other.write_bytes(b"of another file")

    def half(place: Path) -> None:
        place.write_bytes(b"ne")
        os.kill(os.getpid(), signal.SIGKILL)

    path.write_bytes(b"old")
    assert in_child(lambda: write_whole(path, half)) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
    write_whole(path, b"new")
    assert contents(tmp_path) == {".b.bin.partial": b"of another file", "a.bin": b"new"}
    assert in_child(lambda: write_whole(path, half)) == -signal.SIGKILL
    remove_partials([path, tmp_path / "not" / "there.txt", other / "below"])
    assert contents(tmp_path) == {".b.bin.partial": b"of another file", "a.bin": b"new"}


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def meanwhile(place: Path) -> None:
        place.write_bytes(b"first")
        with pytest.raises(OSError, match="another process is writing it"):
            write_whole(path, b"second")

    write_whole(path, meanwhile)
    assert contents(tmp_path) == {"a.bin": b"first"}


def test_a_private_file_was_never_anybody_elses(tmp_path: Path) -> None:
    path = tmp_path / "who.csv"
    (tmp_path / ".who.csv.partial").touch(0o644)
    write_private(path, "patient")
    assert path.stat().st_mode & 0o777 == 0o600


def write_folder(folder: Path, text: str) -> None:
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "below" / "b.txt").write_text(text)


def new_and_old(tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "there", ignore_errors=True)
    write_folder(tmp_path / "there" / "model", "old")
    return tmp_path / "there" / "model"


def replace(path: Path) -> None:
    clear_leftovers(path)
    write_folder(creating_path(path), "new")
    put_folder(creating_path(path), path)


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_folder_killed_while_it_is_replaced_is_the_old_or_the_new_one(
    tmp_path: Path, exchanging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there" / "model"
    new = {"a.txt": b"new", "below": None, "below/b.txt": b"new"}
    if not exchanging:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)

    def look() -> None:
        if not exchanging:
            clear_leftovers(path)
        assert set(filter(None, contents(path).values())) in ({b"old"}, {b"new"})
        replace(path)

    def check(where: str) -> None:
        assert contents(path) == new
        assert list(path.parent.iterdir()) == [path]

    def prepare() -> None:
        new_and_old(tmp_path)

    assert every_kill(tmp_path, prepare, lambda: replace(path), check, again=look) > 12


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_and_old(tmp_path)
    write_folder(creating_path(path), "new")

    tries: list[str] = []

    def full(place: str) -> None:
        tries.append(place)
        if tries.count(str(path)) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

    for exchanging in (True, False):
        if not exchanging:
            monkeypatch.setattr(files, "exchange", lambda one, other: False)
        tries.clear()
        with on_rename(full), pytest.raises(OSError, match="No space"):
            put_folder(creating_path(path), path)
        assert (path / "a.txt").read_text() == "old"
    clear_leftovers(path)
    assert list(path.parent.iterdir()) == [path]


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    mine = [".m.zarr.creating-old", ".m.zarr.removing-", ".other.removing", "m.zarr.removing",
            ".mXzarr.removing"]  # fmt: skip
    for name in (*mine, ".m.zarr.creating-12", ".m.zarr.removing-3", ".m.zarr.replaced"):
        (tmp_path / name / "below").mkdir(parents=True)
    (tmp_path / ".m.zarr.converting").touch()
    (tmp_path / "m.zarr").mkdir()
    (tmp_path / ".m.zarr.removing").symlink_to(tmp_path / ".other.removing")
    clear_leftovers(tmp_path / "m.zarr")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([*mine, "m.zarr"])
    assert (tmp_path / ".other.removing" / "below").is_dir()
    clear_leftovers(tmp_path / "no" / "folder")


def test_a_leftover_gives_a_new_file_neither_its_content_nor_its_mode(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.partial").write_text("of a killed one")
    (tmp_path / ".a.txt.partial").chmod(0o600)

    def write(place: Path) -> None:
        with place.open("r+") as file:
            file.write("new")

    write_whole(tmp_path / "a.txt", write)
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two other users")
def test_a_leftover_of_another_user_is_in_nobodys_way() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        shared.chmod(0o777)
        (shared / ".a.txt.partial").write_text("of a killed one")
        os.chown(shared / ".a.txt.partial", 3001, 3001)

        def write() -> None:
            os.setuid(3002)
            write_whole(shared / "a.txt", "new")

        assert in_child(write) == 0
        assert contents(shared) == {"a.txt": b"new"}


def test_what_cannot_be_removed_yet_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a file on a network's disk that another process has open."""
    path, remove = tmp_path / "model", shutil.rmtree

    def stays(place: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(place))

    monkeypatch.setattr(shutil, "rmtree", stays)
    for content in ("1", "2", "3"):
        clear_leftovers(path)
        creating_path(path).mkdir()
        (creating_path(path) / "a").write_text(content)
        put_folder(creating_path(path), path)
        assert (path / "a").read_text() == content
    monkeypatch.setattr(shutil, "rmtree", remove)
    clear_leftovers(path)
    assert contents(tmp_path) == {"model": None, "model/a": b"3"}


def test_a_folder_on_another_disk_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "model").mkdir(parents=True)
    path = tmp_path / "model"
    path.symlink_to(tmp_path / "disk" / "model")
    creating_path(path).mkdir()
    (creating_path(path) / "a").write_text("new")
    put_folder(creating_path(path), path)
    assert path.is_symlink()
    assert (tmp_path / "disk" / "model" / "a").read_text() == "new"
    (tmp_path / ".model.removing").symlink_to(tmp_path / "disk" / "model")
    remove_folder(path)
    assert contents(tmp_path / "disk") == {}
    assert not (tmp_path / ".model.removing").is_symlink()


def test_leftovers_of_another_name_stay(tmp_path: Path) -> None:
    for name in (".a.partial", ".a.1.partial", ".a.b.partial", ".b.partial"):
        (tmp_path / name).touch()
    (tmp_path / ".b.2.creating").mkdir()
    remove_partials([tmp_path / "a", tmp_path / "none" / "a", tmp_path / ".b.partial" / "a"])
    clear_leftovers(tmp_path / "b")
    assert set(contents(tmp_path)) == {".a.1.partial", ".a.b.partial", ".b.2.creating"}


def test_links_in_a_circle_have_no_leftovers(tmp_path: Path) -> None:
    circle = tmp_path / "log.jsonl"
    circle.symlink_to(circle)
    clear_leftovers(circle)
    assert circle.is_symlink()
