"""The figure of a model card: how far samples lie from training frames, beside other frames.

Cumulative shares, of distances in grey levels above and in pattern below, drawn with PIL alone; no
picture of a patient is in it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.training.memorisation import Memorisation, Neighbours

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH, HEIGHT = 900, 1080
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 56, 24, 72
_INK, _PALE = (40, 40, 40), (222, 222, 222)


def figure(found: Memorisation) -> npt.NDArray[np.uint8]:
    """(1080, 900, 3) uint8: the share of images with a training frame no farther than x."""
    panels = [
        _panel(found, lambda x: x.rms, "How near is the nearest training frame?",
               "difference in grey levels of 0..255 (root mean square at 64 x 64)"),
        _panel(found, lambda x: x.pattern, "And how near is its pattern, whatever the brightness?",
               "difference in pattern, sqrt(2 - 2 correlation), at 64 x 64"),
    ]  # fmt: skip
    return np.concatenate(panels)


def _panel(
    found: Memorisation,
    distances: Callable[[Neighbours], npt.NDArray[np.float64]],
    title: str,
    words: str,
) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    curves = [
        ("generated samples", found.samples, (200, 40, 40)),
        ("held-out frames, of cases never seen", found.held_out, (30, 90, 180)),
        ("training frames, themselves left out", found.training, (130, 130, 130)),
    ]
    shown = [(name, np.sort(distances(x)), colour) for name, x, colour in curves if x is not None]
    limit = max(float(values[-1]) for _, values, _ in shown) * 1.05 or 1.0
    image = Image.new("RGB", (WIDTH, HEIGHT // 2), "white")
    draw = ImageDraw.Draw(image)
    small, large = (ImageFont.load_default(size) for size in (15, 19))
    _axes(draw, limit, words, small)
    draw.text((_LEFT, 18), title, _INK, font=large)
    for number, (name, values, colour) in enumerate(shown):
        shares = np.arange(len(values) + 1) / len(values)
        steps = np.repeat(values, 2)
        xs = [_x(0.0, limit), *(_x(float(v), limit) for v in steps), _x(limit, limit)]
        ys = [_y(float(share)) for share in np.repeat(shares, 2)]
        draw.line(list(zip(xs, ys, strict=True)), fill=colour, width=3)
        top = _y(1.0) + 14 + 24 * number
        draw.line([(_LEFT + 16, top + 9), (_LEFT + 44, top + 9)], fill=colour, width=3)
        draw.text((_LEFT + 54, top), f"{name} ({len(values)})", _INK, font=small)
    return np.asarray(image)


def _axes(draw: "ImageDraw", limit: float, words: str, font: Any) -> None:
    """Frame, grid, and what is measured in words."""
    for share in (0, 0.25, 0.5, 0.75, 1):
        draw.line([(_LEFT, _y(share)), (WIDTH - _RIGHT, _y(share))], fill=_PALE)
        draw.text((_LEFT - 10, _y(share)), f"{share:.0%}", _INK, font=font, anchor="rm")
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if limit / s <= 8)
    for tick in np.arange(0, limit, step):
        x = _x(float(tick), limit)
        draw.line([(x, _y(1)), (x, _y(0))], fill=_PALE)
        draw.text((x, _y(0) + 8), f"{tick:g}", _INK, font=font, anchor="ma")
    draw.rectangle([_LEFT, _y(1), WIDTH - _RIGHT, _y(0)], outline=_INK)
    draw.text(((WIDTH + _LEFT - _RIGHT) / 2, HEIGHT // 2 - 34), words, _INK, font=font, anchor="ma")


def _x(value: float, limit: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / limit


def _y(share: float) -> float:
    return HEIGHT // 2 - _BOTTOM - (HEIGHT // 2 - _TOP - _BOTTOM) * share
