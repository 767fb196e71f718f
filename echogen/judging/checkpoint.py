"""A judge is a folder like a checkpoint: networks, what they were trained on, and a threshold.

`echogen.json` has `"kind": "judge"`, so that neither is taken for the other. Reading needs no
torch.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from echogen.diffusion.checkpoint import (
    FORMAT,
    INFO_FILE,
    JUDGE,
    Sha256,
    at_home,
    check_files,
    read_json,
)
from echogen.errors import CheckpointError
from echogen.support.settings import Settings, explain

BUILTIN_JUDGE, NO_JUDGE = "builtin", "none"
NETWORK_CONFIG = "network/config.json"
Class = Annotated[int, Field(ge=1, le=254)]


class Member(Settings, extra="ignore"):
    """One network of a judge.

    Attributes:
        file: its weights, in the folder.
        seen: the ids of the cases that it was trained on.
    """

    file: str = Field(pattern="^network/[A-Za-z0-9_-]+[.]safetensors$")
    seen: frozenset[str] = frozenset()


class JudgeInfo(Settings, extra="ignore"):
    """What `echogen.json` says of a judge; keys that it does not know are ignored.

    Attributes:
        name: a short name for people.
        image_size: the side in pixels of the square grid that its networks see.
        labels: {class id: name} of the parts of the heart that its networks tell from background.
        networks: a case is judged by the mean of those that have not seen it.
        threshold: the largest unlabelled piece that is let pass, as a share of the labelled area.
        training_data: in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
        measured: false alarms and sensitivity, any JSON.
        files: {path in the folder: SHA-256} of all files that decide a verdict.
    """

    name: str
    image_size: int = Field(ge=16, le=1024, strict=True)
    labels: dict[Class, str] = Field(min_length=1)
    networks: tuple[Member, ...] = Field(min_length=1)
    threshold: float = Field(gt=0)
    training_data: str
    licence: str
    citation: str
    measured: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> "JudgeInfo":
        expected = {NETWORK_CONFIG, *(member.file for member in self.networks)}
        if self.files.keys() != expected:
            raise ValueError(f"files: expected hashes of {', '.join(sorted(expected))}")
        return self

    @property
    def sha256(self) -> str:
        """One hex string for the judge: over its files' hashes and all else that decides."""
        decisive = {"files", "image_size", "labels", "threshold"}
        identity = self.model_dump(mode="json", include=decisive)
        identity["seen"] = {member.file: sorted(member.seen) for member in self.networks}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def record(self) -> dict[str, str]:
        """What a store records of the judge of its samples."""
        return {"name": self.name, "sha256": self.sha256, "licence": self.licence}

    def members_for(self, case: str) -> tuple[Member, ...]:
        """The networks that judge a case: those that have not seen it, or all if all have.

        A foreign case with the id of one of them is judged by fewer networks, none of which has
        seen it: that costs accuracy, not fairness.
        """
        return tuple(one for one in self.networks if case not in one.seen) or self.networks


def judge_folder(path_or_name: str | Path) -> Path:
    """The folder of a judge, given by its path, or as "builtin".

    Raises:
        CheckpointError: the path begins with the home folder of nobody.
    """
    if str(path_or_name) == BUILTIN_JUDGE:
        return Path(__file__).parents[1] / "models" / JUDGE
    return at_home(path_or_name)


def is_judge(folder: str | Path) -> bool:
    """Whether a folder says that it is a judge."""
    file = Path(folder) / INFO_FILE
    return file.is_file() and read_json(file).get("kind") == JUDGE


def read_judge_info(path_or_name: str | Path) -> JudgeInfo:
    """What `echogen.json` says of a judge; its weights are not opened.

    Args:
        path_or_name: a folder, or "builtin".

    Raises:
        CheckpointError: no such folder, no judge, or a field is missing or wrong.
    """
    folder = judge_folder(path_or_name)
    file = folder / INFO_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: no such judge; expected a folder with an {INFO_FILE} of kind {JUDGE!r}. "
            "Give one, or leave --judge out for the one in the package."
        )
    raw = read_json(file)
    if raw.get("kind") != JUDGE:
        raise CheckpointError(
            f"{file}: expected kind {JUDGE!r}, found {raw.get('kind', 'no kind')!r:.40}; a model "
            "that paints is for --checkpoint, a judge's folder for --judge."
        )
    if raw.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: expected format {FORMAT}, found {raw.get('format')!r:.100}; "
            "this version of echogen cannot read it."
        )
    try:
        return JudgeInfo.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"{file}: {explain(error, JudgeInfo)}") from error


def verify_judge(path_or_name: str | Path) -> JudgeInfo:
    """`read_judge_info`, and every recorded file hashed and compared.

    Raises:
        CheckpointError: as `read_judge_info`, or files are missing or differ; each is named.
    """
    info = read_judge_info(path_or_name)
    check_files(judge_folder(path_or_name), info.files, "Install or save it again.")
    return info
