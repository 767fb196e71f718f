"""What a run shows people: a tqdm bar on a terminal, a line every half minute elsewhere."""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 30.0


@dataclass(frozen=True)
class Status:
    """Where a run is.

    Attributes:
        done: share of the run, in [0, 1].
        step, images: done so far.
        loss: mean of the last steps.
        images_per_s: of the last steps.
        seconds_left: until the end, or None where that is not known yet.
    """

    done: float
    step: int
    images: int
    loss: float
    images_per_s: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return (
            f"step {self.step}, {self.images} images, loss {self.loss:.4f}, "
            f"{self.images_per_s:.3g} images/s{left}"
        )


class TrainingReporter(Protocol):
    """Where a run's progress goes; `Quiet` for library use, `Console` for people."""

    def tell(self, message: str) -> None:
        """One line that a user should see."""
        ...

    def status(self, status: Status) -> None:
        """Called about once a second, and at the end."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


class Quiet:
    """A reporter that says nothing."""

    def tell(self, message: str) -> None:
        """Drop the line."""

    def status(self, status: Status) -> None:
        """Drop the figures."""

    def close(self) -> None:
        """Nothing to end."""


class Console:
    """A reporter on stderr."""

    def __init__(self) -> None:
        self._bars = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._last_line = time.monotonic()

    def tell(self, message: str) -> None:
        """One line on stderr, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)

    def status(self, status: Status) -> None:
        """Move the bar, or write a line if the last one is some time ago."""
        if self._bars:
            self._move_bar(status)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(f"{status.done:4.0%}  {status}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move_bar(self, status: Status) -> None:
        from tqdm import tqdm

        if self._bar is None:
            layout = "{percentage:3.0f}%|{bar}| {desc}"
            self._bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr, dynamic_ncols=True)
        self._bar.set_description_str(str(status), refresh=False)
        self._bar.update(status.done - self._bar.n)
        self._bar.refresh()


def _duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
