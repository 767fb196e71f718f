"""The devices of a run through Hugging Face accelerate: one process each, started by its launcher.

Every process draws the same batch from the step's seed and takes its own share of it, so that the
order of data and noise depends on nothing but the seed. Only the first process writes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import broadcast_object_list

from echogen.diffusion.cost import processor_name
from echogen.diffusion.network import precision_name, resolve_device, resolve_precision
from echogen.errors import UsageError
from echogen.training.options import TrainingOptions


@contextmanager
def open_machine(options: TrainingOptions) -> Iterator[Accelerator]:
    """This process' device and its place among the others; given back at the end.

    Raises:
        EngineError: there is no such device.
        UsageError: its name is not one.
    """
    device = resolve_device(_device_name(options.device))
    if device.index is not None and "LOCAL_RANK" not in os.environ:
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    mixed = {"bf16": "bf16", "fp32": "no"}[training_precision(options.precision, device)]
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    try:
        yield accelerator
    except BaseException as error:
        clear_frames(error.__traceback__)  # they hold the wrapped network
        raise
    finally:
        try:
            # Before the group of processes: a wrapped network that is destroyed after it waits for
            # the group's threads while it holds the interpreter's lock, which they may need to end.
            accelerator.free_memory()
        finally:
            accelerator.end_training()
            AcceleratorState._reset_state(reset_partial_state=True)  # the next run may use another
            GradientState._reset_state()


def training_precision(name: str, device: torch.device) -> str:
    """ "bf16" or "fp32", as given, or for "auto" bf16 where the hardware multiplies it."""
    if name != "auto":
        return name
    best = precision_name(resolve_precision("auto", device))
    return "bf16" if best == "bf16" else "fp32"


def precision_of(accelerator: Accelerator) -> str:
    """ "bf16" or "fp32", in which the network runs."""
    return "bf16" if accelerator.mixed_precision == "bf16" else "fp32"


def share_of(accelerator: Accelerator, count: int) -> slice:
    """Which of `count` images of a batch are this process'.

    Raises:
        UsageError: there are fewer images than processes.
    """
    processes, number = accelerator.num_processes, accelerator.process_index
    if count < processes:
        raise UsageError(
            f"[optimiser] batch_size {count}: expected at least one image for each of the "
            f"{processes} processes; raise it or start fewer processes."
        )
    return slice(number * count // processes, (number + 1) * count // processes)


def agreed(accelerator: Accelerator, value: float) -> float:
    """The first process' value, in all of them: clocks and signals differ between processes."""
    if accelerator.num_processes == 1:
        return value
    values = [value]
    broadcast_object_list(values, from_process=0)
    return values[0]


def hardware(accelerator: Accelerator) -> str:
    """The devices in words, such as "2 x NVIDIA H100" or a processor's name and its threads."""
    if accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(accelerator.device)
    else:
        name = f"{processor_name()}, {torch.get_num_threads()} threads"
    count = accelerator.num_processes
    return name if count == 1 else f"{count} x {name}"


def _device_name(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r}: expected auto, cpu, cuda or cuda:1.")
    return name
