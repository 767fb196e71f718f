import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from echogen.cli import app
from echogen.store import open_store
from tests.support.shapes import printed

HEAVY = (
    "torch", "diffusers", "accelerate", "huggingface_hub", "zarr", "h5py", "SimpleITK",
    "matplotlib", "PIL", "scipy", "numpy",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def echogen(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "echogen", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            **environment,
        },
        check=False,
    )


def arguments(settings: dict[str, object], tmp_path: Path, **changes: object) -> list[str]:
    import tomli_w

    file = tmp_path / "run.toml"
    file.write_text(tomli_w.dumps({**settings, **changes}))
    return ["expand", "--config", str(file)]


def commands(group: Any, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with its words."""
    for name, command in group.commands.items():
        yield (*above, name), command
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom echogen.cli import app\n"
        f"try: app({[*command, '--help']!r})\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ex", {"expand", "export"}),
        ("checkpoint ver", {"verify"}),
        ("expand --cop", {"--copies"}),
        ("train --hol", {"--hold-out"}),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: set[str]) -> None:
    code = (
        "import sys\nfrom echogen.cli import main\nsys.argv = ['echogen']\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    words = f"echogen {typed}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={
            **os.environ,
            "_ECHOGEN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert set(done.stdout.split()) == offered
    assert done.stderr.strip() == "[]"


def test_every_option_has_help_and_every_command_is_documented() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    documented = "".join(page.read_text() for page in pages)
    for words, command in COMMANDS.items():
        name = " ".join(words)
        assert command.help, name
        assert f"echogen {name}" in documented
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_version() -> None:
    from echogen import __version__

    assert CliRunner().invoke(app, ["--version"]).stdout == f"echogen {__version__}\n"


def test_a_run_shows_a_summary_and_puts_progress_on_stderr(
    settings: dict[str, object], tmp_path: Path
) -> None:
    done = echogen(*arguments(settings, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "16 done (4 originals, 12 copies)" in done.stdout
    assert "zarr.open" in done.stdout
    assert "painting: 12 of 12" in done.stderr
    assert "CC0-1.0" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_json_is_one_object_on_stdout(settings: dict[str, object], tmp_path: Path) -> None:
    done = echogen(*arguments(settings, tmp_path), "--json")
    report = printed("expand", done.stdout)
    assert report["counts"]["copies"] == 12
    assert report["exit_code"] == done.returncode == 0


def test_flags_reach_the_run(settings: dict[str, object], tmp_path: Path) -> None:
    done = echogen(
        *arguments(settings, tmp_path), "--copies", "1", "--cases", "*2", "--phases", "ED",
        "--no-originals", "--out", str(tmp_path / "flags.zarr"), "--set", "sampler.steps=2",
        "--set", "sampler.jump_length=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open_store(tmp_path / "flags.zarr") as store:
        assert store.columns["sample_id"].tolist() == ["patient0002_4CH_ED_copy1"]
        assert store.attrs["sampler"]["steps"] == 2


def test_a_skipped_frame_makes_exit_code_1_and_its_reason_is_shown(
    settings: dict[str, object], own_dataset: Path, tmp_path: Path
) -> None:
    (own_dataset / "patient0001" / "patient0001_4CH_ED.nii.gz").write_bytes(b"")
    done = echogen(*arguments(settings, tmp_path, input=str(own_dataset)))
    assert done.returncode == 1
    assert "skipped: " in done.stdout
    assert "patient0001_4CH_ED.nii.gz" in done.stdout


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--in", "/nowhere"], 3, "/nowhere"),
        (["--checkpoint", "/nowhere"], 4, "/nowhere: no such checkpoint"),
        (["--device", "cuda:7"], 6, "cuda:7"),
        (["--views", "5CH"], 2, "4CH"),
        (["--set", "copies"], 2, "expected KEY=VALUE"),
        (["--preset", "poster"], 2, "expected one of fast, balanced"),
        (["--copies", "many"], 2, "--copies"),
        (["--plan", "p.json"], 2, "needs --dry-run"),
    ],
)
def test_a_users_mistake_ends_in_a_plain_sentence_and_its_exit_code(
    settings: dict[str, object], tmp_path: Path, flags: list[str], code: int, message: str
) -> None:
    done = echogen(*arguments(settings, tmp_path), *flags)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(str(settings["output"])).exists()


def test_a_wrong_table_in_the_file_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    done = echogen(*arguments(settings, tmp_path, transforms=3), "--print-config")
    assert done.returncode == 2
    assert "transforms: " in done.stderr


def test_debug_shows_the_traceback(settings: dict[str, object], tmp_path: Path) -> None:
    done = echogen(*arguments(settings, tmp_path), "--in", "/nowhere", "--debug")
    assert "Traceback" in done.stderr


def test_dry_run_writes_the_plan_and_no_store(settings: dict[str, object], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    done = echogen(*arguments(settings, tmp_path), "--dry-run", "--plan", str(plan), "--json")
    assert done.returncode == 0, done.stderr
    estimate = printed("expand-dry-run", done.stdout)
    assert (estimate["originals"], estimate["copies"]) == (4, 12)
    assert len(json.loads(plan.read_text())["rows"]) == 16
    assert not Path(str(settings["output"])).exists()


def test_print_config_shows_the_resolved_settings(
    settings: dict[str, object], tmp_path: Path
) -> None:
    import tomllib

    result = CliRunner().invoke(
        app, [*arguments(settings, tmp_path), "--copies", "9", "--print-config"]
    )
    shown = tomllib.loads(result.stdout)
    assert shown["copies"] == 9
    assert shown["sampler"]["steps"] == 4
    assert shown["transforms"]["max_tries"] == 30


SIDE_FILES = [
    (("preview", "{data}"), "--out", ".png"),
    (("preview", "{data}"), "--gif", ".gif"),
    (("stats", "{data}"), "--csv", ".csv"),
    (("stats", "{data}"), "--html", ".html"),
    (("stats", "{away}", "--against", "{data}"), "--html", ".html"),
    (("train", "--in", "{data}", "--out", "{away}/run"), "--pack", ".zip"),
    (("sample", "--out", "{data}"), "--sheet", ".png"),
    (("expand", "--in", "{data}", "--out", "{away}/x.zarr", "--dry-run"), "--plan", ".json"),
]


@pytest.mark.parametrize(("words", "flag", "ending"), SIDE_FILES)
def test_a_side_file_replaces_nothing_but_a_file_of_its_kind_elsewhere(
    words: tuple[str, ...], flag: str, ending: str, own_dataset: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    if words[0] == "sample":
        own_dataset = own_dataset.rename(tmp_path / "made.zarr")
    (away / "data").symlink_to(own_dataset)
    inside, other, fifo = (
        own_dataset / f"own{ending}", away / "README.md", away / f"fifo{ending}"
    )  # fmt: skip
    inside.write_text("a patient's")
    other.write_text("mine")
    os.mkfifo(fifo)
    given = [word.format(data=own_dataset, away=away) for word in words]
    for place, reason in (
        (inside, "must not be inside"),
        (away / "data" / inside.name, "must not be inside"),
        (other, f"expected a {ending} file"),
        (fifo, "is not a regular file"),
        (away / f"{'x' * 245}{ending}", "too long a name"),
    ):
        done = CliRunner().invoke(app, [*given, flag, str(place)])
        assert f"{flag} {place}: " in str(done.exception)
        assert reason in str(done.exception)
        assert done.exception.exit_code == 2
    assert (inside.read_text(), other.read_text()) == ("a patient's", "mine")
    assert sorted(path.name for path in away.iterdir()) == sorted(("data", other.name, fifo.name))


def test_no_output_lies_in_the_dataset(own_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own_dataset)
    before = sorted(own_dataset.rglob("*"))
    for command, name, *more in (("expand", "x.zarr"), ("train", "run", "--steps", "1")):
        for place in (own_dataset / name, tmp_path / "link" / name):
            words = [command, "--in", str(own_dataset), "--out", str(place), *more]
            done = CliRunner().invoke(app, words)
            assert f"--out {place}: must not be inside" in str(done.exception)
            assert done.exception.exit_code == 2
    assert sorted(own_dataset.rglob("*")) == before
