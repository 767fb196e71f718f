"""An entry as tiles: original, moved with the missing part marked, painted, contours over it."""

from collections.abc import Sequence

from PIL import Image

from echogen.pictures import COLOURS, MISSING, OTHER
from echogen.pictures.entries import Entry, Picture
from echogen.pictures.sheet import Mark
from echogen.pictures.tiles import contoured, displayed_size, hatched, tile
from echogen.types import BACKGROUND, IGNORE

ORIGINAL, MOVED, PAINTED, LABELS = "original", "moved (hatched: empty)", "painted", "labels"


def headings(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The tiles that at least one of the entries has."""
    found = []
    if any(entry.original is not None for entry in entries):
        found.append(ORIGINAL)
    if any(entry.missing is not None for entry in entries):
        found.append(MOVED)
    if any(entry.painted for entry in entries):
        found.append(PAINTED)
    if any(_labelled(entry) is not None for entry in entries):
        found.append(LABELS)
    return tuple(found)


def panels(entry: Entry, names: Sequence[str], height: int) -> tuple[Image.Image | None, ...]:
    """The tiles of an entry, one for each heading; None where it has none."""
    return tuple(_panel(entry, name, height) for name in names)


def marks(entries: Sequence[Entry], labels: "dict[int, str]") -> tuple[Mark, ...]:
    """The legend: classes by name, and what is missing.

    Args:
        entries: that are shown.
        labels: {class id: name}.
    """
    shown: set[int] = set()
    for entry in entries:
        for picture in (entry.original, entry.made):
            if picture is not None and picture.label is not None:
                shown |= {int(k) for k in set(picture.label.ravel().tolist())}
    names = {**labels, IGNORE: "not judged (255)"}
    found = [
        Mark(names.get(class_id, f"class {class_id}"), COLOURS.get(class_id, OTHER))
        for class_id in sorted(shown - {BACKGROUND})
    ]
    if any(entry.missing is not None for entry in entries):
        found.append(Mark("left empty by the move, painted by the model", MISSING))
    return tuple(found)


def _panel(entry: Entry, name: str, height: int) -> Image.Image | None:
    made = entry.made
    if name == ORIGINAL:
        return None if entry.original is None else _tile(entry.original, height)
    if name == MOVED and made is not None and entry.missing is not None:
        return hatched(_tile(made, height), entry.missing)
    if name == PAINTED and made is not None and entry.painted:
        return _tile(made, height)
    picture = _labelled(entry)
    if name == LABELS and picture is not None and picture.label is not None:
        return contoured(_tile(picture, height), picture.label)
    return None


def _labelled(entry: Entry) -> Picture | None:
    picture = entry.made or entry.original
    return picture if picture is not None and picture.label is not None else None


def _tile(picture: Picture, height: int) -> Image.Image:
    shape = (picture.image.shape[0], picture.image.shape[1])
    return tile(picture.image, displayed_size(shape, picture.aspect, height))
