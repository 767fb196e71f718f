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

from echogen.datasets.base import resolve_labels
from echogen.errors import DatasetError
from echogen.types import IGNORE

DESCRIPTION = "dataset.json"
ENDINGS = (".nii.gz", ".nii", ".png")
OLDER = "nnU-Net's first version? nnUNetv2_convert_old_nnUNet_dataset converts it."
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
        found = json.loads((root / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{root / DESCRIPTION}: cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{root / DESCRIPTION}: expected a JSON object.")
    if "dataset" in found:
        raise DatasetError(
            f"{root / DESCRIPTION}: lists its files itself, under `dataset`; only files in "
            "imagesTr/ and labelsTr/ are read, put or link them there."
        )
    channels = found.get("channel_names", found.get("modality", {}))
    if isinstance(channels, dict) and len(channels) > 1:
        names = ", ".join(str(name) for name in channels.values())
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
            f"{root / DESCRIPTION}: file_ending is {json.dumps(ending)}, expected one of "
            f"{', '.join(ENDINGS)}{is_older}"
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
        if isinstance(value, list):
            if declared:
                continue
            raise DatasetError(
                f"{where}: {name!r} is a region of the class ids {value}, and regions are not "
                "supported; name the class ids themselves, such as --set "
                "dataset.labels={1='LV cavity'}."
            )
        if isinstance(value, bool) or not str(value).isdecimal() or not str(value).isascii():
            older = f"; is it {OLDER}" if str(name).isdecimal() else "."
            raise DatasetError(f"{where}: {name!r} is {value!r}, expected a class id{older}")
        if str(name).lower() == "ignore":
            ignore = int(value)
        elif classes.setdefault(int(value), str(name)) != str(name):
            raise DatasetError(f"{where}: {classes[int(value)]!r} and {name!r} are both {value}.")
    beyond = [label for label in classes if label >= IGNORE]
    if beyond:
        raise DatasetError(f"{where}: class ids must lie in 0..{IGNORE - 1}, found {beyond}.")
    return classes, ignore


def _line(text: Any) -> str:
    return " ".join(str(text).split())
