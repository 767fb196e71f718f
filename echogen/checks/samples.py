"""The pixels of a store, a shard at a time: digests, labels, the fan, and what the rest is made of.

Runs in worker processes; what comes back is small, so that memory does not grow with the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.checks.finding import Finding, error, warning
from echogen.checks.twins import Fingerprint, fingerprint
from echogen.errors import StoreError
from echogen.judging.judge import Judge
from echogen.measures.realism import MEASURES, log_ratios_of
from echogen.measures.texture import Floats
from echogen.store import Status, StoreReader, checked_rows, shared_store
from echogen.types import BACKGROUND, IGNORE

RIM = 1  # pixels in which the fan's edge may be rounded otherwise
LEAST_OF_A_LABEL = 0.5
SLACK = 0.05  # of a share, between the plan's points and pixels on the model's grid
ON_PAINT_SLACK = 1e-4


@dataclass(frozen=True)
class ShardCheck:
    """What was found in some rows.

    Attributes:
        rows: how many were looked at.
        megabytes: read and decompressed.
        findings: of them.
        damaged: {row: reason}.
        measured: rows whose texture was measured.
        copies, real: (k, 3) of those, see `realism.log_ratios_of`.
        prints: of the same rows, to look for near copies.
    """

    rows: int
    megabytes: float
    findings: tuple[Finding, ...]
    damaged: dict[int, str]
    measured: tuple[int, ...]
    copies: Floats
    real: Floats
    prints: tuple[Fingerprint, ...]


def check_shard(
    shard: tuple[int, int],
    path: Path,
    texture: frozenset[int],
    generated: bool,
    judge: Judge | None = None,
) -> ShardCheck:
    """Checks the rows [start, stop) of the store at `path`.

    Args:
        shard: (start, stop).
        path: of the store.
        texture: rows whose texture is measured, too.
        generated: whether the store is of generated images, which have no labels.
        judge: for its labels; None looks for no unlabelled heart.
    """
    store = shared_store(path)
    start, stop = shard
    damaged, whole = checked_rows(store, start, stop)
    findings = [error("damage", _name(store, row), reason)
                for row, reason in damaged.items()]  # fmt: skip
    try:
        status = store.columns.part("status", start, stop)
    except StoreError:
        status = np.full(stop - start, Status.PENDING, np.uint8)
    done = [
        row
        for row in range(start, stop)
        if status[row - start] == Status.DONE and row not in damaged
    ]
    pixels = {row: {name: whole[name][row - start] for name in whole} for row in done}
    for row in range(start, stop):
        if row not in damaged and status[row - start] in (Status.REJECTED, Status.FAILED):
            findings += _empty(store, row)
    chosen = [row for row in done if row in texture]
    prints = []
    for row in done:
        fan = store.fan(row)
        if not generated:
            findings += check_sample(store, row, pixels[row], fan)
            findings += _judged(store, row, pixels[row], judge)
        if row in texture:
            hidden = fan if generated else fan & ~pixels[row]["keep"]
            prints.append(fingerprint(pixels[row]["images"], hidden))
    copies = real = np.zeros((0, len(MEASURES)))
    if chosen and not generated:
        copies, real = log_ratios_of(store, chosen, pixels)
    arrays = [store.pixels(name) for name in store.layout.pixels]
    size = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays)
    return ShardCheck(
        stop - start, (stop - start) * size / 1e6, tuple(findings), damaged, tuple(chosen),
        copies, real, tuple(prints),
    )  # fmt: skip


def check_sample(
    store: StoreReader,
    row: int,
    pixels: dict[str, npt.NDArray[Any]],
    fan: npt.NDArray[np.bool_],
) -> list[Finding]:
    """One labelled sample: what its pixels and its columns promise each other."""
    name = _name(store, row)
    return [
        *_label_ids(store, name, pixels["masks"]),
        *_painting(store, row, pixels, fan),
        *_labels(store, row, pixels, fan),
    ]


def _judged(
    store: StoreReader, row: int, pixels: dict[str, npt.NDArray[Any]], judge: Judge | None
) -> Iterator[Finding]:
    if judge is None or store.columns["copy"][row] == 0:
        return
    case, cut = (store.columns[name][row] for name in ("case_id", "cut_ids"))
    if "cut_ids" in store.absent:
        cut = " ".join(str(k) for k in range(8) if int(store.columns["cut"][row]) >> k & 1)
    ids = [int(one) for one in str(cut).split()]
    why = judge.look(pixels["images"], pixels["masks"], pixels["keep"], str(case), ids).why_not
    if why:
        message = f"{why}. Look at it, and leave it out of training if it is one."
        yield warning("unlabelled-heart", _name(store, row), message)


def _label_ids(store: StoreReader, name: str, mask: npt.NDArray[np.uint8]) -> Iterator[Finding]:
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    allowed = {*store.record.labels, BACKGROUND}
    if store.record.config.transforms.labels_on_paint == "ignore":
        allowed.add(IGNORE)
    if unknown := sorted(set(present) - allowed):
        message = f"holds the class ids {unknown}; the store's are {sorted(allowed)}."
        yield error("label-ids", name, message)


def _painting(
    store: StoreReader, row: int, pixels: dict[str, npt.NDArray[Any]], fan: npt.NDArray[np.bool_]
) -> Iterator[Finding]:
    name, painted, image = _name(store, row), ~pixels["keep"], pixels["images"]
    if store.columns["copy"][row] == 0:
        if painted.any():
            message = f"an original, yet {painted.sum()} of its pixels are marked as painted."
            yield error("keep", name, message)
        return
    if not painted.any():
        yield warning("keep", name, "no pixel of it is painted.")
    if store.record.config.transforms.outside != "background" or not fan.any():
        return
    outside = ~ndimage.binary_dilation(fan, np.ones((3, 3), np.bool_), RIM)
    if count := int((painted & outside).sum()):
        yield error("outside", name, f"{count} pixels outside of the fan are painted.")
    if count := int((image[outside] > 0).sum()):
        yield error("outside", name, f"{count} pixels outside of the fan are not black.")


def _labels(
    store: StoreReader, row: int, pixels: dict[str, npt.NDArray[Any]], fan: npt.NDArray[np.bool_]
) -> Iterator[Finding]:
    name, mask = _name(store, row), pixels["masks"]
    labelled = (mask != BACKGROUND) & (mask != IGNORE)
    count = int(labelled.sum())
    if not count:
        yield warning("labels", name, "holds no labelled pixel.")
        return
    on_paint = float((labelled & ~pixels["keep"]).sum()) / count
    recorded = float(store.columns["label_on_paint"][row])
    if not abs(on_paint - recorded) <= ON_PAINT_SLACK:
        yield error(
            "label-on-paint",
            name,
            f"{on_paint:.4f} of its labelled pixels lie on paint, recorded are {recorded:.4f}.",
        )
    transforms = store.record.config.transforms
    if store.columns["copy"][row] == 0 or transforms.outside != "background" or not fan.any():
        return
    share = float((labelled & fan).sum()) / count
    planned = transforms.min_label_inside
    least = LEAST_OF_A_LABEL if planned is None else planned
    if share < least - SLACK:
        yield error(
            "labels-inside",
            name,
            f"{share:.0%} of its labelled pixels lie in the fan; the plan asks for {least:.0%}.",
        )
    for label in np.unique(mask[labelled]).tolist():
        inside = float((fan & (mask == label)).sum()) / int((mask == label).sum())
        if inside < LEAST_OF_A_LABEL:
            title = store.record.labels.get(label, f"class {label}")
            yield warning("labels-inside", name, f"{inside:.0%} of {title} lies in the fan.")


def _empty(store: StoreReader, row: int) -> list[Finding]:
    if any(store.pixels(name)[row].any() for name in store.layout.pixels):
        message = "was rejected or failed, yet it has pixels."
        return [error("status", _name(store, row), message)]
    return []


def _name(store: StoreReader, row: int) -> str:
    return str(store.columns["sample_id"][row])
