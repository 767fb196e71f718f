"""Where a sampler's normal draws come from: an argument, never a global generator.

Each sample has its own stream, keyed by its seed alone, so its noise does not depend on its
neighbours, its place in the batch, the device or the run. The stream is counter-based: Philox4x64
with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose words are
the same integers on every device, turned into normals by the method of Box and Muller.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


class NoiseSource(Protocol):
    """What a sampler asks for noise."""

    def draw(self, shape: Sequence[int]) -> Tensor:
        """The next standard normal draw: (B, C, H, W) float32 on the sampler's device."""


class SampleNoise:
    """Noise from one Philox stream a sample; the words are made where they are needed."""

    def __init__(self, seeds: Iterable[int], device: torch.device | str = "cpu") -> None:
        """One stream for each of `seeds` (0 <= seed < 2^64); draws go to `device`."""
        self._seeds = list(seeds)
        self._device = torch.device(device)
        self._on_device = self._device.type == "cuda"
        self._blocks = 0
        if self._on_device:
            signed = [seed - 2**64 if seed >= 2**63 else seed for seed in self._seeds]
            self._keys = torch.tensor(signed, dtype=torch.int64, device=self._device)
        else:
            self._streams = [np.random.Philox(key=seed) for seed in self._seeds]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """The next draw of every sample.

        Args:
            shape: (B, ...); B is the number of seeds.

        Returns:
            `shape` float32, standard normal.

        Raises:
            ValueError: B is not the number of seeds.
        """
        if shape[0] != len(self._seeds):
            raise ValueError(f"expected {len(self._seeds)} samples, one per seed; got {shape}")
        count = math.prod(shape[1:])
        blocks = -(-count // 8)  # a block is four words, a word two normals
        if self._on_device:
            made = normals(philox_words(self._keys, self._blocks, blocks))
        else:  # sample by sample, so that the work stays in the processor's cache
            made = torch.empty(len(self._seeds), 8 * blocks)
            for row, stream in zip(made, self._streams, strict=True):
                words = stream.random_raw(4 * blocks).view(np.int64)
                row.copy_(normals(torch.from_numpy(words)[None])[0])
            made = made.to(self._device)
        self._blocks += blocks
        return made[:, :count].reshape(tuple(shape))


def philox_words(keys: Tensor, start: int, blocks: int) -> Tensor:
    """Words of Philox4x64-10 streams, as `numpy.random.Philox(key=key)` gives them.

    Args:
        keys: (B,) int64, the bits of the keys; their upper halves are 0.
        start: blocks of each stream to leave out.
        blocks: how many to make.

    Returns:
        (B, 4 blocks) int64, the bits of unsigned words.
    """
    counter = torch.arange(start + 1, start + blocks + 1, dtype=torch.int64, device=keys.device)
    c0 = counter.expand(len(keys), -1)
    c1 = c2 = c3 = torch.zeros_like(c0)
    k0, k1 = keys[:, None], torch.zeros_like(keys)[:, None]
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _signed(_WEYL[0]), k1 + _signed(_WEYL[1])
    return torch.stack([c0, c1, c2, c3], dim=-1).flatten(1)


def normals(words: Tensor) -> Tensor:
    """Standard normals from random words: two a word, from its upper and its lower half.

    Args:
        words: (B, N) int64.

    Returns:
        (B, 2 N) float32.
    """
    upper = ((words >> 32) & _LOW).to(torch.float32)
    lower = (words & _LOW).to(torch.float32)
    radius = upper.add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()  # of a uniform in (0, 1]
    angle = lower.mul_(2.0 * math.pi * 2.0**-32)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)


def _multiply(constant: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and lower 64 bits of constant x words, all unsigned, in int64 arithmetic."""
    a_high, a_low = constant >> 32, constant & _LOW
    b_high, b_low = (words >> 32) & _LOW, words & _LOW
    cross = a_high * b_low
    other = a_low * b_high
    carry = (((a_low * b_low) >> 32) & _LOW) + (cross & _LOW) + (other & _LOW)
    high = a_high * b_high + ((cross >> 32) & _LOW) + ((other >> 32) & _LOW) + (carry >> 32)
    return high, words * _signed(constant)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
