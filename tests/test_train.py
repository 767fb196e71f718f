import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from echogen.errors import CheckpointError, DatasetError, UsageError
from echogen.training.__main__ import main
from echogen.training.augment import PARAMETERS, augment
from echogen.training.config import (
    AugmentConfig,
    LossConfig,
    OptimiserConfig,
    TrainConfig,
    load_preset,
    parse_config,
)
from echogen.training.data import PackedFrames, hold_out, load_packed, save_packed
from echogen.training.loop import RunOptions, train
from echogen.training.loss import (
    alphas_cumprod,
    geometric_mean,
    loss_by_level,
    noised,
    stratified_steps,
    weights,
)
from echogen.training.memorisation import grid_amplitude, nearest_neighbours
from echogen.training.samples import draw_samples, write_sheet

SIDE = 16
NETWORK = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
SCHEDULE = {
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
}
VARY = AugmentConfig(0.5, (0.8, 1.1), (0.8, 1.2), 10.0, 0.1, 0.2)


def recipe(**changes: object) -> TrainConfig:
    optimiser = OptimiserConfig(
        batch_size=4, warmup_steps=2, ema_half_life=50, ema_ramp=1.0, dropout=0.1
    )
    base = TrainConfig(
        "tiny", SIDE, 2, NETWORK, SCHEDULE, optimiser=optimiser, augment=VARY, loss=LossConfig()
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def cone(count: int, side: int = SIDE) -> np.ndarray:
    """Bright triangles with their apex at the middle of the top, black around."""
    rows, columns = np.mgrid[:side, :side]
    inside = np.abs(columns - (side - 1) / 2) < 0.4 * rows
    grain = np.random.default_rng(0).integers(80, 255, (count, side, side))
    return (grain * inside).astype(np.uint8)


@pytest.fixture
def packed() -> PackedFrames:
    ids = tuple(f"case{i // 2}" for i in range(12))
    return PackedFrames(cone(12), ids, tuple(f"{c}_{i}" for i, c in enumerate(ids)))


QUICK = RunOptions(
    steps=6, held_out=2, device="cpu", precision="fp32", evaluations=2, log_every=2, samples=2
)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- data


def test_packed_frames_come_back_and_bad_files_are_named(tmp_path, packed):
    save_packed(tmp_path / "f.npz", packed)
    back = load_packed(tmp_path / "f.npz", SIDE)
    assert back.fingerprint == packed.fingerprint
    assert back.case_ids == packed.case_ids
    with pytest.raises(DatasetError, match=r"f\.npz.*expected uint8 \(N, 32, 32\)"):
        load_packed(tmp_path / "f.npz", 32)
    np.savez(tmp_path / "i.npz", frames=packed.frames / 255.0, case_ids=np.array(packed.case_ids))
    with pytest.raises(DatasetError, match=r"i\.npz: 'frames' is float64"):
        load_packed(tmp_path / "i.npz", SIDE)
    (tmp_path / "g.npz").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"g\.npz: not packed frames"):
        load_packed(tmp_path / "g.npz", SIDE)
    with pytest.raises(DatasetError, match=r"h\.npz: not packed frames"):
        load_packed(tmp_path / "h.npz", SIDE)


def test_held_out_cases_are_whole_and_stay_when_others_come(packed):
    chosen = hold_out(packed.case_ids, 2, 0)
    assert len(chosen) == 2
    assert len(packed.of_cases(chosen)) == 4
    many = [f"p{i}" for i in range(50)]
    before, after = hold_out(many, 10, 0), hold_out([*many, "new"], 10, 0)
    assert len(set(before) & set(after)) >= 9
    assert hold_out(many, 10, 1) != before
    with pytest.raises(UsageError, match=r"--hold-out 6: expected 0 to 5"):
        hold_out(packed.case_ids, 6, 0)


# --- augmentation


def test_unvaried_frames_pass_untouched_and_say_so():
    frames = torch.from_numpy(cone(64))[:, None] / 255.0
    moved, parameters = augment(frames, VARY, torch.Generator().manual_seed(0))
    still = parameters[:, 0] == 0
    assert 10 < int(still.sum()) < 54
    assert torch.equal(moved[still], frames[still])
    assert not parameters[still].any()
    assert parameters[~still].abs().max() <= 1 + 1e-5
    assert parameters.shape[1] == len(PARAMETERS)
    assert ((moved[~still] - frames[~still]).abs().amax(dim=(1, 2, 3)) > 0).all()


def test_background_stays_black_and_levels_stay_whole():
    frames = torch.from_numpy(cone(32, 64))[:, None] / 255.0
    config = dataclasses.replace(VARY, probability=1.0, shift=0.0)
    moved, _ = augment(frames, config, torch.Generator().manual_seed(1))
    assert not moved[:, :, 8, :16].any()
    assert not moved[:, :, 8, -16:].any()
    levels = moved * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_the_apex_stays_under_zoom_and_tilt():
    frames = torch.zeros(1, 1, 64, 64)
    frames[:, :, :3, 31:33] = 1.0
    config = AugmentConfig(1.0, (0.8, 0.8001), (1.0, 1.0), 10.0, 0.0, 0.0)
    moved, _ = augment(frames, config, torch.Generator().manual_seed(3))
    rows, columns = (moved[0, 0] > 0.5).nonzero(as_tuple=True)
    assert int(rows.min()) == 0
    assert 30.5 <= float(columns.float().mean()) <= 32.5


def test_a_shift_moves_by_as_much_as_it_says():
    frames = torch.zeros(40, 1, 64, 64)
    frames[:, :, 20:24, 30:34] = 1.0
    config = AugmentConfig(1.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.2, 0.0)
    moved, parameters = augment(frames, config, torch.Generator().manual_seed(0))
    mass = moved[:, 0]
    columns = (mass.sum(1) * torch.arange(64)).sum(1) / mass.sum(dim=(1, 2))
    rows = (mass.sum(2) * torch.arange(64)).sum(1) / mass.sum(dim=(1, 2))
    assert torch.allclose(columns - 31.5, parameters[:, 4] * 0.2 * 64, atol=0.3)
    assert torch.allclose(rows - 21.5, parameters[:, 5] * 0.2 * 64, atol=0.3)


# --- objective


def test_a_perfect_v_gives_back_the_image_and_its_noise():
    abar = alphas_cumprod(SCHEDULE)
    x0, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    abar_t = abar[torch.tensor([0, 100, 400, 700, 999])]
    x_t, v = noised(x0, noise, abar_t, "v_prediction")
    signal, sigma = abar_t.sqrt()[:, None, None, None], (1 - abar_t).sqrt()[:, None, None, None]
    assert torch.allclose(signal * x_t - sigma * v, x0, atol=1e-5)
    assert torch.allclose(sigma * x_t + signal * v, noise, atol=1e-5)


def test_min_snr_weights_agree_for_both_predictions():
    # An error of x0 weighs min(SNR, 5) whichever target it is expressed in.
    abar = alphas_cumprod(SCHEDULE)
    snr = abar / (1 - abar)
    config = LossConfig(snr_gamma=5.0)
    v, epsilon = (weights(abar, kind, config) for kind in ("v_prediction", "epsilon"))
    assert torch.allclose(v * (snr + 1), snr.clamp(max=5), rtol=1e-4)
    assert torch.allclose(epsilon * snr, snr.clamp(max=5), rtol=1e-4)
    assert weights(abar, "v_prediction", LossConfig(5.0, 0.25)).min() == 0.25


def test_steps_are_spread_evenly():
    steps = stratified_steps(100, 1000, torch.Generator().manual_seed(0)).sort().values
    assert (steps.diff() == 10).float().mean() > 0.9
    assert 0 <= int(steps.min()) <= int(steps.max()) < 1000


def test_loss_by_level_is_zero_for_an_oracle_and_does_not_depend_on_the_batch():
    abar = alphas_cumprod(SCHEDULE)
    frames = torch.full((5, 1, SIDE, SIDE), 0.25)

    def oracle(x_t, t):
        a = abar[t].sqrt()[:, None, None, None]
        s = (1 - abar[t]).sqrt()[:, None, None, None]
        return a * (x_t - a * 0.25) / s - s * 0.25

    exact = loss_by_level(oracle, frames, abar, "v_prediction", 2)
    assert max(exact.values()) < 1e-6

    def nothing(x_t, t):
        return torch.zeros_like(x_t)

    figures = [
        loss_by_level(nothing, frames, abar, "v_prediction", 2, batch_size=size) for size in (2, 5)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert geometric_mean({1: 1.0, 2: 4.0}) == pytest.approx(2.0)


def test_samples_of_an_oracle_are_its_image(tmp_path):
    abar = alphas_cumprod(SCHEDULE)

    def oracle(x_t, t):
        a = abar[t].sqrt()[:, None, None, None]
        s = (1 - abar[t]).sqrt()[:, None, None, None]
        return a * (x_t - a * 0.5) / s - s * 0.5

    images = draw_samples(
        oracle, abar, "v_prediction", (3, 1, SIDE, SIDE), patch=2, steps=10, seed=0
    )
    assert images.shape == (3, SIDE, SIDE)
    assert np.abs(images.astype(int) - 191).max() <= 1
    write_sheet(tmp_path / "sheet.png", images, columns=2)
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


# --- runs


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, packed):
    say: list[str] = []
    whole = train(recipe(), packed, tmp_path / "a", QUICK, say=say.append)
    part = train(
        recipe(),
        packed,
        tmp_path / "b",
        dataclasses.replace(QUICK, stop_after=0.0),
        say=say.append,
    )
    assert part.step == 1
    rest = train(recipe(), packed, tmp_path / "b", QUICK, resume=True, say=say.append)
    assert (whole.step, whole.images) == (rest.step, rest.images) == (6, 24)
    one, two = weights_of(tmp_path / "a/last"), weights_of(tmp_path / "b/last")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all("%" in line for line in say)


def test_a_run_learns_and_says_what_happens(tmp_path, packed):
    optimiser = dataclasses.replace(recipe().optimiser, learning_rate=3e-3, batch_size=8)
    options = dataclasses.replace(QUICK, steps=60)
    progress = train(recipe(optimiser=optimiser), packed, tmp_path, options, say=lambda line: None)
    assert options.done(progress) == 1
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if entry["event"] == "step"]
    assert losses[-1] < 0.8 * losses[0]
    start = log[0]
    assert len(start["held_out_cases"]) == 2
    assert start["frames"] == 8
    measured = [entry for entry in log if entry["event"] == "held-out"]
    assert len(measured) == 2
    assert len(measured[0]["held_out"]) == len(measured[0]["known"]) == 12
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    record = json.loads((tmp_path / "best/training.json").read_text())
    assert record["held_out_cases"] == start["held_out_cases"]
    assert parse_config(record["config"], "record") == recipe(optimiser=optimiser)


def test_the_export_is_the_average_without_the_variation(tmp_path, packed):
    from diffusers import DDPMScheduler, UNet2DModel

    train(recipe(), packed, tmp_path, QUICK, say=lambda line: None)
    from safetensors import safe_open

    unet = UNet2DModel.from_pretrained(tmp_path / "last", subfolder="unet", low_cpu_mem_usage=False)
    assert unet.config.class_embed_type is None
    with safe_open(tmp_path / "state.safetensors", "pt") as state:
        for name, value in unet.state_dict().items():
            kept = state.get_tensor(f"average.unet.{name}")
            assert torch.equal(value.half(), kept.half())
    schedule = DDPMScheduler.from_pretrained(tmp_path / "last", subfolder="scheduler")
    assert schedule.config.prediction_type == "v_prediction"


def test_resuming_another_run_is_refused(tmp_path, packed):
    with pytest.raises(CheckpointError, match="no state to resume from"):
        train(recipe(), packed, tmp_path, QUICK, resume=True)
    train(recipe(), packed, tmp_path, dataclasses.replace(QUICK, stop_after=0.0))
    other = recipe(seed=1)
    with pytest.raises(CheckpointError, match=r"other settings \(config"):
        train(other, packed, tmp_path, QUICK, resume=True)


def test_compile_that_fails_is_told_and_training_goes_on(tmp_path, packed, monkeypatch):
    def broken(network, **_):
        def run(*_):
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    options = dataclasses.replace(QUICK, compiled=True, evaluations=1, steps=2)
    progress = train(recipe(), packed, tmp_path, options, say=said.append)
    assert progress.step == 2
    assert "torch.compile failed (RuntimeError: no compiler here); training without it." in said


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (RunOptions(), "either --steps or --hours"),
        (RunOptions(steps=1, hours=1.0), "either --steps or --hours"),
        (dataclasses.replace(QUICK, precision="int8"), "--precision 'int8'"),
        (dataclasses.replace(QUICK, device="abacus"), "--device 'abacus'"),
        (dataclasses.replace(QUICK, held_out=6), "--hold-out 6"),
    ],
)
def test_wrong_options_are_refused(tmp_path, packed, options, match):
    with pytest.raises(UsageError, match=match):
        train(recipe(), packed, tmp_path, options)


# --- recipes


def test_the_small_preset_fits_its_budget():
    from diffusers import UNet2DModel

    config = load_preset("small")
    network = UNet2DModel(**config.network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 6e6 < parameters < 8e6
    assert config.network["in_channels"] == config.patch**2


def test_unknown_keys_and_presets_are_refused_with_a_hint():
    table = recipe().as_dict()
    with pytest.raises(UsageError, match=r"\[optimiser\]: unknown key 'learning_rat'.*learning_ra"):
        parse_config({**table, "optimiser": {"learning_rat": 1}}, "x")
    with pytest.raises(UsageError, match="network missing"):
        parse_config({k: v for k, v in table.items() if k != "network"}, "x")
    with pytest.raises(UsageError, match="no multiple of patch 5"):
        parse_config({**table, "patch": 5}, "x")
    with pytest.raises(UsageError, match=r"--preset huge: neither a preset \(small\)"):
        load_preset("huge")


def test_the_command_trains_and_reports(tmp_path, packed, capsys):
    save_packed(tmp_path / "f.npz", packed)
    preset = tmp_path / "tiny.toml"
    preset.write_text(
        f'name = "tiny"\nimage_size = {SIDE}\npatch = 2\n'
        + "[network]\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in NETWORK.items())
        + "[schedule]\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in SCHEDULE.items())
    )
    arguments = ["--frames", tmp_path / "f.npz", "--out", tmp_path / "run", "--preset", preset]
    arguments += ["--steps", 2, "--hold-out", 1, "--batch-size", 2, "--evaluations", 1, "--seed", 3]
    assert main([str(a) for a in arguments] + ["--device", "cpu"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["images"]) == (1.0, 4)
    assert main(["--frames", "absent.npz", "--out", "x", "--steps", "1"]) == 3
    assert "absent.npz" in capsys.readouterr().err


def test_training_needs_no_reader_store_or_pydantic():
    blocked = ("SimpleITK", "zarr", "h5py", "pydantic", "typer", "rich")
    code = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "import echogen.training.__main__, echogen.training.loop\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- memorisation


def test_a_copy_is_found_and_a_stranger_is_not():
    rng = np.random.default_rng(0)
    known = rng.integers(20, 255, (20, 128, 128), dtype=np.uint8)
    strangers = rng.integers(20, 255, (5, 128, 128), dtype=np.uint8)
    copies = np.clip(known[3:5].astype(int) + rng.integers(-3, 4, (2, 128, 128)), 0, 255)
    found = nearest_neighbours(copies.astype(np.uint8), known)
    assert found.nearest.tolist() == [3, 4]
    assert found.rms.max() < 2
    assert found.correlation.min() > 0.99
    other = nearest_neighbours(strangers, known)
    assert other.rms.min() > 20
    assert other.correlation.max() < 0.5
    assert nearest_neighbours(known, known).rms.max() == pytest.approx(0, abs=1e-3)
    assert nearest_neighbours(known, known, same=True).rms.min() > 20


def test_a_grid_of_period_four_is_seen_through_texture_and_slopes():
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 60, 128)[None, :, None] + np.linspace(30, 0, 128)[None, None]
    plain = rng.normal(80, 20, (20, 128, 128)) + slope
    grid = 6.0 * ((np.arange(128) % 4 == 0)[None, :, None])
    assert grid_amplitude(plain.clip(0, 255).astype(np.uint8), 4) < 0.5
    seen = grid_amplitude((plain + grid).clip(0, 255).astype(np.uint8), 4)
    assert seen == pytest.approx(6 * np.sqrt(3) / 4, abs=0.5)
