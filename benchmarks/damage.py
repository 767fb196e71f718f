"""What scanners, screenshots and codecs do to an echocardiogram whose fan is known.

Each damage is a function (scan, generator) -> scan that changes the pixels and carries the fan
along. Draws come from the generator alone, so that a seed gives the same damage on any machine
(codecs apart: their libraries' versions matter). Overlays lie on every frame of a clip alike.

    scan = Scan(image[None], (0.308, 0.308), sector)
    worse = DAMAGES["text"](scan, np.random.default_rng(0))
    worse = combined(scan, np.random.default_rng(0), ["text", "dropout", "jpeg"])
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from echogen.geometry.sector import Sector

Frames = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]
Rng = np.random.Generator

WORDS = (
    "FR 58Hz", "16cm", "2D", "67%", "C 50", "P Low", "HPen", "TIS0.8", "MI 1.3", "Adult Echo",
    "X5-1", "S5-1", "M3S", "3.0 MHz", "75 bpm", "HR 62", "A4C", "JPEG", "1.7/3.4", "Gen", "Cardiac",
    "HOSPITAL", "ID 0000", "12:41:07", "2019-04-11", "PHILIPS", "LV EDV", "0", "5", "10", "15",
    "GAIN", "dB", "WF", "Z 1.0", "+ Dist 4.31 cm", "FREEZE",
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """A picture, or a clip, and where its fan truly is.

    Attributes:
        frames: (N, H, W) uint8, apex up.
        spacing: (row, col) mm per pixel, or any other unit's.
        sector: the fan in that unit, from the picture's outer corner.
    """

    frames: Frames
    spacing: tuple[float, float]
    sector: Sector

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.frames.shape[1:]

    def fan(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool, True within the true fan."""
        return self.sector.mask(self.shape, self.spacing)

    def polar(self) -> tuple[Array, Array]:
        """(H, W) shares: 0 at the left edge ray to 1 at the right; 0 at the apex to 1 far."""
        rows = (np.arange(self.shape[0]) + 0.5) * self.spacing[0] - self.sector.apex_row
        cols = (np.arange(self.shape[1]) + 0.5) * self.spacing[1] - self.sector.apex_col
        angle = np.arctan2(cols[None, :], rows[:, None])
        width = self.sector.angle_right - self.sector.angle_left
        depth = np.hypot(rows[:, None], cols[None, :]) / self.sector.radius_far
        return (angle - self.sector.angle_left) / width, depth

    def pixel(self, angle: float, radius: float) -> tuple[float, float]:
        """(x, y) in pixels of the point at an angle (rad) and a distance from the apex."""
        row = (self.sector.apex_row + radius * np.cos(angle)) / self.spacing[0] - 0.5
        col = (self.sector.apex_col + radius * np.sin(angle)) / self.spacing[1] - 0.5
        return float(col), float(row)


Damage = Callable[[Scan, Rng], Scan]


# Geometry.


def reshape(scan: Scan, rng: Rng) -> Scan:
    """Another fan filled with this one's echoes: 45 to 120 degrees wide, perhaps a curved array."""
    old = scan.sector
    middle = rng.uniform(-0.1, 0.1) if rng.random() < 0.3 else 0.0
    half = np.deg2rad(rng.uniform(45, 120)) / 2
    near = rng.uniform(0.03, 0.25) * old.radius_far if rng.random() < 0.5 else old.radius_near
    left, right, far = middle - half, middle + half, old.radius_far
    edge = rng.uniform(0.0, 0.06) * far
    reach = far * np.sin(min(max(-left, right), np.pi / 2))
    top = near * np.cos(max(-left, right))
    sector = Sector(edge - top, reach + edge, left, right, near, far)
    height = int((far - top + 2 * edge) / scan.spacing[0])
    width = int((2 * reach + 2 * edge) / scan.spacing[1])
    empty = np.zeros((len(scan.frames), height, width), np.uint8)
    new = Scan(empty, scan.spacing, sector)
    across, depth = new.polar()
    beam = old.angle_left + across * (old.angle_right - old.angle_left)
    along = (depth * far - near) / (far - near)
    radius = old.radius_near + along * (old.radius_far - old.radius_near)
    rows = (old.apex_row + radius * np.cos(beam)) / scan.spacing[0] - 0.5
    cols = (old.apex_col + radius * np.sin(beam)) / scan.spacing[1] - 0.5
    fan = new.fan()
    for target, source in zip(empty, scan.frames, strict=True):
        target[fan] = ndimage.map_coordinates(source, [rows[fan], cols[fan]], order=1)
    return new


def flip(scan: Scan, rng: Rng) -> Scan:
    """Mirrored left to right."""
    old = scan.sector
    sector = replace(
        old,
        apex_col=scan.shape[1] * scan.spacing[1] - old.apex_col,
        angle_left=-old.angle_right,
        angle_right=-old.angle_left,
    )
    return replace(scan, frames=np.ascontiguousarray(scan.frames[:, :, ::-1]), sector=sector)


def crop(scan: Scan, rng: Rng) -> Scan:
    """0 to 15% of the picture cut off at each side."""
    height, width = scan.shape
    top, bottom = (int(share * height) for share in rng.uniform(0, 0.15, 2))
    left, right = (int(share * width) for share in rng.uniform(0, 0.15, 2))
    frames = scan.frames[:, top : height - bottom, left : width - right]
    return _moved(scan, np.ascontiguousarray(frames), -top, -left)


def margins(scan: Scan, rng: Rng) -> Scan:
    """Room around the picture, as in a screenshot: up to half its size at each side."""
    height, width = scan.shape
    top, bottom = (int(share * height) for share in rng.uniform(0, 0.3, 2))
    left, right = (int(share * width) for share in rng.uniform(0, 0.5, 2))
    corner = int(np.median(scan.frames[:, :4, :4]))
    around = ((0, 0), (top, bottom), (left, right))
    return _moved(scan, np.pad(scan.frames, around, constant_values=corner), top, left)


def letterbox(scan: Scan, rng: Rng) -> Scan:
    """Bars above and below, or at both sides, of another grey than the background."""
    size = int(rng.uniform(0.05, 0.25) * max(scan.shape))
    bars = [(size, size), (0, 0)] if rng.random() < 0.5 else [(0, 0), (size, size)]
    grey = int(rng.choice([0, 12, 32, 64, 128, 255], p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]))
    frames = np.pad(scan.frames, [(0, 0), *bars], constant_values=grey)
    return _moved(scan, frames, bars[0][0], bars[1][0])


def resized(scan: Scan, width: int) -> Scan:
    """The scan `width` pixels wide, its proportions kept."""
    height = max(16, round(scan.shape[0] * width / scan.shape[1]))
    frames = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        for frame in scan.frames
    ]
    row, col = scan.spacing
    spacing = (row * scan.shape[0] / height, col * scan.shape[1] / width)
    return replace(scan, frames=np.stack(frames), spacing=spacing)


# Echoes.


def dropout(scan: Scan, rng: Rng) -> Scan:
    """10 to 60% of one edge's length faded to black, softly and irregularly."""
    return _faded(scan, rng, [bool(rng.random() < 0.5)])


def dropout_both(scan: Scan, rng: Rng) -> Scan:
    """10 to 60% of each edge's length faded to black."""
    return _faded(scan, rng, [False, True])


def weak_flanks(scan: Scan, rng: Rng) -> Scan:
    """One flank or both dimmed all along: to 10 to 40% of their grey levels at the edge."""
    across, _ = scan.polar()
    keep = np.ones(scan.shape)
    flanks = [[across], [1 - across], [across, 1 - across], [across, 1 - across]]
    for from_edge in flanks[rng.integers(4)]:
        least, reach = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.35)
        keep *= least + (1 - least) * np.clip(from_edge / reach, 0, 1)
    return replace(scan, frames=_grey(scan.frames * keep))


def gain(scan: Scan, rng: Rng) -> Scan:
    """Another gamma, an offset that swallows weak echoes, low gain, attenuation with depth."""
    gamma, offset = rng.uniform(0.6, 2.2), rng.uniform(0, 30) if rng.random() < 0.6 else 0.0
    factor = rng.uniform(0.35, 1.3)
    lost = rng.uniform(0, 0.7) if rng.random() < 0.5 else 0.0
    _, depth = scan.polar()
    echoes = np.clip(scan.frames - offset, 0, None) / (255.0 - offset)
    bright = 255 * factor * echoes**gamma * np.clip(1 - lost * depth, 0, 1)
    return replace(scan, frames=_grey(bright))


# Backgrounds and overlays.


def background(scan: Scan, rng: Rng) -> Scan:
    """Grey outside the fan: even, noisy, or brighter towards one side."""
    level = rng.uniform(3, 45)
    outside = np.full(scan.frames.shape, level)
    kind = rng.integers(3)
    if kind == 1:
        outside += rng.normal(0, 0.25 * level, outside.shape)
    elif kind == 2:
        outside += level * np.linspace(-0.5, 0.5, scan.shape[0])[:, None]
    frames = np.where(scan.fan(), np.maximum(scan.frames, level / 2), outside)
    return replace(scan, frames=_grey(frames))


def text(scan: Scan, rng: Rng) -> Scan:
    """3 to 16 pieces of text outside the fan, a few across its edges."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        fan = scan.fan()
        height, width = scan.shape
        size = max(7.0, rng.uniform(0.018, 0.045) * height)
        for _ in range(rng.integers(3, 17)):
            word = str(rng.choice(WORDS))
            font = ImageFont.load_default(size * rng.uniform(0.8, 1.3))
            box = [int(side) for side in pen.textbbox((0, 0), word, font)]
            most = 0.5 if rng.random() < 0.25 else 0.0
            for _ in range(20):
                x = int(rng.integers(0, max(1, width - box[2])))
                y = int(rng.integers(0, max(1, height - box[3])))
                if fan[y : y + box[3], x : x + box[2]].mean() <= most:
                    pen.text((x, y), word, fill=int(rng.integers(110, 256)), font=font)
                    break

    return _drawn(scan, draw)


def ticks(scan: Scan, rng: Rng) -> Scan:
    """Dashes at even depths, down one side or along an edge ray."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        length = rng.uniform(0.008, 0.025) * scan.shape[1]
        fill, wide = int(rng.integers(120, 256)), _stroke(scan)
        for number, (x, y) in enumerate(_scale(scan, rng)):
            long = length * (2 if number % 5 == 0 else 1)
            pen.line([(x - long / 2, y), (x + long / 2, y)], fill, wide)

    return _drawn(scan, draw)


def ruler(scan: Scan, rng: Rng) -> Scan:
    """Dots at even depths, every fifth larger, perhaps numbered."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        radius = max(0.7, rng.uniform(0.002, 0.006) * scan.shape[0])
        fill, numbered = int(rng.integers(120, 256)), rng.random() < 0.5
        font = ImageFont.load_default(max(7.0, 0.025 * scan.shape[0]))
        for number, (x, y) in enumerate(_scale(scan, rng)):
            size = radius * (1.8 if number % 5 == 0 else 1)
            pen.ellipse([x - size, y - size, x + size, y + size], fill)
            if numbered and number % 5 == 0:
                pen.text((x + 3 * radius, y - 2 * radius), str(number), fill, font)

    return _drawn(scan, draw)


def marker(scan: Scan, rng: Rng) -> Scan:
    """A probe marker beside the apex: a letter, a dot, a square or a triangle."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        x, y = scan.pixel(0.0, scan.sector.radius_near)
        size = rng.uniform(0.012, 0.035) * scan.shape[0]
        x += rng.choice([-1, 1]) * rng.uniform(1.2, 6) * size
        y = max(y, size) + rng.uniform(-0.5, 1) * size
        fill, kind = int(rng.integers(130, 256)), rng.integers(4)
        if kind == 0:
            font = ImageFont.load_default(max(7.0, 2 * size))
            pen.text((x - size, y - size), str(rng.choice(["V", "P", "G", "GE"])), fill, font)
        elif kind == 1:
            pen.ellipse([x - size, y - size, x + size, y + size], fill)
        elif kind == 2:
            pen.rectangle([x - size, y - size, x + size, y + size], None, fill, _stroke(scan))
        else:
            pen.polygon([(x - size, y - size), (x + size, y - size), (x, y + size)], fill)

    return _drawn(scan, draw)


def logo(scan: Scan, rng: Rng) -> Scan:
    """A maker's sign, bright with dark letters or an outline with bright ones, in a corner."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        height, width = scan.shape
        long, high = rng.uniform(0.06, 0.18) * width, rng.uniform(0.03, 0.08) * height
        x = rng.uniform(0, 0.06) * width
        x = x if rng.random() < 0.5 else width - long - x
        y = rng.uniform(0, 0.06) * height
        y = y if rng.random() < 0.6 else height - high - y
        grey, full = int(rng.integers(120, 256)), rng.random() < 0.5
        place = [x, y, x + long, y + high]
        if rng.random() < 0.5:
            pen.rounded_rectangle(place, high / 3, grey if full else 0, grey, _stroke(scan))
        else:
            pen.ellipse(place, grey if full else 0, grey, _stroke(scan))
        font = ImageFont.load_default(max(7.0, 0.6 * high))
        pen.text((x + 0.15 * long, y + 0.15 * high), "ECHO", 0 if full else grey, font)

    return _drawn(scan, draw)


def ecg(scan: Scan, rng: Rng) -> Scan:
    """An electrocardiogram with its baseline across the lower part, perhaps through the fan."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        height, width = scan.shape
        base, tall = rng.uniform(0.85, 0.98) * height, rng.uniform(0.03, 0.1) * height
        begin, end = rng.uniform([0.0, 0.7], [0.3, 1.0])
        x = np.linspace(begin * width, end * width, max(64, width))
        beat = (x / width * rng.uniform(1.5, 5) + rng.random()) % 1
        bumps = [(0.2, 0.03, 0.15), (0.37, 0.008, -0.1), (0.4, 0.01, 1.0), (0.43, 0.01, -0.25),
                 (0.65, 0.05, 0.3)]  # fmt: skip
        wave = sum(high * np.exp(-(((beat - at) / wide) ** 2)) for at, wide, high in bumps)
        fill, wide = int(rng.integers(110, 256)), _stroke(scan)
        pen.line(list(zip(x.tolist(), (base - tall * wave).tolist(), strict=True)), fill, wide)
        if rng.random() < 0.6:
            pen.line([(x[0], base), (x[-1], base)], int(0.7 * fill), wide)
        if rng.random() < 0.5:
            at = float(rng.uniform(x[0], x[-1]))
            pen.line([(at, base - tall), (at, base + 0.3 * tall)], fill, wide)

    return _drawn(scan, draw)


def grey_bar(scan: Scan, rng: Rng) -> Scan:
    """The scale of grey levels, an upright bar at one side."""
    height, width = scan.shape
    wide, high = max(2, int(rng.uniform(0.012, 0.03) * width)), int(rng.uniform(0.15, 0.6) * height)
    x = int(rng.uniform(0, 0.05) * width)
    x = x if rng.random() < 0.5 else width - wide - x
    y = int(rng.uniform(0, 0.9) * (height - high))
    frames = scan.frames.copy()
    frames[:, y : y + high, x : x + wide] = np.linspace(255, 0, high).astype(np.uint8)[:, None]
    return replace(scan, frames=frames)


# Compression.


def jpeg(scan: Scan, rng: Rng) -> Scan:
    """112 to 1,024 pixels wide, JPEG of quality 30 to 95."""
    small, quality = resized(scan, _width(rng)), int(rng.integers(30, 96))
    frames = []
    for frame in small.frames:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG", quality=quality)
        frames.append(np.asarray(Image.open(stream)))
    return replace(small, frames=np.stack(frames))


def mpeg(scan: Scan, rng: Rng) -> Scan:
    """112 to 1,024 pixels wide, MPEG-4 or H.264; a lone frame is the last of three alike."""
    small = resized(scan, _width(rng))
    clip = small.frames if len(small.frames) > 1 else np.repeat(small.frames, 3, axis=0)
    coded = _coded(clip, str(rng.choice(["mpeg4", "libx264"])), rng.random())
    return replace(small, frames=coded[-len(small.frames) :])


def _coded(clip: Frames, codec: str, loss: float) -> Frames:
    """(N, H, W) through a video codec; `loss` 0 is good, 1 poor."""
    import av

    _, height, width = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.height, stream.width = even.shape[1:]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        if codec == "libx264":
            stream.options = {"crf": str(round(18 + 17 * loss)), "preset": "veryfast"}
        else:
            stream.codec_context.qmin = stream.codec_context.qmax = round(2 + 13 * loss)
        for frame in even:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    return np.stack(frames)[:, :height, :width]


DAMAGES: dict[str, Damage] = {
    "reshape": reshape,
    "dropout": dropout,
    "dropout_both": dropout_both,
    "weak_flanks": weak_flanks,
    "gain": gain,
    "flip": flip,
    "background": background,
    "margins": margins,
    "text": text,
    "ticks": ticks,
    "ruler": ruler,
    "marker": marker,
    "logo": logo,
    "ecg": ecg,
    "grey_bar": grey_bar,
    "crop": crop,
    "letterbox": letterbox,
    "jpeg": jpeg,
    "mpeg": mpeg,
}
"""By name, in the order in which a scanner, a screenshot and a codec do them."""


def combined(scan: Scan, rng: Rng, names: Sequence[str]) -> Scan:
    """Several damages one after another, in the order of `DAMAGES`."""
    for name, damage in DAMAGES.items():
        if name in names:
            scan = damage(scan, rng)
    return scan


ALIKE = (
    ("dropout", "dropout_both", "weak_flanks"),
    ("jpeg", "mpeg"),
    ("margins", "letterbox"),
    ("ticks", "ruler"),
)
"""Of which a combination has one."""


def drawn_names(rng: Rng) -> list[str]:
    """2 to 6 damages that go together: one loss at the edges, one scale, one codec."""
    chosen = rng.choice(list(DAMAGES), size=int(rng.integers(2, 7)), replace=False).tolist()
    for alike in ALIKE:
        for name in [name for name in chosen if name in alike][1:]:
            chosen.remove(name)
    return [name for name in DAMAGES if name in chosen]


def as_clip(first: Frames, last: Frames, count: int, rng: Rng) -> Frames:
    """(count, H, W): a beat between two frames (H, W) of one recording, with flickering speckle."""
    phase = 0.5 - 0.5 * np.cos(np.linspace(0, 2 * np.pi, count, endpoint=False))
    share = phase[:, None, None]
    between = (1 - share) * first + share * last
    return _grey(between * rng.normal(1, 0.12, between.shape))


def _moved(scan: Scan, frames: Frames, rows: int, cols: int) -> Scan:
    """The scan with other frames, in which the fan lies so many pixels further down and right."""
    sector = replace(
        scan.sector,
        apex_row=scan.sector.apex_row + rows * scan.spacing[0],
        apex_col=scan.sector.apex_col + cols * scan.spacing[1],
    )
    return replace(scan, frames=frames, sector=sector)


def _faded(scan: Scan, rng: Rng, rights: Sequence[bool]) -> Scan:
    across, depth = scan.polar()
    keep = np.ones(scan.shape)
    for right in rights:
        share = rng.uniform(0.1, 0.6)
        begin = rng.uniform(0, 1 - share)
        knots = rng.uniform(0.3, 1.0, 12) * rng.uniform(0.05, 0.35)
        reach = np.interp(np.clip(depth, 0, 1) * 11, np.arange(12), knots)
        soft = rng.uniform(0.02, 0.12)
        from_edge = 1 - across if right else across
        inward = np.clip((from_edge - reach) / soft, 0, 1)
        ends = np.clip(np.maximum(begin - depth, depth - begin - share) / 0.03, 0, 1)
        keep *= np.maximum(inward, ends)
    return replace(scan, frames=_grey(scan.frames * keep))


def _grey(values: npt.NDArray[Any]) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _drawn(scan: Scan, draw: Callable[[ImageDraw.ImageDraw], None]) -> Scan:
    layer = Image.new("L", scan.shape[::-1])
    draw(ImageDraw.Draw(layer))
    return replace(scan, frames=np.maximum(scan.frames, np.asarray(layer)))


def _stroke(scan: Scan) -> int:
    return max(1, round(scan.shape[0] / 500))


def _scale(scan: Scan, rng: Rng) -> list[tuple[float, float]]:
    """(x, y) pixels of 8 to 40 even depths: down a line beside the fan, or along an edge ray."""
    radii = np.linspace(0, scan.sector.radius_far, int(rng.integers(8, 41)))
    if rng.random() < 0.5:
        left = rng.random() < 0.5
        angle = scan.sector.angle_left if left else scan.sector.angle_right
        angle += rng.uniform(-0.01, 0.06) * (-1 if left else 1)
        return [scan.pixel(angle, float(radius)) for radius in radii]
    x = rng.uniform(0.01, 0.08) * scan.shape[1]
    x = x if rng.random() < 0.5 else scan.shape[1] - x
    return [(x, scan.pixel(0.0, float(radius))[1]) for radius in radii]


def _width(rng: Rng) -> int:
    return round(float(np.exp(rng.uniform(np.log(112), np.log(1024)))))
