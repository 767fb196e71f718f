import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from echogen.cli import app
from echogen.diffusion.checkpoint import (
    HASHED_FILES,
    INFO_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    checkpoint_folder,
    file_sha256,
    read_info,
)
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.weights import read_header
from echogen.errors import CheckpointError
from echogen.models.describe import describe
from echogen.models.verify import SIGMAS, Level, hidden_errors, phantom_images, verify
from tests.support.shapes import printed


@pytest.fixture(scope="session")
def builtin() -> Path:
    return checkpoint_folder("builtin")


@pytest.fixture
def tiny(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "tiny"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def rehash(folder: Path) -> None:
    """As a careless maker of checkpoints would, whose files do not belong together."""
    raw = json.loads((folder / INFO_FILE).read_text())
    raw["files"] = {name: file_sha256(folder / name) for name in HASHED_FILES}
    raw.pop("sha256")
    (folder / INFO_FILE).write_text(json.dumps(raw))


def failed(folder: Path) -> dict[str, str]:
    found = verify(folder)
    assert found.exit_code == (0 if found.ok else 4)
    return {check.name: check.detail for check in found.checks if not check.ok}


def test_the_builtin_model_passes_every_check_and_says_what_was_measured() -> None:
    found = verify("builtin")
    assert found.ok
    assert [check.name for check in found.checks] == [
        "hashes", "licence", "network", "denoising", "known pixels",
    ]  # fmt: skip
    assert len(found.denoising) == len(SIGMAS)
    for level in found.denoising:
        assert level.ratio == pytest.approx(level.error / level.baseline)
        assert level.ratio < 0.9
        assert level.baseline < level.sigma  # the blur does help


def test_a_network_that_does_not_denoise_fails_with_exit_code_4(checkpoint: Path) -> None:
    done = CliRunner().invoke(app, ["checkpoint", "verify", str(checkpoint), "--json"])
    assert done.exit_code == 4
    report = printed("checkpoint-verify", done.stdout)
    assert (report["format"], report["exit_code"], report["ok"]) == (1, 4, False)
    assert [check["ok"] for check in report["checks"]] == [True, True, True, False]
    assert "it does not denoise" in report["checks"][-1]["detail"]
    assert set(report["denoising"][0]) == {"sigma", "error", "baseline", "ratio"}


@pytest.mark.parametrize("looks", [True, False])
def test_a_network_that_does_not_use_what_is_known_fails(
    known_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    def network(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The mean of the known pixels, if it looks at them."""
        picture, keep = x.chunk(2, dim=1)
        total = keep.sum(dim=(1, 2, 3), keepdim=True) if looks else torch.zeros(1)
        mean = (picture * keep).sum(dim=(1, 2, 3), keepdim=True) / total.clamp(min=1.0)
        return torch.where(total > 0, mean, 1.0).expand_as(picture)

    plain = load_checkpoint(known_checkpoint, "cpu", "fp32")
    fake = replace(plain, network=network, prediction_type="sample")
    monkeypatch.setattr("echogen.models.verify.load_checkpoint", lambda *_: fake)
    (check,) = (each for each in verify(known_checkpoint).checks if each.name == "known pixels")
    assert check.ok == looks
    assert ("what is known is not used" in check.detail) != looks
    seen, blind = hidden_errors(fake, phantom_images(read_info(known_checkpoint)))
    assert (seen < 0.5 * blind) if looks else (seen == blind > 0)


def test_a_description_says_what_the_network_is_shown(
    checkpoint: Path, known_checkpoint: Path, tmp_path: Path
) -> None:
    found = describe(known_checkpoint)
    assert (found.conditioning, found.keep_channels, found.known_pixels) == ("known", 16, "clean")
    done = CliRunner().invoke(app, ["checkpoint", "info", str(known_checkpoint), "--json"])
    assert printed("checkpoint-info", done.stdout)["conditioning"] == "known"
    for folder, words in (
        (known_checkpoint, "what is known, clean, and where (16 channels more)"),
        (checkpoint, "the noisy picture alone"),
    ):
        shown = CliRunner().invoke(app, ["checkpoint", "info", str(folder)]).stdout
        assert words in " ".join(shown.split())
    wrong = Path(shutil.copytree(known_checkpoint, tmp_path / "wrong"))
    change(wrong / INFO_FILE, conditioning="none", keep_channels=0, known_pixels=None)
    rehash(wrong)
    with pytest.raises(CheckpointError, match="16 -> 16 channels, found 32 -> 16"):
        describe(wrong)
    assert "found 32 -> 16" in failed(wrong)["network"]


def test_a_wrong_noise_schedule_is_seen(builtin: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builtin, tmp_path / "cosine"))
    change(folder / SCHEDULER_CONFIG, beta_schedule="squaredcos_cap_v2")
    assert "scheduler_config.json" in failed(folder)["hashes"]
    rehash(folder)
    assert "it does not denoise" in failed(folder)["denoising"]


def test_weights_without_terms_fail(tiny: Path) -> None:
    (tiny / WEIGHTS).unlink()  # so that there is nothing to measure
    for licence in ("", "unknown; ask the model's authors"):
        change(tiny / INFO_FILE, licence=licence)
        assert "add the terms to" in failed(tiny)["licence"]


def test_altered_files_and_files_that_do_not_fit_are_told_apart(tiny: Path) -> None:
    change(tiny / UNET_CONFIG, layers_per_block=2)
    assert list(failed(tiny)) == ["hashes"]
    rehash(tiny)
    assert "does not fit config.json" in failed(tiny)["network"]


def test_a_checkpoint_for_another_image_size_is_refused(tiny: Path) -> None:
    change(tiny / INFO_FILE, image_size=64)
    with pytest.raises(CheckpointError, match="sha256 does not match"):
        verify(tiny)
    rehash(tiny)
    assert "images of 64, unet/config.json a network for 32" in failed(tiny)["network"]
    with pytest.raises(CheckpointError, match=r"images of 64, unet/config\.json .* for 32"):
        describe(tiny)


def test_a_scheduler_that_cannot_be_read_is_one_line(tiny: Path) -> None:
    change(tiny / SCHEDULER_CONFIG, num_train_timesteps="many")
    with pytest.raises(
        CheckpointError, match=r"num_train_timesteps: expected a whole number"
    ) as caught:
        describe(tiny)
    assert SCHEDULER_CONFIG in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_says_what_the_folder_holds(builtin: Path) -> None:
    found = describe("builtin")
    state = load_file(builtin / WEIGHTS)
    assert found.parameters == sum(value.numel() for value in state.values())
    assert (found.weights_type, found.prediction, found.steps) == ("F16", "v_prediction", 1000)
    assert (found.trained_cases, found.held_out_cases) == (360, 40)
    assert found.size == sum(file.stat().st_size for file in builtin.rglob("*") if file.is_file())
    assert found.sha256 == read_info("builtin").sha256
    done = CliRunner().invoke(app, ["checkpoint", "info", "builtin", "--json"])
    assert printed("checkpoint-info", done.stdout) == json.loads(json.dumps(found.to_dict()))
    shown = CliRunner().invoke(app, ["checkpoint", "info", "camus-256-small"]).stdout
    for words in ("parameters", "360 trained on, 40 held out", "CC BY-NC-SA 4.0", found.sha256):
        assert words in " ".join(shown.split())


def test_a_model_that_is_not_here_is_described_by_its_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ECHOGEN_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["checkpoint", "info", "echogains-camus"])
    assert done.exit_code == 0
    assert "next: echogen checkpoint download echogains-camus" in done.stdout
    done = CliRunner().invoke(app, ["checkpoint", "info", "echogains-camus", "--json"])
    assert printed("checkpoint-info-not-here", done.stdout)["here"] is False


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights_are_one_line_without_loading_them(tiny: Path, kept: int) -> None:
    content = (tiny / WEIGHTS).read_bytes()
    (tiny / WEIGHTS).write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        describe(tiny)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_place_of_weights_is_not_a_header(tiny: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(1)}, tiny / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_header(tiny / WEIGHTS)


def test_a_header_is_counted_as_the_library_counts_it(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3, 4), "b": torch.zeros((), dtype=torch.float16)}
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert {name: (one.count, one.dtype) for name, one in header.items()} == {
        "a": (12, "F32"),
        "b": (1, "F16"),
    }


@pytest.mark.parametrize("which", ["builtin", "checkpoint", "known_checkpoint"])
def test_plain_diffusers_reads_the_folder_and_predicts_the_same(
    which: str, request: pytest.FixtureRequest
) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    folder: Path = request.getfixturevalue(which)
    network = UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    denoiser = load_checkpoint(folder, "cpu", "fp32")
    np.testing.assert_allclose(
        scheduler.alphas_cumprod.numpy(), denoiser.schedule.alphas_cumprod, rtol=1e-5
    )
    side, t = denoiser.image_size, scheduler.config.num_train_timesteps // 2
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(1))
    packed = torch.pixel_unshuffle(x, denoiser.patch)
    nothing = torch.zeros(1, network.config.in_channels - packed.shape[1], *packed.shape[2:])
    with torch.inference_mode():
        output = network(torch.cat([packed, nothing], dim=1), t).sample
        step = scheduler.step(output, t, packed)
        mine = denoiser.predict(x, t).x0
    theirs = torch.pixel_shuffle(step.pred_original_sample, denoiser.patch)
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("broken", range(3))
def test_a_level_that_is_not_a_number_fails_wherever_it_is(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    levels = [Level(sigma, 0.5, 1.0, 0.5) for sigma in SIGMAS]
    levels[broken] = Level(SIGMAS[broken], math.nan, 1.0, math.nan)
    monkeypatch.setattr("echogen.models.verify.denoising", lambda *_: tuple(levels))
    assert [check.ok for check in verify(checkpoint).checks if check.name == "denoising"] == [False]
