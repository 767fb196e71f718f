"""Moves of a frame: drawn as parameters, composed into one affine matrix in millimetres.

All randomness lies in `draw`; everything after it is a pure function of the drawn parameters, so a
recorded row of a plan can be replayed. The moves and their default ranges are those of Van De
Vyver et al. (arXiv 2502.20100): depth, tilt, sector width, shift, in this order.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from echogen.config import MoveConfig, Resize, TransformConfig
from echogen.geometry.sector import Sector

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TransformParams:
    """One drawn move; the defaults are the identity.

    Attributes:
        depth: factor on the shown depth; the heart appears 1 / depth as large.
        tilt_deg: turn about the apex, degrees, positive towards larger columns.
        width: factor across the sector's axis; below 1 the heart appears narrower.
        shift_x, shift_y: along columns and rows, in fractions of the field's height.
    """

    depth: float = 1.0
    tilt_deg: float = 0.0
    width: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0


IDENTITY = TransformParams()
MOVES = tuple(field.name for field in fields(TransformParams))
"""The parameters of a move: depth, tilt_deg, width, shift_x, shift_y."""


@dataclass(frozen=True)
class Grid:
    """A pixel grid laid over a frame's field.

    Attributes:
        shape: (rows, cols).
        spacing_mm: (row, col) mm between displayed pixels.
        origin_mm: (row, col) mm of the outer corner of pixel (0, 0).
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    origin_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def size_mm(self) -> tuple[float, float]:
        """(height, width) of the field."""
        return self.shape[0] * self.spacing_mm[0], self.shape[1] * self.spacing_mm[1]

    @property
    def index_to_mm(self) -> Matrix:
        """3 x 3: pixel index (centres at integers) to mm."""
        (row, col), (row0, col0) = self.spacing_mm, self.origin_mm
        return np.array([[row, 0, row0 + row / 2], [0, col, col0 + col / 2], [0, 0, 1.0]])

    def centres_mm(self, matrix: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """(rows, cols) mm of every pixel's centre, after `matrix` where one is given."""
        to_mm = self.index_to_mm if matrix is None else matrix @ self.index_to_mm
        rows = np.arange(self.shape[0], dtype=np.float64)[:, None]
        cols = np.arange(self.shape[1], dtype=np.float64)[None, :]
        return (
            to_mm[0, 0] * rows + to_mm[0, 1] * cols + to_mm[0, 2],
            to_mm[1, 0] * rows + to_mm[1, 1] * cols + to_mm[1, 2],
        )


def model_grid(
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    size: int,
    resize: Resize = "stretch",
) -> Grid:
    """The model's `size` x `size` grid over a frame of `shape` pixels.

    `stretch` fills the square and changes the aspect; `letterbox` keeps it and centres the frame.
    """
    height, width = Grid(shape, spacing_mm).size_mm
    if resize == "stretch":
        return Grid((size, size), (height / size, width / size))
    side = max(height, width)
    origin = ((height - side) / 2, (width - side) / 2)
    return Grid((size, size), (side / size, side / size), origin)


def draw(rng: np.random.Generator, config: MoveConfig) -> TransformParams:
    """Draw one move.

    The generator advances by the same number of draws whatever is chosen, so that a range or a
    probability can be changed without disturbing the other parameters. Values are float32, so
    that a store's columns hold them exactly.
    """
    chosen = rng.random(4) < config.probability
    fraction = rng.random(5)

    def between(limits: tuple[float, float], u: float) -> float:
        return float(np.float32(limits[0] + (limits[1] - limits[0]) * u))

    radius = between(config.shift, float(fraction[3])) if chosen[3] else 0.0
    direction = 2 * math.pi * float(fraction[4])
    return TransformParams(
        depth=between(config.depth, float(fraction[0])) if chosen[0] else 1.0,
        tilt_deg=between(config.tilt_deg, float(fraction[1])) if chosen[1] else 0.0,
        width=between(config.width, float(fraction[2])) if chosen[2] else 1.0,
        shift_x=float(np.float32(radius * math.cos(direction))),
        shift_y=float(np.float32(radius * math.sin(direction))),
    )


def matrix(params: TransformParams, sector: Sector, height_mm: float) -> Matrix:
    """The move as one 3 x 3 matrix on (row, col, 1) mm: where a source point is displayed.

    depth, then tilt, then width, then shift. The axis of `width` is the vertical line through the
    apex, so that a change of width is a change of the column spacing and nothing else.
    """
    apex = (sector.apex_row, sector.apex_col)
    tilt = math.radians(params.tilt_deg)
    cos, sin = math.cos(tilt), math.sin(tilt)
    shrink = np.diag([1 / params.depth, 1 / params.depth])
    turn = np.array([[cos, -sin], [sin, cos]])
    widen = np.diag([1.0, params.width])
    linear = widen @ turn @ shrink
    shift = np.array([params.shift_y, params.shift_x]) * height_mm
    composed = np.eye(3)
    composed[:2, :2] = linear
    composed[:2, 2] = np.array(apex) - linear @ np.array(apex) + shift
    return composed


def inverse(move: Matrix) -> Matrix:
    """The 3 x 3 matrix that takes displayed points back to the source."""
    return np.asarray(np.linalg.inv(move), dtype=np.float64)


def sample_spacing(params: TransformParams, grid: Grid) -> tuple[float, float]:
    """(row, col) millimetres of heart per pixel of a sample on `grid`.

    Depth makes a pixel cover more of the heart, width changes that along columns only; tilt and
    shift change none. An area or volume measured with it equals the source's.
    """
    row, col = grid.spacing_mm
    return row * params.depth, col * params.depth / params.width


def sector_on_grid(sector: Sector, grid: Grid) -> tuple[npt.NDArray[np.float32], float]:
    """The fan in a grid's own pixels, and the displayed aspect of a pixel.

    Returns:
        (6,) apex row, apex col (pixel index, centres at integers), angle left, angle right
        (radians from straight down, after scaling columns by the aspect), radius near, radius far
        (in rows); and aspect = mm width of a displayed pixel / mm height. A pixel (i, j) lies in
        the fan where hypot(di, dj * aspect) is between the radii and atan2(dj * aspect, di)
        between the angles, with (di, dj) its offset from the apex.
    """
    row, col = grid.spacing_mm
    values = [
        (sector.apex_row - grid.origin_mm[0]) / row - 0.5,
        (sector.apex_col - grid.origin_mm[1]) / col - 0.5,
        sector.angle_left,
        sector.angle_right,
        sector.radius_near / row,
        sector.radius_far / row,
    ]
    return np.array(values, dtype=np.float32), col / row


def footprint(
    sector: Sector, frame_grid: Grid, rows_mm: Matrix, cols_mm: Matrix
) -> npt.NDArray[np.bool_]:
    """Which points, in the source's mm, hold ultrasound: in the fan and inside the frame."""
    height, width = frame_grid.size_mm
    in_frame = (rows_mm >= 0) & (rows_mm <= height) & (cols_mm >= 0) & (cols_mm <= width)
    return in_frame & sector.contains(rows_mm, cols_mm)


@dataclass(frozen=True)
class Validity:
    """What a draw would leave of the frame, both in [0, 1].

    Attributes:
        label_inside: share of the labelled points that stay in the sector.
        hole: share of the sector that the move leaves empty.
    """

    label_inside: float
    hole: float

    def accepted(self, config: TransformConfig) -> bool:
        """Whether the draw makes a copy worth painting."""
        enough = self.label_inside >= config.min_label_inside
        return enough and config.min_hole <= self.hole <= config.max_hole


def assess(
    params: TransformParams,
    sector: Sector,
    frame_grid: Grid,
    label_points_mm: npt.NDArray[np.float64],
    config: TransformConfig,
) -> Validity:
    """Judge a draw without resampling anything.

    Args:
        params: the drawn move.
        sector: of the source frame.
        frame_grid: the native grid of the frame's field.
        label_points_mm: (K, 2) row and col mm of labelled pixels of the source.
        config: with `outside = "inpaint"` the whole field counts as the sector.
    """
    height, width = frame_grid.size_mm
    move = matrix(params, sector, height)
    moved = label_points_mm @ move[:2, :2].T + move[:2, 2]
    rows, cols = moved[:, 0], moved[:, 1]
    if config.outside == "inpaint":
        inside = (rows >= 0) & (rows <= height) & (cols >= 0) & (cols <= width)
    else:
        inside = footprint(sector, frame_grid, rows, cols)

    coarse = Grid((96, 96), (height / 96, width / 96))
    target = footprint(sector, frame_grid, *coarse.centres_mm())
    filled = footprint(sector, frame_grid, *coarse.centres_mm(inverse(move)))
    count = int(target.sum())
    hole = float((target & ~filled).sum()) / count if count else 0.0
    return Validity(float(inside.mean()) if len(inside) else 0.0, hole)
