"""How real painted pixels are: measures against a known truth, in NumPy and SciPy alone.

Images are (h, w) grey levels, `hidden` is (h, w) bool, True where pixels were painted: a store's
`~keep`. No measure looks at a pixel outside the region that it is given, except those of the
seam, which look at both sides of it.

`scores` turns distances into proper scores; `texture` and `seam` say what is compared;
`compare` says whether a difference between two samplers is more than the noise of one.
"""

from echogen.measures.grain import grain, log_spectrum, speckle_correlation
from echogen.measures.regions import depth_bands, masked_blur, polar
from echogen.measures.seam import seam_gradient, seam_steps
from measures.compare import Comparison, Measured, compare, figure, null_band
from measures.scores import Distances, absolute, distances, grey_levels, rms

__all__ = [
    "Comparison",
    "Distances",
    "Measured",
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
