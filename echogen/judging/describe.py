"""What a judge is, for `echogen checkpoint info` and `verify`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echogen.diffusion.checkpoint import CARD_FILE
from echogen.judging.checkpoint import judge_folder, read_judge_info
from echogen.report import CommandReport
from echogen.support.files import folder_size


@dataclass(frozen=True)
class JudgeDescription(CommandReport):
    """What a judge's folder says of itself.

    Attributes:
        name, training_data, licence, citation: words.
        folder: where it lies.
        image_size: side in pixels of what its networks see.
        labels: {class id: name} of what they tell from background.
        networks: how many there are; cases: how many each has seen.
        threshold: the largest unlabelled piece that is let pass, as a share of the labelled area.
        measured: false alarms and sensitivity, any JSON.
        size: of all files, bytes.
        sha256: of the judge; files: of each file.
        card: the model card's file, or None.
    """

    name: str
    folder: str
    image_size: int
    labels: Mapping[int, str]
    networks: int
    cases: tuple[int, ...]
    threshold: float
    measured: Mapping[str, Any]
    size: int
    training_data: str
    licence: str
    citation: str
    sha256: str
    files: Mapping[str, str]
    card: str | None
    derived = ("kind", "here")

    @property
    def kind(self) -> str:
        """Tells it from a model that paints."""
        return "judge"

    @property
    def here(self) -> bool:
        """Unlike a model that is only listed."""
        return True


def describe_judge(path_or_name: str | Path) -> JudgeDescription:
    """What a judge is; torch is not loaded, and no hash is computed.

    Raises:
        CheckpointError: it cannot be read.
    """
    info, folder = read_judge_info(path_or_name), judge_folder(path_or_name)
    card = folder / CARD_FILE
    return JudgeDescription(
        name=info.name,
        folder=str(folder),
        image_size=info.image_size,
        labels=info.labels,
        networks=len(info.networks),
        cases=tuple(len(member.seen) for member in info.networks),
        threshold=info.threshold,
        measured=info.measured,
        size=folder_size(folder),
        training_data=info.training_data,
        licence=info.licence,
        citation=info.citation,
        sha256=info.sha256,
        files=info.files,
        card=str(card) if card.is_file() else None,
    )
