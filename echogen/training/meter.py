"""What a run's steps add up to: loss and time, now and then; and when to save or to stop."""

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from echogen.errors import EngineError
from echogen.support.signals import Stop
from echogen.training.machine import agreed
from echogen.training.session import TrainingSession
from echogen.training.state import Progress

SHOW_EVERY_S = 1.0
AGREE_EVERY = 10
"""Steps after which several processes ask the first one for the time, and whether to continue."""


class Meter:
    """The sums and clocks of a session.

    Attributes:
        stopped: a signal, or `stop_after`, ends the run after this step.
    """

    def __init__(self, session: TrainingSession) -> None:
        self.stopped = False
        self._session = session
        self._processes = session.machine.num_processes
        sums = [session.progress.loss_sum, session.progress.norm_sum]
        self._sums = torch.tensor(sums, dtype=torch.float64, device=session.machine.device)
        self._sums /= self._processes
        self._mean = math.nan
        self._began = self._saved = self._shown = time.monotonic()
        self._shown_images = session.progress.images

    def after(self, progress: Progress, loss: Tensor, norm: Tensor) -> Progress:
        """The counters after a step.

        Args:
            progress: before it.
            loss: this process' share of the mean loss.
            norm: of the gradient, the same in all processes.
        """
        self._sums += torch.stack([loss, norm / self._processes])
        step, seconds = progress.step + 1, progress.seconds
        if self._asks(step):
            now = self._session.progress.seconds + time.monotonic() - self._began
            seconds = agreed(self._session.machine, now)
        images = progress.images + self._session.task.recipe.optimiser.batch_size
        return replace(
            progress, step=step, images=images, seconds=seconds, since=progress.since + 1
        )

    def log(self, progress: Progress, rate: float) -> Progress:
        """A line about the steps since the last one.

        Raises:
            EngineError: the loss or the gradient is not finite.
        """
        loss, norm = self._totals(progress)
        self._mean = loss / progress.since
        self._session.log.write(
            "step",
            progress.step,
            images=progress.images,
            loss=self._mean,
            rate=rate,
            gradient_norm=norm / progress.since,
            seconds=round(progress.seconds, 1),
        )
        self._sums.zero_()
        return replace(progress, since=0)

    def show(self, progress: Progress) -> None:
        """Tells the reporter about once a second."""
        now, options = time.monotonic(), self._session.task.options
        due = now - self._shown >= SHOW_EVERY_S or options.done(progress) >= 1
        if not due or not self._session.machine.is_main_process:
            return
        if progress.since:
            self._mean = float(self._sums[0]) * self._processes / progress.since
        speed = (progress.images - self._shown_images) / max(now - self._shown, 1e-9)
        detail = f"loss {self._mean:.4f}, {speed:.3g} images/s"
        if options.steps is not None:
            self._session.reporter.progress("training", progress.step, options.steps, detail)
        else:
            seconds = round((options.hours or 0.0) * 3600), round(progress.seconds)
            detail = f"step {progress.step}, {detail}"
            self._session.reporter.progress("training (seconds)", min(seconds), seconds[0], detail)
        self._shown, self._shown_images = now, progress.images

    def save_due(self, progress: Progress, stop: Stop) -> bool:
        """Whether to save the state now; a run that is to stop is `stopped`, too."""
        if not self._asks(progress.step):
            return False
        now, options = time.monotonic(), self._session.task.options
        over = options.stop_after is not None and now - self._began > options.stop_after
        wanted = 2 * bool(stop.signum or over) + (now - self._saved > options.save_every)
        answer = agreed(self._session.machine, float(wanted))
        self.stopped = answer >= 2
        return answer > 0

    def save(self, progress: Progress) -> None:
        """Writes the state.

        Raises:
            EngineError: the loss or the gradient is not finite; the last state stays.
            CheckpointError: the state cannot be written.
        """
        loss, norm = self._totals(progress)
        self._session.save(replace(progress, loss_sum=loss, norm_sum=norm))
        self._saved = self._shown = time.monotonic()
        self._shown_images = progress.images

    def _asks(self, step: int) -> bool:
        return self._processes == 1 or step % AGREE_EVERY == 0

    def _totals(self, progress: Progress) -> tuple[float, float]:
        """Loss and gradient norm, summed over the steps since the last line, of all processes."""
        sums: Tensor = self._session.machine.reduce(self._sums, "sum")
        loss, norm = sums.tolist()
        check_finite(loss + norm, progress)
        return loss, norm


def check_finite(loss: float, progress: Progress) -> None:
    """Refuse to go on with a network that has diverged.

    Raises:
        EngineError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise EngineError(
            f"step {progress.step}: the loss is not finite; lower [optimiser] learning_rate or "
            "use --precision fp32, and run the command again with --overwrite."
        )
