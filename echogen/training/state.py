"""What a run must remember to go on as if it had never stopped, as safetensors, never pickles.

Network, average and AdamW's moments are tensors; counters travel in the file's header. Random
numbers need no place: those of a step depend on the run's seed and the step's number alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echogen.errors import CheckpointError
from echogen.training.network import VariedUNet

STATE_FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Progress:
    """Steps and images so far, seconds spent on them, and the best held-out figure (or inf)."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float = float("inf")


@dataclass(frozen=True)
class Learner:
    """The network, its moving average, and the optimiser of the network's parameters."""

    network: VariedUNet
    average: VariedUNet
    optimiser: torch.optim.AdamW


def save_state(
    folder: Path, learner: Learner, progress: Progress, identity: Mapping[str, Any]
) -> None:
    """Writes the state in one step: a kill leaves the old file or the new one.

    Args:
        folder: of the run.
        learner: what is learnt.
        progress: the counters.
        identity: settings and data that a resumed run must share, JSON-able.
    """
    from safetensors.torch import save_file

    header = {"progress": json.dumps(asdict(progress)), "identity": json.dumps(identity)}
    unfinished = folder / (STATE_FILE + ".part")
    save_file({k: v.contiguous() for k, v in _tensors(learner)}, unfinished, metadata=header)
    unfinished.replace(folder / STATE_FILE)


def load_state(folder: Path, learner: Learner, identity: Mapping[str, Any]) -> Progress:
    """Fills `learner` from the folder's state and gives the counters.

    Raises:
        CheckpointError: there is no state, it is damaged, or it is of a run with other settings.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / STATE_FILE
    try:
        with safe_open(file, framework="pt") as stored:
            header = stored.metadata() or {}
            saved = json.loads(header["identity"])
            here = json.loads(json.dumps(identity))
            differing = sorted(k for k in here.keys() | saved.keys() if here.get(k) != saved.get(k))
            if differing:
                raise CheckpointError(
                    f"{file}: saved by a run with other settings ({', '.join(differing)} differ); "
                    "resume with the same ones, or train into another folder."
                )
            _make_moments(learner.optimiser)
            for name, tensor in _tensors(learner):
                tensor.copy_(stored.get_tensor(name))
            return Progress(**json.loads(header["progress"]))
    except (OSError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: no state to resume from ({error}); start without --resume."
        ) from error


def _tensors(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    for part, module in (("network", learner.network), ("average", learner.average)):
        for name, tensor in module.state_dict().items():
            yield f"{part}.{name}", tensor
    for name, parameter in learner.network.named_parameters():
        for moment in _MOMENTS:
            yield f"{moment}.{name}", learner.optimiser.state[parameter][moment]


def _make_moments(optimiser: torch.optim.AdamW) -> None:
    """AdamW makes its state at the first step; a step of zero gradients and rate makes it here."""
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
