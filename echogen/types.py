"""The records that pass between stages: frame and sample.

Shapes are written in the annotations: H, W are a frame's native rows and columns, h, w those of the
model's grid. Intensities are uint8 here, and float32 in [-1, 1] where a network sees them;
`to_model_range` and `to_uint8` are the only conversions.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

UInt8HW = Annotated[npt.NDArray[np.uint8], "(H, W) uint8, native resolution"]
UInt8Grid = Annotated[npt.NDArray[np.uint8], "(h, w) uint8, the model's grid"]
BoolGrid = Annotated[npt.NDArray[np.bool_], "(h, w) bool, the model's grid"]

BACKGROUND, LV_CAVITY, MYOCARDIUM, LEFT_ATRIUM = 0, 1, 2, 3
IGNORE = 255
CAMUS_LABELS: Mapping[int, str] = {
    BACKGROUND: "background",
    LV_CAVITY: "LV cavity",
    MYOCARDIUM: "myocardium",
    LEFT_ATRIUM: "left atrium",
}


@dataclass(frozen=True)
class FrameKey:
    """A frame's identity, known before its pixels are read.

    Attributes:
        frame_id: unique in the dataset, such as `patient0001_4CH_ED`.
        case_id: the patient or recording that it belongs to.
        view: such as `2CH` or `4CH`; empty where the dataset does not say.
        phase: such as `ED` or `ES`; empty where the dataset does not say.
        split: as the dataset's own lists say; empty where it has none.
        paths: every file the frame is read from, in a fixed order.
        detail: what else the frame is made of, in its reader's own words, such as its number in a
            video; empty where the files say it all.
        sequence: of frames that are moved and painted alike, such as `patient0001_4CH`; empty where
            the frame stands alone.
        recording: of frames that share a fan, where a case has several recordings of one view;
            empty where case and view tell.
        index: of the frame in files that hold a sequence, from 0; None where they hold one frame.
        copy: above 0 where the frame is a generated copy, exported from a store.
        spacing_mm: (row, col) millimetres per pixel that the user gives; None takes the files' own.
        private: file names may say who the patient is, so that nothing may show them.
    """

    frame_id: str
    case_id: str
    view: str
    phase: str
    split: str
    paths: tuple[Path, ...]
    _: KW_ONLY
    detail: str = ""
    sequence: str = ""
    recording: str = ""
    index: int | None = None
    copy: int = 0
    spacing_mm: tuple[float, float] | None = None
    private: bool = False

    @property
    def recording_id(self) -> str:
        """Frames with the same recording id share one sector."""
        if self.recording:
            return self.recording
        return f"{self.case_id}/{self.view}" if self.view else self.frame_id

    @property
    def file_names(self) -> tuple[str, ...]:
        """Of `paths`, as a message may show them: the frame's id where they are private."""
        return tuple(self.frame_id if self.private else path.name for path in self.paths)

    @property
    def clip_id(self) -> str:
        """Frames with the same clip id share moves and noise: a sequence, or one frame alone."""
        return self.sequence or self.frame_id


@dataclass(frozen=True)
class Frame:
    """One image with its label map, at native resolution.

    Attributes:
        key: who it is.
        image: grey levels, apex up.
        label: class ids, the same shape as `image`.
        spacing_mm: (row, col) millimetres per pixel, or None where the dataset gives none.
        doubt: what its reader did not believe in its file, one line; empty where it all fits.
    """

    key: FrameKey
    image: UInt8HW
    label: UInt8HW
    spacing_mm: tuple[float, float] | None
    doubt: str = ""

    @property
    def unit_spacing(self) -> tuple[float, float]:
        """`spacing_mm`, or one unit a pixel where it is unknown."""
        return self.spacing_mm if self.spacing_mm is not None else (1.0, 1.0)


@dataclass(frozen=True)
class Case:
    """What a dataset knows about a patient beyond the pixels.

    Attributes:
        case_id: as in `FrameKey`.
        info: such as {"ef": 46.0, "image_quality": "Medium"}; numbers and strings only.
    """

    case_id: str
    info: Mapping[str, float | str]


@dataclass(frozen=True)
class Sample:
    """The pixels of one row of a store, on the model's grid: as the move left them, or painted.

    Attributes:
        image: grey levels; before painting 0 where nothing is known.
        keep: True where the pixel comes from the source, False where it is painted.
        label: class ids on the same grid, with the policies on cut labels applied.
        label_on_paint: share of the labelled pixels that lie where `keep` is False, in [0, 1].
        real: True where the pixel is ultrasound of the source; only before painting.
        beyond: True where the fan lies beyond the source's picture: black and kept, but painted for
            the network's sake, which knows whole fans alone; only before painting.
    """

    image: UInt8Grid
    keep: BoolGrid
    label: UInt8Grid
    label_on_paint: float
    real: BoolGrid | None = None
    beyond: BoolGrid | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a dataset comes from, as the store records it.

    Attributes:
        format: the reader's name, such as `camus`.
        root_name: the folder's name (never its full path).
        licence: terms as far as the reader knows them, else empty.
        labels: {class id: name}.
        extra: whatever else the reader wants recorded, JSON-able.
    """

    format: str
    root_name: str
    licence: str
    labels: Mapping[int, str]
    extra: Mapping[str, Any] = field(default_factory=dict)


def to_model_range(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Grey levels 0..255 to float32 in [-1, 1]: x / 127.5 - 1."""
    scaled: npt.NDArray[np.float32] = image.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return scaled


def to_uint8(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[-1, 1] to uint8: round((x + 1) * 127.5), clipped; the inverse of `to_model_range`."""
    levels = np.rint((image.astype(np.float32) + np.float32(1.0)) * np.float32(127.5))
    clipped: npt.NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return clipped
