"""A dataset before hours are spent on it: what the readers found, and what only all frames show."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echogen.checks.finding import Finding, Severity, error, note, warning
from echogen.checks.frames import FrameFacts, check_recording
from echogen.config import DatasetConfig
from echogen.datasets import Dataset
from echogen.datasets.advice import advise
from echogen.datasets.fans import HOW, FoundFan, fans_of_recordings
from echogen.datasets.recordings import each_recording
from echogen.measures.classes import Classes, classes_of
from echogen.report import Reporter
from echogen.support.words import counted
from echogen.types import Case, FrameKey

USUAL_SHARE = 0.8
UNCERTAIN = 0.9
"""A fan of less confidence is named: it should be looked at."""
FAR_AREA = 6.0  # robust standard deviations of the logarithm
LEAST_SPREAD = 0.15
ENOUGH = 12


@dataclass(frozen=True)
class Spread:
    """A quantity over the frames: its median, and where nine tenths of them lie.

    Attributes:
        low: 5th percentile.
        median: 50th percentile.
        high: 95th percentile.
    """

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class ClassArea:
    """Areas of one class.

    Attributes:
        label: its id.
        name: as the dataset calls it.
        frames: with the class in them.
        unit: mm2, or pixels where the spacing is unknown.
        area: over those frames.
    """

    label: int
    name: str
    frames: int
    unit: str
    area: Spread


@dataclass(frozen=True)
class DatasetSummary:
    """What a dataset holds.

    Attributes:
        layout: in which it was read.
        licence: of the data, as far as it is known.
        frames: found, with a label.
        usable: of these, those that can be expanded.
        cases: patients or recordings.
        views, phases, splits: {name: frames}.
        sizes: {"rows x columns": frames}, the most frequent ones.
        spacing_known: frames with millimetres.
        fans: {how the fan was found: frames}, `refused` those without one.
        depth: of the fan, mm, or pixels where no spacing is known; null without a fan.
        angle_deg: of the fan, degrees; null without a fan.
        areas: of each class.
    """

    layout: str
    licence: str
    frames: int
    usable: int
    cases: int
    views: Mapping[str, int]
    phases: Mapping[str, int]
    splits: Mapping[str, int]
    sizes: Mapping[str, int]
    spacing_known: int
    fans: Mapping[str, int]
    depth: Spread | None
    angle_deg: Spread | None
    areas: tuple[ClassArea, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        of = counted(self.cases, "case")
        rows = [("frames", f"{self.usable} of {self.frames} usable, of {of}")]
        for name in ("views", "phases", "splits"):
            counts = getattr(self, name)
            if counts:
                rows.append((name, ", ".join(f"{key} {count}" for key, count in counts.items())))
        if self.sizes:
            rows.append(("sizes", ", ".join(f"{k} ({n})" for k, n in self.sizes.items())))
        if self.fans:
            rows.append(("fans", ", ".join(f"{n} {HOW[how]}" for how, n in self.fans.items())))
        if self.depth is not None:
            rows.append(("fan depth", _words(self.depth, "mm" if self.spacing_known else "pixels")))
        if self.angle_deg is not None:
            rows.append(("fan angle", _words(self.angle_deg, "degrees")))
        for one in self.areas:
            rows += [(one.name, f"{_words(one.area, one.unit)}, in {counted(one.frames, 'frame')}")]
        return rows


@dataclass(frozen=True)
class DatasetCheck:
    """Findings in the order of the checks, and what was found on the way."""

    findings: tuple[Finding, ...]
    summary: DatasetSummary
    fans: tuple[FoundFan, ...]
    """Of each frame that can be read."""


def check_dataset(
    dataset: Dataset,
    keys: Sequence[FrameKey],
    config: DatasetConfig,
    workers: int,
    reporter: Reporter,
) -> DatasetCheck:
    """Reads every selected frame once; memory does not grow with their pixels.

    Args:
        dataset: opened.
        keys: the frames to look at.
        config: the selection, for what listing found unusable.
        workers: processes; 0 takes one a core.
        reporter: where progress goes.
    """
    unlisted = dataset.problems(config)
    findings = [error("unreadable", one.frame_id, one.reason) for one in unlisted]
    findings += [note("dataset", "", remark) for remark in dataset.notes]
    parts = classes_of(dataset.provenance.labels)
    facts: list[FrameFacts] = []
    checked = each_recording(
        check_recording,
        dataset,
        keys,
        (parts, dataset.provenance.labels),
        workers=workers,
        progress=lambda done, total: reporter.progress("checking", done, total),
    )
    for recording in checked:
        facts += recording.frames
        findings += recording.findings
    known = {case.case_id: case for case in dataset.cases}
    findings += _across(facts, parts, known, dataset.provenance.labels)
    summary = _summary(dataset, facts, len(keys) + len(unlisted))
    return DatasetCheck(tuple(findings), summary, tuple(frame.fan for frame in facts))


def _across(
    facts: Sequence[FrameFacts],
    parts: Classes,
    cases: Mapping[str, Case],
    labels: Mapping[int, str],
) -> Iterator[Finding]:
    yield from _uncertain_fans(facts)
    yield from _same_pixels(facts)
    yield from _phases(facts, parts)
    yield from _in_time(cases, {frame.key.case_id for frame in facts})
    yield from _incomplete(facts)
    yield from _classes(facts, labels)
    sides = [f.mirrored for f in facts if f.mirrored is not None and f.key.view in ("4CH", "")]
    if sides and sum(sides) > len(sides) / 2:
        yield note(
            "orientation",
            "",
            f"in {sum(sides)} of {len(sides)} frames the left ventricle lies left of the right "
            "one: mirrored, or shown in the other convention; to turn them "
            + advise('flip = "cols"'),
        )
    unknown = [frame for frame in facts if frame.spacing_mm is None]
    if unknown:
        yield note(
            "spacing",
            "",
            f"{len(unknown)} of {len(facts)} frames have no spacing: a store made from them has "
            "NaN there, and --labels-on-paint ignore cannot be used; millimetres per pixel can be "
            "given by dataset.spacing_mm.",
        )
    beyond = [frame for frame in facts if frame.outside > 0.005]
    if beyond:
        worst = max(beyond, key=lambda frame: frame.outside)
        yield note(
            "labels-outside",
            "",
            f"in {len(beyond)} of {len(facts)} frames labels run past the edge of the fan, most in "
            f"{worst.key.frame_id} ({worst.outside:.0%} of its labels): see --labels-on-paint.",
        )


def _uncertain_fans(facts: Sequence[FrameFacts]) -> Iterator[Finding]:
    """The recordings whose fan may be wrong, the least certain first."""
    for fan in fans_of_recordings(frame.fan for frame in facts):
        if fan.values is not None and fan.confidence < UNCERTAIN:
            yield warning(
                "fan-uncertain",
                fan.name,
                f"its fan has a confidence of {fan.confidence:.2f} only: look at it with `echogen "
                "preview --fans`.",
            )


def _same_pixels(facts: Sequence[FrameFacts]) -> Iterator[Finding]:
    groups: dict[str, list[FrameFacts]] = defaultdict(list)
    for frame in facts:
        groups[frame.pixels].append(frame)
    for group in groups.values():
        if len(group) < 2:
            continue
        names = " and ".join(frame.key.frame_id for frame in group)
        labels = "the same labels" if len({frame.label for frame in group}) == 1 else "other labels"
        splits = sorted({frame.key.split for frame in group if frame.key.split})
        clip = group[0].key.sequence
        still = bool(clip) and all(frame.key.sequence == clip for frame in group)
        severity, more = Severity.NOTE if still else Severity.WARNING, ""
        if len(splits) > 1:
            severity, more = Severity.ERROR, f", in the splits {' and '.join(splits)}"
        message = f"{names} hold the same pixels, with {labels}{more}."
        yield Finding(severity, "same-pixels", group[0].key.frame_id, message)


def _phases(facts: Sequence[FrameFacts], parts: Classes) -> Iterator[Finding]:
    """Where the cavity is smaller at end-diastole than at end-systole."""
    if parts.cavity is None:
        return
    by_recording: dict[str, dict[str, FrameFacts]] = defaultdict(dict)
    for frame in facts:
        if not frame.key.copy:
            by_recording[frame.key.recording_id][frame.key.phase] = frame
    for phases in by_recording.values():
        if not {"ED", "ES"} <= set(phases):
            continue
        ed, es = (phases[name].areas.get(parts.cavity, 0.0) for name in ("ED", "ES"))
        if ed < es:
            yield warning(
                "phases",
                phases["ED"].key.frame_id,
                f"the LV cavity is smaller at ED than at ES ({ed:.0f} and {es:.0f} "
                f"{phases['ED'].unit}): are the phases swapped?",
            )


def _in_time(cases: Mapping[str, Case], used: set[str]) -> Iterator[Finding]:
    """Where the cfg files put end-systole before end-diastole; half sequences run from ED to ES."""
    for case_id in sorted(used & set(cases)):
        info = cases[case_id].info
        for key in sorted(info):
            view = key.removeprefix("ed_frame_")
            ed, es = info[key], info.get(f"es_frame_{view}")
            if view == key or not isinstance(ed, float) or not isinstance(es, float) or ed <= es:
                continue
            yield note(
                "phases-in-time",
                f"{case_id} {view.upper()}",
                f"its cfg file puts ED at frame {ed:g} and ES at frame {es:g}: the sequence "
                "runs from ES to ED; the cavity's areas show whether ED and ES are right.",
            )


def _incomplete(facts: Sequence[FrameFacts]) -> Iterator[Finding]:
    """Cases that lack a view and phase that most others have."""
    by_case: dict[str, set[str]] = defaultdict(set)
    for frame in facts:
        by_case[frame.key.case_id].add(
            " ".join(part for part in (frame.key.view, frame.key.phase) if part)
        )
    count = Counter(kind for kinds in by_case.values() for kind in kinds)
    usual = {kind for kind, n in count.items() if kind and n >= USUAL_SHARE * len(by_case)}
    for case_id, kinds in sorted(by_case.items()):
        if missing := sorted(usual - kinds):
            yield note("incomplete", case_id, f"has no {', '.join(missing)}.")


def _classes(facts: Sequence[FrameFacts], labels: Mapping[int, str]) -> Iterator[Finding]:
    """Frames without a class that most have, and areas far from the others'."""
    for label, name in sorted(labels.items()):
        having = [frame for frame in facts if frame.areas.get(label)]
        if label == 0 or not having:
            continue
        if len(having) >= USUAL_SHARE * len(facts):
            for frame in facts:
                if not frame.areas.get(label):
                    yield warning("labels", frame.key.frame_id, f"has no {name}.")
        for unit in ("mm2", "pixels"):
            same = [frame for frame in having if frame.unit == unit]
            if len(same) < ENOUGH:
                continue
            areas = np.log([frame.areas[label] for frame in same])
            middle = np.median(areas)
            spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(areas - middle))))
            for frame, area in zip(same, areas, strict=True):
                if abs(area - middle) > FAR_AREA * spread:
                    yield warning(
                        "areas",
                        frame.key.frame_id,
                        f"its {name} covers {frame.areas[label]:.0f} {unit}; the "
                        f"median of all frames is {np.exp(middle):.0f}.",
                    )


def _summary(dataset: Dataset, facts: Sequence[FrameFacts], frames: int) -> DatasetSummary:
    usable = [frame for frame in facts if frame.depth is not None]
    known = [frame for frame in usable if frame.spacing_mm is not None]
    depths = [frame.depth for frame in known or usable if frame.depth]
    angles = [frame.angle_deg for frame in usable if frame.angle_deg]
    sizes = [f"{frame.shape[0]} x {frame.shape[1]}" for frame in facts]
    areas = []
    for label, name in sorted(dataset.provenance.labels.items()):
        having = [frame for frame in facts if label and frame.areas.get(label)]
        in_mm = [frame for frame in having if frame.unit == "mm2"]
        chosen, unit = (in_mm, "mm2") if in_mm else (having, "pixels")
        if chosen:
            spread = _spread([frame.areas[label] for frame in chosen])
            areas.append(ClassArea(label, name, len(having), unit, spread))
    return DatasetSummary(
        layout=dataset.provenance.format,
        licence=dataset.provenance.licence,
        frames=frames,
        usable=len(usable),
        cases=len({frame.key.case_id for frame in facts}),
        views=_counts([frame.key.view for frame in facts]),
        phases=_counts([frame.key.phase for frame in facts]),
        splits=_counts([frame.key.split for frame in facts]),
        sizes=dict(Counter(sizes).most_common(6)),
        spacing_known=sum(frame.spacing_mm is not None for frame in facts),
        fans=_counts([frame.fan.outcome for frame in facts]),
        depth=_spread(depths) if depths else None,
        angle_deg=_spread(angles) if angles else None,
        areas=tuple(areas),
    )


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = (round(float(v), 2) for v in np.percentile(values, [5, 50, 95]))
    return Spread(low, median, high)


def _counts(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value).items()))


def _words(spread: Spread, unit: str) -> str:
    return f"{spread.low:.0f} to {spread.high:.0f} {unit}, median {spread.median:.0f}"
