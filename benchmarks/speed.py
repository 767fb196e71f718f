"""What painting costs on this machine, against the published method's cost on the same machine.

    python benchmarks/speed.py

Measures, in one run of a few minutes on an otherwise idle machine: whole runs of `echogen expand`;
one evaluation of a fresh network of the published shape, times the 2,410 that it spends on an
image; operations by torch's counter; the ceilings of matrix products and convolutions; evaluations
at batch sizes of 1 to 64, and what they spend their time on. Interrupted, the same command goes on.
"""

import argparse
import copy
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import Record
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from echogen.config import AugmentationConfig, RepaintConfig
from echogen.diffusion.checkpoint import UNET_CONFIG, WEIGHTS, checkpoint_folder, read_info
from echogen.diffusion.cost import evaluation_flops, matmul_ceiling
from echogen.diffusion.fast import FastUNet
from echogen.diffusion.network import PRECISIONS, load_checkpoint, load_network, precision_name
from echogen.diffusion.schedule import sampler_nfe
from echogen.models.resolve import load_with_model

HERE = Path(__file__).parent
PUBLISHED_NFE = sampler_nfe(RepaintConfig())
PUBLISHED = {  # 64 channels times 1-1-2-2-4-4, three residual blocks, attention at 16 and 8
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": (64, 64, 128, 128, 256, 256),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D",) * 2,
    "up_block_types": ("AttnUpBlock2D",) * 2 + ("UpBlock2D",) * 4,
    "layers_per_block": 3,
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "resnet_time_scale_shift": "scale_shift",
}
ONE = ["--sampler", "repaint"] + [
    word
    for name in ("steps", "jump_length", "resamplings")
    for word in ("--set", f"sampler.{name}=1")
]
CONVOLUTIONS = ((64, 64), (128, 64), (128, 128), (256, 32), (160, 16))  # channels, side
KINDS = {
    "conv": "convolution",
    "group_norm": "group norm",
    "silu": "SiLU",
    "attention": "attention",
    "mm": "linear",
}


def best_seconds(call: Callable[[], Any], repeats: int) -> float:
    """The shortest of some calls after a first one, which warms up."""
    took = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)
    return min(took[1:])


def expand(data: Path, limit: int, copies: int, extra: list[str]) -> dict[str, Any]:
    """A whole run of the command, and what of it is no painting.

    `start_s` ends where the command begins its work; planning, loading the model, the trial of
    batch sizes and the store's last lines come next, and rendering and writing run beside painting.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "echogen", "expand", "--in", str(data), "--limit", str(limit),
            "--copies", str(copies), "--out", f"{folder}/out.zarr", "--json", "--quiet", *extra,
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall = time.monotonic() - began
    report = json.loads(done.stdout)
    painting = report["painted"] / report["images_per_s"]
    return {
        "images": report["painted"],
        "wall_s": wall,
        "start_s": wall - report["seconds"],
        "planning_and_loading_s": report["seconds"] - painting,
        "painting_s": painting,
        "s_per_image": wall / report["painted"],
        "s_per_image_without_start": 1.0 / report["images_per_s"],
        "nfe": report["nfe"],
        "precision": report["precision"],
        "device": report["device"],
        "peak_memory_mb": report["peak_memory_mb"],
    }


def planning(data: Path, limit: int, copies: int) -> dict[str, float]:
    """Reading the frames, finding their fans and drawing moves, in this process' workers."""
    from echogen.config import DatasetConfig
    from echogen.datasets import open_frames
    from echogen.planning.dataset import plan_dataset
    from echogen.report import QUIET

    frames = DatasetConfig(limit=limit)
    config, _, info = load_with_model(AugmentationConfig, {"copies": copies, "limit": limit})
    began = time.monotonic()
    plan_dataset(*open_frames(data, frames), config, info, QUIET)
    seconds = time.monotonic() - began
    return {"seconds": seconds, "s_per_image": seconds / (limit * copies)}


def reference(side: int, repeats: int) -> dict[str, Any]:
    """The published network with random weights, one image at a time."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network: Any = UNet2DModel(**{**PUBLISHED, "sample_size": side}).eval()
    x, t = torch.randn(1, 3, side, side), torch.tensor([500])
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(x, t)
    found = {
        "parameters": sum(value.numel() for value in network.parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "fp32_s": best_seconds(lambda: network(x, t), repeats),
    }
    torch.nn.Module.to(network, torch.bfloat16)  # the override of diffusers warns here
    network.to(memory_format=torch.channels_last)
    low = x.to(torch.bfloat16, memory_format=torch.channels_last)
    return {**found, "bf16_channels_last_s": best_seconds(lambda: network(low, t), repeats)}


def plain_network() -> tuple[Any, tuple[int, int, int]]:
    """The built-in model's network as diffusers makes it, and the shape of an input."""
    folder = checkpoint_folder("builtin")
    network: Any = load_network(folder / UNET_CONFIG, folder / WEIGHTS).eval()
    info = read_info("builtin")
    side = info.image_size // info.patch
    return network, (info.channels * info.patch**2 + info.keep_channels, side, side)


def operations() -> dict[str, float]:
    """GFLOP of an evaluation of the built-in model: as it runs, and as diffusers would run it."""
    network, shape = plain_network()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, *shape), torch.tensor([500]))
    return {
        "as_it_runs": evaluation_flops(load_checkpoint("builtin", "cpu", "fp32")) / 1e9,
        "plain": counter.get_total_flops() / 1e9,
    }


def rearranged(size: int, repeats: int) -> dict[str, Any]:
    """The network in bf16 as diffusers runs it and as `FastUNet` does, in turns; shares of time."""
    cpu, low = torch.device("cpu"), torch.bfloat16
    plain, shape = plain_network()
    fast = FastUNet(copy.deepcopy(plain), cpu, low)
    torch.nn.Module.to(plain, low)
    plain.to(memory_format=torch.channels_last)
    x = torch.randn(size, *shape).to(low, memory_format=torch.channels_last)
    calls = {
        "plain": lambda: plain(x, torch.tensor([500]), return_dict=False),
        "rearranged": lambda: fast(x, fast.modulation(500)),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            took[name].append(best_seconds(call, 1))
    return {
        name: {"ms_per_image": 1000 * min(took[name]) / size, "shares": shares(call)}
        for name, call in calls.items()
    }


def shares(call: Callable[[], Any]) -> dict[str, float]:
    """Of the time of three calls, by kind of operation."""
    with torch.inference_mode():
        call()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(3):
                call()
    found = dict.fromkeys([*KINDS.values(), "other"], 0.0)
    total = sum(event.self_cpu_time_total for event in profiled.key_averages())
    for event in profiled.key_averages():
        kind = next((name for part, name in KINDS.items() if part in event.key), "other")
        found[kind] += event.self_cpu_time_total / total
    return {name: round(share, 4) for name, share in found.items()}


def ceilings(repeats: int) -> dict[str, Any]:
    """GFLOP/s of the fastest matrix product and the fastest 3 x 3 convolution, by type."""
    found: dict[str, Any] = {}
    for name in ("fp32", "bf16"):
        best, dtype = 0.0, PRECISIONS[name]
        for channels, side in CONVOLUTIONS:
            x = torch.randn(8, channels, side, side).to(dtype, memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3).to(dtype)
            weight = weight.contiguous(memory_format=torch.channels_last)
            seconds = best_seconds(
                lambda x=x, weight=weight: functional.conv2d(x, weight, padding=1), repeats
            )
            best = max(best, 18.0 * 8 * side**2 * channels**2 / seconds)
        product = matmul_ceiling(torch.device("cpu"), dtype)
        found[name] = {"matmul": product / 1e9, "convolution": best / 1e9}
    return found


def evaluations(sizes: list[int], precision: str, repeats: int) -> dict[str, Any]:
    """ms an image and evaluation, and the process's peak memory so far, by batch size."""
    denoiser = load_checkpoint("builtin", "cpu", precision)
    side = denoiser.image_size or 256
    found = {}
    for size in sizes:
        x = torch.randn(size, denoiser.channels, side, side)
        seconds = best_seconds(lambda x=x: denoiser.predict(x, 500), repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found[str(size)] = {"ms": 1000 * seconds / size, "peak_memory_mb": peak}
    return {"precision": precision_name(denoiser.dtype), "by_batch_size": found}


def summary(stages: dict[str, Any]) -> dict[str, Any]:
    """The figures that the stages are measured for; those whose stages failed are left out."""
    run, published, flops, ceiling = (
        stages.get(name) for name in ("expand", "reference", "gflop", "ceiling_gflops")
    )
    found: dict[str, Any] = {}
    if run and published:
        seconds = PUBLISHED_NFE * published["fp32_s"]
        found |= {
            "nfe": run["nfe"],
            "start_s": run["start_s"],
            "s_per_image": run["s_per_image"],
            "s_per_image_without_start": run["s_per_image_without_start"],
            "published_s_per_image": seconds,
            "factor": seconds / run["s_per_image"],
            "factor_without_start": seconds / run["s_per_image_without_start"],
            "published_s_per_image_bf16": PUBLISHED_NFE * published["bf16_channels_last_s"],
        }
    if run and flops and ceiling and run["precision"] in ceiling:
        done = flops["as_it_runs"] * run["nfe"] / run["s_per_image_without_start"]
        fastest = ceiling[run["precision"]]
        found |= {
            "gflops_of_painting": done,
            "share_of_matmul_ceiling": done / fastest["matmul"],
            "share_of_convolution_ceiling": done / fastest["convolution"],
        }
    if bare := stages.get("expand_one_evaluation"):
        found["s_per_image_with_one_evaluation"] = bare["s_per_image"]
    if network := stages.get("network"):
        plain, fast = network["plain"]["ms_per_image"], network["rearranged"]["ms_per_image"]
        found["network_rearranged_is_faster_by"] = plain / fast
    sweep = stages.get("evaluations")
    if run and sweep:
        found["images_per_s_by_batch_size"] = {
            size: 1000 / (entry["ms"] * run["nfe"])
            for size, entry in sweep["by_batch_size"].items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "sample_data" / "camus")
    parser.add_argument("--limit", type=int, default=8, help="frames")
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--sizes", default="1,2,4,8,16,32,64", help="of batches")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--reference-side", type=int, default=256)
    parser.add_argument("--expand", default="", help="more flags for expand")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.json")
    given = parser.parse_args()
    command = "python benchmarks/speed.py " + shlex.join(sys.argv[1:])
    shown = {name: value for name, value in vars(given).items() if name not in ("data", "out")}
    sampler = load_with_model(AugmentationConfig, {})[0].sampler
    settings = {**shown, "checkpoint": read_info("builtin").sha256, "sampler": dict(sampler)}
    record = Record(given.out, command.strip(), settings)
    sizes = [int(size) for size in given.sizes.split(",")]
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    work: dict[str, Callable[[], Any]] = {
        "expand": lambda: expand(given.data, given.limit, given.copies, given.expand.split()),
        "expand_one_evaluation": lambda: expand(given.data, given.limit, given.copies, ONE),
        "planning": lambda: planning(given.data, given.limit, given.copies),
        "reference": lambda: reference(given.reference_side, min(given.repeats, 3)),
        "gflop": operations,
        "network": lambda: rearranged(8, given.repeats),
        "ceiling_gflops": lambda: ceilings(given.repeats),
        "evaluations": lambda: evaluations(sizes, "auto", given.repeats),
        "evaluations_fp32": lambda: evaluations(sizes[:5], "fp32", given.repeats),
    }
    record.finish(summary({name: record.stage(name, measure) for name, measure in work.items()}))


if __name__ == "__main__":
    main()
