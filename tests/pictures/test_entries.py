from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from echogen.commands.expand import dry_run
from echogen.datasets import open_dataset
from echogen.geometry.transforms import TransformParams
from echogen.pictures.entries import Entry, Picture, facts_of, headings, of_plan
from echogen.planning.dataset import PlannedDataset
from echogen.types import Frame, FrameKey
from tests.support.hearts import make_config


def test_generated_pictures_are_not_called_originals() -> None:
    image = np.zeros((8, 8), np.uint8)
    entry = Entry("one", "", None, Picture(image, None, 1.0), painted=True)
    assert headings([entry]) == ("painted",)


def test_facts_name_the_move_and_how_much_it_left_empty() -> None:
    words = facts_of(TransformParams(depth=1.25, shift_x=0.1), 0.3)
    assert words == "depth ×1.25 · shift 10% right · 30% of the fan empty"


def test_each_planned_frame_is_read_once(settings: dict[str, object], dataset: Path) -> None:
    config = make_config(settings)
    plan, _ = dry_run(config)
    listing = open_dataset(dataset)
    reads: list[str] = []

    def counted(root: Path, key: FrameKey, labels: Mapping[int, str]) -> Frame:
        reads.append(key.frame_id)
        return listing.read_frame(root, key, labels)

    source = PlannedDataset(replace(listing, read_frame=counted), listing.keys, plan)
    copies = [row for row in plan.rows if row.copy == 1 and not row.rejected]
    entries = list(of_plan(source, copies))
    assert [entry.name for entry in entries] == [row.sample_id for row in copies]
    assert reads == [row.frame_id for row in copies]
