"""Millimetres a pixel for files that must have some."""

import numpy as np

from echogen.exports.selection import Chosen
from echogen.support.words import counted


def spacings(chosen: Chosen) -> tuple[list[tuple[float, float]], list[str]]:
    """(row, col) mm a pixel of each sample, 1 where the store knows none, and a note of that."""
    found = chosen.columns["spacing_mm"]
    known = (np.isfinite(found) & (found > 0)).all(axis=1)
    values = np.where(known[:, None], found, 1.0)
    notes = []
    if not known.all():
        notes.append(
            f"{counted(int((~known).sum()), 'sample')} of unknown spacing: the files say 1 mm a "
            "pixel; lengths and volumes measured on them are in pixels."
        )
    return [(float(row), float(col)) for row, col in values], notes
