"""`--to nifti`: CAMUS' names and folders, `database_nifti/CASE/CASE_VIEW_PHASE[_gt].nii.gz`.

A copy is a case of its own, `patient0001c02`, so that readers of CAMUS accept it; the lists in
`database_split/` keep it in its case's split. echogen's reader `camus` reads it back.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from echogen.datasets.base import FRAME_NAME
from echogen.datasets.camus import CITATION, LICENCE, REFERENCE, SPLIT_PREFIX, SPLITS
from echogen.errors import UsageError
from echogen.exports.naming import LONGEST, case_folders, sample_names, unique_names
from echogen.exports.selection import Excerpt
from echogen.exports.tables import case_facts
from echogen.exports.writing import FilePlan, SampleFiles
from echogen.support.words import counted

ROOT = "database_nifti"
LAYOUT = (
    f"`{ROOT}/CASE/CASE_VIEW_PHASE.nii.gz` are grey levels, `..._gt.nii.gz` class ids (255: to be "
    "ignored), as CAMUS names them, each with its own millimetres. Copy 2 of `patient0001` is the "
    "case `patient0001c02`: split by the column `case_id` of the table, or by the lists in "
    f"`{SPLITS}/`, never by folder."
)


def plan_nifti(excerpt: Excerpt, cases: Sequence[Mapping[str, Any]]) -> FilePlan:
    """Which file holds which sample.

    Args:
        excerpt: the samples.
        cases: what the store knows of its cases, each with its `id`, unless that is empty.

    Raises:
        UsageError: the store's images have no labels.
    """
    if excerpt.kind == "generated":
        raise UsageError(
            f"--to nifti: {excerpt.store} holds generated images without labels, and CAMUS' layout "
            "has pairs. Use --to folder, zarr or h5."
        )
    columns = excerpt.columns
    folders, names = case_folders(columns), sample_names(columns)
    spacing, notes = spacings(excerpt)
    items = tuple(
        SampleFiles(
            row=int(row),
            name=name,
            image=f"{ROOT}/{folder}/{name}.nii.gz",
            label=f"{ROOT}/{folder}/{name}_gt.nii.gz",
            sha256=str(digest),
            spacing_mm=mm,
        )
        for row, name, folder, digest, mm in zip(
            excerpt.rows, names, folders, columns["sha256"], spacing, strict=True
        )
    )
    other = sum(FRAME_NAME.fullmatch(name) is None for name in names)
    if other:
        notes.append(
            f"{counted(other, 'sample')} without CAMUS' view and phase, or too many of one: their "
            "files have their sample's id, and readers of CAMUS pass over them."
        )
    tables = partial(_tables, excerpt, cases, folders)
    return FilePlan(items, "nifti", tables, layout=LAYOUT, notes=tuple(notes))


def spacings(excerpt: Excerpt) -> tuple[list[tuple[float, float]], list[str]]:
    """(row, col) mm a pixel of each sample, 1 where the store knows none, and a note of that."""
    found = excerpt.columns["spacing_mm"]
    known = (np.isfinite(found) & (found > 0)).all(axis=1)
    values = np.where(known[:, None], found, 1.0)
    notes = []
    if not known.all():
        notes.append(
            f"{counted(int((~known).sum()), 'sample')} of unknown spacing: the files say 1 mm per "
            "pixel; lengths and volumes measured on them are in pixels."
        )
    return [(float(row), float(col)) for row, col in values], notes


def _tables(
    excerpt: Excerpt,
    cases: Sequence[Mapping[str, Any]],
    folders: Sequence[str],
    there: Sequence[bool],
) -> dict[str, str]:
    """Lists of splits, what is known of each case, and CAMUS' terms where it is CAMUS."""
    columns = excerpt.columns
    known = {str(case.get("id", "")): case for case in cases}
    found: dict[str, str] = {}
    members: dict[str, dict[str, None]] = {}
    for i, folder in enumerate(folders):
        if not there[i]:
            continue
        view, split = str(columns["view"][i]), str(columns["split"][i])
        if split:
            members.setdefault(split, {})[folder] = None
        facts = case_facts(known.get(str(columns["case_id"][i]), {}), view)
        if facts and view.isalnum() and view.isascii() and len(view) <= LONGEST:
            found[f"{ROOT}/{folder}/Info_{view}.cfg"] = facts
    for name, folders_there in zip(unique_names(list(members)), members.values(), strict=True):
        found[f"{SPLITS}/{SPLIT_PREFIX}{name}.txt"] = "".join(f"{f}\n" for f in folders_there)
    if excerpt.record.dataset.licence == LICENCE:
        found[f"{ROOT}/{CITATION}"] = f"# CAMUS\n\nPlease cite: {REFERENCE}.\n\n{LICENCE}.\n"
    return found
