"""How well a sample's painted part goes with its real part: seam, grain, and one score of both.

Each measure compares the painted with the kept pixels beside them, so that it does not depend on
how bright an image is, and is the logarithm of a ratio: 0 is alike. What is usual is read off real
frames, cut along the same borders.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.errors import StoreError
from echogen.measures.texture import Floats, grain, seam_gradient
from echogen.store import Status, StoreReader

MEASURES = ("seam", "grain", "brightness")
BESIDE = 12  # pixels from the border that are compared
LEAST_PIXELS = 60
LEAST_REAL = 12
LEAST_SPREAD = 0.1
_LEAST_LEVEL = 0.25

_NOT_MEASURED: Floats = np.full(len(MEASURES), np.nan)


@dataclass(frozen=True)
class Norm:
    """What real frames show: the median of each measure and its spread.

    Attributes:
        middle: (3,) median.
        spread: (3,) the larger of LEAST_SPREAD and 1.4826 median absolute deviations.
        frames: how many it was read off.
    """

    middle: Floats
    spread: Floats
    frames: int

    def deviation(self, measured: Floats) -> Floats:
        """(n, 3) spreads away from the middle, signed; nan where a measure is."""
        away: Floats = (measured - self.middle) / self.spread
        return away


def log_ratios(
    image: npt.NDArray[np.uint8], keep: npt.NDArray[np.bool_], fan: npt.NDArray[np.bool_]
) -> Floats:
    """Painted over kept, within BESIDE pixels of the border between them.

    Args:
        image: (h, w) grey levels.
        keep: (h, w) bool, False where painted.
        fan: (h, w) bool; nothing outside is looked at.

    Returns:
        (3,) natural logarithms of ratios: of the steps from pixel to pixel across the border to
        those beside it, of the power of the grain, of the mean brightness; nan where there is too
        little to compare.
    """
    border = _border(keep, fan)
    return _NOT_MEASURED.copy() if border is None else _beside(image, border)


@dataclass(frozen=True)
class _Border:
    """Pixels beside the border of paint: `window` holds them all, the masks are cut to it."""

    window: tuple[slice, slice]
    painted: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]


def _border(keep: npt.NDArray[np.bool_], fan: npt.NDArray[np.bool_]) -> _Border | None:
    """None where there is too little to compare."""
    painted, kept = ~keep & fan, keep & fan
    near = ndimage.binary_dilation(painted, iterations=BESIDE) & ndimage.binary_dilation(
        kept, iterations=BESIDE
    )
    painted, kept = painted & near, kept & near
    if min(painted.sum(), kept.sum()) < LEAST_PIXELS:
        return None
    inside = near & fan
    (window,) = ndimage.find_objects(inside.astype(np.int8))
    return _Border(window, painted[window], kept[window], inside[window])


def _beside(image: npt.NDArray[np.uint8], border: _Border) -> Floats:
    """(3,) of `log_ratios`."""
    image, painted, kept = image[border.window], border.painted, border.kept
    across = seam_gradient(image, painted, border.inside)
    beside = np.mean([_steps(image, painted), _steps(image, kept)])
    return np.array(
        [
            _log_ratio(across, float(beside)),
            _log_ratio(grain(image, painted), grain(image, kept)),
            _log_ratio(float(image[painted].mean()), float(image[kept].mean())),
        ]
    )


def norm_of(real: Floats, fallback: Floats) -> Norm:
    """What is usual, from real frames, or from the samples themselves where there are too few.

    Args:
        real: (n, 3) of `log_ratios` on real frames.
        fallback: (m, 3) of `log_ratios` on the samples.
    """
    known = real[np.isfinite(real).all(axis=1)]
    source = known if len(known) >= LEAST_REAL else fallback[np.isfinite(fallback).all(axis=1)]
    if not len(source):
        return Norm(np.zeros(len(MEASURES)), np.full(len(MEASURES), np.inf), 0)
    middle = np.median(source, axis=0)
    spread = 1.4826 * np.median(np.abs(source - middle), axis=0)
    return Norm(middle, np.maximum(spread, LEAST_SPREAD), len(known))


def score(deviation: Floats) -> Floats:
    """(n,) the largest deviation of each sample, in spreads; 0 where nothing could be measured."""
    largest: Floats = np.nan_to_num(np.abs(deviation), nan=0.0).max(axis=1, initial=0.0)
    return largest


def log_ratios_of(
    store: StoreReader,
    rows: Iterable[int],
    there: Mapping[int, Mapping[str, npt.NDArray[Any]]] | None = None,
) -> tuple[Floats, Floats]:
    """Copies of a store, and the real frames they were made of, cut along the same borders.

    Args:
        store: of expanded images.
        rows: copies that are done.
        there: {row: its pixels by array} of rows that need not be read again.

    Returns:
        (n, 3) of the copies and (n, 3) of the originals, nan where pixels are damaged, or where
        there is no original.
    """
    frame_ids = store.columns["frame_id"]
    there, originals = there or {}, original_rows(store)

    def pixels(name: str, row: int) -> npt.NDArray[Any]:
        return there[row][name] if row in there else store.pixels(name)[row]

    copies, real = [], []
    for row in rows:
        copies.append(_NOT_MEASURED)
        real.append(_NOT_MEASURED)
        with suppress(StoreError):  # checks of the rows themselves say what is damaged
            fan = store.fan(row)
            border = _border(pixels("keep", row), fan)
            if border is None:
                continue
            copies[-1] = _beside(pixels("images", row), border)
            original = originals.get(str(frame_ids[row]))
            if original is not None:
                real[-1] = _beside(pixels("images", original), border)
    shape = (-1, len(MEASURES))
    return np.array(copies).reshape(shape), np.array(real).reshape(shape)


def original_rows(store: StoreReader) -> dict[str, int]:
    """{frame id: row} of the originals that are done."""
    columns = store.columns
    rows = np.flatnonzero((columns["copy"] == 0) & (columns["status"] == Status.DONE))
    return {str(columns["frame_id"][row]): int(row) for row in rows}


def _steps(image: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_]) -> float:
    """Mean absolute difference of neighbours that both lie in a region."""
    levels = image.astype(np.float64)
    steps = np.concatenate(
        [
            np.abs(np.diff(levels, axis=axis))[
                np.delete(region, -1, axis) & np.delete(region, 0, axis)
            ]
            for axis in (0, 1)
        ]
    )
    return float(steps.mean()) if steps.size else float("nan")


def _log_ratio(a: float, b: float) -> float:
    return float(np.log(max(a, _LEAST_LEVEL) / max(b, _LEAST_LEVEL)))
