"""The training loop: read `train` from top to bottom.

All randomness of a step is seeded by the recipe's seed and the step's number, so a run that is
stopped, or killed, and goes on makes the same steps. The folder of a run holds `state.safetensors`
(to go on from), `log.jsonl`, `pictures/`, and `checkpoint/` with the best averaged network so far.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from echogen.diffusion.checkpoint import read_info
from echogen.support.signals import Stop
from echogen.training.checkpoint import CHECKPOINT, ModelFacts, export
from echogen.training.data import PackedFrames
from echogen.training.evaluation import Measured, evaluate, measure
from echogen.training.job import PICTURES, Job
from echogen.training.learner import gradients, learning_rate, seed_dropout, update
from echogen.training.machine import agreed, open_machine, precision_of
from echogen.training.meter import Meter
from echogen.training.network import follow
from echogen.training.options import RunOptions
from echogen.training.pictures import png, sheet
from echogen.training.recipe import TrainConfig
from echogen.training.run import Run, open_run
from echogen.training.state import Progress
from echogen.training.tell import Quiet, TrainingReporter


def train(
    config: TrainConfig,
    packed: PackedFrames,
    out: Path,
    options: RunOptions,
    *,
    facts: ModelFacts | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: TrainingReporter | None = None,
    stop: Stop | None = None,
) -> Progress:
    """Trains into `out`, or goes on; `options.done(result)` is 1 when the run is finished.

    A folder with a state of the same settings is continued. Hold `store_lock(out)` around it: two
    runs in one folder are not detected here.

    Args:
        config: the recipe.
        packed: frames on the recipe's grid.
        out: folder of the run.
        options: length and machine.
        facts: for the model's card and record.
        resume: refuse to start anew: there must be a state.
        overwrite: start anew, whatever is there.
        reporter: takes progress and lines for people.
        stop: after a signal the step at hand is finished and the state saved.

    Raises:
        UsageError: an option or the recipe is wrong, or too many cases are to be held out.
        CheckpointError: there is nothing to resume, or the folder is of another run.
        EngineError: no such device, out of memory, or the loss is not finite.
        Interrupted: at a signal while nothing has to be finished, or at the second one.
    """
    options.check()
    stop = stop or Stop()
    with open_machine(options) as machine:
        told = reporter if reporter is not None and machine.is_main_process else Quiet()
        job = Job(config, packed, out, options, facts or ModelFacts(config.name))
        run = open_run(job, machine, told, resume=resume, overwrite=overwrite)
        progress, meter = run.progress, Meter(run)
        stop.finishing = True
        with closing(run.log), closing(run.batches()) as batches, closing(told):
            while options.done(progress) < 1 and not meter.stopped:
                # --- one step
                batch = next(batches)
                seed_dropout(config, progress.step, machine.process_index)
                rate = learning_rate(config.optimiser, progress.step, options.done(progress))
                loss = gradients(run.model, batch, run.objective, machine,
                                 config.optimiser.batch_size, options.micro_batch)  # fmt: skip
                norm = update(run.learner, config.optimiser, rate)
                before, progress = progress, meter.after(progress, loss, norm)
                follow(run.learner.average, run.learner.network, config.optimiser, progress.images)

                # --- tell, measure, save
                if progress.step % options.log_every == 0:
                    progress = meter.log(progress, rate)
                meter.show(progress)
                due = options.evaluation_due(before, progress)
                if due:
                    progress = _evaluate(run, progress)
                if meter.save_due(progress, stop) or due:
                    meter.save(progress)
            if options.done(progress) >= 1 and _unmeasured(run):
                progress = _evaluate(run, progress)
                meter.save(progress)
        stop.finishing = False
        if options.done(progress) >= 1 and machine.is_main_process:
            _finish(run, new=progress.step > run.progress.step)
        machine.wait_for_everyone()
    return progress


def _evaluate(run: Run, progress: Progress) -> Progress:
    """Measures the average, shows it, and exports it if it is the best so far."""
    if run.machine.is_main_process:
        job = run.job
        pictures = job.out / PICTURES / f"{progress.images:09d}"
        measured = evaluate(run.learner.average, job, run.split, run.machine.device,
                            precision_of(run.machine), pictures)  # fmt: skip
        better = measured.score < progress.best
        progress = replace(progress, best=min(measured.score, progress.best))
        _log_evaluation(run, progress, measured, better)
        if better:
            record = run.record(progress) | measured.as_record()
            samples = png(sheet(measured.samples))
            export(job.out, run.learner.average, job.config, job.facts, record, samples)
    run.machine.wait_for_everyone()
    return progress


def _log_evaluation(run: Run, progress: Progress, measured: Measured, better: bool) -> None:
    run.log.write(
        "evaluation",
        progress.step,
        images=progress.images,
        best=better,
        seconds=round(progress.seconds, 1),
        **measured.as_record(),
    )
    for name, picture in measured.pictures.items():
        run.log.picture(name, progress.step, picture)
    kind = "held-out" if measured.held_out else "training"
    run.reporter.tell(
        f"{run.job.options.done(progress):4.0%}  step {progress.step}, {progress.images} images: "
        f"{kind} loss {measured.score:.5f}{', the best so far' if better else ''}"
    )


def _unmeasured(run: Run) -> bool:
    """Whether there is no model yet: the run was made shorter before it was first measured."""
    return bool(agreed(run.machine, float(not (run.job.out / CHECKPOINT).exists())))


def _finish(run: Run, new: bool) -> None:
    """The memorisation check of the best network, unless it was made before."""
    job = run.job
    checked = read_info(job.out / CHECKPOINT).training.get("memorisation")
    if job.options.compared and (new or not checked):
        measure(job.out, job.packed, job.options, job.facts, run.reporter)
