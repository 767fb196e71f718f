"""Writing a checkpoint's folder: all of it appears, or nothing; see `echogen.diffusion.checkpoint`.

Nothing but a checkpoint is ever overwritten.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from echogen.diffusion.checkpoint import (
    BORDER_WEIGHTS,
    CARD_FILE,
    FORMAT,
    HASHED_FILES,
    INFO_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    file_sha256,
)
from echogen.errors import CheckpointError, StoreError
from echogen.support.files import clear_leftovers, creating_path, make_folder, put_folder, real_path
from echogen.support.lock import store_lock

if TYPE_CHECKING:
    import torch


def save_checkpoint(
    folder: Path,
    state: Mapping[str, "torch.Tensor"],
    unet_config: Mapping[str, Any],
    scheduler_config: Mapping[str, Any],
    info: CheckpointInfo,
    *,
    border: Mapping[str, "torch.Tensor"] | None = None,
    readme: str,
    extra_files: Mapping[str, bytes] = MappingProxyType({}),
    overwrite: bool = False,
) -> CheckpointInfo:
    """Writes a checkpoint's folder in one step: all of it appears, or nothing.

    Args:
        folder: where; its parent is created.
        state: the network's state dict; tensors are written in the type they have (fp16 is fine).
        unet_config, scheduler_config: of diffusers' `UNet2DModel` and `DDPMScheduler`.
        info: its `files` are ignored and computed.
        border: the state dict of its `BorderNetwork`, if it has one.
        readme: the model card, Markdown.
        extra_files: {name: content} of files beside the card, such as the pictures it shows.
        overwrite: whether an existing checkpoint is replaced; see `check_free`.

    Returns:
        `info` with the hashes of what was written.

    Raises:
        CheckpointError: `folder` is not free, or it cannot be written.
        StoreError: another process is writing it.
    """
    from safetensors.torch import save_file

    with whole_folder(Path(folder), overwrite=overwrite) as staging:
        (staging / "unet").mkdir()
        (staging / "scheduler").mkdir()
        _write_json(staging / UNET_CONFIG, {"_class_name": "UNet2DModel", **unet_config})
        _write_json(
            staging / SCHEDULER_CONFIG, {"_class_name": "DDPMScheduler", **scheduler_config}
        )
        weights = {WEIGHTS: state} | ({} if border is None else {BORDER_WEIGHTS: border})
        for name, values in weights.items():
            (staging / name).parent.mkdir(exist_ok=True)
            tensors = {key: value.detach().cpu().contiguous() for key, value in values.items()}
            save_file(tensors, staging / name, metadata={"format": "pt"})
            (staging / name).chmod(0o644)  # safetensors writes for its owner only
        names = dict.fromkeys((*HASHED_FILES, *weights))
        hashes = {name: file_sha256(staging / name) for name in names}
        written = info.model_copy(update={"files": hashes})
        record = {"format": FORMAT, **written.model_dump(), "sha256": written.sha256}
        _write_json(staging / INFO_FILE, record)
        (staging / CARD_FILE).write_text(readme, encoding="utf-8")
        for name, content in extra_files.items():
            (staging / name).write_bytes(content)
    return written


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill beside the place of a checkpoint, which it takes at the end, in one step.

    Until then the place is locked, and what a kill left beside it is removed.

    Args:
        folder: the place; its parent is created. What is there stays if anything fails.
        overwrite: whether a checkpoint that is there is replaced; see `check_free`.

    Raises:
        CheckpointError: `folder` is not free, or it cannot be written.
        StoreError: another process is writing it.
    """
    from safetensors import SafetensorError

    place = real_path(folder)  # a link to a folder on another disk stays one
    staging = creating_path(place)
    try:
        make_folder(place.parent)
        with store_lock(place):
            clear_leftovers(place)
            check_free(folder, overwrite)
            try:
                staging.mkdir()
                yield staging
                put_folder(staging, place)
            finally:
                with suppress(OSError):  # the next one removes what cannot go now
                    clear_leftovers(place)
    except StoreError:
        raise
    except (OSError, SafetensorError) as error:  # a full disk is one or the other
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder}: cannot be written ({why})") from error


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a place that a checkpoint may not take.

    Args:
        folder: where one is to be saved.
        overwrite: whether a checkpoint that is there, whole or damaged, may be replaced. Anything
            else but an empty folder may never be.

    Raises:
        CheckpointError: something is there that stays.
    """
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise CheckpointError(f"{folder}: already exists; choose another name or overwrite it.")
    ours = folder.is_dir() and (
        any((folder / name).is_file() for name in (INFO_FILE, *HASHED_FILES))
        or not any(folder.iterdir())
    )
    if not ours:
        raise CheckpointError(
            f"{folder}: not a checkpoint, and only checkpoints are overwritten; choose another "
            "name."
        )


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
