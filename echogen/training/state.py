"""What a run must remember to continue as if it had never stopped, as safetensors, never pickles.

Network, average and AdamW's moments are tensors; counters travel in the file's header, with a
digest of everything. Random numbers need no place: those of a step depend on the run's seed and the
step's number alone.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from echogen.diffusion.weights import check_shapes, read_header, read_metadata
from echogen.errors import CheckpointError
from echogen.support.files import clear_leftovers, creating_path, write_whole
from echogen.support.reading import parse_json
from echogen.support.settings import Settings
from echogen.support.words import one_line
from echogen.training.learner import Learner
from echogen.training.run_folder import STATE_FILE

FORMAT = 4
Count = Annotated[int, Field(ge=0, lt=2**53)]
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Progress:
    """How far a run has got.

    Attributes:
        step, images: done so far.
        seconds: spent on them, measuring included.
        best: the best held-out figure so far, or inf.
        loss_sum, norm_sum, since: of the steps since the log's last line.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    step: Count = 0
    images: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    best: float = float("inf")
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    since: Count = 0


class _Start(Settings, extra="ignore"):
    """What an identity says besides the settings and the data, which are compared as they are."""

    format: int = 1
    start_from: dict[str, str] = Field(default_factory=dict)


_PROGRESS, _START = TypeAdapter(Progress), TypeAdapter(_Start)


@dataclass(frozen=True)
class SavedRun:
    """What a state's header says.

    Attributes:
        progress: of the run.
        identity: the settings and the data that a resumed run must share.
        length: in words.
    """

    progress: Progress
    identity: Mapping[str, Any]
    length: str


def save_state(
    folder: Path, learner: Learner, progress: Progress, identity: Mapping[str, Any], length: str
) -> None:
    """Writes the state in one step: a kill, or a power cut, leaves the old file or the new one.

    Args:
        folder: of the run.
        learner: what is learnt.
        progress: the counters.
        identity: settings and data that a resumed run must share, JSON-able.
        length: of the run, in words.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {
        "progress": json.dumps(asdict(progress)),
        "identity": json.dumps({"format": FORMAT, **identity}),
        "length": length,
    }
    file = folder / STATE_FILE
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(learner)}
    header["digest"] = _digest(header, tensors)

    def write(place: Path) -> None:
        made = creating_path(file)  # safetensors leaves files of its own beside what it writes
        made.mkdir()
        save_file(tensors, made / file.name, metadata=header)
        (made / file.name).replace(place)
        made.rmdir()

    try:
        clear_leftovers(file)
        write_whole(file, write)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be written ({error}). Free some space or choose another folder, and "
            "run the same command again: it continues from the last state."
        ) from error


def read_state(folder: Path) -> SavedRun | None:
    """What the folder's state says of its run; None where there is none.

    Raises:
        CheckpointError: the file is damaged, or of another version of echogen.
    """
    file = folder / STATE_FILE
    if not os.path.lexists(file):
        return None
    try:
        header = read_metadata(file)
        identity = parse_json(header["identity"], CheckpointError, "identity")
        version = _START.validate_python(identity).format
        progress = _PROGRESS.validate_json(header["progress"]) if version == FORMAT else None
        length = header["length"] if progress else ""
    except (KeyError, CheckpointError, ValidationError) as error:
        why = one_line(str(error).removeprefix(f"{file}: "), 200)
        raise CheckpointError(
            f"{file}: the saved state is damaged ({why}); start over with --overwrite."
        ) from error
    if progress is None:
        raise CheckpointError(
            f"{file}: saved by another version of echogen, which trained differently; finish "
            "the run with that version, or start over with --overwrite."
        )
    return SavedRun(progress, {k: v for k, v in identity.items() if k != "format"}, length)


def load_state(folder: Path, learner: Learner) -> None:
    """Fills `learner` from the folder's state.

    Raises:
        CheckpointError: the state is damaged or holds another network.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / STATE_FILE
    tensors = dict(_tensors(learner))
    check_shapes(
        read_header(file), {k: tuple(v.shape) for k, v in tensors.items()}, file, "the run"
    )
    try:
        with safe_open(file, framework="pt") as stored, torch.no_grad():
            values = {name: stored.get_tensor(name) for name in tensors}
            header = stored.metadata() or {}
            if header.get("digest") != _digest(header, values):
                raise RuntimeError("its content does not fit its digest")
            for name, tensor in tensors.items():
                if not torch.isfinite(values[name]).all():
                    raise RuntimeError(f"{name} has values that are not finite")
                tensor.copy_(values[name])
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: the saved state is damaged ({error}); start over with --overwrite."
        ) from error


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of what a header says, but for its digest, and of tensors on the CPU."""
    told = {key: value for key, value in sorted(header.items()) if key != "digest"}
    found = hashlib.sha256(json.dumps(told).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    for part, module in (("network", learner.network), ("average", learner.average)):
        for name, tensor in module.state_dict().items():
            yield f"{part}.{name}", tensor
    for name, parameter in learner.network.named_parameters():
        for moment in _MOMENTS:
            yield f"{moment}.{name}", learner.optimiser.state[parameter][moment]
