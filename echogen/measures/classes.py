"""Which class id is which part of the heart, by a dataset's own names."""

from collections.abc import Mapping
from dataclasses import dataclass

from echogen.types import LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM


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
        words = name.lower()
        if "myo" in words or "endo-epi" in words or "wall" in words:
            found.setdefault("myocardium", label)
        elif "atri" in words or words == "la":
            found.setdefault("atrium", label)
        elif "lv" in words or "ventric" in words or "endo" in words:
            found.setdefault("cavity", label)
    if not found:
        ids = (LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM)
        names = ("cavity", "myocardium", "atrium")
        found = {name: label for name, label in zip(names, ids, strict=True) if label in labels}
    return Classes(found.get("cavity"), found.get("myocardium"), found.get("atrium"))
