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
    INFO_FILE,
    JUDGE,
    Name,
    Sha256,
    Words,
    at_home,
    check_files,
    check_format,
    read_json,
)
from echogen.diffusion.weights import read_header
from echogen.errors import CheckpointError
from echogen.support.settings import Settings, explain, shown

BUILTIN_JUDGE, NO_JUDGE = "builtin", "none"
NETWORK_CONFIG = "network/config.json"
BELOW = ".1.submodule"
"""Of a part's name: one level further down in a judge's network."""
Class = Annotated[int, Field(ge=1, le=254)]


class Member(Settings, extra="ignore"):
    """One network of a judge.

    Attributes:
        file: its weights, in the folder.
        seen: the ids of the cases that it was trained on.
    """

    file: str = Field(pattern="^network/[A-Za-z0-9_-]{1,100}[.]safetensors$")
    seen: frozenset[str] = Field(default=frozenset(), max_length=100_000)


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

    name: Name
    image_size: int = Field(ge=16, le=1024, strict=True)
    labels: dict[Class, Words] = Field(min_length=1)
    networks: tuple[Member, ...] = Field(min_length=1, max_length=64)
    threshold: float = Field(gt=0, le=1e9, strict=True)
    training_data: Words
    licence: Words
    citation: Words
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
            f"{file}: expected kind {JUDGE!r}, found {shown(raw.get('kind', 'no kind'))}; a model "
            "that paints is for --checkpoint, a judge's folder for --judge."
        )
    check_format(raw, file)
    try:
        return JudgeInfo.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"{file}: {explain(error, JudgeInfo)}") from error


def verify_judge(path_or_name: str | Path) -> JudgeInfo:
    """`read_judge_info`, every recorded file hashed and compared, and the networks' shapes.

    Raises:
        CheckpointError: as `read_judge_info`, files are missing or differ, each is named, or hold
            other networks than a judge's.
    """
    info, folder = read_judge_info(path_or_name), judge_folder(path_or_name)
    check_files(folder, info.files, "Install or save it again.")
    for member in info.networks:
        check_network(folder / member.file, info)
    return info


def check_network(file: Path, info: JudgeInfo) -> None:
    """Refuse weights that are not those of `judging.network` for a judge's classes and images.

    Raises:
        CheckpointError: the file cannot be read, or a tensor has another name or shape.
    """
    found = {name: tensor.shape for name, tensor in read_header(file).items()}
    wanted: dict[str, tuple[int, ...]] = {}
    at, widths = "model", [2]
    while len(shape := found.get(f"{at}.0.conv.weight", ())) == 4:
        wanted[f"{at}.0.conv.weight"] = (shape[0], widths[-1], 3, 3)
        wanted[f"{at}.0.conv.bias"] = (shape[0],)
        widths.append(shape[0])
        at += BELOW
    levels, middle = len(widths) - 1, (found.get(f"{at}.conv.bias") or (0,))[0]
    wanted[f"{at}.conv.weight"], wanted[f"{at}.conv.bias"] = (middle, widths[-1], 3, 3), (middle,)
    for level in reversed(range(levels)):
        at = "model" + BELOW * level
        into, middle = middle + widths[level + 1], widths[level] if level else 1 + len(info.labels)
        wanted[f"{at}.2.conv.weight"], wanted[f"{at}.2.conv.bias"] = (into, middle, 3, 3), (middle,)
    if not levels or found != wanted:
        other = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise CheckpointError(
            f"{file}: not a judge's network for {len(info.labels)} classes: it has another "
            f"{shown(other[0]) if other else 'number of levels'}; install or save the judge again."
        )
    if info.image_size % 2**levels:
        raise CheckpointError(
            f"{file}: its {levels} levels need an image_size that is a multiple of {2**levels}, "
            f"{INFO_FILE} says {info.image_size}."
        )
