"""A command run in a forked child, each of its system calls that change the disk held for a word.

The kernel (seccomp's user notification) stops the calling thread before such a call and asks here:
nothing that any library does is missed, and the child is killed, refused or let go exactly there.
"""

import ctypes
import errno
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

GO, KILL = 0, -1
"""Answers to a call; an errno lets it fail with that."""
SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range", "syncfs", "msync"})
"""Calls that change nothing but what a power cut would leave."""

# {name: (number on x86-64, what its arguments are)}: F a descriptor, P a path, D a folder's
# descriptor for the path that follows, B a buffer, N its size, O an offset, V and C a vector, S a
# size, M the flags of an opening or a renaming, a dot anything else.
_CALLS = {
    "write": (1, "FBN"), "pwrite64": (18, "FBNO"), "writev": (20, "FVC"),
    "pwritev": (296, "FVCO"), "pwritev2": (328, "FVCO"), "sendfile": (40, "F"),
    "copy_file_range": (326, "..F"), "splice": (275, "..F"), "fallocate": (285, "F"),
    "truncate": (76, "PS"), "ftruncate": (77, "FS"), "open": (2, "PM"), "creat": (85, "P"),
    "openat": (257, "DPM"), "openat2": (437, "DP"), "mknod": (133, "P"), "mknodat": (259, "DP"),
    "mkdir": (83, "P"), "mkdirat": (258, "DP"), "rmdir": (84, "P"), "unlink": (87, "P"),
    "unlinkat": (263, "DPM"), "rename": (82, "PP"), "renameat": (264, "DPDP"),
    "renameat2": (316, "DPDPM"), "link": (86, "PP"), "linkat": (265, "DPDP"),
    "symlink": (88, ".P"), "symlinkat": (266, ".DP"), "fsync": (74, "F"), "fdatasync": (75, "F"),
    "sync_file_range": (277, "F"), "syncfs": (306, "F"), "mmap": (9, "....F"),
    "chmod": (90, "P"), "fchmod": (91, "F"), "fchmodat": (268, "DP"), "fchmodat2": (452, "DP"),
    "chown": (92, "P"), "fchown": (93, "F"), "lchown": (94, "P"), "fchownat": (260, "DP"),
    "utime": (132, "P"), "utimes": (235, "P"), "futimesat": (261, "DP"), "utimensat": (280, "DP"),
    "setxattr": (188, "P"), "lsetxattr": (189, "P"), "fsetxattr": (190, "F"),
}  # fmt: skip
_NAMES = {number: (name, shape) for name, (number, shape) in _CALLS.items()}
PLAIN = {"creat": "open", "openat": "open", "openat2": "open", "mknodat": "mknod",
          "mkdirat": "mkdir", "unlinkat": "unlink", "renameat": "rename", "renameat2": "rename",
          "linkat": "link", "symlinkat": "symlink", "pwrite64": "write", "writev": "write",
          "pwritev": "write", "pwritev2": "write", "ftruncate": "truncate"}  # fmt: skip
TRACED = tuple(name for name in _CALLS if name != "mmap")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SECCOMP, _PDEATHSIG, _NO_NEW_PRIVS = 317, 1, 38
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_HERE = -100  # AT_FDCWD
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Call:
    """One system call that is about to be made.

    Attributes:
        name: of the simplest call of its kind: `open` for `openat`, `write` for `pwritev`.
        path: of the file or folder concerned.
        other: the new name of a rename or link.
        offset, data: what a write puts where.
        size: that a truncation gives.
        flags: of an opening, a removal or a renaming.
    """

    name: str
    path: Path
    other: Path | None
    offset: int
    data: bytes
    size: int
    flags: int

    def __str__(self) -> str:
        size = f" of {len(self.data)} bytes" if self.data else ""
        other = f" to {self.other.name}" if self.other else ""
        return f"{self.name}{size} {self.path.name}{other}"


def is_idle(call: Call) -> bool:
    """Whether the call finds what it is to make, or not what it is to remove."""
    there = os.path.lexists(call.path)
    if call.name == "open":
        return there and not call.flags & os.O_TRUNC
    return (call.name == "mkdir" and there) or (call.name in ("unlink", "rmdir") and not there)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, or minus the signal, or None where it hung and was ended."""

    code: int | None
    output: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


def unsupported() -> str:
    """Why nothing can be watched here, or an empty text."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "system calls are watched on Linux on x86-64 only"
    sizes = (ctypes.c_uint16 * 3)()
    if _libc.syscall(_SECCOMP, 3, 0, ctypes.byref(sizes)) != 0:
        return "this kernel does not report system calls (seccomp's user notification)"
    return ""


def run(
    work: Callable[[], int],
    *,
    below: Path | None = None,
    watch: Callable[[Call], int] | None = None,
    kill_after: float = 0.0,
    limit: float = 120.0,
) -> Ended:
    """Runs `work` in a forked child.

    Args:
        work: gives the exit code.
        below: calls that concern this folder are asked about, others are not.
        watch: answers each of them.
        kill_after: seconds, more than 0, until the child's group is killed.
        limit: seconds after which it is taken to hang.
    """
    ours, theirs = socket.socketpair()
    said, output = os.pipe()
    os.set_blocking(said, False)
    began = time.monotonic()
    child = os.fork()
    if not child:
        _be_child(work, output, theirs, watch is not None)
    theirs.close()
    os.close(output)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, child)
    ended, listener = os.pidfd_open(child), None
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(said, select.POLLIN)
    text = b""
    if watch is not None:
        descriptors = socket.recv_fds(ours, 1, 1)[1]
        listener = descriptors[0] if descriptors else None
    if listener is not None:
        poll.register(listener, select.POLLIN)
    hung = False
    try:
        while True:
            until = min(t for t in (kill_after, limit) if t) - (time.monotonic() - began)
            ready = poll.poll(max(0.0, until) * 1000)
            if any(which == ended for which, _ in ready):
                break
            if not ready:
                hung = not kill_after
                _kill(child)
                kill_after, limit = 0.0, 1e6
            for which, what in ready:
                if not what & select.POLLIN:
                    poll.unregister(which)
                elif which == said:
                    text += os.read(said, 65536)
                elif watch is not None and below is not None:
                    _answer(which, child, below, watch)
    finally:
        _kill(child)
        _, status = os.waitpid(child, 0)
        with suppress(BlockingIOError):
            while more := os.read(said, 65536):
                text += more
        for descriptor in (said, ended, listener):
            if descriptor is not None:
                os.close(descriptor)
        ours.close()
    code = None if hung else os.waitstatus_to_exitcode(status)
    return Ended(code, text.decode(errors="replace"), time.monotonic() - began)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _be_child(work: Callable[[], int], output: int, line: socket.socket, watched: bool) -> None:
    code = 70
    try:
        _libc.prctl(_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (of a descriptor, for good)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        if watched:
            socket.send_fds(line, [b"."], [_listen()])
        line.close()
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _listen() -> int:
    """The calling thread, and what it starts, asks from now on; where to hear it."""
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (1 << 3 | 1 << 5, 1 << 3):  # a listener; signals do not break a call that waits
        listener = _libc.syscall(_SECCOMP, 1, flags, header)
        if listener >= 0:
            return int(listener)
    raise OSError(ctypes.get_errno(), "seccomp")


def _program() -> bytes:
    """The filter: opens that only read, and memory that is not a file's, go unasked."""

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    def jump(how: int, value: int, yes: int, no: int) -> bytes:
        return struct.pack("HBBI", how, yes, no, value)

    equal, any_of, number, argument = 0x15, 0x45, 0, 16
    allow, ask = (struct.pack("HBBI", 0x06, 0, 0, how) for how in (_ALLOW, _ASK))
    steps = [load(number)]
    for name, (value, shape) in _CALLS.items():
        if name in ("open", "openat"):
            flags = load(argument + 8 * shape.index("M"))
            steps += [jump(equal, value, 0, 4), flags, jump(any_of, _WRITES, 1, 0), allow, ask]
        elif name == "mmap":  # PROT_WRITE and MAP_SHARED, of a file
            prot, shared, file = (load(argument + 8 * place) for place in (2, 3, 4))
            steps += [jump(equal, value, 0, 10), prot, jump(any_of, 2, 1, 0), allow]
            steps += [shared, jump(any_of, 1, 1, 0), allow, file, jump(equal, 2**32 - 1, 1, 0)]
            steps += [ask, allow]
        else:
            steps += [jump(equal, value, 0, 1), ask]
    return b"".join([*steps, allow])


def _answer(listener: int, child: int, below: Path, watch: Callable[[Call], int]) -> None:
    asked = bytearray(80)
    try:
        ioctl(listener, _RECEIVE, asked)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # it has just been killed
            return
        raise
    ident, thread, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", asked)
    call = _read(thread, number, arguments)
    answer = GO
    if call is not None and any(
        place is not None and place.is_relative_to(below) for place in (call.path, call.other)
    ):
        answer = watch(call)
    if answer == KILL:
        _kill(child)
        return
    flags = 0 if answer else 1  # go on with the call itself
    with suppress(OSError):  # it may have been killed meanwhile
        ioctl(listener, _ANSWER, struct.pack("=QqiI", ident, 0, -answer, flags))


def _read(thread: int, number: int, arguments: list[int]) -> Call | None:
    """The call in words; None where its thread has ended, or it concerns no file."""
    name, shape = _NAMES[number]
    found = {"M": 0, "S": 0, "O": -1, "N": 0}
    paths, folder, descriptor, data = [], _HERE, -1, b""
    try:
        for kind, value in zip(shape, arguments, strict=False):
            if kind == "P":
                paths.append(_path(thread, folder, value))
                folder = _HERE
            elif kind == "D":
                folder = ctypes.c_int(value).value
            elif kind == "F":
                descriptor = ctypes.c_int(value).value
                paths.append(Path(f"/proc/{thread}/fd/{descriptor}").readlink())
            else:
                found[kind] = value
        if not paths[0].is_absolute() or paths[0].is_relative_to("/proc"):
            return None  # a pipe, a socket
        if "B" in found:
            data = _memory(thread, found["B"], found["N"])
        if "V" in found:
            vector = struct.unpack(
                f"{2 * found['C']}Q", _memory(thread, found["V"], 16 * found["C"])
            )
            data = b"".join(_memory(thread, *vector[i : i + 2]) for i in range(0, len(vector), 2))
        offset = found["O"]
        if data and offset < 0:
            offset = _position(thread, descriptor, paths[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = PLAIN.get(name, name)
    if name == "open" and shape == "P":
        found["M"] = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
    if name == "unlink" and found["M"] & 0x200:  # AT_REMOVEDIR
        name = "rmdir"
    other = paths[1] if len(paths) > 1 else None

    return Call(name, paths[0], other, offset, data, found["S"], found["M"])


def _path(thread: int, folder: int, address: int) -> Path:
    text = b""
    while address and b"\0" not in text:
        start = address + len(text)
        text += _memory(thread, start, 256 - start % 256)
    base = "cwd" if folder == _HERE else f"fd/{folder}"
    place = Path(f"/proc/{thread}/{base}").readlink() / os.fsdecode(text.split(b"\0")[0])
    return Path(os.path.normpath(place))


def _memory(thread: int, address: int, size: int) -> bytes:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        return os.pread(memory.fileno(), size, address)


def _position(thread: int, descriptor: int, path: Path) -> int:
    """Where a write without an offset begins: a file's end where it appends."""
    lines = Path(f"/proc/{thread}/fdinfo/{descriptor}").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    if int(told["flags"], 8) & os.O_APPEND:
        return path.stat().st_size
    return int(told["pos"])
