"""Pictures to train the network that proposes fans on: made up, so that they carry no one's terms.

A fan of random shape is filled with a beam-space picture, a phantom's or one made of noise and
ovals, hollowed as blood and shadows hollow it, laid on a background, drawn over and compressed. One
in four shows no fan: rectangles, noise, menus, spectra, discs, fans on their side or tip. None of
this is shared with `damage`, which measures.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from echogen.geometry.network import letterbox
from echogen.geometry.sector import Sector
from echogen.phantom import make_frame

Array = npt.NDArray[np.float32]
Rng = np.random.Generator
DEPTHS, BEAMS = 192, 160
WORDS = (
    "EF", "HR", "bpm", "cm", "MI", "TIs", "Adult", "Echo", "FR", "52Hz", "2D", "Gn", "60",
    "C50", "HPen", "Res", "Soft", "Gen", "Freeze", "Name", "ID", "TTE", "V:", "1.3", "0.8",
    "15", "10", "5", "R", "P", "JPEG", "68%", "LVEDV", "88", "ml", "2011-03-04", "Cardiac",
    "12:40", "Mode", "Menu", "Patient",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """(SIDE, SIDE) uint8 and its fan in its pixels, None where it shows none."""

    image: npt.NDArray[np.uint8]
    fan: Sector | None


def phantom_beams(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """(n, DEPTHS, BEAMS) beams of `count` phantoms; those that a border cuts are left out."""
    beams = []
    for index in range(1, count + 1):
        view, phase = ("2CH", "4CH")[index % 2], ("ED", "ES")[index // 2 % 2]
        frame = make_frame(index, view, phase, seed, (0.45, 0.45))  # type: ignore[arg-type]
        fan = frame.sector
        across, depth = _centres(BEAMS)[None, :], _centres(DEPTHS)[:, None]
        angle = fan.angle_left + across * (fan.angle_right - fan.angle_left)
        radius = fan.radius_near + depth * (fan.radius_far - fan.radius_near)
        row = (fan.apex_row + radius * np.cos(angle)) / 0.45 - 0.5
        col = (fan.apex_col + radius * np.sin(angle)) / 0.45 - 0.5
        height, width = frame.image.shape
        if ((row < height) & (col >= 0) & (col < width)).mean() > 0.93:
            beams.append(ndimage.map_coordinates(frame.image, [row, col], order=1))
    return np.stack(beams)


def picture(rng: Rng, phantoms: npt.NDArray[np.uint8]) -> Picture:
    """One picture, with a fan in three of four."""
    while True:
        long = int(rng.choice([112, 128, 160, 200, 256, 256, 320]))
        ratio = 1.0 if rng.random() < 0.3 else float(np.exp(rng.uniform(np.log(0.7), np.log(1.9))))
        height, width = (long, int(long * ratio)) if ratio < 1 else (int(long / ratio), long)
        if rng.random() < 0.25:
            return _finished(rng, _without_fan(rng, phantoms, height, width), None)
        fan = _fan(rng, height, width)
        echoes, inside = _scan(_beams(rng, phantoms), fan, height, width)
        if inside.any() and (echoes[inside] > 12).mean() > 0.1:
            behind = _background(rng, height, width)
            haze = behind if rng.random() < 0.4 else 0
            image = np.where(inside, np.maximum(echoes, haze), behind).astype(np.float32)
            return _finished(rng, image, fan)


def _centres(count: int) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(count) + 0.5) / count)


def _resized(image: npt.NDArray[Any], width: int, height: int, how: Any = None) -> Array:
    how = Image.Resampling.BILINEAR if how is None else how
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).resize((width, height), how)
    )


def _patches(rng: Rng, rows: int, cols: int, cells: tuple[int, int]) -> Array:
    """(rows, cols) smooth noise in about [0, 1]."""
    coarse = rng.random((cells[0] + 2, cells[1] + 2))
    return _resized(coarse, cols, rows, Image.Resampling.BICUBIC)


# What is within a fan, on the grid of depth (rows) and angle (columns).


def _beams(rng: Rng, phantoms: npt.NDArray[np.uint8]) -> Array:
    if rng.random() < 0.4:
        beams = _made_up(rng)
    else:
        beams = phantoms[rng.integers(len(phantoms))].astype(np.float32)
        if rng.random() < 0.5:
            beams = beams[:, ::-1]
        if rng.random() < 0.4:
            top, bottom, left, right = rng.integers(0, (20, 40, 25, 25))
            beams = _resized(beams[top : DEPTHS - bottom, left : BEAMS - right], BEAMS, DEPTHS)
        if rng.random() < 0.4:
            cells = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
            beams = beams * (0.4 + 1.2 * _patches(rng, DEPTHS, BEAMS, cells))
    beams = np.clip(beams, 0, None)
    if rng.random() < 0.85:
        beams = beams * _kept(rng)
    kind = rng.random()
    if kind < 0.35:
        beams = np.clip(beams - rng.uniform(5, 60), 0, None) * rng.uniform(1, 2)
    elif kind < 0.55:
        beams = 255 * np.clip(beams / 255, 0, 1) ** rng.uniform(0.6, 1.8)
    return np.asarray(np.clip(beams * rng.uniform(0.25, 1.5), 0, 255), dtype=np.float32)


def _made_up(rng: Rng) -> Array:
    """Speckle on patches, with dark ovals in bright walls."""
    width = (rng.uniform(0.4, 2), rng.uniform(0.6, 4))
    speckle = ndimage.gaussian_filter(rng.standard_normal((DEPTHS, BEAMS)), width)
    speckle /= speckle.std()
    cells = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    grey = _patches(rng, DEPTHS, BEAMS, cells) * rng.uniform(40, 220) + rng.uniform(-40, 60)
    beams = grey * (1 + rng.uniform(0.1, 0.6) * speckle)
    depth, across = _centres(DEPTHS)[:, None], _centres(BEAMS)[None, :]
    for _ in range(rng.integers(0, 6)):
        down, right = depth - rng.uniform(0, 1), across - rng.uniform(-0.1, 1.1)
        turn = rng.uniform(0, np.pi)
        size = np.hypot(
            (down * np.cos(turn) + right * np.sin(turn)) / rng.uniform(0.05, 0.35),
            (right * np.cos(turn) - down * np.sin(turn)) / rng.uniform(0.05, 0.3),
        )
        beams *= 1 - rng.uniform(0.6, 1) * _beyond(1 - size, 1 / rng.uniform(6, 40))
        if rng.random() < 0.5:
            wall = np.exp(-(((size - 1) / rng.uniform(0.05, 0.3)) ** 2))
            beams += wall * rng.uniform(40, 200) * (1 + 0.3 * speckle)
    return np.asarray(beams, dtype=np.float32)


def _beyond(value: npt.NDArray[Any], soft: float) -> npt.NDArray[Any]:
    """1 where the value is positive, 0 where negative, `soft` wide between."""
    return np.asarray(1 / (1 + np.exp(-np.clip(value / soft, -30, 30))))


def _kept(rng: Rng) -> npt.NDArray[Any]:
    """(DEPTHS, BEAMS) shares, 0 where blood and shadows leave nothing to see."""
    depth, across = _centres(DEPTHS)[:, None], _centres(BEAMS)[None, :]
    kept = np.ones((DEPTHS, BEAMS))
    heavy = rng.random() < 0.25
    for from_edge in (across, 1 - across):
        if rng.random() > (0.9 if heavy else 0.55):
            continue
        if heavy:  # all but the first part of the edge
            length, begin = rng.uniform(0.6, 1.0), rng.uniform(0.02, 0.3)
            most = rng.uniform(0.12, 0.45)
        else:
            length = rng.uniform(0.1, 0.95)
            begin, most = rng.uniform(-0.1, 1 - 0.7 * length), rng.uniform(0.02, 0.5)
        hump = np.sin(np.pi * np.clip((depth - begin) / length, 0, 1)) ** rng.uniform(0.2, 1.2)
        rough = _patches(rng, DEPTHS, 1, (int(rng.integers(2, 9)), 1)) - 0.5
        reach = most * (hump + rng.uniform(0, 0.8) * rough * (hump > 0))
        kept *= 1 - rng.uniform(0.85, 1) * _beyond(reach - from_edge, rng.uniform(0.003, 0.05))
    bumps = np.clip(_patches(rng, 1, BEAMS, (1, int(rng.integers(1, 6)))) * 1.3 - 0.1, 0, 1)
    if rng.random() < 0.35:
        kept *= 1 - _beyond(rng.uniform(0, 0.35) * bumps - (1 - depth), rng.uniform(0.004, 0.06))
    if rng.random() < 0.25:
        reach, soft = rng.uniform(0, 0.3) * bumps, rng.uniform(0.01, 0.05)
        top = rng.uniform(0, 0.12) + reach if rng.random() < 0.5 else 0 * reach
        kept *= 1 - _beyond(reach - np.abs(depth - top), soft)
    if rng.random() < 0.4:
        cells = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        holes = rng.uniform(0.1, 0.5) - _patches(rng, DEPTHS, BEAMS, cells)
        kept *= 1 - _beyond(holes, rng.uniform(0.01, 0.1))
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            beam = _beyond(rng.uniform(0.01, 0.1) - np.abs(across - rng.random()), 0.015)
            kept *= 1 - rng.uniform(0.5, 1) * beam * _beyond(depth - rng.uniform(-0.2, 0.6), 0.03)
    return kept


# The fan and what surrounds it.


def _fan(rng: Rng, height: int, width: int) -> Sector:
    """In pixels; mostly upright, most of it within the picture."""
    while True:
        opening = np.deg2rad(rng.uniform(55, 100) if rng.random() < 0.6 else rng.uniform(30, 120))
        lean = 0.0 if rng.random() < 0.75 else np.deg2rad(rng.uniform(-15, 15))
        left, right = lean - opening / 2, lean + opening / 2
        kind = rng.random()
        near = 0.0 if kind < 0.3 else rng.uniform(0, 0.12) if kind < 0.7 else rng.uniform(0.1, 0.45)
        angle = np.linspace(left, right, 41)
        rows = np.concatenate([np.cos(angle), near * np.cos(angle)])
        cols = np.concatenate([np.sin(angle), near * np.sin(angle)])
        if rng.random() < 0.8:
            far = min(width / np.ptp(cols), height / np.ptp(rows))
            far *= rng.uniform(0.9, 1.12) if rng.random() < 0.5 else rng.uniform(0.5, 1.2)
        else:
            far = max(width / np.ptp(cols), height / np.ptp(rows)) * rng.uniform(0.8, 1.1)

        def placed(size: int, at: npt.NDArray[Any], far: float) -> float:
            slack = size - np.ptp(at) * far
            centred = rng.random() < 0.5
            share = 0.5 + rng.uniform(-0.08, 0.08) if centred else rng.uniform(0, 1)
            return float(slack * share - at.min() * far)

        row, col = placed(height, rows, far), placed(width, cols, far)
        fan = Sector(row, col, float(left), float(right), float(near * far), float(far))
        coarse = fan.mask((height // 4, width // 4), (4.0, 4.0))
        if coarse.sum() * 16 > 0.62 * fan.area and 0.12 < coarse.mean() < 0.93:
            return fan


def _scan(
    beams: Array, fan: Sector, height: int, width: int
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The beams on the picture's grid, 0 outside the fan, and where the fan is."""
    inside = fan.mask((height, width), (1.0, 1.0))
    down = (np.arange(height) + 0.5)[:, None] - fan.apex_row
    right = (np.arange(width) + 0.5)[None, :] - fan.apex_col
    depth = (np.hypot(down, right)[inside] - fan.radius_near) / (fan.radius_far - fan.radius_near)
    across = np.arctan2(right, down)[inside] - fan.angle_left
    across /= fan.angle_right - fan.angle_left
    out = np.zeros((height, width), np.float32)
    place = [depth * DEPTHS - 0.5, across * BEAMS - 0.5]
    out[inside] = ndimage.map_coordinates(beams, place, order=1, mode="nearest", prefilter=False)
    return out, inside


def _background(rng: Rng, height: int, width: int) -> Array:
    kind = rng.random()
    out = np.zeros((height, width))
    if kind > 0.9:
        out += np.linspace(*rng.uniform(0, 40, 2), height)[:, None]
    elif kind > 0.8:
        out += rng.uniform(0, 15)
        out += np.abs(rng.standard_normal((height, width))) * rng.uniform(1, 8)
    elif kind > 0.6:
        out += rng.uniform(1, 40)
    return np.asarray(out, dtype=np.float32)


def _finished(rng: Rng, image: Array, fan: Sector | None) -> Picture:
    """Drawn over, blurred, compressed and noisy, by chance each, on the network's grid."""
    if rng.random() < 0.7:
        image = _drawn_over(rng, image, fan)
    if rng.random() < 0.25:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.3))
    if rng.random() < 0.5:
        stream = io.BytesIO()
        grey = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(stream, "JPEG", quality=int(rng.integers(12, 96)))
        image = np.asarray(Image.open(stream), np.float32)
    if rng.random() < 0.15:
        image = image + rng.standard_normal(image.shape) * rng.uniform(1, 6)
    small, scale, origin = letterbox(np.clip(np.rint(image), 0, 255).astype(np.uint8), (1.0, 1.0))
    if fan is None:
        return Picture(small, None)
    scaled = Sector(
        fan.apex_row * scale + origin[0], fan.apex_col * scale + origin[1], fan.angle_left,
        fan.angle_right, fan.radius_near * scale, fan.radius_far * scale,
    )  # fmt: skip
    return Picture(small, scaled)


# Overlays.


def _drawn_over(rng: Rng, image: Array, fan: Sector | None) -> Array:
    height, width = image.shape
    shown = fan or Sector(0.0, width / 2, -0.7, 0.7, 0.0, height)
    canvas = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for chance, draw in _OVERLAYS:
        if rng.random() < chance:
            draw(rng, pen, shown, height, width)
    return np.asarray(canvas, np.float32)


def _grey(rng: Rng) -> int:
    return int(rng.integers(70, 256))


def _words(rng: Rng) -> str:
    return " ".join(str(word) for word in rng.choice(WORDS, int(rng.integers(1, 5))))


def _text(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    size, fill = int(rng.integers(7, 19)), _grey(rng)
    where = rng.integers(4)
    x = rng.uniform(*((0, 0.1), (0.6, 0.95), (0, 0.8), (0.1, 0.7))[where]) * width
    y = rng.uniform(*((0, 0.3), (0, 0.3), (0.85, 0.97), (0.1, 0.9))[where]) * height
    for line in range(rng.integers(1, 7) if where < 2 else 1):
        place = (x, y + 1.15 * size * line)
        pen.text(place, _words(rng), fill=fill, font=ImageFont.load_default(size))


def _on(fan: Sector, radius: float, angle: float) -> tuple[float, float]:
    return fan.apex_col + radius * np.sin(angle), fan.apex_row + radius * np.cos(angle)


def _edge_ticks(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    side = int(rng.choice([-1, 1]))
    angle = fan.angle_left if side < 0 else fan.angle_right
    away, long = (
        rng.uniform(0.002, 0.09) * fan.radius_far,
        rng.uniform(0.005, 0.03) * fan.radius_far,
    )
    fill, along, begin = _grey(rng), rng.random() < 0.5, rng.uniform(0, 0.5) * fan.radius_far
    step = rng.uniform(0.03, 0.12) * fan.radius_far
    for radius in np.arange(begin, fan.radius_far, max(step, 2.0)):
        x, y = _on(fan, float(radius), angle)
        x, y = x + side * away * np.cos(angle), y - side * away * np.sin(angle)
        turn = angle if along else side * np.pi / 2
        pen.line((x, y, x + (long + 1) * np.sin(turn), y + (long + 1) * np.cos(turn)), fill)


def _ruler(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    x = (rng.uniform(0, 0.08) if rng.random() < 0.5 else rng.uniform(0.92, 1)) * width
    fill, dots, long = _grey(rng), rng.random() < 0.5, rng.uniform(2, 8)
    for y in np.arange(0, rng.uniform(0.6, 1) * height, rng.uniform(0.02, 0.1) * height):
        if dots:
            pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill)
        else:
            pen.line((x, y, x + long, y), fill)


def _lines(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    """The middle line, the fan's outline, or a dotted arc."""
    kind, fill = rng.integers(3), _grey(rng)
    if kind == 2:
        for angle in np.linspace(fan.angle_left, fan.angle_right, int(rng.integers(5, 30))):
            pen.point(_on(fan, fan.radius_far + 2, float(angle)), fill)
        return
    for angle in (0.0,) if kind else (fan.angle_left, fan.angle_right):
        pen.line((*_on(fan, fan.radius_near, angle), *_on(fan, fan.radius_far, angle)), fill)


def _trace(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    begin, end = sorted(rng.integers(0, width, 2)) if rng.random() < 0.4 else (0, width)
    x = np.arange(begin, max(end, begin + 5))
    beat = (x / (rng.uniform(0.15, 0.6) * width) + rng.random()) % 1
    wave = sum(
        tall * np.exp(-(((beat - at) / wide) ** 2))
        for at, wide, tall in ((0.3, 0.015, 1), (0.34, 0.015, -0.25), (0.55, 0.05, 0.2))
    )
    y = rng.uniform(0.8, 0.98) * height - rng.uniform(0.02, 0.12) * height * wave
    pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), _grey(rng), int(rng.integers(1, 3)))


def _probe(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    x, y = _on(fan, fan.radius_near * rng.uniform(0.8, 1), 0.0)
    x, y = x + rng.uniform(-0.12, 0.12) * width, y - rng.uniform(0, 0.06) * height
    size, fill = rng.uniform(1, 0.03 * width + 2), _grey(rng)
    kind, box = rng.integers(4), (x - size, y - size, x + size, y + size)
    if kind == 0:
        pen.ellipse(box, outline=fill)
    elif kind == 1:
        pen.ellipse(box, fill)
    elif kind == 2:
        letter = str(rng.choice(list("VPSGM")))
        pen.text((x, y), letter, fill=fill, font=ImageFont.load_default(int(rng.integers(7, 19))))
    else:
        pen.polygon((x, y, x + size, y - size, x - size, y - size), fill)


def _bar(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    x, y = rng.uniform(0, 0.97) * width, rng.uniform(0, 0.5) * height
    wide, long = rng.uniform(0.01, 0.04) * width, int(rng.uniform(0.1, 0.4) * height)
    for row in range(long):
        pen.line((x, y + row, x + wide, y + row), int(255 * (1 - row / long)))


def _panel(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    x, y = rng.uniform(0, 0.9) * width, rng.uniform(0, 0.9) * height
    black = rng.random() < 0.3
    wide, tall = rng.uniform(0.02, 0.2) * width, rng.uniform(0.02, 0.15) * height
    pen.rectangle((x, y, x + wide, y + tall), 0 if black else _grey(rng))


def _title(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    pen.rectangle((0, 0, width, int(rng.uniform(0.01, 0.1) * height)), int(rng.integers(20, 120)))
    pen.text((3, 0), _words(rng), fill=_grey(rng))


def _frame(rng: Rng, pen: ImageDraw.ImageDraw, fan: Sector, height: int, width: int) -> None:
    pen.rectangle((0, 0, width - 1, height - 1), None, _grey(rng), int(rng.integers(1, 4)))


Overlay = Callable[[Rng, ImageDraw.ImageDraw, Sector, int, int], None]
_OVERLAYS: tuple[tuple[float, Overlay], ...] = (
    (0.45, _text), (0.35, _text), (0.25, _text), (0.12, _title), (0.4, _edge_ticks), (0.3, _ruler),
    (0.25, _lines), (0.25, _trace), (0.45, _probe), (0.2, _bar), (0.15, _panel), (0.06, _frame),
)  # fmt: skip


# No fan.


def _without_fan(rng: Rng, phantoms: npt.NDArray[np.uint8], height: int, width: int) -> Array:
    behind, beams = _background(rng, height, width), _beams(rng, phantoms)
    full = _resized(beams, width, height)
    row, col = np.mgrid[0:height, 0:width].astype(np.float32)
    kind = rng.integers(11)
    if kind < 2:  # a linear array's rectangle or parallelogram
        lean = 0.0 if rng.random() < 0.6 else rng.uniform(-0.3, 0.3)
        left, right = rng.uniform((-0.05, 0.65), (0.35, 1.05)) * width
        top, bottom = rng.uniform((-0.05, 0.6), (0.25, 1.05)) * height
        across = col - lean * (row - height / 2)
        inside = (row >= top) & (row <= bottom) & (across >= left) & (across <= right)
        return np.where(inside, full, behind)
    if kind == 2:
        grain = ndimage.gaussian_filter(rng.standard_normal((height, width)), rng.uniform(0, 4))
        noise = grain / grain.std() * rng.uniform(5, 70) + rng.uniform(-40, 120)
        return np.asarray(np.clip(noise, 0, 255), dtype=np.float32)
    if kind == 3:
        return full
    if kind == 4:
        return _menu(rng, behind)
    if kind == 5:  # a disc or a ring
        size = np.hypot(
            (row - rng.uniform(0.35, 0.65) * height) / (rng.uniform(0.2, 0.55) * height),
            (col - rng.uniform(0.35, 0.65) * width) / (rng.uniform(0.2, 0.55) * width),
        )
        hole = 0.0 if rng.random() < 0.5 else rng.uniform(0.1, 0.7)
        return np.where((size < 1) & (size >= hole), full, behind)
    if kind in (6, 7):  # a fan on its tip or on its side
        turned = kind == 7
        size = (width, height) if turned else (height, width)
        scan = np.maximum(_scan(beams, _fan(rng, *size), *size)[0], _background(rng, *size))
        return np.rot90(scan, int(rng.choice([1, 3]))) if turned else scan[::-1]
    if kind == 8:  # patches
        cells = (int(rng.integers(2, 9)), int(rng.integers(2, 9)))
        shown = _patches(rng, height, width, cells) > rng.uniform(0.4, 0.7)
        return np.where(shown, full, behind)
    if kind == 9:  # a spectrum or a line over time
        peaks = np.abs(np.sin(np.pi * col / rng.uniform(0.1, 0.5) / width)) ** rng.uniform(0.3, 3)
        base, tall = rng.uniform(0.3, 0.95) * height, rng.uniform(0.1, 0.6) * height
        below = row > base if rng.random() < 0.4 else (row < base) & (row > base - tall * peaks)
        lines = np.repeat(rng.standard_normal((height, 1)), width, 1) * rng.uniform(0, 40)
        grain = np.clip(lines + rng.uniform(30, 120) + rng.standard_normal(row.shape) * 25, 0, 255)
        return np.where(below, grain, behind).astype(np.float32)
    corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 8))))
    outline = Image.new("L", (width, height))
    reach = rng.uniform(0.2, 0.6, len(corners))
    places = zip(
        width * (0.5 + reach * np.cos(corners)),
        height * (0.5 + reach * np.sin(corners)),
        strict=True,
    )
    ImageDraw.Draw(outline).polygon([(float(x), float(y)) for x, y in places], 255)
    return np.where(np.asarray(outline) > 0, full, behind)


def _menu(rng: Rng, behind: Array) -> Array:
    height, width = behind.shape
    canvas = Image.fromarray(behind.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        pen.rectangle((0, 0, width, height), int(rng.integers(0, 256)))
    for _ in range(rng.integers(2, 25)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        wide, tall = rng.uniform(5, 0.5 * width), rng.uniform(2, 0.3 * height)
        fill, edge, ink = (int(grey) for grey in rng.integers(0, 256, 3))
        if rng.random() < 0.6:
            pen.rectangle((x, y, x + wide, y + tall), fill if rng.random() < 0.6 else None, edge)
        else:
            pen.line((x, y, rng.uniform(0, width), rng.uniform(0, height)), edge)
        font = ImageFont.load_default(int(rng.integers(7, 15)))
        pen.text((x, y), _words(rng), fill=ink, font=font)
    return np.asarray(canvas, np.float32)
