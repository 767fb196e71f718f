import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from echogen.cli import app
from echogen.diffusion.checkpoint import read_info
from echogen.errors import CheckpointError, EchogenError, UsageError
from echogen.models.guided import probe as probing
from echogen.models.guided.architecture import GuidedOptions, read_architecture
from echogen.models.guided.candidates import KnownOptions, candidates, describe
from echogen.models.guided.importing import read_guided
from echogen.models.guided.probe import LEVELS, OPEN, Probe, frames_needed, probe, probe_file
from tests.support import guided_network
from tests.support.planted_network import PLANTED, SIDE, load_planted, small_fans
from tests.support.shapes import printed

TINY = Path(__file__).parents[2] / "data" / "guided_diffusion_tiny.pt"


@pytest.fixture(scope="module")
def planted() -> dict[str, Tensor]:
    return load_planted()


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return small_fans(range(16))


@pytest.fixture(scope="module")
def found(planted: dict[str, Tensor], frames: np.ndarray) -> Probe:
    return probe(planted, frames, device="cpu", precision="fp32")


def test_the_planted_schedule_and_heads_are_found(found: Probe) -> None:
    assert found.decided
    assert found.options == PLANTED
    assert found.margin > 1.02
    assert found.share < 0.7
    assert found.verdict.startswith("cosine, 4000 steps, 4 heads, legacy order: the next, ")


def test_every_candidate_is_in_the_table_once(found: Probe, planted: dict[str, Tensor]) -> None:
    tried = [one.options for one in found.candidates]
    assert len(set(tried)) == len(tried) == 20
    assert set(tried) == set(candidates(read_architecture(planted), OPEN))
    assert set(found.candidates[0].errors) == set(LEVELS)
    assert found.candidates[0].ratio == 1.0
    assert found.candidates[1].ratio == found.margin
    assert any(len(one.errors) < len(LEVELS) for one in found.candidates)


def test_the_right_candidate_denoises_better_than_when_told_more_or_less_noise(
    found: Probe,
) -> None:
    assert min(min(ratios) for ratios in found.shifted.values()) > 0.99
    assert max(max(ratios) for ratios in found.shifted.values()) > 1.1


def test_a_probe_is_recorded_as_json(found: Probe) -> None:
    record = json.loads(json.dumps(found.to_dict()))
    assert record["decided"]
    first = record["candidates"][0]
    assert GuidedOptions(**{key: first[key] for key in PLANTED.model_dump()}) == PLANTED
    assert list(first["errors"]) == [f"{sigma:g}" for sigma in sorted(LEVELS)]


def test_what_is_known_is_not_tried(planted: dict[str, Tensor], frames: np.ndarray) -> None:
    known = KnownOptions(noise_schedule="cosine", num_heads=4, new_attention_order=False)
    probed = probe(planted, frames, known, device="cpu", precision="fp32")
    assert probed.options == PLANTED
    assert {one.options.steps for one in probed.candidates} == {1000, 4000}
    assert len(probed.candidates) == 2


@pytest.mark.parametrize(
    ("schedule", "steps", "word"), [("linear", 1000, "more"), ("cosine", 8000, "less")]
)
def test_a_schedule_that_is_not_among_the_candidates_is_noticed(
    planted: dict[str, Tensor], frames: np.ndarray, schedule: str, steps: int, word: str
) -> None:
    known = KnownOptions(schedule, steps, num_heads=4, new_attention_order=False)
    probed = probe(planted, frames, known, device="cpu", precision="fp32")
    assert not probed.decided
    with pytest.raises(CheckpointError, match=f"no candidate's schedule fits.*{word} noise"):
        _ = probed.options


def test_a_single_candidate_that_fits_is_confirmed(
    planted: dict[str, Tensor], frames: np.ndarray
) -> None:
    known = KnownOptions("cosine", 4000, num_heads=4, new_attention_order=False)
    probed = probe(planted, frames, known, device="cpu", precision="fp32")
    assert probed.decided
    assert "the only candidate" in probed.verdict


def test_candidates_too_near_each_other_are_not_chosen_between(
    planted: dict[str, Tensor], frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LEAST_MARGIN", 3.0)
    known = KnownOptions(steps=4000, num_heads=4, new_attention_order=False)
    probed = probe(planted, frames[:4], known, device="cpu", precision="fp32")
    words = r"cannot decide between cosine, .* and linear, .* give --noise-schedule, or"
    with pytest.raises(CheckpointError, match=words) as caught:
        _ = probed.options
    assert "\n" not in str(caught.value)


def test_a_network_that_does_not_denoise_is_given_up_early(frames: np.ndarray) -> None:
    known = KnownOptions(noise_schedule="linear")
    probed = probe(read_guided(TINY), frames[:2], known, device="cpu", precision="fp32")
    assert not probed.decided
    assert "none of 14 candidates denoises these frames" in probed.verdict
    assert len(probed.candidates[0].errors) < len(LEVELS)


def test_output_that_is_not_finite_is_said(planted: dict[str, Tensor], frames: np.ndarray) -> None:
    overflowing = {**planted, "out.2.bias": torch.full((6,), torch.inf)}
    with pytest.raises(CheckpointError, match="not finite at noise level"):
        probe(overflowing, frames[:1], device="cpu", precision="fp32")


def test_candidates_are_those_that_differ_for_the_shapes() -> None:
    def heads(*channels: int, attention: tuple[int, ...], known: KnownOptions = OPEN) -> set[str]:
        state = guided_network.random_state(channels, attention=attention, device="meta")
        found = candidates(read_architecture(state), known)
        assert len({describe(one) for one in found}) == len(found)
        return {describe(one).removeprefix("linear, 1000 steps, ") for one in found
                if (one.noise_schedule, one.steps) == ("linear", 1000)}  # fmt: skip

    wide = heads(64, 256, attention=(1,))
    assert len(wide) == 7  # 64 channels per head are 4 heads here
    assert "one head" in wide
    assert heads(32, 64, attention=(0, 1)) == {
        "one head",
        *(f"{each} per head, {order} order" for each in ("1 channel", "32 channels")
          for order in ("legacy", "new")),
    }  # fmt: skip
    given = KnownOptions(num_head_channels=16, new_attention_order=True)
    assert heads(64, 64, attention=(1,), known=given) == {"16 channels per head, new order"}
    with pytest.raises(CheckpointError, match="num_heads 5"):
        heads(64, 64, attention=(1,), known=KnownOptions(num_heads=5))


def test_small_images_need_more_frames() -> None:
    assert (frames_needed(256), frames_needed(128), frames_needed(16)) == (2, 8, 16)


def test_the_command_probes_a_dataset_shows_the_table_and_records_it(
    planted: dict[str, Tensor], dataset: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "model.pt", tmp_path / "model"
    torch.save(planted, file)
    arguments = ["checkpoint", "import", str(file), "--out", str(out), "--probe", str(dataset)]
    arguments += ["--image-size", str(SIDE), "--quiet", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[:5] == ["cosine", "4000", "4", "heads", "legacy"]
    assert "fits: cosine, 4000 steps" in done.stdout
    record = read_info(out).training["imported"]
    assert GuidedOptions(**record["options"]) == PLANTED
    assert record["probe"]["decided"]
    assert len(record["probe"]["candidates"]) == 20
    assert "by denoising error on real frames" in (out / "README.md").read_text()


def test_the_command_makes_nothing_where_the_probe_does_not_decide(
    dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    arguments = ["checkpoint", "import", str(TINY), "--out", str(out), "--probe", str(dataset)]
    arguments += ["--quiet", "--device", "cpu", "--json", "--noise-schedule", "linear"]
    done = CliRunner().invoke(app, [*arguments, "--num-heads", "4"])
    assert isinstance(done.exception, EchogenError)
    assert done.exception.exit_code == 4
    shown = printed("checkpoint-import", done.stdout)
    assert shown["checkpoint"] is None
    assert not shown["probe"]["decided"]
    assert not out.exists()


def test_an_image_size_that_the_levels_do_not_divide_is_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="image size 102: expected a multiple of"):
        probe_file(TINY, dataset, KnownOptions("linear", 1000, num_heads=4), image_size=102)
