"""One step of training: gradients of a batch, in pieces if need be, and AdamW."""

import math
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from echogen.errors import EngineError
from echogen.training.augment import PARAMETERS
from echogen.training.batches import Batch, step_seed
from echogen.training.loss import Objective, noised
from echogen.training.network import VariedUNet, make_average
from echogen.training.recipe import OptimiserConfig, TrainConfig
from echogen.training.state import Learner
from echogen.training.tell import TrainingReporter


def make_learner(config: TrainConfig, device: torch.device) -> Learner:
    """A new network from the recipe's seed, its average, and AdamW.

    Raises:
        UsageError: the recipe describes no network.
    """
    torch.manual_seed(config.seed)
    network = VariedUNet(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        weight_decay=config.optimiser.weight_decay,
        fused=device.type == "cuda",
    )
    _make_moments(optimiser)
    return Learner(network.train(), make_average(network), optimiser)


def learning_rate(config: OptimiserConfig, step: int, done: float) -> float:
    """Linear warm-up by steps, cosine decay by share of the run."""
    warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
    decay = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * warm * decay


def seed_dropout(config: TrainConfig, step: int, process: int) -> None:
    """Dropout takes its numbers from torch's own generator: seeded anew at each step."""
    torch.manual_seed(step_seed(config.seed, step) + process)


def gradients(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    accelerator: Accelerator,
    batch_size: int,
    micro_batch: int | None,
) -> Tensor:
    """Adds the gradient of the mean loss of the whole batch to the parameters' `grad`.

    Args:
        model: the network as accelerate prepared it.
        batch: this process' share.
        objective: the recipe's.
        accelerator: of the run; over several processes gradients are averaged with the last piece.
        batch_size: of all processes together.
        micro_batch: at most so many images at once.

    Returns:
        This process' share of the mean loss, on the device.

    Raises:
        EngineError: the device's memory does not hold a piece.
    """
    processes = accelerator.num_processes
    total = torch.zeros((), device=batch.t.device)
    pieces = list(batch.parts(micro_batch))
    try:
        for number, piece in enumerate(pieces, start=1):
            last = number == len(pieces)
            with nullcontext() if last else accelerator.no_sync(model):
                x_t, _ = noised(piece.x0, piece.noise, objective.abar[piece.t], "epsilon")
                x_t = x_t.contiguous(memory_format=torch.channels_last)
                output = model(x_t, piece.t, piece.variation)
                loss = objective(output, piece.x0, piece.noise, piece.t).sum() / batch_size
                accelerator.backward(loss * processes)  # they will be averaged over processes
            total += loss.detach()
    except torch.OutOfMemoryError as error:
        size = len(pieces[0].t)
        raise EngineError(
            f"out of memory with {size} images at once; give --micro-batch {max(size // 2, 1)}: "
            "that changes neither data nor noise."
        ) from error
    return total


def update(learner: Learner, config: OptimiserConfig, rate: float) -> Tensor:
    """AdamW with clipped gradients, which are then dropped; gives their norm before clipping."""
    for group in learner.optimiser.param_groups:
        group["lr"] = rate
    norm: Tensor = nn.utils.clip_grad_norm_(learner.network.parameters(), config.clip_norm)
    learner.optimiser.step()
    learner.optimiser.zero_grad(set_to_none=True)
    return norm


def compile_network(
    learner: Learner,
    config: TrainConfig,
    size: int,
    accelerator: Accelerator,
    reporter: TrainingReporter,
) -> None:
    """Compiles the U-Net in place, if a trial step of the compiled one works.

    Args:
        learner: whose network to compile.
        config: the recipe.
        size: images at once.
        accelerator: of the run.
        reporter: told where compiling fails.
    """
    unet: Any = learner.network.unet
    device, side = accelerator.device, config.image_size // config.patch
    x = torch.zeros(size, learner.network.channels, side, side, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    t = torch.zeros(size, dtype=torch.long, device=device)
    try:
        unet.compile(dynamic=False)
        with accelerator.autocast(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how diffusers' code is traced
            trial = learner.network(x, t, torch.zeros(size, len(PARAMETERS), device=device))
        torch.autograd.backward(trial.float().sum())
    except Exception as error:  # inductor raises many kinds; training goes on without it
        first = (str(error).splitlines() or [""])[0]
        reporter.tell(
            f"torch.compile failed ({type(error).__name__}: {first}); training without it."
        )
        unet._compiled_call_impl = None
    learner.network.zero_grad(set_to_none=True)


def _make_moments(optimiser: torch.optim.AdamW) -> None:
    """AdamW makes its state at the first step; a step of zero gradients and rate makes it here.

    So a state can be saved, and filled, before the first step.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
        for parameter in group["params"]:
            optimiser.state[parameter]["step"].zero_()
