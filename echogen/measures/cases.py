"""Volumes and ejection fractions of cases, and how they agree with what a dataset records."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from echogen.measures.collect import FeatureTable
from echogen.measures.report import Agreement, Volume
from echogen.measures.volume import Discs, ejection_fraction, volume_ml
from echogen.types import Case

BIPLANE = ("4CH", "2CH")
RECORDED = {"edv_ml": "lv_edv_ml", "esv_ml": "lv_esv_ml", "ef": "ef"}


def volumes(table: FeatureTable) -> tuple[Volume, ...]:
    """Of every case whose real frames hold both phases in one view or more.

    Biplane where both apical views have both phases, else single-plane of the four-chamber view, or
    of whichever there is.
    """
    known = {case.case_id: case for case in table.cases}
    by_case: dict[str, dict[tuple[str, str], Discs]] = defaultdict(dict)
    for names in table.names:
        if names.copy == 0 and names.phase and names.sample_id in table.discs:
            by_case[names.case_id][_view(names.view), names.phase] = table.discs[names.sample_id]
    return tuple(
        volume
        for case_id, axes in sorted(by_case.items())
        for volume in _of_case(case_id, axes, known.get(case_id))
    )


def agreement(measured: Sequence[Volume]) -> tuple[Agreement, ...]:
    """Measured against recorded, for each quantity that some case records."""
    result = []
    for name in RECORDED:
        pairs = np.array(
            [
                (getattr(volume, name), recorded)
                for volume in measured
                if (recorded := getattr(volume, f"recorded_{name}")) is not None
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
    used = list(BIPLANE) if set(BIPLANE) <= set(both) else both[:1]
    edv, esv = (volume_ml(*(axes[view, phase] for view in used)) for phase in ("ED", "ES"))
    if edv <= 0:
        return
    yield Volume(
        case_id=case_id,
        method="biplane" if len(used) == 2 else "single-plane",
        views=tuple(used),
        edv_ml=round(edv, 2),
        esv_ml=round(esv, 2),
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
