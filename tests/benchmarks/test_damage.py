"""Damage whose truth is known: pixels and fan stay together, and a seed gives the same bytes."""

import numpy as np
import pytest
from damage import ALIKE, DAMAGES, Scan, as_clip, combined, drawn_names, dropout, dropout_both, gain
from scipy import ndimage

from echogen.geometry.sector import Sector

SECTOR = Sector(12.0, 64.0, -0.62, 0.55, 4.0, 100.0)
SHAPE, SPACING = (240, 260), (0.5, 0.5)
GEOMETRY = ("reshape", "flip", "margins", "crop", "letterbox", "jpeg", "mpeg")
OVERLAYS = ("text", "ticks", "ruler", "marker", "logo", "ecg", "grey_bar")


def scan(level: int = 200, frames: int = 1) -> Scan:
    fan = SECTOR.mask(SHAPE, SPACING)
    return Scan(np.repeat(np.where(fan, level, 0).astype(np.uint8)[None], frames, 0),
                SPACING, SECTOR)  # fmt: skip


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(5))
def test_the_fan_stays_on_its_echoes(name: str, seed: int) -> None:
    made = DAMAGES[name](scan(), np.random.default_rng(seed))
    echoes, fan = abs(made.frames[0].astype(int) - 200) < 50, made.fan()
    assert fan.sum() > 0.05 * fan.size
    line = 2 * np.sqrt(fan.sum())  # a pixel's width along much of the outline
    assert (echoes ^ fan).sum() < line + 0.01 * fan.sum()


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_changes_the_picture_and_follows_its_seed(name: str) -> None:
    clean = scan()
    one, same, other = (DAMAGES[name](clean, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.sector == same.sector
    np.testing.assert_array_equal(one.frames, same.frames)
    assert one.shape != clean.shape or (one.frames != clean.frames).any()
    if name != "flip":
        assert one.shape != other.shape or (one.frames != other.frames).any()


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_lie_on_all_frames_alike_and_leave_most_of_the_fan(name: str) -> None:
    clip = scan(frames=3)
    made = DAMAGES[name](clip, np.random.default_rng(1))
    changed = made.frames != clip.frames
    assert made.sector == SECTOR
    assert changed[0].any()
    np.testing.assert_array_equal(changed[0], changed[2])
    assert changed[0][clip.fan()].mean() < 0.05


@pytest.mark.parametrize("seed", range(8))
def test_dropout_blackens_a_part_of_one_edge_or_of_both(seed: int) -> None:
    for damage, edges in ((dropout, 1), (dropout_both, 2)):
        made = damage(scan(), np.random.default_rng(seed))
        across, depth = made.polar()
        lost = made.fan() & (made.frames[0] < 20)
        reached = 0
        for near_edge in (across < 0.03, across > 0.97):
            edge = made.fan() & near_edge & (depth > 0.1)
            rows = np.histogram(depth[edge & lost], bins=45, range=(0.1, 1))[0]
            share = (rows > 0).mean()
            reached += share > 0.03
            assert share < 0.75
        assert reached <= edges
        assert ndimage.binary_dilation(lost & (abs(across - 0.5) < 0.1)).sum() == 0
    assert reached == 2


def test_gain_moves_grey_levels_and_no_shape() -> None:
    made = gain(scan(), np.random.default_rng(0))
    assert made.sector == SECTOR
    assert not made.frames[0][~made.fan()].any()


def test_drawn_combinations_go_together_and_are_applied_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        names = drawn_names(rng)
        assert names == [name for name in DAMAGES if name in names]
        for alike in ALIKE:
            assert sum(name in alike for name in names) <= 1
    made = combined(scan(), np.random.default_rng(0), ["crop", "flip"])
    assert made.sector.angle_left == -SECTOR.angle_right
    assert made.shape < SHAPE


def test_a_clip_beats_between_two_frames() -> None:
    first, last = scan(100).frames[0], scan(200).frames[0]
    clip = as_clip(first, last, 8, np.random.default_rng(0))
    means = clip[:, SECTOR.mask(SHAPE, SPACING)].mean(axis=1)
    assert clip.shape == (8, *SHAPE)
    assert means.argmax() == 4
    assert means[0] == pytest.approx(100, abs=1)
    assert not clip[:, ~SECTOR.mask(SHAPE, SPACING)].any()
