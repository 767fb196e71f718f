"""The correction of painted pixels next to known ones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from echogen.diffusion.border import HIGHEST, REACH, BorderNetwork, Known, load_border
from echogen.diffusion.checkpoint import (
    BORDER_WEIGHTS,
    INFO_FILE,
    CheckpointInfo,
    read_info,
    verify_checkpoint,
)
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.saving import save_checkpoint
from echogen.errors import CheckpointError
from tests.diffusion.test_checkpoint import INFO, SCHEDULER, UNET

SIDE = 24


@pytest.fixture
def border() -> BorderNetwork:
    """One whose weights are not zero."""
    torch.manual_seed(0)
    network = BorderNetwork()
    torch.nn.init.normal_(network.last.weight, std=0.3)
    return network


def pictures(count: int, channels: int = 1) -> tuple[Tensor, Tensor, Known]:
    """Predictions, noisy pictures, and the left part known, of another width in each."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, SIDE, SIDE)
    truth, x0, noise = (torch.rand(shape, generator=generator) * 2 - 1 for _ in range(3))
    keep = torch.arange(SIDE) < 6 + 3 * torch.arange(count)[:, None, None, None]
    known = Known(truth, keep.expand(count, 1, SIDE, SIDE))
    return torch.where(known.keep, truth, x0), x0 + 0.2 * noise, known


@pytest.mark.parametrize("channels", [1, 3])
def test_hidden_pixels_next_to_known_ones_are_corrected_and_no_others(
    border: BorderNetwork, channels: int
) -> None:
    x0, z, known = pictures(2, channels)
    changed = border.correct(x0, z, known, 0.2) != x0
    for image, left in enumerate((6, 9)):
        assert changed[image, ..., left : left + REACH].all()
        assert not changed[image, ..., :left].any()
        assert not changed[image, ..., left + REACH :].any()


def test_it_does_not_depend_on_the_other_images_of_a_batch(border: BorderNetwork) -> None:
    x0, z, known = pictures(3)
    together = border.correct(x0, z, known, 0.2)
    for i in range(3):
        one = slice(i, i + 1)
        alone = border.correct(x0[one], z[one], Known(known.pixels[one], known.keep[one]), 0.2)
        assert torch.equal(together[one], alone)


def test_what_is_known_beyond_reach_and_the_noise_on_known_pixels_do_not_count(
    border: BorderNetwork,
) -> None:
    x0, z, known = pictures(1)
    found = border.correct(x0, z, known, 0.2)
    far = x0.clone()
    far[..., : 6 - REACH] = 0.7
    assert torch.equal(border.correct(far, z, known, 0.2)[..., 6:], found[..., 6:])
    assert torch.equal(border.correct(x0, torch.where(known.keep, 9.0, z), known, 0.2), found)
    near = x0.clone()
    near[..., 5] += 0.1
    assert not torch.equal(border.correct(near, z, known, 0.2)[..., 6:], found[..., 6:])


def test_without_a_border_or_at_high_noise_nothing_changes(border: BorderNetwork) -> None:
    x0, z, known = pictures(2)
    assert torch.equal(border.correct(x0, z, known, 1.01 * HIGHEST), x0)
    for keep in (torch.ones_like(known.keep), torch.zeros_like(known.keep)):
        assert torch.equal(border.correct(x0, z, Known(x0, keep), 0.2), x0)
    assert torch.equal(BorderNetwork().correct(x0, z, known, 0.2), x0)  # as it begins


def test_neighbours_beyond_an_edge_are_those_on_it() -> None:
    keep = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
    keep[..., 0, 0] = False
    (places,) = Known(torch.zeros(1, 1, SIDE, SIDE), keep).borders
    side = 2 * REACH + 1
    grid = places.reshape(side, side)
    assert grid[REACH, REACH] == 0
    assert torch.equal(grid[0], grid[REACH])
    assert torch.equal(grid[:, 0], grid[:, REACH])
    assert grid[-1, -1] == REACH * SIDE + REACH


# --- in a checkpoint


def known_info() -> CheckpointInfo:
    changes = {"conditioning": "known", "keep_channels": 4, "known_pixels": "clean"}
    return INFO.model_copy(update=changes)


@pytest.fixture
def saved(tmp_path: Path, border: BorderNetwork) -> Path:
    from diffusers import UNet2DModel

    torch.manual_seed(1)
    network = UNet2DModel(**{**UNET, "in_channels": 8})
    config, state = {**UNET, "in_channels": 8}, network.state_dict()
    for name, weights in (("with", border.state_dict()), ("without", None)):
        save_checkpoint(
            tmp_path / name, state, config, SCHEDULER, known_info(), border=weights, readme=""
        )
    return tmp_path / "with"


def test_a_checkpoint_keeps_it_and_uses_it(saved: Path, border: BorderNetwork) -> None:
    denoiser = load_checkpoint(saved, "cpu", "fp32")
    plain = load_checkpoint(saved.with_name("without"), "cpu", "fp32")
    assert plain.border is None
    x, pixels = torch.randn(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = pixels.clamp(-1, 1)
    known = Known(pixels, (torch.arange(16) < 8).expand(1, 1, 16, 16))
    for t, corrected in ((20, True), (99, False)):
        before, found = plain.predict(x, t, known).x0, denoiser.predict(x, t, known).x0
        sigma = plain.schedule.sigma_at(t)
        assert (sigma < HIGHEST) == corrected
        z = x * math.sqrt(1.0 + sigma**2)
        assert torch.equal(found, border.correct(before, z, known, sigma).clamp(-1, 1))
        assert torch.equal(found, before) != corrected
        assert torch.equal(denoiser.predict(x, t).x0, plain.predict(x, t).x0)
    bare = replace(denoiser, border=None)
    assert torch.equal(bare.predict(x, 20, known).x0, plain.predict(x, 20, known).x0)


def test_it_is_a_part_of_the_checkpoints_identity(saved: Path) -> None:
    info, without = read_info(saved), read_info(saved.with_name("without"))
    assert BORDER_WEIGHTS in info.files
    assert info.sha256 != without.sha256
    file = saved / BORDER_WEIGHTS
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"border/weights\.safetensors .* has sha256"):
        verify_checkpoint(saved)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"border/weights\.safetensors is missing"):
        load_checkpoint(saved, "cpu")


def test_other_weights_are_refused(saved: Path) -> None:
    from safetensors.torch import save_file

    file = saved / BORDER_WEIGHTS
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a readable"):
        load_border(file)
    save_file({"first.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match="does not fit a border network"):
        load_border(file)
    state = BorderNetwork().state_dict()
    save_file({**state, "first.bias": torch.full_like(state["first.bias"], math.nan)}, file)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_border(file)


def test_an_unconditional_checkpoint_has_none(saved: Path) -> None:
    file = saved / INFO_FILE
    raw = json.loads(file.read_text())
    raw |= {"conditioning": "none", "keep_channels": 0, "known_pixels": None}
    del raw["sha256"]
    file.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"border/weights\.safetensors needs conditioning"):
        read_info(saved)
