"""Volumes, places and grey levels, against shapes and distributions whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest

from echogen.config import TransformConfig
from echogen.datasets import open_dataset
from echogen.geometry.recording import fit_recording
from echogen.geometry.render import frame_grid, render
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import (
    TransformParams,
    model_grid,
    sample_spacing,
    sector_on_grid,
)
from echogen.measures.classes import Classes, classes_of
from echogen.measures.features import BY_NAME, IN_MM, LabelledImage, features_of
from echogen.measures.shape import axis_deg, shape_of
from echogen.measures.texture import gcnr, speckle_snr
from echogen.measures.volume import (
    Discs,
    LongAxis,
    ejection_fraction,
    long_axis,
    touches_border,
    volume_ml,
)
from echogen.types import Frame

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data" / "camus"
LENGTH, FIRST, SECOND, WALL = 80.0, 26.0, 21.0, 9.0
"""A half spheroid, mm: from its base to its apex, its half widths in two views, its wall."""
TRUTH = 2 / 3 * math.pi * FIRST * SECOND * LENGTH / 1000
SPACING = (0.35, 0.6)
CAMUS = Classes(1, 2, 3)


def half_spheroid(
    half_width: float, spacing: tuple[float, float] = SPACING, turn_deg: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cavity and myocardium, cut flat at the base: apex up where `turn_deg` is 0."""
    side = 2 * (LENGTH + WALL) + 10
    shape = (round(side / spacing[0]), round(side / spacing[1]))
    rows, cols = ((np.arange(n) + 0.5) * s - side / 2 for n, s in zip(shape, spacing, strict=True))
    down, across = rows[:, None], cols[None, :]
    turn = math.radians(turn_deg)
    towards_base = math.cos(turn) * down + math.sin(turn) * across
    beside = math.cos(turn) * across - math.sin(turn) * down
    above = towards_base <= 0
    cavity = above & ((towards_base / LENGTH) ** 2 + (beside / half_width) ** 2 <= 1)
    outer = (towards_base / (LENGTH + WALL)) ** 2 + (beside / (half_width + WALL)) ** 2 <= 1
    return cavity, above & outer & ~cavity


def axis_of(half_width: float, **how: object) -> LongAxis:
    spacing = how.get("spacing", SPACING)
    cavity, wall = half_spheroid(half_width, **how)  # type: ignore[arg-type]
    found = long_axis(cavity, spacing, wall)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("turn", [0, 17, -35, 90, 180])
@pytest.mark.parametrize("spacing", [(0.35, 0.6), (0.7, 0.3), (0.4, 0.4)])
def test_two_views_of_a_half_spheroid_give_its_volume_however_it_lies(
    spacing: tuple[float, float], turn: int
) -> None:
    first, second = (axis_of(w, spacing=spacing, turn_deg=turn) for w in (FIRST, SECOND))
    assert volume_ml(first, second) == pytest.approx(TRUTH, rel=0.02)
    assert first.length == pytest.approx(LENGTH, abs=1.0)
    assert second.length == pytest.approx(LENGTH, abs=1.0)


def test_the_axis_runs_from_the_middle_of_the_opening_to_the_apex() -> None:
    found = axis_of(FIRST)
    middle = LENGTH + WALL + 5
    assert found.base == pytest.approx((middle, middle), abs=1.0)
    assert found.apex == pytest.approx((middle - LENGTH, middle), abs=3)  # it is blunt
    assert found.diameters[0] == pytest.approx(2 * FIRST, rel=0.03)  # from the base
    places = (np.arange(20) + 0.5) / 20
    np.testing.assert_allclose(found.diameters, 2 * FIRST * np.sqrt(1 - places**2), atol=2.5)


def test_one_view_is_taken_for_round() -> None:
    one = volume_ml(axis_of(FIRST))
    assert one == pytest.approx(TRUTH * FIRST / SECOND, rel=0.02)


def test_of_two_views_the_longer_axis_counts() -> None:
    whole, half = axis_of(FIRST), axis_of(SECOND)
    short = Discs(half.length / 2, half.diameters)
    assert volume_ml(whole, short) == volume_ml(short, whole)
    assert volume_ml(whole, short) == pytest.approx(volume_ml(whole, half), rel=0.01)


@pytest.mark.parametrize("probe", [(-1e6, 0.0), (1e6, 0.0)])
def test_without_myocardium_the_base_lies_away_from_the_probe(probe: tuple[float, float]) -> None:
    upside_down = 180.0 if probe[0] > 0 else 0.0
    axes = []
    for width in (FIRST, SECOND):
        cavity, _ = half_spheroid(width, turn_deg=upside_down)
        axes.append(long_axis(cavity, SPACING, None, probe))
    first, second = axes
    assert first is not None
    assert second is not None
    assert volume_ml(first, second) == pytest.approx(TRUTH, rel=0.03)
    away = 1 if probe[0] < 0 else -1
    assert (first.base[0] - first.apex[0]) * away > 0.9 * LENGTH


def test_a_stray_piece_changes_nothing_and_a_speck_has_no_axis() -> None:
    cavity, wall = half_spheroid(FIRST)
    expected = long_axis(cavity, SPACING, wall)
    cavity[-8:-2, -8:-2] = True
    found = long_axis(cavity, SPACING, wall)
    assert expected is not None
    assert found is not None
    assert volume_ml(found) == volume_ml(expected)
    speck = np.zeros((40, 40), np.bool_)
    speck[:5, :5] = True
    assert long_axis(speck, SPACING) is None


def test_ejection_fraction_is_in_percent() -> None:
    assert ejection_fraction(120.0, 48.0) == pytest.approx(60.0)
    assert math.isnan(ejection_fraction(0.0, 0.0))


@pytest.mark.parametrize("edge", [(0, 5), (-1, 5), (5, 0), (5, -1)])
def test_what_reaches_the_edge_of_the_image_is_told(edge: tuple[int, int]) -> None:
    part = np.zeros((12, 12), np.bool_)
    part[3:9, 3:9] = True
    assert not touches_border(part)
    part[edge] = True
    assert touches_border(part)


FAN, ASPECT = Sector(-0.5, 99.5, -0.6, 0.6, 0.0, 200.0), 1.5


def ellipse(centre: tuple[float, float], half: tuple[float, float]) -> np.ndarray:
    rows, cols = np.ogrid[:200, :200]
    away = ((rows - centre[0]) / half[0]) ** 2 + ((cols - centre[1]) / half[1]) ** 2
    return np.asarray(away <= 1)


def test_a_disc_has_the_area_the_place_and_the_width_of_a_disc() -> None:
    # 45 rows and 30 columns of 1.5 rows' width: round as displayed
    part = ellipse((119.5, 139.5), (45, 30))
    found = shape_of(part, FAN, ASPECT, (0.4, 0.6))
    assert found is not None
    assert found.area == pytest.approx(math.pi * 18 * 18, rel=0.01)
    assert found.share == pytest.approx(math.pi * 45**2 / FAN.area, rel=0.01)
    assert found.angle_deg == pytest.approx(math.degrees(math.atan2(40 * 1.5, 120)), abs=0.05)
    assert found.radius == pytest.approx(math.hypot(120, 60) / 200, abs=0.001)
    assert found.distance == pytest.approx(math.hypot(120 * 0.4, 40 * 0.6), abs=0.05)
    assert found.width == pytest.approx(1.0, abs=0.03)
    assert shape_of(np.zeros_like(part), FAN, ASPECT, (0.4, 0.6)) is None


def test_angles_are_from_the_middle_of_the_fan_and_radii_from_its_near_arc() -> None:
    turned = Sector(-0.5, 99.5, -0.2, 0.6, 50.0, 200.0)
    found = shape_of(ellipse((124.5, 99.5), (9, 9)), turned, 1.0, (1.0, 1.0))
    assert found is not None
    assert found.angle_deg == pytest.approx(-math.degrees(0.2))
    assert found.radius == pytest.approx((125 - 50) / 150)


@pytest.mark.parametrize("angle", [-60, 0, 25, 89])
def test_the_principal_axis_of_a_long_part_is_its_direction(angle: int) -> None:
    along = np.linspace(-1, 1, 50)
    turn = math.radians(angle)
    points = np.stack([along * math.cos(turn), along * math.sin(turn)], axis=1)
    assert axis_deg(points) == pytest.approx(angle, abs=1e-6)
    assert axis_deg(-points) == pytest.approx(angle, abs=1e-6)
    assert math.isnan(axis_deg(points[:2]))


def test_gcnr_is_0_for_one_distribution_and_1_for_two_apart() -> None:
    rng = np.random.default_rng(0)
    left = np.zeros((200, 200), np.bool_)
    left[:, :100] = True
    half = rng.integers(0, 256, (200, 100))
    one = np.hstack([half, half[::-1]])
    assert gcnr(one, left, ~left) == 0
    assert gcnr(np.where(left, one // 4, 128 + one // 4), left, ~left) == 1
    # half of the darker one's levels are shared
    assert gcnr(np.where(left, one % 128, 64 + one % 128), left, ~left) == pytest.approx(
        0.5, abs=0.02
    )
    few = np.zeros_like(left)
    few[0, :49] = True
    assert math.isnan(gcnr(one, few, ~left))


def test_gcnr_does_not_depend_on_compression() -> None:
    rng = np.random.default_rng(1)
    image = np.clip(rng.rayleigh(30, (300, 300)), 0, 200).astype(int)
    image[:, 150:] = np.clip(rng.rayleigh(60, (300, 150)), 0, 200)
    left = np.zeros(image.shape, np.bool_)
    left[:, :150] = True
    brighter = np.rint(255 * np.sqrt(image / 200)).astype(int)
    assert gcnr(brighter, left, ~left) == pytest.approx(gcnr(image, left, ~left), abs=0.02)


def test_developed_speckle_has_an_snr_of_1_91() -> None:
    rayleigh = np.random.default_rng(0).rayleigh(40, (400, 400))
    everywhere = np.ones(rayleigh.shape, np.bool_)
    assert speckle_snr(rayleigh, everywhere) == pytest.approx(
        math.sqrt(math.pi / (4 - math.pi)), abs=0.02
    )
    assert math.isnan(speckle_snr(np.full((20, 20), 7), np.ones((20, 20), np.bool_)))
    few = np.zeros(rayleigh.shape, np.bool_)
    few[0, :49] = True
    assert math.isnan(speckle_snr(rayleigh, few))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0: "background", 1: "LV cavity", 2: "myocardium", 3: "left atrium"}, (1, 2, 3)),
        ({1: "LA", 2: "LV endo-epi wall", 3: "LV_endo"}, (3, 2, 1)),
        ({1: "left ventricle", 2: "left ventricular wall", 3: "Atrium"}, (1, 2, 3)),
        ({1: "class 1", 2: "class 2", 3: "class 3"}, (1, 2, 3)),
        ({1: "class 1"}, (1, None, None)),
        ({7: "something"}, (None, None, None)),
        ({0: "background", 1: "mask"}, (1, None, None)),
        ({1: "RV"}, (None, None, None, 1)),
        ({1: "aorta", 2: "class 2"}, (None, None, None)),
        ({5: "LV", 6: "something"}, (5, None, None)),
    ],
)
def test_parts_are_known_by_their_names_then_by_camus_ids(
    labels: dict[int, str], expected: tuple[int | None, ...]
) -> None:
    assert classes_of(labels) == Classes(*expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({1: "right ventricle", 2: "myocardium", 3: "left ventricle"}, (3, 2, None)),
        ({1: "mitral valve", 2: "left ventricle"}, (2, None, None)),
        ({1: "right atrium", 2: "left atrium", 3: "LV"}, (3, None, 2)),
        ({1: "LV epicardium", 2: "LV endocardium"}, (2, 1, None)),
        ({1: "LV wall", 2: "LVcavity", 3: "LA"}, (2, 1, 3)),
        ({1: "LV", 2: "LA", 3: "RA", 4: "RV"}, (1, None, 2)),
        ({1: "LVOT", 2: "interventricular septum", 3: "LV endocardium"}, (3, None, None)),
        ({1: "LA wall", 2: "LV muscle", 3: "LA appendage"}, (None, 2, None)),
    ],
)
def test_other_chambers_and_valves_are_not_taken_for_the_left_heart(
    labels: dict[int, str], expected: tuple[int | None, ...]
) -> None:
    found = classes_of(labels)
    assert (found.cavity, found.myocardium, found.atrium) == expected


def sample_frames() -> list[tuple[Frame, object]]:
    """One frame a case, views and phases in turn, with its fan."""
    dataset = open_dataset(SAMPLE_DATA)
    chosen = [key for i, key in enumerate(dataset.keys) if i % 9 == 0]
    fitted = (next(iter(fit_recording([dataset.read(key)]))) for key in chosen)
    return [(one.frame, one.sector) for one in fitted]


MOVES = {
    "none": TransformParams(),
    "depth": TransformParams(depth=1.4),
    "tilt": TransformParams(tilt_deg=15),
    "shift": TransformParams(shift_x=0.06, shift_y=-0.04),
    "width": TransformParams(width=0.7),
    "all": TransformParams(1.3, -12, 0.8, 0.05, 0.03),
}


@pytest.fixture(scope="module")
def moved_volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{move: volumes over those of the frames, by the sample's own spacing and by the frame's}."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MOVES}
    for frame, sector in sample_frames():
        assert sector is not None

        def volume(image: np.ndarray, label: np.ndarray, on: object, spacing: object) -> float:
            fan, aspect = sector_on_grid(sector, on)  # type: ignore[arg-type] # noqa: B023
            sample = LabelledImage(image, label, fan, aspect, spacing)  # type: ignore[arg-type]
            return features_of(sample, CAMUS).values["lv_volume"]

        native = volume(frame.image, frame.label, frame_grid(frame), frame.spacing_mm)
        target = model_grid(frame.image.shape, frame.unit_spacing, 256)  # type: ignore[arg-type]
        for name, move in MOVES.items():
            moved = render(frame, sector, move, target, TransformConfig())  # type: ignore[arg-type]
            pixels = moved.image, moved.label, target
            found[name].append(
                (
                    volume(*pixels, sample_spacing(move, target)) / native,
                    volume(*pixels, target.spacing_mm) / native,
                )
            )
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in found.items()}


@pytest.mark.parametrize("name", MOVES)
def test_a_samples_own_spacing_gives_the_volume_of_its_frame(
    moved_volumes: dict[str, tuple[np.ndarray, np.ndarray]], name: str
) -> None:
    # over all 28 frames the largest is 1.59 %
    np.testing.assert_allclose(moved_volumes[name][0], 1, atol=0.02)


@pytest.mark.parametrize(("name", "wrong"), [("depth", 1.4**-3), ("width", 0.7**2)])
def test_the_frames_spacing_would_give_a_wrong_volume(
    moved_volumes: dict[str, tuple[np.ndarray, np.ndarray]], name: str, wrong: float
) -> None:
    np.testing.assert_allclose(moved_volumes[name][1], wrong, rtol=0.03)


def test_a_cut_cavity_has_no_volume_but_an_area() -> None:
    cavity, wall = half_spheroid(FIRST, (1.0, 1.0))
    label = (cavity + 2 * wall).astype(np.uint8)
    fan = np.array([0, label.shape[1] / 2, -0.7, 0.7, 2, label.shape[0]], np.float32)
    grey = np.random.default_rng(0).integers(0, 256, label.shape).astype(np.uint8)
    whole = features_of(LabelledImage(grey, label, fan, 1.0, (1.0, 1.0)), CAMUS)
    first_row = int(np.argwhere(cavity)[:, 0].min()) + 5
    cut = features_of(
        LabelledImage(grey[first_row:], label[first_row:], fan, 1.0, (1.0, 1.0)), CAMUS
    )
    assert whole.values["lv_volume"] == pytest.approx(TRUTH * FIRST / SECOND, rel=0.03)
    assert math.isnan(cut.values["lv_volume"])
    assert cut.discs is None
    assert cut.values["cavity_area"] == pytest.approx(whole.values["cavity_area"], rel=0.05)


def test_without_a_spacing_only_ratios_and_angles_are_given() -> None:
    cavity, wall = half_spheroid(FIRST, (1.0, 1.0))
    label = (cavity + 2 * wall).astype(np.uint8)
    fan = np.array([0, label.shape[1] / 2, -0.7, 0.7, 2, label.shape[0]], np.float32)
    grey = np.random.default_rng(0).integers(0, 256, label.shape).astype(np.uint8)
    known, unknown = (
        features_of(LabelledImage(grey, label, fan, 1.0, spacing), CAMUS)
        for spacing in ((1.0, 1.0), None)
    )
    for name in BY_NAME:
        if name in IN_MM:
            assert math.isnan(unknown.values[name]), name
        else:
            assert unknown.values[name] == pytest.approx(known.values[name], nan_ok=True), name
    assert {"cavity_share", "cavity_angle", "gcnr"} <= {
        name for name, value in unknown.values.items() if np.isfinite(value)
    }
    assert known.discs is not None
    assert unknown.discs is not None
    assert (known.discs.in_mm, unknown.discs.in_mm) == (True, False)


def test_without_a_fan_nothing_is_measured() -> None:
    nowhere = np.full(6, np.nan)
    image = np.zeros((9, 9), np.uint8)
    assert np.isnan(
        list(features_of(LabelledImage(image, image, nowhere, 1, None), CAMUS).values.values())
    ).all()
