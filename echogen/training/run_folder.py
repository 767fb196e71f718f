"""A run's folder: what is in it, and how a run is started, continued and started over.

It holds `frames/`, `state.safetensors` (to continue from), `log.jsonl`, `pictures/`, and
`checkpoint/` with the best averaged network so far. Nothing here needs torch.
"""

import shutil
from pathlib import Path

from echogen.diffusion.checkpoint import INFO_FILE, TRAINED
from echogen.errors import CheckpointError, UsageError
from echogen.support.files import clear_leftovers, make_folder, partial_path, to_disk
from echogen.support.reading import reason

FRAMES, PICTURES, BOARD = "frames", "pictures", "tensorboard"
STATE_FILE, LOG_FILE = "state.safetensors", "log.jsonl"
_OVERWRITTEN = ".overwritten"
"""The state of a run that is being removed: whatever happens then, it is over."""
_MARKS = (STATE_FILE, LOG_FILE, f"{TRAINED}/{INFO_FILE}", _OVERWRITTEN)
"""Any of them marks a run's folder; `pictures`, say, may belong to something else."""


def check_run_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before any work, a folder of something else, and a run that cannot be resumed.

    Raises:
        UsageError: `out` is a file, or holds other files and no run.
        CheckpointError: there is nothing to resume, or a model without its state.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder.")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    unfinished = {partial_path(out / name).name for name in (STATE_FILE, LOG_FILE)}
    others = sorted(there - {FRAMES} - unfinished)
    if others and not any((out / name).is_file() for name in _MARKS):
        raise UsageError(
            f"--out {out}: contains other files, such as {others[0]}, but no training run; give a "
            "new or empty folder."
        )
    if STATE_FILE in there or overwrite:
        return
    if resume:
        raise CheckpointError(f"--resume: {out} holds no run to resume; leave out --resume.")
    if TRAINED in there and _OVERWRITTEN not in there:
        raise CheckpointError(
            f"{out}: contains a checkpoint but no state to resume from; train into another folder, "
            "or start over with --overwrite."
        )


def open_run_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder, or tidy up what a kill left in it, or empty it but for its frames.

    Raises:
        UsageError: as `check_run_folder`.
        CheckpointError: as `check_run_folder`, or the folder cannot be written.
    """
    check_run_folder(out, resume=resume, overwrite=overwrite)
    try:
        make_folder(out)
        for name in (STATE_FILE, LOG_FILE):
            clear_leftovers(out / name)
        recover_checkpoint(out)
        if overwrite:
            _mark_overwritten(out)
        if (out / _OVERWRITTEN).exists():
            _remove_run(out)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or out}: cannot be replaced ({reason(error)}). Put that right and "
            "run the same command again."
        ) from error


def recover_checkpoint(out: Path) -> None:
    """Put back a checkpoint that a kill left half way through being replaced; remove remains."""
    clear_leftovers(out / TRAINED)


def _mark_overwritten(out: Path) -> None:
    """One step that ends a run: from here on its remains are nobody's."""
    state, mark = out / STATE_FILE, out / _OVERWRITTEN
    if state.is_file():
        state.replace(mark)
    else:
        mark.touch()
    to_disk(out)


def _remove_run(out: Path) -> None:
    """All but the frames, and last the mark that says that it may go."""
    for name in (PICTURES, BOARD, TRAINED):
        folder = out / name
        if folder.is_symlink():  # to another disk, where the new run's will be, too
            for place in list(folder.iterdir()) if folder.is_dir() else []:
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
    (out / LOG_FILE).unlink(missing_ok=True)
    to_disk(out)
    (out / _OVERWRITTEN).unlink()
    to_disk(out)


def trained_checkpoint(out: Path) -> Path:
    """The checkpoint in a run's folder.

    Raises:
        CheckpointError: there is none yet.
    """
    folder = out / TRAINED
    if not (folder / INFO_FILE).is_file():
        raise CheckpointError(
            f"{out}: no trained model here, expected {TRAINED}/{INFO_FILE}; give the --out of a "
            "run that has been measured at least once."
        )
    return folder
