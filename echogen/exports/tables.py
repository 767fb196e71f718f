"""What lies beside the samples: where each one comes from, and on what terms."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from echogen import __version__
from echogen.datasets import camus, cardiacuda, echonet, exported
from echogen.datasets.exported import SAMPLES
from echogen.datasets.info import PER_VIEW
from echogen.errors import CheckpointError
from echogen.exports.selection import Excerpt
from echogen.exports.writing import FilePlan
from echogen.models.registry import find_card
from echogen.store import COLUMNS
from echogen.support.words import counted
from echogen.types import BACKGROUND

README_FILE = "README.md"
METHOD = (
    'G. Van De Vyver et al., "Generative augmentations for improved cardiac ultrasound '
    'segmentation using diffusion models", arXiv:2502.20100, 2025'
)
_REFERENCES = {
    camus.LICENCE: camus.REFERENCE,
    cardiacuda.LICENCE: cardiacuda.REFERENCE,
    **{source.licence: source.reference for source in (echonet.DYNAMIC, echonet.PEDIATRIC)},
}
_PARTS = {
    "spacing_mm": ("row", "col"),
    "sector": tuple("012345"),
    "crop": ("row0", "col0", "row1", "col1"),
    "seen": ("row0", "col0", "row1", "col1"),
}
_LEFT_OUT = ("status", "reason")


def samples_csv(excerpt: Excerpt, plan: FilePlan, there: Sequence[bool]) -> str:
    """One line a sample that was written: its files, then every column of the store.

    Numbers read back as the store's own; unknown ones are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column.name for column in COLUMNS if column.name not in _LEFT_OUT]
    heads = [
        f"{name}_{part}" if part else name for name in names for part in _PARTS.get(name, ("",))
    ]
    writer.writerow(["name", "image", "label", *plan.columns, *heads])
    for i, item in enumerate(plan.items):
        if not there[i]:
            continue
        values = [value for name in names for value in np.atleast_1d(excerpt.columns[name][i])]
        extra = [column[i] for column in plan.columns.values()]
        writer.writerow([item.name, item.image, item.label, *extra, *map(_cell, values)])
    return text.getvalue()


def classes_csv(excerpt: Excerpt) -> str:
    """One line a class, as `listed_classes` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(exported.COLUMNS)
    writer.writerows(sorted({BACKGROUND: "background", **excerpt.record.labels}.items()))
    return text.getvalue()


def _classes(excerpt: Excerpt, ids: Mapping[int, int] | None) -> str:
    """Class ids, as they are in the files, and their names."""
    named = {**excerpt.record.labels, BACKGROUND: "background"}
    here = {label if ids is None else ids[label]: name for label, name in named.items()}
    return ", ".join(f"{label} {_line(name)}" for label, name in sorted(here.items()))


def _cell(value: Any) -> str:
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else str(value)
    return str(value)


def readme(title: str, plan: FilePlan, excerpt: Excerpt, notes: Sequence[str], written: int) -> str:
    """What this folder is, what its names mean, and the terms that it comes under.

    Args:
        title: of the page.
        plan: which file holds what.
        excerpt: the samples.
        notes: what else a reader should know.
        written: samples that are here.
    """
    listed = "".join(f"- {_line(note)}\n" for note in notes)
    digest = _line(excerpt.record.plan_digest)[:16]
    labelled = excerpt.kind != "generated"
    classes = f"Class ids: {_classes(excerpt, plan.ids)}.\n\n" if labelled else ""
    return (
        f"# {_line(title)}\n\n{counted(written, 'sample')}, exported by echogen {__version__} from "
        f"the store `{_line(excerpt.store.name)}` (plan {digest}).\n\n{plan.layout}\n\n"
        f"{classes}`{SAMPLES}` has "
        "one line per sample: its files, the frame and case that it was made from, its copy (0 is "
        "the original), its millimetres a pixel, its move, and the SHA-256 of its pixels in the "
        "store. Images of one case belong into one split; copies do not belong into "
        "validation.\n\nIn copies, part of the picture is painted by a model: plausible, not true. "
        "Do not measure on it, and do not use it for diagnosis.\n"
        + (f"\n## Notes\n\n{listed}" if listed else "")
        + f"\n## Terms\n\n{terms(excerpt)}"
    )


def terms(excerpt: Excerpt) -> str:
    """The dataset's and the model's terms, and what to cite, as a list."""
    dataset, model = excerpt.record.dataset, excerpt.record.checkpoint
    lines, cited = [], {}
    if excerpt.kind != "generated":
        named = _line(dataset.root_name or "not named")
        known = _line(dataset.licence)
        own = known or "the store records no terms; those of your dataset still apply"
        lines.append(f"- Images and labels, dataset `{named}`: {own}.")
        if known in _REFERENCES:
            cited[_REFERENCES[known]] = "the dataset"
    name = _line(model.name or "not named")
    lines.append(f"- What is painted, model `{name}`: {_line(model.licence or 'unknown')}.")
    citation = _citation(name)
    if citation:
        cited.setdefault(citation, f"the model `{name}`")
    else:
        lines.append("- What the model asks you to cite is in its model card.")
    cited[METHOD] = "the method"
    listed = "".join(f"- {what}: {reference}.\n" for reference, what in cited.items())
    return "\n".join(lines) + f"\n\nCite:\n\n{listed}"


def _citation(model: str) -> str:
    with suppress(CheckpointError):  # a user's own list of models is damaged: not this command's
        card = find_card(model)
        return card.citation if card else ""
    return ""


def _line(text: Any) -> str:
    """On one line, whatever a store says."""
    return " ".join(str(text).split())


def case_facts(info: Mapping[str, Any], view: str) -> str:
    """What is known of a case, as CAMUS' `Info_VIEW.cfg`; empty where nothing is."""
    found = []
    for key, name in _CFG.items():
        of_view = info.get(f"{key}_{view.lower()}")
        value = of_view if key in PER_VIEW or of_view is not None else info.get(key)
        if value is not None:
            number = isinstance(value, float | int)
            found.append(f"{name}: {value:g}\n" if number else f"{name}: {_line(value)}\n")
    return "".join(found)


_CFG = {
    "ed_frame": "ED",
    "es_frame": "ES",
    "frames": "NbFrame",
    "sex": "Sex",
    "age": "Age",
    "image_quality": "ImageQuality",
    "ef": "EF",
    "lv_edv_ml": "LVedv",
    "lv_esv_ml": "LVesv",
    "frame_rate": "FrameRate",
}
