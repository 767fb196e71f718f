"""Pictures in pairs: `images/X.png` with `labels/X.png`, labels stored as raw class ids.

This is the layout of EchoGAINS. PNG files carry no spacing, so lengths are in pixels, and
`describe` says so. Names such as `patient0001_4CH_ED` give case, view and phase.
"""

from collections.abc import Mapping
from pathlib import Path

from echogen.datasets.base import (
    Dataset,
    key_by_name,
    list_dataset,
    list_pairs,
    resolve_labels,
)
from echogen.datasets.pixels import read_frame, read_image
from echogen.errors import DatasetError
from echogen.support.words import counted

IMAGES, LABELS = "images", "labels"


def is_folder_layout(root: Path) -> bool:
    """Whether `root` has an `images/` folder with a PNG file in it."""
    return bool(_png_files(root / IMAGES))


def list_folder(
    root: Path, labels: Mapping[int, str] | None = None, *, need_labels: bool = True
) -> Dataset:
    """The pairs under `root`, by file name; without `need_labels`, the images alone.

    Raises:
        DatasetError: there is no PNG file in `images/`, or no folder `labels/` where one is needed.
        UsageError: `labels` declares an impossible class id.
    """
    declared = resolve_labels(labels)
    images = _png_files(root / IMAGES)
    if not images:
        raise DatasetError(f"{root}: expected PNG files in {root / IMAGES}, found none.")
    if need_labels and not (root / LABELS).is_dir():
        raise DatasetError(
            f"{root}: has {IMAGES}/ but no {LABELS}/; expected {LABELS}/X.png for {IMAGES}/X.png."
        )
    frames, unusable = list_pairs(
        root,
        images,
        _png_files(root / LABELS) if need_labels else None,
        (f"{IMAGES}/{{}}.png", f"{LABELS}/{{}}.png"),
        lambda stem, paths: key_by_name(stem, "", paths),
    )
    holds = f"{IMAGES}/ and {LABELS}/" if need_labels else f"{IMAGES}/"
    return list_dataset(
        root,
        "folder",
        f"folder layout ({holds}, PNG)",
        frames,
        read_frame if need_labels else read_image,
        labels=declared,
        unusable=unusable,
        remarks=_remarks(root),
        extra={"spacing": "unknown"},
    )


def _png_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".png" and not path.name.startswith(".")
    }


def _remarks(root: Path) -> tuple[str, ...]:
    other = sum(
        1
        for path in (root / IMAGES).iterdir()
        if path.suffix.lower() != ".png" and not path.name.startswith(".")
    )
    lines = ["PNG files carry no spacing: lengths and volumes are in pixels."]
    if other:
        lines.append(f"{IMAGES}/: {counted(other, 'other file')} not PNG; left out.")
    return tuple(lines)
