"""Which class id is which part of the heart, by a dataset's own names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from echogen.types import LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM

OTHERS = frozenset({"right", "rv", "ra", "rvc", "mitral", "tricuspid", "pericardium"})
"""Words of names that mean no part of the left heart's muscle and chambers."""


@dataclass(frozen=True)
class Classes:
    """Ids of the parts that measures know; None where a dataset has no such class.

    Attributes:
        cavity: of the left ventricle.
        myocardium: around it.
        atrium: the left one.
    """

    cavity: int | None
    myocardium: int | None
    atrium: int | None


def classes_of(labels: Mapping[int, str]) -> Classes:
    """The parts by their names, and by CAMUS' ids where the names tell nothing.

    Args:
        labels: {class id: name}.
    """
    found: dict[str, int] = {}
    for label, name in sorted(labels.items()):
        part = _part(name)
        if part:
            found.setdefault(part, label)
    if not found:
        ids = (LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM)
        names = ("cavity", "myocardium", "atrium")
        found = {name: label for name, label in zip(names, ids, strict=True) if label in labels}
    return Classes(found.get("cavity"), found.get("myocardium"), found.get("atrium"))


def _part(name: str) -> str:
    """Which part of the left heart a class's name means; empty where none."""
    words = re.findall("[a-z]+", name.lower())
    if any(word in OTHERS or word.startswith(("valv", "aort")) for word in words):
        return ""
    if any("myo" in word or "epi" in word or word.endswith("wall") for word in words):
        return "myocardium"
    if any("atri" in word or word == "la" for word in words):
        return "atrium"
    if any(word.startswith(("lv", "ventric", "endo")) for word in words):
        return "cavity"
    return ""
