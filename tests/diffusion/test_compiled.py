import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from echogen.diffusion.compiled import PATIENCE, CompiledNetwork, Network
from echogen.diffusion.network import load_checkpoint
from echogen.errors import UsageError

CONDITION = torch.ones(1)


def double(x: Tensor, condition: Tensor) -> Tensor:
    return 2 * x * condition


def batch(size: int) -> Tensor:
    return torch.arange(4.0 * size).reshape(size, 4)


class Compiler:
    """In place of torch.compile: remembers the shapes that a compiled function ran."""

    def __init__(self, output: Callable[[Tensor], Tensor] = lambda x: 2 * x) -> None:
        self.made = 0
        self.ran: list[int] = []
        self.modes: list[str] = []
        self.output = output

    def __call__(self, plain: Network, *, mode: str, dynamic: bool) -> Network:
        assert not dynamic
        self.made += 1
        self.modes.append(mode)

        def run(x: Tensor, condition: Tensor) -> Tensor:
            self.ran.append(len(x))
            return self.output(x)

        return run


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    return made


def test_the_shape_that_comes_back_is_compiled_and_smaller_ones_are_not(
    compiler: Compiler,
) -> None:
    network = CompiledNetwork(double)
    for size in (1, 2, 4):  # as when a batch size is searched
        for _ in range(5):
            network(batch(size), CONDITION)
    assert compiler.made == 0
    for size in (4, 3, 4):
        for _ in range(2 * PATIENCE):
            torch.testing.assert_close(network(batch(size), CONDITION), 2 * batch(size))
    assert compiler.made == 1
    assert set(compiler.ran) == {4}
    for _ in range(2 * PATIENCE):
        network(batch(8), CONDITION)
    assert (compiler.made, compiler.ran[-1]) == (2, 8)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "at the first call"])
def test_where_compiling_fails_the_plain_network_goes_on_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    tried: list[int] = []

    def fail(*_: object, **__: object) -> Tensor:
        tried.append(1)
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr(torch, "compile", (lambda *_, **__: fail) if late else fail)
    told: list[str] = []
    network = CompiledNetwork(double, tell=told.append)
    for _ in range(3 * PATIENCE):
        torch.testing.assert_close(network(batch(3), CONDITION), 2 * batch(3))
    assert len(tried) == 1
    assert told == [
        "compiling the network for batches of 3; this can take minutes",
        "torch.compile failed (RuntimeError: no C++ compiler was found); continuing without it",
    ]


def test_after_running_out_of_memory_a_smaller_batch_is_compiled(compiler: Compiler) -> None:
    network = CompiledNetwork(double)
    for _ in range(PATIENCE + 1):
        network(batch(8), CONDITION)

    def full(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    compiler.output = full
    with pytest.raises(torch.OutOfMemoryError):
        network(batch(8), CONDITION)
    compiler.output = lambda x: 2 * x
    for _ in range(PATIENCE + 1):
        network(batch(4), CONDITION)
    assert compiler.ran[-1] == 4


def test_outputs_of_graphs_are_not_overwritten(compiler: Compiler) -> None:
    buffer = torch.empty(3, 4)
    compiler.output = lambda x: torch.mul(x, 2, out=buffer)
    network = CompiledNetwork(double, graphs=True)
    for _ in range(PATIENCE):
        network(batch(3), CONDITION)
    outputs = [network(batch(3) + i, CONDITION) for i in range(3)]
    for i, output in enumerate(outputs):
        torch.testing.assert_close(output, 2 * (batch(3) + i))
    assert compiler.ran == [3, 3, 3]
    assert compiler.modes == ["reduce-overhead"]


def test_off_never_compiles(checkpoint: Path, compiler: Compiler) -> None:
    denoiser = load_checkpoint(checkpoint, "cpu", "fp32")
    for _ in range(PATIENCE + 2):
        denoiser.predict(torch.zeros(1, 1, 32, 32), 3)
    assert compiler.made == 0


def test_the_network_is_one_graph_with_the_same_output(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda network, **_: real(network, backend="eager", fullgraph=True, dynamic=False),
    )
    told: list[str] = []
    plain = load_checkpoint(checkpoint, "cpu", "fp32")
    compiled = load_checkpoint(checkpoint, "cpu", "fp32", compile="on", tell=told.append)
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for t in range(PATIENCE + 3):
            torch.testing.assert_close(compiled.predict(x, t).x0, plain.predict(x, t).x0)
    assert told == ["compiling the network for batches of 2; this can take minutes"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_torch_compiles_what_it_is_given() -> None:
    told: list[str] = []
    network = CompiledNetwork(double, tell=told.append)
    with torch.inference_mode():
        for _ in range(PATIENCE + 2):
            torch.testing.assert_close(network(batch(5), CONDITION), 2 * batch(5))
    assert len(told) == 1
    assert network._fast is not None


def test_an_unknown_mode_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="compile: expected off, on, graphs; got 'fast'"):
        load_checkpoint(checkpoint, "cpu", compile="fast")  # type: ignore[arg-type]
