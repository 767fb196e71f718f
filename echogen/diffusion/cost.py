"""What painting costs and what the hardware could do: operations counted, products timed.

Operations are those of torch's own counter: a multiplication and an addition count as two.
"""

import platform
import time
from contextlib import suppress
from pathlib import Path

import torch

from echogen.diffusion.denoiser import Denoiser

SIDES = {"cpu": (512, 1024, 2048), "mps": (1024, 2048)}
SIDES_OF_A_GPU = (4096, 8192)
REPEATS = 5
ANY_SIDE = 256


@torch.inference_mode()
def evaluation_flops(denoiser: Denoiser) -> float:
    """Operations of one evaluation of one image, as the network runs on its device."""
    from torch.utils.flop_counter import FlopCounterMode

    side = denoiser.image_size or ANY_SIDE
    x = torch.zeros(1, denoiser.channels, side, side, device=denoiser.device)
    with FlopCounterMode(display=False) as counter:
        denoiser.predict(x, denoiser.schedule.steps // 2)
    return float(counter.get_total_flops())


@torch.inference_mode()
def matmul_ceiling(
    device: torch.device, dtype: torch.dtype, sides: tuple[int, ...] | None = None
) -> float:
    """Operations a second of the fastest square matrix product: the best of some sizes and tries.

    Args:
        device, dtype: where and in what type.
        sides: of the matrices; None takes some that suit the device.
    """
    best = 0.0
    for side in sides or SIDES.get(device.type, SIDES_OF_A_GPU):
        a = torch.randn(side, side, device=device).to(dtype)
        b = torch.randn(side, side, device=device).to(dtype)
        for _ in range(1 + REPEATS):
            synchronise(device)
            began = time.perf_counter()
            a @ b
            synchronise(device)
            best = max(best, 2.0 * side**3 / (time.perf_counter() - began))
    return best


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def processor_name() -> str:
    """The processor as the system calls it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
