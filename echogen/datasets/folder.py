"""Images with label files beside them, as people have them: which is whose is told by names.

`pairing` says which names are understood, `labels` which kinds of label files. What was decided is
in the line of `describe`, and what could mean two things is refused with the setting that would say
which. Pictures carry no spacing. Names such as
`patient0001_4CH_ED` give case, view and phase; `cases.csv` says what they do not.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from echogen.config import DatasetConfig
from echogen.datasets.base import (
    AS_FOUND,
    FRAME_NAME,
    Dataset,
    list_dataset,
    relative,
    resolve_labels,
)
from echogen.datasets.caselist import CASES, read_cases, with_cases
from echogen.datasets.exported import SAMPLES
from echogen.datasets.integrity import IMAGE_IO, formats_of, is_bitmap, suffix_of, with_data_files
from echogen.datasets.labels import (
    KNOWN_NAMES,
    LOOKED_AT,
    Decision,
    LabelRule,
    decide_by_names,
    decide_by_values,
    names_drawn,
    read_class_files,
    read_drawing,
    read_map,
)
from echogen.datasets.pairing import (
    IMAGE,
    IMAGE_FOLDERS,
    SPLIT_FOLDERS,
    Listing,
    folded,
    has_pairs,
    list_files,
    role_of,
)
from echogen.datasets.pixels import Reading, as_set, check_classes, read_grey, read_image, shown
from echogen.datasets.polygons import Drawing, read_coco, read_labelme
from echogen.errors import DatasetError
from echogen.support.words import counted
from echogen.types import Frame, FrameKey

Kind = Literal["maps", "classes", "labelme", "coco"]
_PHASE = re.compile(
    r"(?P<before>.*?)(?<![a-z])"
    r"(?P<phase>ed|es|(?:end)?[-_ ]?(?:diastol|s[yi]stol)(?:e|ic))"
    r"(?![a-z])(?P<after>.*)",
    re.IGNORECASE,
)


class _Labelled(NamedTuple):
    """How the frames of a folder are labelled.

    `files` and `details` are those of each frame, by its id; `lost` are frames whose label cannot
    be read, with the reason.
    """

    kind: Kind
    decision: Decision
    files: Mapping[str, tuple[Path, ...]]
    details: Mapping[str, str]
    lost: Mapping[str, str]


def is_folder_layout(root: Path) -> bool:
    """Whether a folder such as `images/` lies here, with an image in it."""
    return any(
        suffix_of(path.name)
        for folder in root.iterdir()
        if folder.is_dir() and role_of(folder.name) == (IMAGE, "")
        for path in folder.iterdir()
    )


def is_paired_layout(root: Path) -> bool:
    """Whether images and their labels are found some other way."""
    return has_pairs(root)


def list_folder(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    settings: DatasetConfig = AS_FOUND,
) -> Dataset:
    """The images under `root` with their labels; without `need_labels`, the images alone.

    Args:
        root: of the dataset.
        labels: {class id: name}; None takes CAMUS' names for the classes that are found.
        need_labels: whether an image needs a label to be a frame.
        settings: what the files do not say.

    Raises:
        DatasetError: there is no image or no label, a table cannot be read, or labels could mean
            several things; says which setting tells.
        UsageError: `labels` declares an impossible class id, or `label_map` one without a name.
    """
    reading = Reading.of(settings)
    names = [*(labels or {}).values(), *(settings.label_map or {})]
    found = list_files(root, {folded(name) for name in names} | set(KNOWN_NAMES))
    if not found.images:
        raise DatasetError(f"{root}: expected images ({', '.join(IMAGE_IO)}), found none.")
    labelled = _labelled(root, found, labels, settings) if need_labels else None
    keys, by = _keys(root, found, labelled)
    keys, remarks = with_cases(root, keys, read_cases(root))
    unusable = _unusable(root, found, labelled)
    lost = {key.frame_id for key, _ in unusable}
    formats = formats_of(path.name for path in found.images.values())
    spaced = not all(is_bitmap(path.name) for path in found.images.values())
    told = settings.spacing_mm is not None or all(key.spacing_mm for key in keys)
    told = told or (root / SAMPLES).is_file()
    parts = [f"{' and '.join(formats)} images", labelled.decision.words if labelled else ""]
    cases = f"cases by {CASES}" if (root / CASES).is_file() else by
    return list_dataset(
        root,
        "folder",
        f"folder layout ({', '.join(part for part in (*parts, cases) if part)})",
        [key for key in keys if key.frame_id not in lost],
        as_set(read_image, settings)
        if labelled is None
        else partial(
            read_labelled, kind=labelled.kind, rule=labelled.decision.rule, reading=reading
        ),
        labels=labelled.decision.labels if labelled else resolve_labels(labels),
        unusable=unusable,
        remarks=[
            *_about(found, spaced or told, by),
            *_left_over(root, found, labelled),
            *remarks,
            *_torn(keys),
        ],
        extra={"spacing": "known" if spaced else "unknown", "files": list(formats)},
    )


def read_labelled(
    root: Path,
    key: FrameKey,
    labels: Mapping[int, str],
    *,
    kind: Kind,
    rule: LabelRule,
    reading: Reading,
) -> Frame:
    """A checked frame, its label made class ids.

    Args:
        root: messages name files relative to it.
        key: its first path is the image's header file; labels follow.
        labels: of the dataset.
        kind, rule: what the label files are, and hold.
        reading: how intensities become grey levels.

    Raises:
        DatasetError: as `pixels.read_frame`, or the label holds what no class has.
    """
    headers = [path for path in key.paths if suffix_of(path.name)]
    image, spacing = read_grey(root, headers[0], key.index, reading)
    if kind == "maps":
        name = shown(root, headers[1], key.index)
        classes = read_map(headers[1], name, key.index, rule)
    elif kind == "classes":
        ids = map(int, key.detail.split())
        name = relative(root, headers[1])
        classes = read_class_files(root, list(zip(ids, headers[1:], strict=True)))
    else:
        classes, name = read_drawing(root, key, (image.shape[0], image.shape[1]), rule)
    check_classes(classes, name, image, headers[0].name, labels)
    return Frame(key=key, image=image, label=classes, spacing_mm=spacing)


def _labelled(
    root: Path, found: Listing, labels: Mapping[int, str] | None, settings: DatasetConfig
) -> _Labelled:
    """The kind of labels that most frames have, and what they mean."""
    files_of_frames = found.labels or found.classes or found.polygons
    coco, lost, tables = read_coco(root, [] if files_of_frames else found.tables, found.images)
    counts: dict[Kind, int] = {
        "maps": len(found.labels),
        "classes": len(found.classes),
        "labelme": len(found.polygons),
        "coco": len(coco),
    }
    kind = max(counts, key=lambda one: counts[one])
    if not counts[kind]:
        raise DatasetError(_no_label(root, found))
    given = settings.label_map
    if kind == "maps":
        decision = decide_by_values(root, sorted(found.labels.values()), labels, given)
        files = {name: (path,) for name, path in found.labels.items()}
        return _Labelled(kind, decision, files, {}, {})
    if kind == "classes":
        pairs = [pair for classes in found.classes.values() for pair in classes.items()]
        names = {name: relative(root, path) for name, path in pairs}
        words = "one label file for each class"
        decision = decide_by_names(names, f"{root}: label files", labels, given, words)
        ids = decision.rule.names
        ordered = {
            frame: sorted(classes.items(), key=lambda item: (ids[folded(item[0])], item[0]))
            for frame, classes in found.classes.items()
        }
        return _Labelled(
            kind,
            decision,
            {frame: tuple(path for _, path in items) for frame, items in ordered.items()},
            {
                frame: " ".join(str(ids[folded(name)]) for name, _ in items)
                for frame, items in ordered.items()
            },
            {},
        )
    if kind == "labelme":
        some = list(found.polygons.values())
        names = names_drawn(_readable(root, some[:: max(1, len(some) // LOOKED_AT)]))
        decision = decide_by_names(names, f"{root}: polygons", labels, given, "labelme polygons")
        return _Labelled(kind, decision, {n: (p,) for n, p in found.polygons.items()}, {}, {})
    names = names_drawn((tables[name], drawing) for name, drawing in coco.items())
    decision = decide_by_names(names, f"{root}: polygons", labels, given, "COCO polygons")
    details = {frame: drawing.text() for frame, drawing in coco.items()}
    return _Labelled(kind, decision, dict.fromkeys(details, ()), details, lost)


def _readable(root: Path, paths: Sequence[Path]) -> Iterator[tuple[str, Drawing]]:
    for path in paths:
        try:
            yield relative(root, path), read_labelme(root, path)
        except DatasetError:
            continue  # told when its frame is read


def _keys(root: Path, found: Listing, labelled: _Labelled | None) -> tuple[list[FrameKey], str]:
    """The frames that have a label, and by what their cases are told."""
    ids = [one for one in sorted(found.images) if labelled is None or one in labelled.files]
    phases = _phases(ids)
    keys, folders = [], 0
    for frame_id in ids:
        files = labelled.files[frame_id] if labelled else ()
        headers = [found.images[frame_id], *(path for path in files if suffix_of(path.name))]
        paths = with_data_files(*headers) + tuple(p for p in files if not suffix_of(p.name))
        detail = labelled.details.get(frame_id, "") if labelled else ""
        *above, stem = frame_id.split("/")
        split = next((name for name in above if name.lower() in SPLIT_FOLDERS), "")
        telling = [name for name in above if name.lower() not in SPLIT_FOLDERS | IMAGE_FOLDERS]
        case, view, phase = telling[0] if telling else stem, "", ""
        folders += bool(telling)
        named = FRAME_NAME.fullmatch(stem)
        if named is not None and not named["label"]:
            case, view, phase = named["case"], named["view"], named["phase"]
        elif phases:
            case, phase = phases[frame_id]
        keys.append(FrameKey(frame_id, case, view, phase, split, paths, detail=detail))
    by = "cases by folder" if folders == len(keys) else "cases by file name"
    return keys, by


def _phases(ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{frame id: (case, phase)} of names such as `diastole7` and `systole7`.

    Empty unless all names tell, and no two tell the same.
    """
    told = {}
    for frame_id in ids:
        match = _PHASE.fullmatch(frame_id)
        rest = (match["before"] + match["after"]).strip("_-. ") if match else ""
        if match is None or not rest:
            return {}
        diastole = match["phase"].lower() == "ed" or "diastol" in match["phase"].lower()
        told[frame_id] = rest, "ED" if diastole else "ES"
    both = {phase for _, phase in told.values()} == {"ED", "ES"}
    return told if both and max(Counter(told.values()).values()) == 1 else {}


def _unusable(root: Path, found: Listing, labelled: _Labelled | None) -> list[tuple[FrameKey, str]]:
    if labelled is None:
        return []
    unusable = [
        (
            _alone(frame_id, path),
            f"{relative(root, path)}: no image, expected {_like(root, frame_id, found.images)}.",
        )
        for frame_id, path in found.stray.items()
    ]
    for frame_id, path in found.images.items():
        reason = labelled.lost.get(frame_id, "")
        if not reason and frame_id not in labelled.files:
            like = _like(root, frame_id, {one: f[0] for one, f in labelled.files.items() if f})
            like = like or f"a polygon in {' or '.join(relative(root, t) for t in found.tables)}"
            reason = f"{relative(root, path)}: no label, expected {like}."
        for one in labelled.files.get(frame_id, ()):
            if one in found.doubled:
                both = f"{relative(root, one)} and {relative(root, found.doubled[one])}"
                reason = f"two label files: {both}; keep one."
        if reason:
            unusable.append((_alone(frame_id, path), reason))
    return unusable


def _left_over(root: Path, found: Listing, labelled: _Labelled | None) -> list[str]:
    """What is said of label files of a kind that was not chosen."""
    if labelled is None:
        return []
    used = {path for files in labelled.files.values() for path in files}
    classes = (path for named in found.classes.values() for path in named.values())
    every = (*found.labels.values(), *classes, *found.polygons.values())
    left = sorted(path for path in every if path not in used)
    if not left:
        return []
    files = counted(len(left), "label file")
    return [f"{files} of another kind, such as {relative(root, left[0])}, left out."]


def _like(root: Path, frame_id: str, files: Mapping[str, Path]) -> str:
    """Where a frame's file would lie, as another frame's does."""
    if not files:
        return ""
    other, path = next(iter(files.items()))
    theirs, own = (name.rsplit("/", 1)[-1] for name in (other, frame_id))
    folder, _, name = relative(root, path).rpartition("/")
    return f"{folder}/{name.replace(theirs, own, 1)}".lstrip("/")


def _alone(frame_id: str, path: Path) -> FrameKey:
    return FrameKey(frame_id, frame_id.split("/")[-1], "", "", "", (path,))


def _no_label(root: Path, found: Listing) -> str:
    some = relative(root, next(iter(found.images.values())))
    stray = (
        f"; {relative(root, next(iter(found.stray.values())))} has no image" if found.stray else ""
    )
    tables = (
        f"; {relative(root, found.tables[0])} is neither labelme's nor COCO's"
        if found.tables
        else ""
    )
    stem = some.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return (
        f"{root}: {counted(len(found.images), 'image')} such as {some}, but no label of any"
        f"{stray}{tables}; expected labels/{stem}.png, masks/{stem}.png, {stem}_mask.png, "
        f"labels/CLASS/{stem}.png, {stem}.json of labelme, or COCO's annotations.json. Images "
        "alone can train a model: see echogen train."
    )


def _torn(keys: Sequence[FrameKey]) -> list[str]:
    """Cases whose frames are in several splits."""
    splits: dict[str, set[str]] = {}
    for key in keys:
        splits.setdefault(key.case_id, set()).add(key.split)
    torn = sorted(case for case, found in splits.items() if len(found - {""}) > 1)
    if not torn:
        return []
    return [
        f"frames of {counted(len(torn), 'case')}, such as {torn[0]}, are in several splits: what "
        "is measured on a second one comes out too good."
    ]


def _about(found: Listing, spaced: bool, by: str) -> list[str]:
    remarks = []
    if not spaced:
        remarks.append(
            "Pictures carry no spacing: lengths and volumes are in pixels, unless spacing_mm in "
            f"[dataset] or {CASES} gives millimetres per pixel."
        )
    if by == "cases by file name":
        remarks.append(
            "Cases are told by file names: where one patient's frames have different names, list "
            f"them in {CASES} (frame,case), or they may end up in both training and validation."
        )
    if found.others:
        remarks.append(
            f"{counted(found.others, 'image')} outside of {', '.join(sorted(found.folders))} left "
            "out."
        )
    if found.repeated:
        remarks.append(
            f"{counted(found.repeated, 'image')} found twice; one without loss, else "
            "the first, is used."
        )
    return remarks
