"""All checks of a store, in order: its tables, its pixels, what was painted, where it came from."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echogen.checks.finding import Finding, Severity, warning
from echogen.checks.samples import ShardCheck, check_shard
from echogen.checks.table import check_table
from echogen.checks.twins import TWIN, Fingerprint, find_twins
from echogen.errors import StoreError
from echogen.judging.judge import Judge
from echogen.measures.realism import MEASURES, norm_of, score
from echogen.measures.texture import Floats
from echogen.report import Reporter
from echogen.store import Status, StoreReader, units
from echogen.support.processes import in_workers

TEXTURE_AT_MOST = 1000
THOROUGH_AT_MOST = 20000
FAR = 6.0  # robust standard deviations
_LISTED = 50


@dataclass(frozen=True)
class Texture:
    """How the painted parts compare with real frames; logarithms of ratios, see `measures.realism`.

    Attributes:
        samples: copies that were measured.
        frames: how many measurements of real frames, in the same places, they are compared with.
        seam: median of the copies, 0 where no seam is visible.
        seam_real: of the real frames.
        grain: median of the copies.
        grain_real: of the real frames.
        far: samples more than 6 robust standard deviations from real frames.
    """

    samples: int
    frames: int
    seam: float | None
    seam_real: float | None
    grain: float | None
    grain_real: float | None
    far: int


@dataclass(frozen=True)
class StoreCheck:
    """What all checks of a store found.

    Attributes:
        findings: in the order of the checks.
        damaged: rows to be made again.
        texture: of the painted parts.
        megabytes: read and decompressed.
    """

    findings: tuple[Finding, ...]
    damaged: tuple[int, ...]
    texture: Texture
    megabytes: float


def check_store(
    store: StoreReader,
    workers: int,
    thorough: bool,
    reporter: Reporter,
    judge: Judge | None = None,
) -> StoreCheck:
    """Everything that can be checked without the dataset.

    Args:
        store: opened.
        workers: processes; 0 takes one a core.
        thorough: measure the texture of every sample, not of a random thousand.
        reporter: where progress goes.
        judge: for the store's labels; None looks for no unlabelled heart.

    Raises:
        StoreError: the store was removed meanwhile.
    """
    findings = check_table(store)
    if any(finding.check == "column" for finding in findings):
        return StoreCheck(tuple(findings), (), _texture([], [])[0], 0.0)
    generated = store.kind != "expanded"
    chosen = _chosen(store, THOROUGH_AT_MOST if thorough else TEXTURE_AT_MOST, generated)
    reporter.progress("checking", 0, len(store))
    shards: list[ShardCheck] = []
    done = 0
    shared = (store.path, chosen, generated, judge)
    for shard in in_workers(check_shard, list(units(store)), shared, workers):
        shards.append(shard)
        done += shard.rows
        reporter.progress("checking", done, len(store))
    damaged = sorted(row for shard in shards for row in shard.damaged)
    measured = [row for shard in shards for row in shard.measured]
    prints = [fingerprint for shard in shards for fingerprint in shard.prints]
    findings += [finding for shard in shards for finding in shard.findings]
    findings += _same_pixels(store)
    findings += _near_copies(store, measured, prints)
    texture, far = _texture([shard.copies for shard in shards], [shard.real for shard in shards])
    names = store.columns["sample_id"]
    findings += [warning("texture", str(names[measured[i]]), message) for i, message in far]
    megabytes = sum(shard.megabytes for shard in shards)
    return StoreCheck(tuple(findings), tuple(damaged), texture, megabytes)


def _chosen(store: StoreReader, most: int, generated: bool) -> frozenset[int]:
    """Rows whose texture is measured: copies that are done, at random but always the same ones."""
    try:
        done = store.columns["status"] == Status.DONE
    except StoreError:
        return frozenset()
    rows = np.flatnonzero(done & ((store.columns["copy"] > 0) | generated)).tolist()
    return frozenset(rows if len(rows) <= most else random.Random(0).sample(rows, most))


def _same_pixels(store: StoreReader) -> list[Finding]:
    """Samples with the same SHA-256: image and mask are one, as in a sequence that stands still."""
    try:
        digests = store.columns["sha256"]
    except StoreError:
        return []
    names, seen, found = store.columns["sample_id"], dict[str, int](), []
    copies, seeds = store.columns["copy"], store.columns["seed"]
    for row, digest in enumerate(digests.tolist()):
        first = seen.setdefault(digest, row)
        if digest and first != row:
            expected = copies[row] == 0 or seeds[row] == seeds[first]
            severity = Severity.NOTE if expected else Severity.WARNING
            message = f"has exactly the pixels and labels of {names[first]}."
            found.append(Finding(severity, "same-pixels", str(names[row]), message))
    return found


def _near_copies(
    store: StoreReader, rows: Sequence[int], prints: Sequence[Fingerprint]
) -> list[Finding]:
    """Pairs painted alike from different noise; frames of one sequence share it on purpose."""
    names, seeds = store.columns["sample_id"], store.columns["seed"]
    pairs = (one for one in find_twins(prints) if seeds[rows[one.first]] != seeds[rows[one.second]])
    twins = sorted(pairs, key=lambda pair: -pair.correlation)
    found = [
        warning(
            "near-copies",
            str(names[rows[pair.first]]),
            f"what is painted in it is nearly that of {names[rows[pair.second]]} (correlation "
            f"{pair.correlation:.2f}): the model may have collapsed.",
        )
        for pair in twins[:_LISTED]
    ]
    if len(twins) > _LISTED:
        message = f"{len(twins)} pairs of samples are nearly one (correlation {TWIN} or more)."
        found.append(warning("near-copies", "", message))
    return found


def _texture(
    copies: Sequence[Floats], real: Sequence[Floats]
) -> tuple[Texture, list[tuple[int, str]]]:
    """The summary, and (place, message) of what is far from real frames, the worst first."""
    empty = np.zeros((0, len(MEASURES)))
    painted, frames = np.concatenate([empty, *copies]), np.concatenate([empty, *real])
    norm = norm_of(frames, painted)
    deviation = norm.deviation(painted)
    scores = score(deviation)
    far = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > FAR]
    middles = [_median(values, k) for values in (painted, frames) for k in (0, 1)]
    summary = Texture(
        int(np.isfinite(painted).all(axis=1).sum()), norm.frames,
        middles[0], middles[2], middles[1], middles[3], len(far),
    )  # fmt: skip
    return summary, [(i, _words(deviation[i], float(scores[i]))) for i in far]


def _words(deviation: Floats, worst: float) -> str:
    which = int(np.nanargmax(np.abs(deviation)))
    more = deviation[which] > 0
    words = {
        "seam": "a harder border than tissue has" if more else "a softer border than tissue has",
        "grain": "coarser or stronger grain" if more else "smoother",
        "brightness": "brighter" if more else "darker",
    }[MEASURES[which]]
    return (
        f"the painted part against the real one beside it: {words}, {worst:.1f} SD from real "
        "frames; echogen preview --worst shows it."
    )


def _median(values: Floats, k: int) -> float | None:
    known = values[:, k][np.isfinite(values[:, k])]
    return round(float(np.median(known)), 4) if len(known) else None
