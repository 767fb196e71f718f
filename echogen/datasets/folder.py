"""Pictures in pairs: `images/X.png` with `labels/X.png`, labels stored as raw class ids.

This is the layout of EchoGAINS. PNG files carry no spacing, so lengths are in pixels, and
`describe` says so. Names such as `patient0001_4CH_ED` give case, view and phase.
"""

from collections.abc import Mapping
from pathlib import Path

from echogen.datasets.base import FRAME_NAME, Listing, resolve_labels
from echogen.datasets.pixels import read_frame, read_image
from echogen.errors import DatasetError
from echogen.support.words import counted
from echogen.types import Case, FrameKey, Provenance

IMAGES, LABELS = "images", "labels"


def is_folder_layout(root: Path) -> bool:
    """Whether `root` has an `images/` folder with a PNG file in it."""
    return bool(_png_files(root / IMAGES))


def list_folder(
    root: Path, labels: Mapping[int, str] | None = None, *, need_labels: bool = True
) -> Listing:
    """The pairs under `root`, by file name; without `need_labels`, the images alone.

    Raises:
        DatasetError: there is no PNG file in `images/`, or no folder `labels/` where one is needed.
        UsageError: `labels` declares an impossible class id.
    """
    declared = resolve_labels(labels)
    images = _png_files(root / IMAGES)
    if not images:
        raise DatasetError(f"{root}: expected PNG files in {root / IMAGES}, found none.")
    frames, unusable = _pairs(root, images) if need_labels else (_alone(images), ())
    holds = f"{IMAGES}/ and {LABELS}/" if need_labels else f"{IMAGES}/"
    return Listing(
        root=root,
        provenance=Provenance(
            format="folder",
            root_name=root.resolve().name,
            licence="",
            labels=declared,
            extra={"spacing": "unknown"},
        ),
        title=f"folder layout ({holds}, PNG)",
        frames=frames,
        known_cases=tuple(Case(case_id, {}) for case_id in sorted({k.case_id for k in frames})),
        unusable=unusable,
        remarks=_remarks(root),
        read_frame=read_frame if need_labels else read_image,
    )


def _alone(images: Mapping[str, Path]) -> tuple[FrameKey, ...]:
    return tuple(_key(stem, images[stem]) for stem in sorted(images))


def _pairs(
    root: Path, images: Mapping[str, Path]
) -> tuple[tuple[FrameKey, ...], tuple[tuple[FrameKey, str], ...]]:
    """The frames, and what lacks its partner."""
    if not (root / LABELS).is_dir():
        raise DatasetError(
            f"{root}: has {IMAGES}/ but no {LABELS}/; expected {LABELS}/X.png for {IMAGES}/X.png."
        )
    targets = _png_files(root / LABELS)
    frames = tuple(
        _key(stem, images[stem], targets[stem]) for stem in sorted(images.keys() & targets.keys())
    )
    unusable = [
        (
            _key(stem, images[stem]),
            f"{IMAGES}/{images[stem].name}: no label, expected {LABELS}/{stem}.png.",
        )
        for stem in images.keys() - targets.keys()
    ]
    unusable += [
        (
            _key(stem, targets[stem]),
            f"{LABELS}/{targets[stem].name}: no image, expected {IMAGES}/{stem}.png.",
        )
        for stem in targets.keys() - images.keys()
    ]
    return frames, tuple(sorted(unusable, key=lambda pair: pair[0].frame_id))


def _png_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".png" and not path.name.startswith(".")
    }


def _key(stem: str, *paths: Path) -> FrameKey:
    named = FRAME_NAME.fullmatch(stem)
    if named is None or named["label"]:
        return FrameKey(stem, stem, "", "", "", paths)
    return FrameKey(stem, named["case"], named["view"], named["phase"], "", paths)


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
