"""The fans of a dataset as they were found, recording by recording, and how sure they are.

They are told in pixels of the picture as it is read, with the conventions of a store's `sector`:
the apex as indices of row and column (a pixel's centre is a whole number), angles from straight
down, positive towards larger columns, after columns are scaled by the pixels' aspect, and radii in
rows; only the angles are degrees here.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from echogen.datasets.recordings import Recording
from echogen.geometry.recording import FanSource
from echogen.support.words import counted

HOW: Mapping[str, str] = {
    "clip": "fitted to a clip",
    "frame": "fitted to frames",
    "given": "given",
    "refused": "refused",
}
"""How a fan was found, for people."""


@dataclass(frozen=True)
class FoundFan:
    """A frame's or a recording's fan as it was found, in pixels; see the module's conventions.

    Attributes:
        name: what the table calls it: the recording, or a frame whose fan is its own.
        frame_id: of the frame, or of the recording's least certain one.
        size: (rows, cols) of the picture.
        values: apex row and col, angles left and right in degrees, radii near and far; None where
            there is no fan.
        aspect: width of a pixel over its height.
        confidence: 0 to 1; 0 without a fan.
        how: where the fan comes from.
        reason: why there is none, in one line.
    """

    name: str
    frame_id: str
    size: tuple[int, int]
    values: tuple[float, float, float, float, float, float] | None
    aspect: float
    confidence: float
    how: FanSource
    reason: str

    @property
    def outcome(self) -> str:
        """A key of `HOW`."""
        return self.how if self.values is not None else "refused"


def to_do_about(refused: int) -> str:
    """What a user can do about frames without a fan, in one line.

    Args:
        refused: how many there are, at least 1.
    """
    return (
        f"{counted(refused, 'frame')} without a fan: `echogen preview DATASET --fans --out "
        "fans.png` shows which and why; `echogen validate DATASET --fans fans.csv` writes a table "
        "to fill in and give back with --fans."
    )


def found_fans(recording: Recording) -> list[FoundFan]:
    """The fan of each frame of a recording that can be read."""
    found = []
    for fitted in recording.frames:
        frame, sector = fitted.frame, fitted.sector
        row, col = frame.unit_spacing
        values = (
            None
            if sector is None
            else (
                sector.apex_row / row - 0.5,
                sector.apex_col / col - 0.5,
                math.degrees(sector.angle_left),
                math.degrees(sector.angle_right),
                sector.radius_near / row,
                sector.radius_far / row,
            )
        )
        found.append(
            FoundFan(
                frame.key.recording_id,
                frame.key.frame_id,
                (int(frame.image.shape[0]), int(frame.image.shape[1])),
                values,
                col / row,
                fitted.confidence if sector else 0.0,
                fitted.how,
                fitted.reason,
            )
        )
    return found


def fans_of_recordings(found: Iterable[FoundFan]) -> list[FoundFan]:
    """One fan a recording where its frames share it, one a frame where not; the worst come first.

    Args:
        found: of frames, in any order.
    """
    recordings: dict[str, list[FoundFan]] = defaultdict(list)
    for fan in found:
        recordings[fan.name].append(fan)
    lines = []
    for fans in recordings.values():
        fans.sort(key=lambda fan: (fan.confidence, fan.frame_id))
        if len({(fan.size, fan.values, fan.how) for fan in fans}) == 1:
            lines.append(fans[0])
        else:
            lines += [replace(fan, name=fan.frame_id) for fan in fans]
    return sorted(
        lines, key=lambda fan: (fan.values is not None, round(fan.confidence, 3), fan.name)
    )
