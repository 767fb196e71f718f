"""Find the fan in an ultrasound image: two edge lines, two arcs, one apex.

A small network tells whether the picture as a whole shows a fan, and roughly where
(`geometry.network`). What is not near it, and what was drawn around the fan, is taken away
(`geometry.foreground`). On a reduced image more fans are proposed (`geometry.consensus`) and judged
(`geometry.judge`); the network's and the best of these are refined on the outline at full
resolution (`geometry.refine`) and judged again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import DatasetError
from echogen.geometry import foreground
from echogen.geometry.consensus import candidates, outline, with_arc
from echogen.geometry.judge import Echoes, Evidence, confidence, judged
from echogen.geometry.network import Opinion, opinion
from echogen.geometry.refine import Picture, grown, refined, stretch
from echogen.geometry.sector import Sector

UInt8 = npt.NDArray[np.uint8]
BoolHW = npt.NDArray[np.bool_]
Spacing = tuple[float, float]

MIN_AREA = 0.02
"""A fan covers at least this share of the image."""
MIN_CONFIDENCE = 0.4
"""A fan that is less sure than this is no fan."""
MOST_OUTSIDE, MOST_CROSSED = 0.05, 0.25
"""A recording's fan is not that of an image which has more than this outside or across it."""
LEAST_SHARED = 0.7
"""A given fan and that which the picture as a whole shows share at least this of their pixels."""
_REDUCED = 176
"""Pixels along the longer side of the image that fans are proposed on, at least, or all it has."""
_ARCS, _TRIED = 24, 3
_PLAIN = 0.9
_WORSE = 0.3
"""A refinement at full size that scores so much less has gone astray."""
_LIKELY, _MISFIT = 0.4, 0.12
"""The least likelihood and the largest misfit of the network's opinion on a picture with a fan."""
_ROOM = 0.12
"""What lies further outside of the network's fan, as a share of its depth, is not looked at."""
_CLEAR = 0.05
"""What lies further outside of the network's fan, as a share of its depth, is background."""
_TRUST, _ASTRAY = 0.3, 6.0
"""Another fan than the network's is taken if its score is higher by the first of these, plus the
second times the distance between the two as a share of the depth (chosen as decision 013 says)."""


@dataclass(frozen=True)
class FanFit:
    """A fan, and how sure it is.

    Attributes:
        sector: in mm.
        confidence: 0 to 1.
        outside: share of the foreground that lies outside of it, 0 to 1.
        stretch: by how much larger the row spacing would have to be for the far arc to be round; 1
            where it is round or too little of it is seen to tell.
    """

    sector: Sector
    confidence: float
    outside: float
    stretch: float = 1.0


@dataclass(frozen=True)
class _Search:
    """An image as it is searched: at full size, and on the grid that fans are proposed on."""

    picture: Picture
    small: Picture
    echoes: Echoes
    masks: list[BoolHW]


def find_fan(images: Sequence[UInt8], spacing_mm: Spacing) -> FanFit:
    """The fan of one image, or of several images of the same recording, and how sure it is.

    Args:
        images: one or more (H, W) uint8 images of equal shape, apex up. Of eight or more, only
            what moves is taken.
        spacing_mm: (row, col) mm per pixel.

    Returns:
        The fan in mm. Where the image's border cuts it off, the missing part continues the lines
        and arcs that are seen.

    Raises:
        DatasetError: no image, shapes that differ, an empty image, or no fan in it. The message
            names no file: the caller knows it.
    """
    joined = foreground.joined(images)
    if not (spacing_mm[0] > 0 and spacing_mm[1] > 0):
        raise DatasetError(f"spacing must be positive (row, col) mm, found {spacing_mm}")
    seen = opinion(joined, spacing_mm)
    if seen.fan is None or not _shows_fan(seen):
        raise DatasetError(
            "expected a fan, apex up; the picture as a whole shows one with a likelihood of "
            f"{seen.likelihood:.0%} (over {_LIKELY:.0%} is needed), its outline {seen.misfit:.2f} "
            f"off a fan's (under {_MISFIT} is needed)"
        )
    search = _search(joined, spacing_mm, seen.fan)
    sector, found = _best(search, seen.fan)
    sure = confidence(_scaled(sector, 1 / search.picture.unit), found, search.echoes)
    if sure < MIN_CONFIDENCE:
        raise DatasetError(_refusal(found))
    return FanFit(sector, sure, found.outside, stretch(sector, search.picture))


def _shows_fan(seen: Opinion) -> bool:
    return seen.likelihood > _LIKELY and seen.misfit < _MISFIT


def _best(search: _Search, rough: Sector) -> tuple[Sector, Evidence]:
    """The best fan, mm, and the evidence for it; `rough` is the network's."""
    unit = search.picture.unit
    fans = [refined(rough, search.small)]
    evidence = [_evidence(fans[0], search)]
    if not _is_plain(evidence[0]):
        fans += [refined(_scaled(fan, unit), search.small) for fan in _proposed(search)]
        evidence = judged([_scaled(fan, 1 / unit) for fan in fans], search.echoes)
    scores = np.array(
        [
            one.score - _ASTRAY * _apart(fan, fans[0])
            for fan, one in zip(fans, evidence, strict=True)
        ]
    )
    scores[0] += _TRUST
    best = int(np.argmax(scores))
    fine = refined(fans[best], search.picture)
    found = _evidence(fine, search)
    if found.score > evidence[best].score - _WORSE:
        return fine, found
    return fans[best], evidence[best]


def _is_plain(found: Evidence) -> bool:
    """Whether a fan is seen so well all around that no other has to be tried."""
    return (
        min(found.left, found.right) > _PLAIN
        and found.missed < 1 - _PLAIN
        and found.crossed < 0.2 * (1 - _PLAIN)
    )


def fits(sector: Sector, image: UInt8, spacing_mm: Spacing) -> bool:
    """Whether a fan found in a recording is one of this image of it, however little it shows.

    Args:
        sector: mm.
        image: (H, W) uint8.
        spacing_mm: (row, col) mm per pixel.
    """
    try:
        search = _search(image, spacing_mm, sector)
    except DatasetError:
        return False
    return not _is_cut(_evidence(sector, search))


def objection(sector: Sector, image: UInt8, spacing_mm: Spacing) -> str:
    """What an image shows that speaks against a fan that was given for it; empty if nothing does,
    or if the image does not show by itself where its echoes are.

    Args:
        sector: mm.
        image: (H, W) uint8.
        spacing_mm: (row, col) mm per pixel.
    """
    seen = opinion(image, spacing_mm)
    if seen.fan is None or not _shows_fan(seen):
        return ""
    try:
        search = _search(image, spacing_mm, seen.fan)
    except DatasetError:
        return ""
    found = _evidence(sector, search)
    if _is_cut(found):
        return (
            f"the picture goes on beyond it: {found.outside:.0%} of its echoes lie outside, and "
            f"they cross {found.crossed:.0%} of its outline"
        )
    given, shown = (fan.mask(image.shape, spacing_mm) for fan in (sector, seen.fan))
    if (given & shown).sum() < LEAST_SHARED * (given | shown).sum():
        return (
            f"it covers {given.mean():.0%} of the picture, of which {shown.mean():.0%} looks like "
            "a fan"
        )
    return ""


def _evidence(fan: Sector, search: _Search) -> Evidence:
    """For a fan, mm."""
    return judged([_scaled(fan, 1 / search.picture.unit)], search.echoes)[0]


def _is_cut(found: Evidence) -> bool:
    return found.outside >= MOST_OUTSIDE or found.crossed >= MOST_CROSSED


def is_upside_down(image: UInt8, spacing_mm: Spacing) -> bool:
    """Whether a fan is surely seen when the image is flipped, its last row first."""
    return _shows_fan(opinion(np.ascontiguousarray(image[::-1]), spacing_mm))


def _proposed(search: _Search) -> list[Sector]:
    """The best few fans before refinement, in reduced pixels."""
    lines = outline(search.masks, search.echoes.size)
    shape, size = search.echoes.image.shape, search.echoes.size
    fans = candidates(lines, (shape[0] * size[0], shape[1] * size[1]))
    edges = _best_first(fans, judged(fans, search.echoes))[:_ARCS]
    fans = [with_arc(fan, lines) for fan in edges]
    return _distinct(_best_first(fans, judged(fans, search.echoes)), _TRIED)


def _refusal(found: Evidence) -> str:
    return (
        "expected a fan, apex up; of the best fan's left edge, right edge and arc, foreground ends "
        f"at {found.left:.0%}, {found.right:.0%} and {found.arc:.0%}, and {found.outside:.0%} of "
        "the foreground lies outside of it"
    )


def _search(joined: UInt8, spacing_mm: Spacing, rough: Sector) -> _Search:
    """What is searched for a fan of which `rough` tells where it is, mm; the rest is blackened."""
    outside = ~grown(rough, joined.shape, spacing_mm, _CLEAR * rough.radius_far)
    image, level = foreground.without_background(joined, outside)
    image = np.where(grown(rough, joined.shape, spacing_mm, _ROOM * rough.radius_far), image, 0)
    height, width = image.shape[0] * spacing_mm[0], image.shape[1] * spacing_mm[1]
    target = max(height, width) / _REDUCED
    by_row, by_col = (int(target / spacing) for spacing in spacing_mm)
    factors = (min(max(1, by_row), image.shape[0]), min(max(1, by_col), image.shape[1]))
    small = foreground.reduced(image, factors)
    row_mm, col_mm = factors[0] * spacing_mm[0], factors[1] * spacing_mm[1]
    unit = float(np.sqrt(row_mm * col_mm))
    above = np.clip(ndimage.uniform_filter(small, 3, mode="nearest") - level, 0, None)
    some = above[above > 4]
    if some.size < MIN_AREA * above.size:
        raise DatasetError(
            f"expected a fan covering at least {MIN_AREA:.0%} of the image, found "
            f"{some.size / above.size:.1%} of it brighter than the background"
        )
    bright = float(np.median(some))
    masks = []
    floor = 1.5 if level == 0 else 4.0
    for least in (floor, max(4.0, 0.1 * bright), max(5.0, 0.3 * bright), max(6.0, 0.6 * bright)):
        mask = foreground.opened(above > least)
        masks.append(foreground.components(mask, 0.02))
    keep = ndimage.maximum_filter(masks[0].view(np.uint8), 5).view(np.bool_)
    clean = np.where(keep, np.clip(small - level, 0, None), 0).astype(np.float32)
    size = (row_mm / unit, col_mm / unit)
    solid, faint = (_sampled(foreground.components(masks[i], 0.1), size) for i in (2, 0))
    echoes = Echoes(clean, solid, faint, size, bright, floor)
    picture = Picture(image, level, spacing_mm, unit)
    reduced = Picture(np.rint(small).astype(np.uint8), level, (row_mm, col_mm), unit)
    return _Search(picture, reduced, echoes, masks)


def _best_first(fans: list[Sector], evidence: list[Evidence]) -> list[Sector]:
    order = np.argsort([-one.score for one in evidence], kind="stable")
    return [fans[i] for i in order]


def _sampled(mask: BoolHW, size: tuple[float, float]) -> npt.NDArray[np.float64]:
    """(n, 2) up to about 1,500 of the mask's points."""
    points = np.argwhere(mask).astype(np.float64)
    return np.asarray((points[:: max(1, len(points) // 1500)] + 0.5) * np.array(size))


def _scaled(fan: Sector, by: float) -> Sector:
    return Sector(
        fan.apex_row * by, fan.apex_col * by, fan.angle_left, fan.angle_right,
        fan.radius_near * by, fan.radius_far * by,
    )  # fmt: skip


def _apart(fan: Sector, other: Sector) -> float:
    """The mean distance of five points of two outlines, as a share of the other's depth."""

    def points(of: Sector) -> npt.NDArray[np.float64]:
        middle = (of.angle_left + of.angle_right) / 2
        angle = np.array([of.angle_left, of.angle_left, of.angle_right, of.angle_right, middle])
        radius = np.array([0.2, 0.9, 0.2, 0.9, 1.0]) * of.radius_far
        return np.array(
            [of.apex_row + radius * np.cos(angle), of.apex_col + radius * np.sin(angle)]
        )

    return float(np.hypot(*(points(fan) - points(other))).mean() / other.radius_far)


def _distinct(fans: list[Sector], most: int) -> list[Sector]:
    """The first few that differ by more than a refinement would."""
    chosen: list[Sector] = []
    for fan in fans:
        alike = any(
            abs(fan.angle_left - other.angle_left) < 0.05
            and abs(fan.angle_right - other.angle_right) < 0.05
            and np.hypot(fan.apex_row - other.apex_row, fan.apex_col - other.apex_col) < 5
            for other in chosen
        )
        if not alike:
            chosen.append(fan)
        if len(chosen) == most:
            break
    return chosen
