import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from echogen.diffusion import fast
from echogen.diffusion.checkpoint import UNET_CONFIG, WEIGHTS, CheckpointInfo, checkpoint_folder
from echogen.diffusion.fast import FastUNet, is_supported
from echogen.diffusion.network import build_denoiser, load_network
from echogen.diffusion.unet_config import UNetConfig, read_unet
from echogen.diffusion.unet_modules import UNetModules, can_build
from echogen.errors import CheckpointError

CPU = torch.device("cpu")
INFO = CheckpointInfo(
    name="net",
    image_size=16,
    resize="stretch",
    patch=1,
    channels=1,
    labels={},
    training_data="none",
    licence="CC0-1.0",
    citation="nobody",
)
SCHEDULER = {"num_train_timesteps": 100, "beta_schedule": "linear", "clip_sample": False}
PLAIN = {
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 24),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
VARIANTS = {
    "shift only": {},
    "more channels in than out": {"in_channels": 3},
    "norm in the middle": {"attn_norm_num_groups": 4, "resnet_time_scale_shift": "scale_shift"},
    "more layers": {"layers_per_block": 3, "block_out_channels": (16, 24), "norm_eps": 1e-3},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "resampling blocks": {"downsample_type": "resnet", "upsample_type": "resnet"},
    "no attention": {
        "add_attention": False,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    },
    "no middle": {"mid_block_type": None, "layers_per_block": 2},
    "scaled middle": {"mid_block_scale_factor": 2.0, "attention_head_dim": None},
    "padding of older models": {"downsample_padding": 0, "flip_sin_to_cos": False},
}
NOT_HERE = {"resampling blocks", "no middle", "padding of older models"}
"""What only diffusers builds."""
OTHERS = {
    "another activation": {"act_fn": "gelu"},
    "other blocks": {
        "down_block_types": ("ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "ResnetUpsampleBlock2D"),
    },
    "centred": {"center_input_sample": True},
    "random timesteps": {"time_embedding_type": "fourier"},
}


def unet(**settings: object) -> torch.nn.Module:
    """A random network whose norms and biases are random too."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network: torch.nn.Module = UNet2DModel(**{**PLAIN, **settings}).eval()
    for name, value in network.named_parameters():
        if value.ndim == 1:
            torch.nn.init.normal_(value, 1.0 if "norm" in name and "weight" in name else 0.0, 0.3)
    return network.requires_grad_(False)


def noisy(batch: int = 3, channels: int = 1) -> Tensor:
    return torch.randn(batch, channels, 16, 16, generator=torch.Generator().manual_seed(1))


def raw(network: torch.nn.Module, x: Tensor, t: float) -> Tensor:
    return network(x, torch.full((len(x),), t), return_dict=False)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_the_output_is_that_of_diffusers(variant: dict[str, Any]) -> None:
    plain = unet(**variant)
    assert is_supported(plain)
    quick = FastUNet(copy.deepcopy(plain), CPU, torch.float32)
    x = noisy(channels=variant.get("in_channels", 1))
    with torch.inference_mode():
        for t in (7, 91, 40.25):
            expected = raw(plain, x, t)
            torch.testing.assert_close(quick(x, quick.modulation(t)), expected, atol=1e-5, rtol=0)
        assert expected.std() > 0.1


@pytest.mark.parametrize("name", VARIANTS)
def test_modules_built_without_diffusers_are_the_same(name: str) -> None:
    plain: Any = unet(**VARIANTS[name])
    assert can_build(UNetConfig(**plain.config)) == (name not in NOT_HERE)
    if name in NOT_HERE:
        return
    given = {
        key: value for key, value in plain.config.items() if key in {**PLAIN, **VARIANTS[name]}
    }
    assert can_build(UNetConfig(**given))  # the defaults are diffusers'
    modules = UNetModules(UNetConfig(**given))
    assert is_supported(modules)
    modules.load_state_dict(plain.state_dict())
    one, other = (FastUNet(copy.deepcopy(net), CPU, torch.float32) for net in (plain, modules))
    x = noisy(channels=plain.config["in_channels"])
    with torch.inference_mode():
        for t in (7, 40.25):
            assert torch.equal(one(x, one.modulation(t)), other(x, other.modulation(t)))


def test_the_defaults_of_a_configuration_are_those_of_diffusers() -> None:
    from diffusers import UNet2DModel

    theirs = inspect.signature(UNet2DModel.__init__).parameters
    assert {name: theirs[name].default for name in theirs if name != "self"} == (
        UNetConfig().model_dump()
    )


@pytest.mark.parametrize("variant", OTHERS.values(), ids=OTHERS)
def test_other_networks_are_left_to_diffusers(variant: dict[str, object]) -> None:
    assert not can_build(UNetConfig.model_validate({**PLAIN, **variant}))
    assert not can_build(UNetConfig.model_validate({**PLAIN, "new_setting": 1}))


@pytest.mark.parametrize(
    "wrong", [{"block_out_channels": 16}, {"class_embed_type": "identity"}, {"num_class_embeds": 3}]
)
def test_what_no_sampler_can_call_is_no_network(wrong: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"config.json: is not a valid network config"):
        read_unet({**PLAIN, **wrong}, {}, "config.json", "weights")


def test_the_builtin_network_is_supported_and_the_same() -> None:
    folder = checkpoint_folder("builtin")
    plain = load_network(folder / UNET_CONFIG, folder / WEIGHTS).eval()
    assert is_supported(plain)
    quick = FastUNet(copy.deepcopy(plain), CPU, torch.float32)
    x = noisy(1, plain.config["in_channels"])
    with torch.inference_mode():
        expected = raw(plain, x, 300)
        torch.testing.assert_close(quick(x, quick.modulation(300)), expected, atol=1e-5, rtol=0)


def test_bf16_is_as_near_to_float32_as_the_plain_network_in_bf16() -> None:
    plain = unet(resnet_time_scale_shift="scale_shift")
    x = noisy(8)
    quick = FastUNet(copy.deepcopy(plain), CPU, torch.bfloat16)
    with torch.inference_mode():
        exact = raw(plain, x, 30)
        torch.nn.Module.to(plain, torch.bfloat16)
        of_plain = (raw(plain, x.bfloat16(), 30) - exact).square().mean()
        of_quick = (quick(x.bfloat16(), quick.modulation(30)) - exact).square().mean()
    assert 0 < of_quick < 1.5 * of_plain


@pytest.mark.parametrize("transposed", [True, False])
def test_doubling_and_convolving_are_those_of_diffusers(transposed: bool) -> None:
    from diffusers.models.upsampling import Upsample2D

    torch.manual_seed(0)
    plain = Upsample2D(6, use_conv=True, out_channels=10).requires_grad_(False)
    x = torch.randn(2, 6, 5, 7)
    quick = fast._Double(copy.deepcopy(plain.conv), transposed)
    torch.testing.assert_close(quick(x), plain(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [8, 40])
def test_norms_in_16_bits_are_those_of_torch(side: int) -> None:
    norm = torch.nn.GroupNorm(4, 12).requires_grad_(False)
    torch.nn.init.normal_(norm.weight)
    x = (3 + torch.randn(2, 12, side, side)).to(torch.bfloat16)
    expected = norm(x.float())
    torch.nn.Module.to(norm, torch.bfloat16)
    torch.testing.assert_close(fast.normalise(norm, x).float(), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("variant", OTHERS.values(), ids=OTHERS)
def test_other_networks_run_as_they_are(variant: dict[str, object]) -> None:
    plain = unet(**variant)
    assert not is_supported(plain)
    if "class_embed_type" in variant:  # needs classes that nothing here gives
        return
    denoiser = build_denoiser(
        copy.deepcopy(plain), {**SCHEDULER, "prediction_type": "sample"}, INFO, "cpu", "fp32"
    )
    x = noisy()
    with torch.inference_mode():
        torch.testing.assert_close(denoiser.predict(x, 40).x0, raw(plain, x, 40))


def test_few_timesteps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "KEPT_TIMESTEPS", 2)
    quick = FastUNet(unet(), CPU, torch.float32)
    first = [quick.modulation(t) for t in range(5)]
    assert len(quick._kept) <= 2
    for t, expected in enumerate(first):
        torch.testing.assert_close(quick.modulation(t), expected)
    assert quick.modulation(4) is quick.modulation(4)
