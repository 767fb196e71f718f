import pytest
import torch

from echogen.commands.train import TrainConfig
from echogen.errors import UsageError
from echogen.support.settings import load_config
from echogen.training.learner import (
    VariedUNet,
    follow,
    learning_rate,
    make_average,
    make_learner,
    make_unet,
)
from echogen.training.loss import make_objective
from echogen.training.recipe import Recipe, load_recipe
from tests.support.tiny_training import (
    NETWORK,
    SCHEDULE,
    learning_variance,
    recipe,
    unconditional,
    write_recipe,
)


def test_the_small_preset_fits_its_budget():
    config = load_recipe("small")
    with torch.device("meta"):
        network = make_unet(config)
    parameters = sum(p.numel() for p in network.parameters())
    assert 6e6 < parameters < 8e6
    assert config.network["in_channels"] == config.patch**2 + config.keep_channels


@pytest.mark.parametrize("name", ["small", "reference"])
def test_a_preset_makes_a_network_and_an_objective(name):
    config = load_recipe(name)
    with torch.device("meta"):
        network = VariedUNet(config)
        x = torch.empty(2, network.seen, *[config.image_size // config.patch] * 2)
        output = network(x, torch.zeros(2), torch.zeros(2, 7))
        predicted = network.unvaried(x, torch.zeros(2))
    assert output.shape[1] == config.network["out_channels"]
    assert predicted.shape == (2, network.channels, *x.shape[2:])
    assert network.seen == network.channels + (16 if name == "small" else 0)
    objective = make_objective(config, torch.device("cpu"))
    assert (objective.bound is not None) == (name == "reference")
    if name == "reference":
        assert torch.equal(objective.weight, torch.ones(4000))
        assert objective.bound_weight == pytest.approx(4.0)


def test_a_recipe_survives_its_file_and_its_record(tmp_path):
    for config in (recipe(), unconditional(), learning_variance()):
        file = write_recipe(tmp_path / "recipe.toml", config)
        assert load_recipe(str(file)) == config
        assert Recipe.model_validate(config.model_dump()) == config


def changed(**values: object) -> Recipe:
    """The recipe with other values, as the command's keywords and its --set give them."""
    flags = {f"recipe.{key}": value for key, value in values.items()}
    table = {"output": "x", "steps": 1, "recipe": recipe().model_dump()}
    return load_config(TrainConfig, {**table, **flags}).recipe


def test_unknown_keys_and_presets_are_refused_with_a_hint(tmp_path):
    file = tmp_path / "mine.toml"
    text = write_recipe(file, recipe()).read_text()
    for old, new, match in (
        ("dropout =", "dropuot =", "unknown key 'optimiser.dropuot'; did you mean 'dropout'"),
        ("[network]", "[networks]", "unknown key 'networks'; did you mean 'network'"),
        ("[optimiser]", "[optimiser", "is not valid TOML"),
    ):
        file.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=rf"--preset .*mine\.toml: {match}"):
            load_recipe(str(file))
    with pytest.raises(UsageError, match=r"--preset huge: neither a preset \(.*small\)"):
        load_recipe("huge")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (
            "optimiser.batch_size",
            "many",
            r"optimiser\.batch_size: expected a whole number.*got 'many'",
        ),
        ("optimiser.batch_size", 2.5, "batch_size: expected a whole number"),
        ("optimiser.batch_size", 0, r"batch_size: .*greater than or equal to 1 \(got 0\)"),
        ("optimiser.betas", [0.9], r"optimiser\.betas"),
        ("optimiser.betas", [0.9, 1.0], r"optimiser\.betas\.1: .*less than 1 \(got 1.0\)"),
        ("optimiser.learning_rate", float("inf"), "learning_rate: .*finite number"),
        ("conditioning", "some", r"conditioning: .*'none' or 'known'.*got 'some'"),
        ("holes.moves", 0.5, r"holes: moves, shapes and whole must add up to 1, got moves 0\.5"),
        ("holes.whole", -0.1, r"holes\.whole: .*greater than or equal to 0 \(got -0.1\)"),
        ("holes.min_hole", 0.95, r"min_hole must be below max_hole, got 0\.95 and 0\.92"),
        ("holes.depth", [0.0, 1.0], "depth must be above 0"),
        ("holes.labels_on_paint", "clip", "unknown key 'recipe.holes.labels_on_paint'"),
        ("loss.low_share", 1.5, r"low_share: .*less than or equal to 1 \(got 1.5\)"),
        ("augment.zoom", [1.2, 0.8], "zoom: must be two factors in order, got"),
        ("loss.snr_gamma", -1, r"snr_gamma: .*greater than or equal to 0 \(got -1\)"),
        ("channels", 2, r"channels: .*1 or 3 \(got 2\)"),
        ("schedule.prediction_type", "sample", "prediction_type must be 'epsilon' or 'v_pred.*'sa"),
        ("optimiser", 3, r"optimiser: expected a table"),
        ("optimizer.batch_size", 4, "unknown key 'recipe.optimizer'; did you mean 'optimiser'"),
        ("seed.x", 4, "recipe.seed: expected a whole number"),
        ("patch", 5, "image_size must be a multiple of patch 5, got 16"),
        ("seed", 2**63, r"seed: .*less than 9223372036854775808"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(key, value, match):
    with pytest.raises(UsageError, match=match):
        changed(**{key: value})


def test_values_replace_those_of_the_recipe():
    config = changed(**{"optimiser.batch_size": 9, "seed": 5})
    assert (config.optimiser.batch_size, config.seed) == (9, 5)
    assert config.augment == recipe().augment


@pytest.mark.parametrize(
    ("network", "match"),
    [
        ({"in_channels": 4}, "in_channels 4: expected 8, .* for conditioning 'known'"),
        ({"out_channels": 8}, "out_channels 8: expected 4"),
        ({"block_out_channels": [8, 7]}, "does not describe a UNet2DModel"),
        ({"wings": 2}, "does not describe a UNet2DModel"),
        ({"sample_size": 16}, "sample_size 16: expected 8, image_size / patch"),
    ],
)
def test_a_network_that_cannot_be_is_refused(network, match):
    with pytest.raises(UsageError, match=match):
        make_unet(recipe(network={**NETWORK, **network}))


def test_a_network_without_conditioning_takes_the_picture_alone():
    network = {**NETWORK, "in_channels": 8}
    with pytest.raises(UsageError, match=r"in_channels 8: expected 4, .* without conditioning"):
        make_unet(unconditional(network=network))


def test_a_side_that_cannot_be_halved_is_refused():
    network = {**NETWORK, "sample_size": 9}
    with pytest.raises(UsageError, match=r"halves 9 x 9 .* 1 times, .* a multiple of 4"):
        make_unet(recipe(image_size=18, network=network))


def test_a_learned_variance_wants_twice_the_channels():
    schedule = {**SCHEDULE, "variance_type": "learned_range"}
    with pytest.raises(UsageError, match=r"out_channels 4: expected 8, .* x 2 for a learned"):
        make_unet(recipe(schedule=schedule))


def test_a_schedule_that_cannot_be_is_refused():
    schedule = {**SCHEDULE, "beta_schedule": "wavy"}
    with pytest.raises(UsageError, match=r"\[schedule\]: .*beta_schedule"):
        make_objective(recipe(schedule=schedule), torch.device("cpu"))


def test_a_key_that_no_schedule_has_is_refused():
    schedule = {**SCHEDULE, "beta_shedule": "linear"}
    with pytest.raises(UsageError, match=r"unknown key 'beta_shedule'; known: .*beta_schedule"):
        make_objective(recipe(schedule=schedule), torch.device("cpu"))


def test_a_new_learner_has_taken_no_step():
    learner = make_learner(recipe(), torch.device("cpu"))
    torch.manual_seed(recipe().seed)
    fresh = VariedUNet(recipe())
    for one, two in zip(learner.network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, two)
        moments = learner.optimiser.state[one]
        assert not any(bool(moments[name].any()) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_the_rate_warms_up_and_falls_to_its_end():
    config = recipe().optimiser.model_copy(update={"learning_rate": 1.0, "warmup_steps": 4})
    assert [learning_rate(config, step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(config, 100, 0.5) == pytest.approx(0.505)
    assert learning_rate(config, 100, 1.0) == pytest.approx(config.final_rate)


def test_the_average_halves_its_past_in_its_half_life():
    network = VariedUNet(recipe())
    average = make_average(network)
    config = recipe().optimiser.model_copy(
        update={"batch_size": 10, "ema_half_life": 40, "ema_ramp": 0.5}
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    for _ in range(4):
        follow(average, network, config, images=1000)
    for one, two in zip(average.parameters(), network.parameters(), strict=True):
        assert torch.allclose(two - one, torch.full_like(one, 0.5), atol=1e-4)
    follow(average, network, config, images=0)
    for one, two in zip(average.parameters(), network.parameters(), strict=True):
        assert torch.allclose(one, two)
