"""One scan twice: cropped to its fan, and as a screenshot with text around the fan."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from echogen.geometry.sector import Sector
from echogen.types import Frame, FrameKey
from tests.support.hearts import SPACING

WHITE = 255
BRIGHTEST = 200
"""Of the scan's own pixels."""
_KEY = FrameKey("p_4CH_ED", "p", "4CH", "ED", "", (Path("p.png"),))
_SHAPE = (150, 190)
_FAN = Sector(2.0, 86.0, math.radians(-36), math.radians(37), 6.0, 140.0)


def tight_scan(seed: int = 0) -> tuple[Frame, Sector]:
    """A fan whose box is the picture, but for parts of pixels; a heart, its atrium past the arc."""
    (top, bottom), (left, right) = _FAN.bounds
    rows = math.floor(top / SPACING[0]), math.ceil(bottom / SPACING[0])
    cols = math.floor(left / SPACING[1]), math.ceil(right / SPACING[1])
    noise = np.random.default_rng(seed).integers(20, BRIGHTEST, _SHAPE).astype(np.uint8)
    image = np.where(_FAN.mask(_SHAPE, SPACING), noise, 0).astype(np.uint8)
    label = np.zeros(_SHAPE, np.uint8)
    label[60:100, 80:110] = 1
    label[100:144, 75:115] = 3
    part = np.s_[rows[0] : rows[1], cols[0] : cols[1]]
    fan = replace(
        _FAN,
        apex_row=_FAN.apex_row - rows[0] * SPACING[0],
        apex_col=_FAN.apex_col - cols[0] * SPACING[1],
    )
    return Frame(_KEY, image[part], label[part], SPACING), fan


def screenshot(margins: tuple[int, int, int, int], seed: int = 0) -> tuple[Frame, Sector]:
    """The same scan with (top, bottom, left, right) pixels around it, and text on all of them and
    in the corners between the fan and its box, up to a pixel from the fan."""
    tight, fan = tight_scan(seed)
    top, bottom, left, right = margins
    height, width = tight.image.shape
    shape = (top + height + bottom, left + width + right)
    written = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(written)
    for row in range(0, shape[0], 12):
        pen.text((row % 7, row), "DOE^JANE 1950-01-01 MRN 123456 " * 3, fill=WHITE)
    image = np.where(np.asarray(written) > 60, WHITE, 0).astype(np.uint8)
    label = np.zeros(shape, np.uint8)
    inside = np.s_[top : top + height, left : left + width]
    beside = ndimage.binary_dilation(fan.mask((height, width), SPACING), np.ones((3, 3)))
    image[inside] = np.where(beside, tight.image, image[inside])
    label[inside] = tight.label
    moved = replace(
        fan,
        apex_row=fan.apex_row + top * SPACING[0],
        apex_col=fan.apex_col + left * SPACING[1],
    )
    return Frame(tight.key, image, label, SPACING), moved
