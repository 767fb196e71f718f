"""CAMUS' `Info_VIEW.cfg`, of either generation: `Key: value` lines, one file a view.

The first release has LVedv, LVesv and LVef; the NIfTI one EF and FrameRate.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from echogen.datasets.base import as_number, is_id, relative
from echogen.errors import DatasetError
from echogen.support.reading import read_text, reason

NUMBERS: Mapping[str, str] = {
    "age": "age",
    "ef": "ef",
    "lvef": "ef",
    "lvedv": "lv_edv_ml",
    "lvesv": "lv_esv_ml",
    "ed": "ed_frame",
    "es": "es_frame",
    "nbframe": "frames",
    "framerate": "frame_rate",
}
TEXTS: Mapping[str, str] = {"sex": "sex", "imagequality": "image_quality"}
MOST_BYTES = 2**16
PER_VIEW = frozenset({"ed_frame", "es_frame", "frames", "frame_rate", "image_quality"})
ALSO_SHARED = frozenset({"frame_rate", "image_quality"})


def case_info(
    root: Path, files: Mapping[str, Path]
) -> tuple[dict[str, float | str], tuple[str, ...]]:
    """What a case's cfg files, {view: path}, say of it, and remarks on what is odd in them.

    Keys: ef (percent), lv_edv_ml, lv_esv_ml, sex, age, and per view, such as `image_quality_4ch`,
    also ed_frame, es_frame, frames, frame_rate (1/s) with the view as suffix. image_quality and
    frame_rate stand without suffix too where every file agrees. Where files disagree on a key of
    the case, it is given per view and remarked on. Keys that are not known are kept, snake_case.
    """
    remarks: list[str] = []
    values: dict[str, dict[str, float | str]] = {}
    for view, path in sorted(files.items()):
        for key, value in _parse(path, relative(root, path), remarks).items():
            values.setdefault(key, {})[view] = value
    info: dict[str, float | str] = {}
    for key, by_view in values.items():
        agreed = len(set(by_view.values())) == 1
        if agreed and (key not in PER_VIEW or key in ALSO_SHARED):
            info[key] = next(iter(by_view.values()))
        if key in PER_VIEW or not agreed:
            info.update({f"{key}_{view.lower()}": value for view, value in by_view.items()})
        if key not in PER_VIEW and not agreed:
            shown = ", ".join(f"{value} in {view}" for view, value in by_view.items())
            where = relative(root, next(iter(files.values())).parent)
            remarks.append(f"{where}: cfg files disagree on {key}: {shown}.")
    return dict(sorted(info.items())), tuple(remarks)


def _parse(path: Path, name: str, remarks: list[str]) -> dict[str, float | str]:
    try:
        text = read_text(path, DatasetError, name, most=MOST_BYTES, errors="replace")
    except (FileNotFoundError, DatasetError) as error:
        gone = isinstance(error, FileNotFoundError)
        remarks.append(f"{name}: cannot be read ({reason(error)})." if gone else str(error))
        return {}
    found: dict[str, float | str] = {}
    for line in text.splitlines():
        raw, colon, text = (part.strip() for part in line.partition(":"))
        if not (raw and colon and text and is_id(raw) and is_id(text)):
            continue
        number = as_number(text)
        folded = raw.lower()
        if folded in NUMBERS:
            if number is None:
                remarks.append(f"{name}: {raw} is {text!r}, expected a number; left out.")
            else:
                found[NUMBERS[folded]] = number
        elif folded in TEXTS:
            found[TEXTS[folded]] = text
        else:
            found[_snake_case(raw)] = text if number is None else number
    return found


def _snake_case(name: str) -> str:
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"\W+", "_", parted).strip("_").lower()
