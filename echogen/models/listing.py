"""The known models as a list: their cards, and which of them are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from echogen.diffusion.checkpoint import BUILTIN, checkpoint_folder
from echogen.judging.checkpoint import judge_folder
from echogen.models.registry import (
    IN_PACKAGE,
    Kind,
    ModelCard,
    local_folder,
    read_cards,
)
from echogen.report import CommandReport
from echogen.support.files import folder_size


@dataclass(frozen=True)
class ListedModel(CommandReport):
    """A model's card, and whether it is here.

    Attributes:
        name: what `--checkpoint` takes.
        kind: how it comes: in the package, there as a judge, as a file of guided diffusion, as a
            checkpoint's folder.
        what_for: words.
        architecture: words.
        training_data: words.
        licence: terms of the weights.
        citation: what to cite.
        repo: on the hub, `owner/name`; empty for the package's own.
        file: in the repository; empty where it is a folder.
        revision: a commit; empty takes the newest.
        sha256: of the file or checkpoint; empty where it is not known.
        size: in bytes, of its folder if it is here, else of the download; null where unknown.
        image_size: side in pixels of what it paints on; null where the card does not say.
        guided: options of a guided-diffusion network that its file does not determine.
        where: it comes from, for people.
        here: whether it can be used without a download.
        folder: of its checkpoint; null in the package or where it is not here.
        default: whether it is used when none is named.
    """

    name: str
    kind: Kind
    what_for: str
    architecture: str
    training_data: str
    licence: str
    citation: str
    repo: str
    file: str
    revision: str
    sha256: str
    size: int | None
    image_size: int | None
    guided: Mapping[str, Any]
    where: str
    here: bool
    folder: str | None
    default: bool


@dataclass(frozen=True)
class ModelList(CommandReport):
    """The known models.

    Attributes:
        models: the default first.
    """

    models: tuple[ListedModel, ...]


def list_models() -> ModelList:
    """All models that have a card, the package's and the user's own.

    Raises:
        CheckpointError: a card of the user's is wrong.
    """
    return ModelList(
        tuple(list_model(card, number == 0) for number, card in enumerate(read_cards()))
    )


def list_model(card: ModelCard, default: bool = False) -> ListedModel:
    """One model's card, and whether it is here.

    Raises:
        CheckpointError: its checkpoint's folder cannot be read.
    """
    folder = local_folder(card)
    here = folder is not None or card.kind in IN_PACKAGE
    own = judge_folder(BUILTIN) if card.kind == "judge" else checkpoint_folder(folder or BUILTIN)
    facts = {
        **card.to_dict(),
        "where": card.where,
        "size": folder_size(own) if here else card.size,
        "here": here,
        "folder": None if folder is None else str(folder),
        "default": default,
    }
    return ListedModel(**facts)
