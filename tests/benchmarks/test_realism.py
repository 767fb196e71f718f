"""The benchmark on real frames, on drawn hearts and tiny networks: what it claims and keeps."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from echogen.errors import UsageError


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import realism

        yield realism


@pytest.fixture
def hidden(bench: ModuleType, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with a tiny network in place of the unconditional one."""
    import hidden
    import painters

    for module in (hidden, painters):
        monkeypatch.setattr(module, "UNCONDITIONAL", str(checkpoint))
    monkeypatch.setattr(hidden, "GROUP", 2)
    return hidden


def rows(**verdicts: str) -> dict[str, dict[str, Any]]:
    names = ("energy", "crps", "seam", "grain")
    return {name: {"verdict": verdicts.get(name, "no worse"), "figure": 1.0} for name in names}


def test_the_claim_needs_both_scores_nothing_worse_and_a_faint_seam(bench: ModuleType) -> None:
    won = {"energy": "better", "crps": "better"}
    assert bench.claim(rows(**won))["holds"]
    assert not bench.claim(rows(energy="better"))["holds"]
    assert not bench.claim(rows(**won, grain="worse"))["holds"]
    perhaps = bench.claim(rows(**won, grain="perhaps worse"))
    assert perhaps["holds"]
    assert perhaps["perhaps_worse"] == ["grain"]
    seam = rows(**won)
    seam["seam"]["figure"] = 1.06
    assert not bench.claim(seam)["holds"]


def test_permutations_resolve_the_least_level_of_holm(bench: ModuleType) -> None:
    assert bench.LEVEL / len(bench.MEASURES) > 10 / (bench.ROUNDS + 1)


def test_a_better_and_a_worse_sampler_are_told_apart_over_all_measures(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    shift = {"energy": -2.0, "crps": -2.0, "seam": 0.5}
    tables = {}
    for name, (*_, kind) in bench.MEASURES.items():
        draws = rng.normal(10.0, 0.3, (24, 12))
        between = np.full((24, 12, 12), 8.0) - 8.0 * np.eye(12)
        truth = np.full(24, 10.0)
        if kind in ("score", "spread"):
            draws[:, 8:] += shift.get(name, 0.0)
            tables[name] = bench.DrawTable(kind, draws, np.empty(0), between)
        else:
            draws[:, 8:] *= 1.0 + shift.get(name, 0.0)
            tables[name] = bench.DrawTable(kind, draws, truth, np.empty(0))
    found = bench.figures(tables, 8, np.random.default_rng(1))
    assert found["energy"]["verdict"] == found["crps"]["verdict"] == "better"
    assert found["seam"]["verdict"] == "worse"
    assert found["energy"]["p_better_of_all"] >= found["energy"]["p_better"]
    assert not bench.claim(found)["holds"]


def test_painters_are_presets_of_their_checkpoint_or_free_settings(
    hidden: ModuleType, checkpoint: Path, known_checkpoint: Path
) -> None:
    import painters

    text = "balanced; langevin-fast;dpm steps=7  rho=5 ; repaint-25-5-3"
    read = painters.read_painters(text, str(known_checkpoint))
    assert list(read) == ["balanced", "langevin-fast", "dpm steps=7 rho=5", "repaint-25-5-3"]
    presets, old, free, schedule = read.values()
    assert (presets.checkpoint, presets.sampler.name) == (str(known_checkpoint), "dpm")
    assert (old.checkpoint, old.sampler.name) == (str(checkpoint), "langevin")
    assert (free.sampler.steps, free.sampler.rho) == (7, 5.0)
    assert (schedule.checkpoint, schedule.sampler.resamplings) == (str(checkpoint), 3)
    assert painters.read_painters("fast", str(checkpoint))["fast"].sampler.name == "langevin"
    for wrong in ("quick", "dpm stepz=7", "dpm steps=x"):
        with pytest.raises(UsageError):
            painters.read_painters(wrong, str(known_checkpoint))


def test_other_frames_are_of_other_patients(hidden: ModuleType, dataset: Path) -> None:
    reported = hidden.hidden_frames(dataset, 1, 1)
    other = hidden.hidden_frames(dataset, 4, 1, apart_from=1)
    assert len(reported.canvases) == 1
    assert 1 <= len(other.canvases) <= 2  # of the other of two patients
    assert not set(reported.digests) & set(other.digests)


def test_an_interrupted_draw_goes_on_where_it_was(
    hidden: ModuleType, dataset: Path, known_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import painters

    frames = hidden.hidden_frames(dataset, 4, 1)
    painter = painters.read_painters("dpm steps=2", str(known_checkpoint))["dpm steps=2"]
    whole = hidden.paint(frames, painter, 0, 2, tmp_path / "whole")
    assert whole.shape == (2, *frames.truths.shape)
    for image, truth, canvas in zip(whole[0], frames.truths, frames.canvases, strict=True):
        assert np.array_equal(image[canvas.keep], truth[canvas.keep])
    assert not np.array_equal(whole[0], whole[1])

    open_engine, painted = hidden.open_engine, []

    class Dying:
        def __init__(self, *given: Any) -> None:
            self.engine = open_engine(*given)

        def run(self, canvases: list[Any]) -> Any:
            if len(painted) == 1:
                raise KeyboardInterrupt
            painted.append(len(canvases))
            return self.engine.run(canvases)

    monkeypatch.setattr(hidden, "open_engine", Dying)
    with pytest.raises(KeyboardInterrupt):
        hidden.paint(frames, painter, 0, 2, tmp_path / "cut")
    assert [file.name for file in tmp_path.glob("cut/*/*/*.part")] == ["0-0.part"]
    painted.extend([0])  # never dies again
    again = hidden.paint(frames, painter, 0, 2, tmp_path / "cut")
    assert np.array_equal(again, whole)
    assert painted[2:] == [len(frames.canvases) - 2, 2, len(frames.canvases) - 2]
    assert not list(tmp_path.glob("cut/*/*/*.part"))
    monkeypatch.setattr(hidden, "open_engine", lambda *_: pytest.fail("painted again"))
    assert np.array_equal(hidden.paint(frames, painter, 0, 2, tmp_path / "cut"), whole)


def test_a_network_that_has_seen_a_frame_is_refused(
    hidden: ModuleType, dataset: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = hidden.hidden_frames(dataset, 2, 1)
    info = hidden.read_info(str(checkpoint))
    record = {"cases": {"trained": {"somebody": [frames.digests[0]]}}}
    seen = info.model_copy(update={"training": record})
    monkeypatch.setattr(hidden, "read_info", lambda _: seen)
    with pytest.raises(UsageError, match="was trained on 1 of these 2 frames"):
        hidden.refuse_trained(frames, str(checkpoint))


def test_tuning_prints_figures_alone(
    bench: ModuleType, hidden: ModuleType, known_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = Path(__file__).parents[2] / "sample_data" / "camus"
    monkeypatch.setattr(bench, "REPORTED", 1)
    arguments = [
        "realism.py", "--data", str(data), "--cache", str(tmp_path), "--tuning", "--frames", "2",
        "--samples", "2", "--checkpoint", str(known_checkpoint), "--samplers", "dpm steps=2",
        "--out", str(tmp_path / "out.json"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    bench.main()
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "energy"
    assert row.startswith("dpm steps=2 ")
    assert len(row.split()) == 2 + len(bench.MEASURES)
    assert not (tmp_path / "out.json").exists()


def test_the_unconditional_network_is_whole_and_names_who_was_held_out() -> None:
    from echogen.diffusion.checkpoint import file_sha256, read_info

    folder = Path(__file__).parents[2] / "benchmarks" / "checkpoints" / "unconditional"
    info = read_info(folder)
    assert info.conditioning == "none"
    assert len(info.training["held_out_cases"]) == 40
    assert {name: file_sha256(folder / name) for name in info.files} == info.files
