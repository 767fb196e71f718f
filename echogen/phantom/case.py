"""Whole patients: two views at two phases, each view with its own sector, window and look.

Every draw comes from PCG64 seeded by (seed, index of the case, purpose), so a frame depends on
nothing else than its own names: not on which other cases are made, nor in what order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from echogen.errors import UsageError
from echogen.geometry.sector import Sector
from echogen.phantom.anatomy import (
    PHASES,
    VIEWS,
    Heart,
    Phase,
    Pose,
    Range,
    View,
    biplane_volume,
    contract,
    draw_heart,
    label_map,
    shapes,
)
from echogen.phantom.beam import Pulse, beam_grid, envelope_db, grey, scan_convert
from echogen.phantom.tissue import Look, echo_db
from echogen.types import Frame, FrameKey, UInt8HW

# Millimetres a pixel covers, (row, col): 0.308 is CAMUS' own; the others are there so that programs
# meet pixels that are not square.
SPACINGS_MM = ((0.308, 0.308), (0.34, 0.34), (0.308, 0.462), (0.42, 0.34), (0.33, 0.33))
METAIMAGE_SPACING_MM = (0.308, 0.616)

# Patients. Normal inner diameters of the left ventricle at end-diastole are 42 to 58 mm in men and
# 38 to 52 in women, ejection fractions 52 to 72% and 54 to 74% [Lang]; the mean shortening of the
# long axis is 16%, that of the circumference 23% [Stoylen]. See `anatomy` for these and for [eye].
LENGTH_MM: Range = (76.0, 92.0)  # of the cavity [eye]
HALF_WIDTH_MM: Range = (20.0, 26.0)
SHORTENING: Range = (0.08, 0.18)  # of the long axis, around and below the mean
NARROWING: Range = (0.14, 0.32)  # of the width, alike
AGES = (32, 86)  # years; the upper end, as in the next two, is not drawn [eye]
FRAMES = (14, 26)  # of a half cycle [eye]
FRAME_RATES: Range = (40.0, 75.0)  # a second [eye]
QUALITIES = ("Good", "Medium", "Good", "Poor")  # in turn; CAMUS' words
POORNESS = {"Good": 0.0, "Medium": 1.0, "Poor": 2.0}

# Sectors, all [eye]: set so that fans resemble those of CAMUS.
HALF_ANGLE_DEG: Range = (32.0, 45.0)
LEAN_DEG: Range = (-3.0, 3.0)  # of the fan's middle from vertical
DEPTH: Range = (0.9, 1.06)  # of what would show the whole atrium
DEPTH_MM: Range = (112.0, 160.0)  # limits
NEAR_MM = (0.0, 0.0, 3.0, 7.0)  # radii at which fans begin, equally likely
MARGIN_MM: Range = (0.0, 3.0)  # from the fan to the image's border

# How the heart lies in the sector, all [eye].
APEX_DEPTH_MM: Range = (17.0, 27.0)
BELOW_MM: Range = (2.0, 12.0)  # shown below the atrium
TILT: Range = (-0.16, 0.12)  # radians, of the long axis from the fan's middle
ACROSS_MM: Range = (-3.0, 8.0)  # of the apex from the fan's middle

# Looks in decibels (see `Look`), and what each step of poorness adds; all [eye].
CONTRAST_DB, CONTRAST_POOR_DB = (2.0, 9.0), -1.2
ATRIUM_DB: Range = (0.0, 8.0)
PERICARDIUM_DB, PERICARDIUM_POOR_DB = (1.0, 12.0), -1.5
CLUTTER_DB: Range = (-24.0, -16.0)
CLUTTER_FADE: Range = (0.32, 0.62)  # dB a millimetre
HAZE_DB, HAZE_POOR_DB = (-51.0, -44.0), 2.2
NOISE_DB, NOISE_POOR_DB = (-52.0, -46.0), 1.0
GAIN_DB: Range = (-1.5, 5.0)
DROPOUT_DB, DROPOUT_POOR_DB = (2.0, 7.0), 1.0
FAR_GAIN_DB: Range = (-4.0, 4.0)

# Pulses (see `Pulse`). Across, that of an aperture of 20 mm at 2.5 MHz: two ways, its full width at
# half maximum is 0.89 wavelengths over the aperture, 0.027 radians, or 0.0116 as a standard
# deviation. The others are [eye].
AXIAL_MM: Range = (0.40, 0.52)
LATERAL: Range = (0.0095, 0.0125)
APERTURE_MM: Range = (0.25, 0.4)
SIDE_LOBES: Range = (0.02, 0.07)

_PATIENT, _GEOMETRY, _CHEST, _WINDOW, _SPECKLE = range(5)


@dataclass(frozen=True)
class PhantomFrame:
    """One simulated frame with its ground truth.

    Attributes:
        image: (H, W) grey levels, apex up, exactly 0 outside the sector.
        label: (H, W) class ids; may run past the sector's edge, as annotators draw.
        spacing_mm: (row, col) mm per pixel.
        sector: the fan, mm; the image shows all of it.
    """

    image: UInt8HW
    label: UInt8HW
    spacing_mm: tuple[float, float]
    sector: Sector

    @property
    def frame(self) -> Frame:
        """The frame as a dataset's reader gives it."""
        key = FrameKey("phantom", "phantom", "", "", "", (Path("phantom"),))
        return Frame(key, self.image, self.label, self.spacing_mm)


@dataclass(frozen=True)
class Patient:
    """Who is simulated.

    Attributes:
        hearts: by (view, phase).
        sex, age, quality, frame_rate, n_frames: as the Info files say; the last two by view.
    """

    hearts: Mapping[tuple[View, Phase], Heart]
    sex: str
    age: int
    quality: str
    frame_rate: Mapping[View, float]
    n_frames: Mapping[View, int]


@dataclass(frozen=True)
class PhantomCase:
    """The recordings of one simulated patient.

    Attributes:
        case_id: such as `patient0001`.
        patient: its hearts, and what the Info files say.
        frames: by (view, phase).
    """

    case_id: str
    patient: Patient
    frames: Mapping[tuple[View, Phase], PhantomFrame]

    @cached_property
    def edv_ml(self) -> float:
        """End-diastolic volume of the cavity: biplane discs over its exact contours."""
        return self._volume_ml("ED")

    @cached_property
    def esv_ml(self) -> float:
        """End-systolic volume of the cavity."""
        return self._volume_ml("ES")

    def _volume_ml(self, phase: Phase) -> float:
        hearts = self.patient.hearts
        return biplane_volume(hearts["2CH", phase], hearts["4CH", phase])

    @property
    def ef(self) -> float:
        """Ejection fraction in percent, from the volumes."""
        return 100.0 * (self.edv_ml - self.esv_ml) / self.edv_ml


@dataclass(frozen=True)
class _Recording:
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    sector: Sector
    pose: Pose
    look: Look
    pulse: Pulse


def _rng(seed: int, index: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, *purpose])))


def _draw_patient(seed: int, index: int) -> Patient:
    rng = _rng(seed, index, _PATIENT)
    length, half_width = rng.uniform(*LENGTH_MM), rng.uniform(*HALF_WIDTH_MM)
    shortening, narrowing = rng.uniform(*SHORTENING), rng.uniform(*NARROWING)
    hearts: dict[tuple[View, Phase], Heart] = {}
    for view in VIEWS:
        diastole = draw_heart(rng, view, length, half_width)
        hearts[view, "ED"] = diastole
        hearts[view, "ES"] = contract(diastole, shortening, narrowing)
    return Patient(
        hearts=hearts,
        sex="FM"[int(rng.integers(2))],
        age=int(rng.integers(*AGES)),
        quality=QUALITIES[index % len(QUALITIES)],
        frame_rate={view: round(float(rng.uniform(*FRAME_RATES)), 1) for view in VIEWS},
        n_frames={view: int(rng.integers(*FRAMES)) for view in VIEWS},
    )


def _draw_sector(rng: np.random.Generator, need_mm: float) -> tuple[Sector, tuple[float, float]]:
    """A fan and the (rows, cols) extent of its image, mm."""
    half = np.deg2rad(rng.uniform(*HALF_ANGLE_DEG))
    lean = np.deg2rad(rng.uniform(*LEAN_DEG))
    far = float(np.clip(need_mm * rng.uniform(*DEPTH), *DEPTH_MM))
    near = rng.choice(NEAR_MM)
    left, right = float(lean - half), float(lean + half)
    top = near * float(np.cos(half))
    margins = rng.uniform(*MARGIN_MM, size=4)
    apex_row = margins[0] - top
    apex_col = -far * np.sin(left) + margins[1]
    rows = apex_row + far + margins[2]
    cols = apex_col + far * np.sin(right) + margins[3]
    sector = Sector(float(apex_row), float(apex_col), left, right, float(near), far)
    return sector, (float(rows), float(cols))


def _draw_recording(
    seed: int, index: int, view: View, patient: Patient, spacing_mm: tuple[float, float]
) -> _Recording:
    rng = _rng(seed, index, _GEOMETRY, VIEWS.index(view))
    heart = patient.hearts[view, "ED"]
    depth = rng.uniform(*APEX_DEPTH_MM)
    sector, extent = _draw_sector(
        rng, depth + heart.length + heart.atrium_length + rng.uniform(*BELOW_MM)
    )
    lean = 0.5 * (sector.angle_left + sector.angle_right)
    tilt = lean + rng.uniform(*TILT)
    pose = Pose(
        apex_row=float(sector.apex_row + depth),
        apex_col=float(sector.apex_col + depth * np.tan(lean) + rng.uniform(*ACROSS_MM)),
        tilt=float(tilt),
    )
    poor = POORNESS[patient.quality]
    look = Look(
        contrast=rng.uniform(*CONTRAST_DB) + CONTRAST_POOR_DB * poor,
        atrium=rng.uniform(*ATRIUM_DB),
        pericardium=rng.uniform(*PERICARDIUM_DB) + PERICARDIUM_POOR_DB * poor,
        clutter=rng.uniform(*CLUTTER_DB),
        clutter_fade=rng.uniform(*CLUTTER_FADE),
        haze=rng.uniform(*HAZE_DB) + HAZE_POOR_DB * poor,
        noise=rng.uniform(*NOISE_DB) + NOISE_POOR_DB * poor,
        gain=rng.uniform(*GAIN_DB),
        dropout=rng.uniform(*DROPOUT_DB) + DROPOUT_POOR_DB * poor,
        far_gain=rng.uniform(*FAR_GAIN_DB),
    )
    pulse = Pulse(
        axial_mm=rng.uniform(*AXIAL_MM),
        lateral=rng.uniform(*LATERAL),
        aperture_mm=rng.uniform(*APERTURE_MM),
        side=rng.uniform(*SIDE_LOBES),
    )
    shape = (round(extent[0] / spacing_mm[0]), round(extent[1] / spacing_mm[1]))
    return _Recording(shape, spacing_mm, sector, pose, look, pulse)


def _render(
    recording: _Recording, heart: Heart, seed: int, index: int, view: View, phase: Phase
) -> PhantomFrame:
    sector, spacing = recording.sector, recording.spacing_mm
    radii, angles = beam_grid(sector)
    v = VIEWS.index(view)
    at = shapes(
        heart,
        recording.pose,
        sector.apex_row + radii[:, None] * np.cos(angles)[None, :],
        sector.apex_col + radii[:, None] * np.sin(angles)[None, :],
    )
    echo = echo_db(heart, at, recording.look, radii, angles, _rng(seed, index, _CHEST, v))
    beam = envelope_db(
        echo,
        radii,
        recording.pulse,
        recording.look,
        _rng(seed, index, _WINDOW, v),
        _rng(seed, index, _SPECKLE, v, PHASES.index(phase)),
    )
    image = scan_convert(grey(beam), sector, radii, angles, recording.shape, spacing)
    rows = (np.arange(recording.shape[0], dtype=np.float64) + 0.5)[:, None] * spacing[0]
    cols = (np.arange(recording.shape[1], dtype=np.float64) + 0.5)[None, :] * spacing[1]
    return PhantomFrame(
        image, label_map(shapes(heart, recording.pose, rows, cols)), spacing, sector
    )


def _check(index: int, seed: int) -> None:
    for name, value, least in (("index", index, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(f"{name}: must be at least {least}, got {value}.")


def _spacing(index: int, spacing_mm: tuple[float, float] | None) -> tuple[float, float]:
    return spacing_mm if spacing_mm is not None else SPACINGS_MM[(index - 1) % len(SPACINGS_MM)]


def make_frame(
    index: int,
    view: View,
    phase: Phase,
    seed: int = 0,
    spacing_mm: tuple[float, float] | None = None,
) -> PhantomFrame:
    """One frame of case `index` (from 1), the same as in `make_case(index, seed)`.

    Args:
        index, seed: which phantom.
        view: `2CH` or `4CH`.
        phase: `ED` or `ES`; both share one sector.
        spacing_mm: (row, col) of the image; None takes the case's own.

    Raises:
        UsageError: unknown view or phase, index below 1 or seed below 0.
    """
    _check(index, seed)
    for name, value, known in (("view", view, VIEWS), ("phase", phase, PHASES)):
        if value not in known:
            raise UsageError(f"{name}: must be one of {', '.join(known)}, got {value!r}.")
    patient = _draw_patient(seed, index)
    recording = _draw_recording(seed, index, view, patient, _spacing(index, spacing_mm))
    return _render(recording, patient.hearts[view, phase], seed, index, view, phase)


def make_case(
    index: int, seed: int = 0, spacing_mm: tuple[float, float] | None = None
) -> PhantomCase:
    """Patient number `index` (from 1): two views at two phases.

    Args:
        index, seed: which phantom.
        spacing_mm: (row, col) of every image; None takes the case's own.

    Raises:
        UsageError: index below 1 or seed below 0.
    """
    _check(index, seed)
    patient = _draw_patient(seed, index)
    frames: dict[tuple[View, Phase], PhantomFrame] = {}
    for view in VIEWS:
        recording = _draw_recording(seed, index, view, patient, _spacing(index, spacing_mm))
        for phase in PHASES:
            heart = patient.hearts[view, phase]
            frames[view, phase] = _render(recording, heart, seed, index, view, phase)
    return PhantomCase(f"patient{index:04d}", patient, frames)
