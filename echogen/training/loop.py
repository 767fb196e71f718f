"""The training loop: read `train` and `_learn` from top to bottom.

All randomness of a step is seeded by the recipe's seed and the step's number, so a run that is
stopped, or killed, and continued makes the same steps. What it leaves: see `run_folder`.
"""

from contextlib import closing
from dataclasses import replace

from accelerate import Accelerator

from echogen.diffusion.checkpoint import TRAINED, read_info
from echogen.diffusion.levels import usual_levels
from echogen.errors import CheckpointError, EchogenError
from echogen.report import QUIET, Reporter
from echogen.support.signals import Stop
from echogen.training.checkpoint import write_checkpoint
from echogen.training.evaluation import Evaluation, compare, evaluate
from echogen.training.learner import follow, gradients, learning_rate, seed_dropout, update
from echogen.training.machine import agreed, open_machine
from echogen.training.meter import Meter
from echogen.training.pictures import png, sheet
from echogen.training.run_folder import PICTURES
from echogen.training.session import TrainingSession, TrainingTask, open_session
from echogen.training.state import Progress


def train(
    task: TrainingTask,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Progress:
    """Trains, or continues; `task.options.done(result)` is 1 when the run is finished.

    A folder with a state of the same settings is continued. Hold `store_lock(task.out)` around it:
    two runs in one folder are not detected here.

    Args:
        task: what to do.
        resume: refuse to start anew: there must be a state.
        overwrite: start over, whatever is there.
        reporter: takes progress and lines for people.
        stop: after a signal the step at hand is finished and the state saved.

    Raises:
        UsageError: an option or the recipe is wrong, or too many cases are to be held out.
        CheckpointError: there is nothing to resume, the folder is of another run or cannot be
            written, or `start_from` is no checkpoint of the recipe's network.
        EngineError: no such device, out of memory, or the loss is not finite.
        Interrupted: at a signal while nothing has to be finished, or at the second one.
    """
    stop = stop or Stop()
    with open_machine(task.options) as machine:
        heard = reporter if reporter is not None and machine.is_main_process else QUIET
        try:
            return _train(task, machine, heard, stop, resume=resume, overwrite=overwrite)
        except EchogenError:
            raise
        except OSError as error:  # of the log or a picture
            raise CheckpointError(
                f"{error.filename or task.out}: cannot be written ({error.strerror or error}). Put "
                "that right and run the same command again: it continues from the last state."
            ) from error


def _train(
    task: TrainingTask,
    machine: Accelerator,
    reporter: Reporter,
    stop: Stop,
    *,
    resume: bool,
    overwrite: bool,
) -> Progress:
    """A function of its own, so that the wrapped network has gone when the machine is closed."""
    session = open_session(task, machine, reporter, resume=resume, overwrite=overwrite)
    stop.finishing = True
    progress = _learn(session, stop)
    stop.finishing = False
    if task.options.done(progress) >= 1 and machine.is_main_process:
        _finish(session, new=progress.step > session.progress.step)
    machine.wait_for_everyone()
    return progress


def _learn(session: TrainingSession, stop: Stop) -> Progress:
    """Steps, until the run is finished or stopped."""
    machine, learner, options = session.machine, session.learner, session.task.options
    recipe, progress, meter = session.task.recipe, session.progress, Meter(session)
    with closing(session.log), closing(session.batches()) as batches:
        while options.done(progress) < 1 and not meter.stopped:
            # --- one step
            batch = next(batches)
            seed_dropout(recipe, progress.step, machine.process_index)
            rate = learning_rate(recipe.optimiser, progress.step, options.done(progress))
            loss = gradients(session.model, batch, session.objective, machine, options.micro_batch)
            norm = update(learner, recipe.optimiser, rate)
            before, progress = progress, meter.after(progress, loss, norm)
            follow(learner.average, learner.network, recipe.optimiser, progress.images)

            # --- log, show, measure, save
            if progress.step % options.log_every == 0:
                progress = meter.log(progress, rate)
            meter.show(progress)
            due = options.evaluation_due(before, progress)
            if due:
                progress = _evaluate(session, progress)
            if meter.save_due(progress, stop) or due:
                meter.save(progress)
        if options.done(progress) >= 1 and _unmeasured(session):
            progress = _evaluate(session, progress)
            meter.save(progress)
    return progress


def _evaluate(session: TrainingSession, progress: Progress) -> Progress:
    """Measures the average, shows it, and writes its checkpoint if it is the best so far.

    Raises:
        EngineError: the held-out loss is not finite.
    """
    machine, task, average = session.machine, session.task, session.learner.average
    if machine.is_main_process:
        pictures = task.out / PICTURES / f"{progress.images:09d}"
        measured = evaluate(average, session, pictures, progress)
        better = measured.score < progress.best
        progress = replace(progress, best=min(measured.score, progress.best))
        _log_evaluation(session, progress, measured, better)
        if better:
            record = session.record(progress, **measured.as_record())
            samples = png(sheet(measured.samples))
            usual = usual_levels(task.frames.pixels[row] for row in session.split.trained)
            write_checkpoint(task.out, average, task.facts, record, samples, usual, measured.border)
    machine.wait_for_everyone()
    return progress


def _log_evaluation(
    session: TrainingSession, progress: Progress, measured: Evaluation, better: bool
) -> None:
    session.log.write(
        "evaluation",
        progress.step,
        images=progress.images,
        best=better,
        seconds=round(progress.seconds, 1),
        **measured.as_record(),
    )
    for name, picture in measured.pictures.items():
        session.log.picture(name, progress.step, picture)
    done, kind = (
        session.task.options.done(progress),
        "held-out" if measured.held_out else "training",
    )
    session.reporter.tell(
        f"{done:4.0%}  step {progress.step}, {progress.images} images: {kind} loss "
        f"{measured.score:.5f}{', the best so far' if better else ''}"
    )


def _unmeasured(session: TrainingSession) -> bool:
    """Whether there is no model yet: the run was made shorter before it was first measured."""
    return bool(agreed(session.machine, float(not (session.task.out / TRAINED).exists())))


def _finish(session: TrainingSession, new: bool) -> None:
    """The memorisation check of the best network, unless it was made before."""
    task = session.task
    checked = read_info(task.out / TRAINED).training.get("memorisation")
    if task.options.compared and (new or not checked):
        compare(task.out, task.frames, task.options, task.facts, session.reporter)
