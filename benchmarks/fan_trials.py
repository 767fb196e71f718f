"""What the benchmark of the fan tries: clean, damaged, foreign and fanless pictures.

Nothing is read before it is tried: a trial is a function without arguments, which another process
can call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
from damage import DAMAGES, Scan, as_clip, combined, drawn_names
from measures.fans import foreground_iou
from negatives import NEGATIVES
from PIL import Image

from echogen.geometry.recording import fit_recording
from echogen.geometry.sector import Sector
from echogen.types import Frame, FrameKey

Grey = npt.NDArray[np.uint8]
Spacing = tuple[float, float]

CLEAN = {
    "clean.camus_4ch_native": ("camus/database_nifti/*/*_4CH_E[DS].nii.gz", 0.999),
    "clean.camus_2ch_stretched": ("camus/database_nifti/*/*_2CH_E[DS].nii.gz", 0.98),
    "clean.camus_mhd": ("camus_mhd/training/*/*_E[DS].mhd", 0.998),
    "clean.e95_video": ("e95/*.mp4", 0.99),
}
SINGLE, COMBINED, DRAWN = 150, 450, 40
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
CLIPS = (".avi", ".mp4", ".mkv", ".webm", ".gif", ".mov")
CLIP_FRAMES = 200


@dataclass(frozen=True)
class Trial:
    """What is fitted at once.

    Attributes:
        name: of it.
        images: frames that are to share a fan.
        spacing: (row, col).
        clip: the recording's frames.
        truth: the true fan, where it is known; the whole clip's for a clip's frames.
    """

    name: str
    images: tuple[Grey, ...]
    spacing: Spacing
    clip: Grey | None = None
    truth: Sector | None = None


Load = Callable[[], Trial | None]


def fit(
    images: Sequence[Grey], spacing: Spacing, clip: Grey | None = None
) -> tuple[Sector | None, float, str]:
    """The fan of the first frame, where all have one; how sure; why there is none."""
    frames = [
        Frame(FrameKey(f"f{i}", "c", "", "", "", ()), image, np.zeros_like(image), spacing)
        for i, image in enumerate(images)
    ]
    found = list(fit_recording(frames, clip))
    refused = [one for one in found if one.sector is None]
    sure = min(float(getattr(one, "confidence", getattr(one, "agreement", 0.0))) for one in found)
    return (None, sure, refused[0].reason) if refused else (found[0].sector, sure, "")


@lru_cache(maxsize=4)
def read_medical(path: Path) -> tuple[Grey, Spacing]:
    import SimpleITK as sitk

    read = sitk.ReadImage(str(path))
    col, row = read.GetSpacing()[:2]
    return np.squeeze(sitk.GetArrayFromImage(read)).astype(np.uint8), (row, col)


@lru_cache(maxsize=2)
def read_clip(path: Path) -> Grey:
    """(N, H, W): at most the first 200 frames."""
    import av

    with av.open(str(path)) as file:
        frames = []
        for frame in file.decode(video=0):
            frames.append(frame.to_ndarray(format="gray"))
            if len(frames) == CLIP_FRAMES:
                break
    return np.stack(frames)


def read_picture(path: Path) -> Grey:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB").convert("L"))


def pair(clip: Grey) -> tuple[Grey, Grey]:
    """The first frame, and the one that differs most from it; frames that went black left out."""
    levels = clip.mean(axis=(1, 2))
    seen = clip[levels >= 0.5 * np.median(levels)]
    away = [float(np.abs(frame.astype(np.int16) - seen[0]).mean()) for frame in seen]
    return seen[0], seen[int(np.argmax(away))]


def load_clean(path: Path, number: int | None = None) -> Trial:
    if number is not None:
        return Trial(f"{path.name}#{number}", (read_clip(path)[number],), (1.0, 1.0))
    image, spacing = read_medical(path)
    return Trial(path.name, (image,), spacing)


@lru_cache(maxsize=SINGLE)
def true_scan(path: Path) -> Scan | None:
    """The undamaged frame and its fan; None where that does not cover it to 0.998."""
    image, spacing = read_medical(path)
    sector, _, _ = fit([image], spacing)
    if sector is None or foreground_iou(sector, image, spacing) < 0.998:
        return None
    return Scan(image[None], spacing, sector)


def load_damaged(kind: str, path: Path, number: int) -> Trial | None:
    scan = true_scan(path)
    if scan is None:
        return None
    rng = np.random.default_rng([crc32(kind.encode()), number])
    names = drawn_names(rng) if kind in ("combined", "clip") else [kind]
    if kind == "clip":
        other, _ = read_medical(Path(str(path).replace("_ED", "_ES")))
        if other.shape != scan.shape:
            return None
        scan = replace(scan, frames=as_clip(scan.frames[0], other, 16, rng))
    worse = combined(scan, rng, names)
    name = f"{path.name.split('.')[0]} {'+'.join(names)}"
    images = pair(worse.frames) if kind == "clip" else (worse.frames[0],)
    clip = worse.frames if kind == "clip" else None
    return Trial(name, images, worse.spacing, clip, worse.sector)


def load_external(path: Path, root: Path, how: str) -> Trial | None:
    name = str(path.relative_to(root))
    if path.suffix.lower() in PICTURES:
        return Trial(name, (read_picture(path),), (1.0, 1.0))
    clip = read_clip(path)
    images = pair(clip)
    if how == "whole":
        return Trial(name, images, (1.0, 1.0), clip)
    chosen = images if how == "joined" else (images[how == "other"],)
    return Trial(f"{name} {how}", chosen, (1.0, 1.0), None, whole_fan(path))


@lru_cache(maxsize=256)
def whole_fan(path: Path) -> Sector | None:
    """The fan of two frames of a clip, found with all of it."""
    clip = read_clip(path)
    return fit(pair(clip), (1.0, 1.0), clip)[0]


def load_negative(kind: str, number: int) -> Trial:
    rng = np.random.default_rng([crc32(kind.encode()), number])
    return Trial(f"{kind} {number}", (NEGATIVES[kind](rng),), (1.0, 1.0))


def load_turned(path: Path, quarters: int) -> Trial:
    image, spacing = read_medical(path)
    turned = np.ascontiguousarray(np.rot90(image, quarters))
    return Trial(
        f"{path.name} turned {90 * quarters}", (turned,), spacing[:: 1 if quarters == 2 else -1]
    )


def groups(
    data: Path, external: Sequence[tuple[str, Path]], negative: Path | None, every: int
) -> dict[str, list[Load]]:
    """Every nth of all that is tried, by group; groups without a file are left out."""
    made: dict[str, list[Load]] = {}
    for name, (pattern, _) in CLEAN.items():
        paths = sorted(data.glob(pattern))
        if pattern.endswith(".mp4"):
            made[name] = [
                partial(load_clean, p, i) for p in paths for i in range(len(read_clip(p)))
            ]
        else:
            made[name] = [partial(load_clean, path) for path in paths]
    native = sorted(data.glob(CLEAN["clean.camus_4ch_native"][0]))
    chosen = spread([path for path in native if "_ED" in path.name], SINGLE, 0)
    for kind in (*DAMAGES, "combined", "clip"):
        paths = chosen * (COMBINED // SINGLE) if kind == "combined" else chosen
        made[f"damage.{kind}"] = [partial(load_damaged, kind, p, i) for i, p in enumerate(paths)]
    for name, folder in external:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        pictures = [path for path in files if path.suffix.lower() in PICTURES]
        clips = [path for path in files if path.suffix.lower() in CLIPS]
        alone = [(path, "alone") for path in pictures]
        alone += [(path, how) for path in clips for how in ("first", "other")]
        tries = {"frames": alone, **{h: [(p, h) for p in clips] for h in ("joined", "whole")}}
        for how, items in tries.items():
            if items:
                made[f"external.{name}.{how}"] = [
                    partial(load_external, p, folder, h) for p, h in items
                ]
    for kind in NEGATIVES:
        made[f"negative.{kind}"] = [partial(load_negative, kind, i) for i in range(DRAWN)]
    for name, quarters in (("upside_down", 2), ("quarter_turn", 1)):
        chosen = spread(native, DRAWN, quarters)
        made[f"negative.{name}"] = [partial(load_turned, path, quarters) for path in chosen]
    if negative:
        files = sorted(p for p in negative.rglob("*") if p.suffix.lower() in PICTURES)
        made["negative.files"] = [partial(load_external, p, negative, "alone") for p in files]
    return {name: loads[::every] for name, loads in made.items() if loads}


def spread(paths: Sequence[Path], count: int, shift: int) -> list[Path]:
    """`count` of the paths, evenly, from a place of their own."""
    if not paths:
        return []
    step = max(1.0, len(paths) / count)
    return [paths[int(shift + i * step) % len(paths)] for i in range(count)]
