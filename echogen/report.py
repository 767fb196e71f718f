"""What every command reports: progress while it runs, and at the end one record.

A record prints as JSON of one shape (`docs/schemas`) and decides the exit code.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from echogen.errors import EXIT_DONE, exit_code_of

REPORT_FORMAT = 1  # of what `--json` prints


@dataclass(frozen=True)
class Problem:
    """A frame that was skipped or failed: its id and one line of reason naming the file."""

    frame_id: str
    reason: str


@dataclass(frozen=True)
class CommandReport:
    """Base of all reports: frozen dataclasses whose fields are the JSON's.

    Attributes:
        derived: names of properties that the JSON has, too.
    """

    derived: ClassVar[tuple[str, ...]] = ()

    @property
    def exit_code(self) -> int:
        """0: what cannot be done at all is an error."""
        return EXIT_DONE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with a format number of its own."""
        derived = {name: getattr(self, name) for name in self.derived}
        return {
            "format": REPORT_FORMAT,
            "exit_code": self.exit_code,
            **derived,
            **asdict(self),
        }


class Reporter(Protocol):
    """Where a run's progress goes; `Quiet` for library use, the CLI has its own."""

    def tell(self, message: str) -> None:
        """One line that a user should see."""
        ...

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` frames, images or steps of a stage; the first call says where it
        starts. `detail` is what else there is to say just now, such as a loss.
        """
        ...


class Quiet:
    """A reporter that prints nothing."""

    def tell(self, message: str) -> None:
        """Drop the line."""

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Drop the figures."""


QUIET = Quiet()


@dataclass(frozen=True)
class Counts:
    """Samples by outcome; together the rows of the plan.

    Attributes:
        originals: done, copy 0.
        copies: done, generated.
        rejected: no valid draw was found.
        failed: could not be rendered or painted.
        pending: still to make.
    """

    originals: int
    copies: int
    rejected: int
    failed: int
    pending: int

    @property
    def done(self) -> int:
        """Originals and copies."""
        return self.originals + self.copies

    @property
    def samples(self) -> int:
        """All rows."""
        return self.done + self.rejected + self.failed + self.pending


@dataclass(frozen=True)
class RunReport(CommandReport):
    """How a run that fills a store ended.

    Attributes:
        output: the store.
        failed: samples that could not be made, with the reason.
        notes: what else a user should know.
        painted: images painted by this run.
        seconds: from the start to the end of this run, planning included.
        images_per_s: painted images per second of painting; 0 where nothing was painted.
        sampler: what painted, by name.
        nfe: network evaluations an image.
        device, precision: where it was painted; empty where nothing was.
        checkpoint, licence: the model's name and terms.
        peak_memory_mb: largest resident memory of this process.
        interrupted: the signal's number, or 0.
    """

    output: str
    failed: tuple[Problem, ...]
    notes: tuple[str, ...]
    painted: int
    seconds: float
    images_per_s: float
    sampler: str
    nfe: int
    device: str
    precision: str
    checkpoint: str
    licence: str
    peak_memory_mb: float
    interrupted: int

    @property
    def exit_code(self) -> int:
        """0 done, 1 done with failures, 130 or 143 interrupted and resumable."""
        return exit_code_of(self.interrupted, bool(self.failed))
