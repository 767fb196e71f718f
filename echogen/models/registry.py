"""Known models: cards in `models.toml`, and a user's own cards in the cache folder.

A card says where a model is, what it is for and on what terms. Reading cards opens no weights and
loads no torch, so that listing models is instant.
"""

import importlib.resources
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from echogen.diffusion.checkpoint import INFO_FILE
from echogen.errors import CheckpointError

Kind = Literal["package", "guided", "echogen"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CARDS_FILE = "models.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model before it is here.

    Attributes:
        name: what `--checkpoint` takes; letters, digits, `.`, `_`, `-`.
        kind: "package" (comes with echogen), "guided" (one guided-diffusion file on the hub, which
            is converted), "echogen" (a checkpoint's folder on the hub).
        what_for, architecture, training_data, licence, citation: words.
        repo: on the hub, `owner/name`; empty for "package".
        file: in the repository, for "guided".
        revision: a commit; empty takes the hub's newest.
        sha256: of `file`; of the checkpoint (`CheckpointInfo.sha256`) for "echogen"; empty where
            it is not known.
        size: of the download in bytes, or None.
        image_size: the side that the model paints on, for "guided"; None takes the usual one of
            its architecture.
        guided: what shapes cannot tell of a guided-diffusion network: `noise_schedule`, `steps`,
            `num_head_channels` or `num_heads`, `new_attention_order`; `verified` is false where
            these were not measured.
    """

    name: str
    kind: Kind
    what_for: str
    architecture: str
    training_data: str
    licence: str
    citation: str
    repo: str = ""
    file: str = ""
    revision: str = ""
    sha256: str = ""
    size: int | None = None
    image_size: int | None = None
    guided: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it comes from, for a table."""
        if self.kind == "package":
            return "in the package"
        return f"{self.repo}@{self.revision[:12]}" if self.revision else self.repo

    @property
    def page(self) -> str:
        """The repository's page on the hub that `HF_ENDPOINT` names."""
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/{self.repo}"


def cache_home() -> Path:
    """echogen's own folder: `ECHOGEN_HOME`, else `XDG_CACHE_HOME/echogen`, else `~/.cache/echogen`.

    Nothing is created.
    """
    own = os.environ.get("ECHOGEN_HOME")
    if own:
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "echogen"


def checkpoints_home() -> Path:
    """Where downloaded and converted checkpoints lie, a folder each."""
    return cache_home() / "checkpoints"


def read_cards() -> tuple[ModelCard, ...]:
    """All cards, the default model's first: those of the package, then a user's own.

    Raises:
        CheckpointError: the user's file is not TOML, a key is unknown, missing or wrong, or a name
            is taken.
    """
    shipped = importlib.resources.files("echogen") / "models" / CARDS_FILE
    cards = list(parse_cards(shipped.read_text(encoding="utf-8"), CARDS_FILE))
    own = cache_home() / CARDS_FILE
    if own.is_file():
        try:
            cards += parse_cards(own.read_text(encoding="utf-8"), str(own))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{own}: cannot be read ({error})") from error
    for i, card in enumerate(cards):
        if card.name in {before.name for before in cards[:i]}:
            raise CheckpointError(f"{own}: the name {card.name!r} is taken; choose another one.")
        if i and card.kind == "package":
            raise CheckpointError(f"{own}: model {card.name!r}: kind: expected guided or echogen")
    return tuple(cards)


def default_card() -> ModelCard:
    """Of the model that is taken where none is named."""
    return read_cards()[0]


def find_card(name: str) -> ModelCard | None:
    """The card of a name, or None; "builtin" is the name of the package's own model."""
    for card in read_cards():
        if card.name == name or (name == "builtin" and card.kind == "package"):
            return card
    return None


def local_folder(card: ModelCard) -> Path | None:
    """The folder of a downloaded model; None where it is not here, or comes with the package."""
    if card.kind == "package":
        return None
    folder = checkpoints_home() / card.name
    return folder if (folder / INFO_FILE).is_file() else None


def parse_cards(text: str, source: str) -> tuple[ModelCard, ...]:
    """Cards from TOML: `[[model]]` tables with `ModelCard`'s fields as keys.

    Args:
        text: TOML.
        source: the file's name, for messages.

    Raises:
        CheckpointError: as `read_cards`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(f"{source}: not valid TOML: {error}") from error
    tables = raw.get("model", [])
    listed = isinstance(tables, list) and all(isinstance(table, dict) for table in tables)
    if set(raw) - {"model"} or not listed:
        raise CheckpointError(f"{source}: expected [[model]] tables and nothing else")
    return tuple(_parse_card(table, source) for table in tables)


def _parse_card(table: Mapping[str, Any], source: str) -> ModelCard:
    where = f"{source}: model {table.get('name', '?')!r}"
    known = {item.name for item in fields(ModelCard)}
    for key, value in table.items():
        if key not in known:
            raise CheckpointError(f"{where}: unknown key {key!r}; known: {_listed(known)}")
        kind: type[Any] = {"size": int, "image_size": int, "guided": dict}.get(key, str)
        if not isinstance(value, kind):
            raise CheckpointError(f"{where}: {key}: expected {kind.__name__}, found {value!r}")
    needed = {"name", "kind", "what_for", "architecture", "training_data", "licence", "citation"}
    if table.get("kind") != "package":
        needed |= {"repo"}
    if table.get("kind") == "guided":
        needed |= {"file", "guided"}
    absent = needed - {key for key, value in table.items() if value}
    if absent:
        raise CheckpointError(f"{where}: {_listed(absent)} missing or empty")
    if table["kind"] not in KINDS:
        raise CheckpointError(
            f"{where}: kind: expected {', '.join(KINDS)}; found {table['kind']!r}"
        )
    if not _NAME.fullmatch(table["name"]) or table["name"] == "builtin":
        raise CheckpointError(f"{where}: a name has letters, digits, '.', '_' and '-' only")
    if table.get("sha256") and not _SHA256.fullmatch(table["sha256"]):
        raise CheckpointError(f"{where}: sha256: expected 64 lower-case hex digits")
    return ModelCard(**cast(Any, table))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
