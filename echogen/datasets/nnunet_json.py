"""`dataset.json` of nnU-Net's raw datasets: labels, channels, how files end, and terms.

What cannot be read as one image with one class a pixel is refused here, in one sentence each.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md, ignore_label.md and
region_based_training.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echogen.datasets.base import LONGEST_ID, is_id, resolve_labels
from echogen.errors import DatasetError
from echogen.support.reading import read_json, reason
from echogen.support.words import one_line
from echogen.types import IGNORE

DESCRIPTION = "dataset.json"
ENDINGS = (".nii.gz", ".nii", ".png")
MOST_TERMS = 10_000
OLDER = "nnU-Net's first version? nnUNetv2_convert_old_nnUNet_dataset converts it."
_ID = re.compile("[0-9]{1,9}")
_MADE_HERE = re.compile(r"exported by echogen\b")


@dataclass(frozen=True)
class Description:
    """What `dataset.json` says.

    Attributes:
        labels: {class id: name}, without `ignore`.
        ignore: the id of pixels to be ignored, or None.
        ending: of every file, such as `.nii.gz`.
        training: how many pairs it promises, or None.
        made_here: whether echogen exported it.
        licence, citation: as far as it says.
    """

    labels: Mapping[int, str]
    ignore: int | None
    ending: str
    training: int | None
    made_here: bool
    licence: str
    citation: str


def read_description(root: Path, labels: Mapping[int, str] | None) -> Description:
    """What `root`/dataset.json says.

    Args:
        root: the dataset's folder.
        labels: {class id: name} to be taken instead of the file's; None takes those.

    Raises:
        DatasetError: it cannot be read, or asks for what is not supported.
        UsageError: `labels` declares an impossible class id.
    """
    try:
        found = read_json(root / DESCRIPTION, DatasetError, foreign=True)
    except FileNotFoundError as error:
        raise DatasetError(f"{root / DESCRIPTION}: cannot be read ({reason(error)}).") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{root / DESCRIPTION}: expected a JSON object.")
    if "dataset" in found:
        raise DatasetError(
            f"{root / DESCRIPTION}: lists its files itself, under `dataset`; only files in "
            "imagesTr/ and labelsTr/ are read, put or link them there."
        )
    channels = found.get("channel_names", found.get("modality", {}))
    if isinstance(channels, dict) and len(channels) > 1:
        names = one_line(", ".join(str(name) for name in channels.values()), 100)
        raise DatasetError(
            f"{root / DESCRIPTION}: {len(channels)} channels ({names}); only images of one channel "
            "can be read."
        )
    classes, ignore = _classes(root, found.get("labels"), labels is not None)
    training = found.get("numTraining")
    return Description(
        labels=resolve_labels(classes if labels is None else labels),
        ignore=None if labels is not None and ignore in labels else ignore,
        ending=_ending(root, found.get("file_ending")),
        training=training if isinstance(training, int) else None,
        made_here=bool(_MADE_HERE.match(str(found.get("description", "")))),
        licence=_line(found.get("licence") or found.get("license") or ""),
        citation=_line(found.get("reference") or ""),
    )


def _ending(root: Path, ending: Any) -> str:
    if ending not in ENDINGS:
        is_older = f"; is it {OLDER}" if ending is None else ", convert the files."
        raise DatasetError(
            f"{root / DESCRIPTION}: file_ending is {one_line(json.dumps(ending), 80)}, expected "
            f"one of {', '.join(ENDINGS)}{is_older}"
        )
    return str(ending)


def _classes(root: Path, labels: Any, declared: bool) -> tuple[dict[int, str], int | None]:
    """{class id: name} and the id of `ignore`; regions are passed over where ids are `declared`."""
    where = f"{root / DESCRIPTION}: labels"
    if not isinstance(labels, dict):
        raise DatasetError(f"{where}: expected {{name: class id}}, found none.")
    classes: dict[int, str] = {}
    ignore = None
    for name, value in labels.items():
        if not is_id(name):
            raise DatasetError(
                f"{where}: {one_line(name, 40)!r} is not a name of at most {LONGEST_ID} letters on "
                "one line."
            )
        if isinstance(value, list):
            if declared:
                continue
            raise DatasetError(
                f"{where}: {name!r} is a region of the class ids {one_line(value, 80)}, and "
                "regions are not supported; name the class ids themselves, such as --set "
                "dataset.labels={1='LV cavity'}."
            )
        if isinstance(value, bool) or not _ID.fullmatch(str(value)):
            older = f"; is it {OLDER}" if str(name).isdecimal() else "."
            found = one_line(repr(value), 80)
            raise DatasetError(f"{where}: {name!r} is {found}, expected a class id{older}")
        if str(name).lower() == "ignore":
            ignore = int(value)
        elif classes.setdefault(int(value), str(name)) != str(name):
            raise DatasetError(f"{where}: {classes[int(value)]!r} and {name!r} are both {value}.")
    beyond = [label for label in classes if label >= IGNORE]
    if beyond:
        raise DatasetError(f"{where}: class ids must lie in 0..{IGNORE - 1}, found {beyond}.")
    return classes, ignore


def _line(text: Any) -> str:
    return one_line(text, MOST_TERMS)
