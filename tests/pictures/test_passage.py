from pathlib import Path

import numpy as np
import pytest

from echogen.config import DpmConfig, EngineConfig, LangevinConfig, RepaintConfig, SamplerConfig
from echogen.painting.engine import Canvas
from echogen.painting.local import open_local
from echogen.pictures.passage import walk
from echogen.pictures.subject import Subject
from echogen.types import Sample


@pytest.mark.parametrize(
    "sampler",
    [
        RepaintConfig(steps=4, jump_length=2, resamplings=2),
        LangevinConfig(levels=3, inner_steps=1, refine_steps=1),
        DpmConfig(steps=4),
    ],
    ids=["repaint", "langevin", "dpm"],
)
def test_watching_changes_nothing_and_sees_every_evaluation(
    sampler: SamplerConfig, checkpoint: Path, known_checkpoint: Path
) -> None:
    folder = str(known_checkpoint if sampler.name == "dpm" else checkpoint)
    rng = np.random.default_rng(0)
    keep = np.zeros((32, 32), np.bool_)
    keep[:, :20] = True
    image = np.where(keep, rng.integers(0, 256, (32, 32)), 0).astype(np.uint8)
    engine = EngineConfig(device="cpu", precision="fp32")
    subject = Subject("one", Sample(image, keep, image, 0.0), 1.0, 77, sampler, folder, engine)
    steps, painted = walk(subject, lambda _: None)
    plain = open_local(folder, sampler, EngineConfig(device="cpu", precision="fp32",
                       batch_size=1), lambda _: None)  # fmt: skip
    expected = plain.paint([Canvas("one", 77, image, keep)])[0]
    np.testing.assert_array_equal(painted, expected)
    assert len(steps) == plain.sampler.nfe
    assert steps[0].sigma > steps[-1].sigma
    np.testing.assert_array_equal(steps[-1].estimate[keep], image[keep])
    seen_clean = all(np.array_equal(step.noisy[keep], image[keep]) for step in steps)
    assert seen_clean == (sampler.name == "dpm")
