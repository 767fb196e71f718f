"""Any folder of images, for training: pictures, NIfTI or MetaImage, subfolders to any depth.

A frame's case decides what is held out together. It is the part of the file's name before
`_VIEW_PHASE`, as in `patient0001_4CH_ED.png`, where the name has that form; else the topmost
subfolder that the file lies in, one folder a patient; else the file's own name. Folders such as
`train/` or `val/` are splits, `images/` says nothing, and `labels/` or `masks/` are left out.
"""

from collections.abc import Mapping
from pathlib import Path

from echogen.config import DatasetConfig
from echogen.datasets.base import AS_FOUND, FRAME_NAME, Dataset, list_dataset, resolve_labels
from echogen.datasets.caselist import read_cases, with_cases
from echogen.datasets.integrity import IMAGE_IO, formats_of, is_bitmap, suffix_of, with_data_files
from echogen.datasets.pairing import IMAGE_FOLDERS, LABEL_FOLDERS, SPLIT_FOLDERS, walk_files
from echogen.datasets.pixels import as_set, read_image
from echogen.errors import DatasetError, UsageError
from echogen.support.words import counted
from echogen.types import FrameKey


def is_images_layout(root: Path) -> bool:
    """Whether an image that can be read lies anywhere under `root`."""
    return any(suffix_of(path.name) for path in walk_files(root))


def list_images(
    root: Path,
    labels: Mapping[int, str] | None = None,
    *,
    need_labels: bool = False,
    settings: DatasetConfig = AS_FOUND,
) -> Dataset:
    """Every image under `root`; a frame's id is its path without the suffix.

    Raises:
        UsageError: labels are needed, and this layout has none; or `labels` declares an impossible
            class id.
        DatasetError: there is no image.
    """
    if need_labels:
        raise UsageError("--format images: this layout has no labels, so it is for training only.")
    frames: dict[str, FrameKey] = {}
    repeated = label_maps = 0
    for path in walk_files(root):
        suffix = suffix_of(path.name)
        if not suffix:
            continue
        inside = path.relative_to(root)
        stem = path.name[: -len(suffix)]
        named = FRAME_NAME.fullmatch(stem)
        if (named and named["label"]) or _lowered(inside.parts[:-1]) & LABEL_FOLDERS:
            label_maps += 1
            continue
        frame_id = inside.with_name(stem).as_posix()
        if frame_id in frames:
            repeated += 1
            continue
        frames[frame_id] = _key(frame_id, stem, inside.parts[:-1], with_data_files(path))
    if not frames:
        raise DatasetError(f"{root}: expected images ({', '.join(IMAGE_IO)}), found none.")
    keys, remarks = with_cases(root, frames.values(), read_cases(root))
    if label_maps:
        remarks.append(f"{counted(label_maps, 'label map')} beside the images left out.")
    if repeated:
        remarks.append(f"{counted(repeated, 'image')} found in two formats; the first is used.")
    formats = formats_of(key.paths[0].name for key in frames.values())
    spaced = not all(is_bitmap(key.paths[0].name) for key in keys)
    return list_dataset(
        root,
        "images",
        f"images ({' and '.join(formats)})",
        keys,
        as_set(read_image, settings),
        labels=resolve_labels(labels),
        remarks=remarks,
        extra={"spacing": "known" if spaced else "unknown", "files": list(formats)},
    )


def _key(frame_id: str, stem: str, folders: tuple[str, ...], paths: tuple[Path, ...]) -> FrameKey:
    splits = [name for name in folders if name.lower() in SPLIT_FOLDERS]
    telling = [name for name in folders if name.lower() not in SPLIT_FOLDERS | IMAGE_FOLDERS]
    split = splits[0] if splits else ""
    named = FRAME_NAME.fullmatch(stem)
    if named is not None:
        return FrameKey(frame_id, named["case"], named["view"], named["phase"], split, paths)
    return FrameKey(frame_id, telling[0] if telling else stem, "", "", split, paths)


def _lowered(names: tuple[str, ...]) -> set[str]:
    return {name.lower() for name in names}
