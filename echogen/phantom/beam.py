"""From scatterers to a grey image: speckle in beam space, log compression, scan conversion.

The point-spread function is separable on the (radius, angle) grid: fixed along the beam in mm,
across it a near-constant angle, so that speckle widens with depth. Scatterers are random complex
amplitudes and their filtered sum fully developed speckle (Goodman 1975); several looks are averaged
in power, as compounding scanners do. All sums are plain array arithmetic in float64 and all draws
are uniform, so that the rounded grey levels are the same on every machine. [eye] as in `anatomy`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from echogen.geometry.sector import Sector
from echogen.phantom.anatomy import FloatArray, Range
from echogen.phantom.tissue import Look, patches
from echogen.types import UInt8HW

# The grid: about two samples for each standard deviation of the pulse.
RADIUS_STEP_MM = 0.25
ANGLE_STEP = 0.0044  # radians

# From the envelope to grey levels; all [eye].
DYNAMIC_RANGE_DB = 55.0  # scanners commonly show 50 to 60
GREY_POWER = 1.35  # of the level in [0, 1]; more than 1 darkens
LOOKS = 3  # averaged in power
SILENCE = 1e-9  # power: keeps the logarithm finite, 90 dB below white

# The pulse's filters, in standard deviations of its widths.
AXIAL_REACH, LATERAL_REACH = 3.0, 2.6  # where taps end: 1% and 3% of the peak
SIDE_WIDTH = 3.5  # of the side lobes over the main lobe [eye]
WIDEST = 0.12  # radians: limit of the main lobe near the probe [eye]
LEAST_RADIUS_MM = 1.0  # where the probe's width becomes an angle
LEAST_TAP = 1e-4  # smaller weights are left out
HISS_WIDTH = 0.8  # of the pulse, along the beam: noise passes the receiver's filter alone [eye]
UNIT_POWER = np.sqrt(6.0)  # two uniform parts of variance 1/12 have the power 1/6

# Unevenness; all [eye]. Patches are mm along the beam and radians across.
BANDS_MM, BANDS, BANDS_DB, BANDS_FADE_MM = 2.2, 0.22, 6.0, 25.0  # reverberations near the probe
VEIL_MM, VEIL, VEIL_DB, VEIL_LOSS_DB = 35.0, 0.45, 4.0, 5.0  # haze, and its loss to full depth
LINES, LINES_DB = 0.12, 2.0  # gain from line to line
EDGE_LOSS_DB, EDGE_POWER = 4.0, 3  # at the outermost lines, and how late it sets in
SHADOW_AT: Range = (0.5, 1.0)  # of half the window: one shadow on each side
SHADOW_WIDTH: Range = (0.06, 0.2)  # of half the window, standard deviation
SHADOW_ONSET_MM: Range = (15.0, 60.0)
SHADOW_LOSS_DB: Range = (3.0, 16.0)
SHADOW_RAMP_MM = 15.0  # from onset to full loss
NEAR_NOISE_DB = 9.0  # how much less noise there is at the probe than at full depth
GLINT_SHARE, GLINT_ABOVE_DB, GLINT_DB = 0.01, -34.0, 13.0  # strong scatterers, not in blood

ComplexArray = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Pulse:
    """The point-spread function: standard deviations, mm along the beam and radians across.

    `aperture_mm` is the least width across, near the probe; `side` the share of the side lobes.
    """

    axial_mm: float
    lateral: float
    aperture_mm: float
    side: float


def beam_grid(sector: Sector) -> tuple[FloatArray, FloatArray]:
    """Radii (mm) and angles (radians) that cover the sector with one step to spare."""
    radii = np.arange(
        sector.radius_near, sector.radius_far + 2 * RADIUS_STEP_MM, RADIUS_STEP_MM, dtype=np.float64
    )
    angles = np.arange(
        sector.angle_left - ANGLE_STEP, sector.angle_right + 2 * ANGLE_STEP, ANGLE_STEP
    )
    return radii, angles.astype(np.float64)


def _complex_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> ComplexArray:
    """Unit power, independent real and imaginary parts, uniform."""
    real, imaginary = rng.random(shape) - 0.5, rng.random(shape) - 0.5
    field: ComplexArray = UNIT_POWER * (real + 1j * imaginary)
    return field


def _along_beam(field: ComplexArray, sigma_mm: float) -> ComplexArray:
    half = int(np.ceil(AXIAL_REACH * sigma_mm / RADIUS_STEP_MM))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) * RADIUS_STEP_MM / sigma_mm) ** 2)
    taps /= np.sqrt((taps**2).sum())
    padded = np.pad(field, ((half, half), (0, 0)))
    out = np.zeros_like(field)
    for k, tap in enumerate(taps):
        out += tap * padded[k : k + field.shape[0]]
    return out


def _across_beam(field: ComplexArray, radii: FloatArray, pulse: Pulse) -> ComplexArray:
    sigma = np.hypot(pulse.lateral, pulse.aperture_mm / np.maximum(radii, LEAST_RADIUS_MM))
    sigma = np.minimum(sigma, WIDEST)
    side_lobe = SIDE_WIDTH * pulse.lateral
    half = int(np.ceil(LATERAL_REACH * max(float(sigma.max()), side_lobe) / ANGLE_STEP))
    offsets = np.arange(-half, half + 1) * ANGLE_STEP
    main = np.exp(-0.5 * (offsets[None, :] / sigma[:, None]) ** 2)
    side = np.exp(-0.5 * (offsets / side_lobe) ** 2)
    taps = main + pulse.side * side[None, :]
    taps /= np.sqrt((taps**2).sum(axis=1, keepdims=True))
    padded = np.pad(field, ((0, 0), (half, half)))
    out = np.zeros_like(field)
    for k in range(2 * half + 1):
        weight = taps[:, k : k + 1]
        used = weight[:, 0] > LEAST_TAP
        first, last = int(used.argmax()), int(used.size - used[::-1].argmax())
        if used.any():
            out[first:last] += weight[first:last] * padded[first:last, k : k + field.shape[1]]
    return out


def _amplitude(db: FloatArray) -> FloatArray:
    result: FloatArray = 10.0 ** (db / 20.0)
    return result


def _haze_db(
    shape: tuple[int, int], radii: FloatArray, look: Look, rng: np.random.Generator
) -> FloatArray:
    """Reverberations near the probe: bands at fixed depth that fade, over an even haze."""
    bands = patches(rng, shape, (BANDS_MM / RADIUS_STEP_MM, BANDS / ANGLE_STEP))
    near = (
        look.clutter
        - look.clutter_fade * radii[:, None]
        + BANDS_DB * bands * np.exp(-radii[:, None] / BANDS_FADE_MM)
    )
    cells = (VEIL_MM / RADIUS_STEP_MM, VEIL / ANGLE_STEP)
    veil = look.haze + VEIL_DB * patches(rng, shape, cells)
    veil = veil - VEIL_LOSS_DB * radii[:, None] / radii[-1]
    result: FloatArray = 10.0 * np.log10(10.0 ** (near / 10.0) + 10.0 ** (veil / 10.0))
    return result


def _window_db(
    shape: tuple[int, int], radii: FloatArray, look: Look, rng: np.random.Generator
) -> FloatArray:
    """Gain that differs across the window: uneven lines, weak edges, shadows from a depth on."""
    across = np.linspace(-1.0, 1.0, shape[1])[None, :]
    gain = look.gain + LINES_DB * patches(rng, (1, shape[1]), (1.0, LINES / ANGLE_STEP))
    gain = gain - EDGE_LOSS_DB * np.abs(across) ** EDGE_POWER
    for side in (-1.0, 1.0):
        centre, width = side * rng.uniform(*SHADOW_AT), rng.uniform(*SHADOW_WIDTH)
        onset, loss = rng.uniform(*SHADOW_ONSET_MM), rng.uniform(*SHADOW_LOSS_DB)
        ramp = np.clip((radii[:, None] - onset) / SHADOW_RAMP_MM, 0.0, 1.0)
        gain = gain - loss * ramp * np.exp(-0.5 * ((across - centre) / width) ** 2)
    return np.broadcast_to(gain, shape)


def envelope_db(
    echo: FloatArray,
    sector_radii: FloatArray,
    pulse: Pulse,
    look: Look,
    window_rng: np.random.Generator,
    speckle_rng: np.random.Generator,
) -> FloatArray:
    """The beamformed envelope, decibels below full white, on the (radius, angle) grid of `echo`.

    Args:
        echo: (R, A) mean scattering, decibels.
        sector_radii: (R,) mm.
        window_rng: draws shadows and reverberations, the same for every frame of a recording.
        speckle_rng: draws scatterers and noise, its own for every frame.
    """
    shape = (echo.shape[0], echo.shape[1])
    window = _amplitude(_window_db(shape, sector_radii, look, window_rng))
    haze = _amplitude(_haze_db(shape, sector_radii, look, window_rng))
    depth = sector_radii[:, None] / sector_radii[-1]
    noise = _amplitude(look.noise - NEAR_NOISE_DB * (1.0 - depth))
    glints = (speckle_rng.random(shape) < GLINT_SHARE) & (echo > GLINT_ABOVE_DB)
    tissue = _amplitude(echo + np.where(glints, GLINT_DB, 0.0)) * window
    power = np.zeros(shape)
    for _ in range(LOOKS):
        scatter = tissue * _complex_uniform(speckle_rng, shape)
        scatter += haze * _complex_uniform(speckle_rng, shape)
        received = _across_beam(_along_beam(scatter, pulse.axial_mm), sector_radii, pulse)
        hiss = noise * _complex_uniform(speckle_rng, shape)
        received += _along_beam(hiss, HISS_WIDTH * pulse.axial_mm)
        power += received.real**2 + received.imag**2
    result: FloatArray = 10.0 * np.log10(power / LOOKS + SILENCE)
    return result


def grey(db: FloatArray) -> FloatArray:
    """Decibels below full white to grey levels 0..255, not yet rounded."""
    level = np.clip(1.0 + db / DYNAMIC_RANGE_DB, 0.0, 1.0)
    result: FloatArray = 255.0 * level**GREY_POWER
    return result


def scan_convert(
    beam: FloatArray,
    sector: Sector,
    radii: FloatArray,
    angles: FloatArray,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
) -> UInt8HW:
    """A beam-space picture (R, A) as (H, W) uint8, bilinear; exactly 0 outside the sector."""
    rows = (np.arange(shape[0]) + 0.5)[:, None] * spacing_mm[0] - sector.apex_row
    cols = (np.arange(shape[1]) + 0.5)[None, :] * spacing_mm[1] - sector.apex_col
    inside = sector.mask(shape, spacing_mm)
    radius = np.hypot(rows, cols)[inside]
    angle = np.arctan2(cols, rows)[inside]
    i = (radius - radii[0]) / (radii[1] - radii[0])
    j = (angle - angles[0]) / (angles[1] - angles[0])
    i0 = np.clip(i.astype(np.int64), 0, radii.size - 2)
    j0 = np.clip(j.astype(np.int64), 0, angles.size - 2)
    di, dj = i - i0, j - j0
    value = (1 - di) * ((1 - dj) * beam[i0, j0] + dj * beam[i0, j0 + 1]) + di * (
        (1 - dj) * beam[i0 + 1, j0] + dj * beam[i0 + 1, j0 + 1]
    )
    image = np.zeros(shape, dtype=np.uint8)
    image[inside] = np.clip(np.rint(value), 0, 255).astype(np.uint8)
    return image
