"""Volumes and ejection fractions of cases, and how they agree with what a dataset records."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from echogen.measures.collect import FeatureTable
from echogen.measures.report import Agreement, Volume
from echogen.measures.volume import Discs, ejection_fraction, volume_ml
from echogen.types import Case

BIPLANE = ("4CH", "2CH")
PARASTERNAL = ("PSAX", "PLAX", "SAX", "PLA", "PSA")
"""How names of views begin that show no long axis from base to apex."""
RECORDED = {"edv_ml": "lv_edv_ml", "esv_ml": "lv_esv_ml", "ef": "ef"}


def volumes(table: FeatureTable) -> tuple[Volume, ...]:
    """Of every case whose real frames hold both phases in one view or more.

    Biplane where both apical views have both phases, else single-plane of the four-chamber view, or
    of whichever there is. Without a spacing there is only the EF of a single plane. Of a view that
    was recorded several times the first recording with both phases counts.
    """
    known = {case.case_id: case for case in table.cases}
    by_case: dict[str, dict[tuple[str, str], dict[str, Discs]]] = defaultdict(dict)
    for names in table.names:
        view = _view(names.view)
        if names.copy or not names.phase or view.upper().startswith(PARASTERNAL):
            continue
        if names.sample_id in table.discs:
            of_view = by_case[names.case_id].setdefault((view, names.phase), {})
            stem = names.frame_id.removesuffix(names.phase)
            of_view["" if stem == names.frame_id else stem] = table.discs[names.sample_id]
    return tuple(
        volume
        for case_id, found in sorted(by_case.items())
        for volume in _of_case(case_id, _of_one_recording(found), known.get(case_id))
    )


def _of_one_recording(
    found: Mapping[tuple[str, str], Mapping[str, Discs]],
) -> dict[tuple[str, str], Discs]:
    """Both phases of a view from one recording: {stem of a frame's id: discs} to discs.

    The stem is what the ids of ED and ES have in common; empty where ids do not end in the phase.
    """
    chosen = {}
    for (view, phase), by_stem in found.items():
        both = set(found.get((view, "ED"), {})) & set(found.get((view, "ES"), {}))
        if both:
            chosen[view, phase] = by_stem[min(both)]
    return chosen


def agreement(measured: Sequence[Volume]) -> tuple[Agreement, ...]:
    """Measured against recorded, for each quantity that some case records."""
    result = []
    for name in RECORDED:
        pairs = np.array(
            [
                (getattr(volume, name), recorded)
                for volume in measured
                if (recorded := getattr(volume, f"recorded_{name}")) is not None
                and getattr(volume, name) is not None
            ]
        )
        if not len(pairs):
            continue
        difference = pairs[:, 0] - pairs[:, 1]
        varied = len(pairs) > 2 and pairs.std(axis=0).min() > 0
        result.append(
            Agreement(
                name,
                len(pairs),
                round(float(difference.mean()), 3),
                round(1.96 * float(difference.std(ddof=1)), 3) if len(pairs) > 1 else None,
                round(float(np.corrcoef(pairs.T)[0, 1]), 4) if varied else None,
            )
        )
    return tuple(result)


def _of_case(
    case_id: str, axes: Mapping[tuple[str, str], Discs], case: Case | None
) -> Iterator[Volume]:
    views = sorted({view for view, _ in axes}, key=lambda view: (view != BIPLANE[0], view))
    both = [view for view in views if (view, "ED") in axes and (view, "ES") in axes]
    if not both:
        return
    in_mm = all(axes[view, phase].in_mm for view in both for phase in ("ED", "ES"))
    used = list(BIPLANE) if in_mm and set(BIPLANE) <= set(both) else both[:1]
    edv, esv = (volume_ml(*(axes[view, phase] for view in used)) for phase in ("ED", "ES"))
    if edv <= 0:
        return
    yield Volume(
        case_id=case_id,
        method="biplane" if len(used) == 2 else "single-plane",
        views=tuple(used),
        edv_ml=round(edv, 2) if in_mm else None,
        esv_ml=round(esv, 2) if in_mm else None,
        ef=round(ejection_fraction(edv, esv), 2),
        recorded_edv_ml=_recorded(case, "lv_edv_ml"),
        recorded_esv_ml=_recorded(case, "lv_esv_ml"),
        recorded_ef=_recorded(case, "ef"),
    )


def _view(name: str) -> str:
    """4CH and 2CH by their other names, such as A4C and ap2ch."""
    words = name.upper().replace("-", "").replace("_", "").replace(" ", "")
    known = {"4C": "4CH", "2C": "2CH"}
    core = words.removeprefix("AP").removeprefix("A").removesuffix("H")
    return known.get(core, name)


def _recorded(case: Case | None, name: str) -> float | None:
    value = None if case is None else case.info.get(name)
    return float(value) if isinstance(value, (int, float)) else None
