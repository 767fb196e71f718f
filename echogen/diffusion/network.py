"""A checkpoint's network, loaded, checked and prepared for a device, a precision and compiling."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from echogen.config import CompileMode
from echogen.diffusion.border import BorderNetwork, load_border
from echogen.diffusion.checkpoint import (
    BORDER_WEIGHTS,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    check_channels,
    check_image_size,
    checkpoint_folder,
    read_json,
    verify_checkpoint,
)
from echogen.diffusion.compiled import CompiledNetwork
from echogen.diffusion.denoiser import Denoiser, Network
from echogen.diffusion.fast import FastUNet, is_supported
from echogen.diffusion.schedule import read_scheduler
from echogen.diffusion.unet_config import UNetConfig, read_unet
from echogen.diffusion.unet_modules import UNetModules, can_build
from echogen.diffusion.weights import load_weights, read_header
from echogen.errors import CheckpointError, EngineError, UsageError
from echogen.support.words import one_line

Wrapper = Callable[[Network], Network]

PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def load_checkpoint(
    path_or_name: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    compile: CompileMode = "off",
    tell: Callable[[str], None] = lambda _: None,
) -> Denoiser:
    """The checkpoint as a denoiser, its files verified first.

    Args:
        path_or_name: a folder, or "builtin".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: "auto", "fp32", "bf16" or "fp16", of the network's weights and activations.
        compile: "off", "on" (torch.compile) or "graphs" (CUDA graphs besides).
        tell: called with one line when compiling begins, and where it fails.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit together.
        EngineError: there is no such device.
    """
    info = verify_checkpoint(path_or_name)
    folder = checkpoint_folder(path_or_name)
    file = folder / SCHEDULER_CONFIG
    scheduler = read_json(file)
    read_scheduler(scheduler, file)
    network = load_network(folder / UNET_CONFIG, folder / WEIGHTS, callable=False)
    check_image_size(cast(Any, network).config, info)
    border = load_border(folder / BORDER_WEIGHTS) if BORDER_WEIGHTS in info.files else None
    return build_denoiser(
        network, scheduler, info, device, precision, border=border, compile=compile, tell=tell
    )


def build_denoiser(
    network: torch.nn.Module,
    scheduler_config: Mapping[str, Any],
    info: CheckpointInfo,
    device: str = "auto",
    precision: str = "auto",
    *,
    border: BorderNetwork | None = None,
    compile: CompileMode = "off",
    tell: Callable[[str], None] = lambda _: None,
) -> Denoiser:
    """A denoiser from a network, a diffusers scheduler configuration and the preprocessing.

    The network is moved to the device and precision in place, and taken to pieces where
    `FastUNet` can do its work.

    Args:
        network: a `UNet2DModel` or its `UNetModules`, in float32.
        scheduler_config, info: of its checkpoint.
        device, precision: as `resolve_device` and `resolve_precision` read them.
        border: corrects what the network predicts next to known pixels, in float32.
        compile: "on" runs the network through torch.compile, "graphs" records CUDA graphs too.
        tell: called with one line when compiling begins, and where it fails.

    Raises:
        CheckpointError: the configuration asks for something unknown, or the parts do not fit.
        EngineError: there is no such device.
        UsageError: the precision or `compile` is not known.
    """
    if compile not in get_args(CompileMode):
        raise UsageError(f"compile: expected {', '.join(get_args(CompileMode))}; got {compile!r}")
    scheduler = read_scheduler(scheduler_config, f"checkpoint {info.name}")
    check_channels(cast(Any, network).config, scheduler.variance_type, info)
    target = resolve_device(device)
    dtype = resolve_precision(precision, target)
    return Denoiser(
        network=_prepare(network, target, dtype, _compiler(compile, target, tell)),
        schedule=scheduler.schedule,
        prediction_type=scheduler.prediction_type,
        variance_type=scheduler.variance_type,
        clip=scheduler.clip_sample_range if scheduler.clip_sample else None,
        channels=info.channels,
        conditioning=info.conditioning,
        border=None if border is None else border.to(target),
        patch=info.patch,
        device=target,
        dtype=dtype,
        image_size=info.image_size,
        grey_levels=info.grey_levels,
        name=info.name,
    )


def load_network(
    config_file: Path, weights_file: Path, *, callable: bool = True
) -> torch.nn.Module:
    """A network with its weights, in float32 on the CPU.

    Args:
        config_file, weights_file: of diffusers' `UNet2DModel`.
        callable: False takes `UNetModules` where these have all parts, for `FastUNet` to take over:
            diffusers, whose import takes seconds, is then left alone.

    Raises:
        CheckpointError: the two files are damaged or do not fit together.
    """
    header = read_header(weights_file)
    config = read_unet(read_json(config_file), header, config_file, weights_file)
    try:
        network = _empty(config, callable)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{config_file}: is not a valid network configuration: {one_line(error)}"
        ) from error
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    state = load_weights(weights_file, wanted, config_file.name)
    network.load_state_dict(state, assign=True)
    return network


def _empty(config: UNetConfig, callable: bool) -> torch.nn.Module:
    if not callable and can_build(config):
        with torch.device("meta"):  # the weights follow: none are drawn
            return UNetModules(config)
    from diffusers import UNet2DModel

    network: torch.nn.Module = cast(Any, UNet2DModel).from_config(config.model_dump())
    return network


def resolve_device(name: str) -> torch.device:
    """The device that a name means; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        EngineError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(
            f"device {name!r}: unknown to torch; use auto, cpu, cuda, cuda:1 or mps."
        ) from error
    present = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise EngineError(
            f"device {name!r}: torch {torch.__version__} finds no such device on this machine; use "
            "--device cpu."
        )
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that a precision means; "auto" takes bf16 where the hardware multiplies it.

    Raises:
        UsageError: the name is not known.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bf16() else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"precision: expected auto, {', '.join(PRECISIONS)}; got {name!r}")
    return PRECISIONS[name]


def precision_name(dtype: torch.dtype) -> str:
    """The name in `PRECISIONS` of a type that `resolve_precision` gave."""
    return next(name for name, named in PRECISIONS.items() if named == dtype)


def _cpu_multiplies_bf16() -> bool:
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # newer than torch 2.6
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _prepare(
    network: torch.nn.Module, device: torch.device, dtype: torch.dtype, wrap: Wrapper
) -> Network:
    """The network where it is to run, in the form that `Denoiser.network` has."""
    if is_supported(network):
        fast = FastUNet(network, device, dtype)
        run = wrap(fast)
        return lambda x, timesteps: run(x, fast.modulation(float(timesteps[0])))
    network.eval().requires_grad_(False)
    torch.nn.Module.to(network, device, dtype)  # the override of diffusers warns here
    cast(Any, torch.nn.Module.to)(network, memory_format=torch.channels_last)

    def plain(x: Tensor, timesteps: Tensor) -> Tensor:
        output: Tensor = network(x, timesteps, return_dict=False)[0]
        return output

    run_plain = wrap(plain)
    return lambda x, timesteps: run_plain(x, timesteps.to(x.device))


def _compiler(compile: CompileMode, device: torch.device, tell: Callable[[str], None]) -> Wrapper:
    if compile == "off":
        return lambda network: network
    graphs = compile == "graphs" and device.type == "cuda"
    return lambda network: CompiledNetwork(network, graphs, tell)
