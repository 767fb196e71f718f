import json
from pathlib import Path

import pytest

from echogen.config import ExpandConfig, LangevinConfig, RepaintConfig, SampleConfig
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import UsageError
from echogen.models.resolve import load_with_model
from echogen.support.settings import load_config, to_toml

FLAGS = {"input": "in", "output": "out.zarr"}


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'copies = 7\nseed = 5\n[sampler]\nsteps = 50\n[transforms]\noutside = "background"'
    )
    config = load_config(ExpandConfig, {**FLAGS, "seed": 9}, preset="paper", file=file)
    assert (config.copies, config.seed) == (7, 9)
    assert (config.sampler.steps, config.sampler.resamplings) == (50, 10)
    assert config.transforms.outside == "background"


def test_printed_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(
        ExpandConfig, {**FLAGS, "dataset": {"views": ["2CH"], "limit": 3}}, preset="paper"
    )
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert load_config(ExpandConfig, {}, file=tmp_path / "run.toml") == config


def test_paper_preset_is_the_published_method() -> None:
    config = load_config(ExpandConfig, FLAGS, preset="paper")
    sampler = config.sampler
    assert (sampler.steps, sampler.jump_length, sampler.resamplings) == (250, 10, 10)
    moves = config.transforms
    assert (moves.outside, moves.label_outside, moves.labels_on_paint) == (
        "inpaint",
        "keep",
        "keep",
    )
    assert moves.depth == (1.0, 1 + 150 / 256)
    assert moves.tilt_deg == (-30, 30)
    assert moves.width == (0.5, 1.5)
    assert moves.shift == (0, 50 / 256)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"copys": 3}, r"unknown key 'copys'; did you mean 'copies'\?"),
        ({"sampler": {"churm": 3}}, r"'sampler.churm' of sampler langevin; did you mean 'churn'\?"),
        (
            {"sampler": {"steps": 3}},
            r"'sampler.steps' of sampler langevin; it belongs to --sampler re",
        ),
        (
            {"sampler": {"name": "ddim"}},
            "sampler: expected one of langevin, repaint, dpm; got 'ddim'",
        ),
        ({"sampler": {"memory": 1}}, r"sampler.memory: .*less than 1 \(got 1\)"),
        ({"copies": -1}, r"copies: .*greater than or equal to 0.* \(got -1\)"),
        ({"output": "out.tar"}, r"output: must end in .zarr or .h5, got 'out.tar'"),
        ({"transforms": {"depth": [2.0, 1.0]}}, "must be .low, high. with low <= high"),
        ({"transforms": {"depth": [0.0, 1.0]}}, "depth must be above 0"),
        ({"transforms": {"depth": [1.0, float("inf")]}}, r"transforms.depth.1: .*finite"),
        (
            {"transforms": {"min_hole": 0.7}},
            r"transforms: min_hole must be below max_hole, got 0\.7 and 0\.6",
        ),
        ({"engine": {"precision": "int8"}}, "engine.precision"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    flags: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(ExpandConfig, {**FLAGS, **flags})


def test_missing_input_names_the_flag() -> None:
    with pytest.raises(UsageError, match="--in is missing"):
        load_config(ExpandConfig, {"output": "out.zarr"})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: cannot be read"):
        load_config(ExpandConfig, FLAGS, file=tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("copies =")
    with pytest.raises(UsageError, match=r"bad\.toml: is not valid TOML"):
        load_config(ExpandConfig, FLAGS, file=tmp_path / "bad.toml")


def test_the_page_of_settings_has_each_with_its_default() -> None:
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    config, *_ = load_with_model(ExpandConfig, FLAGS)
    values = config.model_dump(mode="json")
    for table in ("transforms", "sampler", "engine", "store"):
        values |= values.pop(table)
    of_dataset = values.pop("dataset")
    del values["input"], values["output"]
    start = page.index('| setting of "langevin"')
    end = page.index("\n\n", start)
    assert tables_of(page[:start] + page[end:]) == values
    assert tables_of(page[start:end]) == LangevinConfig().model_dump(exclude={"name"})
    assert all(f"`{name}`" in page for name in (*of_dataset, *RepaintConfig.model_fields))


def tables_of(page: str) -> dict[str, object]:
    """{setting: default} of rows such as "| `a`, `b` | 1, 2 | meaning |"."""
    found = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            settings, default, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            names = [name.strip(" `") for name in settings.split(",")]
            given = default.split(", ") if len(names) > 1 else [default]
            found |= dict(zip(names, map(json.loads, filter(None, given)), strict=False))
    return found


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of fast, balanced, high, paper"):
        load_config(ExpandConfig, FLAGS, preset="papers")
    with pytest.raises(UsageError, match="paper: unknown; expected one of fast, balanced, high"):
        load_config(SampleConfig, {"output": "out.zarr"}, preset="paper")


def test_presets_by_cost_differ_only_in_the_sampler_and_cost_more_each() -> None:
    made = [load_config(ExpandConfig, FLAGS, preset=name) for name in ("fast", "balanced", "high")]
    costs = [sampler_nfe(config.sampler) for config in made]
    assert costs == sorted(set(costs))
    assert costs[-1] < 2410 / 20
    default = load_config(ExpandConfig, FLAGS)
    assert made[1] == default
    assert all(c.model_copy(update={"sampler": default.sampler}) == default for c in made)


def test_another_sampler_takes_none_of_the_presets_settings() -> None:
    config = load_config(ExpandConfig, {**FLAGS, "sampler": {"name": "repaint"}}, preset="fast")
    assert config.sampler == RepaintConfig()
    file_wins = load_config(ExpandConfig, {**FLAGS, "sampler": {"churn": 0.5}}, preset="fast")
    assert (file_wins.sampler.churn, file_wins.sampler.inner_steps) == (0.5, 1)
