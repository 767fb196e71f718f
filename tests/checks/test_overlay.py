"""Letters and calipers in a fan are told from a heart that moves; a heart alone is not accused."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from echogen.checks.frames import check_recording
from echogen.checks.overlay import LEAST_FRAMES, Overlay, find_overlay
from echogen.datasets.recordings import Recording
from echogen.geometry.recording import FittedFrame
from echogen.measures.classes import Classes
from echogen.phantom import PhantomFrame, make_frame
from echogen.types import Frame, FrameKey

FRAMES = 12
SPACING = (1.0, 1.0)


@pytest.fixture(scope="module")
def phantom() -> PhantomFrame:
    return make_frame(2, "4CH", "ED", spacing_mm=SPACING)


@pytest.fixture(scope="module")
def heart(phantom: PhantomFrame) -> np.ndarray:
    """A clip of a heart that beats about the probe, its bright wall included."""
    inside = phantom.sector.mask(phantom.label.shape, SPACING)  # type: ignore[arg-type]
    images = []
    for phase in np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES):
        shrink = 1 + 0.06 * (phase + 1)
        apex = np.array([phantom.sector.apex_row, phantom.sector.apex_col])
        moved = ndimage.affine_transform(
            phantom.image.astype(np.float32), np.eye(2) * shrink, apex * (1 - shrink), order=1
        )
        images.append(np.where(inside, moved, 0).astype(np.uint8))
    return np.stack(images)


def drawn(clip: np.ndarray, what: str, level: int = 255, quality: int = 75) -> np.ndarray:
    """The clip with a measurement burnt into each image, then compressed."""
    height, width = clip.shape[1:]
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    pen.fontmode = "1"
    row, col = round(0.6 * height), round(0.4 * width)
    if what == "text":
        pen.text((col, row), "LVLd 8.2 cm", fill=255)
    else:
        for down, across in ((row, col), (row - 30, col + 25)):
            pen.line((across - 3, down, across + 3, down), fill=255)
            pen.line((across, down - 3, across, down + 3), fill=255)
    burnt = np.asarray(layer) > 0
    images = []
    for image in clip:
        stream = io.BytesIO()
        Image.fromarray(np.where(burnt, level, image).astype(np.uint8)).save(
            stream, "JPEG", quality=quality
        )
        images.append(np.asarray(Image.open(stream)))
    return np.stack(images)


@pytest.mark.parametrize(("what", "level"), [("text", 255), ("text", 180), ("calipers", 255)])
def test_what_is_drawn_into_a_fan_is_found_where_it_is(
    phantom: PhantomFrame, heart: np.ndarray, what: str, level: int
) -> None:
    found = find_overlay(drawn(heart, what, level), phantom.sector, SPACING)
    assert found is not None
    height, width = heart.shape[1:]
    row0, col0, row1, col1 = found.box
    assert 0.6 * height - 36 <= row0 < row1 <= 0.6 * height + 14
    assert 0.4 * width - 6 <= col0 < col1 <= 0.4 * width + 75


def test_a_heart_alone_is_not_accused(phantom: PhantomFrame, heart: np.ndarray) -> None:
    assert find_overlay(heart, phantom.sector, SPACING) is None
    assert find_overlay(drawn(heart, "text", level=0), phantom.sector, SPACING) is None


def test_a_still_picture_and_a_few_frames_tell_nothing(
    phantom: PhantomFrame, heart: np.ndarray
) -> None:
    text = drawn(heart, "text")
    assert find_overlay(np.repeat(text[:1], FRAMES, axis=0), phantom.sector, SPACING) is None
    assert find_overlay(text[: LEAST_FRAMES - 1], phantom.sector, SPACING) is None


def test_text_beside_the_fan_is_no_overlay(phantom: PhantomFrame, heart: np.ndarray) -> None:
    beside = heart.copy()
    beside[:, 2:12:2, 2:20] = 255
    assert find_overlay(beside, phantom.sector, SPACING) is None


def checked(phantom: PhantomFrame, images: np.ndarray, clip: np.ndarray | None) -> list[str]:
    """What `validate` says of a recording of these frames."""
    fitted = []
    for number, image in enumerate(images):
        key = FrameKey(f"a_{number}", "a", "4CH", "", "", (Path("a.avi"),))
        frame = Frame(key, image, phantom.label, SPACING)
        fitted.append(FittedFrame(frame, phantom.sector, 1.0))
    recording = Recording(tuple(one.frame.key for one in fitted), tuple(fitted), (), lambda: clip)
    check = check_recording(recording, Classes(1, 2, 3), {})
    return [one.message for one in check.findings if one.check == "overlay"]


def test_validate_names_the_recording_once_by_its_clip_or_by_its_frames(
    phantom: PhantomFrame, heart: np.ndarray
) -> None:
    text = drawn(heart, "text")
    (message,) = checked(phantom, text[:2], text)
    assert message.startswith("a.avi: letters or lines seem to be drawn into its fan, rows ")
    assert checked(phantom, text, None) == [message]
    assert checked(phantom, heart[:2], heart) == []
    assert checked(phantom, text[:2], None) == []
    assert isinstance(find_overlay(text, phantom.sector, SPACING), Overlay)
