"""Killed before each system call that changes the disk, in the midst of each write, or at random.

The same command then ends as if nothing had happened: the same bytes, and nothing beside them. A
kill leaves what lies on the disk at that moment, so that one run, stopped at each call for a copy
of its folder, gives what a kill at any of them leaves; kills at random moments are real ones.
"""

import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

from tests.survival.calls import GO, KILL, SYNCS, Call, is_idle
from tests.survival.record import Record
from tests.survival.scenes import State, Workshop, state_of

RANDOM = 1000
"""Tries at random moments."""


class Counting:
    """Counts calls, and answers the `kill`-th with a kill.

    Attributes:
        calls: those with an effect, in words.
    """

    def __init__(self, kill: int = -1) -> None:
        self.kill = kill
        self.calls: list[str] = []

    def __call__(self, call: Call) -> int:
        if call.name in SYNCS or is_idle(call):
            return GO
        self.calls.append(str(call))
        return KILL if len(self.calls) - 1 == self.kill else GO


class Copying(Counting):
    """Copies the place before each call that changes it.

    Attributes:
        states: what a kill leaves: {key: (the call in words, the place)}. Between a write's number
            and "N torn" only the first half of its bytes is there.
    """

    def __init__(self, place: Path, every: int) -> None:
        super().__init__()
        self.place, self.every = place, every
        self.states: dict[str, tuple[str, State]] = {}
        self._known: dict[bytes, bytes] = {}

    def __call__(self, call: Call) -> int:
        number = len(self.calls)
        super().__call__(call)
        if len(self.calls) == number or number % self.every:
            return GO
        words = self.calls[-1]
        state = {path: self._same(content) for path, content in state_of(self.place).items()}
        self.states[str(number)] = words, state
        name = os.path.relpath(call.path, self.place)
        if call.name == "write" and state.get(name) is not None and len(call.data) > 1:
            old, half = state[name] or b"", call.data[: len(call.data) // 2]
            torn = old[: call.offset].ljust(call.offset, b"\0") + half
            self.states[f"{number} torn"] = words, {**state, name: torn + old[len(torn) :]}
        return GO

    def _same(self, content: bytes | None) -> bytes | None:
        """Equal content, held once."""
        return None if content is None else self._known.setdefault(content, content)


def changes(workshop: Workshop, name: str) -> list[str]:
    """The calls of the undisturbed scene that change the disk."""
    workshop.undisturbed(name)
    watch = Counting()
    workshop.command(workshop.reset(name).words, watch=watch)
    return watch.calls


def run(workshop: Workshop, record: Record, names: list[str], until: float, every: int = 1) -> None:
    """Kill each scene before each `every`-th call, and within it where it writes."""
    for name in names:
        at_every_call(workshop, record, name, until, every)


def at_every_call(
    workshop: Workshop, record: Record, name: str, until: float, every: int = 1
) -> None:
    """The same of one scene."""
    codes, _ = workshop.undisturbed(name)
    copying = Copying(workshop.place, every)
    ended = workshop.command(workshop.reset(name).words, watch=copying)
    if ended.code != codes[0]:
        raise AssertionError(f"{name}: watched, it ends with {ended.code}: {ended.output}")
    for number, (call, state) in copying.states.items():
        key = f"{name}:{number}"
        if record.has("kills", key):
            continue
        if time.monotonic() > until:
            return
        workshop.lay_out(state)
        fault = workshop.again(name)
        record.add("kills", key, name, fault, call=call, of=len(copying.calls))


def counted_twice(
    workshop: Workshop, record: Record, names: list[str], until: float, every: int = 1
) -> None:
    """Compare the calls that are watched with those that strace sees, by name."""
    for name in names:
        if shutil.which("strace") is None:
            print("strace: left out, it is not installed")
            return
        if record.has("strace", name) or time.monotonic() > until:
            continue
        seen = Counter[str]()

        def count(call: Call, seen: Counter[str] = seen) -> int:
            seen[call.name] += 1
            return GO

        workshop.undisturbed(name)
        workshop.command(workshop.reset(name).words, watch=count)
        told = workshop.traced(workshop.reset(name).words)
        fault = "" if told == seen else f"strace: {told - seen} more, {seen - told} fewer"
        record.add("strace", name, name, fault, watched=seen.total(), strace=told.total())


def run_at_random(
    workshop: Workshop, record: Record, names: list[str], until: float, every: int = 1
) -> None:
    """Kill scenes in turn after random times, some of them two or three times."""
    took: dict[str, float] = {}
    for number in range(0, RANDOM, every):
        name = names[number // every % len(names)]
        key = f"{name}:{number}"
        if record.has("random", key):
            continue
        if time.monotonic() > until:
            return
        workshop.undisturbed(name)
        if name not in took:
            took[name] = workshop.command(workshop.reset(name).words).seconds
        draw = random.Random(number)
        words = workshop.reset(name).words
        times = [draw.uniform(0.005, took[name]) for _ in range(draw.choice((1, 1, 2, 3)))]
        ended = [workshop.command(words, kill_after=after) for after in times]
        fault = workshop.finished(name, ended[-1])
        record.add("random", key, name, fault, kills=sum(each.killed for each in ended))
