"""What a run's steps add up to: loss and time, told now and then, and when to save or to stop."""

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from echogen.errors import EngineError
from echogen.support.signals import Stop
from echogen.training.machine import agreed
from echogen.training.run import Run
from echogen.training.state import Progress
from echogen.training.tell import Status

SHOW_EVERY_S = 1.0
AGREE_EVERY = 10
"""Steps after which several processes ask the first one for the time, and whether to go on."""


class Meter:
    """The sums and clocks of a run.

    Attributes:
        stopped: a signal, or `stop_after`, ends the run after this step.
    """

    def __init__(self, run: Run) -> None:
        self.stopped = False
        self._run = run
        self._processes = run.machine.num_processes
        sums = [run.progress.loss_sum, run.progress.norm_sum]
        self._sums = torch.tensor(sums, dtype=torch.float64, device=run.machine.device)
        self._sums /= self._processes
        self._mean = math.nan
        self._began = self._saved = self._shown = time.monotonic()
        self._shown_images = run.progress.images

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
            now = self._run.progress.seconds + time.monotonic() - self._began
            seconds = agreed(self._run.machine, now)
        images = progress.images + self._run.job.config.optimiser.batch_size
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
        self._run.log.write(
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
        now, options = time.monotonic(), self._run.job.options
        done = options.done(progress)
        if not self._run.machine.is_main_process or (now - self._shown < SHOW_EVERY_S and done < 1):
            return
        if progress.since:
            self._mean = float(self._sums[0]) * self._processes / progress.since
        speed = (progress.images - self._shown_images) / max(now - self._shown, 1e-9)
        self._run.reporter.status(
            Status(done, progress.step, progress.images, self._mean, speed, self._left(progress))
        )
        self._shown, self._shown_images = now, progress.images

    def save_due(self, progress: Progress, stop: Stop) -> bool:
        """Whether to save the state now; a run that is to stop is `stopped`, too."""
        if not self._asks(progress.step):
            return False
        now, options = time.monotonic(), self._run.job.options
        over = options.stop_after is not None and now - self._began > options.stop_after
        wanted = 2 * bool(stop.signum or over) + (now - self._saved > options.save_every)
        answer = agreed(self._run.machine, float(wanted))
        self.stopped = answer >= 2
        return answer > 0

    def save(self, progress: Progress) -> None:
        """Writes the state.

        Raises:
            EngineError: the loss or the gradient is not finite; the last state stays.
            CheckpointError: the state cannot be written.
        """
        loss, norm = self._totals(progress)
        self._run.save(replace(progress, loss_sum=loss, norm_sum=norm))
        self._saved = self._shown = time.monotonic()
        self._shown_images = progress.images

    def _asks(self, step: int) -> bool:
        return self._processes == 1 or step % AGREE_EVERY == 0

    def _totals(self, progress: Progress) -> tuple[float, float]:
        """Loss and gradient norm, summed over the steps since the last line, of all processes."""
        sums: Tensor = self._run.machine.reduce(self._sums, "sum")
        loss, norm = sums.tolist()
        if not math.isfinite(loss + norm):
            raise EngineError(
                f"step {progress.step}: the loss is not finite; lower [optimiser] learning_rate or "
                "use --precision fp32, and give the command again with --overwrite."
            )
        return loss, norm

    def _left(self, progress: Progress) -> float | None:
        options, start = self._run.job.options, self._run.progress
        if options.hours is not None:
            return max(options.hours * 3600 - progress.seconds, 0.0)
        done = options.done(progress) - options.done(start)
        if done <= 0:
            return None
        return (progress.seconds - start.seconds) / done * (1 - options.done(progress))
