"""How real painted pixels are: measures against a known truth, in NumPy and SciPy alone.

Images are (h, w) grey levels, `hidden` is (h, w) bool, True where pixels were painted: a store's
`~keep`. No measure looks at a pixel outside the region that it is given, except those of the
seam, which look at both sides of it.

`scores` turns distances into proper scores; `texture` says what is compared;
`compare` says whether a difference between two samplers is more than the noise of one.
"""

from echogen.measures.texture import grain, masked_blur, seam_gradient
from measures.compare import Comparison, DrawTable, compare, figure, null_band
from measures.scores import Distances, absolute, distances, grey_levels, rms
from measures.texture import depth_bands, log_spectrum, polar, seam_steps, speckle_correlation

__all__ = [
    "Comparison",
    "Distances",
    "DrawTable",
    "absolute",
    "compare",
    "depth_bands",
    "distances",
    "figure",
    "grain",
    "grey_levels",
    "log_spectrum",
    "masked_blur",
    "null_band",
    "polar",
    "rms",
    "seam_gradient",
    "seam_steps",
    "speckle_correlation",
]
