import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from echogen.cli import app
from echogen.diffusion.checkpoint import (
    WEIGHTS,
    file_sha256,
    read_info,
    verify_checkpoint,
)
from echogen.errors import CheckpointError
from echogen.models.download import download
from echogen.models.registry import checkpoints_home, find_card, local_folder
from tests.support.faults import every_kill
from tests.support.hub_server import COMMIT, Hub, serve
from tests.support.shapes import printed

TINY = Path(__file__).parents[1] / "data" / "guided_diffusion_tiny.pt"
NAME = "echogains-camus"
REPO, FILE = "gillesvdv/CAMUS_diffusion_model", "CAMUS_diffusion_model.pt"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A hub with the tiny model in the published one's place; the client's caches are empty."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serve() as served:
        served.files[REPO, FILE] = TINY.read_bytes()
        monkeypatch.setenv("ECHOGEN_HOME", str(tmp_path / "echogen"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setattr(
            constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"), raising=False
        )
        monkeypatch.setattr(_http.time, "sleep", lambda _: None)
        yield served


def left_behind(tmp_path: Path) -> list[str]:
    """Files with content in both caches; the client's locks and notes are not content."""
    return [
        str(path.relative_to(tmp_path))
        for path in sorted(tmp_path.rglob("*"))
        if path.is_file() and path.stat().st_size > 1000
    ]


def own_card(**changes: object) -> None:
    import tomli_w

    card = {
        "name": "lab", "kind": "echogen", "what_for": "tests", "architecture": "tiny",
        "training_data": "none", "licence": "CC0-1.0", "citation": "none", "repo": "lab/model",
        **changes,
    }  # fmt: skip
    file = checkpoints_home().parent / "models.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(tomli_w.dumps({"model": [card]}))


def test_a_foreign_model_is_fetched_verified_converted_and_recorded(hub: Hub) -> None:
    done = download(NAME)
    assert done.fresh
    assert done.folder == str(checkpoints_home() / NAME)
    info = verify_checkpoint(done.folder)
    assert (info.name, info.image_size, info.channels) == (NAME, 32, 3)
    assert info.sha256 == done.checkpoint_sha256
    assert "2502.20100" in info.citation
    assert info.training["imported"]["sha256"] == file_sha256(TINY)
    assert info.training["imported"]["source"] == f"{REPO}@{COMMIT}"
    record = json.loads((checkpoints_home() / f"{NAME}.json").read_text())
    assert (record["repo"], record["file"], record["revision"]) == (REPO, FILE, COMMIT)
    assert (record["sha256"], record["checkpoint_sha256"]) == (file_sha256(TINY), info.sha256)
    assert len(hub.content_requests()) == 1


def test_a_download_killed_at_its_end_is_recorded_by_the_next(hub: Hub, tmp_path: Path) -> None:
    download(NAME)  # and it is in the client's cache
    home = checkpoints_home()

    def prepare() -> None:
        shutil.rmtree(home)

    def check(where: str) -> None:
        verify_checkpoint(home / NAME)
        assert sorted(path.name for path in home.iterdir()) == [NAME, f"{NAME}.json"]

    def in_place(place: str) -> bool:
        return Path(place).parent == home and not place.endswith(".lock")

    kills = every_kill(tmp_path, prepare, lambda: download(NAME), check, concerns=in_place)
    assert kills > 5


def test_a_second_call_asks_nothing_of_the_network(hub: Hub) -> None:
    first = download(NAME)
    hub.log.clear()
    second = download(NAME)
    assert not second.fresh
    assert second.folder == first.folder
    assert hub.log == []


def test_a_download_that_is_broken_off_goes_on_where_it_was(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.breaks = [100_000, 50_000]
    download(NAME)
    ranges = [request.range for request in hub.content_requests()]
    assert ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_damaged_folder_is_made_anew_from_the_hubs_cache(hub: Hub) -> None:
    folder = Path(download(NAME).folder)
    (folder / WEIGHTS).write_bytes(b"short")
    hub.log.clear()
    assert download(NAME).fresh
    verify_checkpoint(folder)
    assert hub.content_requests() == []


def test_a_corrected_card_makes_the_model_anew(hub: Hub) -> None:
    guided = {"noise_schedule": "linear", "steps": 4000, "num_heads": 4}
    lab = {"name": "tiny", "kind": "guided", "repo": REPO, "file": FILE}
    own_card(**lab, guided=guided)
    first = download("tiny")
    assert not download("tiny").fresh
    own_card(**lab, guided={**guided, "noise_schedule": "cosine"})
    second = download("tiny")
    assert second.fresh
    assert read_info(second.folder).training["imported"]["options"]["noise_schedule"] == "cosine"
    assert second.checkpoint_sha256 != first.checkpoint_sha256


def test_a_wrong_hash_is_refused_and_nothing_is_left_behind(hub: Hub, tmp_path: Path) -> None:
    hub.told[REPO, FILE] = "0" * 64
    with pytest.raises(CheckpointError, match="expected 000000000000") as caught:
        download(NAME)
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path) == []
    hub.told.clear()
    hub.log.clear()
    assert download(NAME).fresh
    assert len(hub.content_requests()) == 1


def test_a_file_that_changed_on_the_hub_since_is_refused_until_it_is_accepted(hub: Hub) -> None:
    shutil.rmtree(download(NAME).folder)
    state = torch.load(TINY, weights_only=True)
    state["out.2.bias"] += 1
    changed = checkpoints_home() / "changed.pt"
    torch.save(state, changed)
    hub.files[REPO, FILE] = changed.read_bytes()
    shutil.rmtree(checkpoints_home().parents[1] / "hub")
    record = checkpoints_home() / f"{NAME}.json"
    with pytest.raises(CheckpointError, match=rf"as recorded in {record}; delete it"):
        download(NAME)
    assert local_folder(find_card(NAME)) is None
    record.unlink()
    assert download(NAME).fresh


def test_a_pickle_that_would_run_code_is_refused_in_one_line(hub: Hub, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "it-ran"),))

    evil = tmp_path / "evil.pt"
    torch.save({"state_dict": Runs()}, evil)
    hub.files[REPO, FILE] = evil.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        download(NAME)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()
    assert local_folder(find_card(NAME)) is None


def test_what_the_hub_does_not_have_is_said(hub: Hub) -> None:
    hub.files[REPO, "other.pt"] = hub.files.pop((REPO, FILE))
    with pytest.raises(CheckpointError, match=f"{FILE} of {REPO}: the repository has no such file"):
        download(NAME)
    hub.refuses[REPO] = "GatedRepo"
    with pytest.raises(CheckpointError, match=r"accept their terms at .*hf auth login"):
        download(NAME)
    hub.refuses.clear()
    hub.files.clear()
    with pytest.raises(CheckpointError, match="no such repository, or it is private"):
        download(NAME)
    hub.files["lab/model", "echogen.json"] = b"{}"
    own_card(revision="f" * 40)
    with pytest.raises(CheckpointError, match=f"no revision {'f' * 40}"):
        download("lab")


def test_a_file_without_any_known_hash_is_refused(hub: Hub) -> None:
    hub.small.add(FILE)
    with pytest.raises(CheckpointError, match="neither its card nor the hub gives a SHA-256"):
        download(NAME)
    assert local_folder(find_card(NAME)) is None


def test_without_a_network_the_message_says_what_to_check(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    nobody = "http://127.0.0.1:9"  # the port of discard
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        nobody + "/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(CheckpointError, match=r"cannot be reached.*check the network") as caught:
        download(NAME)
    assert "\n" not in str(caught.value)


def test_offline_the_hubs_cache_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        download(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    first = download(NAME)
    shutil.rmtree(checkpoints_home())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    second = download(NAME)
    assert second.checkpoint_sha256 == first.checkpoint_sha256
    assert hub.log == []


def test_a_checkpoints_folder_on_the_hub_is_fetched_whole(
    hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            hub.files["lab/model", str(file.relative_to(checkpoint))] = file.read_bytes()
    hub.small |= {path for _, path in hub.files if not path.endswith((".safetensors", ".pt"))}
    own_card(sha256=read_info(checkpoint).sha256)
    assert verify_checkpoint(download("lab").folder) == read_info(checkpoint)
    assert not download("lab").fresh

    shutil.rmtree(checkpoints_home())
    own_card(sha256="0" * 64)
    with pytest.raises(CheckpointError, match="expected 000000000000"):
        download("lab")
    own_card()
    hub.files["lab/model", "unet/config.json"] += b" "
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(CheckpointError, match=r"unet/config\.json of lab/model has sha256"):
        download("lab")
    assert local_folder(find_card("lab")) is None


def test_what_is_in_the_package_needs_no_download(hub: Hub) -> None:
    for name in ("builtin", "camus-256-small"):
        done = download(name)
        assert (done.folder, done.fresh) == (None, False)
    with pytest.raises(CheckpointError, match="did you mean 'echogains-camus'"):
        download("echogain-camus")
    assert hub.log == []


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_PROXY": "127.0.0.1,localhost", **environment},
        check=False,
    )


def test_the_clients_own_variables_are_obeyed(hub: Hub, tmp_path: Path) -> None:
    places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    download_it = ("-m", "echogen", "checkpoint", "download", NAME)
    done = command(*download_it, **places, HF_HUB_OFFLINE="1")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(f"echogen: model {NAME}: {FILE} of {REPO}: ")
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.log == []
    code = (
        "from echogen.models.hub import fetch\n"
        "from echogen.models.registry import find_card\n"
        f"print(fetch(find_card({NAME!r}), {FILE!r}).path)"
    )
    done = command("-c", code, **places)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")
    again = command("-c", code, **places, HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout


def test_the_command_tells_terms_where_it_is_and_what_to_do_next(hub: Hub) -> None:
    done = CliRunner().invoke(app, ["checkpoint", "download", NAME])
    assert done.exit_code == 0
    assert "CC BY-NC-SA 4.0. Cite: G. Van De Vyver" in done.stderr
    assert "not measured; --probe DATASET measures them" in done.stderr
    assert f"{NAME}: {checkpoints_home() / NAME}" in done.stdout
    assert f"next: echogen expand --checkpoint {NAME}" in done.stdout
    done = CliRunner().invoke(app, ["checkpoint", "download", NAME, "--json"])
    assert printed("checkpoint-download", done.stdout)["fresh"] is False


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full: writing more fails as it does there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("allowed", "words"),
    [(2_000_000, "no space left for it in"), (4_000_000, "cannot be written .*File too large")],
    ids=["fetching", "converting"],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    hub: Hub, tmp_path: Path, allowed: int, words: str
) -> None:
    half = tmp_path / "half.pt"  # 2.5 MB, and 5 MB once converted
    state = torch.load(TINY, weights_only=True)
    torch.save({name: value.half() for name, value in state.items()}, half)
    hub.files[REPO, FILE] = half.read_bytes()
    with files_no_larger_than(allowed), pytest.raises(CheckpointError, match=words) as caught:
        download(NAME)
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path / "echogen") == []
    assert download(NAME).fresh
