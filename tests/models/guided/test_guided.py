import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from typer.testing import CliRunner

from echogen.cli import app
from echogen.config import RepaintConfig
from echogen.diffusion.checkpoint import WEIGHTS, read_info, verify_checkpoint
from echogen.diffusion.fast import is_supported
from echogen.diffusion.network import load_checkpoint
from echogen.diffusion.noise import SampleNoise
from echogen.diffusion.samplers import Sampler
from echogen.diffusion.schedule import read_scheduler
from echogen.errors import CheckpointError, EchogenError, UsageError
from echogen.models.guided.architecture import GuidedOptions, read_architecture
from echogen.models.guided.importing import ImportFacts, import_guided, read_guided
from echogen.models.guided.unet import convert_guided, scheduler_config, unet_config
from echogen.store import open_store
from tests.support import guided_network
from tests.support.shapes import printed

DATA = Path(__file__).parents[2] / "data"
TINY = DATA / "guided_diffusion_tiny.pt"
SAMPLE_DATA = Path(__file__).parents[3] / "sample_data" / "camus"
LAYOUTS = {
    "y_heads4_legacy": {"num_heads": 4},
    "y_headdim1_legacy": {"num_head_channels": 1},
    "y_heads4_new": {"num_heads": 4, "new_attention_order": True},
    "y_headdim32_new": {"num_head_channels": 32, "new_attention_order": True},
}
OPTIONS = GuidedOptions(noise_schedule="linear", steps=1000, num_heads=4)
PUBLISHED = {"channels": (64, 64, 128, 128, 256, 256), "blocks": 3, "attention": (4, 5)}


def network(state: dict[str, Tensor], options: GuidedOptions) -> torch.nn.Module:
    from diffusers import UNet2DModel

    weights, config, _ = convert_guided(state, options)
    unet: torch.nn.Module = UNet2DModel(**config).eval()
    unet.load_state_dict(weights)
    return unet


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    return read_guided(TINY)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "guided_diffusion_tiny.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    import_guided(TINY, folder, OPTIONS, ImportFacts("tiny", "CC0-1.0", "nobody", "nothing"))
    return folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_plain_unet_gives_what_guided_diffusion_gave(tiny, golden, name) -> None:
    unet = network(tiny, GuidedOptions(noise_schedule="linear", steps=1000, **LAYOUTS[name]))
    with torch.inference_mode():
        output = unet(golden["x"], golden["t"]).sample
    torch.testing.assert_close(output, golden[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_reference_of_these_tests_gives_it_too(tiny, golden, name) -> None:
    layout = dict(LAYOUTS[name])
    output = guided_network.forward(
        tiny,
        golden["x"],
        golden["t"],
        heads=layout.get("num_heads"),
        head_channels=layout.get("num_head_channels"),
        new_order="new_attention_order" in layout,
    )
    torch.testing.assert_close(output, golden[name], atol=1e-4, rtol=0)


def test_an_imported_model_denoises_as_recorded(golden, tmp_path) -> None:
    for name, layout in LAYOUTS.items():
        folder = tmp_path / name
        import_guided(
            TINY,
            folder,
            GuidedOptions(noise_schedule="cosine", steps=1000, **layout),
            ImportFacts("tiny"),
        )
        denoiser = load_checkpoint(folder, "cpu", "fp32")
        for x, t, y in zip(golden["x"], golden["t"], golden[name], strict=True):
            abar = float(denoiser.schedule.alphas_cumprod[int(t)])
            x0 = ((x - (1 - abar) ** 0.5 * y[:3]) / abar**0.5).clamp(-1, 1)
            with torch.inference_mode():
                made = denoiser.predict(x[None], int(t))
            torch.testing.assert_close(made.x0[0], x0, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(made.variance_mix[0], (y[3:] + 1) / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "shape",
    [
        {"residual_resampling": True, "attention": (1,)},
        {"residual_resampling": True, "attention": (2,), "blocks": 2, "into": 1, "out": 2},
        {"scale_shift": False, "attention": (0,), "out": 3},
        {"attention": ()},
    ],
    ids=["resampling blocks", "grey, two blocks", "shift only, fixed variance", "only the middle"],
)
def test_other_architectures_compute_the_same(shape) -> None:
    torch.manual_seed(0)
    state = guided_network.random_state((32, 32, 64), **shape)
    options = GuidedOptions(noise_schedule="linear", steps=1000, num_head_channels=16)
    x = torch.randn(2, shape.get("into", 3), 16, 16)
    t = torch.tensor([3, 700])
    with torch.inference_mode():
        made = network(state, options)(x, t).sample
        expected = guided_network.forward(state, x, t, head_channels=16)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_one_head_over_levels_of_different_widths() -> None:
    state = guided_network.random_state((32, 64), attention=(0,))
    options = GuidedOptions(noise_schedule="linear", steps=1000, num_heads=1)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([9])
    with torch.inference_mode():
        made = network(state, options)(x, t).sample
        expected = guided_network.forward(state, x, t, heads=1)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_the_schedules_are_those_of_guided_diffusion() -> None:
    for name, (schedule, steps) in {
        "repaint_linear4000_250_10_10": ("linear", 4000),
        "repaint_linear1000_100_10_1": ("linear", 1000),
        "repaint_cosine1000_50_5_3": ("cosine", 1000),
    }.items():
        options = GuidedOptions(noise_schedule=schedule, steps=steps, num_head_channels=1)
        with np.load(DATA / "golden" / f"{name}.npz") as arrays:
            betas = read_scheduler(scheduler_config(True, options)).schedule.betas
            np.testing.assert_allclose(betas, arrays["betas"], rtol=1e-9)


def test_the_published_architecture_is_the_reference_preset() -> None:
    from diffusers import UNet2DModel
    from torch.utils.flop_counter import FlopCounterMode

    from echogen.training.recipe import load_recipe

    preset = load_recipe("reference")
    state = guided_network.random_state(**PUBLISHED, device="meta")
    options = GuidedOptions(noise_schedule="linear", steps=4000, num_head_channels=1)
    weights, config, scheduler = convert_guided(state, options)
    with torch.device("meta"):
        ours, theirs = UNet2DModel(**preset.network), UNet2DModel(**config)
        for key in {*ours.config} - {"_use_default_values", "sample_size"}:
            assert ours.config[key] == theirs.config[key], key
        theirs.load_state_dict(weights, assign=True)
        with FlopCounterMode(display=False) as counter:
            theirs(torch.zeros(1, 3, 256, 256), torch.zeros(1))
    assert preset.image_size == read_architecture(state).usual_image_size
    assert {key: preset.schedule[key] for key in scheduler} == scheduler
    assert sum(value.numel() for value in state.values()) == 41_125_062
    assert counter.get_total_flops() == pytest.approx(167e9, rel=0.01)


def test_names_of_data_parallel_and_a_dictionary_around_are_taken_away(tiny, tmp_path) -> None:
    wrapped = {f"module.{name}": value.half() for name, value in tiny.items()}
    file = tmp_path / "model.pt"
    torch.save({"step": 7, "ema": wrapped, "model": {"out.2.weight": torch.zeros(1)}}, file)
    read = read_guided(file)
    assert read.keys() == tiny.keys()
    assert {value.dtype for value in read.values()} == {torch.float32}
    torch.testing.assert_close(read["out.2.weight"], tiny["out.2.weight"], atol=1e-3, rtol=0)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('run').touch()",)


BAD_FILES = {
    "code": (lambda s, f: torch.save({"out": Malicious()}, f), "asks for eval"),
    "code in an old format": (lambda s, f: f.write_bytes(pickle.dumps(Malicious(), 2)), "asks for"),
    "truncated": (lambda s, f: f.write_bytes(TINY.read_bytes()[:100_000]), "truncated"),
    "empty": (lambda s, f: f.write_bytes(b""), "truncated"),
    "text": (lambda s, f: f.write_text("hello\n"), "not a readable PyTorch"),
    "a view that repeats": (
        lambda s, f: torch.save({**s, "out.2.bias": torch.zeros(1).expand(10**13)}, f),
        r"10,000,0\d\d,\d\d\d,\d\d\d weights in",
    ),
    "a tensor": (lambda s, f: torch.save(torch.zeros(3), f), "expected a state dict .* a Tensor"),
    "numbers": (lambda s, f: torch.save({"step": 3, "lr": 1.0}, f), "a dictionary of lr, step"),
    "nothing": (lambda s, f: torch.save({}, f), "an empty dict"),
    "NaN": (
        lambda s, f: torch.save({**s, "out.2.bias": torch.full((6,), torch.nan)}, f),
        "NaN or infinite values in out.2.bias",
    ),
    "whole numbers": (
        lambda s, f: torch.save({**s, "out.2.bias": torch.ones(6, dtype=torch.long)}, f),
        "out.2.bias",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_state_dict_is_one_clear_line(tiny, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pt"
    write, words = BAD_FILES[kind]
    write(tiny, file)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_guided(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def without(state: dict[str, Tensor], *stems: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(stems)}


FOREIGN = {
    "classes": (lambda s: {**s, "label_emb.weight": torch.zeros(10, 128)}, "class-conditional"),
    "a classifier": (lambda s: without(s, "output_blocks"), "a classifier"),
    "another network": (lambda s: {"conv.weight": torch.zeros(3)}, "not a guided-diffusion model"),
    "a missing tensor": (
        lambda s: without(s, "middle_block.1.qkv.bias"),
        r"middle_block\.1\.qkv\.bias is missing",
    ),
    "a tensor too many": (lambda s: {**s, "extra.weight": torch.zeros(1)}, r"extra\.weight"),
    "pooling without weights": (
        lambda s: without(s, "input_blocks.2.", "input_blocks.4.", "output_blocks.1.2."),
        r"input_blocks\.2 has no weights",
    ),
    "another shape": (
        lambda s: {**s, "middle_block.0.out_layers.0.weight": torch.zeros(32)},
        r"norm2\.weight has shape \(32,\), expected \(64,\)",
    ),
    "another width of time": (
        lambda s: {**s, "time_embed.0.weight": torch.zeros(128, 64)},
        "the first level has 32 channels and the timestep embedding 64",
    ),
    "five channels": (
        lambda s: {**s, "input_blocks.0.0.weight": torch.zeros(32, 5, 3, 3)},
        "5 channels in and 6 out",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_cannot_be_taken_over_is_named(tiny, tmp_path, kind) -> None:
    change, words = FOREIGN[kind]
    file, out = tmp_path / "model.pt", tmp_path / "out"
    torch.save(change(tiny), file)
    with pytest.raises(CheckpointError, match=words) as caught:
        import_guided(file, out, OPTIONS, ImportFacts("x"))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_heads_that_do_not_fit_are_refused() -> None:
    architecture = read_architecture(
        guided_network.random_state((32, 64), attention=(0,), device="meta")
    )
    for heads, words in {
        (None, None): "either num_heads or num_head_channels",
        (32, 4): "either num_heads or num_head_channels",
        (64, None): "num_head_channels 64: does not divide 32-64",
        (None, 5): "num_heads 5: does not divide",
        (None, 4): "different widths",
    }.items():
        options = GuidedOptions(
            noise_schedule="linear", steps=1000, num_head_channels=heads[0], num_heads=heads[1]
        )
        with pytest.raises(CheckpointError, match=words):
            unet_config(architecture, options)


def test_schedules_that_do_not_exist_are_refused() -> None:
    short = GuidedOptions(noise_schedule="linear", steps=10, num_head_channels=1)
    with pytest.raises(CheckpointError, match="steps 10: too few"):
        scheduler_config(True, short)
    for changes in ({"steps": 0}, {"noise_schedule": "quadratic"}):
        with pytest.raises(ValidationError, match=next(iter(changes))):
            GuidedOptions(**{**short.model_dump(), **changes})


def test_the_folder_records_where_the_model_came_from(imported) -> None:
    info = verify_checkpoint(imported)
    assert (info.name, info.licence, info.image_size, info.channels) == ("tiny", "CC0-1.0", 32, 3)
    record = info.training["imported"]
    assert record["sha256"] == hashlib.sha256(TINY.read_bytes()).hexdigest()
    assert record["file"] == TINY.name
    assert GuidedOptions(**record["options"]) == OPTIONS
    card = (imported / "README.md").read_text()
    assert "they were not checked" in card
    assert all(fact in card for fact in ("CC0-1.0", "nobody", "nothing", "4 heads, legacy order"))


def test_half_precision_halves_the_file_and_keeps_the_output(imported, golden, tmp_path) -> None:
    facts = ImportFacts("tiny", image_size=64)
    info = import_guided(TINY, tmp_path / "half", OPTIONS, facts, precision="fp16")
    sizes = [(folder / WEIGHTS).stat().st_size for folder in (imported, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    assert info.image_size == 64
    with torch.inference_mode():
        whole, half = (
            load_checkpoint(folder, "cpu", "fp32").predict(golden["x"], 40).x0
            for folder in (imported, tmp_path / "half")
        )
    torch.testing.assert_close(half, whole, atol=0.01, rtol=0)


def test_an_image_size_that_the_levels_do_not_divide_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="image size 30: expected a multiple of 4"):
        import_guided(TINY, tmp_path / "x", OPTIONS, ImportFacts("x", image_size=30))


def test_sampling_takes_the_network_to_pieces_as_it_is(tiny) -> None:
    assert is_supported(network(tiny, OPTIONS))


def test_a_colour_model_paints_the_mean_of_its_own_colours(imported) -> None:
    denoiser = load_checkpoint(imported, "cpu", "fp32")
    colours = torch.tensor([-0.6, 0.0, 0.9])[:, None, None]
    shown: list[Tensor] = []

    def of_three_colours(x: Tensor, t: Tensor) -> Tensor:
        shown.append(x)
        abar = float(denoiser.schedule.alphas_cumprod[int(t[0])])
        noise = (x - abar**0.5 * colours) / (1 - abar) ** 0.5
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)

    image = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)
    keep = torch.ones_like(image, dtype=torch.bool)
    keep[..., 10:20, 5:25] = False
    sampler = Sampler(RepaintConfig(steps=3, jump_length=1, resamplings=1))
    painter = dataclasses.replace(denoiser, network=of_three_colours)
    painted = sampler(painter, image, keep, SampleNoise([5]))
    assert torch.equal(painted[keep], image[keep])
    torch.testing.assert_close(painted[~keep], torch.full((200,), 0.1), atol=1e-3, rtol=0)
    assert not torch.equal(shown[0][:, 0], shown[0][:, 1])


@pytest.mark.parametrize(
    "sampler",
    [["repaint", "steps=4", "jump_length=2", "resamplings=2"], ["langevin", "levels=3"]],
    ids=["repaint", "langevin"],
)
def test_an_imported_colour_model_paints_grey_frames(imported, tmp_path, sampler) -> None:
    output = tmp_path / "out.zarr"
    name, *settings = sampler
    arguments = [
        *("expand", "--in", str(SAMPLE_DATA), "--out", str(output), "--checkpoint", str(imported)),
        *("--limit", "1", "--copies", "2", "--sampler", name, "--device", "cpu", "--json"),
        *("--precision", "fp32", "--batch-size", "2", "--workers", "1", "--quiet"),
    ]
    for setting in settings:
        arguments += ["--set", f"sampler.{setting}"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["painted"] == 2
    assert_kept_pixels_are_exact(output, imported)


def assert_kept_pixels_are_exact(output: Path, imported: Path) -> None:
    from echogen.config import ExpandConfig
    from echogen.datasets import open_frames
    from echogen.planning.dataset import plan_dataset
    from echogen.report import Quiet

    with open_store(output) as store:
        files = {"input": str(SAMPLE_DATA), "output": str(output)}
        config = ExpandConfig.model_validate({**store.attrs["config"], **files})
        frames = open_frames(config.input, config.dataset)
        source = plan_dataset(*frames, config, read_info(imported), Quiet())
        images, keep = store.images[:], store.keep[:]
    assert images.shape == (3, 32, 32)
    for image, kept, moved in zip(images, keep, source.render(source.plan.rows), strict=True):
        assert np.array_equal(kept, moved.keep)
        assert np.array_equal(image[kept], moved.image[kept])
    assert (~keep[1:]).any()


def run(*arguments: str) -> tuple[int, str, str]:
    """The command as `main` ends it: exit code, stdout, message."""
    done = CliRunner().invoke(app, ["checkpoint", "import", *arguments])
    if isinstance(done.exception, EchogenError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    return done.exit_code, done.stdout, done.output


def test_the_command_asks_for_what_the_shapes_cannot_tell(tmp_path) -> None:
    out = str(tmp_path / "model")
    code, _, message = run(str(TINY), "--out", out)
    assert code == 2
    for flag in ("--noise-schedule", "--steps", "--num-heads", "--num-head-channels", "--probe"):
        assert flag in message
    code, _, message = run(
        str(TINY), "--out", out, "--noise-schedule", "linear", "--num-heads", "4"
    )
    assert code == 2
    assert message.startswith("--steps missing: the shapes")


def test_the_command_imports_and_says_what_it_made(tmp_path) -> None:
    out = tmp_path / "model"
    flags = ["--noise-schedule", "cosine", "--steps", "4000", "--num-head-channels", "32"]
    facts = ["--name", "mine", "--licence", "MIT", "--citation", "me", "--data", "phantoms"]
    order = ["--new-attention-order", "--json"]
    code, stdout, _ = run(str(TINY), "--out", str(out), *flags, *facts, *order)
    assert code == 0
    info = verify_checkpoint(out)
    assert (info.name, info.licence, info.citation, info.training_data) == (
        "mine", "MIT", "me", "phantoms",
    )  # fmt: skip
    made = printed("checkpoint-import", stdout)
    assert (made["checkpoint"], made["sha256"]) == (str(out), info.sha256)
    assert made["options"] == {
        "noise_schedule": "cosine",
        "steps": 4000,
        "num_head_channels": 32,
        "num_heads": None,
        "new_attention_order": True,
    }
    for more in (flags, ["--probe", str(tmp_path / "looked at only later")]):
        code, _, message = run(str(TINY), "--out", str(out), *more)
        assert code == 4
        assert "already exists" in message
    code, stdout, _ = run(str(TINY), "--out", str(out), *flags, "--overwrite")
    assert code == 0
    assert "guided_diffusion_tiny, 32 x 32, 3 channels" in stdout
    assert "ask the model's authors" in stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--noise-schedule", "quadratic"], "--noise-schedule quadratic"),
        (["--num-heads", "4", "--num-head-channels", "1"], "give only one"),
        (["--precision", "int8"], "--precision int8"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(tmp_path, flags, words) -> None:
    code, _, message = run(str(TINY), "--out", str(tmp_path / "x"), *flags)
    assert code == 2
    assert words in message


def test_overwrite_replaces_checkpoints_only_and_says_so_before_any_work(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        code, _, message = run(str(TINY), "--out", str(out), "--overwrite", "--probe", "nowhere")
        assert code == 4
        assert "only checkpoints are overwritten" in message
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("time_embed.0.weight", torch.zeros(()), "time_embed.0.weight has shape"),
        ("time_embed.0.weight", torch.zeros(5), "time_embed.0.weight has shape"),
        ("input_blocks.0.0.weight", torch.zeros(5), "input_blocks.0.0.weight has shape"),
        ("out.2.weight", torch.zeros(()), "out.2.weight has shape"),
        ("input_blocks.1.0.in_layers.2.weight", torch.zeros(()), "in_layers.2.weight has shape"),
        ("input_blocks.3.1.qkv.bias", torch.zeros(()), "input_blocks.3.1.qkv.bias"),
        ("out.2.bias", torch.zeros(3, dtype=torch.int64), "out.2.bias is int64, expected"),
        ("out.2.bias", torch.zeros(3).to_sparse(), "out.2.bias is sparse_coo, expected"),
        ("out.2.bias", torch.full((3,), torch.nan).to(torch.float8_e4m3fn), "NaN or infinite"),
    ],
)
def test_tensors_of_odd_shapes_and_types_are_one_clear_line(
    tiny, tmp_path, name, value, words
) -> None:
    file = tmp_path / "model.pt"
    torch.save({**tiny, name: value}, file)
    with pytest.raises(CheckpointError, match=words):
        import_guided(file, tmp_path / "out", OPTIONS, ImportFacts("x"))


def test_a_folder_in_place_of_the_file_is_said(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="a folder; give"):
        read_guided(tmp_path)
