"""From a frame and a drawn move to a sample: warp once, decide what is kept, carry the label.

Frames are those of `geometry.field`: cut to their fan and black outside of it. Image and label go
through one matrix, straight from native resolution to the model's grid. What lies outside the
target sector is known to be background; what is unknown is the target sector minus the moved source
sector, less a border where a scan's edge carries artefacts.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from echogen.config import TransformConfig
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import (
    Grid,
    Matrix,
    TransformParams,
    footprint,
    inverse,
    matrix,
    sample_spacing,
)
from echogen.types import BACKGROUND, IGNORE, Frame, Sample, UInt8Grid

CUT_TOLERANCE_PX = 1
MOST_AWAY = 4  # heights and widths of the grid: a cut that moved beyond is near nothing on it


def frame_grid(frame: Frame) -> Grid:
    """The frame's own pixels, in mm (or in pixels where the spacing is unknown)."""
    height, width = frame.image.shape
    return Grid((int(height), int(width)), frame.unit_spacing)


def warp(
    image: npt.NDArray[np.float32], source: Grid, move: Matrix, target: Grid
) -> npt.NDArray[np.float32]:
    """Resample once from `source` to `target` through `move`, anti-aliased where it shrinks.

    Linear interpolation after a Gaussian whose variance, added to the interpolation's own 1/6,
    makes s^2 / 6: that of the triangle filter for a target pixel s source pixels long. Identity on
    the same grid returns the input. Outside the source the value is 0.

    Args:
        image: (H, W) on `source`.
        source, target: the two grids.
        move: 3 x 3 on (row, col, 1) mm, source to target.
    """
    to_source = inverse(source.index_to_mm) @ inverse(move) @ target.index_to_mm
    linear, offset = to_source[:2, :2], to_source[:2, 2]
    lengths = np.hypot(linear[:, 0], linear[:, 1])
    sigma = [math.sqrt(max(0.0, (length**2 - 1) / 6)) for length in lengths]
    smooth = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)
    warped: npt.NDArray[np.float32] = ndimage.affine_transform(
        smooth,
        linear,
        offset=offset,
        output_shape=target.shape,
        order=1,
        mode="grid-constant",
        cval=0.0,
    )
    return warped


def warp_image(image: npt.NDArray[np.uint8], source: Grid, move: Matrix, target: Grid) -> UInt8Grid:
    """`warp` for grey levels, rounded to uint8."""
    warped = warp(image.astype(np.float32), source, move, target)
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(warped), 0, 255).astype(np.uint8)
    return levels


def warp_label(label: npt.NDArray[np.uint8], source: Grid, move: Matrix, target: Grid) -> UInt8Grid:
    """`warp` for class ids: one-hot, linear, argmax; no class appears that the source lacks.

    A tie goes to the lower id. Background takes what the classes leave, so the field's outside is
    background.
    """
    present = [int(k) for k in np.unique(label) if k != BACKGROUND]
    best = np.zeros(target.shape, dtype=np.float32)
    total = np.zeros(target.shape, dtype=np.float32)
    moved = np.zeros(target.shape, dtype=np.uint8)
    for class_id in present:
        share = warp((label == class_id).astype(np.float32), source, move, target)
        total += share
        wins = share > best
        moved[wins] = class_id
        best[wins] = share[wins]
    moved[(1.0 - total) >= best] = BACKGROUND
    return moved


def cut_pixels(
    label: npt.NDArray[np.uint8], sector: Sector, grid: Grid
) -> dict[int, npt.NDArray[np.bool_]]:
    """Where each class touches or passes the edge of the source's sector.

    Returns:
        {class id: (H, W) bool} for the classes that do, on the frame's own grid.
    """
    inside = sector.mask(grid.shape, grid.spacing_mm, grid.origin_mm)
    well_inside = ndimage.binary_erosion(inside, np.ones((3, 3), bool), CUT_TOLERANCE_PX)
    cuts = {}
    for class_id in np.unique(label):
        if class_id != BACKGROUND:
            touching = (label == class_id) & ~well_inside
            if touching.any():
                cuts[int(class_id)] = touching
    return cuts


def render_original(frame: Frame, target: Grid) -> Sample:
    """A frame's field on the model's grid: everything kept, nothing to paint."""
    source = frame_grid(frame)
    move = np.eye(3)
    return Sample(
        image=warp_image(frame.image, source, move, target),
        keep=np.ones(target.shape, dtype=np.bool_),
        label=warp_label(frame.label, source, move, target),
        label_on_paint=0.0,
    )


def render(
    frame: Frame,
    sector: Sector,
    params: TransformParams,
    target: Grid,
    config: TransformConfig,
) -> Sample:
    """Move a frame and say what is left to paint.

    Args:
        frame: a field at native resolution.
        sector: of the field, mm.
        params: the drawn move.
        target: the model's grid over it.
        config: border and the policies on labels and on the outside.
    """
    source = frame_grid(frame)
    move = matrix(params, sector, source.size_mm[0])
    moved_sector = footprint(sector, source, *target.centres_mm(inverse(move)))
    border_mm = config.border * source.shape[0] * source.spacing_mm[0]
    real = _erode(moved_sector, border_mm, target.spacing_mm)
    centres = target.centres_mm()
    shown = footprint(sector, source, *centres)
    beyond = sector.contains(*centres) & ~shown
    if config.outside == "background":
        real &= shown
        keep = real | ~shown
    else:
        keep = real

    image = warp_image(frame.image, source, move, target)
    image[~real] = 0
    label = warp_label(frame.label, source, move, target)
    if config.label_outside == "clip":
        label[~shown] = BACKGROUND
    if config.labels_on_paint == "clip":
        label[~real] = BACKGROUND
    elif config.labels_on_paint == "ignore":
        near_cut = _near_cut(frame, sector, params, move, target, config.ignore_distance_mm)
        label[near_cut & ~keep] = IGNORE

    labelled = (label != BACKGROUND) & (label != IGNORE)
    count = int(labelled.sum())
    return Sample(
        image=image,
        keep=keep,
        label=label,
        label_on_paint=float((labelled & ~keep).sum()) / count if count else 0.0,
        real=real,
        beyond=beyond & keep,
    )


def _erode(
    inside: npt.NDArray[np.bool_], border_mm: float, spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    if border_mm == 0 or inside.all():
        return inside.copy()
    distance = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    return np.asarray(distance > border_mm, dtype=np.bool_)


def _near_cut(
    frame: Frame,
    sector: Sector,
    params: TransformParams,
    move: Matrix,
    target: Grid,
    distance_mm: float,
) -> npt.NDArray[np.bool_]:
    """Pixels within `distance_mm` of the heart from where a label was cut by the sector's edge."""
    source = frame_grid(frame)
    cuts = cut_pixels(frame.label, sector, source)
    if not cuts:
        return np.zeros(target.shape, dtype=np.bool_)
    points = np.argwhere(np.logical_or.reduce(list(cuts.values())))
    homogeneous = np.column_stack([points, np.ones(len(points))])
    to_target = inverse(target.index_to_mm) @ move @ source.index_to_mm
    index = np.rint((homogeneous @ to_target.T)[:, :2]).astype(int)
    # Cuts that moved outside the grid still matter next to its edge: measure on a padded grid.
    spacing = sample_spacing(params, target)
    height, width = target.shape
    pad = [
        min(math.ceil(distance_mm / step) + 1, MOST_AWAY * size)
        for step, size in zip(spacing, target.shape, strict=True)
    ]
    away = np.ones((height + 2 * pad[0], width + 2 * pad[1]), dtype=np.bool_)
    rows, cols = index[:, 0] + pad[0], index[:, 1] + pad[1]
    seen = (rows >= 0) & (rows < away.shape[0]) & (cols >= 0) & (cols < away.shape[1])
    if not seen.any():
        return np.zeros(target.shape, dtype=np.bool_)
    away[rows[seen], cols[seen]] = False
    distance = ndimage.distance_transform_edt(away, sampling=spacing)
    near: npt.NDArray[np.bool_] = (
        distance[pad[0] : pad[0] + height, pad[1] : pad[1] + width] <= distance_mm
    )
    return near
