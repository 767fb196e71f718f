"""Weights in safetensors files: what a header says is checked before any of them is read."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import Field, ValidationError

from echogen.errors import CheckpointError
from echogen.support.reading import MOST_BYTES, open_regular, parse_json, reason
from echogen.support.settings import Settings, explain, shown
from echogen.support.words import one_line

if TYPE_CHECKING:
    from torch import Tensor

BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Of a number, by the types that weights may have."""
METADATA = "__metadata__"

Whole = Annotated[int, Field(strict=True, ge=0)]


class TensorHeader(Settings):
    """What a safetensors file says of a tensor: its type, shape, and where its bytes lie."""

    dtype: str
    shape: tuple[Whole, ...] = Field(max_length=8)
    data_offsets: tuple[Whole, Whole]

    @property
    def count(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorHeader]:
    """{name: what it is} of a safetensors file's tensors.

    Raises:
        CheckpointError: no safetensors file, truncated, or it holds something else than weights.
    """
    return _header(file)[0]


def read_metadata(file: Path) -> Mapping[str, str]:
    """The texts in a safetensors file's header; see `read_header`."""
    return _header(file)[1]


def load_weights(
    file: Path, wanted: Mapping[str, Sequence[int]] | None = None, whose: str = ""
) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, in float32 on the CPU.

    Args:
        file: of weights.
        wanted: {name: shape} that it must hold, no more and no less; None takes any.
        whose: what `wanted` is of, for the message.

    Raises:
        CheckpointError: as `read_header`, its tensors are other ones, or a value is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(file)
    if wanted is not None:
        check_shapes(header, wanted, file, whose)
    try:
        weights = {name: value.float() for name, value in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        _unreadable(file, one_line(error), error)
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{file}: NaN or infinite values in {name}; download it again.")
    return weights


def check_shapes(
    header: Mapping[str, TensorHeader],
    wanted: Mapping[str, Sequence[int]],
    file: Path,
    whose: str,
) -> None:
    """Refuse a file that holds other tensors than wanted; see `load_weights`.

    Raises:
        CheckpointError: names the first one.
    """
    found = {name: tensor.shape for name, tensor in header.items()}
    for name in sorted(found.keys() | wanted.keys()):
        ours, theirs = (_shape(table.get(name)) for table in (wanted, found))
        if ours != theirs:
            raise CheckpointError(
                f"{file}: does not fit {whose}: {one_line(name, 100)} is {theirs}, expected {ours}"
            )


def _header(file: Path) -> tuple[dict[str, TensorHeader], Mapping[str, str]]:
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size - 8
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size, MOST_BYTES):
                _unreadable(file, f"a header of {length:,} bytes in a file of {size + 8:,}")
            text = stream.read(length).decode()
    except (OSError, UnicodeDecodeError) as error:
        _unreadable(file, reason(error), error)
    table = parse_json(text, CheckpointError, f"{file}: not a readable safetensors file: header")
    if not isinstance(table, dict):
        _unreadable(file, f"a {type(table).__name__} for a header")
    metadata = table.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        _unreadable(file, f"{METADATA} is not a table of texts")
    return {name: _tensor(file, name, one, size - length) for name, one in table.items()}, metadata


def _tensor(file: Path, name: str, given: Any, size: int) -> TensorHeader:
    try:
        tensor = TensorHeader.model_validate(given)
    except ValidationError as error:
        _unreadable(file, f"{shown(name)}: {explain(error, TensorHeader)}", error)
    if tensor.dtype not in BYTES:
        _unreadable(file, f"{shown(name)} is {tensor.dtype:.40}, expected {', '.join(BYTES)}")
    first, last = tensor.data_offsets
    if last > size or last - first != tensor.count * BYTES[tensor.dtype]:
        _unreadable(file, f"{shown(name)} does not lie within the file as its shape needs")
    return tensor


def _unreadable(file: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise CheckpointError(
        f"{file}: not a readable safetensors file, or truncated ({why}); download it again."
    ) from cause


def _shape(sizes: Sequence[int] | None) -> str:
    return "missing" if sizes is None else " x ".join(map(str, sizes)) or "a number"
