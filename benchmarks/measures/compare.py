"""Whether a sampler is worse than a reference by more than the reference differs from itself.

Both paint the same frames several times. What is measured of every draw lies in a table; a figure
is computed from any choice of draws, one choice a frame. Were the candidate's draws those of the
reference with other noise, it would be arbitrary which of a frame's draws are called the
candidate's: shuffling the names gives the exact distribution of the difference (a permutation
test, frame by frame, so that easy and hard frames cancel). The reference's own draws, split in two
again and again, give the null band: what the same sampler shows with other noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from echogen.errors import UsageError
from echogen.measures.texture import Floats

Kind = Literal["score", "spread", "ratio", "difference"]
Choice = npt.NDArray[np.int64]
CHUNK = 500


@dataclass(frozen=True)
class DrawTable:
    """One measure of F frames with M draws each.

    The figure of some draws is sum over frames of a numerator / sum of a denominator:

        kind        numerator                           denominator             right
        score       mean(draws) - spread / 2            1                       low
        spread      spread = mean of `between`, i != j  mean(draws)             1
        ratio       mean(draws)                         truth                   1
        difference  mean(draws) - truth                 1                       0

    Attributes:
        kind: what the figure is.
        draws: (F, M): distances to the truth for a score or a spread, values for the others.
        truth: (F,) the truth's value for a ratio or a difference, else empty.
        between: (F, M, M) distances of the draws for a score or a spread, else empty.
    """

    kind: Kind
    draws: Floats
    truth: Floats
    between: Floats

    def parts(self, choice: Choice) -> tuple[Floats, Floats]:
        """Numerators and denominators of chosen draws.

        Args:
            choice: (..., F, k) indices of draws, no draw twice in a frame.

        Returns:
            Two (..., F) arrays.

        Raises:
            UsageError: a score or spread of fewer than two draws.
        """
        frames = np.arange(len(self.draws))[:, None]
        mean = self.draws[frames, choice].mean(axis=-1)
        one = np.ones_like(mean)
        if self.kind == "ratio":
            return mean, one * self.truth
        if self.kind == "difference":
            return mean - self.truth, one
        count = choice.shape[-1]
        if count < 2:
            raise UsageError(f"a score needs two draws of a frame or more, found {count}")
        pairs = self.between[frames[..., None], choice[..., :, None], choice[..., None, :]]
        spread = pairs.sum(axis=(-1, -2)) / (count * (count - 1))
        return (spread, mean) if self.kind == "spread" else (mean - 0.5 * spread, one)


def figure(table: DrawTable, choice: Choice) -> Floats:
    """The figure of chosen draws, over all frames.

    Args:
        table: the table.
        choice: (..., F, k) indices of draws.

    Returns:
        (...).
    """
    numerator, denominator = table.parts(choice)
    return np.asarray(numerator.sum(axis=-1) / denominator.sum(axis=-1))


def loss(kind: Kind, figures: Floats) -> Floats:
    """How far figures are from right, lower is better: |log| of ratios, || of differences."""
    if kind == "score":
        return figures
    return np.abs(figures) if kind == "difference" else np.abs(np.log(figures))


def all_draws(frames: int, first: int, last: int) -> Choice:
    """(frames, last - first): the draws from `first` up to `last` in every frame."""
    return np.tile(np.arange(first, last), (frames, 1))


def standard_error(table: DrawTable, choice: Choice) -> float:
    """Of the figure, over frames (jackknife)."""
    numerator, denominator = table.parts(choice)
    return float(_jackknife(_left_out(numerator, denominator)))


@dataclass(frozen=True)
class Band:
    """What the same sampler shows with other noise.

    Attributes:
        low, high: 2.5% and 97.5% of the figure of one half of the reference's draws.
        difference: 95% of |loss of one half - loss of the other|.
    """

    low: float
    high: float
    difference: float


def null_band(table: DrawTable, count: int, rng: np.random.Generator, rounds: int) -> Band:
    """Splits the first `count` draws of every frame in halves, `rounds` times."""
    half = count // 2
    first, gaps = [], []
    for order in _shuffles(len(table.draws), count, rng, rounds):
        a, b = (figure(table, part) for part in (order[..., :half], order[..., half : 2 * half]))
        first.append(a)
        gaps.append(np.abs(loss(table.kind, a) - loss(table.kind, b)))
    low, high = np.quantile(np.concatenate(first), [0.025, 0.975])
    return Band(float(low), float(high), float(np.quantile(np.concatenate(gaps), 0.95)))


@dataclass(frozen=True)
class Comparison:
    """A candidate against the reference.

    Attributes:
        difference: of the losses, candidate minus reference; above 0 is worse.
        low, high: 95% interval of it over frames (jackknife and Student's t): what other frames
            like these might show.
        p_worse, p_better: one-sided p-values of the permutation test: how often draws of one and
            the same sampler differ by as much.
    """

    difference: float
    low: float
    high: float
    p_worse: float
    p_better: float


def compare(table: DrawTable, reference: int, rng: np.random.Generator, rounds: int) -> Comparison:
    """The draws after the first `reference` ones, the candidate's, against those.

    Args:
        table: of the reference's draws and then the candidate's.
        reference: how many draws of each frame are the reference's.
        rng: shuffles.
        rounds: of the permutation test; the least p-value is 1 / (rounds + 1).

    Raises:
        UsageError: there are no draws of one of the two.
    """
    frames, count = table.draws.shape
    if not 0 < reference < count:
        raise UsageError(f"compare: expected draws of two samplers, found {reference} of {count}")
    kind = table.kind
    theirs, ours = all_draws(frames, 0, reference), all_draws(frames, reference, count)
    difference = _gap(table, ours, theirs)
    shuffled = np.concatenate(
        [
            _gap(table, order[..., reference:], order[..., :reference])
            for order in _shuffles(frames, count, rng, rounds)
        ]
    )
    tiny = 1e-12 * max(1.0, abs(float(difference)))
    worse = int((shuffled >= difference - tiny).sum())
    better = int((shuffled <= difference + tiny).sum())
    left_out = loss(kind, _left_out(*table.parts(ours))) - loss(
        kind, _left_out(*table.parts(theirs))
    )
    reach = float(_jackknife(left_out) * stats.t.ppf(0.975, frames - 1))
    return Comparison(
        float(difference),
        float(difference) - reach,
        float(difference) + reach,
        (worse + 1) / (rounds + 1),
        (better + 1) / (rounds + 1),
    )


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p-values of several questions, adjusted so that one false alarm among all stays as rare
    (Holm 1979).
    """
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, p_values[name] * (len(p_values) - rank)))
        adjusted[name] = least
    return adjusted


def _gap(table: DrawTable, ours: Choice, theirs: Choice) -> Floats:
    kind = table.kind
    return loss(kind, figure(table, ours)) - loss(kind, figure(table, theirs))


def _shuffles(frames: int, count: int, rng: np.random.Generator, rounds: int) -> Iterator[Choice]:
    """`rounds` random orders of every frame's draws, in chunks (chunk, frames, count)."""
    for start in range(0, rounds, CHUNK):
        many = min(CHUNK, rounds - start)
        yield rng.random((many, frames, count)).argsort(axis=-1)


def _left_out(numerator: Floats, denominator: Floats) -> Floats:
    """(F,) the figure without each frame in turn."""
    return np.asarray(
        (numerator.sum() - numerator) / (denominator.sum() - denominator), dtype=np.float64
    )


def _jackknife(left_out: Floats) -> Floats:
    count = len(left_out)
    return np.asarray(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))
