import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.expand import expand
from echogen.diffusion.checkpoint import INFO_FILE, SCHEDULER_CONFIG, read_info, read_json
from echogen.diffusion.network import load_checkpoint
from echogen.errors import CheckpointError
from echogen.models.registry import (
    cache_home,
    checkpoints_home,
    find_card,
    local_folder,
    parse_cards,
    read_cards,
)
from echogen.models.resolve import resolve_checkpoint
from tests.support.hearts import make_config

TINY = Path(__file__).parents[1] / "data" / "guided_diffusion_tiny.pt"
NAME = "echogains-camus"
CARD = """
[[model]]
name = "tiny"
kind = "guided"
what_for = "tests"
architecture = "guided-diffusion U-Net"
training_data = "none"
licence = "CC0-1.0"
citation = "none"
repo = "nobody/tiny"
file = "tiny.pt"
guided = {noise_schedule = "cosine", steps = 1000, num_heads = 4}
"""


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and an empty working directory, which is given."""
    monkeypatch.setenv("ECHOGEN_HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def test_the_packages_own_model_has_two_names() -> None:
    assert resolve_checkpoint("builtin") == resolve_checkpoint("camus-256-small") == "builtin"
    assert read_cards()[0].name == read_info("builtin").name == "camus-256-small"
    assert read_cards()[0].citation == read_info("builtin").citation


def test_a_folder_a_training_runs_folder_and_a_downloaded_name_are_folders(
    checkpoint: Path, own_places: Path
) -> None:
    assert resolve_checkpoint(str(checkpoint)) == checkpoint
    shutil.copytree(checkpoint, own_places / "run" / "checkpoint")
    for written in ("run", "./run", str(own_places / "run")):
        assert resolve_checkpoint(written) == own_places / "run" / "checkpoint"
    assert read_info(own_places / "run") == read_info(checkpoint)
    shutil.copytree(checkpoint, checkpoints_home() / NAME)
    assert resolve_checkpoint(NAME) == checkpoints_home() / NAME == local_folder(find_card(NAME))


def test_a_known_model_that_is_not_here_names_the_command_and_fetches_nothing() -> None:
    with pytest.raises(CheckpointError, match=f"echogen checkpoint download {NAME}"):
        resolve_checkpoint(NAME)
    assert not checkpoints_home().exists()


def test_a_mistyped_name_is_met_with_the_nearest_and_a_wrong_path_is_not() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'echogains-camus'"):
        resolve_checkpoint("echogain-camus")
    with pytest.raises(CheckpointError, match="known names: builtin, camus-256-small"):
        resolve_checkpoint("zzz")
    with pytest.raises(CheckpointError, match=r"\./builtin: no such checkpoint; expected a folder"):
        resolve_checkpoint("./builtin")


@pytest.mark.parametrize("inner", ["", "checkpoint"])
def test_a_name_that_is_also_a_checkpoints_folder_here_is_refused(
    checkpoint: Path, own_places: Path, inner: str
) -> None:
    shutil.copytree(checkpoint, own_places / "builtin" / inner, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"write \./builtin for the folder"):
        resolve_checkpoint("builtin")
    found = resolve_checkpoint("./builtin")
    assert read_info(str(found)).name == "tiny"


def test_a_name_is_not_confused_by_a_folder_that_holds_no_checkpoint(own_places: Path) -> None:
    (own_places / "builtin").mkdir()
    assert resolve_checkpoint("builtin") == "builtin"


def test_an_unknown_foreign_file_is_refused_unopened_with_the_command_to_run(
    own_places: Path,
) -> None:
    file = own_places / "my model.pt"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(
        CheckpointError,
        match=r"echogen checkpoint import 'my model\.pt' --out 'my model' --probe DATASET",
    ):
        resolve_checkpoint("my model.pt")
    (own_places / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="found a file; give the folder that contains it"):
        resolve_checkpoint("weights.safetensors")


def test_a_file_with_a_card_beside_it_is_converted_once_per_card(own_places: Path) -> None:
    shutil.copy(TINY, own_places / "tiny.pt")
    card = own_places / "tiny.toml"
    card.write_text(CARD)
    told: list[str] = []
    folder = resolve_checkpoint("tiny.pt", told.append)
    assert "converting it once" in told[0]
    schedule = read_json(Path(folder) / SCHEDULER_CONFIG)
    assert (schedule["beta_schedule"], schedule["num_train_timesteps"]) == (
        "squaredcos_cap_v2",
        1000,
    )
    assert resolve_checkpoint(str(own_places / "tiny.pt"), told.append) == folder
    assert len(told) == 1
    card.write_text(CARD.replace("cosine", "linear"))
    assert resolve_checkpoint("tiny.pt") != folder
    card.write_text(CARD.replace("file =", f'sha256 = "{"0" * 64}"\nfile ='))
    with pytest.raises(CheckpointError, match=r"its card tiny\.toml gives 000000000000"):
        resolve_checkpoint("tiny.pt")


def test_the_published_file_is_known_by_its_name(own_places: Path) -> None:
    shutil.copy(TINY, own_places / "CAMUS_diffusion_model.pt")
    folder = resolve_checkpoint("CAMUS_diffusion_model.pt")
    assert read_info(folder).name == NAME
    assert load_checkpoint(folder, "cpu", "fp32").channels == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "tiny"', 'name = "a/b"', "name: .*pattern .*got 'a/b'"),
        ('name = "tiny"', 'name = "builtin"', "'builtin' is reserved for the package's own model"),
        (
            'kind = "guided"',
            'kind = "onnx"',
            "kind: Input should be 'package', .*got 'onnx'",
        ),
        ('kind = "guided"', "kind = 3", "kind: Input should be .*got 3"),
        ('repo = "nobody/tiny"\n', "", "repo missing or empty"),
        ('licence = "CC0-1.0"', 'licence = ""', "licence: .*at least 1 character"),
        ("what_for", "whatfor", "unknown key 'whatfor'"),
        ('file = "tiny.pt"', 'file = "tiny.pt"\nsha256 = "abc"', "sha256: .*pattern .*got 'abc'"),
        ("[[model]]", "[[models]]", r"expected only \[\[model\]\] tables"),
        ("[[model]]", "[[model]", "not valid TOML"),
        ('repo = "nobody/tiny"', 'repo = "../tiny"', "repo: .*pattern"),
        ('file = "tiny.pt"', 'file = "../../tiny.pt"', "file: .*pattern"),
        ('file = "tiny.pt"', 'file = "/etc/passwd"', "file: .*pattern"),
        ('file = "tiny.pt"', 'file = "tiny.pt"\nrevision = "a/../b"', "revision: .*pattern"),
        (
            'file = "tiny.pt"',
            'file = "tiny.pt"\nimage_size = true',
            "image_size: expected a whole number",
        ),
        ('file = "tiny.pt"', f'file = "tiny.pt"\nsize = {"9" * 5000}', "thousands of digits"),
        ('file = "tiny.pt"', f"file = {'[' * 10**5}", "nested deeper than 32"),
    ],
)
def test_a_wrong_card_is_named(own_places: Path, old: str, new: str, words: str) -> None:
    (own_places / "own.toml").write_text(CARD)
    assert parse_cards(own_places / "own.toml")[0].name == "tiny"
    (own_places / "own.toml").write_text(CARD.replace(old, new))
    with pytest.raises(CheckpointError, match=rf"own\.toml.*{words}") as caught:
        parse_cards(own_places / "own.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cosine", "square", "guided.noise_schedule: Input should be 'linear' or 'cosine'"),
        ("steps = 1000", "steps = 0", "guided.steps: .*greater than or equal to 1 .got 0"),
        ("steps = 1000", 'steps = "x"', "guided.steps: expected a whole number .got 'x'"),
        ("num_heads", "heads", "unknown key 'guided.heads'; did you mean 'num_heads'"),
        ("num_heads = 4", "num_heads = 5", "num_heads 5: does not divide"),
    ],
)
def test_wrong_options_in_a_card_are_named(
    own_places: Path, old: str, new: str, words: str
) -> None:
    shutil.copy(TINY, own_places / "tiny.pt")
    (own_places / "tiny.toml").write_text(CARD.replace(old, new))
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve_checkpoint("tiny.pt")
    assert "\n" not in str(caught.value)


def test_own_cards_are_listed_after_the_packages_and_take_no_name(own_places: Path) -> None:
    own = cache_home() / "models.toml"
    own.parent.mkdir()
    own.write_text(CARD)
    assert [card.name for card in read_cards()][3:] == ["tiny"]
    own.write_text(CARD.replace('"tiny"', f'"{NAME}"', 1))
    with pytest.raises(CheckpointError, match=f"the name '{NAME}' is taken"):
        read_cards()


def test_the_cache_folder_is_where_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_home().name == "home"
    monkeypatch.delenv("ECHOGEN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_home() == Path("/caches/echogen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nobody")
    assert cache_home() == Path("/nobody/.cache/echogen")


def test_a_run_goes_on_whatever_its_model_is_called(
    settings: dict[str, object], checkpoint: Path, own_places: Path
) -> None:
    shutil.copytree(checkpoint, checkpoints_home() / NAME)
    shutil.copytree(checkpoint, own_places / "run" / "checkpoint")
    first = expand(make_config(settings, checkpoint=NAME))
    assert first.painted
    for written in (str(checkpoint), "run"):
        again = expand(make_config(settings, checkpoint=written))
        assert (again.painted, again.counts) == (0, first.counts)


def test_listing_loads_nothing_heavy_and_tells_what_is_here(checkpoint: Path) -> None:
    code = (
        "import sys\nfrom echogen.cli import app\n"
        "try: app(['checkpoint', 'list', '--json'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'zarr', 'h5py', 'SimpleITK', 'huggingface_hub', 'PIL'}"
        "\nprint(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    listed, loaded = done.stdout.splitlines()
    assert loaded == "set()"
    here = {row["name"]: (row["here"], row["default"]) for row in json.loads(listed)["models"]}
    assert here == {
        "camus-256-small": (True, True),
        "camus-judge": (True, False),
        NAME: (False, False),
    }
    shutil.copytree(checkpoint, checkpoints_home() / NAME)
    shown = CliRunner().invoke(app, ["checkpoint", "list"]).stdout
    assert "camus-256-small" in shown
    assert "gillesvdv/CAMUS_diffusion_model" in shown
    assert " no " not in shown
    assert (checkpoints_home() / NAME / INFO_FILE).is_file()


def test_what_is_no_card_no_text_and_no_home_is_one_line(own_places: Path) -> None:
    for text, words in (
        ('model = ["a"]', "model None: expected a table"),
        ('model = "a"', r"expected only \[\[model\]\] tables"),
    ):
        (own_places / "own.toml").write_text(text)
        with pytest.raises(CheckpointError, match=words):
            parse_cards(own_places / "own.toml")
    shutil.copy(TINY, own_places / "tiny.pt")
    (own_places / "tiny.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"tiny\.toml, line 1: is not UTF-8"):
        resolve_checkpoint("tiny.pt")
    with pytest.raises(CheckpointError, match="no such user's home"):
        resolve_checkpoint("~nobody-of-this-name/model")


def test_two_runs_may_convert_the_same_file_at_once(
    own_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echogen.models.guided import importing

    shutil.copy(TINY, own_places / "tiny.pt")
    (own_places / "tiny.toml").write_text(CARD)
    import_guided = importing.import_guided

    def overtaken(*arguments: object) -> object:
        import_guided(*arguments)  # type: ignore[arg-type]  # handed through
        return import_guided(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "import_guided", overtaken)
    assert read_info(resolve_checkpoint("tiny.pt")).name == "tiny"
