import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from echogen.diffusion.checkpoint import (
    HASHED_FILES,
    INFO_FILE,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    WEIGHTS,
    CheckpointInfo,
    read_info,
    verify_checkpoint,
)
from echogen.diffusion.network import load_checkpoint, resolve_device, resolve_precision
from echogen.diffusion.saving import save_checkpoint, whole_folder
from echogen.errors import CheckpointError, EngineError, StoreError, UsageError
from tests.support.faults import every_kill, on_disk, on_rename

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "add_attention": False,
}
SCHEDULER = {
    "num_train_timesteps": 100,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "variance_type": "fixed_small",
}
INFO = CheckpointInfo(
    name="tiny",
    image_size=16,
    resize="letterbox",
    patch=2,
    channels=1,
    labels={0: "background", 1: "LV cavity"},
    training_data="none",
    licence="CC0-1.0",
    citation="nobody",
    training={"images_seen": 0},
)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(**UNET)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    info = save_checkpoint(folder, network.state_dict(), UNET, SCHEDULER, INFO, readme="# tiny\n")
    return folder, info


@pytest.fixture
def tiny(saved, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(saved[0], folder)
    return folder


def rehash(folder):
    """Makes a changed folder consistent again, as a careless maker of checkpoints would."""
    from echogen.diffusion.checkpoint import file_sha256

    raw = json.loads((folder / INFO_FILE).read_text())
    raw["files"] = {name: file_sha256(folder / name) for name in HASHED_FILES}
    raw.pop("sha256")
    (folder / INFO_FILE).write_text(json.dumps(raw))


def edit(file, **changes):
    raw = json.loads(file.read_text())
    file.write_text(json.dumps({**raw, **changes}))


def test_what_is_saved_is_read_back(saved):
    folder, info = saved
    assert read_info(folder) == info
    assert verify_checkpoint(folder) == info
    assert info.model_copy(update={"files": {}}) == INFO
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]


def test_a_loaded_denoiser_predicts_as_diffusers_own_loaders_do(saved):
    from diffusers import DDPMScheduler, UNet2DModel

    folder, _ = saved
    denoiser = load_checkpoint(folder, "cpu", "fp32")
    network = UNet2DModel.from_pretrained(folder / "unet").eval()
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = network(torch.pixel_unshuffle(x, 2), 40).sample
        step = scheduler.step(output, 40, torch.pixel_unshuffle(x, 2))
        mine = denoiser.predict(x, 40)
    torch.testing.assert_close(
        mine.x0, torch.pixel_shuffle(step.pred_original_sample, 2), atol=1e-5, rtol=0
    )
    assert mine.variance_mix is None


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near_float32(saved, precision):
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = load_checkpoint(saved[0], "cpu", "fp32").predict(x, 60).x0
        rough = load_checkpoint(saved[0], "cpu", precision).predict(x, 60).x0
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05


def test_the_builtin_checkpoint_is_whole_and_says_its_terms():
    info = verify_checkpoint("builtin")
    assert (info.image_size, info.resize, info.channels) == (256, "stretch", 1)
    assert info.licence == "CC BY-NC-SA 4.0"
    assert "10.1109/TMI.2019.2900516" in info.citation
    folder = Path(sys.modules["echogen"].__file__).parent / "models" / "builtin"
    card = (folder / "README.md").read_text()
    assert info.citation in " ".join(card.replace("\n>", "\n").split())
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 16e6


def test_reading_a_description_imports_neither_torch_nor_diffusers():
    code = (
        "import sys; from echogen.diffusion.checkpoint import read_info, verify_checkpoint;"
        "verify_checkpoint('builtin');"
        "bad = {'torch', 'diffusers', 'safetensors', 'SimpleITK', 'zarr'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_painting_with_the_builtin_network_imports_no_diffusers():
    code = (
        "import sys; from echogen.diffusion.network import load_checkpoint;"
        "load_checkpoint('builtin', 'cpu');"
        "bad = {'diffusers', 'transformers', 'scipy'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sampling_needs_none_of_the_dependencies_of_other_stages():
    code = (
        "import sys; import echogen.diffusion.repaint;"
        "bad = {'diffusers', 'SimpleITK', 'zarr', 'h5py', 'typer', 'scipy'};"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_identity_follows_pixels_not_prose(saved):
    info = saved[1]
    assert (
        info.model_copy(update={"name": "other", "licence": "MIT", "labels": {}}).sha256
        == info.sha256
    )
    assert info.model_copy(update={"resize": "stretch"}).sha256 != info.sha256
    files = {**info.files, WEIGHTS: "0" * 64}
    assert info.model_copy(update={"files": files}).sha256 != info.sha256


def test_checkpoints_of_before_conditioning_keep_their_identity(tiny, saved):
    raw = json.loads((tiny / INFO_FILE).read_text())
    assert raw["sha256"] == saved[1].sha256
    for name in ("conditioning", "keep_channels", "known_pixels"):
        raw.pop(name)
    (tiny / INFO_FILE).write_text(json.dumps(raw))
    assert read_info(tiny) == saved[1]
    files = dict.fromkeys(HASHED_FILES, "0" * 64)
    assert INFO.model_copy(update={"files": files}).sha256 == (
        "2c6309a10011c7bd051c64c73f9c12b117788c6df744cd3f20f46570cd5597f8"
    )


def test_conditioning_is_part_of_the_identity(known_checkpoint):
    info = read_info(known_checkpoint)
    assert (info.conditioning, info.keep_channels, info.known_pixels) == ("known", 16, "clean")
    plain = {"conditioning": "none", "keep_channels": 0, "known_pixels": None}
    assert info.model_copy(update=plain).sha256 != info.sha256


def test_every_damaged_file_is_named(tiny):
    (tiny / SCHEDULER_CONFIG).unlink()
    weights = (tiny / WEIGHTS).read_bytes()
    (tiny / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tiny, "cpu")
    message = str(caught.value)
    assert f"{SCHEDULER_CONFIG} is missing" in message
    assert f"{WEIGHTS} ({len(weights) // 2} bytes)" in message
    assert UNET_CONFIG not in message
    assert "\n" not in message


def test_truncated_weights_with_a_fitting_hash_are_still_one_clear_line(tiny):
    weights = (tiny / WEIGHTS).read_bytes()
    (tiny / WEIGHTS).write_bytes(weights[:-100])
    rehash(tiny)
    with pytest.raises(CheckpointError, match="not a readable safetensors file") as caught:
        load_checkpoint(tiny, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tiny):
    state = load_file(tiny / WEIGHTS)
    save_file({"foreign": state["conv_in.weight"]}, tiny / WEIGHTS)
    rehash(tiny)
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        load_checkpoint(tiny, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tiny):
    state = load_file(tiny / WEIGHTS)
    state["conv_in.bias"][0] = float("nan")
    save_file(state, tiny / WEIGHTS)
    rehash(tiny)
    with pytest.raises(CheckpointError, match=r"values in conv_in\.bias"):
        load_checkpoint(tiny, "cpu")


def test_a_pickle_in_place_of_weights_is_never_opened(tiny):
    torch.save({"conv_in.weight": torch.zeros(1)}, tiny / WEIGHTS)
    rehash(tiny)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(tiny, "cpu")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format": 2}, "format 1, found 2"),
        ({"image_size": 15}, "divisible by patch, got 15 and 2"),
        ({"image_size": "16"}, r"image_size: expected a whole number \(got '16'\)"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"resize": "crop"}, r"resize: Input should be 'stretch' or 'letterbox' \(got 'crop'\)"),
        ({"labels": {"one": "LV"}}, "labels"),
        ({"files": {}}, "missing hash of unet/config.json"),
        ({"licence": None}, "licence: expected text"),
        ({"resize": "stretch"}, "sha256 does not match"),
        ({"conditioning": "keep"}, r"conditioning: Input should be 'none' or 'known'"),
        ({"conditioning": "known"}, "needs keep_channels 4 and known_pixels 'clean', got 0 and"),
        ({"keep_channels": 4}, "'none' with patch 2 needs keep_channels 0 and .* None, got 4"),
        (
            {"conditioning": "known", "keep_channels": 1, "known_pixels": "clean"},
            "needs keep_channels 4 and known_pixels 'clean', got 1 and 'clean'",
        ),
        ({"known_pixels": "noisy"}, r"known_pixels: Input should be 'clean' \(got 'noisy'\)"),
    ],
)
def test_a_wrong_field_is_named(tiny, changes, word):
    edit(tiny / INFO_FILE, **changes)
    with pytest.raises(CheckpointError, match=word) as caught:
        read_info(tiny)
    assert INFO_FILE in str(caught.value)


def test_files_outside_the_folder_cannot_be_listed(tiny):
    raw = json.loads((tiny / INFO_FILE).read_text())
    edit(tiny / INFO_FILE, files={**raw["files"], "../../secret": "0" * 64})
    with pytest.raises(CheckpointError, match="unknown file"):
        read_info(tiny)


def test_a_missing_field_a_broken_json_and_a_list_are_told_apart(tiny):
    raw = json.loads((tiny / INFO_FILE).read_text())
    raw.pop("citation")
    for text, word in [
        (json.dumps(raw), "'citation' is missing"),
        ("{", "not valid JSON"),
        ("[]", "found list"),
    ]:
        (tiny / INFO_FILE).write_text(text)
        with pytest.raises(CheckpointError, match=word):
            read_info(tiny)


def test_what_is_no_checkpoint_is_said(tiny, tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"\x80")
    (tmp_path / "empty").mkdir()
    (tiny / INFO_FILE).unlink()
    for path, word in [
        (tmp_path / "absent", "no such checkpoint"),
        (file, "found a file"),
        (tmp_path / "empty", f"a folder without {INFO_FILE}"),
        (tiny, "a diffusers folder without"),
    ]:
        with pytest.raises(CheckpointError, match=word):
            read_info(path)


@pytest.mark.parametrize(
    ("file", "changes", "word"),
    [
        (SCHEDULER_CONFIG, {"prediction_type": "flow"}, "prediction_type: .* 'flow'"),
        (SCHEDULER_CONFIG, {"variance_type": "learned"}, "variance_type: .* 'learned'"),
        (SCHEDULER_CONFIG, {"variance_type": "learned_range"}, "4 -> 8 channels, found 4 -> 4"),
        (SCHEDULER_CONFIG, {"thresholding": True}, "thresholding"),
        (SCHEDULER_CONFIG, {"beta_schedule": "odd"}, "'odd'"),
        (UNET_CONFIG, {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        (
            UNET_CONFIG,
            {"down_block_types": ["NoBlock", "NoBlock"]},
            "not a valid network",
        ),
        (UNET_CONFIG, {"norm_num_groups": 3}, "not a valid network"),
        (INFO_FILE, {"patch": 1, "image_size": 8}, "1 -> 1 channels, found 4 -> 4"),
        (INFO_FILE, {"image_size": 32}, "images of 32, unet/config.json a network for 16"),
        (
            INFO_FILE,
            {"conditioning": "known", "keep_channels": 4, "known_pixels": "clean"},
            "conditioning known .* 8 -> 4 channels, found 4 -> 4",
        ),
        (UNET_CONFIG, {"sample_size": [8, 16]}, "images of 16, .*sample_size 16"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tiny, file, changes, word):
    edit(tiny / file, **changes)
    rehash(tiny)
    with pytest.raises(CheckpointError, match=word) as caught:
        load_checkpoint(tiny, "cpu")
    assert "\n" not in str(caught.value)


def test_saving_never_overwrites_unasked_and_leaves_nothing_behind_when_it_fails(saved, tmp_path):
    folder, info = saved
    state = load_file(folder / WEIGHTS)
    target = tmp_path / "model"
    save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="one")
    with pytest.raises(CheckpointError, match="already exists"):
        save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="two")
    nowhere = {"no/such/folder.png": b""}
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(
            target,
            state,
            UNET,
            SCHEDULER,
            INFO,
            readme="three",
            extra_files=nowhere,
            overwrite=True,
        )
    assert (target / "README.md").read_text() == "one"
    save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="four", overwrite=True)
    assert (target / "README.md").read_text() == "four"
    assert verify_checkpoint(target).sha256 == info.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / WEIGHTS).stat().st_mode & 0o044 == 0o044


def test_half_precision_weights_load_as_they_were_saved(saved, tmp_path):
    state = {name: value.half() for name, value in load_file(saved[0] / WEIGHTS).items()}
    save_checkpoint(tmp_path / "half", state, UNET, SCHEDULER, INFO, readme="")
    x = torch.zeros(1, 1, 16, 16)
    with torch.inference_mode():
        half = load_checkpoint(tmp_path / "half", "cpu", "fp32").predict(x, 3).x0
        full = load_checkpoint(saved[0], "cpu", "fp32").predict(x, 3).x0
    np.testing.assert_allclose(half.numpy(), full.numpy(), atol=2e-3)


def test_devices_and_precisions_that_do_not_exist_are_refused():
    assert resolve_device("cpu").type == "cpu"
    for name in ("abacus", "cuda:99"):
        with pytest.raises(EngineError, match=name):
            resolve_device(name)
    with pytest.raises(UsageError, match="fp8"):
        resolve_precision("fp8", torch.device("cpu"))
    assert resolve_precision("auto", torch.device("mps")) == torch.float32


def test_only_a_checkpoint_is_ever_overwritten(saved, tmp_path):
    state = load_file(saved[0] / WEIGHTS)
    (tmp_path / "papers").mkdir()
    kept = [tmp_path / "papers" / "thesis.txt", tmp_path / "file"]
    for file in kept:
        file.write_text("years of work")
    for place in (tmp_path / "papers", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="not a checkpoint, and only"):
            save_checkpoint(place, state, UNET, SCHEDULER, INFO, readme="", overwrite=True)
    assert [file.read_text() for file in kept] == ["years of work"] * 2
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        save_checkpoint(tmp_path / "empty", state, UNET, SCHEDULER, INFO, readme="", overwrite=True)
        (tmp_path / "empty" / INFO_FILE).unlink()  # damaged, and a checkpoint all the same


def test_a_checkpoint_that_cannot_be_replaced_stays(saved, tmp_path):
    state = load_file(saved[0] / WEIGHTS)
    target = tmp_path / "model"
    save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="one")

    def full(place):
        if place == str(target):
            raise OSError(28, "No space left on device")

    with on_rename(full), pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="two", overwrite=True)
    assert (target / "README.md").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_killed_while_it_is_replaced_is_whole_and_replaced_by_the_next(
    saved, tmp_path
):
    state, target = load_file(saved[0] / WEIGHTS), tmp_path / "there" / "model"

    def save(text):
        save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme=text, overwrite=True)

    def prepare():
        shutil.rmtree(target.parent, ignore_errors=True)
        save("old")

    def again():
        verify_checkpoint(target)
        save("new")

    def check(where):
        assert (target / "README.md").read_text() == "new"
        assert list(target.parent.iterdir()) == [target]
        verify_checkpoint(target)

    assert every_kill(tmp_path, prepare, lambda: save("new"), check, again=again) > 20


def test_a_power_cut_takes_back_nothing_of_a_checkpoint(saved, tmp_path):
    state = load_file(saved[0] / WEIGHTS)
    with on_disk() as renames:
        for _ in range(2):
            save_checkpoint(tmp_path / "m", state, UNET, SCHEDULER, INFO, readme="", overwrite=True)
    assert [Path(name).name for name, _ in renames] == ["m", "m", ".m.removing"]
    assert [loose for _, loose in renames if loose] == []


def test_two_that_write_one_checkpoint_do_not_mix(saved, tmp_path):
    state, target = load_file(saved[0] / WEIGHTS), tmp_path / "model"
    with whole_folder(target, overwrite=False), pytest.raises(StoreError, match="in use by"):
        save_checkpoint(target, state, UNET, SCHEDULER, INFO, readme="", overwrite=True)


def test_a_link_to_a_checkpoint_elsewhere_stays_one(saved, tmp_path):
    state = load_file(saved[0] / WEIGHTS)
    save_checkpoint(tmp_path / "far" / "model", state, UNET, SCHEDULER, INFO, readme="one")
    link = tmp_path / "model"
    link.symlink_to(tmp_path / "far" / "model")
    save_checkpoint(link, state, UNET, SCHEDULER, INFO, readme="two", overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / "far" / "model" / "README.md").read_text() == "two"
