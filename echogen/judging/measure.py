"""How much heart is seen where the label says background, on painted pixels.

What is painted beside a structure that the source's fan cut off may continue it: its label ends
where the picture ended. That is known (the column `cut`), and does not count within some distance.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.types import BACKGROUND

Classes = Annotated[npt.NDArray[np.uint8], "(h, w) uint8, class ids"]
Bools = npt.NDArray[np.bool_]
MARGIN = 0.025
"""Of the image's height: so far from a label, what is seen belongs to it."""
CONTINUED = 0.11
"""Of the image's height: so far a structure may go on beyond a label that was cut."""


def unlabelled(
    seen: Classes, label: Classes, keep: Bools, classes: tuple[int, ...], cut: frozenset[int]
) -> Bools:
    """The pixels that show an unlabelled part of a heart.

    Args:
        seen: what a network tells of the image, in the label's ids.
        label: of the sample; 255 is neither heart nor background.
        keep: True where the pixel comes from the source.
        classes: the heart's ids.
        cut: of these, the ones whose label the source's fan cut off.

    Returns:
        (h, w) bool: the largest piece of heart that is painted, called background by the label, and
        apart from the labelled heart; all False where there is none.
    """
    painted: Bools = ~keep & (label == BACKGROUND) & np.isin(seen, classes)
    labelled = np.isin(label, classes)
    if not painted.any() or not labelled.any():
        return painted
    margin, far = max(1.0, MARGIN * len(label)), CONTINUED * len(label)
    apart = painted & (_distance(labelled) > margin)
    for one in sorted(cut & set(np.unique(label[labelled]).tolist())):
        distance = _distance(label == one)
        beside = painted & (seen == one) & (distance <= far)
        pieces, _ = ndimage.label(beside)
        apart &= ~(beside & np.isin(pieces, np.unique(pieces[beside & (distance <= margin)])))
    pieces, count = ndimage.label(apart)
    if not count:
        return np.zeros(label.shape, np.bool_)
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]), np.bool_)


def _distance(where: Bools) -> npt.NDArray[np.float64]:
    """From each pixel to the nearest that is True; one is."""
    return np.asarray(ndimage.distance_transform_edt(~where), np.float64)
