"""What `echogen expand` costs on this machine: images/s, ms an evaluation, peak memory.

    python benchmarks/expand_speed.py

Runs the command on the sample data in a process of its own, and writes results/expand_speed.json.
The published schedule costs 2,410 such evaluations an image.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from echogen.config import EngineConfig, SamplerConfig
from echogen.diffusion.checkpoint import read_info
from echogen.diffusion.denoiser import PRECISIONS
from echogen.diffusion.schedule import nfe, repaint_times
from echogen.engine.local import open_local

HERE = Path(__file__).parent


def processor() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def run_expand(data: Path, limit: int, copies: int) -> dict[str, object]:
    """One whole run; its report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "echogen", "expand", "--in", str(data), "--copies", str(copies),
            "--out", f"{folder}/out.zarr", "--limit", str(limit), "--json", "--quiet",
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {**json.loads(done.stdout), "wall_s": time.monotonic() - began}


def evaluation_ms(batch_size: int, repeats: int = 10) -> dict[str, float]:
    """Median ms an image of one network evaluation, for each precision."""
    size = read_info("builtin").image_size
    result = {}
    for precision in PRECISIONS:
        if precision == "fp16" and not torch.cuda.is_available():
            continue
        engine = open_local(
            "builtin", SamplerConfig(), EngineConfig(precision=precision), lambda _: None
        )
        x = torch.randn(batch_size, 1, size, size, device=engine.denoiser.device)
        took = []
        for _ in range(repeats + 2):
            began = time.perf_counter()
            with torch.inference_mode():
                engine.denoiser.predict(x, 500).x0.cpu()
            took.append(time.perf_counter() - began)
        result[precision] = float(np.median(took[2:])) * 1000 / batch_size
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "sample_data" / "camus")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "expand_speed.json")
    arguments = parser.parse_args()
    evaluations = evaluation_ms(arguments.batch_size)
    report = run_expand(arguments.data, arguments.limit, arguments.copies)
    published = nfe(repaint_times(250, 10, 10))
    result = {
        "command": "python benchmarks/expand_speed.py " + " ".join(sys.argv[1:]),
        "machine": {
            "processor": processor(),
            "cores": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": report["device"],
        },
        "checkpoint": report["checkpoint"],
        "ms_per_evaluation_and_image": evaluations,
        "default": {
            "nfe": report["nfe"],
            "images": report["painted"],
            "images_per_s": report["images_per_s"],
            "wall_s": report["wall_s"],
            "peak_memory_mb": report["peak_memory_mb"],
            "precision": report["precision"],
        },
        "evaluations_published_over_default": published / float(str(report["nfe"])),
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
