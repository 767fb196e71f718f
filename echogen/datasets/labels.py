"""Label files of many kinds, made class ids: what their values and names mean, and by which rule.

A rule is decided once for a dataset, from its settings and a look at some of its files. What could
mean two things is refused, with the setting that would say which.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.advice import advise
from echogen.datasets.base import relative, resolve_labels
from echogen.datasets.integrity import BITMAPS, IMAGE_IO, suffix_of
from echogen.datasets.pairing import folded
from echogen.datasets.pixels import as_uint8, open_bitmap, read_plane, shown
from echogen.datasets.polygons import Drawing, drawing_of, read_labelme
from echogen.errors import DatasetError, UsageError
from echogen.support.words import one_line, printable, some
from echogen.types import CAMUS_LABELS, LEFT_ATRIUM, LV_CAVITY, MYOCARDIUM, FrameKey, UInt8HW

WHITE = 255
LOOKED_AT = 12
MOST_VALUES = 16
SMALL_IDS = 20
SMEARED = 64  # grey levels that JPEG may move black and white
MOST_SMEARED = 0.01
KNOWN_NAMES: Mapping[str, int] = {
    **dict.fromkeys(("lv", "lvcavity", "lvendo", "endo", "leftventricle"), LV_CAVITY),
    **dict.fromkeys(("myo", "lvmyo", "myocardium", "lvm"), MYOCARDIUM),
    **dict.fromkeys(("la", "leftatrium"), LEFT_ATRIUM),
}
"""What the names of CAMUS' classes are often shortened to."""


@dataclass(frozen=True)
class LabelRule:
    """What label files hold.

    Attributes:
        values: {grey level or colour, as text: class id}; None where files hold class ids.
        names: {folded name of a class: class id}.
    """

    values: Mapping[str, int] | None = None
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def by_colour(self) -> bool:
        """Whether a colour means a class."""
        return self.values is not None and any(key.startswith("#") for key in self.values)

    @property
    def black_and_white(self) -> bool:
        """Whether files show one class in white."""
        return self.values is not None and self.values.keys() == {str(WHITE)}


@dataclass(frozen=True)
class Decision:
    """A rule, the classes that it can give, and how a listing says it."""

    rule: LabelRule
    labels: Mapping[int, str]
    words: str


def read_map(path: Path, name: str, index: int | None, rule: LabelRule) -> UInt8HW:
    """A file of one value a pixel as class ids.

    Raises:
        DatasetError: it cannot be read, or holds a value that no class has.
    """
    plane = _plane(path, name, index, rule.by_colour, rule.black_and_white)
    if not rule.black_and_white and IMAGE_IO[suffix_of(path.name)] == "JPEGImageIO":
        raise DatasetError(
            f"{name}: a label stored as JPEG, which smears its values; store it as PNG."
        )
    if rule.values is None and plane.ndim == 2:
        return as_uint8(plane, name, "class ids")
    texts, inverse = _values(plane)
    known = {"0": 0, "#000000": 0, **(rule.values or {})}
    unknown = [text for text in texts if _class_of(text, known) is None]
    if unknown:
        raise DatasetError(
            f"{name}: holds {_some(unknown)}, which no class has; expected "
            f"{_some(rule.values) if rule.values else 'class ids'} and black: store nothing else "
            "there, or name it in label_map."
        )
    ids = np.array([_class_of(text, known) for text in texts], dtype=np.uint8)
    classes: UInt8HW = ids[inverse].reshape(plane.shape[:2])
    return classes


def read_class_files(root: Path, files: Sequence[tuple[int, Path]]) -> UInt8HW:
    """Files of one class each as class ids; where they overlap, the smaller class is on top.

    Raises:
        DatasetError: one cannot be read, is not black and white, or has another shape.
    """
    masks = []
    for label, path in files:
        name = shown(root, path, None)
        plane = _plane(path, name, None, by_colour=False, black_and_white=True)
        if plane.ndim > 2 or len(np.unique(plane[plane != 0])) > 1:
            raise DatasetError(f"{name}: expected one class in white on black, found more values.")
        masks.append((label, plane != 0))
    if len({mask.shape for _, mask in masks}) > 1:
        names = " and ".join(shown(root, path, None) for _, path in files)
        raise DatasetError(f"{names}: label files of one frame have different shapes.")
    return _stacked(masks, masks[0][1].shape)


def read_drawing(
    root: Path, key: FrameKey, shape: tuple[int, int], rule: LabelRule
) -> tuple[UInt8HW, str]:
    """Polygons as class ids, where they overlap the smaller one on top, and the file's name.

    Args:
        root: messages name files relative to it.
        key: with a JSON file of labelme as its last path, or a `Drawing` as its detail.
        shape: (H, W) of the image.
        rule: of the dataset.

    Raises:
        DatasetError: it cannot be read, has another shape, or names a class that is not known.
    """
    path = key.paths[-1]
    drawing = drawing_of(key.detail) if key.detail else read_labelme(root, path)
    name = shown(root, path, None)
    if drawing.size not in (None, shape):
        raise DatasetError(
            f"{name}: polygons drawn on {drawing.size} pixels (rows, columns), but the image has "
            f"{shape}; they must be the same."
        )
    unknown = [one.name for one in drawing.outlines if folded(one.name) not in rule.names]
    if unknown:
        raise DatasetError(
            f"{name}: a polygon of {unknown[0]!r}, which no class is called: name it in labels or "
            "label_map (0 leaves it out)."
        )
    filled = [(rule.names[folded(one.name)], one.fill(shape)) for one in drawing.outlines]
    return _stacked(filled, shape), name


def _stacked(masks: Sequence[tuple[int, npt.NDArray[np.bool_]]], shape: tuple[int, ...]) -> UInt8HW:
    classes = np.zeros(shape, np.uint8)
    for label, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
        if label:
            classes[mask] = label
    return classes


def _plane(
    path: Path, name: str, index: int | None, by_colour: bool, black_and_white: bool
) -> npt.NDArray[Any]:
    """(H, W), or (H, W, 3) of colours; a palette's indices where they are class ids."""
    reader = IMAGE_IO[suffix_of(path.name)]
    if reader not in BITMAPS:
        return read_plane(path.parent, path, index)[0]
    bitmap = open_bitmap(path, name, see_through=True)
    if bitmap.indices is not None and not by_colour and _are_ids(bitmap.indices, bitmap.pixels):
        return bitmap.indices
    plane = bitmap.pixels
    if reader == "JPEGImageIO" and black_and_white and plane.ndim == 2:
        smeared = float(((plane > SMEARED) & (plane < WHITE - SMEARED)).mean())
        if smeared <= MOST_SMEARED:
            return np.where(plane > WHITE // 2, np.uint8(WHITE), np.uint8(0))
    return plane


def _are_ids(indices: UInt8HW, pixels: npt.NDArray[Any]) -> bool:
    """Whether a palette's indices are class ids: few, with colours, and 0 the darkest of them.

    Programs that reduce a picture to few colours put these in any order, white first.
    """
    found, first = np.unique(indices, return_index=True)
    colours = pixels.reshape(indices.size, -1)[first].astype(int)
    distinct = len(np.unique(colours, axis=0)) == len(found)
    if found.max() >= SMALL_IDS or (distinct and colours.shape[1] == 1):
        return False
    light = colours.sum(axis=1)
    if found[0]:
        return bool(light.min() > 0)
    return bool(light[0] == 0 or (light[1:] > light[0]).all())


def _values(plane: npt.NDArray[Any]) -> tuple[list[str], npt.NDArray[np.intp]]:
    """The distinct values as text, and each pixel's place among them."""
    if plane.ndim == 2:
        found, inverse = np.unique(plane, return_inverse=True)
        return [f"{value:g}" for value in found.tolist()], inverse
    packed = plane.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    found, inverse = np.unique(packed, return_inverse=True)
    return [f"#{value:06x}" for value in found.tolist()], inverse


def _class_of(text: str, known: Mapping[str, int]) -> int | None:
    """Of a grey level or a colour; a grey level is a colour, too."""
    if text in known:
        return known[text]
    if text.isdecimal() and int(text) <= WHITE:
        return known.get(f"#{int(text):02x}{int(text):02x}{int(text):02x}")
    grey = int(text[1:3], 16) if text.startswith("#") and len(set(_pairs(text))) == 1 else None
    return known.get(str(grey))


def _pairs(colour: str) -> list[str]:
    return [colour[at : at + 2] for at in (1, 3, 5)]


def decide_by_values(
    root: Path,
    files: Sequence[Path],
    labels: Mapping[int, str] | None,
    label_map: Mapping[str, int] | None,
) -> Decision:
    """The rule for files of one value a pixel.

    Args:
        root: messages name files relative to it.
        files: all label files; `LOOKED_AT` of them, spread evenly, are read.
        labels, label_map: as set.

    Raises:
        DatasetError: they hold what no class has, or what could mean two things.
        UsageError: a class of `label_map` has no name.
    """
    values = {k: v for k, v in (label_map or {}).items() if k.isdecimal() or k.startswith("#")}
    if values:
        declared = _declared(values, labels)
        kind = "colours" if any(key.startswith("#") for key in values) else "grey levels"
        return Decision(LabelRule(values), declared, f"labels as {kind} of {_named(declared)}")
    declared = resolve_labels(labels)
    seen = _look(root, files)
    white = [texts for texts in seen.values() if texts == {"0", str(WHITE)}]
    known = {str(label) for label in declared}
    odd = {path: texts - known - {str(WHITE)} for path, texts in seen.items()}
    odd = {path: texts for path, texts in odd.items() if texts}
    ids = [texts for texts in seen.values() if texts <= known and len(texts) > 1]
    if odd and (white or not ids):
        raise DatasetError(_which(root, odd, seen, declared))
    if white and not ids:
        foreground = [label for label in declared if label]
        if labels is None:
            foreground = [LV_CAVITY]
        if len(foreground) != 1:
            raise DatasetError(
                f"{relative(root, next(iter(seen)))}: label files hold 0 and {WHITE}, one class of "
                f"{_named(declared)}; say which, {advise(f'label_map = {{{WHITE} = 1}}')}"
            )
        one = {label: name for label, name in declared.items() if label in (0, *foreground)}
        words = f"labels as 0/{WHITE} of one class {one[foreground[0]]!r}"
        return Decision(LabelRule({str(WHITE): foreground[0]}), one, words)
    found = sorted({int(text) for texts in ids for text in texts} - {0})
    return Decision(LabelRule(), declared, " ".join(["labels as class ids", *map(str, found)]))


def _look(root: Path, files: Sequence[Path]) -> dict[Path, set[str]]:
    """What some files hold, but those of one value; what cannot be read is told frame by frame."""
    places = np.unique(np.linspace(0, len(files) - 1, min(LOOKED_AT, len(files))).astype(int))
    seen = {}
    for path in (files[place] for place in places):
        try:
            texts, _ = _values(_plane(path, relative(root, path), None, False, True))
        except DatasetError:
            continue
        if len(texts) > 1:
            seen[path] = set(texts)
    return seen


def _which(
    root: Path,
    odd: Mapping[Path, set[str]],
    seen: Mapping[Path, set[str]],
    declared: Mapping[int, str],
) -> str:
    """A refusal that asks what the values mean."""
    path = next(iter(odd))
    texts = set().union(*seen.values()) - {"0", "#000000"}
    name = f"{relative(root, path)}: label files"
    if len(texts) > MOST_VALUES or any(not _is_value(text) for text in texts):
        return (
            f"{name} hold {len(odd[path])} values, such as {_some(sorted(odd[path])[:3])}: not "
            "a label map, or one smoothed or stored as JPEG; store one value a class, as PNG."
        )
    coloured = any(text.startswith("#") for text in texts)
    ordered = sorted(texts, key=lambda text: (text.startswith("#"), len(text), text))
    told = f"{name} hold {_some(ordered)}; the classes are {_named(declared, ids=True)}"
    if not coloured and all(int(text) < SMALL_IDS for text in texts):
        names = {int(text): declared.get(int(text), f"class {text}") for text in ordered}
        return f"{told}; name all of them, {advise(f'labels = {_toml(names)}')}"
    quoted = {
        (f'"{text}"' if text.startswith("#") else text): i + 1 for i, text in enumerate(ordered)
    }
    pairs = ", ".join(f"{text} = {label}" for text, label in quoted.items())
    return f"{told}; say which is which, in your order, {advise(f'label_map = {{{pairs}}}')}"


def _is_value(text: str) -> bool:
    return text.isdecimal() or text.startswith("#")


def decide_by_names(
    names: Mapping[str, str],
    where: str,
    labels: Mapping[int, str] | None,
    label_map: Mapping[str, int] | None,
    words: str,
) -> Decision:
    """The rule for classes that files or polygons name.

    Args:
        names: those found, as they are written, each with a file that has it.
        where: how messages call what names them.
        labels, label_map: as set.
        words: how a listing calls such labels.

    Raises:
        DatasetError: a name that no class is known by.
        UsageError: a class of `label_map` has no name.
    """
    found = {folded(name): name for name in sorted(names)}
    given = {folded(key): label for key, label in (label_map or {}).items()}
    known = {**(KNOWN_NAMES if labels is None else {}), **given}
    known |= {folded(name): label for label, name in (labels or {}).items()}
    if labels is not None:
        same = {label: KNOWN_NAMES.get(folded(name)) for label, name in labels.items()}
        for short, label in KNOWN_NAMES.items():
            owner = next((own for own, means in same.items() if means == label), None)
            if owner is not None:
                known.setdefault(short, owner)
    unknown = [name for short, name in found.items() if short not in known]
    told = f"{where} name {_some(found.values())}; "
    first = f"(in {one_line(names[unknown[0]], 200)})" if unknown else ""
    if unknown and labels is None:
        taken = {label: CAMUS_LABELS.get(label, "") for label in known.values()}
        free = (label for label in range(1, 255) if label not in taken)
        ids = {known.get(short, 0) or next(free, 0): name for short, name in found.items()}
        raise DatasetError(
            f"{told}which class {unknown[0]!r} is {first} has to be said, "
            + advise(f"labels = {_toml(dict(sorted(ids.items())))}")
        )
    if unknown:
        pairs = ", ".join(f'"{printable(name)}" = 0' for name in unknown)
        raise DatasetError(
            f"{told}no class is called {unknown[0]!r} {first}: give its class id, or 0 to leave it "
            f"out, {advise(f'label_map = {{{pairs}}}')}"
        )
    used = {short: known[short] for short in found}
    declared = _declared(used, labels, {label: found[short] for short, label in used.items()})
    return Decision(LabelRule(None, used), declared, f"{words} of {_named(declared)}")


def _declared(
    used: Mapping[str, int],
    labels: Mapping[int, str] | None,
    names: Mapping[int, str] | None = None,
) -> dict[int, str]:
    """The names of the classes that are used: as set, CAMUS' own, or those found."""
    if labels is not None:
        declared = resolve_labels(labels)
        lacking = sorted(set(used.values()) - set(declared))
        if lacking:
            raise UsageError(
                f"dataset.label_map: class {lacking[0]} has no name in dataset.labels; add it."
            )
        return declared
    known = {**(names or {}), **CAMUS_LABELS}
    lacking = sorted(set(used.values()) - set(known))
    if lacking:
        wanted = {label: known.get(label, f"class {label}") for label in sorted(set(used.values()))}
        wanted.pop(0, None)
        raise UsageError(
            f"dataset.label_map: class {lacking[0]} has no name; name all, "
            + advise(f"labels = {_toml(wanted)}")
        )
    return resolve_labels({label: known[label] for label in set(used.values()) if label})


def names_drawn(drawings: Iterable[tuple[str, Drawing]]) -> dict[str, str]:
    """The classes that drawings name, each with a file that does; both come in pairs."""
    return {outline.name: file for file, drawing in drawings for outline in drawing.outlines}


def _toml(names: Mapping[int, str]) -> str:
    return "{" + ", ".join(f'{label} = "{printable(name)}"' for label, name in names.items()) + "}"


def _named(labels: Mapping[int, str], ids: bool = False) -> str:
    return ", ".join(f"{k} {v}" if ids else v for k, v in labels.items() if k)


def _some(values: Iterable[str]) -> str:
    return some((one_line(value, 80) for value in values), 8)
