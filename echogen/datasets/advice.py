"""Refusals that name the setting which would help, so that it can be pasted."""

import re

_ADVICE = re.compile(r"set in \[dataset\]: (\w+ = .+)$")


def advise(line: str) -> str:
    """The last words of a message: the line of `[dataset]` that would help."""
    return f"set in [dataset]: {line}"


def advised(message: str) -> str:
    """The line that a message ends with; empty where it names none."""
    found = _ADVICE.search(message)
    return found[1] if found else ""


def as_flag(line: str) -> str:
    """A line of `[dataset]` as a flag of the command line."""
    name, _, value = line.partition(" = ")
    return f"--set 'dataset.{name}={value}'"
