"""Which file of a folder is an image, and which is whose label, told from names alone.

Images and labels lie in folders of their own (`images/` and `labels/`, `frames/` and `masks/`,
`train_images/` and `train_masks/`, or any of these in a folder a split or a patient), or side by
side (`x.png` and `x_mask.png`). A class may have a file of its own: `labels/LV/x.png` or
`x_LV.png`.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from echogen.datasets.integrity import IMAGE_IO, suffix_of
from echogen.support.reading import open_regular

SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
IMAGE_FOLDERS = frozenset(
    {"image", "images", "img", "imgs", "frame", "frames", "png", "pngs", "pictures"}
)
LABEL_FOLDERS = frozenset(
    {"label", "labels", "mask", "masks", "annotation", "annotations", "gt", "gts", "seg", "segs",
     "segmentation", "segmentations", "groundtruth", "ground_truth", "groundtruths"}
)  # fmt: skip
LABEL_ENDING = re.compile(
    r"(?P<stem>.+)[_-](gt|masks?|labels?|segs?|segmentations?|ground_?truth)", re.IGNORECASE
)
IMAGE_ENDING = re.compile(r"(?P<stem>.+)[_-](images?|imgs?|frame|0000)", re.IGNORECASE)
DEEPEST = 4
MOST_FOLDERS, MOST_NAMES, MOST_TABLES = 2000, 500, 10
JSON_START = 2**16

Role = str
IMAGE, LABEL, OTHER = "image", "label", ""


@dataclass
class Listing:
    """The files of a folder, by frame.

    Attributes:
        images: {frame id: its file}; an id is the path without the folders that say nothing.
        labels: {frame id: its label's file}.
        classes: {frame id: {name of a class: the file of that class}}.
        polygons: {frame id: its JSON file}.
        tables: JSON files that belong to no frame.
        stray: label files without an image, by the id that it would have.
        doubled: {the file of a label: another of the same frame}.
        repeated: images that another file has the same id as.
        others: images outside of the folders whose names say that they hold images.
        folders: names of the folders that hold images and labels, as they are written.
    """

    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    classes: dict[str, dict[str, Path]] = field(default_factory=dict)
    polygons: dict[str, Path] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    stray: dict[str, Path] = field(default_factory=dict)
    doubled: dict[Path, Path] = field(default_factory=dict)
    repeated: int = 0
    others: int = 0
    folders: set[str] = field(default_factory=set)


def walk_files(root: Path) -> Iterator[Path]:
    """Every file under `root` in order of name; hidden ones are left out, links followed once."""
    for folder, names in _walk_folders(root):
        yield from (folder / name for name in names)


def _walk_folders(root: Path, deepest: int | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names of its files."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        depth = len(Path(folder).relative_to(root).parts)
        stop = deepest is not None and depth >= deepest
        below[:] = [] if stop else sorted(name for name in below if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def role_of(folder: str) -> tuple[Role, str]:
    """What a folder's name says of its files, and the rest of it: `train` of `train_masks`."""
    lowered = folder.lower()
    for names, role in ((IMAGE_FOLDERS, IMAGE), (LABEL_FOLDERS, LABEL)):
        if lowered in names:
            return role, ""
        for cut in re.finditer("[_-]", folder):
            before, after = folder[: cut.start()], folder[cut.end() :]
            for word, rest in ((after, before), (before, after)):
                if word.lower() in names and rest:
                    return role, rest
    return OTHER, ""


def has_pairs(root: Path) -> bool:
    """Whether images and labels lie right here, or in splits or several folders just below."""
    homes = set()
    for folder, names in islice(_walk_folders(root, DEEPEST), MOST_FOLDERS):
        parts = folder.relative_to(root).parts
        at = next((i for i, part in enumerate(parts) if role_of(part)[0] == LABEL), None)
        if at is not None and any(suffix_of(name) for name in names[:MOST_NAMES]):
            above = root.joinpath(*parts[:at])
            if any(role_of(one.name)[0] == IMAGE for one in above.iterdir() if one.is_dir()):
                homes.add(parts[:at])
        elif _has_labels_beside(folder, names):
            homes.add(parts)
    near = [home for home in homes if len(home) == 1]
    splits = any(home[0].lower() in SPLIT_FOLDERS for home in homes if home)
    return () in homes or len(near) > 1 or splits


def _has_labels_beside(folder: Path, names: Sequence[str]) -> bool:
    drawn = [name for name in names if name.lower().endswith(".json")][:MOST_TABLES]
    return any(_draws(folder / name) for name in drawn) or any(
        LABEL_ENDING.fullmatch(name[: -len(suffix_of(name))])
        for name in names[:MOST_NAMES]
        if suffix_of(name)
    )


def _draws(path: Path) -> bool:
    """Whether a JSON file seems to be labelme's of an image beside it, or COCO's."""
    if any(path.with_suffix(suffix).is_file() for suffix in IMAGE_IO):
        return True
    try:
        with open_regular(path) as file:
            start = file.read(JSON_START)
    except OSError:
        return False
    return any(f'"{key}"'.encode() in start for key in ("categories", "annotations"))


def list_files(root: Path, names: Collection[str]) -> Listing:
    """The images under `root`, each with what labels it.

    Args:
        root: of the dataset.
        names: folded names of classes (see `labels.folded`), that a file's ending may say.
    """
    found = Listing()
    images: list[tuple[str, Role, Path]] = []
    others: list[tuple[Path, list[str], str, bool]] = []
    for path in walk_files(root):
        suffix = suffix_of(path.name)
        if not suffix and path.suffix.lower() != ".json":
            continue
        inside = path.relative_to(root).parts
        stem = path.name[: -len(suffix or path.suffix)]
        roles = [role_of(part) for part in inside[:-1]]
        role = next((role for role, _ in roles if role), OTHER)
        kept = [
            rest if role else part
            for part, (role, rest) in zip(inside[:-1], roles, strict=True)
            if rest or not role
        ]
        found.folders |= {
            part for part, (role, rest) in zip(inside[:-1], roles, strict=True) if role
        }
        if not suffix or role == LABEL or (role == OTHER and LABEL_ENDING.fullmatch(stem)):
            others.append((path, kept, stem, bool(suffix)))
            continue
        images.append(("/".join([*kept, stem]), role, path))
    told = {role for _, role, _ in images}
    images.sort(key=lambda image: IMAGE_IO[suffix_of(image[2].name)] == "JPEGImageIO")
    for frame_id, role, path in images:
        if IMAGE in told and role == OTHER:
            found.others += 1
            continue
        found.repeated += frame_id in found.images
        found.images.setdefault(frame_id, path)
    _split_off_classes(found, names)
    _shorten(found, others)
    for path, kept, stem, is_picture in others:
        _place(found, path, kept, stem, is_picture)
    return found


def _split_off_classes(found: Listing, names: Collection[str]) -> None:
    """`x_LV.png` beside `x.png` is a label where LV is known as a class."""
    for frame_id in list(found.images):
        stem, _, name = frame_id.replace("-", "_").rpartition("_")
        if stem and folded(name) in names:
            owner = frame_id[: len(stem)]
            if owner in found.images:
                found.classes.setdefault(owner, {})[frame_id[len(stem) + 1 :]] = found.images.pop(
                    frame_id
                )


def _shorten(found: Listing, others: Sequence[tuple[Path, list[str], str, bool]]) -> None:
    """`images/x_image.png` is the frame `x` where all images end so, and labels do not."""
    short = {name: IMAGE_ENDING.fullmatch(name) for name in found.images}
    if not short or not all(short.values()):
        return
    ids = {"/".join([*kept, stem]) for _, kept, stem, _ in others}
    if not ids & found.images.keys():
        found.images = {match["stem"]: found.images[name] for name, match in short.items() if match}


def _place(found: Listing, path: Path, kept: list[str], stem: str, is_picture: bool) -> None:
    """A label's file, where it belongs."""
    for frame_id, name in _owners(kept, stem):
        if frame_id not in found.images:
            continue
        if not is_picture:
            kept_one = found.polygons.setdefault(frame_id, path)
        elif name:
            kept_one = found.classes.setdefault(frame_id, {}).setdefault(name, path)
        else:
            kept_one = found.labels.setdefault(frame_id, path)
        if kept_one != path:
            found.doubled[kept_one] = path
        return
    if is_picture:
        found.stray.setdefault("/".join([*kept, stem]), path)
    else:
        found.tables.append(path)


def _owners(kept: list[str], stem: str) -> Iterator[tuple[str, str]]:
    """The frames that a label may be of, and the class that it may be of, the likeliest first."""
    bare = LABEL_ENDING.fullmatch(stem)
    stems = [stem, *([bare["stem"]] if bare else [])]
    for one in stems:
        yield "/".join([*kept, one]), ""
    for at, folder in enumerate(kept):
        if folder.lower() not in SPLIT_FOLDERS:
            for one in stems:
                yield "/".join([*kept[:at], *kept[at + 1 :], one]), folder
    for one in stems:
        for cut in reversed(list(re.finditer("[_-]", one))):
            before, after = one[: cut.start()], one[cut.end() :]
            ending = LABEL_ENDING.fullmatch(before)
            for owner in (before, *([ending["stem"]] if ending else [])):
                if owner and after:
                    yield "/".join([*kept, owner]), after


def folded(name: str) -> str:
    """A class's name for comparison: letters and digits, small."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
