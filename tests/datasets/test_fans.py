"""Fans as they were found: in pixels, one a recording where its frames share it, worst first."""

import math
from pathlib import Path

import numpy as np
import pytest

from echogen.datasets import open_dataset
from echogen.datasets.fans import FoundFan, fans_of_recordings, found_fans
from echogen.datasets.recordings import Recording
from echogen.geometry.recording import FittedFrame
from echogen.geometry.render import frame_grid
from echogen.geometry.transforms import sector_on_grid
from tests.support.hearts import FAN, SPACING


def test_the_numbers_are_a_stores_sector_with_degrees(dataset: Path) -> None:
    """Also where a pixel is not square: a fan of known millimetres."""
    assert SPACING[0] != SPACING[1]
    frame = open_dataset(dataset).read(open_dataset(dataset).keys[0])
    (fan,) = found_fans(Recording((frame.key,), (FittedFrame(frame, FAN, 1.0),), ()))
    stored, aspect = sector_on_grid(FAN, frame_grid(frame))
    assert fan.values is not None
    shown = np.array(fan.values)
    shown[2:4] = np.deg2rad(shown[2:4])
    np.testing.assert_allclose(shown, stored, rtol=1e-6)
    assert fan.aspect == aspect
    assert fan.values[0] == pytest.approx(FAN.apex_row / SPACING[0] - 0.5)
    assert fan.values[1] == pytest.approx(FAN.apex_col / SPACING[1] - 0.5)
    assert fan.values[2] == pytest.approx(math.degrees(FAN.angle_left))
    assert fan.values[5] == pytest.approx(FAN.radius_far / SPACING[0])


def test_frames_that_differ_have_lines_of_their_own_and_the_worst_come_first() -> None:
    def fan(recording: str, frame: str, confidence: float, far: float | None = 9.0) -> FoundFan:
        values = None if far is None else (0.0, 0.0, -1.0, 1.0, 0.0, far)
        return FoundFan(recording, frame, (9, 9), values, 1.0, confidence, "frame", "")

    found = [
        fan("a/4CH", "a_ED", 0.9), fan("a/4CH", "a_ES", 0.7), fan("b/4CH", "b_ED", 0.8),
        fan("b/4CH", "b_ES", 0.6, 8.0), fan("c/4CH", "c_ED", 0.5), fan("c/4CH", "c_ES", 0.0, None),
    ]  # fmt: skip
    lines = fans_of_recordings(found)
    assert [line.name for line in lines] == ["c_ES", "c_ED", "b_ES", "a/4CH", "b_ED"]
    assert (lines[3].frame_id, lines[3].confidence) == ("a_ES", 0.7)
