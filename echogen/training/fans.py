"""Fans and moves on the model's grid, for a whole batch at once and on any device.

What `geometry.sector`, `geometry.transforms` and `geometry.render` say in millimetres of one frame,
here in rows of the grid: offsets from the apex, (down, across), across being columns times the
aspect. A move is given by the way back, a (2, 3) matrix from (down, across, 1) of a displayed pixel
to the source's (down, across), so that moves one after the other are one matrix. All edges of a fan
and of its picture are straight or round: a pixel's distance to each is a product or two, no search.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fans:
    """B fans on a square grid.

    Attributes:
        numbers: (B, 11) float32 `training.frames.FAN_COLUMNS`.
        side: of the grid, pixels.
    """

    numbers: Tensor
    side: int

    def __getitem__(self, rows: Tensor) -> "Fans":
        """Some of them."""
        return Fans(self.numbers[rows], self.side)

    def repeated(self, times: int) -> "Fans":
        """(B * times) fans, each so many times."""
        return Fans(self.numbers.repeat_interleave(times, dim=0), self.side)

    @property
    def height(self) -> Tensor:
        """(B,) rows of the source's picture: what fractions of a field's height are of."""
        return self.numbers[:, 9] - self.numbers[:, 7]

    @property
    def radius(self) -> Tensor:
        """(B,) of the far arc, rows."""
        return self.numbers[:, 5]

    def offsets(self, step: int = 1) -> tuple[Tensor, Tensor]:
        """Every `step`-th pixel's (down (B, h, 1), across (B, 1, w)) from the apex, rows."""
        places = torch.arange(step // 2, self.side, step, device=self.numbers.device)
        row, col, aspect = (self.numbers[:, k, None] for k in (0, 1, 6))
        return (places - row)[:, :, None], ((places - col) * aspect)[:, None, :]

    def source_pixels(self, back: Tensor) -> Tensor:
        """(B, S, S, 2) where each displayed pixel comes from, as `grid_sample` wants it: (column,
        row) in [-1, 1] from outer edge to outer edge.
        """
        down, across = self.offsets()
        row, col, aspect = (self.numbers[:, k, None, None] for k in (0, 1, 6))
        place = (
            _affine(back[:, 1], down, across) / aspect + col,
            _affine(back[:, 0], down, across) + row,
        )
        return torch.stack(place, dim=-1) * (2 / self.side) + (1 / self.side - 1)

    def within(self, back: Tensor, border: Tensor | float = 0.0, step: int = 1) -> Tensor:
        """Which displayed pixels show ultrasound.

        Args:
            back: (B, 2, 3) of the move.
            border: (B,) rows of the display, or one number: what lies so near to the moved fan's
                edge, or to the moved picture's, does not count.
            step: of the pixels.

        Returns:
            (B, h, w) bool.
        """
        down, across = self.offsets(step)
        # `render` measures to the centre of the nearest pixel outside, about half a pixel away.
        border = (torch.as_tensor(border).to(back).expand(len(back)) - 0.5).clamp(min=0)
        beyond = [_affine(line, down, across) > 0 for line in self._lines(back, border)]
        left, right, *picture = beyond
        wide = (self.numbers[:, 3] - self.numbers[:, 2] > math.pi)[:, None, None]
        inside = (left & right) | (wide & (left | right))
        for edge in picture:
            inside &= edge
        # From an arc, the way in the display is the source's over the length of its gradient there.
        source_down, source_across = (_affine(back[:, k], down, across) for k in (0, 1))
        near, far = self.numbers[:, 4, None, None], self.numbers[:, 5, None, None]
        turned = back[:, :, :2].transpose(1, 2) @ back
        stretched = torch.hypot(*(_affine(turned[:, k], down, across) for k in (0, 1)))
        radius = torch.hypot(source_down, source_across)
        needed = border[:, None, None] * stretched
        return inside & ((radius - near) * radius >= needed) & ((far - radius) * radius >= needed)

    def _lines(self, back: Tensor, border: Tensor) -> list[Tensor]:
        """The straight edges, left ray and right ray and the picture's four, each as (B, 3): its
        distance inwards in rows of the display, less the border, is this times (down, across, 1).
        """
        row, col, left, right = (self.numbers[:, k] for k in range(4))
        aspect, row0, col0, row1, col1 = (self.numbers[:, k] for k in range(6, 11))
        zero, one = torch.zeros_like(row), torch.ones_like(row)
        edges = (  # inwards in the source: along (down, across), from an offset
            (-left.sin(), left.cos(), zero),
            (right.sin(), -right.cos(), zero),
            (one, zero, row + 0.5 - row0),
            (zero, one, (col + 0.5 - col0) * aspect),
            (-one, zero, row1 - row - 0.5),
            (zero, -one, (col1 - col - 0.5) * aspect),
        )
        lines = []
        for down, across, start in edges:
            line = down[:, None] * back[:, 0] + across[:, None] * back[:, 1]
            line[:, 2] += start
            line = line / line[:, :2].norm(dim=1, keepdim=True)
            line[:, 2] -= border
            lines.append(line)
        return lines


def still(fans: Fans) -> Tensor:
    """(B, 2, 3): no move."""
    return torch.eye(2, 3, device=fans.numbers.device).repeat(len(fans.numbers), 1, 1)


def way_back(depth: Tensor, tilt: Tensor, width: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """The inverse of `geometry.transforms.matrix`: depth, tilt, width, then shift.

    Args:
        depth: (B,) factor on the shown depth.
        tilt: (B,) radians.
        width: (B,) factor across the axis.
        down, across: (B,) shift, rows.

    Returns:
        (B, 2, 3).
    """
    cos, sin = depth * tilt.cos(), depth * tilt.sin()
    # Less the shift and the width, then turned back and grown.
    first = (cos, sin / width, -(cos * down + sin * across / width))
    second = (-sin, cos / width, sin * down - cos * across / width)
    return torch.stack([torch.stack(first, dim=-1), torch.stack(second, dim=-1)], dim=-2)


def after(first: Tensor, second: Tensor) -> Tensor:
    """The way back through `second`, then through `first`, the move that was made first."""
    moved = first[..., :2] @ second
    return torch.cat([moved[..., :2], moved[..., 2:] + first[..., 2:]], dim=-1)


def _affine(line: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(B, h, w) of (B, 3) times (down, across, 1)."""
    along, beside, start = (line[:, k, None, None] for k in range(3))
    return (along * down + start) + beside * across
