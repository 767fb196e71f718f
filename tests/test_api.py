"""The functions at the package's root: README's code runs, mistakes end as on a terminal."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import echogen
from echogen.cli.flags import settings_from
from echogen.config import ExpandConfig
from echogen.errors import UsageError

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = ("expand", "validate", "stats", "preview", "export", "sample", "train")


def test_the_library_as_readme_shows_it(
    dataset: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camus").symlink_to(dataset)
    (block, of_training) = re.findall(r"```python\n(import echogen\n.*?)```", README, re.S)
    assert 'preset="fast")' in block
    block = block.replace('preset="fast")', f'preset="fast", checkpoint={str(checkpoint)!r})')
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(block, names)
    assert names["report"].counts.copies == 16
    assert (names["image"].shape, names["real"].dtype) == ((32, 32), bool)
    loading = of_training.replace(', split="training"', "").replace(
        "num_workers=2", "num_workers=0"
    )
    exec(loading, names)
    assert names["batch"]["image"].shape[1:] == (1, 32, 32)


def test_the_commands_work_together_on_texts_and_paths(
    dataset: Path, checkpoint: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "out.zarr")
    report = echogen.expand(
        input=str(dataset),
        output=store,
        copies=1,
        views="4CH",
        phases=("ED", "ES"),
        transforms={"tilt_deg": (-15, 15)},
        sampler={"name": "repaint", "steps": 2, "jump_length": 1, "resamplings": 1},
        checkpoint=checkpoint,
        device="cpu",
        workers=1,
    )
    assert report.exit_code == 0
    with echogen.open_store(store) as opened:
        assert opened.attrs["config"]["transforms"]["tilt_deg"] == [-15, 15]
    assert echogen.validate(store, source=dataset, workers=1).usable
    table = tmp_path / "table.csv"
    assert echogen.stats(store, csv=table, workers=1).samples["copies"] == report.counts.copies
    assert table.is_file()
    sheet = str(tmp_path / "sheet.png")
    assert len(echogen.preview(store, out=sheet, n=2).shown) == 2
    handed_on = echogen.export(store, to="folder", output=tmp_path / "folder", copies="originals")
    assert handed_on.samples == report.counts.originals
    made = echogen.sample(output=tmp_path / "s.zarr", n=2, steps=2, checkpoint=str(checkpoint))
    assert made.images == 2


def test_a_configuration_counts_as_far_as_it_was_set_and_keywords_win(tmp_path: Path) -> None:
    from echogen.config import DatasetConfig, TransformConfig
    from echogen.support.settings import load_config

    given = ExpandConfig(
        input=Path("a"), output=Path("b.zarr"), copies=2, dataset=DatasetConfig(views=("2CH",))
    )
    one = load_config(ExpandConfig, {"copies": 3, "phases": "ED, ES"}, preset="paper", file=given)
    assert (one.copies, one.sampler.name, one.dataset.views) == (3, "repaint", ("2CH",))
    assert one.dataset.phases == ("ED", "ES")
    tilted = load_config(ExpandConfig, {"transforms": TransformConfig(shift=(0, 0))}, file=given)
    assert tilted.transforms == TransformConfig(shift=(0, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copis": 4}, "unknown key 'copis'; did you mean 'copies'?"),
        ({"view": "4CH"}, "unknown key 'view'; did you mean 'views'?"),
        ({"copies": -1}, "copies: Input should be greater than or equal to 0"),
        ({"preset": "poster"}, "--preset poster: unknown; expected one of fast, balanced"),
        ({"sampler": "ddim"}, "sampler: expected one of langevin, repaint, dpm; got 'ddim'"),
        ({"input": None}, "--in is missing"),
    ],
)
def test_a_mistake_ends_in_the_command_lines_sentence(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    keywords = {"input": "camus", "output": tmp_path / "out.zarr", **settings}
    with pytest.raises(UsageError, match=re.escape(message)):
        echogen.expand(**keywords)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_an_unknown_keyword(command: str, tmp_path: Path) -> None:
    paths = () if command in ("expand", "sample", "train") else (tmp_path,)
    more = {"output": tmp_path, "steps": 1} if command == "train" else {}
    with pytest.raises(UsageError, match="unknown key 'worker_count'"):
        getattr(echogen, command)(*paths, worker_count=2, **more)


def test_the_root_lists_what_it_has_and_loads_nothing() -> None:
    assert set(echogen.__all__) <= set(dir(echogen))
    assert {*COMMANDS, "open_store", "EchoDataset"} <= set(echogen.__all__)
    with pytest.raises(AttributeError, match="no attribute 'expnad'"):
        _ = echogen.expnad  # type: ignore[attr-defined]
    heavy = ("numpy", "torch", "pydantic")
    code = f"import sys, echogen; dir(echogen); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_flags_become_keywords() -> None:
    params = {"copies": 2, "views": None, "quiet": True, "set_": ["sampler.churn=1.5", "copies=3"]}
    assert settings_from(params) == {"copies": 3, "sampler.churn": 1.5}
