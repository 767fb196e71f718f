"""Sets of samples side by side: distributions, distance, coverage."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import spatial, stats

from echogen.measures.features import BY_NAME, DIVERSITY
from echogen.measures.report import Coverage, Distribution, Diversity

Floats = npt.NDArray[np.float64]
Table = Mapping[str, Floats]

NEIGHBOURS = 5
LEAST = 5
MOST_KNOW = 0.8  # share of samples that have a feature which enters the joint coverage
FLAT = 1e-6


def unwrap_axes(tables: Sequence[dict[str, Floats]]) -> None:
    """Turn axes, which have no direction, to within 90 degrees of the first table's mean axis.

    So 89 and -89 degrees lie 2 apart, and percentiles and distances mean what they say. The mean is
    that of doubled angles (Mardia and Jupp, "Directional Statistics", 2000, section 2.2).

    Args:
        tables: {feature: (n,) values, degrees where it is an axis}; changed in place.
    """
    for name in tables[0]:
        known = np.radians(2 * finite(tables[0][name]))
        if not name.endswith("_axis") or not len(known):
            continue
        middle = math.degrees(math.atan2(np.sin(known).mean(), np.cos(known).mean())) / 2
        for table in tables:
            table[name] = middle + (table[name] - middle + 90) % 180 - 90


def distribution(values: Floats) -> Distribution | None:
    """Of the values that are there; None where there is none."""
    known = finite(values)
    if not len(known):
        return None
    low, median, high = np.percentile(known, [5, 50, 95])
    rounded = (round(float(v), 5) for v in (known.mean(), known.std(), low, median, high))
    return Distribution(len(known), *rounded)


def diversity(reference: Table, other: Table) -> tuple[Diversity, ...]:
    """How `other` widens `reference`, feature by feature.

    Args:
        reference: {feature: (n,) values}.
        other: {feature: (m,) values}.
    """
    found = []
    for name in DIVERSITY:
        ours, theirs = finite(reference[name]), finite(other[name])
        if min(len(ours), len(theirs)) < LEAST:
            continue
        one, two = distribution(ours), distribution(theirs)
        both = distribution(np.concatenate([ours, theirs]))
        assert one is not None
        assert two is not None
        assert both is not None
        feature = BY_NAME[name]
        outside = float(((theirs < one.low) | (theirs > one.high)).mean())
        found.append(
            Diversity(
                name, feature.unit, feature.words, one, two,
                _ratio(both.high - both.low, one.high - one.low),
                round(outside, 4),
                _distance(theirs, ours),
            )
        )  # fmt: skip
    return tuple(found)


def coverage(originals: Table, everything: Table, target: Table) -> tuple[Coverage, ...]:
    """How much of `target` the originals cover, and how much they cover with their copies.

    In one feature, a value is covered that lies within the 1st to 99th percentile. Together, a
    sample is covered that has one of ours nearer than its own fifth neighbour in its set: the
    coverage of Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML
    2020, eq. 4, over the features of diversity in the target's standard deviations.
    """
    found = [_joint(originals, everything, target)]
    for name in DIVERSITY:
        wanted = finite(target[name])
        if len(wanted) < LEAST:
            continue
        shares, distances = [], []
        for source in (originals, everything):
            values = finite(source[name])
            enough = len(values) >= LEAST
            low, high = np.percentile(values, [1, 99]) if enough else (math.inf, -math.inf)
            inside = (wanted >= low) & (wanted <= high)
            shares.append(round(float(inside.mean()), 4) if enough else None)
            distances.append(_distance(values, wanted) if enough else None)
        found.append(Coverage(name, BY_NAME[name].words, *shares, *distances))
    return tuple(found)


def _joint(originals: Table, everything: Table, target: Table) -> Coverage:
    names = [n for n in DIVERSITY if _varies(target[n]) and _common(everything[n])]
    points = [_points(table, names) for table in (target, originals, everything)]
    wanted = points[0]
    if not names or len(wanted) <= NEIGHBOURS:
        return Coverage("all", "all together", None, None, None, None)
    scale = wanted.std(axis=0)
    wanted = wanted / scale
    radius = spatial.cKDTree(wanted).query(wanted, NEIGHBOURS + 1)[0][:, -1]
    shares = []
    for table in points[1:]:
        near = spatial.cKDTree(table / scale).query(wanted)[0] if len(table) else np.inf
        shares.append(round(float((near <= radius).mean()), 4) if len(table) else None)
    return Coverage("all", "all together", shares[0], shares[1], None, None)


def _common(values: Floats) -> bool:
    """Whether most samples have it; one that few have would leave few to compare."""
    known = np.isfinite(values)
    return bool(known.sum() >= LEAST and known.mean() >= MOST_KNOW)


def _varies(values: Floats) -> bool:
    known = finite(values)
    return _common(values) and bool(known.std() > FLAT * max(1.0, float(np.abs(known).max())))


def _points(table: Table, names: Sequence[str]) -> Floats:
    if not names:
        return np.zeros((0, 0))
    stacked = np.stack([table[name] for name in names], axis=1)
    return np.asarray(stacked[np.isfinite(stacked).all(axis=1)], dtype=np.float64)


def finite(values: Floats) -> Floats:
    """The values that are there."""
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _distance(values: Floats, reference: Floats) -> float | None:
    """In standard deviations of the reference; None where it does not vary."""
    spread = float(reference.std())
    if spread <= FLAT * max(1.0, float(np.abs(reference).max())):
        return None
    return round(float(stats.wasserstein_distance(values, reference)) / spread, 4)


def _ratio(a: float, b: float) -> float | None:
    return round(a / b, 4) if b > 0 else None
