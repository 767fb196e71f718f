"""What `echogen stats` reports, one record a question, and the samples behind it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.measures.collect import FeatureTable
from echogen.report import CommandReport

GROUPS = ("originals", "copies")


@dataclass(frozen=True)
class Distribution:
    """A feature over a set of samples.

    Attributes:
        n: samples that have it.
        mean: over them.
        sd: standard deviation.
        low: 5th percentile.
        median: the middle.
        high: 95th percentile.
    """

    n: int
    mean: float
    sd: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class FeatureStats:
    """One feature in each group of samples.

    Attributes:
        feature: its name.
        unit: mm, mm2, ml, deg, or empty for a ratio.
        words: for people.
        groups: {group: its distribution}; groups without the feature are left out.
    """

    feature: str
    unit: str
    words: str
    groups: Mapping[str, Distribution]


@dataclass(frozen=True)
class ClassStats:
    """One class in each group of samples.

    Attributes:
        label: its id.
        name: as the dataset calls it.
        samples: {group: samples that have it}.
        share: {group: its displayed area over the fan's, over those samples}.
    """

    label: int
    name: str
    samples: Mapping[str, int]
    share: Mapping[str, Distribution]


@dataclass(frozen=True)
class Volume:
    """The left ventricle of one case.

    Attributes:
        case_id: of the case.
        method: biplane, or single-plane where one view alone has both phases.
        views: that were used.
        edv_ml: end-diastolic; null without a spacing.
        esv_ml: end-systolic; null without a spacing.
        ef: ejection fraction, percent.
        recorded_edv_ml: as the dataset's files say; null where they do not.
        recorded_esv_ml: as the dataset's files say.
        recorded_ef: as the dataset's files say.
    """

    case_id: str
    method: str
    views: tuple[str, ...]
    edv_ml: float | None
    esv_ml: float | None
    ef: float
    recorded_edv_ml: float | None
    recorded_esv_ml: float | None
    recorded_ef: float | None


@dataclass(frozen=True)
class Agreement:
    """Measured against recorded, over the cases that have both.

    Attributes:
        quantity: ef, edv_ml or esv_ml.
        cases: how many.
        bias: mean of measured minus recorded.
        limits: half the width of the 95% limits of agreement (Bland and Altman), 1.96 sd; null for
            one case.
        correlation: Pearson's; null for fewer than three cases.
    """

    quantity: str
    cases: int
    bias: float
    limits: float | None
    correlation: float | None


@dataclass(frozen=True)
class Diversity:
    """How one set of samples widens another, in one feature.

    Attributes:
        feature: its name.
        unit: of the feature.
        words: for people.
        reference: the set that is widened.
        other: the set beside it.
        span: 5th to 95th percentile of both sets together over that of the reference; null where
            the reference does not vary.
        outside: share of the other set outside of the reference's 5th to 95th percentile.
        distance: Wasserstein-1, in standard deviations of the reference; null as `span`.
    """

    feature: str
    unit: str
    words: str
    reference: Distribution
    other: Distribution
    span: float | None
    outside: float
    distance: float | None


@dataclass(frozen=True)
class Coverage:
    """How well a set of samples covers another dataset, in one feature or in all together.

    Attributes:
        feature: its name; "all" for the features of diversity together.
        words: for people.
        originals: share of the other dataset that the originals cover.
        everything: share that originals and copies cover.
        distance_originals: Wasserstein-1 to the originals, in the other's standard deviations;
            null for "all", and where the other does not vary.
        distance_everything: to originals and copies.
    """

    feature: str
    words: str
    originals: float | None
    everything: float | None
    distance_originals: float | None
    distance_everything: float | None


@dataclass(frozen=True)
class Realism:
    """Painted parts beside kept ones, and real frames cut along the same borders.

    Attributes:
        measure: seam, grain or brightness: painted over kept.
        copies: {"low", "median", "high"} ratio in the copies: 5th, 50th, 95th percentile.
        real: the same in real frames.
        samples: that were measured.
    """

    measure: str
    copies: Mapping[str, float]
    real: Mapping[str, float]
    samples: int


@dataclass(frozen=True)
class Origin:
    """Where the samples come from.

    Attributes:
        kind: dataset, expanded or generated.
        title: one line.
        licence: of the data.
        facts: {name: value} for people: version, seed, sampler, model and the like.
        skipped: (frame, reason) of what was left out.
    """

    kind: str
    title: str
    licence: str
    facts: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StatsReport(CommandReport):
    """What a set of samples is like.

    Attributes:
        path: of the dataset or store.
        samples: {group: how many}: frames of a dataset are originals.
        counts: {view, phase, split, quality: {value: samples}}.
        features: each with its distribution in each group.
        classes: every class of the dataset; empty for generated images.
        volumes: of each case whose frames hold both phases.
        agreement: of these with what the dataset's files record.
        diversity: how copies widen the originals; empty without copies.
        against: the other dataset or store; empty if there is none.
        coverage: of that one, by the originals and by everything.
        realism: painted parts against real ones; empty for a dataset.
        provenance: where the samples come from.
        problems: frames that could not be measured, with the reason.
        seconds: it took.
    """

    path: str
    samples: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    features: tuple[FeatureStats, ...]
    classes: tuple[ClassStats, ...]
    volumes: tuple[Volume, ...]
    agreement: tuple[Agreement, ...]
    diversity: tuple[Diversity, ...]
    against: str
    coverage: tuple[Coverage, ...]
    realism: tuple[Realism, ...]
    provenance: Origin
    problems: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True)
class Measurements:
    """The samples behind a report, for tables and plots.

    Attributes:
        samples: of the dataset or store.
        other: of the one it was set against, or None.
        texture: {"copies", "real": (n, 3) logarithms}, see `realism.log_ratios`.
    """

    samples: FeatureTable
    other: FeatureTable | None
    texture: Mapping[str, npt.NDArray[np.float64]]

    def group(self, name: str) -> FeatureTable:
        """The originals, or the copies."""
        return self.samples.part(
            [(one.copy > 0) == (name == "copies") for one in self.samples.names]
        )
