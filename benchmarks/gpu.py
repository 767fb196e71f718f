"""What painting costs on GPUs, in one call of less than ten minutes.

    python benchmarks/gpu.py --pack frames.npz       # anywhere echogen is installed
    python benchmarks/gpu.py --frames frames.npz     # on the GPU machine

The second needs this repository, torch, diffusers, safetensors and NumPy, nothing else. After each
stage what is known so far is written to `NAME.part.json`; a stage that fails leaves its reason and
the others go on; what there is no time for is left out.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from record import Record  # noqa: E402

from echogen.config import AugmentationConfig, EngineConfig, SamplerConfig  # noqa: E402
from echogen.diffusion.compiled import PATIENCE  # noqa: E402
from echogen.diffusion.cost import evaluation_flops, matmul_ceiling, synchronise  # noqa: E402
from echogen.diffusion.denoiser import Denoiser  # noqa: E402
from echogen.diffusion.network import PRECISIONS, load_checkpoint  # noqa: E402
from echogen.diffusion.noise import SampleNoise  # noqa: E402
from echogen.painting.devices import open_engine, resolve_devices  # noqa: E402
from echogen.painting.engine import Canvas, Engine  # noqa: E402

DISTINCT = 64
CALLS = 20
COMPARED = 8


class Packed:
    """Canvases and settings from a file that `pack` wrote."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as found:
            self.settings: dict[str, Any] = json.loads(str(found["settings"]))
            self.images, self.keeps = found["image"], found["keep"]

    @property
    def checkpoint(self) -> str:
        """Its folder or name."""
        return str(self.settings["checkpoint"])

    def canvases(self, count: int) -> list[Canvas]:
        """`count` canvases with seeds of their own over the packed frames."""
        pairs = list(zip(self.images, self.keeps, strict=True))
        return [Canvas(f"canvas{i}", i, *pairs[i % len(pairs)]) for i in range(count)]

    def engine(self, device: str, precision: str, size: int, compile: str = "off") -> Engine:
        """The engine as `echogen expand` would open it; that compiling fails is an error here."""

        def tell(line: str) -> None:
            print(line, flush=True)
            if "torch.compile failed" in line:
                raise RuntimeError(line)

        settings = {"device": device, "precision": precision, "batch_size": size}
        chosen = EngineConfig.model_validate({**settings, "compile": compile})
        sampler = TypeAdapter(SamplerConfig).validate_python(self.settings["sampler"])
        return open_engine(self.checkpoint, sampler, chosen, tell)


def pack(file: Path, checkpoint: str, sampler: dict[str, Any], count: int) -> None:
    """Moved phantoms, the sampler's settings and the checkpoint's name in one file."""
    from echogen.models.resolve import load_with_model
    from echogen.phantom.samples import phantom_samples

    given = {"sampler": sampler, "checkpoint": checkpoint}
    config, _, info = load_with_model(AugmentationConfig, given)
    samples = phantom_samples(count, (info.image_size, info.resize), config.transforms)
    settings = {
        "sampler": config.sampler.model_dump(mode="json", exclude_none=True),
        "checkpoint": checkpoint,
        "sha256": info.sha256,
    }
    np.savez_compressed(
        file,
        image=np.stack([sample.image for sample in samples]),
        keep=np.stack([sample.keep for sample in samples]),
        settings=json.dumps(settings),
    )
    print(f"{file}: {count} frames, {file.stat().st_size / 1e6:.1f} MB, {json.dumps(settings)}")


def smi() -> list[str]:
    """The GPUs as the driver names them."""
    query = "--query-gpu=name,driver_version,memory.total,power.limit"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def ceilings(device: torch.device, names: Iterable[str]) -> dict[str, float]:
    """GFLOP/s of the fastest matrix product."""
    return {name: matmul_ceiling(device, PRECISIONS[name]) / 1e9 for name in names}


def seconds_a_call(call: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Of calls in a row, after some that warm up; the host does not wait in between."""
    for _ in range(3):
        call()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise(device)
    return (time.perf_counter() - began) / calls


def _peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@torch.inference_mode()
def evaluation(denoiser: Denoiser, size: int, calls: int) -> dict[str, float]:
    """One batch size: ms and GFLOP/s of network evaluations, and memory."""
    device, side = denoiser.device, denoiser.image_size or 256
    _forget_peak(device)
    x = torch.randn(size, denoiser.channels, side, side, device=device)
    seconds = seconds_a_call(
        lambda: denoiser.predict(x, 500 % denoiser.schedule.steps), device, calls
    )
    return {
        "ms_per_image": 1000 * seconds / size,
        "gflops": size * evaluation_flops(denoiser) / seconds / 1e9,
        "peak_memory_gb": _peak_gb(device),
    }


def eager(packed: Packed, device: torch.device, precision: str, sizes: list[int]) -> Any:
    """Evaluations by batch size, up to the first that does not fit."""
    denoiser = load_checkpoint(packed.checkpoint, str(device), precision)
    found: dict[str, Any] = {}
    for size in sizes:
        try:
            found[str(size)] = evaluation(denoiser, size, CALLS)
        except torch.OutOfMemoryError:
            found[str(size)] = "out of memory"
            break
    return found


def compiled(packed: Packed, device: torch.device, mode: str, precision: str, size: int) -> Any:
    """One batch size compiled, and how long that took."""
    told: list[str] = []
    denoiser = load_checkpoint(
        packed.checkpoint,
        str(device),
        precision,
        compile=mode,
        tell=told.append,  # type: ignore[arg-type]
    )
    side = denoiser.image_size or 256
    x = torch.randn(size, denoiser.channels, side, side, device=device)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(PATIENCE + 1):
            denoiser.predict(x, 500 % denoiser.schedule.steps)
    synchronise(device)
    first = time.perf_counter() - began
    if len(told) != 1:
        raise RuntimeError("; ".join(told) or "it was not compiled")
    return {"first_calls_s": first, **evaluation(denoiser, size, CALLS)}


@torch.inference_mode()
def noise(device: torch.device, size: int, side: int) -> dict[str, float]:
    """Noise made on the device: its cost, and how far it is from the processor's."""
    seeds = range(2**63, 2**63 + size)
    shape = (size, 1, side, side)
    source = SampleNoise(seeds, device)
    seconds = seconds_a_call(lambda: source.draw(shape), device, CALLS)
    there, here = SampleNoise(seeds, device).draw(shape).cpu(), SampleNoise(seeds).draw(shape)
    return {
        "ms_per_image": 1000 * seconds / size,
        "greatest_difference": float((there - here).abs().max()),
    }


def paint(engine: Engine, canvases: list[Canvas]) -> list[np.ndarray]:
    painted = list(engine.run(canvases))
    finite = [image for image in painted if image is not None]
    if len(finite) < len(painted):
        raise RuntimeError(f"{len(painted) - len(finite)} of {len(painted)} are not finite")
    return finite


def painting(packed: Packed, device: torch.device, precision: str, size: int, compile: str) -> Any:
    """Two batches through sampler and engine on one device, after one that warms up."""
    engine = packed.engine(str(device), precision, size, compile)
    try:
        paint(engine, packed.canvases(size))
        _forget_peak(device)
        began = time.perf_counter()
        paint(engine, packed.canvases(2 * size))
        seconds = time.perf_counter() - began
    finally:
        engine.close()
    return {"images_per_s": 2 * size / seconds, "peak_memory_gb": _peak_gb(device)}


def agreement(packed: Packed, device: torch.device, names: Iterable[str]) -> Any:
    """The same seeds on the processor in float32 and on the device: differences in grey levels."""
    canvases = packed.canvases(COMPARED)
    hole = ~np.stack([canvas.keep for canvas in canvases])
    known = np.stack([canvas.image for canvas in canvases])

    def painted(where: str, precision: str) -> np.ndarray:
        engine = packed.engine(where, precision, len(canvases))
        try:
            return np.stack(paint(engine, canvases))
        finally:
            engine.close()

    exact = painted("cpu", "fp32")
    other = np.roll(exact, 1, axis=0)
    found: dict[str, Any] = {"another_image_rms": _rms(exact, other, hole)}
    for name in names:
        images = painted(str(device), name)
        found[name] = {
            "rms": _rms(exact, images, hole),
            "kept_pixels_are_exact": bool((images == known)[~hole].all()),
        }
    return found


def _rms(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt(np.square(a[where].astype(float) - b[where]).mean()))


def in_one_go(packed: Packed, devices: str, precision: str, count: int, compile: str) -> Any:
    """Very many images on every device, the model's loading and the search of a batch included."""
    canvases = packed.canvases(count)
    began = time.perf_counter()
    engine = packed.engine(devices, precision, 0, compile)
    try:
        engine.settle(count)
        ready = time.perf_counter()
        painted = paint(engine, canvases)
        done = time.perf_counter()
        return {
            "images": len(painted),
            "devices": engine.device,
            "precision": engine.precision,
            "batch_size": engine.batch_size,
            "start_s": ready - began,
            "painting_s": done - ready,
            "images_per_s": len(painted) / (done - ready),
        }
    finally:
        engine.close()


def stages(packed: Packed, given: argparse.Namespace) -> list[tuple[str, float, Callable[[], Any]]]:
    """(name, seconds it may take, what to measure), the most wanted first."""
    device = resolve_devices(given.device)[0]
    side = int(packed.images.shape[1])
    low = [name for name in ("bf16", "fp16") if device.type == "cuda" or name == "bf16"]
    sizes = [int(size) for size in given.sizes.split(",")]
    middle, modes = sizes[len(sizes) // 2], [mode for mode in given.compile.split(",") if mode]

    def flops() -> float:
        return evaluation_flops(load_checkpoint(packed.checkpoint, str(device), "bf16")) / 1e9

    work: list[tuple[str, float, Callable[[], Any]]] = [
        ("nvidia_smi", 1, smi),
        ("gflop_per_evaluation", 5, flops),
        ("matmul_ceiling_gflops", 5, lambda: ceilings(device, ["fp32", *low])),
        ("in_one_go", 60, lambda: in_one_go(packed, given.device, "auto", given.images, "off")),
        ("eager_bf16", 20, lambda: eager(packed, device, "bf16", sizes)),
        ("agreement", 30, lambda: agreement(packed, device, ["fp32", *low])),
        ("noise", 5, lambda: noise(device, middle, side)),
    ]
    work += [
        (f"painting_{size}", 20, lambda size=size: painting(packed, device, "bf16", size, "off"))
        for size in sizes
    ]
    for mode in modes:
        work += [
            (f"compile_{mode}_bf16_{middle}", 90,
             lambda mode=mode: compiled(packed, device, mode, "bf16", middle)),
            (f"painting_{middle}_{mode}", 90,
             lambda mode=mode: painting(packed, device, "bf16", middle, mode)),
        ]  # fmt: skip
    work += [
        (f"eager_{name}", 20, lambda name=name: eager(packed, device, name, sizes))
        for name in ("fp16", "fp32")
        if name == "fp32" or name in low
    ]
    if modes:
        last, largest = modes[-1], sizes[-1]
        work += [
            (f"in_one_go_{last}", 120,
             lambda: in_one_go(packed, given.device, "auto", given.images, last)),
            (f"compile_{last}_bf16_{largest}", 90,
             lambda: compiled(packed, device, last, "bf16", largest)),
            (f"compile_{last}_fp16_{middle}", 90,
             lambda: compiled(packed, device, last, "fp16", middle)),
        ]  # fmt: skip
    return work


def summary(found: dict[str, Any], nfe: int) -> dict[str, Any]:
    """Images/s and the share of the ceiling; what was not measured is left out."""
    shown: dict[str, Any] = {"nfe": nfe}
    if go := found.get("in_one_go"):
        shown["images_in_one_go"] = go["images"]
        shown["minutes_in_one_go"] = (go["start_s"] + go["painting_s"]) / 60
    best = max(
        (entry["images_per_s"], name) for name, entry in [("", {"images_per_s": 0.0})]
        + [(name, entry) for name, entry in found.items() if name.startswith("painting") and entry]
    )  # fmt: skip
    ceiling, flops = found.get("matmul_ceiling_gflops"), found.get("gflop_per_evaluation")
    if best[1]:
        shown["best_images_per_s"], shown["best_of"] = best
        if ceiling and flops:
            shown["share_of_matmul_ceiling"] = best[0] * nfe * flops / ceiling["bf16"]
    return shown


def sampler_nfe(packed: Packed) -> int:
    engine: Any = packed.engine("cpu", "fp32", 1)
    return int(engine.sampler.nfe)


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, help="write frames to this file, and nothing else")
    parser.add_argument("--checkpoint", default="builtin", help="with --pack")
    parser.add_argument("--sampler", type=json.loads, default={}, help="with --pack: JSON")
    parser.add_argument("--frames", type=Path, help="as --pack wrote them")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu.json")
    parser.add_argument("--device", default="auto", help="auto takes every visible GPU")
    parser.add_argument("--sizes", default="16,64,128,256,512", help="of batches")
    parser.add_argument("--images", type=int, default=8000, help="in one go")
    parser.add_argument("--compile", default="on,graphs", help="modes to compare with eager")
    parser.add_argument("--seconds", type=float, default=540, help="then begin no other stage")
    parser.add_argument("--smoke", action="store_true", help="tiny, to see that it works")
    given = parser.parse_args()
    if given.smoke:
        given.sizes, given.images, given.compile = "1,2", 5, ""
    if given.pack is not None:
        pack(given.pack, given.checkpoint, given.sampler, 4 if given.smoke else DISTINCT)
        return
    packed = Packed(given.frames)
    flags = {name: getattr(given, name) for name in ("device", "sizes", "images", "compile")}
    record = Record(given.out, "python benchmarks/gpu.py", {**flags, **packed.settings})
    found: dict[str, Any] = {}
    for name, needed, measure in stages(packed, given):
        left = given.seconds - (time.monotonic() - began)
        if left >= needed:
            found[name] = record.stage(name, measure)
        else:
            record.leave_out(name, f"{max(left, 0):.0f} s left of {needed:.0f} that it may take")
    record.finish(summary(found, sampler_nfe(packed)))


if __name__ == "__main__":
    main()
