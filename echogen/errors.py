"""Every error a user can cause, as one tree.

    EchogenError
    ├── UsageError        2   a flag, an argument or a configuration file
    ├── DatasetError      3   the input dataset or one of its files
    ├── PlanError         3   the plan cannot be made, or does not fit its dataset
    ├── CheckpointError   4   a model folder or its files
    ├── StoreError        5   the output store
    └── EngineError       6   the device, its memory, the sampler

The number is the exit code of the command line. A message is one sentence or two that name the
file or argument, what was expected, what was found, and what to do.
"""


class EchogenError(Exception):
    """Base of all errors that echogen raises on purpose; the message is meant for users."""

    exit_code = 1


class UsageError(EchogenError, ValueError):
    """An argument or a configuration value is wrong."""

    exit_code = 2


class DatasetError(EchogenError, ValueError):
    """A dataset, or one of its files, cannot be used."""

    exit_code = 3


class PlanError(EchogenError, ValueError):
    """A plan cannot be made, read, or does not match its dataset."""

    exit_code = 3


class CheckpointError(EchogenError, ValueError):
    """A checkpoint folder is incomplete, damaged, or of an unknown kind."""

    exit_code = 4


class StoreError(EchogenError, OSError):
    """A store cannot be created, opened, resumed or written."""

    exit_code = 5


class EngineError(EchogenError, RuntimeError):
    """Painting failed: no such device, out of memory, or values that are not finite."""

    exit_code = 6


EXIT_DONE = 0
EXIT_DONE_WITH_FAILURES = 1
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


def exit_code_of(interrupted: int, failures: bool) -> int:
    """How a run's command ends.

    Args:
        interrupted: the signal's number, or 0.
        failures: whether something was skipped or failed.
    """
    if interrupted:
        return {2: EXIT_SIGINT, 15: EXIT_SIGTERM}[interrupted]
    return EXIT_DONE_WITH_FAILURES if failures else EXIT_DONE
