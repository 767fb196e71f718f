"""Known models: cards in `models.toml`, and a user's own cards in the cache folder.

A card says where a model is, what it is for and on what terms. Reading cards opens no weights and
loads no torch, so that listing models is instant.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from echogen.config import ImageSide
from echogen.diffusion.checkpoint import BUILTIN, INFO_FILE
from echogen.errors import CheckpointError
from echogen.models.guided.architecture import GuidedOptions
from echogen.support.reading import read_toml
from echogen.support.settings import MOST_BYTES, Settings, explain, shown

Kind = Literal["package", "guided", "echogen", "judge"]
IN_PACKAGE = ("package", "judge")
CARDS_FILE = "models.toml"
PART = "[A-Za-z0-9_][A-Za-z0-9._-]*"
"""Of a path on the hub."""
Told = Annotated[str, Field(min_length=1, max_length=10_000)]


class GuidedCard(GuidedOptions):
    """`GuidedOptions`, and whether they were measured."""

    verified: bool = Field(default=True, strict=True)


class ModelCard(Settings):
    """What is known about a model before it is downloaded.

    Attributes:
        name: what `--checkpoint` takes; letters, digits, `.`, `_`, `-`.
        kind: "package" (comes with echogen), "judge" (so does this, which paints nothing), "guided"
            (one guided-diffusion file on the hub, which is converted), "echogen" (a checkpoint's
            folder on the hub).
        what_for, architecture, training_data, licence, citation: words.
        repo: on the hub, `owner/name`; empty for "package".
        file: in the repository, for "guided".
        revision: a commit; empty takes the hub's newest.
        sha256: of `file`; of the checkpoint (`CheckpointInfo.sha256`) for "echogen"; empty where
            it is not known.
        size: of the download in bytes, or None.
        image_size: the side that the model paints on, for "guided"; None takes the usual one of
            its architecture.
        guided: what the shapes of a guided-diffusion network leave open.
    """

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    kind: Kind
    what_for: Told
    architecture: Told
    training_data: Told
    licence: Told
    citation: Told
    repo: str = Field(default="", pattern=f"^({PART}/{PART})?$", max_length=200)
    file: str = Field(default="", pattern=f"^({PART}(/{PART})*)?$", max_length=200)
    revision: str = Field(default="", pattern=f"^({PART}(/{PART})*)?$", max_length=200)
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    size: int | None = Field(default=None, strict=True, ge=0)
    image_size: ImageSide | None = None
    guided: GuidedCard | None = None

    @field_validator("name")
    @classmethod
    def _not_builtin(cls, value: str) -> str:
        if value == BUILTIN:
            raise ValueError(f"{BUILTIN!r} is reserved for the package's own model")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "package": (),
            "judge": (),
            "echogen": ("repo",),
            "guided": ("repo", "file", "guided"),
        }
        if absent := [name for name in needed[self.kind] if not getattr(self, name)]:
            raise ValueError(f"{', '.join(absent)} missing or empty")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; of `guided`, what the card gives."""
        given = {} if self.guided is None else self.guided.model_dump(exclude_unset=True)
        return {**self.model_dump(), "guided": given}

    @property
    def options(self) -> GuidedOptions:
        """What the shapes leave open.

        Raises:
            CheckpointError: the card is not of kind "guided".
        """
        if self.guided is None:
            raise CheckpointError(f"model {self.name}: its card has no 'guided' table")
        return GuidedOptions(**self.guided.model_dump(exclude={"verified"}))

    @property
    def where(self) -> str:
        """Where it comes from, for a table."""
        if self.kind in IN_PACKAGE:
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
    cards = list(parse_cards(Path(__file__).with_name(CARDS_FILE)))
    own, shipped = cache_home() / CARDS_FILE, len(cards)
    if os.path.lexists(own):
        cards += parse_cards(own)
    taken: set[str] = set()
    for i, card in enumerate(cards):
        if card.name in taken:
            raise CheckpointError(f"{own}: the name {card.name!r} is taken; choose another.")
        taken.add(card.name)
        if (i and card.kind == "package") or (card.kind == "judge" and i >= shipped):
            raise CheckpointError(f"{own}: model {card.name!r}: kind: expected guided or echogen")
    return tuple(cards)


def find_card(name: str) -> ModelCard | None:
    """The card of a name, or None; "builtin" is the name of the package's own model."""
    for card in read_cards():
        if card.name == name or (name == BUILTIN and card.kind == "package"):
            return card
    return None


def local_folder(card: ModelCard) -> Path | None:
    """The folder of a downloaded model; None where it is not here, or comes with the package."""
    if card.kind in IN_PACKAGE:
        return None
    folder = checkpoints_home() / card.name
    return folder if (folder / INFO_FILE).is_file() else None


def parse_cards(file: Path) -> tuple[ModelCard, ...]:
    """Cards from TOML: `[[model]]` tables with `ModelCard`'s fields as keys.

    Raises:
        CheckpointError: as `read_cards`.
    """
    try:
        raw = read_toml(file, CheckpointError, most=MOST_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error
    tables = raw.get("model", [])
    if raw.keys() - {"model"} or not isinstance(tables, list):
        raise CheckpointError(f"{file}: expected only [[model]] tables")
    return tuple(_card(table, file) for table in tables)


def _card(table: Any, file: Path) -> ModelCard:
    try:
        return ModelCard.model_validate(table)
    except ValidationError as error:
        name = table.get("name") if isinstance(table, dict) else None
        raise CheckpointError(
            f"{file}: model {shown(name)}: {explain(error, ModelCard)}"
        ) from error
