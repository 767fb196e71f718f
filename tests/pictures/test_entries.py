from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from echogen.commands.expand import dry_run
from echogen.config import DatasetConfig
from echogen.datasets import open_chosen, open_dataset
from echogen.geometry.render import frame_grid
from echogen.geometry.transforms import TransformParams, sector_on_grid
from echogen.pictures.entries import Entry, Picture, facts_of, headings, of_dataset, of_plan
from echogen.planning.dataset import PlannedDataset
from echogen.types import Frame, FrameKey
from tests.support.hearts import make_config
from tests.support.screenshots import WHITE, screenshot


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


def test_frames_that_are_cut_to_their_fans_show_nothing_that_is_written_beside(
    tmp_path: Path,
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    frame, sector = screenshot((10, 12, 14, 16))
    Image.fromarray(frame.image).save(tmp_path / "images" / "a.png")
    Image.fromarray(frame.label).save(tmp_path / "labels" / "a.png")
    row, col, left, right, near, far = sector_on_grid(sector, frame_grid(frame))[0].tolist()
    fans = tmp_path / "fans.csv"
    fans.write_text(
        "recording,rows,cols,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,"
        f"radius_far\n*,{frame.image.shape[0]},{frame.image.shape[1]},{row},{col},"
        f"{np.degrees(left)},{np.degrees(right)},{near},{far}\n"
    )
    labels = {1: "LV cavity", 3: "left atrium"}
    dataset = open_chosen(
        tmp_path, DatasetConfig(fans=fans, spacing_mm=frame.spacing_mm, labels=labels)
    )
    (whole,) = of_dataset(dataset, dataset.keys)
    (cut,) = of_dataset(dataset, dataset.keys, fields=True)
    assert isinstance(whole, Entry)
    assert isinstance(cut, Entry)
    assert whole.original is not None
    assert cut.original is not None
    assert (whole.original.image == WHITE).any()
    assert not (cut.original.image == WHITE).any()
