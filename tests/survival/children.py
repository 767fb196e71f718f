"""Calls in forked children of a warm process, under limits: what became of each, and what it said.

A fork shares what the parent has imported, so that a command of a second costs its work alone. The
parent starts no thread and opens no store: it only imports, forks and waits.
"""

import ctypes
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from echogen.support.reading import read_bytes

MOST_BYTES = 2 * 2**30
"""Of memory, above what the parent holds."""
CPU_S, WALL_S = 30, 120
MOST_SAID = 4_000_000
FILE_BYTES = 2**30  # a child that writes more is refused, and does not fill the disk
TRACE = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code, or minus the signal's number.
        out, err: what it printed, at most `MOST_SAID` bytes each.
        hung: it was ended for its time.
        seconds: that it lived.
        megabytes: its peak above the parent's memory.
    """

    code: int
    out: str
    err: str
    hung: bool
    seconds: float
    megabytes: float

    @property
    def where(self) -> str:
        """The last place of a traceback in echogen, and its error; empty without one."""
        text = self.err + self.out
        if TRACE not in text:
            return ""
        places = re.findall(r'File ".*/echogen/(\S+\.py)", line (\d+)', text)
        errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*$", text, re.MULTILINE)
        place = ":".join(places[-1]) if places else ""
        return f"{place} {errors[-1][:200] if errors else ''}".strip()

    @property
    def fault(self) -> str:
        """`hang`, `memory`, `signal`, `traceback`, `wrong exit code`, or nothing."""
        if self.hung:
            return "hang"
        if (
            self.megabytes * 1e6 > MOST_BYTES
            or "MemoryError" in self.err
            or "bad_alloc" in self.err
        ):
            return "memory"
        if self.code < 0:
            return "signal"
        if TRACE in self.err or TRACE in self.out:
            return "traceback"
        return "" if self.code in range(7) else "wrong exit code"


def import_all() -> None:
    """What commands import, so that children need not."""
    import av  # noqa: F401
    import gdcm  # noqa: F401
    import h5py  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pydicom.pixels  # noqa: F401
    import scipy.ndimage
    import scipy.optimize  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch
    import zarr.codecs  # noqa: F401
    from diffusers import UNet2DModel  # noqa: F401

    import echogen.cli
    import echogen.commands.expand
    import echogen.commands.export
    import echogen.commands.preview
    import echogen.commands.stats
    import echogen.commands.train
    import echogen.commands.validate
    import echogen.models.verify
    import echogen.painting.local  # noqa: F401

    torch.set_num_threads(1)


def in_child(
    call: Callable[[], int | None],
    folder: Path,
    *,
    memory: int = MOST_BYTES,
    cpu_s: int = CPU_S,
    wall_s: float = WALL_S,
) -> Ended:
    """Call something in a forked child whose working folder is `folder`.

    Args:
        call: its result is the exit code, None is 0.
        folder: there is one.
        memory: bytes that the child may take beyond the parent's.
        cpu_s: of processor time.
        wall_s: of time.
    """
    held = _held_kb()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(_child(call, folder, (out.fileno(), err.fileno()), memory, cpu_s))
        status, usage, late = _wait(pid, wall_s)
        seconds = time.monotonic() - began
        code = os.waitstatus_to_exitcode(status)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read(MOST_SAID).decode("utf-8", "backslashreplace"))
    hung = late or code == -signal.SIGXCPU
    return Ended(code, *said, hung, seconds, max(0, usage.ru_maxrss - held) / 1000)


def command(*words: str) -> Callable[[], int | None]:
    """A call of the command line with these words; `@FILE` is a `--set` for each line of a file."""

    def call() -> int | None:
        from echogen.cli import main

        sys.argv = ["echogen"]
        for word in words:
            sys.argv += _set_by(Path(word[1:])) if word[0] == "@" else [word]
        main()
        return 0

    return call


def _set_by(file: Path) -> list[str]:
    try:
        lines = read_bytes(file).replace(b"\0", b"").split(b"\n")
    except OSError:  # a flag has no file
        return []
    return [word for line in lines if line for word in ("--set", os.fsdecode(line))]


def drop_rights() -> None:
    """Root's right to read what its mode forbids, in this process and for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(head, held):
        raise OSError(ctypes.get_errno(), "capget")
    held[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(head, held):
        raise OSError(ctypes.get_errno(), "capset")


def _child(
    call: Callable[[], int | None], folder: Path, outputs: Sequence[int], memory: int, cpu_s: int
) -> int:
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(  # noqa: SIM115
            2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
        )
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_DFL)
        os.chdir(folder)
        _limit(memory, cpu_s)
        code: object = call()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 1
    return code if isinstance(code, int) else 0


def _limit(memory: int, cpu_s: int) -> None:
    with Path("/proc/self/status").open() as file:
        held = next(int(line.split()[1]) for line in file if line.startswith("VmData:"))
    for what, most in (
        (resource.RLIMIT_DATA, held * 1024 + memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))


def _wait(pid: int, wall_s: float) -> tuple[int, resource.struct_rusage, bool]:
    """(status, usage, ended for its time); what it started ends with it."""
    end, pause, late = time.monotonic() + wall_s, 0.001, False
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            break
        if not late and time.monotonic() > end:
            late = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return status, usage, late
    return status, usage, late


@cache
def _held_kb() -> int:
    """The peak of a child that does nothing."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss
