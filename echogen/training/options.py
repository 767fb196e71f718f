"""How long, where and how a run is made; none of it changes which recipe is trained.

Images, noise and order of a step depend on the recipe's seed and the step's number alone, so a run
cut into other pieces, or spread over more devices, sees the same data.
"""

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from echogen.support.settings import Settings

if TYPE_CHECKING:
    from echogen.training.state import Progress


class TrainingOptions(Settings):
    """A run's length, machine, and what is measured along the way.

    Attributes:
        steps, hours: the length; exactly one is given. `hours` counts time in the loop, parts of a
            resumed run added up; the decay of the learning rate then follows the clock, so only
            `steps` makes runs that can be repeated to the bit.
        stop_after: seconds after which to save and return unfinished, to be resumed; None never.
        hold_out: cases to set aside; None takes a tenth, at most 40 (see `held_out_count`).
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "bf16" (autocast), "fp32", or "auto": bf16 where the hardware multiplies it.
        compile: use torch.compile, with a fallback that says so.
        micro_batch: images at once on a device; None takes a process's whole share of the batch.
        evaluations: how many times to measure held-out loss, draw pictures, and save a checkpoint.
        save_every: seconds between saves of the state, besides those at evaluations.
        log_every: steps between lines of the log.
        samples, sample_steps: images in a picture, and network evaluations for each.
        inpainted: held-out frames in a picture of inpainting.
        border_images: images to whose errors the border network is fitted, of a network that sees
            what is known; 0 for none.
        measured: at most so many frames of either kind are measured on.
        compared: samples whose nearest training frames are looked for at the end; 0 for none.
        tensorboard: write scalars and pictures for TensorBoard, too.
    """

    steps: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, ge=0)
    stop_after: float | None = Field(default=None, ge=0)
    hold_out: int | None = Field(default=None, ge=0)
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    micro_batch: int | None = Field(default=None, ge=1)
    evaluations: int = Field(default=20, ge=1)
    save_every: float = Field(default=300.0, ge=0)
    log_every: int = Field(default=50, ge=1)
    samples: int = Field(default=16, ge=1)
    sample_steps: int = Field(default=25, ge=2)
    inpainted: int = Field(default=8, ge=0)
    border_images: int = Field(default=640, ge=0)
    measured: int = Field(default=256, ge=1)
    compared: int = Field(default=64, ge=0)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if (self.steps is None) == (self.hours is None):
            raise ValueError("give either --steps or --hours; got both or neither.")
        return self

    def done(self, progress: "Progress") -> float:
        """Share of the run that is done, in [0, 1]."""
        if self.steps is not None:
            return min(progress.step / self.steps, 1.0)
        return min(progress.seconds / max((self.hours or 0.0) * 3600, 1e-9), 1.0)

    def evaluation_due(self, before: "Progress", after: "Progress") -> bool:
        """Whether one of the evenly spread moments to measure lies between the two."""
        passed = [
            math.floor(self.done(progress) * self.evaluations) for progress in (before, after)
        ]
        return passed[1] > passed[0]

    @property
    def length(self) -> str:
        """The length in words."""
        return f"{self.steps} steps" if self.steps is not None else f"{self.hours:g} hours"


def held_out_count(asked: int | None, cases: int) -> int:
    """How many cases to set aside: as asked, or a tenth, at most 40; one of at least five."""
    if asked is not None:
        return asked
    return min(40, max(cases // 10, int(cases >= 5)))
