"""torch.compile around a network, with a fall-back where it fails.

Compiling takes a minute, so it waits until a batch's shape has come back a few times, and is done
for one shape: the short last batch of a run goes through the plain network, and so does all that
follows where compiling fails (no C++ compiler, an operation that is not supported).
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from echogen.diffusion.denoiser import Network
from echogen.support.words import one_line

PATIENCE = 12  # calls of one shape before it is compiled; measuring a batch size takes fewer


@dataclass
class CompiledNetwork:
    """A network of two tensors that is compiled for the batch it meets most.

    Attributes:
        plain: the network as it is.
        graphs: record CUDA graphs besides, so that a call is one launch.
        tell: called with one line when compiling begins, and when it fails.
    """

    plain: Network
    graphs: bool = False
    tell: Callable[[str], None] = field(default=lambda _: None)
    _fast: Network | None = field(default=None, init=False)
    _shape: torch.Size = field(default=torch.Size(), init=False)
    _seen: Counter[torch.Size] = field(default_factory=Counter, init=False)
    _failed: bool = field(default=False, init=False)

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        """`plain(x, condition)`, to rounding.

        Args:
            x: (B, ...); once a shape is compiled, smaller ones go through the plain network.
            condition: of one shape and type for the whole run.

        Returns:
            A tensor of its own: with CUDA graphs too, later calls do not overwrite it.
        """
        if self._fast is not None and x.shape == self._shape:
            try:
                return self._run(self._fast, x, condition)
            except RuntimeError:  # out of memory: a smaller batch will follow, and be the one
                self._fast, self._shape = None, torch.Size()
                raise
        self._seen[x.shape] += 1
        compiled = self._shape.numel() if self._fast is not None else 0
        if self._failed or self._seen[x.shape] <= PATIENCE or x.numel() <= compiled:
            return self.plain(x, condition)
        return self._compile(x, condition)

    def _compile(self, x: Tensor, condition: Tensor) -> Tensor:
        self.tell(f"compiling the network for batches of {len(x)}; this can take minutes")
        mode = "reduce-overhead" if self.graphs else "default"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                fast = torch.compile(self.plain, mode=mode, dynamic=False)
                output = self._run(fast, x, condition)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch raises many kinds, some private
            self._failed = True
            reason = f"{type(error).__name__}: {one_line(error, 160)}"
            self.tell(f"torch.compile failed ({reason}); continuing without it")
            return self.plain(x, condition)
        self._fast, self._shape = fast, x.shape
        return output

    def _run(self, fast: Network, x: Tensor, condition: Tensor) -> Tensor:
        if not self.graphs:
            return fast(x, condition)
        cast(Any, torch.compiler).cudagraph_mark_step_begin()
        return fast(x, condition).clone()
