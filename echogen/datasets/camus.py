"""CAMUS' layouts: NIfTI in `database_nifti/`, MetaImage in `training/`, one folder a case.

Leclerc et al., IEEE TMI 38(9), 2019. Files are `CASE_VIEW_PHASE[_gt]`; half sequences are read if
asked for, other sequences never. The root may be the folder above the layouts, a layout, or one
case. Splits come only from the lists in `database_split/`. A dataset in these layouts is CAMUS only
if it says so.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from echogen.config import DatasetConfig
from echogen.datasets.base import (
    AS_FOUND,
    FRAME_NAME,
    Dataset,
    list_dataset,
    relative,
    resolve_labels,
)
from echogen.datasets.info import case_info
from echogen.datasets.integrity import IMAGE_IO, formats_of, suffix_of, with_data_files
from echogen.datasets.pixels import as_set, read_frame, read_image
from echogen.datasets.sequences import SEQUENCE_NAME, RecordingName, SequenceListing, list_frames
from echogen.errors import DatasetError
from echogen.support.reading import read_bytes, read_text
from echogen.support.words import counted, one_line, printable
from echogen.types import Case, FrameKey

LAYOUTS = ("database_nifti", "training", "validation", "testing")
SPLITS, SPLIT_PREFIX = "database_split", "subgroup_"
CITATION = "MANDATORY_CITATION.md"
MOST_CITATION = 2**20
LICENCE = "CAMUS: CC BY-NC-SA 4.0, non-commercial; cite Leclerc et al. 2019"
REFERENCE = (
    'S. Leclerc, E. Smistad, J. Pedrosa, A. Ostvik, et al., "Deep Learning for Segmentation using '
    'an Open Large-Scale Dataset in 2D Echocardiography", IEEE Transactions on Medical Imaging '
    "38(9), 2198-2210, 2019, doi 10.1109/TMI.2019.2900516"
)
INFO_FILE = re.compile(r"Info_(?P<view>[A-Za-z0-9]+)\.cfg", re.IGNORECASE)
SUFFIXES = tuple(
    suffix for suffix, reader in IMAGE_IO.items() if reader in ("NiftiImageIO", "MetaImageIO")
)


@dataclass(frozen=True)
class _Folder:
    """What one folder holds: {(case, view, phase): [image, label]}, the same of half sequences,
    {view: cfg}, a citation.
    """

    path: Path
    pairs: dict[tuple[str, str, str], list[Path | None]] = field(default_factory=dict)
    sequences: dict[RecordingName, list[Path | None]] = field(default_factory=dict)
    info: dict[str, Path] = field(default_factory=dict)
    citation: Path | None = None


def is_camus_layout(root: Path) -> bool:
    """Whether frames named as CAMUS names them lie where `list_camus` looks."""
    return any(folder.pairs or folder.sequences for folder in _folders(root))


def list_camus(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    settings: DatasetConfig = AS_FOUND,
    sequences: bool = False,
) -> Dataset:
    """Every frame under `root`, and what cfg files and split lists say of its case.

    Without `need_labels` an image is a frame by itself, and labels are left alone. With `sequences`
    the frames of a half sequence take the place of its recording's ED and ES.

    Raises:
        DatasetError: no frame is found, or a case stands in two split lists.
        UsageError: `labels` declares an impossible class id.
    """
    declared = resolve_labels(labels)
    found = list(_folders(root))
    folders = found if sequences else [replace(folder, sequences={}) for folder in found]
    folders = [folder for folder in folders if folder.pairs or folder.sequences or folder.citation]
    if not any(folder.pairs or folder.sequences for folder in folders):
        others = any(folder.sequences for folder in found)
        raise DatasetError(
            f"{root}: expected files named CASE_VIEW_PHASE (such as patient0001_4CH_ED.nii.gz) in "
            f"case folders here or in {'/, '.join(LAYOUTS)}/, found "
            + ("half sequences alone; --frames all reads them." if others else "none.")
        )
    splits, remarks = _read_splits(root)
    if need_labels:
        folders, unlabelled = _without_unlabelled(root, folders)
        remarks += unlabelled
    cases, about_cases = _cases(root, folders)
    listed = _list_sequences(root, folders, cases, splits, need_labels)
    if sequences:
        remarks += listed.remarks(name[:2] for folder in folders for name in folder.pairs)
    frames, unusable, repeated = _with_pairs(root, folders, listed, splits, need_labels)
    if repeated:
        remarks.append(f"{counted(repeated, 'frame')} found twice; the first of each is used.")
    remarks += about_cases + _absent_cases(root, splits, {case.case_id for case in cases})
    formats = formats_of(key.paths[0].name for key in frames.values())
    is_camus = any(_is_camus(folder.citation) for folder in folders)
    return list_dataset(
        root,
        "camus",
        f"camus layout ({' and '.join(formats)})" if formats else "camus layout",
        frames.values(),
        as_set(read_frame if need_labels else read_image, settings),
        labels=declared,
        cases=cases,
        unusable=unusable,
        remarks=remarks,
        licence=LICENCE if is_camus else "",
        extra={
            "spacing": "known",
            "files": list(formats),
            "citation": REFERENCE if is_camus else "",
        },
    )


def _with_pairs(
    root: Path,
    folders: list[_Folder],
    listed: SequenceListing,
    splits: Mapping[str, str],
    need_labels: bool,
) -> tuple[dict[str, FrameKey], list[tuple[FrameKey, str]], int]:
    """The sequences' frames, and ED and ES of other recordings, the first of each; what is unusable
    with the reason; and how many were found again.
    """
    frames = {key.frame_id: key for key in listed.frames}
    unusable = {key.frame_id: (key, reason) for key, reason in listed.unusable}
    replaced, repeated = listed.recordings, 0
    for folder in folders:
        for (case, view, phase), (image, label) in folder.pairs.items():
            if (case, view) in replaced:
                continue
            paths = with_data_files(image, label if need_labels or image is None else None)
            key = FrameKey(f"{case}_{view}_{phase}", case, view, phase, splits.get(case, ""), paths)
            if key.frame_id in frames:
                repeated += 1
            elif image is None or (need_labels and label is None):
                reason = _missing(root, paths[0], image is None)
                unusable.setdefault(key.frame_id, (key, reason))
            else:
                frames[key.frame_id] = key
    return frames, [pair for name, pair in unusable.items() if name not in frames], repeated


def _list_sequences(
    root: Path,
    folders: list[_Folder],
    cases: tuple[Case, ...],
    splits: Mapping[str, str],
    need_labels: bool,
) -> SequenceListing:
    """The half sequences of all folders, the first of each recording; none without its partner."""
    whole: dict[RecordingName, tuple[Path, Path | None]] = {}
    broken: dict[RecordingName, tuple[FrameKey, str]] = {}
    for folder in folders:
        for (case, view), (image, label) in folder.sequences.items():
            if image is not None and (label is not None or not need_labels):
                whole.setdefault((case, view), (image, label if need_labels else None))
                continue
            sequence, paths = f"{case}_{view}", with_data_files(image, label)
            key = FrameKey(sequence, case, view, "", splits.get(case, ""), paths, sequence=sequence)
            broken.setdefault((case, view), (key, _missing(root, paths[0], image is None)))
    listed = list_frames(root, whole, {case.case_id: case.info for case in cases}, splits)
    listed.unusable += [broken[name] for name in sorted(broken.keys() - whole.keys())]
    return listed


def _folders(root: Path) -> Iterator[_Folder]:
    """The root, then each layout's and the root's own case folders, in order of name."""
    yield _scan(root)
    groups = [root / name for name in LAYOUTS if (root / name).is_dir()]
    for group in [*groups, root]:
        if group is not root:
            yield _scan(group)
        for path in sorted(group.iterdir()):
            if path.is_dir() and path not in groups and not path.name.startswith("."):
                yield _scan(path)


def _scan(path: Path) -> _Folder:
    pairs: dict[tuple[str, str, str], list[Path | None]] = {}
    sequences: dict[RecordingName, list[Path | None]] = {}
    info: dict[str, Path] = {}
    names = sorted(entry.name for entry in path.iterdir())
    for suffix in SUFFIXES:
        for name in names:
            if suffix_of(name) != suffix or name.startswith("."):
                continue
            stem = name[: -len(suffix)]
            if (named := FRAME_NAME.fullmatch(stem)) is not None:
                key = (named["case"], named["view"], named["phase"])
                pair = pairs.setdefault(key, [None, None])
            elif (named := SEQUENCE_NAME.fullmatch(stem)) is not None:
                pair = sequences.setdefault((named["case"], named["view"]), [None, None])
            else:
                continue
            role = 1 if named["label"] else 0
            pair[role] = pair[role] or path / name
    for name in names:
        described = INFO_FILE.fullmatch(name)
        if described is not None:
            info[described["view"].upper()] = path / name
    citation = path / CITATION if CITATION in names else None
    return _Folder(path, pairs, sequences, info, citation)


def _without_unlabelled(root: Path, folders: list[_Folder]) -> tuple[list[_Folder], list[str]]:
    """Leave out a layout without a single label, as CAMUS' first `testing/` was, and say so."""
    groups: defaultdict[Path, list[_Folder]] = defaultdict(list)
    for folder in folders:
        parent = folder.path.parent
        known = parent.parent == root and parent.name in LAYOUTS
        groups[parent if known else root].append(folder)
    kept: list[_Folder] = []
    remarks: list[str] = []
    for group, members in groups.items():
        pairs = [pair for folder in members for pair in folder.pairs.values()]
        sequences = any(folder.sequences for folder in members)
        if group != root and pairs and not sequences and all(label is None for _, label in pairs):
            remarks.append(
                f"{group.name}/: {counted(len(pairs), 'image')} without any label; left out."
            )
        else:
            kept += members
    return kept, remarks


def _missing(root: Path, present: Path, image_is_missing: bool) -> str:
    suffix = suffix_of(present.name)
    stem = present.name[: -len(suffix)]
    if image_is_missing:
        wanted = stem.removesuffix("_gt") + suffix
        return f"{relative(root, present)}: no image, expected {wanted} beside it."
    return f"{relative(root, present)}: no label, expected {stem}_gt{suffix} beside it."


def _cases(root: Path, folders: list[_Folder]) -> tuple[tuple[Case, ...], list[str]]:
    found: dict[str, dict[str, float | str]] = {}
    remarks: list[str] = []
    for folder in folders:
        cases = {name[0] for name in (*folder.pairs, *folder.sequences)}
        for case in cases:
            found.setdefault(case, {})
        if len(cases) == 1 and folder.info:
            info, odd = case_info(root, folder.info)
            found[cases.pop()].update(info)
            remarks += odd
    return tuple(Case(case_id, found[case_id]) for case_id in sorted(found)), remarks


def _split_folder(root: Path) -> Path | None:
    """Beside the layout that `root` is or lies in; further up may stand another dataset's."""
    real = root.resolve()
    above = [root]
    here = _scan(root)
    if real.name in LAYOUTS or here.pairs or here.sequences:
        above.append(real.parent)
        if real.parent.name in LAYOUTS:
            above.append(real.parent.parent)
    return next((path / SPLITS for path in above if (path / SPLITS).is_dir()), None)


def _read_splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """{case id: split} from `database_split/subgroup_SPLIT.txt`, one case a line."""
    folder = _split_folder(root)
    splits: dict[str, str] = {}
    remarks: list[str] = []
    for path in sorted(folder.glob("*.txt")) if folder is not None else []:
        if path.name.startswith("."):
            continue
        split = path.stem.removeprefix(SPLIT_PREFIX)
        name = f"{SPLITS}/{printable(path.name)}"
        try:
            lines = read_text(path, DatasetError, name).splitlines()
        except (FileNotFoundError, DatasetError) as error:
            remarks.append(f"{name}: no split from it ({error}).")
            continue
        for case in filter(None, (line.strip() for line in lines)):
            if splits.setdefault(case, split) != split:
                raise DatasetError(
                    f"{name}: {one_line(case, 80)} is also listed as {printable(splits[case])}; a "
                    "case can be in one split only, remove it from the other lists."
                )
    return splits, remarks


def _absent_cases(root: Path, splits: Mapping[str, str], found: set[str]) -> list[str]:
    absent = sorted(splits.keys() - found)
    if not absent or not (root / SPLITS).is_dir():
        return []
    return [f"{SPLITS}/: {counted(len(absent), 'case')} listed but not found, such as {absent[0]}."]


def _is_camus(citation: Path | None) -> bool:
    try:
        return citation is not None and b"CAMUS" in read_bytes(citation, MOST_CITATION)
    except OSError:
        return False
