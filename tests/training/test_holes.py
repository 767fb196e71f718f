"""Holes drawn in torch for a batch, against the geometry that `expand` moves one frame by."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from echogen.config import TransformConfig
from echogen.geometry.field import field_grid, field_of, seen_on
from echogen.geometry.render import frame_grid, render
from echogen.geometry.sector import Sector, fan_mask
from echogen.geometry.transforms import TransformParams, draw, inverse, matrix, sector_on_grid
from echogen.training.augment import (
    UNTOLD_DRAWS,
    Varied,
    as_they_are,
    vary_untold,
)
from echogen.training.fans import Fans, after, still, way_back
from echogen.training.holes import (
    HOLE_DRAWS,
    border_weights,
    draw_keep,
    fixed_keep,
    hidden_whole,
)
from echogen.training.recipe import AugmentConfig, HolesConfig
from echogen.types import Frame, FrameKey

SIDE = 128
SECTORS = {
    "usual": Sector(2.0, 60.0, -0.65, 0.62, 0.0, 110.0),
    "curved": Sector(-20.0, 60.0, -0.5, 0.5, 35.0, 130.0),
    "half": Sector(10.0, 62.0, -1.5, 1.5, 6.0, 58.0),
    "cut": Sector(2.0, 52.0, -0.85, 0.7, 0.0, 118.0),  # by the picture's left and right border
}
VARY = AugmentConfig(
    probability=0.65, each=0.4, zoom=(0.65, 1.3), lateral=(0.6, 1.5), tilt_deg=30.0,
    shift=0.176, gamma=0.25,
)  # fmt: skip


def frame(sector: Sector) -> Frame:
    """A bright fan in a picture of 240 x 250 pixels of 0.5 mm."""
    inside = sector.mask((240, 250), (0.5, 0.5))
    return Frame(
        key=FrameKey("p1_4CH_ED", "p1", "4CH", "ED", "", ()),
        image=inside.astype(np.uint8) * 200,
        label=inside.astype(np.uint8),
        spacing_mm=(0.5, 0.5),
    )


def on_grid(name: str, count: int = 1, side: int = SIDE) -> tuple[Fans, Sector, object, object]:
    """The fan on the model's grid, its sector, its field and the grid."""
    field = field_of(frame(SECTORS[name]), SECTORS[name])
    source = frame_grid(field.frame)
    target = field_grid(field.sector, source, side)
    sector, aspect = sector_on_grid(field.sector, target)
    numbers = torch.tensor(np.array([*sector, aspect, *seen_on(target, source)], np.float32))
    return Fans(numbers.repeat(count, 1), side), field.sector, field, target


def back_of(params: TransformParams, fans: Fans) -> torch.Tensor:
    height, tensor = fans.height, torch.tensor
    return way_back(
        tensor([params.depth]), tensor([math.radians(params.tilt_deg)]), tensor([params.width]),
        params.shift_y * height, params.shift_x * height,
    )  # fmt: skip


def rich(count: int, name: str = "usual", seed: int = 0, **changes: float):
    """Varied frames, what is known of them, the draws and the settings."""
    config = HolesConfig(**changes)
    fans, *_ = on_grid(name, count)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, UNTOLD_DRAWS + HOLE_DRAWS, generator=generator)
    untold, holes = draws[:, :UNTOLD_DRAWS], draws[:, UNTOLD_DRAWS:]
    frames = as_they_are(fans).shown[:, None].float() * 0.5
    images, varied = vary_untold(frames, fans, untold, hidden_whole(holes, config), VARY)
    return images, varied, draw_keep(varied, holes, config), holes, config


# --- the fan and its moves are the geometry's


@pytest.mark.parametrize("name", SECTORS)
def test_a_fan_covers_the_pixels_that_the_geometrys_does(name):
    fans, *_ = on_grid(name)
    numbers = fans.numbers[0].numpy()
    expected = fan_mask(numbers[:6], numbers[6], (SIDE, SIDE), numbers[7:])
    shown = fans.within(still(fans))[0].numpy()
    assert (shown == expected).mean() > 0.999
    assert expected.mean() > 0.3


@pytest.mark.parametrize("name", SECTORS)
def test_what_a_move_leaves_known_is_what_expand_keeps(name):
    fans, sector, field, target = on_grid(name, side=256)
    config, shares = TransformConfig(), []
    for seed in range(12):
        params = draw(np.random.default_rng(seed), config)
        expected = render(field.frame, sector, params, target, config).keep
        back = back_of(params, fans)
        shown = fans.within(still(fans))
        keep = fans.within(back, config.border * fans.height) & shown | ~shown
        assert (keep[0].numpy() == expected).mean() >= 0.99, params
        shares.append(1 - expected.mean())
    assert max(shares) > 0.15  # holes, not whole fans compared with whole fans


def test_the_way_back_is_the_inverse_of_the_geometrys_move():
    fans, sector, _, target = on_grid("usual")
    params = TransformParams(1.3, 20.0, 0.7, 0.05, -0.1)
    height = float(fans.height) * target.spacing_mm[0]
    expected = inverse(matrix(params, sector, height))
    apex = np.array([sector.apex_row, sector.apex_col])
    down, across = 30.0, -12.0
    found = back_of(params, fans)[0] @ torch.tensor([down, across, 1.0])
    step = target.spacing_mm[0]
    displayed = np.array([*(apex + np.array([down, across]) * step), 1.0])
    assert found.numpy() * step == pytest.approx((expected @ displayed)[:2] - apex, abs=1e-3)


def test_two_moves_are_one():
    one = way_back(*(torch.tensor([v]) for v in (1.2, 0.3, 0.8, 5.0, -3.0)))
    two = way_back(*(torch.tensor([v]) for v in (0.9, -0.1, 1.3, 1.0, 2.0)))
    point = torch.tensor([40.0, 15.0, 1.0])
    between = torch.cat([two[0] @ point, torch.ones(1)])
    assert torch.allclose(after(one, two)[0] @ point, one[0] @ between, atol=1e-4)


# --- variation


def test_a_varied_frame_lies_where_it_is_said_to_and_is_black_elsewhere():
    images, varied, *_ = rich(64)
    assert not images[~varied.shown[:, None]].any()
    inside = torch.stack([images[n, 0][varied.shown[n]].mean() for n in range(64)])
    assert ((inside - 0.5).abs() < 0.12).all()  # grey, but for gamma and softened edges
    moved = (varied.shown != as_they_are(varied.fans).shown).flatten(1).float().mean(dim=1)
    assert 20 < int((moved > 0.02).sum()) < 60
    levels = images * 255
    assert torch.equal(levels, levels.round())


def test_an_image_hidden_as_a_whole_keeps_its_fan():
    images, varied, keep, *_ = rich(32, moves=0.0, shapes=0.0, whole=1.0)
    own = as_they_are(varied.fans).shown
    assert not keep.any()
    assert (varied.shown & ~own).sum() == 0
    bared = (own & ~varied.shown).flatten(1).float().mean(dim=1)
    assert bared.max() < 0.01
    assert len({image.numpy().tobytes() for image in images}) > 5


# --- holes


def test_shares_come_out_and_holes_have_the_size_that_is_asked():
    _, varied, keep, draws, config = rich(600)
    hidden = (~keep[:, 0] & varied.shown).flatten(1).sum(dim=1)
    share = hidden / varied.shown.flatten(1).sum(dim=1)
    whole = ~keep.flatten(1).any(dim=1)
    assert torch.equal(whole, hidden_whole(draws, config))
    assert float(whole.float().mean()) == pytest.approx(0.1, abs=0.04)
    moved = draws[:, 0] < config.moves
    assert float(moved.float().mean()) == pytest.approx(0.7, abs=0.06)
    assert 0.015 < share[moved].min() < 0.05
    assert 0.7 < share[moved].max() < 0.94
    assert share[~whole].min() > 0.01
    assert share[~whole].max() < 0.95
    assert float(share[~whole].std()) > 0.15
    beyond = (~keep[:, 0] & ~varied.shown).flatten(1).any(dim=1)
    assert not beyond[moved].any()
    shapes = ~moved & ~whole
    assert 0.1 < float(beyond[shapes].float().mean()) < 0.5


@pytest.mark.parametrize("name", SECTORS)
def test_every_shape_occurs_in_any_fan(name):
    _, varied, keep, *_ = rich(200, name, moves=0.0, shapes=1.0, whole=0.0)
    share = (~keep[:, 0] & varied.shown).flatten(1).sum(1) / varied.shown.flatten(1).sum(1)
    assert share.max() < 0.97
    assert (share > 0.05).float().mean() > 0.6


def test_a_hole_depends_on_its_own_row_alone():
    _, varied, keep, draws, config = rich(40, seed=3)
    some = torch.tensor([30, 2, 17])
    assert torch.equal(draw_keep(varied[some], draws[some], config), keep[some])
    assert not torch.equal(keep[30], keep[2])


def test_without_a_hole_of_a_fitting_size_the_whole_fan_is_hidden():
    fans, *_ = on_grid("usual", 3)
    varied = as_they_are(fans)
    config = HolesConfig(moves=1.0, shapes=0.0, whole=0.0, probability=0.0, border=0.0,
                         border_varied=0.0)  # fmt: skip
    keep = draw_keep(varied, torch.rand(3, HOLE_DRAWS), config)
    assert torch.equal(keep[:, 0], ~varied.shown)


def test_fixed_holes_are_the_same_for_the_first_of_more_frames():
    few, many = (fixed_keep(on_grid("usual", count)[0], HolesConfig()) for count in (3, 20))
    assert torch.equal(many[:3], few)
    assert not torch.equal(few[0], few[1])
    assert few.any()


def test_weights_are_largest_beside_what_is_known_and_none_there():
    keep = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    keep[..., :10] = True
    weights = border_weights(keep, 4.0)
    assert not weights[keep].any()
    row = weights[0, 0, 16]
    assert float(row[10]) == pytest.approx(1 + 4 * 3 / 7)
    assert (row[10:].diff() <= 0).all()
    assert torch.equal(row[13:], torch.ones(19))
    assert torch.equal(border_weights(torch.zeros_like(keep), 4.0), torch.ones(1, 1, 32, 32))


def test_holes_need_torch_alone():
    blocked = ("scipy", "SimpleITK", "zarr", "h5py", "diffusers", "accelerate")
    program = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "import echogen.training.holes, torch\n"
        "from echogen.training.augment import as_they_are\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_piece_of_varied_frames_is_those_frames():
    _, varied, *_ = rich(8)
    some = torch.tensor([5, 1])
    piece: Varied = varied[some]
    assert torch.equal(piece.shown, varied.shown[some])
    assert torch.equal(piece.back, varied.back[some])
