"""Where a sampler's normal draws come from: an argument, never a global generator.

Each sample of a batch has its own generator, seeded by its own seed alone, so its noise does not
depend on its neighbours, its place in the batch, the device or the run.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class NoiseSource(Protocol):
    """What a sampler asks for noise."""

    def draw(self, shape: Sequence[int]) -> Tensor:
        """The next standard normal draw: (B, C, H, W) float32 on the sampler's device."""


class SampleNoise:
    """Noise from one generator a sample.

    The generators are NumPy's PCG64, float32 ziggurat: torch's CPU generator reads only the low 32
    of a seed's 64 bits, and its normals depend on the processor's vector instructions.
    """

    def __init__(self, seeds: Iterable[int], device: torch.device | str = "cpu") -> None:
        """One generator for each of `seeds` (0 <= seed < 2^64); draws go to `device`."""
        self._generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._device = torch.device(device)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """The next draw of every sample.

        Args:
            shape: (B, ...); B is the number of seeds.

        Returns:
            `shape` float32, standard normal.

        Raises:
            ValueError: B is not the number of seeds.
        """
        if shape[0] != len(self._generators):
            raise ValueError(f"expected {len(self._generators)} samples, one a seed; got {shape}")
        normals = np.empty(tuple(shape), dtype=np.float32)

        def fill(index: int) -> None:
            self._generators[index].standard_normal(out=normals[index], dtype=np.float32)

        if self._device.type == "cpu":  # the network owns the cores
            for index in range(len(normals)):
                fill(index)
        else:  # a fast device would wait for one core's draws
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                list(pool.map(fill, range(len(normals))))
        return torch.from_numpy(normals).to(self._device)
