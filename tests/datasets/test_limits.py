"""What real programs write is read; what takes more than 2 GB of memory is not."""

import pytest

from echogen.datasets.limits import too_large


@pytest.mark.parametrize(
    ("frames", "kind", "channels"),
    [(140, "f8", 1), (200, "i8", 1), (300, "f4", 1), (480, "u1", 3), (1100, "u1", 1)],
)
def test_recordings_of_real_programs_are_read(frames: int, kind: str, channels: int) -> None:
    assert too_large(600, 800, frames, kind, channels) == ""


@pytest.mark.parametrize(
    ("frames", "kind", "channels", "said"),
    [(200, "f8", 1, "float64"), (300, "i8", 1, "int64"), (700, "u1", 3, "3 x uint8")],
)
def test_more_is_refused_and_the_type_named(
    frames: int, kind: str, channels: int, said: str
) -> None:
    assert f"800 pixels of {said};" in too_large(600, 800, frames, kind, channels)
