"""A card's foreign file to a checkpoint's folder: the card says what shapes do not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import CheckpointError
from echogen.models.guided.architecture import GuidedOptions
from echogen.models.guided.importing import ImportFacts, import_guided
from echogen.models.registry import ModelCard


def convert_file(
    file: Path,
    card: ModelCard,
    folder: Path,
    *,
    source: str = "",
    probe: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Writes a model's folder from its guided-diffusion file.

    Args:
        file: `.pt`, read without running code in it.
        card: of kind "guided".
        folder: to make, in one step.
        source: where the file came from, for the record.
        probe: the table that found the card's options, for the record.
        overwrite: whether an existing folder is replaced.

    Raises:
        CheckpointError: the file or the card's options do not fit, or it cannot be written.
    """
    facts = ImportFacts(
        name=card.name,
        licence=card.licence,
        citation=card.citation,
        training_data=card.training_data,
        source=source,
        image_size=card.image_size,
    )
    options = card_options(card)
    return import_guided(file, folder, options, facts, probe=probe, overwrite=overwrite)


def card_options(card: ModelCard) -> GuidedOptions:
    """What a card says that shapes do not.

    Raises:
        CheckpointError: an option is unknown, or one that is needed is missing.
    """
    given = {key: value for key, value in card.guided.items() if key != "verified"}
    for key, kind in {"noise_schedule": str, "new_attention_order": bool}.items():
        if not isinstance(given.get(key, kind()), kind):
            raise CheckpointError(f"card of {card.name}: guided: {key}: expected {kind.__name__}")
    for key in ("steps", "num_heads", "num_head_channels"):
        if type(given.get(key, 1)) is not int or given.get(key, 1) < 1:
            raise CheckpointError(f"card of {card.name}: guided: {key}: expected a number above 0")
    try:
        return GuidedOptions(**given)
    except TypeError as error:
        raise CheckpointError(f"card of {card.name}: guided: {error}") from error
