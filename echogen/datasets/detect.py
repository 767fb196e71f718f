"""Which reader a folder needs, and what to say when it needs none of ours."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from echogen.config import DatasetConfig
from echogen.datasets.base import AS_FOUND, Dataset
from echogen.datasets.camus import LAYOUTS, is_camus_layout, list_camus
from echogen.datasets.cardiacuda import is_cardiacuda_layout, list_cardiacuda
from echogen.datasets.dicom import has_labels, is_dicom_layout, list_dicom
from echogen.datasets.echonet import is_echonet_layout, list_echonet
from echogen.datasets.exported import listed_classes, with_copies
from echogen.datasets.folder import is_folder_layout, is_paired_layout, list_folder
from echogen.datasets.images import is_images_layout, list_images
from echogen.datasets.integrity import IMAGE_IO
from echogen.datasets.nnunet import is_nnunet_layout, list_nnunet
from echogen.datasets.selection import select
from echogen.errors import DatasetError, UsageError
from echogen.support.reading import reason
from echogen.support.words import counted, printable, some
from echogen.types import FrameKey

Reader = Callable[..., Dataset]
"""(root, labels, need_labels) -> Dataset, such as `list_camus`."""
READERS: Mapping[str, tuple[Callable[[Path], bool], Reader]] = {
    "camus": (is_camus_layout, list_camus),
    "folder": (is_folder_layout, list_folder),
    "nnunet": (is_nnunet_layout, list_nnunet),
    "echonet": (is_echonet_layout, list_echonet),
    "cardiacuda": (is_cardiacuda_layout, list_cardiacuda),
    "dicom": (is_dicom_layout, list_dicom),
}
INDEXED = ("nnunet", "echonet", "cardiacuda")
"""Layouts recognised by a file or folder of their own; CAMUS' names may occur in them too."""
PRIVATE = ("dicom",)
"""Layouts whose file names may be patients': no message holds them."""
UNNAMED = ("camus", "folder")
"""Layouts whose own files do not name their classes; `classes.csv` may."""
IN_SEQUENCES = ("camus", "cardiacuda", "dicom")
"""Layouts whose files hold sequences."""
SETTLED: Mapping[str, tuple[str, ...]] = {
    "window": ("camus", "folder", "nnunet", "images", "dicom"),
    "max_colour": ("camus", "folder", "nnunet", "images", "dicom"),
    "label_map": ("folder",),
    "case_salt": ("dicom",),
}
"""Settings that only some readers take."""
MAX_SUBFOLDERS = 50
TAKE_STORES = "validate, stats, preview and export take stores of echogen."
UNLABELLED_DICOM = (
    "No file has a label (X.png, X_gt.png or X_gt.nii.gz beside X.dcm, or a DICOM SEG): train, "
    "preview and stats can use it, expand cannot."
)


UNLABELLED: Mapping[str, tuple[Callable[[Path], bool], Reader]] = {
    "images": (is_images_layout, list_images),
}
"""Layouts without labels; `auto` looks for them last."""


def open_dataset(
    path: Path | str,
    format: str = "auto",
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = True,
    frames: Literal["key", "all"] = "key",
    settings: DatasetConfig = AS_FOUND,
) -> Dataset:
    """The dataset at `path`, listed; no pixel is read.

    Args:
        path: a folder in one of the known layouts.
        format: one of `READERS`, or `auto` to look for the layout that fits; without labels also
            `images`, any folder of images.
        labels: the class ids that may occur, {id: name}; None takes those of `classes.csv`, or the
            reader's own.
        need_labels: False takes every image, and reads no labels: a frame's is all background.
        frames: "all" takes every frame of half sequences in place of the recording's ED and ES.
        settings: what files do not say, such as their spacing; of these, `format`, `labels` and
            `frames` are not looked at.

    Raises:
        DatasetError: there is no such folder, no layout fits, or no image has a label; says what
            was looked for, what is there, and the nearest path that would do.
        UsageError: an unknown format, an impossible class id, or all frames of a layout that has
            no sequences.
    """
    readers = READERS if need_labels else {**READERS, **UNLABELLED}
    if format != "auto" and format not in readers:
        raise UsageError(f"--format {format}: expected auto, {', '.join(readers)}.")
    root, chosen = Path(path), format
    _require_utf8(root)
    try:
        _require_folder(root)
        fitting = _fitting(root)
        if format in UNLABELLED or not (fitting or need_labels):
            fitting = [name for name, (fits, _) in UNLABELLED.items() if fits(root)]
        if format == "auto" and len(fitting) > 1:
            raise DatasetError(
                f"{root}: matches the layouts {' and '.join(fitting)}; choose one with --format."
            )
        chosen = format if format != "auto" else "".join(fitting)
        if chosen not in fitting:
            raise DatasetError(_nothing_found(root, format, fitting, need_labels))
        if labels is None and chosen in UNNAMED:
            labels = listed_classes(root)
        reader = readers[chosen][1] if frames == "key" else _with_sequences(chosen)
        more = _settings_of(chosen, settings)
        dataset = reader(root, labels, need_labels=need_labels, **more)
    except OSError as error:
        private = chosen in PRIVATE
        where = root if private else printable(os.fsdecode(error.filename or root))
        problem = DatasetError(f"{where}: cannot be read ({reason(error)}).")
        raise problem from (None if private else error)

    if chosen not in INDEXED:  # nnU-Net's reader takes more of the table
        dataset = with_copies(dataset)
    dataset = _with_settings(dataset, settings)
    if not dataset.keys:
        reasons = [*(problem.reason for problem in dataset.problems()), *dataset.notes]
        lacking = "no image has a label" if need_labels else "no image"
        raise DatasetError(f"{root}: {lacking}; {reasons[0]}")
    return dataset


def _settings_of(chosen: str, settings: DatasetConfig) -> dict[str, DatasetConfig]:
    """The settings as a keyword of a reader that takes them.

    Raises:
        UsageError: some are set that it does not take.
    """
    for name, layouts in SETTLED.items():
        if chosen not in layouts and getattr(settings, name) != getattr(AS_FOUND, name):
            raise UsageError(
                f"dataset.{name}: for files of the layouts {', '.join(layouts)}, and this is "
                f"{chosen}; leave it out."
            )
    return {"settings": settings} if chosen in SETTLED["window"] else {}


def _with_settings(dataset: Dataset, settings: DatasetConfig) -> Dataset:
    """A dataset whose frames have the spacing, and are turned the way, that settings ask for."""
    keys, extra, said = dataset.keys, dict(dataset.provenance.extra), []
    listed = sum(key.spacing_mm is not None for key in keys)
    if settings.spacing_mm is not None:
        row, col = settings.spacing_mm
        keys = tuple(key if key.spacing_mm else replace(key, spacing_mm=(row, col)) for key in keys)
        said.append(f"spacing {row:g} x {col:g} mm as set")
    if listed:
        said.append(f"spacing of {counted(listed, 'frame')} by a table")
    if keys and all(key.spacing_mm is not None for key in keys):
        extra["spacing"] = "given"
    if settings.flip != "none":
        said.append(f"turned: flip = {settings.flip!r}")
    return replace(
        dataset,
        keys=keys,
        provenance=replace(dataset.provenance, extra=extra),
        flip=settings.flip,
        reading=settings.reading,
        said=tuple(said),
    )


def _with_sequences(chosen: str) -> Reader:
    if chosen not in IN_SEQUENCES:
        raise UsageError(
            f"--frames all: the layout {chosen} has no sequences, only "
            f"{' and '.join(IN_SEQUENCES)} have; leave it out."
        )
    return partial(READERS[chosen][1], sequences=True)


def open_chosen(path: Path | str, chosen: DatasetConfig, *, need_labels: bool = True) -> Dataset:
    """The labelled dataset at `path`, in the layout and with the frames and fans that settings say.

    Args:
        path: of its folder.
        chosen: its layout, and which frames.
        need_labels: False takes the frames of DICOM files without labels where none has one.

    Raises:
        DatasetError, UsageError: as `open_dataset` and `with_fans`.
    """
    opened = partial(
        open_dataset, path, chosen.format, chosen.labels, frames=chosen.frames, settings=chosen
    )
    try:
        dataset = opened()
    except DatasetError:
        if need_labels or not _is_bare_dicom(Path(path), chosen.format):
            raise
        dataset = opened(need_labels=False)
        dataset = replace(dataset, notes=(*dataset.notes, UNLABELLED_DICOM))
    if chosen.fans is None:
        return dataset
    from echogen.datasets.fan_table import with_fans  # brings scipy, which training can do without

    return with_fans(dataset, chosen.fans)


def _is_bare_dicom(root: Path, format: str) -> bool:
    """Whether a folder is one of DICOM files, of which none has a label."""
    if format not in ("auto", "dicom"):
        return False
    try:
        return root.is_dir() and _fitting(root) == ["dicom"] and not has_labels(root)
    except OSError:  # the one that opening it met
        return False


def open_frames(
    path: Path | str,
    chosen: DatasetConfig,
    tell: Callable[[str], None] = lambda _: None,
    *,
    need_labels: bool = True,
) -> tuple[Dataset, tuple[FrameKey, ...]]:
    """The labelled dataset at `path` and the frames of it that settings ask for.

    Args:
        path: of its folder.
        chosen: its layout, and which frames.
        tell: hears what was found, in one line.
        need_labels: as in `open_chosen`.

    Raises:
        DatasetError, UsageError: as `open_dataset` and `select`.
    """
    dataset = open_chosen(path, chosen, need_labels=need_labels)
    tell(dataset.describe())
    return dataset, select(dataset.keys, chosen)


def _fitting(root: Path) -> list[str]:
    return _named(root) or (["folder"] if is_paired_layout(root) else [])


def _named(root: Path, *, deep: bool = True) -> list[str]:
    """The layouts that a folder's own files and folders tell, without a look at all of them.

    Args:
        root: the folder.
        deep: whether DICOM files count, which may lie at any depth.
    """
    indexed = [name for name in INDEXED if READERS[name][0](root)]
    others = [name for name in READERS if deep or name != "dicom"]
    return indexed or [name for name in others if READERS[name][0](root)]


def _require_utf8(root: Path) -> None:
    """The libraries that read images take no other names."""
    try:
        str(root.absolute()).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{str(root)!a}: its name is not valid UTF-8; rename the folder."
        ) from error


def _require_folder(root: Path) -> None:
    if root.is_dir():
        with os.scandir(root):  # of one that may not be listed, this names itself
            return
    if root.exists():
        raise DatasetError(f"{root}: is a file, expected a folder; {_for_a_file(root)}")
    parent = next(above for above in root.absolute().parents if above.is_dir())
    missing = root.absolute().relative_to(parent).parts[0]
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    folded = {name.lower(): name for name in there}
    near = difflib.get_close_matches(missing.lower(), list(folded), n=1)
    meant = printable(str(parent / folded[near[0]])) if near else ""
    hint = f"did you mean {meant}?" if near else f"{parent} {_holds(parent)}."
    raise DatasetError(f"{root}: no such folder; {hint}")


def _for_a_file(root: Path) -> str:
    if root.suffix == ".h5":
        return TAKE_STORES
    if root.suffix.lower() in (".zip", ".tar", ".tgz"):
        return "unpack the archive and give the folder that comes out."
    near = next((above for above in root.absolute().parents[:3] if _named(above, deep=False)), None)
    return f"did you mean {near}?" if near else f"give the folder that contains {root.name}."


def _nothing_found(root: Path, format: str, fitting: list[str], need_labels: bool) -> str:
    if (root / "zarr.json").is_file():
        return f"{root}: is a Zarr store, expected the folder of a dataset; {TAKE_STORES}"
    wanted = {
        "camus": f"CASE_VIEW_PHASE.nii.gz, .nii or .mhd in case folders, here or in {LAYOUTS[0]}/ "
        f"or {LAYOUTS[1]}/",
        "folder": "images/X.png with labels/X.png, frames/ with masks/, X.png with X_mask.png, or "
        "images with JSON files of labelme or COCO",
        "nnunet": "dataset.json with imagesTr/X_0000.nii.gz and labelsTr/X.nii.gz",
        "echonet": "FileList.csv and VolumeTracings.csv with Videos/X.avi, here or in A4C/ and "
        "PSAX/",
        "cardiacuda": "Site_X/CASE-4_image.nii.gz with CASE-4_label.nii.gz",
        "dicom": "ultrasound X.dcm with X.png, X_gt.nii.gz or a DICOM SEG",
    }
    wanted |= {} if need_labels else {"images": f"images in any folder ({', '.join(IMAGE_IO)})"}
    looked = "; ".join(wanted[name] for name in wanted if format in ("auto", name))
    if fitting:
        hint = f"it is in the {fitting[0]} layout, use --format {fitting[0]}."
    else:
        near = _nearest(root)
        hint = f"did you mean {printable(str(near))}?" if near else f"the folder {_holds(root)}."
    return f"{root}: no dataset found; looked for {looked}; {hint}"


def _nearest(root: Path) -> Path | None:
    """A folder one or two levels below, or one above, that a reader fits."""
    below = [path for path in sorted(root.iterdir()) if path.is_dir()][:MAX_SUBFOLDERS]
    for path in below:
        if _fitting(path):
            return path
    if _named(root.absolute().parent, deep=False):
        return root.absolute().parent
    for path in below:
        deeper = [inner for inner in sorted(path.iterdir()) if inner.is_dir()][:MAX_SUBFOLDERS]
        for inner in deeper:
            if _fitting(inner):
                return inner
    return None


def _holds(folder: Path) -> str:
    entries = ((printable(entry.name), entry.is_dir()) for entry in folder.iterdir())
    names = sorted(f"{name}/" if is_folder else name for name, is_folder in entries)
    if not names:
        return "is empty"
    return f"holds {some(names, 5)}"
