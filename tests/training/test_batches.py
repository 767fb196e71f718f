from dataclasses import replace

import numpy as np
import pytest
import torch

from echogen.errors import UsageError
from echogen.training.augment import PARAMETERS, draw_variation, vary
from echogen.training.batches import TrainingBatch, batches, frame_source
from echogen.training.frames import PreparedFrames, hold_out
from echogen.training.loss import draw_steps
from echogen.training.options import held_out_count
from echogen.training.recipe import AugmentConfig, LossConfig, Recipe
from tests.support.tiny_training import VARY, cone, recipe, tiny_frames, unconditional


@pytest.fixture
def packed() -> PreparedFrames:
    return tiny_frames()


def augment(
    frames: torch.Tensor, config: AugmentConfig, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    variation = draw_variation(len(frames), config, torch.Generator().manual_seed(seed))
    return vary(frames, variation, config), variation


# --- held-out cases


def test_held_out_cases_are_whole_and_stay_when_others_come(packed):
    chosen = hold_out(packed.record.case_ids, 2, 0)
    assert len(chosen) == 2
    assert len(packed.rows_of(chosen)) == 4
    many = [f"p{i}" for i in range(50)]
    before, after = hold_out(many, 10, 0), hold_out([*many, "new"], 10, 0)
    assert len(set(before) & set(after)) >= 9
    assert hold_out(many, 10, 1) != before
    with pytest.raises(UsageError, match=r"--hold-out 6: expected 0 to 5"):
        hold_out(packed.record.case_ids, 6, 0)


# --- variation


def test_unvaried_frames_pass_untouched_and_say_so():
    frames = torch.from_numpy(cone(64))[:, None] / 255.0
    moved, parameters = augment(frames, VARY, 0)
    still = parameters[:, 0] == 0
    assert 10 < int(still.sum()) < 54
    assert torch.equal(moved[still], frames[still])
    assert not parameters[still].any()
    assert parameters[~still].abs().max() <= 1 + 1e-5
    assert parameters.shape[1] == len(PARAMETERS)
    assert ((moved[~still] - frames[~still]).abs().amax(dim=(1, 2, 3)) > 0).all()


def test_background_stays_black_and_levels_stay_whole():
    frames = torch.from_numpy(cone(32, 64))[:, None] / 255.0
    config = VARY.model_copy(update={"probability": 1.0, "shift": 0.0})
    moved, _ = augment(frames, config, 1)
    assert not moved[:, :, 8, :16].any()
    assert not moved[:, :, 8, -16:].any()
    levels = moved * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_the_apex_stays_under_zoom_and_tilt():
    frames = torch.zeros(1, 1, 64, 64)
    frames[:, :, :3, 31:33] = 1.0
    config = AugmentConfig(probability=1.0, zoom=(0.8, 0.8001), tilt_deg=10.0)
    moved, _ = augment(frames, config, 3)
    rows, columns = (moved[0, 0] > 0.5).nonzero(as_tuple=True)
    assert int(rows.min()) == 0
    assert 30.5 <= float(columns.float().mean()) <= 32.5


def test_a_shift_moves_by_as_much_as_it_says():
    frames = torch.zeros(40, 1, 64, 64)
    frames[:, :, 20:24, 30:34] = 1.0
    config = AugmentConfig(probability=1.0, shift=0.2)
    moved, parameters = augment(frames, config, 0)
    mass = moved[:, 0]
    columns = (mass.sum(1) * torch.arange(64)).sum(1) / mass.sum(dim=(1, 2))
    rows = (mass.sum(2) * torch.arange(64)).sum(1) / mass.sum(dim=(1, 2))
    assert torch.allclose(columns - 31.5, parameters[:, 4] * 0.2 * 64, atol=0.3)
    assert torch.allclose(rows - 21.5, parameters[:, 5] * 0.2 * 64, atol=0.3)


def test_what_is_told_is_enough_to_repeat_a_variation():
    frames = torch.from_numpy(cone(16))[:, None] / 255.0
    moved, told = augment(frames, VARY, 0)
    assert torch.equal(vary(frames, told, VARY), moved)
    some = torch.tensor([3, 7])
    assert torch.equal(vary(frames[some], told[some], VARY), moved[some])


# --- batches


CONFIGS = pytest.mark.parametrize("config", [recipe(), unconditional()], ids=["known", "none"])


def first_batches(
    packed: PreparedFrames,
    config: Recipe,
    count: int,
    start: int = 0,
    share: slice = slice(0, 4),
):
    source = frame_source(packed, np.arange(len(packed.pixels)), torch.device("cpu"))
    stream = batches(source, config, 1000, start, share)
    made = [next(stream) for _ in range(count)]
    stream.close()
    return made


def given(batch: TrainingBatch) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if value is not None}


def equal(one: TrainingBatch, two: TrainingBatch) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(given(one).values(), given(two).values(), strict=True)
    )


@CONFIGS
def test_a_batch_depends_on_its_step_alone(packed, config):
    whole, later = first_batches(packed, config, 4), first_batches(packed, config, 2, start=2)
    assert equal(whole[2], later[0])
    assert equal(whole[3], later[1])
    assert not torch.equal(whole[0].noise, whole[1].noise)
    assert whole[0].x0.shape == whole[0].noise.shape == (4, 4, 8, 8)
    assert ("keep" in given(whole[0])) == (config.conditioning == "known")


@CONFIGS
def test_shares_and_pieces_put_together_are_the_batch(packed, config):
    whole = first_batches(packed, config, 2)[1]
    shares = [first_batches(packed, config, 2, share=slice(n, n + 2))[1] for n in (0, 2)]
    pieces = list(whole.parts(3))
    assert [len(piece.t) for piece in pieces] == [3, 1]
    for parts in (shares, pieces):
        for name, value in given(whole).items():
            assert torch.equal(torch.cat([vars(part)[name] for part in parts]), value)
    assert float(sum(share.total for share in shares)) == pytest.approx(float(whole.total))


def test_what_is_known_is_not_told_and_does_not_count(packed):
    for batch in first_batches(packed, recipe(), 8):
        assert not batch.variation.any()
        assert not batch.weight[batch.keep].any()
        hidden = batch.weight[~batch.keep]
        assert 1 <= hidden.min() <= hidden.max() <= 5
        assert float(batch.total) == pytest.approx(float(batch.weight.sum()))


def test_low_steps_come_as_often_as_asked():
    config = LossConfig(low_share=0.5, low_until=0.1)
    steps = draw_steps(4000, 1000, config, torch.Generator().manual_seed(0))
    assert (steps < 100).float().mean() == pytest.approx(0.55, abs=0.03)
    assert 0 <= int(steps.min()) <= int(steps.max()) < 1000


def test_a_memory_map_is_read_by_rows_and_never_as_a_whole(packed, tmp_path):
    np.save(tmp_path / "frames.npy", packed.pixels)

    class Watched(np.memmap):
        def __getitem__(self, index):
            assert len(index) <= 4
            return super().__getitem__(index)

    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r").view(Watched)
    rows = np.array([1, 4, 7, 9, 10])
    source = frame_source(replace(packed, pixels=mapped), rows, torch.device("cpu"))
    stream = batches(source, unconditional(augment=AugmentConfig()), 1000, 0, slice(0, 4))
    images = torch.pixel_shuffle(next(stream).x0, 2)
    stream.close()
    levels = ((images[:, 0] + 1) * 127.5).round().byte().numpy()
    assert all(any(np.array_equal(level, packed.pixels[row]) for row in rows) for level in levels)


def test_an_error_in_the_thread_that_gathers_is_raised(packed):
    source = frame_source(packed, np.array([99]), torch.device("cpu"))
    with pytest.raises(IndexError):
        next(batches(source, recipe(), 1000, 0, slice(0, 4)))


def test_a_tenth_of_the_cases_is_held_out_unless_told():
    counts = {cases: held_out_count(None, cases) for cases in (1, 4, 5, 19, 50, 400, 10_000)}
    assert counts == {1: 0, 4: 0, 5: 1, 19: 1, 50: 5, 400: 40, 10_000: 40}
    assert held_out_count(0, 50) == 0
    assert held_out_count(7, 50) == 7
