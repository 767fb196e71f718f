"""What learns: the network, its moving average and AdamW; and one step of them.

The network is diffusers' `UNet2DModel`, told how its input was varied (see `augment`) through a
linear map without bias. That map is left out of what is saved for use: for unvaried frames it adds
zero, so the saved U-Net is exactly the network without it.
"""

import copy
import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from echogen.errors import EngineError, UsageError
from echogen.report import Reporter
from echogen.support.words import one_line
from echogen.training.augment import PARAMETERS
from echogen.training.batches import TrainingBatch, step_seed
from echogen.training.loss import Objective, counted, noised, shown
from echogen.training.recipe import OptimiserConfig, Recipe


class VariedUNet(nn.Module):
    """What it is shown (B, C + K, H, W), t (B,), variation (B, 7) to an output of C channels, or of
    2 C.

    Attributes:
        unet: diffusers' network, whose "class embedding" takes the variation's embedding.
        variation: the bias-free map from parameters to the time embedding.
        channels: C of the picture; channels of the output beyond it are the learned variance.
        seen: C + K, with those for the map of what is known.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.channels = recipe.channels * recipe.patch**2
        self.seen = self.channels + recipe.keep_channels
        self.unet = make_unet(recipe, class_embed_type="identity", dropout=recipe.optimiser.dropout)
        width = 4 * int(recipe.network["block_out_channels"][0])
        self.variation = nn.Linear(len(PARAMETERS), width, bias=False)
        nn.init.zeros_(self.variation.weight)

    def forward(self, x: Tensor, t: Tensor, variation: Tensor) -> Tensor:
        """The network's output."""
        output: Tensor = self.unet(x, t, self.variation(variation), return_dict=False)[0]
        return output

    def unvaried(self, x: Tensor, t: Tensor) -> Tensor:
        """What the exported U-Net predicts, its variance left out."""
        output: Tensor = self(x, t, x.new_zeros(len(x), len(PARAMETERS)))
        return output[:, : self.channels]


def make_unet(recipe: Recipe, **more: Any) -> nn.Module:
    """The recipe's plain `UNet2DModel`, with settings that only training has in `more`.

    Raises:
        UsageError: the table [network] does not describe one, or not one of the right channels.
    """
    from diffusers import UNet2DModel

    picture, kept = recipe.channels * recipe.patch**2, recipe.keep_channels
    out = 2 * picture if recipe.learns_variance else picture
    seen = " + patch^2 for conditioning 'known'" if kept else " without conditioning"
    doubled = " x 2 for a learned variance" if recipe.learns_variance else ""
    for key, expected, why in (
        ("in_channels", picture + kept, seen),
        ("out_channels", out, doubled),
    ):
        if recipe.network.get(key) != expected:
            raise UsageError(
                f"[network] {key} {recipe.network.get(key)}: expected {expected}, "
                f"channels x patch^2{why}."
            )
    side = recipe.image_size // recipe.patch
    sample = recipe.network.get("sample_size")
    if sample not in (None, side, [side, side], (side, side)):
        raise UsageError(
            f"[network] sample_size {sample}: expected {side}, image_size / patch; set it."
        )
    network_class: Any = UNet2DModel
    try:
        network: nn.Module = network_class(**{**recipe.network, **more})
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        reason = one_line(error, 200)
        raise UsageError(f"[network]: does not describe a UNet2DModel: {reason}") from error
    halvings = len(recipe.network.get("block_out_channels", ())) - 1
    if side % 2 ** max(halvings, 0):
        raise UsageError(
            f"[network]: halves {side} x {side} (image_size / patch) {halvings} times, which "
            f"leaves a remainder; make image_size a multiple of {recipe.patch * 2**halvings}."
        )
    return network


def make_average(network: VariedUNet) -> VariedUNet:
    """A copy that will follow the network; it is never trained itself."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def follow(average: VariedUNet, network: VariedUNet, config: OptimiserConfig, images: int) -> None:
    """Moves the average towards the network, with a half-life in images."""
    half_life = min(config.ema_half_life, config.ema_ramp * images)
    share = 1 - 0.5 ** (config.batch_size / max(half_life, 1e-8))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)


@dataclass(frozen=True)
class Learner:
    """The network, its moving average, and the optimiser of the network's parameters."""

    network: VariedUNet
    average: VariedUNet
    optimiser: torch.optim.AdamW


def make_learner(recipe: Recipe, device: torch.device) -> Learner:
    """A new network from the recipe's seed, its average, and AdamW.

    Raises:
        UsageError: the recipe describes no network.
    """
    torch.manual_seed(recipe.seed)
    network = VariedUNet(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=recipe.optimiser.learning_rate,
        betas=recipe.optimiser.betas,
        weight_decay=recipe.optimiser.weight_decay,
        fused=device.type == "cuda",
    )
    _make_moments(optimiser)
    return Learner(network.train(), make_average(network), optimiser)


def learning_rate(config: OptimiserConfig, step: int, done: float) -> float:
    """Linear warm-up by steps, cosine decay by share of the run."""
    warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
    decay = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * warm * decay


def seed_dropout(recipe: Recipe, step: int, process: int) -> None:
    """Dropout takes its numbers from torch's own generator: seeded anew at each step."""
    torch.manual_seed(step_seed(recipe.seed, step) + process)


def gradients(
    model: nn.Module,
    batch: TrainingBatch,
    objective: Objective,
    accelerator: Accelerator,
    micro_batch: int | None,
) -> Tensor:
    """Adds the gradient of the whole batch's loss to the parameters' `grad`.

    The loss is the mean over all pixels of all processes' images, weighted, where there is
    something known over those that are hidden.

    Args:
        model: the network as accelerate prepared it.
        batch: this process' share.
        objective: the recipe's.
        accelerator: of the run; over several processes gradients are averaged with the last piece.
        micro_batch: at most so many images at once.

    Returns:
        This process' share of the loss, on the device.

    Raises:
        EngineError: the device's memory does not hold a piece.
    """
    processes = accelerator.num_processes
    share = torch.zeros((), device=batch.t.device)
    total = batch.total.clamp(min=1)
    if processes > 1:
        total = cast(Tensor, accelerator.reduce(total, "sum"))
    pieces = list(batch.parts(micro_batch))
    try:
        for number, piece in enumerate(pieces, start=1):
            last = number == len(pieces)
            with nullcontext() if last else accelerator.no_sync(model):
                x_t, _ = noised(piece.x0, piece.noise, objective.abar[piece.t], "epsilon")
                x = shown(x_t, piece.x0, piece.keep).contiguous(memory_format=torch.channels_last)
                output = model(x, piece.t, piece.variation)
                errors = objective(output, piece.x0, piece.noise, piece.t)
                loss = counted(errors, piece.weight) / total
                accelerator.backward(loss * processes)  # they will be averaged over processes
            share += loss.detach()
    except torch.OutOfMemoryError as error:
        size = len(pieces[0].t)
        raise EngineError(
            f"out of memory with {size} images at once; use --micro-batch {max(size // 2, 1)}, "
            "which changes neither data nor noise."
        ) from error
    return share


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
    recipe: Recipe,
    size: int,
    accelerator: Accelerator,
    reporter: Reporter,
) -> None:
    """Compiles the U-Net in place, if a trial step of the compiled one works.

    Args:
        learner: whose network to compile.
        recipe: the recipe.
        size: images at once.
        accelerator: of the run.
        reporter: hears of it where compiling fails.
    """
    unet: Any = learner.network.unet
    device, side = accelerator.device, recipe.image_size // recipe.patch
    x = torch.zeros(size, learner.network.seen, side, side, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    t = torch.zeros(size, dtype=torch.long, device=device)
    try:
        unet.compile(dynamic=False)
        with accelerator.autocast(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how diffusers' code is traced
            trial = learner.network(x, t, torch.zeros(size, len(PARAMETERS), device=device))
        torch.autograd.backward(trial.float().sum())
    except Exception as error:  # inductor raises many kinds; training continues without it
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
