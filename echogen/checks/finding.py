"""What a check found: one record, the same for datasets and stores."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad: `ERROR` cannot be used as it is, `WARNING` should be looked at, `NOTE` is known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        severity: how bad it is.
        check: short name of the check, such as `label-ids` or `sha256`; one name a kind of finding.
        where: the file, frame or sample, such as `patient0001_4CH_ED`; empty for the whole.
        message: one sentence: what was expected, what was found, what to do.
    """

    severity: Severity
    check: str
    where: str
    message: str


def error(check: str, where: str, message: str) -> Finding:
    """What cannot be used as it is."""
    return _finding(Severity.ERROR, check, where, message)


def warning(check: str, where: str, message: str) -> Finding:
    """What should be looked at."""
    return _finding(Severity.WARNING, check, where, message)


def note(check: str, where: str, message: str) -> Finding:
    """What is good to know."""
    return _finding(Severity.NOTE, check, where, message)


def _finding(severity: Severity, check: str, where: str, message: str) -> Finding:
    """A message that begins with what it is about does not say it again."""
    return Finding(severity, check, where, message.removeprefix(f"{where}: ") if where else message)
