"""Pictures that hold no fan, drawn: what a fit must refuse.

Each is a function (generator) -> (H, W) uint8, and follows its generator alone.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from damage import WORDS
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]
Rng = np.random.Generator


def linear(rng: Rng) -> Picture:
    """A linear array: a rectangle of layered speckle with margins on some sides."""
    height, width = _size(rng)
    depth = np.linspace(0, 1, height)[:, None]
    layers = 1 + 0.7 * np.sin(2 * np.pi * (rng.uniform(1, 6) * depth + rng.random()))
    wide = _field(rng, (height, width), rng.uniform(10, 40))
    tissue = 70 * layers * (1 - 0.6 * depth) * np.exp(0.5 * wide) * _speckle(rng, (height, width))
    top, bottom, left, right = (
        int(m) for m in rng.uniform(0, 0.2, 4) * [height, height, width, width]
    )
    if rng.random() < 0.3:
        top = bottom = left = right = 0
    picture = np.zeros((height, width))
    inside = (slice(top, height - bottom), slice(left, width - right))
    picture[inside] = tissue[inside]
    return _grey(picture)


def noise(rng: Rng) -> Picture:
    """A whole picture of one texture: white, smooth, speckled or streaked."""
    height, width = _size(rng)
    sigma = [(0.0, 0.0), (rng.uniform(1, 12),) * 2, (0.8, 2.5), (0.5, rng.uniform(5, 30))][
        rng.integers(4)
    ]
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), sigma)
    return _grey(rng.uniform(20, 120) + rng.uniform(10, 50) * field / field.std())


def speckle(rng: Rng) -> Picture:
    """Speckle with dark and bright blobs, as a phantom of cysts fills a picture."""
    shape = _size(rng)
    blobs = _field(rng, shape, rng.uniform(15, 60))
    return _grey(rng.uniform(30, 80) * np.exp(0.8 * blobs) * _speckle(rng, shape))


def menu(rng: Rng) -> Picture:
    """A program's window: bars, panels, a table, buttons and text in colour, as grey levels."""
    height, width = _size(rng)
    dark = rng.random() < 0.5
    back, ink = ((18, 18, 24), (210, 210, 210)) if dark else ((240, 240, 240), (20, 20, 30))
    canvas = Image.new("RGB", (width, height), back)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(8, height // 40))
    colour = lambda: tuple(int(level) for level in rng.integers(0, 256, 3))  # noqa: E731
    pen.rectangle([0, 0, width, height // 14], fill=colour())
    for _ in range(rng.integers(2, 7)):
        x, y = rng.uniform(0, 0.8, 2) * (width, height)
        place = [x, y, x + rng.uniform(0.1, 0.5) * width, y + rng.uniform(0.05, 0.5) * height]
        pen.rectangle(place, fill=colour() if rng.random() < 0.5 else back, outline=ink)
    rows, columns = rng.integers(3, 14), rng.integers(2, 7)
    for row in range(rows):
        for column in range(columns):
            at = ((0.05 + 0.9 * column / columns) * width, (0.1 + 0.85 * row / rows) * height)
            pen.text(at, str(rng.choice(WORDS)), fill=ink, font=font)
        if rng.random() < 0.5:
            pen.line([(0.04 * width, at[1]), (0.95 * width, at[1])], fill=ink)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(0, 0.85, 2) * (width, height)
        place = [x, y, x + 0.12 * width, y + 0.05 * height]
        pen.rounded_rectangle(place, 5, fill=colour(), outline=ink)
    return np.asarray(canvas.convert("L"))


def spectrum(rng: Rng) -> Picture:
    """A Doppler spectrum: bright envelopes along a baseline, with marks."""
    height, width = _size(rng)
    base = rng.uniform(0.3, 0.7)
    beat = (np.linspace(0, rng.uniform(2, 6), width) + rng.random()) % 1
    envelope = sum(
        high * np.exp(-(((beat - at) / wide) ** 2))
        for high, at, wide in zip(
            rng.uniform(0.1, 0.4, 2), rng.random(2), rng.uniform(0.05, 0.15, 2), strict=True
        )
    )
    rows = np.linspace(0, 1, height)[:, None]
    above = (base - rows) / np.maximum(envelope, 1e-3)
    bright = np.where((above > 0) & (above < 1), 60 + 160 * above**2, 0)
    picture = bright * _speckle(rng, (height, width))
    line = int(base * height)
    picture[line - 1 : line + 1] = 140
    margin = int(rng.uniform(0, 0.15) * width)
    picture[:, :margin] = 0
    return _grey(picture)


def mmode(rng: Rng) -> Picture:
    """M-mode: layers that move up and down in time, in a rectangle with margins."""
    height, width = _size(rng)
    beat = np.linspace(0, rng.uniform(2, 7), width) * 2 * np.pi
    rows = np.linspace(0, 1, height)[:, None]
    picture = np.full((height, width), 8.0)
    for _ in range(rng.integers(4, 10)):
        at = rng.random() + rng.uniform(0, 0.08) * np.sin(beat + rng.uniform(0, 6))
        picture += rng.uniform(50, 200) * np.exp(-(((rows - at) / rng.uniform(0.005, 0.04)) ** 2))
    picture *= _speckle(rng, (height, width))
    top, side = int(rng.uniform(0, 0.3) * height), int(rng.uniform(0, 0.15) * width)
    picture[:top] = 0
    picture[:, :side] = 0
    return _grey(picture)


def photograph(rng: Rng) -> Picture:
    """A photograph's light: smooth fields of all sizes, a horizon, a bright source, a vignette."""
    height, width = _size(rng)
    field = sum(_field(rng, (height, width), size) * size for size in (4, 12, 36, 80))
    picture = 110 + 45 * field / np.std(field)
    rows, cols = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture += 60 * (rows > rng.uniform(-0.5, 0.5)) * (rng.random() < 0.5)
    far = np.hypot(rows - rng.uniform(-0.6, 0.6), cols - rng.uniform(-0.6, 0.6))
    picture += rng.uniform(0, 120) * np.exp(-((far / 0.4) ** 2))
    return _grey(picture * (1 - rng.uniform(0, 0.6) * np.hypot(rows, cols) ** 2 / 2))


def rectangle(rng: Rng) -> Picture:
    """One or several boxes of tissue with text beside them: a split screen."""
    height, width = _size(rng)
    picture = np.zeros((height, width))
    count = int(rng.integers(1, 4))
    tissue = 60 * np.exp(0.7 * _field(rng, (height, width), 25)) * _speckle(rng, (height, width))
    edges = np.linspace(rng.uniform(0, 0.15), rng.uniform(0.8, 1), count + 1)
    top, bottom = int(rng.uniform(0.02, 0.2) * height), int(rng.uniform(0.7, 0.98) * height)
    for left, right in zip(edges, edges[1:] - 0.02, strict=False):
        inside = (slice(top, bottom), slice(int(left * width), int(right * width)))
        picture[inside] = tissue[inside]
    return np.maximum(_grey(picture), _labels(rng, (height, width)))


def disc(rng: Rng) -> Picture:
    """A round scan, as a rotating catheter's, or an ellipse of tissue."""
    height, width = _size(rng)
    rows, cols = np.mgrid[:height, :width]
    middle = rng.uniform(0.4, 0.6, 2) * (height, width)
    radius = rng.uniform(0.25, 0.5) * min(height, width) * np.array([1, rng.uniform(0.7, 1.4)])
    away = np.hypot((rows - middle[0]) / radius[0], (cols - middle[1]) / radius[1])
    tissue = 70 * np.exp(0.6 * _field(rng, (height, width), 20)) * _speckle(rng, (height, width))
    tissue *= (away > rng.uniform(0, 0.3)) & (away < 1)
    return np.maximum(_grey(tissue), _labels(rng, (height, width)))


def shapes(rng: Rng) -> Picture:
    """Plain triangles, diamonds, discs and bars: icons and play buttons."""
    height, width = _size(rng)
    canvas = Image.new("L", (width, height), int(rng.choice([0, 0, 30, 128, 255])))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        size = rng.uniform(0.1, 0.6) * min(height, width)
        x, y = rng.uniform(0.1, 0.9, 2) * (width, height)
        turn = rng.uniform(0, 2 * np.pi)
        corners = int(rng.integers(3, 7))
        angles = turn + np.arange(corners) * 2 * np.pi / corners
        points = [(x + size * np.cos(a) / 2, y + size * np.sin(a) / 2) for a in angles]
        if rng.random() < 0.25:
            pen.ellipse(
                [x - size / 2, y - size / 2, x + size / 2, y + size / 2], int(rng.integers(256))
            )
        else:
            pen.polygon(points, fill=int(rng.integers(256)))
    return np.asarray(canvas)


def labels(rng: Rng) -> Picture:
    """A report's page: text alone."""
    return _labels(rng, _size(rng), 60)


NEGATIVES: dict[str, Callable[[Rng], Picture]] = {
    "linear": linear,
    "noise": noise,
    "speckle": speckle,
    "menu": menu,
    "spectrum": spectrum,
    "mmode": mmode,
    "photograph": photograph,
    "rectangle": rectangle,
    "disc": disc,
    "shapes": shapes,
    "labels": labels,
}


def _size(rng: Rng) -> tuple[int, int]:
    if rng.random() < 0.2:
        return 112, 112
    return int(rng.integers(200, 700)), int(rng.integers(240, 900))


def _field(rng: Rng, shape: tuple[int, int], size: float) -> Array:
    """Smooth, of mean 0 and deviation 1; drawn coarsely."""
    coarse = rng.normal(size=[max(2, int(2 * side / size) + 2) for side in shape])
    zoomed = ndimage.zoom(
        coarse, [side / n for side, n in zip(shape, coarse.shape, strict=True)], order=3
    )
    return np.asarray(zoomed / zoomed.std())


def _speckle(rng: Rng, shape: tuple[int, int]) -> Array:
    grain = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 0.8, 1.4))
    strength = np.hypot(*grain)
    return np.asarray(strength / strength.mean())


def _labels(rng: Rng, shape: tuple[int, int], count: int = 8) -> Picture:
    canvas = Image.new("L", shape[::-1])
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(count // 2, count + 1)):
        font = ImageFont.load_default(rng.uniform(0.02, 0.05) * shape[0] + 4)
        at = rng.uniform(0, 0.9, 2) * shape[::-1]
        pen.text(tuple(at), str(rng.choice(WORDS)), int(rng.integers(100, 256)), font)
    return np.asarray(canvas)


def _grey(values: Array) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
