"""Texture of regions: blur, grain, and the border of paint."""

import math

import numpy as np
import pytest
from scipy import ndimage

from echogen.measures.texture import grain, masked_blur, seam_gradient

SIDE = 128
SHAPE = (SIDE, SIDE)
WHOLE = np.ones(SHAPE, bool)
RIGHT_HALF = np.zeros(SHAPE, bool)
RIGHT_HALF[:, SIDE // 2 :] = True


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE)


def blob(seed: int) -> np.ndarray:
    """A region with a ragged edge, about half of the image."""
    return np.asarray(ndimage.gaussian_filter(noise(seed), 8, mode="wrap") > 0)


def test_a_masked_blur_keeps_a_constant_and_forgets_what_is_far() -> None:
    region = blob(1)
    blurred = masked_blur(np.where(region, 70, 255), region, 5.0)
    np.testing.assert_allclose(blurred[region], 70)
    assert not blurred[~region].any()
    far = np.zeros(SHAPE, bool)
    far[0, 0] = True
    assert masked_blur(np.full(SHAPE, 9.0), far, 1.0, at=WHOLE)[-1, -1] == 0


def test_the_seam_gradient_is_taken_across_the_border_only() -> None:
    along = np.tile(np.arange(SIDE)[:, None] * 2.0, (1, SIDE))
    assert seam_gradient(along, RIGHT_HALF, WHOLE) == 0
    assert seam_gradient(along, RIGHT_HALF.T, WHOLE) == 2
    assert seam_gradient(along, ~RIGHT_HALF.T, WHOLE) == 2


def test_the_grain_of_white_noise_is_the_known_one_and_a_blur_lowers_it() -> None:
    white = 100 + 10 * noise(0)
    kernel = 1 - 2 / (2 * math.pi * 4) + 1 / (4 * math.pi * 4)
    assert grain(white, WHOLE) == pytest.approx(100 * kernel, rel=0.03)
    assert grain(ndimage.gaussian_filter(white, 1.0), WHOLE) < 0.1 * grain(white, WHOLE)
    assert math.isnan(grain(white, ~WHOLE))
