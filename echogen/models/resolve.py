"""What `--checkpoint` means: the name of a model, a folder, or a foreign file; and what it decides.

A name is a known model's, never a folder's, unless a checkpoint's folder of that name lies in the
working directory: then both are meant, and it is refused. Whatever holds a path separator, or
starts with `.` or `~`, is a path.
"""

import difflib
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from echogen.config import AugmentationConfig, SampleConfig
from echogen.diffusion.checkpoint import (
    BUILTIN,
    INFO_FILE,
    JUDGE,
    CheckpointInfo,
    at_home,
    check_sees_known,
    checkpoint_folder,
    checkpoint_in,
    file_sha256,
    read_info,
)
from echogen.errors import CheckpointError
from echogen.judging.checkpoint import (
    BUILTIN_JUDGE,
    NO_JUDGE,
    is_judge,
    judge_folder,
    read_judge_info,
)
from echogen.models.registry import (
    ModelCard,
    checkpoints_home,
    find_card,
    local_folder,
    parse_cards,
    read_cards,
)
from echogen.presets import KNOWN_PRESETS
from echogen.support.settings import Presets, load_config

Config = TypeVar("Config", bound=AugmentationConfig | SampleConfig)

FOREIGN = (".pt", ".pth", ".ckpt", ".bin")


def resolve_checkpoint(
    name_or_path: str, tell: Callable[[str], None] = lambda _: None
) -> Path | str:
    """What `echogen.diffusion.checkpoint` opens, from what a user wrote.

    Args:
        name_or_path: a known model's name, "builtin", a checkpoint's folder, a training run's
            folder, or a guided-diffusion file (`.pt`), which is converted once into the cache if
            it is a known model's, or has a card beside it.
        tell: called with a line when a file is converted.

    Returns:
        A folder that holds `echogen.json`, or "builtin".

    Raises:
        CheckpointError: it names nothing, or two things, or the model is not here; the
            message has the command or the name that helps. Nothing is ever downloaded.
    """
    path = at_home(name_or_path)
    card = None if is_path(name_or_path) else find_card(name_or_path)
    if card is not None:
        if checkpoint_in(path) is not None:
            raise CheckpointError(_two_things(name_or_path))
        return _of_card(card)
    if path.is_file() and path.suffix in FOREIGN:
        return _of_file(path, tell)
    if path.exists():
        return checkpoint_folder(path.absolute())  # else ./builtin would become the name again
    raise CheckpointError(unknown_name(name_or_path))


def resolve_judge(name_or_path: str) -> str:
    """What `echogen.judging.judge.open_judge` opens, from what a user wrote.

    Args:
        name_or_path: the name of the judge in the package, "builtin", "none" or a judge's folder.

    Raises:
        CheckpointError: it is the name of a model that paints, names nothing, or two things, or is
            no judge.
    """
    if name_or_path == NO_JUDGE:
        return NO_JUDGE
    named = name_or_path != BUILTIN_JUDGE and not is_path(name_or_path)
    card = find_card(name_or_path) if named else None
    if card is not None and card.kind != JUDGE:
        raise CheckpointError(
            f"--judge {name_or_path}: a model that paints; give it to --checkpoint, and to --judge "
            "a judge's folder or name (echogen checkpoint list)."
        )
    if card is not None:
        if is_judge(name_or_path):
            raise CheckpointError(_two_things(name_or_path))
        return BUILTIN_JUDGE
    if not name_or_path or (named and not judge_folder(name_or_path).exists()):
        raise CheckpointError(f"--judge {_unknown(name_or_path or repr(name_or_path), 'judge')}")
    read_judge_info(name_or_path)
    return name_or_path


def _two_things(name: str) -> str:
    return (
        f"{name}: names both a known model and a folder here; write {os.curdir}{os.sep}{name} for "
        "the folder, or rename it."
    )


def load_with_model(
    kind: type[Config],
    settings: Mapping[str, Any],
    *,
    preset: str | None = None,
    file: Config | str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Config, Path | str, CheckpointInfo]:
    """The settings of a run with a model, which decides what a preset's sampler is.

    Args:
        kind, settings, preset, file: as of `load_config`.
        tell: as of `resolve_checkpoint`.

    Returns:
        The configuration, the checkpoint's folder or "builtin", and what it is.

    Raises:
        UsageError: as `load_config`, or the sampler cannot be used with the model.
        CheckpointError: there is no such model, or it cannot be used.
    """
    used: list[tuple[Path | str, CheckpointInfo]] = []

    def choose(given: Mapping[str, Any]) -> Presets:
        folder = resolve_checkpoint(str(given.get("checkpoint", BUILTIN)), tell)
        used.append((folder, read_info(folder)))
        seen = used[0][1].conditioning == "known" and issubclass(kind, AugmentationConfig)
        return KNOWN_PRESETS if seen else kind.presets

    config = load_config(kind, settings, preset=preset, file=file, choose=choose)
    folder, info = used[0]
    if isinstance(config, AugmentationConfig) and config.sampler.name == "dpm":
        check_sees_known(info.conditioning, info.name)
    return config, folder, info


def is_path(name_or_path: str) -> bool:
    """Whether this can only be a path: it holds a separator, or starts with `.` or `~`."""
    separators = {os.sep, os.altsep or os.sep}
    return name_or_path[:1] in (".", "~") or any(mark in name_or_path for mark in separators)


def _of_card(card: ModelCard) -> Path | str:
    if card.kind == "package":
        return BUILTIN
    if card.kind == "judge":
        return judge_folder(BUILTIN)
    folder = local_folder(card)
    if folder is None:
        raise CheckpointError(
            f"model {card.name}: not downloaded yet; run: echogen checkpoint download {card.name}"
        )
    return folder


def unknown_name(name_or_path: str) -> str:
    """The message for what is neither a model's name nor a path that exists, with the nearest."""
    if is_path(name_or_path):
        return f"{name_or_path}: no such checkpoint; expected a folder that contains {INFO_FILE}."
    return _unknown(name_or_path, "checkpoint")


def _unknown(name: str, what: Literal["checkpoint", "judge"]) -> str:
    cards = read_cards()
    names = [BUILTIN, *(card.name for card in cards)]
    if what == "judge":
        names = [BUILTIN, NO_JUDGE, *(card.name for card in cards if card.kind == JUDGE)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(names)}."
    return f"{name}: no such {what}, neither a name nor a folder; {hint}"


def _of_file(file: Path, tell: Callable[[str], None]) -> Path:
    """The folder that a foreign file was, or now is, converted to."""
    sha256 = file_sha256(file)
    card = _card_of_file(file, sha256)
    if card is None:
        raise CheckpointError(
            f"{file}: foreign weights with unknown noise schedule and attention layout; import "
            f"them first: echogen checkpoint import {shlex.quote(str(file))} --out "
            f"{shlex.quote(file.stem)} --probe DATASET"
        )
    known = {**card.to_dict(), "sha256": sha256}  # so that a corrected card converts anew
    key = json.dumps(known, sort_keys=True)
    folder = checkpoints_home() / f"file-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if (folder / INFO_FILE).is_file():
        return folder
    from echogen.models.guided.importing import facts_of, import_guided

    tell(f"{file}: converting it once into {folder}, following the card of {card.name}")
    try:
        import_guided(file, folder, card.options, facts_of(card))
    except CheckpointError:
        if not (folder / INFO_FILE).is_file():  # else another process was faster
            raise
    return folder


def _card_of_file(file: Path, sha256: str) -> ModelCard | None:
    """The card beside a file (`model.toml` beside `model.pt`), or the known model that it is."""
    beside = file.with_suffix(".toml")
    if beside.is_file():
        cards = parse_cards(beside)
        if len(cards) != 1 or cards[0].kind != "guided":
            raise CheckpointError(f"{beside}: expected one [[model]] of kind guided")
        if cards[0].sha256 not in ("", sha256):
            raise CheckpointError(
                f"{file}: has sha256 {sha256[:12]}, but its card {beside.name} gives "
                f"{cards[0].sha256[:12]}; download the file again or correct the card."
            )
        return cards[0]
    known = [card for card in read_cards() if card.kind == "guided"]
    for card in known:
        if card.sha256 == sha256 or (not card.sha256 and card.file == file.name):
            return card
    return None
