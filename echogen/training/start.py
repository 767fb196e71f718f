"""Starting from a checkpoint's weights instead of random ones: to fine-tune it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from echogen.diffusion.checkpoint import (
    SCHEDULER_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    checkpoint_folder,
    read_json,
    verify_checkpoint,
)
from echogen.diffusion.schedule import read_scheduler
from echogen.diffusion.weights import load_weights
from echogen.errors import CheckpointError
from echogen.training.card import training_record
from echogen.training.learner import Learner
from echogen.training.recipe import Recipe

_FIRST = "conv_in.weight"
"""The convolution that the channels of the map of what is known are added to."""


def load_start(place: Path | str, recipe: Recipe, learner: Learner) -> None:
    """Gives network and average a checkpoint's weights.

    One without conditioning starts a recipe with conditioning: the map of what is known enters with
    weights of zero, so that at first the network does what it did.

    Args:
        place: a checkpoint's folder, a training run's, or "builtin".
        recipe: of the learner.
        learner: what is trained.

    Raises:
        CheckpointError: there is none, it is damaged, or the recipe describes another network.
    """
    info, folder = verify_checkpoint(place), checkpoint_folder(place)
    _check(info, read_json(folder / SCHEDULER_CONFIG), recipe, place)
    weights = load_weights(folder / WEIGHTS)
    wanted: Mapping[str, Tensor] = learner.network.unet.state_dict()
    more = recipe.keep_channels - info.keep_channels
    if more and _FIRST in weights:
        first = weights[_FIRST]
        weights[_FIRST] = torch.cat([first, first.new_zeros(len(first), more, *first.shape[2:])], 1)
    for name in sorted(wanted.keys() | weights.keys()):
        ours, theirs = (_shape(table.get(name)) for table in (wanted, weights))
        if ours != theirs:
            raise CheckpointError(
                f"--start-from {place}: its network is not that of the recipe {recipe.name}: "
                f"{name} is {theirs}, the recipe's {ours}. Give a checkpoint of the recipe's "
                "network, or a recipe with the checkpoint's: echogen.json has it under training, "
                "config."
            )
    for module in (learner.network, learner.average):
        module.unet.load_state_dict(weights)


def start_record(info: CheckpointInfo) -> dict[str, str]:
    """What a run and its model's record say of where it started."""
    return {"name": info.name, "sha256": info.sha256}


def trained_before(info: CheckpointInfo, cases: Mapping[str, Iterable[str]]) -> list[str]:
    """The cases of which a checkpoint was trained on a frame, by what its record says.

    Args:
        info: of the checkpoint.
        cases: {case: digests of its frames}, such as those that are held out now.
    """
    try:
        known = training_record(info).cases.trained
    except CheckpointError:
        return []  # it was not trained by echogen, and says of no frame
    seen = {digest for digests in known.values() for digest in digests}
    return sorted(case for case, digests in cases.items() if seen.intersection(digests))


def _check(
    info: CheckpointInfo, scheduler: Mapping[str, object], recipe: Recipe, place: Path | str
) -> None:
    prediction = read_scheduler(scheduler, f"checkpoint {info.name}").prediction_type
    for what, theirs, ours in (
        ("patch", info.patch, recipe.patch),
        ("channels", info.channels, recipe.channels),
        ("prediction_type", prediction, recipe.prediction),
    ):
        if theirs != ours:
            raise CheckpointError(
                f"--start-from {place}: has {what} {theirs}, but the recipe {recipe.name} {ours}; "
                "give a checkpoint and a recipe that agree."
            )
    if info.keep_channels > recipe.keep_channels:
        raise CheckpointError(
            f"--start-from {place}: its network is shown what is known, but the recipe "
            f"{recipe.name} has conditioning 'none'; give a recipe with conditioning 'known'."
        )


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else " x ".join(map(str, value.shape))
