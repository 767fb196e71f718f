"""The stream with a store in memory: what is painted, what passes by, what is written when."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from echogen.geometry.transforms import IDENTITY
from echogen.painting.local import LocalEngine
from echogen.painting.stream import (
    Outcome,
    Work,
    canvas_of,
    labelled_shard,
    paint_pending,
    repaint_seed,
)
from echogen.planning.plan import Row
from echogen.report import Problem, Quiet
from echogen.store import MOST_REPAINTS, NOT_FINITE, Status, StoreWriter, sample_sha256
from echogen.support.signals import Stop
from echogen.types import Sample
from tests.painting.test_local import SIDE, Faulty, NoiseSampler, denoiser
from tests.support.hearts import make_canvas

SHARD = 4


class MemoryStore:
    """What a stream needs of a `StoreWriter`; remembers shards in the order of writing."""

    image_shape = (SIDE, SIDE)

    def __init__(self, rows: int) -> None:
        self.shards: dict[int, list[int]] = {}
        for row in range(rows):
            self.shards.setdefault(row // SHARD, []).append(row)
        self.written: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def pending_rows(self) -> dict[int, list[int]]:
        return self.shards

    def write_shard(
        self,
        shard: int,
        pixels: Mapping[str, npt.NDArray[Any]],
        facts: Mapping[str, Any],
        rows: Sequence[int],
    ) -> None:
        assert rows == self.shards[shard]
        self.written[shard] = pixels, facts


def row_of(i: int, copy: int) -> Row:
    return Row(f"s{i}", f"f{i}", copy, i, False, 3, IDENTITY)


def sample_of(row: Row) -> Sample:
    canvas = make_canvas(row.seed, SIDE)
    keep = canvas.keep | (row.copy == 0)
    return Sample(canvas.image, keep, canvas.image // 64, 0.25)


def run(
    rows: Sequence[Row],
    sampler: NoiseSampler,
    instead: Mapping[int, Outcome] | None = None,
    batch: int = 3,
    condemned: Callable[[Row, Sample], str] = lambda row, sample: "",
    stop: Stop | None = None,
) -> tuple[MemoryStore, list[int]]:
    """The store, and after each rendering how many rows were rendered and not yet written."""
    store, rendered, waiting = MemoryStore(len(rows)), [0], []

    def render(some: Sequence[Row]) -> list[Outcome]:
        rendered[0] += len(some)
        waiting.append(rendered[0] - SHARD * len(store.written))
        return [(instead or {}).get(row.seed, sample_of(row)) for row in some]

    engine = LocalEngine(denoiser(), sampler, batch)
    work = Work(rows, render, labelled_shard, condemned)
    paint_pending(cast(StoreWriter, store), work, engine, Quiet(), stop or Stop())
    return store, waiting


def test_originals_never_reach_the_engine_and_every_shard_is_whole_and_in_order() -> None:
    rows = [row_of(i, copy=i % 3) for i in range(14)]
    sampler = NoiseSampler()
    store, _ = run(rows, sampler)
    assert sampler.batches == [3, 3, 3]  # nine copies
    assert sorted(store.written) == [0, 1, 2, 3]
    images = np.concatenate([store.written[shard][0]["images"] for shard in range(4)])
    masks = np.concatenate([store.written[shard][0]["masks"] for shard in range(4)])
    hashes = np.concatenate([store.written[shard][1]["sha256"] for shard in range(4)])
    for row, image, mask, digest in zip(rows, images, masks, hashes, strict=True):
        given = sample_of(row)
        np.testing.assert_array_equal(image[given.keep], given.image[given.keep])
        np.testing.assert_array_equal(mask, given.label)
        assert (image == given.image).all() == (row.copy == 0)
        assert digest == sample_sha256(image, mask)


def test_what_cannot_be_painted_is_zeros_with_its_reason() -> None:
    rows = [row_of(i, copy=1) for i in range(4)]
    instead = {1: None, 2: Problem("f2", "f2.nii: gone")}
    store, _ = run(rows, Faulty({0: slice(1, 2)}), instead)
    pixels, facts = store.written[0]
    assert facts["status"] == [Status.DONE, Status.REJECTED, Status.FAILED, Status.FAILED]
    assert facts["reason"].tolist() == ["", "no valid move in 3 draws", "f2.nii: gone", NOT_FINITE]
    assert facts["sha256"][1:].tolist() == ["", "", ""]
    for array in pixels.values():
        assert array[0].any()
        assert not array[1:].any()


def test_shards_without_copies_are_written_while_a_canvas_waits_for_its_batch() -> None:
    rows = [row_of(i, copy=i == 0) for i in range(100 * SHARD)]
    store, waiting = run(rows, NoiseSampler())
    assert list(store.written)[-1] == 0
    assert len(store.written) == 100
    assert max(waiting) < 25 * SHARD


def test_what_lies_beyond_the_picture_is_painted_for_the_network_and_stays_black() -> None:
    row = row_of(1, 1)
    sample = sample_of(row)
    beyond = sample.keep.copy()
    beyond[4:] = False
    assert beyond.any()
    rendered = replace(sample, image=np.where(beyond, 0, sample.image), beyond=beyond)
    canvas = canvas_of(rendered, row.sample_id, row.seed)
    np.testing.assert_array_equal(canvas.keep, sample.keep & ~beyond)
    store, _ = run([row], NoiseSampler(), {row.seed: rendered})
    pixels, _facts = store.written[0]
    assert not pixels["images"][0][beyond].any()
    assert pixels["keep"][0][beyond].all()
    assert (pixels["images"][0][~sample.keep] > 0).mean() > 0.5


def condemning(often: Mapping[int, int]) -> Callable[[Row, Sample], str]:
    """Condemns a row so many times, by its seed, and remembers nothing but that."""
    times: Counter[int] = Counter()

    def condemned(row: Row, sample: Sample) -> str:
        times[row.seed] += 1
        return "not to be kept" if times[row.seed] <= often.get(row.seed, 0) else ""

    return condemned


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 14])
def test_what_is_condemned_is_painted_again_from_its_own_noise_whatever_the_batches(
    batch: int,
) -> None:
    rows = [row_of(i, copy=i % 3) for i in range(14)]
    often = {1: 1, 5: 2, 8: 3, 13: 1}
    store, _ = run(rows, NoiseSampler(), batch=batch, condemned=condemning(often))
    plain, _ = run(rows, NoiseSampler(), batch=batch)
    repaints = np.concatenate([store.written[shard][1]["repaints"] for shard in range(4)])
    assert repaints.tolist() == [often.get(i, 0) for i in range(14)]
    for i, row in enumerate(rows):
        image = store.written[i // SHARD][0]["images"][i % SHARD]
        if i in often:
            as_seeded = replace(row, seed=repaint_seed(row.seed, often[i]))
            expected, _ = run([as_seeded], NoiseSampler(), {as_seeded.seed: sample_of(row)})
            np.testing.assert_array_equal(image, expected.written[0][0]["images"][0])
        else:
            untouched = plain.written[i // SHARD][0]["images"][i % SHARD]
            np.testing.assert_array_equal(image, untouched)


def test_what_is_still_condemned_after_three_more_paintings_has_failed() -> None:
    rows = [row_of(i, copy=1) for i in range(4)]
    sampler = NoiseSampler()
    store, _ = run(rows, sampler, condemned=condemning({2: 4, 3: 3}))
    pixels, facts = store.written[0]
    assert facts["status"] == [Status.DONE, Status.DONE, Status.FAILED, Status.DONE]
    assert facts["reason"].tolist()[2] == "not to be kept, also when painted again 3 times"
    assert facts["repaints"].tolist() == [0, 0, MOST_REPAINTS, 3]
    assert not pixels["images"][2].any()


def test_after_a_stop_what_was_condemned_in_a_begun_shard_is_painted_again() -> None:
    rows = [row_of(i, copy=1) for i in range(12)]
    stop, often = Stop(), condemning({0: 2, 3: 3})

    def condemned(row: Row, sample: Sample) -> str:
        stop.signum = 15
        return often(row, sample)

    store, _ = run(rows, NoiseSampler(), condemned=condemned, stop=stop)
    begun = sorted(store.written)
    assert begun == list(range(len(begun)))
    assert 0 < len(begun) < 3
    assert store.written[0][1]["repaints"].tolist() == [2, 0, 0, 3]
