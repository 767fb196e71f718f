"""What a preset means is the checkpoint's affair; what is said and recorded of that."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.bench import bench
from echogen.commands.expand import dry_run, expand
from echogen.config import (
    AugmentationConfig,
    DpmConfig,
    ExpandConfig,
    LangevinConfig,
    RepaintConfig,
    SampleConfig,
    SamplerConfig,
)
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import StoreError, UsageError
from echogen.models.resolve import load_with_model
from echogen.presets import KNOWN_PRESETS, PRESETS
from echogen.report import Quiet
from echogen.store import open_store
from tests.support.shapes import printed

ENGINE = {"device": "cpu", "precision": "fp32", "batch_size": 3, "workers": 1}


class Told(Quiet):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def of_sampler(self) -> str:
        (line,) = (line for line in self.lines if line.startswith("sampler: "))
        return line


def resolved(
    checkpoint: Path,
    preset: str | None = None,
    file: Any = None,
    **settings: object,
) -> SamplerConfig:
    given = {"checkpoint": str(checkpoint), **settings}
    return load_with_model(AugmentationConfig, given, preset=preset, file=file)[0].sampler


def completing(preset: str, **changes: object) -> DpmConfig:
    return DpmConfig.model_validate({**KNOWN_PRESETS[preset]["sampler"], **changes})


@pytest.fixture
def given(dataset: Path, known_checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    """A run of two frames whose sampler the checkpoint and the preset decide."""
    return {
        "input": str(dataset),
        "output": str(tmp_path / "out.zarr"),
        "copies": 1,
        "limit": 2,
        "checkpoint": str(known_checkpoint),
        "preset": "fast",
        "engine": ENGINE,
    }


def test_presets_follow_the_checkpoint(checkpoint: Path, known_checkpoint: Path) -> None:
    for name, evaluations in (("fast", 10), ("balanced", 18), ("high", 40)):
        assert resolved(known_checkpoint, name) == completing(name)
        assert sampler_nfe(completing(name)) == evaluations
        assert resolved(checkpoint, name) == LangevinConfig(
            **PRESETS[name]["sampler"]  # type: ignore[arg-type]
        )
    for folder in (checkpoint, known_checkpoint):
        assert resolved(folder, "paper") == RepaintConfig()
        assert resolved(folder) == resolved(folder, "balanced")


def test_the_published_moves_may_leave_a_hole_of_any_size(checkpoint: Path) -> None:
    given = {"checkpoint": str(checkpoint)}
    published = load_with_model(AugmentationConfig, given, preset="paper")[0].transforms
    usual = load_with_model(AugmentationConfig, given)[0].transforms
    assert (published.max_hole, usual.max_hole) == (1.0, 0.6)


def test_settings_win_over_the_presets(known_checkpoint: Path, tmp_path: Path) -> None:
    assert resolved(known_checkpoint, sampler={"steps": 7}) == completing("balanced", steps=7)
    assert resolved(known_checkpoint, **{"sampler.name": "langevin"}) == LangevinConfig()
    assert resolved(known_checkpoint, sampler="repaint") == RepaintConfig()
    file = tmp_path / "run.toml"
    file.write_text(f"checkpoint = {json.dumps(str(known_checkpoint))}\n[sampler]\neta = 0.5\n")
    config, folder, info = load_with_model(AugmentationConfig, {}, preset="high", file=file)
    assert config.sampler == completing("high", eta=0.5)
    assert (Path(folder), info.conditioning) == (known_checkpoint, "known")
    asked = AugmentationConfig(checkpoint=str(known_checkpoint), sampler=LangevinConfig(levels=5))
    assert load_with_model(AugmentationConfig, {}, file=asked)[0].sampler == asked.sampler
    unset = AugmentationConfig(checkpoint=str(known_checkpoint))
    chosen = load_with_model(AugmentationConfig, {}, file=unset)[0].sampler
    assert chosen == completing("balanced")
    with pytest.raises(UsageError, match=r"unknown key 'sampler.churn' of sampler dpm; it belongs"):
        resolved(known_checkpoint, **{"sampler.churn": 1.0})


def test_whole_images_are_made_alike_by_both_kinds(
    checkpoint: Path, known_checkpoint: Path
) -> None:
    for folder in (checkpoint, known_checkpoint):
        given = {"checkpoint": str(folder), "output": "out.zarr"}
        assert load_with_model(SampleConfig, given)[0].sampler == DpmConfig()


def test_dpm_is_refused_before_any_work_where_it_would_not_see_what_is_known(
    given: dict[str, Any], checkpoint: Path
) -> None:
    for make in (expand, dry_run):
        with pytest.raises(UsageError, match=r"tiny takes no keep map.*use the sampler langevin"):
            make(**{**given, "checkpoint": str(checkpoint), "sampler": "dpm"})
    assert not Path(given["output"]).exists()


def test_a_run_says_and_records_the_sampler_that_the_checkpoint_decided(
    given: dict[str, Any], checkpoint: Path
) -> None:
    told = Told()
    report = expand(**given, reporter=told)
    assert told.of_sampler() == (
        "sampler: dpm, 10 evaluations an image (tiny-known is shown what is known)"
    )
    assert (report.sampler, report.nfe, report.painted) == ("dpm", 10, 2)
    with open_store(Path(report.output)) as store:
        assert store.record.sampler.settings["name"] == "dpm"
        recorded = store.attrs["sampler"]
        assert (recorded["nfe"], recorded["steps"], recorded["refine_steps"]) == (10, 7, 3)
    plain, told = {**given, "checkpoint": str(checkpoint)}, Told()
    _, estimate = dry_run(**plain, overwrite=True, reporter=told)
    assert told.of_sampler() == (
        "sampler: langevin, 35 evaluations an image (tiny takes no keep map)"
    )
    assert (estimate.sampler, estimate.nfe) == ("langevin", 35)
    told = Told()
    paper = {**given, "preset": "paper", "sampler.steps": 4, "copies": 0}
    dry_run(**paper, overwrite=True, reporter=told)
    assert told.of_sampler().startswith("sampler: repaint, ")
    assert "(" not in told.of_sampler()  # the checkpoint decided nothing


def test_a_measurement_uses_the_same_sampler(given: dict[str, Any]) -> None:
    told = Told()
    report = bench(
        checkpoint=given["checkpoint"], preset="fast", engine=ENGINE, reporter=told
    )  # fmt: skip
    assert (report.sampler["name"], report.nfe) == ("dpm", 10)
    assert told.of_sampler().startswith("sampler: dpm, 10 evaluations")


def test_a_store_of_another_sampler_is_not_continued(given: dict[str, Any]) -> None:
    langevin = {"name": "langevin", "levels": 3, "inner_steps": 0, "refine_steps": 0}
    before = expand(**{**given, "preset": None, "sampler": langevin})
    with pytest.raises(StoreError, match=r"sampler\.name = 'langevin', this run has 'dpm'"):
        expand(**given)
    again = expand(**{**given, "preset": None, "sampler": langevin})
    assert (before.painted, again.painted) == (2, 0)


def test_the_printed_settings_are_those_of_the_run(
    given: dict[str, Any], tmp_path: Path, checkpoint: Path
) -> None:
    def shown(*more: str) -> Mapping[str, Any]:
        places = ("--in", given["input"], "--out", given["output"])
        done = CliRunner().invoke(app, ["expand", *places, *more, "--print-config"])
        assert done.exit_code == 0, done.output
        (tmp_path / "printed.toml").write_text(done.stdout)
        return tomllib.loads(done.stdout)

    settings = shown("--checkpoint", given["checkpoint"], "--preset", "high")
    assert settings["checkpoint"] == given["checkpoint"]
    assert settings["sampler"]["name"] == "dpm"
    assert settings["sampler"]["steps"] == 28
    back, _, _ = load_with_model(ExpandConfig, {}, file=tmp_path / "printed.toml")
    assert back.sampler == completing("high")
    assert shown("--checkpoint", str(checkpoint))["sampler"]["name"] == "langevin"
    assert shown()["checkpoint"] == "builtin"


def test_the_dry_run_shows_the_sampler(given: dict[str, Any]) -> None:
    places = ["--in", given["input"], "--out", given["output"], "--limit", "2", "--copies", "1"]
    model = ["--checkpoint", given["checkpoint"], "--device", "cpu"]
    done = CliRunner().invoke(app, ["expand", *places, *model, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "18 network evaluations per image (dpm)" in " ".join(done.stdout.split())
    done = CliRunner().invoke(app, ["expand", *places, *model, "--dry-run", "--json"])
    assert printed("expand-dry-run", done.stdout)["sampler"] == "dpm"
