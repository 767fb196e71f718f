"""Which class id is which part of the heart, by a dataset's own names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from echogen.types import BACKGROUND, LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM

OTHERS = frozenset(
    {"right", "rv", "ra", "rvc", "mitral", "tricuspid", "pericardium", "lvot", "outflow", "vein"}
)
"""Words of names that mean no part of the left heart's muscle and chambers."""
OTHER_STEMS = ("valv", "aort", "sept", "append", "papill")
MUSCLE = frozenset({"lvm", "lvw", "lvpw", "muscle"})
UNSAID = re.compile(r"(class|label|mask|foreground|object|structure|c|l)?[\W_]*\d*", re.IGNORECASE)
"""A name that says nothing, such as `class 2`."""


@dataclass(frozen=True)
class Classes:
    """Ids of the parts that measures know; None where a dataset has no such class.

    Attributes:
        cavity: of the left ventricle.
        myocardium: around it.
        atrium: the left one.
        right: the right ventricle, which is not measured: it tells left from right.
    """

    cavity: int | None
    myocardium: int | None
    atrium: int | None
    right: int | None = None


NO_CLASSES = Classes(None, None, None)


def classes_of(labels: Mapping[int, str]) -> Classes:
    """The parts by their names, and by CAMUS' ids where no class has a name that says anything.

    Args:
        labels: {class id: name}.
    """
    found: dict[str, int] = {}
    for label, name in sorted(labels.items()):
        part = _part(name)
        if part:
            found.setdefault(part, label)
    named = (name for label, name in labels.items() if label != BACKGROUND)
    if all(UNSAID.fullmatch(name.strip()) for name in named):
        ids = (LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM)
        names = ("cavity", "myocardium", "atrium")
        found = {name: label for name, label in zip(names, ids, strict=True) if label in labels}
    right = next((label for label, name in sorted(labels.items()) if _is_right(name)), None)
    return Classes(found.get("cavity"), found.get("myocardium"), found.get("atrium"), right)


def _is_right(name: str) -> bool:
    """Whether a class's name means the right ventricle's cavity."""
    words = re.findall("[a-z]+", name.lower())
    if any(word.startswith(("wall", "myo", "epi", *OTHER_STEMS)) for word in words):
        return False
    ventricle = any(word.startswith("ventric") for word in words)
    return "rv" in words or ("right" in words and ventricle)


def _part(name: str) -> str:
    """Which part of the left heart a class's name means; empty where none."""
    words = re.findall("[a-z]+", name.lower())
    if any(word in OTHERS or word.startswith(OTHER_STEMS) for word in words):
        return ""
    atrial = any("atri" in word or word == "la" for word in words)
    if any("myo" in w or "epi" in w or w.endswith("wall") or w in MUSCLE for w in words):
        return "" if atrial else "myocardium"
    if atrial:
        return "atrium"
    if any(word.startswith(("lv", "ventric", "endo")) for word in words):
        return "cavity"
    return ""
