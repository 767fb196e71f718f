"""Models of guided diffusion (Dhariwal and Nichol 2021, 2105.05233) as echogen checkpoints.

Their file is a state dict and nothing else: `read_guided` reads it without running code in it,
`unet` converts it, and `import_guided` writes a checkpoint's folder with a card that says where it
came from and what was not certain.
"""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from echogen.diffusion.checkpoint import CheckpointInfo, file_sha256
from echogen.diffusion.saving import save_checkpoint
from echogen.errors import EXIT_DONE, CheckpointError, UsageError
from echogen.models.guided.architecture import (
    GuidedArchitecture,
    GuidedOptions,
    dashed,
    read_architecture,
)
from echogen.models.guided.unet import convert_guided
from echogen.models.registry import ModelCard
from echogen.report import CommandReport

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "fp16"]

WRAPPERS = ("ema", "ema_state_dict", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What `torch.load` raises for bytes that are no weights."""
UNKNOWN = "unknown; ask the model's authors"


@dataclass(frozen=True)
class ImportFacts:
    """What only people know about a model that is imported; see `CheckpointInfo`.

    `image_size` None takes `GuidedArchitecture.usual_image_size`; `source` says where the file was
    fetched from, such as a hub's repository and revision.
    """

    name: str
    licence: str = UNKNOWN
    citation: str = UNKNOWN
    training_data: str = UNKNOWN
    source: str = ""
    image_size: int | None = None


@dataclass(frozen=True)
class ImportReport(CommandReport):
    """An imported model, or what was measured where that was not conclusive.

    Attributes:
        checkpoint: the folder that was made; null where none was.
        name: of the model.
        sha256: of the checkpoint.
        options: with which the file was converted: what its shapes leave open.
        probe: what was measured to find them; null where they were given.
    """

    checkpoint: str | None = None
    name: str | None = None
    sha256: str | None = None
    options: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """0, or that of a model that cannot be used as it is."""
        return EXIT_DONE if self.checkpoint else CheckpointError.exit_code

    @classmethod
    def of(cls, folder: Path, info: CheckpointInfo) -> Self:
        """The report on a checkpoint that `import_guided` wrote."""
        imported = info.training["imported"]
        options, probe = imported["options"], imported.get("probe")
        return cls(str(folder), info.name, info.sha256, options, probe)


def facts_of(card: ModelCard, source: str = "") -> ImportFacts:
    """What a model's card says."""
    return ImportFacts(
        card.name, card.licence, card.citation, card.training_data, source, card.image_size
    )


def read_guided(file: Path | str) -> "dict[str, Tensor]":
    """The state dict in a `.pt` file, as float32 on the CPU; no code in it is run.

    The prefix of `DataParallel` and a plain dictionary around the weights are taken away, averaged
    weights ("ema") before others.

    Raises:
        CheckpointError: one line: no such file, not a PyTorch file, truncated, holds more than
            tensors, is no state dict of guided diffusion, or has values that are not finite.
    """
    import torch

    file = Path(file)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no such file"
        raise CheckpointError(f"{file}: {found}; give a guided-diffusion model's .pt file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickles, before they are refused
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{file}: {_reason(error)}") from error
    state = _unwrap(loaded, file)
    count, size = sum(value.numel() for value in state.values()), file.stat().st_size
    if count > size:  # views that repeat what little there is
        raise CheckpointError(f"{file}: {count:,} weights in {size:,} bytes; download it again.")
    for name, value in state.items():
        if value.layout is not torch.strided or not value.is_floating_point():
            kind = str(value.dtype if value.layout is torch.strided else value.layout)
            raise CheckpointError(
                f"{file}: {name} is {kind.removeprefix('torch.')}, expected dense floating point; "
                "save the model's state_dict() alone."
            )
    weights = {name: value.float() for name, value in state.items()}
    wrong = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise CheckpointError(f"{file}: NaN or infinite values in {wrong[0]}; download it again.")
    return weights


def import_guided(
    file: Path | str,
    out: Path | str,
    options: GuidedOptions,
    facts: ImportFacts,
    *,
    probe: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    overwrite: bool = False,
) -> CheckpointInfo:
    """Writes a model of guided diffusion as a checkpoint's folder.

    Args:
        file: its state dict, `.pt`.
        out: the folder to make.
        options: what the shapes leave open.
        facts: name, terms, and what else only people know.
        probe: how the options were found, for the record (`Probe.to_dict`).
        precision: of the stored weights; "fp32" keeps them as they are.
        overwrite: whether an existing folder is replaced.

    Raises:
        CheckpointError: the file cannot be read or converted, or the folder cannot be written.
        UsageError: the image's size does not fit the levels.
    """
    import torch

    file = Path(file)
    state = read_guided(file)
    try:
        moved, unet, scheduler = convert_guided(state, options)
        architecture = read_architecture(state)
        _check_channels(architecture)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    size = image_size_of(architecture, facts.image_size)
    if precision == "fp16":
        moved = {name: value.to(torch.float16) for name, value in moved.items()}
    imported = {
        "from": "guided-diffusion",
        "file": file.name,
        "sha256": file_sha256(file),
        "source": facts.source,
        "options": options.model_dump(),
        "precision": precision,
    }
    if probe is not None:
        imported["probe"] = dict(probe)
    info = CheckpointInfo(
        name=facts.name,
        image_size=size,
        resize="stretch",
        patch=1,
        channels=architecture.in_channels,
        labels={},
        training_data=facts.training_data,
        licence=facts.licence,
        citation=facts.citation,
        training={"imported": imported},
    )
    unet["sample_size"] = size
    card = _card(info, architecture, options, probe is not None)
    return save_checkpoint(
        Path(out), moved, unet, scheduler, info, readme=card, overwrite=overwrite
    )


def image_size_of(architecture: GuidedArchitecture, wanted: int | None) -> int:
    """The side of a model's images: as wanted, or the usual one.

    Raises:
        UsageError: the network's levels cannot halve it.
    """
    size = wanted or architecture.usual_image_size
    if size % architecture.least_side:
        raise UsageError(
            f"image size {size}: expected a multiple of {architecture.least_side}, because the "
            f"model has {len(architecture.channels)} levels."
        )
    return size


def _unwrap(loaded: Any, file: Path) -> "dict[str, Tensor]":
    import torch

    inner = loaded
    if isinstance(loaded, Mapping):
        within = [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        inner = loaded[within[0]] if within else loaded
    if (
        not isinstance(inner, Mapping)
        or not inner
        or not all(isinstance(key, str) for key in inner)
        or not all(isinstance(value, torch.Tensor) for value in inner.values())
    ):
        raise CheckpointError(
            f"{file}: expected a state dict (names with tensors), found "
            f"{_describe(inner)}; save the model's state_dict() alone."
        )
    state = {str(name): value for name, value in inner.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _describe(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return "a dictionary of " + ", ".join(sorted(map(str, value))[:4])
    return f"an empty {type(value).__name__}" if value == {} else f"a {type(value).__name__}"


def _reason(error: Exception) -> str:
    name = re.search(r"GLOBAL (\S+)|[Uu]nsupported class (\S+)", str(error))
    if name:
        return (
            f"asks for {name[1] or name[2]} to be loaded, which weights never need, so it was "
            "rejected; ask its authors to save the state dict alone."
        )
    if isinstance(error, PermissionError):
        return f"cannot be read ({error.strerror})."
    return "not a readable PyTorch weights file, or truncated; download it again."


def _check_channels(architecture: GuidedArchitecture) -> None:
    into, out = architecture.in_channels, architecture.out_channels
    if into not in (1, 3) or out not in (into, 2 * into):
        raise CheckpointError(
            f"{into} channels in and {out} out: expected 1 or 3 in, and as many out or, with a "
            "learned variance, twice as many."
        )


def _card(
    info: CheckpointInfo, architecture: GuidedArchitecture, options: GuidedOptions, probed: bool
) -> str:
    imported = info.training["imported"]
    heads = (
        f"{options.num_heads} heads"
        if options.num_heads is not None
        else f"{options.num_head_channels} channels per head"
    )
    attended = [
        str(info.image_size // 2**level) for level, has in enumerate(architecture.attention) if has
    ]
    return "\n".join(
        [
            f"# {info.name}",
            "",
            "Imported from a guided-diffusion model; the weights are its authors' work.",
            "",
            f"- Terms: {info.licence}",
            f"- Cite: {info.citation}",
            f"- Trained on: {info.training_data}",
            f"- From: {imported['file']}, SHA-256 {imported['sha256']}"
            + (f", {imported['source']}" if imported["source"] else ""),
            f"- Paints: {info.image_size} x {info.image_size}, {info.channels} channels",
            f"- Network: channels {dashed(architecture.channels)}, {architecture.blocks} residual "
            f"blocks per level, attention at {', '.join(attended) or 'the middle'}",
            f"- Diffusion: {options.steps} steps, {options.noise_schedule} schedule; "
            + ("learned variance" if architecture.learned_variance else "fixed variance"),
            f"- Attention: {heads}, {'new' if options.new_attention_order else 'legacy'} order",
            "",
            "The weights' shapes do not determine the schedule and the heads: "
            + (
                "they were chosen by denoising error on real frames; the figures are in "
                "`echogen.json`."
                if probed
                else "whoever imported the model gave them, and they were not checked."
            ),
            "",
            (
                "Painted pixels are plausible, not real: do not use them for diagnosis or "
                "measurements."
            ),
            "",
        ]
    )
