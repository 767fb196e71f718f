"""A disk that is full, fails or may not be written to, and other hands on the output meanwhile.

The command ends with one plain sentence, and later, undisturbed, as if nothing had happened.
"""

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.survival.calls import GO, Call, Ended, is_idle
from tests.survival.kills import Counting, changes
from tests.survival.record import Record
from tests.survival.scenes import SCENES, Workshop, difference

CODES = (2, 3, 4, 5, 6)
NOBODY = 65534
YEAR_S = 3.2e7
_GROWING = ("write", "open", "mkdir", "link", "symlink", "truncate", "fallocate")


def plain(ended: Ended, codes: tuple[int, ...] = CODES) -> str:
    """Why a run did not end well, nor with one sentence to its user; or an empty text."""
    lines = [line for line in ended.output.splitlines() if line.startswith("echogen: ")]
    last = "\n".join(ended.output.strip().splitlines()[-2:])[-300:]
    if ended.code in (0, 1):
        return ""
    if ended.code is None:
        return f"hung: {last}"
    if ended.code not in codes:
        return f"ends with {ended.code}: {last}"
    if "Traceback" in ended.output or "Exception ignored" in ended.output or len(lines) != 1:
        return f"ends with {ended.code}, but not with one sentence: {last}"
    return ""


class Failing:
    """Lets calls that the disk would refuse fail.

    Attributes:
        at: number of the first one.
        error: with which.
        once: only that one; else every later one that takes space, too.
    """

    def __init__(self, at: int, error: int, once: bool) -> None:
        self.at, self.error, self.once, self.seen = at, error, once, -1

    def __call__(self, call: Call) -> int:
        growing = call.name in _GROWING and not is_idle(call)
        if not (self.once or growing):
            return GO
        self.seen += 1
        fails = self.seen == self.at if self.once else self.seen >= self.at
        return self.error if fails else GO


def run(workshop: Workshop, record: Record, names: list[str], until: float, every: int = 1) -> None:
    """Every `every`-th disturbance of each scene."""
    for name in names:
        if time.monotonic() > until:
            return
        for what, disturb in list(_disturbances(workshop, name))[::every]:
            key = f"{name}: {what}"
            if record.has("disk", key):
                continue
            if time.monotonic() > until:
                return
            workshop.reset(name)
            ended, fault = disturb()
            if not fault and ended.code == 0 and what.split()[0] in REFUSED:
                fault = workshop.lacks(name)
            if what.startswith("clock"):
                fault = fault or workshop.again(name, known=False)
            fault = fault or workshop.finished(name, ended)
            said = next((x for x in ended.output.splitlines() if x.startswith("echogen: ")), "")
            record.add("disk", key, name, fault, code=ended.code, said=said[:300])


REFUSED = ("a", "files", "full", "over", "fails")
"""How disturbances begin after which a command that says that all is well must have done all."""

Disturbance = Callable[[], tuple[Ended, str]]


def _disturbances(workshop: Workshop, name: str) -> Iterator[tuple[str, Disturbance]]:
    """(what is done, how): gives how the disturbed command ended, and its fault."""
    words, total = SCENES[name].words, len(changes(workshop, name))

    def command(**how: Any) -> tuple[Ended, str]:
        ended = workshop.command(words, **how)
        return ended, plain(ended)

    if os.getuid() == 0:
        for pages in (1, 2, 4, 8, 16, 32, 64, 128):
            yield f"a disk of {pages} free pages", partial(_on_small_disk, workshop, command, pages)
    for size in (0, 10, 100, 400, 1000, 3000, 10_000, 100_000):
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        yield f"files of {size} bytes at most", partial(command, first=limit)
    yield "a folder of another user", partial(_read_only, workshop, command)
    for at in sorted({total * part // 8 for part in range(8)}):
        yield f"removed at call {at}", partial(_removed, workshop, command, at)
        yield f"clock set back after call {at}", partial(_set_back, workshop, words, at)
        yield f"another run at call {at}", partial(_two, workshop, name, at)
    for at in range(total):
        kind, error = (("full", errno.ENOSPC), ("over quota", errno.EDQUOT))[at % 2]
        yield f"{kind} from call {at}", partial(_watched, command, Failing(at, error, False))
        yield f"fails at call {at}", partial(_watched, command, Failing(at, errno.EIO, True))


def _watched(command: Callable[..., tuple[Ended, str]], watch: Failing) -> tuple[Ended, str]:
    return command(watch=watch)


def _on_small_disk(
    workshop: Workshop, command: Callable[..., tuple[Ended, str]], pages: int
) -> tuple[Ended, str]:
    place, before = workshop.place, workshop.folder / "kept"
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(place, before)
    with _mounted(place) as resize:
        shutil.copytree(before, place, dirs_exist_ok=True)
        used = os.statvfs(place)
        resize(used.f_blocks - used.f_bfree + pages)
        ended, fault = command()
        shutil.rmtree(before)
        shutil.copytree(place, before)
    shutil.rmtree(place)
    shutil.copytree(before, place)
    return ended, fault


@contextmanager
def _mounted(place: Path) -> Iterator[Callable[[int], None]]:
    def mount(options: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        subprocess.run(words, check=True, capture_output=True)

    mount("size=64m")
    try:
        yield lambda pages: mount(f"remount,size={pages * os.sysconf('SC_PAGE_SIZE')}")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _read_only(workshop: Workshop, command: Callable[..., tuple[Ended, str]]) -> tuple[Ended, str]:
    def become_nobody() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    workshop.place.chmod(0o555)
    ended, fault = command(first=become_nobody)
    workshop.place.chmod(0o755)
    if not fault and ended.code == 0:
        fault = "writes to a folder of another user"
    return ended, fault


def _removed(
    workshop: Workshop, command: Callable[..., tuple[Ended, str]], at: int
) -> tuple[Ended, str]:
    count = Counting()

    def watch(call: Call) -> int:
        before = len(count.calls)
        count(call)
        if before <= at < len(count.calls):
            for path in workshop.place.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return GO

    return command(watch=watch)


def _set_back(workshop: Workshop, words: list[str], at: int) -> tuple[Ended, str]:
    """Killed, and continued when files are of the future."""
    ended = workshop.command(words, watch=Counting(at))
    later = time.time() + YEAR_S
    for path in (workshop.place, *workshop.place.rglob("*")):
        with suppress(FileNotFoundError):
            os.utime(path, (later, later))
    return ended, ""


def _two(workshop: Workshop, name: str, at: int) -> tuple[Ended, str]:
    """A second run of the same command while the first one waits in a call."""
    words, count, others = SCENES[name].words, Counting(), []

    def watch(call: Call) -> int:
        before = len(count.calls)
        count(call)
        if before <= at < len(count.calls):
            others.append(workshop.command(words))
        return GO

    ended = workshop.command(words, watch=watch)
    both = [ended, *others]
    fault = "; ".join(filter(None, map(plain, both)))
    if not fault and not SCENES[name].then and all(each.code in (0, 1) for each in both):
        fault = difference(workshop.left(), workshop.undisturbed(name)[1])
    elif not fault and all(each.code not in (0, 1) for each in both):
        fault = "both runs fail"
    return (others or [ended])[0], fault
