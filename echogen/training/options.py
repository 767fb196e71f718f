"""How long, where and how a run is made; none of it changes which recipe is trained.

Images, noise and order of a step depend on the recipe's seed and the step's number alone, so a run
cut into other pieces, or spread over more devices, sees the same data.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from echogen.errors import UsageError

if TYPE_CHECKING:
    from echogen.training.state import Progress

PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class RunOptions:
    """Length, machine and what is measured on the way.

    Attributes:
        steps, hours: the length; exactly one is given. `hours` counts time in the loop, parts of a
            resumed run added up; the decay of the learning rate then follows the clock, so only
            `steps` makes runs that can be repeated to the bit.
        stop_after: seconds after which to save and return unfinished, to be resumed; None never.
        held_out: cases to set aside; None takes a tenth, at most 40 (see `held_out_count`).
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "bf16" (autocast), "fp32", or "auto": bf16 where the hardware multiplies it.
        compiled: use torch.compile, with a fallback that says so.
        micro_batch: images at once on a device; None takes a process's whole share of the batch.
        evaluations: how many times to measure held-out loss, draw pictures, and export.
        save_every: seconds between saves of the state, besides those at evaluations.
        log_every: steps between lines of the log.
        samples, sample_steps: images in a picture, and network evaluations for each.
        inpainted: held-out frames in a picture of inpainting.
        measured: at most so many frames of either kind are measured on.
        compared: samples whose nearest training frames are looked for at the end; 0 for none.
        tensorboard: write scalars and pictures for TensorBoard, too.
    """

    steps: int | None = None
    hours: float | None = None
    stop_after: float | None = None
    held_out: int | None = None
    device: str = "auto"
    precision: str = "auto"
    compiled: bool = False
    micro_batch: int | None = None
    evaluations: int = 20
    save_every: float = 300.0
    log_every: int = 50
    samples: int = 16
    sample_steps: int = 25
    inpainted: int = 8
    measured: int = 256
    compared: int = 64
    tensorboard: bool = False

    def check(self) -> None:
        """Refuses what cannot be run.

        Raises:
            UsageError: names the option and its range.
        """
        if (self.steps is None) == (self.hours is None):
            raise UsageError("give either --steps or --hours.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r}: expected {', '.join(PRECISIONS)}.")
        least = {"steps": 1, "micro_batch": 1, "evaluations": 1, "log_every": 1, "samples": 1}
        least |= {"sample_steps": 2, "inpainted": 0, "measured": 1, "compared": 0, "held_out": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag.replace('held-out', 'hold-out')} {value}: expected "
                                 f"{bound} or more.")  # fmt: skip
        for name in ("hours", "save_every", "stop_after"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected 0 or more.")

    def done(self, progress: "Progress") -> float:
        """Share of the run that lies behind, in [0, 1]."""
        if self.steps is not None:
            return min(progress.step / self.steps, 1.0)
        return min(progress.seconds / max((self.hours or 0.0) * 3600, 1e-9), 1.0)

    def evaluation_due(self, before: "Progress", after: "Progress") -> bool:
        """Whether one of the evenly spread moments to measure lies between the two."""
        passed = [
            math.floor(self.done(progress) * self.evaluations) for progress in (before, after)
        ]
        return passed[1] > passed[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data."""
        return asdict(self)

    @property
    def length(self) -> str:
        """The length in words."""
        return f"{self.steps} steps" if self.steps is not None else f"{self.hours:g} hours"


def held_out_count(asked: int | None, cases: int) -> int:
    """How many cases to set aside: as asked, or a tenth, at most 40; one of at least five."""
    if asked is not None:
        return asked
    return min(40, max(cases // 10, int(cases >= 5)))
