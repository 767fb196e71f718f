"""What is measured of each sample: names, units and words, and the measuring itself."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.geometry.sector import Sector
from echogen.measures.classes import Classes
from echogen.measures.shape import shape_of
from echogen.measures.texture import gcnr, speckle_snr
from echogen.measures.volume import Discs, long_axis, touches_border, volume_ml
from echogen.types import BACKGROUND, IGNORE

PARTS = ("cavity", "myocardium", "atrium")
DIVERSITY = (
    "cavity_radius",
    "cavity_angle",
    "cavity_axis",
    "cavity_share",
    "depth",
    "cavity_width",
)
"""Position (two), orientation, apparent size, shown depth, width: what a move can widen."""


@dataclass(frozen=True)
class Feature:
    """One measure of a sample.

    Attributes:
        name: short, for machines.
        unit: "" for ratios.
        words: for people.
        decimals: worth showing.
    """

    name: str
    unit: str
    words: str
    decimals: int = 1


def _of_part(part: str, words: str) -> tuple[Feature, ...]:
    return (
        Feature(f"{part}_area", "mm2", f"{words}: area", 0),
        Feature(f"{part}_share", "", f"{words}: share of the fan", 3),
        Feature(f"{part}_radius", "", f"{words}: depth in the fan (0 to 1)", 2),
        Feature(f"{part}_angle", "deg", f"{words}: angle from the fan's axis"),
        Feature(f"{part}_axis", "deg", f"{words}: principal axis"),  # see compare.unwrap_axes
        Feature(f"{part}_distance", "mm", f"{words}: centroid from the fan's apex"),
        Feature(f"{part}_width", "", f"{words}: width over height", 2),
    )


FEATURES: tuple[Feature, ...] = (
    Feature("depth", "mm", "fan: depth shown"),
    Feature("fan_angle", "deg", "fan: angle"),
    *_of_part("cavity", "LV cavity"),
    *_of_part("myocardium", "myocardium"),
    *_of_part("atrium", "left atrium"),
    Feature("lv_length", "mm", "LV: length from base to apex"),
    Feature("lv_volume", "ml", "LV: volume, single-plane discs"),
    Feature("gcnr", "", "contrast of cavity and myocardium (gCNR)", 2),
    Feature("speckle_snr", "", "speckle SNR of the myocardium", 2),
)
BY_NAME: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}
IN_MM = frozenset(feature.name for feature in FEATURES if feature.unit in ("mm", "mm2", "ml"))


@dataclass(frozen=True)
class LabelledImage:
    """One sample, as a dataset or a store gives it.

    Attributes:
        image: (h, w) uint8.
        mask: (h, w) uint8 class ids; None without labels.
        sector: (6,) the fan in the image's pixels, nan where it is not known.
        aspect: displayed width of a pixel over its height.
        spacing: (row, col) mm of heart a pixel; None where unknown.
        unlabelled: (h, w) bool where labels were taken away; None where none were.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    sector: npt.NDArray[Any]
    aspect: float
    spacing: tuple[float, float] | None
    unlabelled: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class SampleFeatures:
    """A sample's features, and what its volume is made of.

    Attributes:
        values: {feature: value}; nan where there is nothing to measure or no unit.
        discs: of the LV's cavity; None where there is no long axis.
        shares: {class id: its displayed area over the fan's} of the classes that are there.
    """

    values: dict[str, float]
    discs: Discs | None = None
    shares: Mapping[int, float] = field(default_factory=dict)


def features_of(sample: LabelledImage, parts: Classes) -> SampleFeatures:
    """All features of one sample.

    A volume needs the whole cavity: where it reaches the edge of the image, or pixels whose label
    was taken away, there is none.
    """
    values = dict.fromkeys(BY_NAME, math.nan)
    discs, shares = None, {}
    if not np.isfinite(sample.sector).all():
        return SampleFeatures(values)
    fan = Sector(*sample.sector.tolist())
    spacing = sample.spacing or (1.0, sample.aspect)
    values["depth"] = (fan.radius_far - fan.radius_near) * spacing[0]
    values["fan_angle"] = math.degrees(fan.angle_right - fan.angle_left)
    if sample.mask is not None:
        values.update(_labelled(sample, sample.mask, fan, spacing, parts))
        shares = _shares(sample.mask, fan, sample.aspect)
        cavity = sample.mask == parts.cavity
        wall = None if parts.myocardium is None else sample.mask == parts.myocardium
        if parts.cavity is not None and not _is_cut(cavity, sample.unlabelled):
            probe = ((fan.apex_row + 0.5) * spacing[0], (fan.apex_col + 0.5) * spacing[1])
            discs = long_axis(cavity, spacing, wall, probe)
            if discs is not None:
                values["lv_length"], values["lv_volume"] = discs.length, volume_ml(discs)
    if sample.spacing is None:
        values.update(dict.fromkeys(IN_MM, math.nan))
        discs = None if discs is None else replace(discs, in_mm=False)
    return SampleFeatures(values, discs, shares)


def _shares(mask: npt.NDArray[np.uint8], fan: Sector, aspect: float) -> dict[int, float]:
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    there = [k for k in np.flatnonzero(counts).tolist() if k not in (BACKGROUND, IGNORE)]
    return {k: float(counts[k]) * aspect / fan.area for k in there} if fan.area > 0 else {}


def _is_cut(cavity: npt.NDArray[np.bool_], unlabelled: npt.NDArray[np.bool_] | None) -> bool:
    if touches_border(cavity):
        return True
    if unlabelled is None or not unlabelled.any():
        return False
    return bool((ndimage.binary_dilation(cavity) & unlabelled).any())


def _labelled(
    sample: LabelledImage,
    mask: npt.NDArray[np.uint8],
    fan: Sector,
    spacing: tuple[float, float],
    parts: Classes,
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in PARTS:
        label = getattr(parts, name)
        shape = None if label is None else shape_of(mask == label, fan, sample.aspect, spacing)
        if shape is not None:
            found |= {
                f"{name}_{measure.removesuffix('_deg')}": value
                for measure, value in asdict(shape).items()
            }
    if parts.cavity is not None and parts.myocardium is not None:
        wall = mask == parts.myocardium
        found["gcnr"] = gcnr(sample.image, mask == parts.cavity, wall)
        found["speckle_snr"] = speckle_snr(sample.image, wall)
    return found
