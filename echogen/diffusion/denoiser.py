"""A network and its noise schedule as one function: a noisy image in, a clean one predicted.

Hides what differs between models: what the network predicts (noise, v or the image), a learned or
a fixed variance, grey or three channels, space-to-depth, and the precision it runs in. With
abar = alphas_cumprod[t], x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps (Ho et al. 2020, 2006.11239) and
v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans and Ho 2022, 2202.00512).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from echogen.diffusion.checkpoint import CheckpointInfo, read_json
from echogen.diffusion.compiled import COMPILE_MODES, CompiledNetwork, CompileMode, Network
from echogen.diffusion.fast import FastUNet, is_supported
from echogen.diffusion.schedule import Schedule, schedule_from_config
from echogen.errors import CheckpointError, EngineError, UsageError

PredictionType = Literal["epsilon", "v_prediction", "sample"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
Wrapper = Callable[[Network], Network]

PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Prediction:
    """What the denoiser makes of x_t.

    Attributes:
        x0: (B, C, H, W) float32, the clean image, clipped if the checkpoint says so.
        variance_mix: (B, C, H, W) float32 for a learned range, else None: f in [0, 1] between the
            posterior's log-variance (0) and log beta (1) (2102.09672, eq. 15).
    """

    x0: Tensor
    variance_mix: Tensor | None


@dataclass(frozen=True)
class Denoiser:
    """A network with everything a sampler needs to use it.

    Attributes:
        network: (B, C patch^2, H/patch, W/patch) and (B,) timesteps, all equal, on the CPU, int64
            or float32 between them, to the raw output, with twice the channels for a learned range.
        schedule: the full schedule it was trained on.
        prediction_type: what its output means.
        variance_type: of the reverse step.
        clip: x0 is clipped to [-clip, clip]; None leaves it.
        channels: C, 1 or 3. Three channels carry three independent noises over one grey image.
        patch: space-to-depth factor.
        device, dtype: where and in what precision the network runs.
        image_size: the side it was trained on; None takes any.
        name: of the checkpoint, for messages.
    """

    network: Network
    schedule: Schedule
    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_small"
    clip: float | None = 1.0
    channels: int = 1
    patch: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    image_size: int | None = None
    name: str = ""

    def predict(self, x: Tensor, t: float) -> Prediction:
        """The clean image behind x_t.

        Args:
            x: (B, C, H, W) float32 on `device`.
            t: the model's timestep in [0, T - 1], an index into `schedule` or between two.

        Returns:
            float32 tensors of x's shape, whatever precision the network runs in.
        """
        packed = torch.pixel_unshuffle(x, self.patch)
        packed = packed.to(self.dtype, memory_format=torch.channels_last)
        kind = torch.int64 if float(t).is_integer() else torch.float32
        output = self.network(packed, torch.full((len(x),), t, dtype=kind))
        mix = None
        if self.variance_type == "learned_range":
            output, mix = output.chunk(2, dim=1)
            mix = (self._unpack(mix) + 1.0) / 2.0
        abar = 1.0 / (1.0 + self.schedule.sigma_at(t) ** 2)
        x0 = self._x0(x, self._unpack(output), abar)
        return Prediction(x0 if self.clip is None else x0.clamp(-self.clip, self.clip), mix)

    def _unpack(self, packed: Tensor) -> Tensor:
        return torch.pixel_shuffle(packed, self.patch).to(torch.float32).contiguous()

    def _x0(self, x: Tensor, output: Tensor, abar: float) -> Tensor:
        signal, noise = abar**0.5, (1.0 - abar) ** 0.5
        if self.prediction_type == "epsilon":
            output = torch.add(x, output, alpha=-noise) / signal
        elif self.prediction_type == "v_prediction":
            output = torch.add(signal * x, output, alpha=-noise)
        return output


def build_denoiser(
    network: torch.nn.Module,
    scheduler_config: Mapping[str, Any],
    info: CheckpointInfo,
    device: str = "auto",
    precision: str = "auto",
    *,
    compile: CompileMode = "off",
    tell: Callable[[str], None] = lambda _: None,
) -> Denoiser:
    """A denoiser from a network, a diffusers scheduler configuration and the preprocessing.

    The network is moved to the device and precision in place, and taken to pieces where
    `FastUNet` can do its work.

    Args:
        network: a `UNet2DModel` in float32.
        scheduler_config, info: of its checkpoint.
        device, precision: as `resolve_device` and `resolve_precision` read them.
        compile: "on" runs the network through torch.compile, "graphs" records CUDA graphs too.
        tell: called with one line when compiling begins, and where it fails.

    Raises:
        CheckpointError: the configuration asks for something unknown, or the parts do not fit.
        EngineError: there is no such device.
        UsageError: the precision or `compile` is not known.
    """
    if compile not in COMPILE_MODES:
        raise UsageError(f"compile: expected {', '.join(COMPILE_MODES)}; got {compile!r}")
    prediction = scheduler_config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise CheckpointError(
            f"checkpoint {info.name}: prediction_type: expected epsilon, v_prediction or sample, "
            f"found {prediction!r}"
        )
    variance = str(scheduler_config.get("variance_type", "fixed_small")).removesuffix("_log")
    if variance not in ("fixed_small", "fixed_large", "learned_range"):
        raise CheckpointError(
            f"checkpoint {info.name}: variance_type: expected fixed_small, fixed_large or "
            f"learned_range, found {variance!r}"
        )
    if scheduler_config.get("thresholding"):
        raise CheckpointError(f"checkpoint {info.name}: thresholding: true is not supported")
    _check_channels(network, variance, info)
    clip = float(scheduler_config.get("clip_sample_range", 1.0))
    target = resolve_device(device)
    dtype = resolve_precision(precision, target)
    return Denoiser(
        network=_prepared(network, target, dtype, _wrapper(compile, target, tell)),
        schedule=schedule_from_config(scheduler_config),
        prediction_type=cast(PredictionType, prediction),
        variance_type=cast(VarianceType, variance),
        clip=clip if scheduler_config.get("clip_sample", True) else None,
        channels=info.channels,
        patch=info.patch,
        device=target,
        dtype=dtype,
        image_size=info.image_size,
        name=info.name,
    )


def load_network(config_file: Path, weights_file: Path) -> torch.nn.Module:
    """A diffusers `UNet2DModel` with its weights, in float32 on the CPU.

    Raises:
        CheckpointError: diffusers is absent, or the two files are damaged or do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        from diffusers import UNet2DModel
    except (ImportError, RuntimeError) as error:  # diffusers turns the first into the second
        raise CheckpointError(
            "loading a checkpoint needs diffusers, which cannot be imported here "
            f"({_line(error)}); install it: pip install 'diffusers>=0.32'"
        ) from error
    config = read_json(config_file)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise CheckpointError(
            f"{config_file}: expected a UNet2DModel, found {config['_class_name']!r}"
        )
    try:
        network: torch.nn.Module = cast(Any, UNet2DModel).from_config(config)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{config_file}: describes no network: {_line(error)}") from error
    try:
        state = {name: value.float() for name, value in load_file(weights_file).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights_file}: not a readable safetensors file ({_line(error)}); fetch it again."
        ) from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights_file}: does not fit {config_file.name}: {_line(error)}"
        ) from error
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(
            f"{weights_file}: NaN or infinite values in {bad[0]}; fetch it again."
        )
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
            f"device {name!r}: not known to torch; use auto, cpu, cuda, cuda:1 or mps."
        ) from error
    present = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise EngineError(
            f"device {name!r}: torch {torch.__version__} finds none here; use --device cpu."
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


def _prepared(
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


def _wrapper(compile: CompileMode, device: torch.device, tell: Callable[[str], None]) -> Wrapper:
    if compile == "off":
        return lambda network: network
    graphs = compile == "graphs" and device.type == "cuda"
    return lambda network: CompiledNetwork(network, graphs, tell)


def _check_channels(network: torch.nn.Module, variance: str, info: CheckpointInfo) -> None:
    config: Mapping[str, Any] = cast(Any, network).config
    into = info.channels * info.patch**2
    out = into * (2 if variance == "learned_range" else 1)
    if (config["in_channels"], config["out_channels"]) != (into, out):
        raise CheckpointError(
            f"checkpoint {info.name}: {info.channels} channels with patch {info.patch} and "
            f"variance {variance} need a network of {into} -> {out} channels, found "
            f"{config['in_channels']} -> {config['out_channels']}"
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
