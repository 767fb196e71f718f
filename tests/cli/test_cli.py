import json
import os
import re
import subprocess
import sys
import tomllib
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


def redirected(where: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`echogen` with its outputs led elsewhere by bash; the exit code is echogen's own."""
    return subprocess.run(
        [
            "bash",
            "-c",
            f'set -o pipefail; "$0" -m echogen "$@" {where}',
            sys.executable,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
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
    result = CliRunner().invoke(
        app, [*arguments(settings, tmp_path), "--copies", "9", "--print-config"]
    )
    shown = tomllib.loads(result.stdout)
    assert shown["copies"] == 9
    assert shown["sampler"]["steps"] == 4
    assert shown["transforms"]["max_tries"] == 30


GONE = "2> >(exec true)"


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", GONE])
@pytest.mark.parametrize("flags", [(), ("--json",), ("--quiet",)])
def test_notes_that_cannot_be_written_are_dropped_and_the_check_goes_on(
    where: str, flags: tuple[str, ...], dataset: Path
) -> None:
    shown = echogen("validate", str(dataset), *flags)
    done = redirected(where, "validate", str(dataset), *flags)
    assert (done.returncode, done.stderr) == (shown.returncode, "")
    assert len(done.stdout.splitlines()) == len(shown.stdout.splitlines())


def test_a_run_whose_progress_cannot_be_written_fills_its_store(
    settings: dict[str, object], tmp_path: Path
) -> None:
    done = redirected("2>/dev/full", *arguments(settings, tmp_path))
    assert done.returncode == 0
    assert "16 done" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"), [(["--nope"], 2), (["expand", "--in", "/nowhere", "--out", "x.zarr"], 3)]
)
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", GONE])
def test_an_error_that_cannot_be_told_keeps_its_exit_code(
    where: str, words: list[str], code: int
) -> None:
    assert redirected(where, *words).returncode == code


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["checkpoint", "list"], ["checkpoint", "list", "--json"]]
)
def test_a_report_that_cannot_be_written_is_told(words: list[str]) -> None:
    done = redirected(">/dev/full", *words)
    assert done.returncode == 5
    assert done.stderr == (
        "echogen: standard output cannot be written (No space left on device).\n"
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["checkpoint", "list"], ["checkpoint", "list", "--json"]]
)
def test_a_reader_of_the_report_may_go_away(words: list[str]) -> None:
    done = redirected("| head -c 5", *words)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 5, "")


def test_no_file_takes_the_place_of_a_closed_output(tmp_path: Path) -> None:
    """What a library writes to descriptor 2 would be in it."""
    code = (
        "import os\n"
        "try: import echogen.cli; echogen.cli.main()\n"
        "except SystemExit: os.write(os.open('place', os.O_CREAT | os.O_WRONLY), b'mine')\n"
        "os.write(2, b'a warning')"
    )
    closed = [sys.executable, "-c", code, "--version"]
    subprocess.run(
        ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", *closed], cwd=tmp_path, timeout=60, check=True
    )
    assert (tmp_path / "place").read_bytes() == b"mine"


@pytest.mark.parametrize("started", ["module", "script"])
@pytest.mark.parametrize("at", ["typer", "echogen.cli", "echogen.cli.validate"])
def test_ctrl_c_while_the_command_line_loads_ends_without_a_traceback(
    started: str, at: str
) -> None:
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["echogen"]
    module, function = script.split(":")
    start = {
        "module": "import runpy; runpy.run_module('echogen', run_name='__main__')",
        "script": f"from {module} import {function}; {function}()",
    }
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(name, path, target=None):\n"
        f"        if name == {at!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed)\n"
        f"sys.argv = ['echogen', '--help']\n{start[started]}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize("command", ["expand", "train"])
def test_a_store_as_a_dataset_is_told_with_what_takes_one(
    suffix: str, command: str, settings: dict[str, object], tmp_path: Path
) -> None:
    store = str(tmp_path / f"made{suffix}")
    made = echogen(*arguments(settings, tmp_path), "--copies", "1", "--out", store)
    assert made.returncode == 0, made.stderr
    more = ["--hours", "1"] if command == "train" else []
    done = echogen(command, "--in", store, "--out", str(tmp_path / "more.zarr"), *more)
    assert (done.returncode, done.stdout) == (3, "")
    kind = "a Zarr store, expected the folder of a dataset"
    if suffix == ".h5":
        kind = "a file, expected a folder"
    takes = "validate, stats, preview and export take stores of echogen"
    assert done.stderr == f"echogen: {store}: is {kind}; {takes}.\n"


@pytest.mark.parametrize("kind", ["a folder", "a Zarr store of others", "a file", "an .h5"])
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_what_is_not_ours_is_left_and_another_output_asked_for(
    kind: str, flags: tuple[str, ...], settings: dict[str, object], tmp_path: Path
) -> None:
    import h5py
    import zarr

    out = tmp_path / ("x.h5" if "h5" in kind else "x.zarr")
    if kind == "an .h5":
        h5py.File(out, "w").close()
    elif kind == "a file":
        out.write_text("mine")
    elif kind == "a folder":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    else:
        zarr.create_group(out)
    done = echogen(*arguments(settings, tmp_path), "--out", str(out), *flags)
    assert done.returncode == 5
    assert re.search(r"left as it is[:.].* [Cc]hoose another --out", done.stderr.splitlines()[-1])
    assert "Give a store" not in done.stderr
    assert out.exists()


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
