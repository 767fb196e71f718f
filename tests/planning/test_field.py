"""Whatever lies around a scan's fan in its picture, a run makes the same samples of it."""

from pathlib import Path

import numpy as np
import pytest

from echogen.config import AugmentationConfig
from echogen.datasets import open_dataset
from echogen.datasets.fan_table import GEOMETRY, with_fans
from echogen.geometry.sector import Sector
from echogen.geometry.transforms import Grid, sector_on_grid
from echogen.planning.dataset import PlannedDataset
from echogen.planning.make import build_plan
from echogen.planning.record import columns
from echogen.training.frame_folder import prepare_frames
from echogen.training.frames import ModelGrid
from echogen.types import Frame, Sample
from tests.support.hearts import SPACING, write_nifti
from tests.support.screenshots import BRIGHTEST, WHITE, screenshot, tight_scan

MARGINS = ((0, 0, 0, 0), (17, 4, 33, 8), (60, 90, 120, 40))
CONFIG = AugmentationConfig(copies=3, seed=5)
GRID = ModelGrid(image_size=64, resize="stretch")


def written(root: Path, scans: dict[str, tuple[Frame, Sector]]) -> PlannedDataset:
    """A dataset of frames under their ids, with a table of their fans, planned."""
    lines = ["recording," + ",".join(GEOMETRY)]
    for name, (frame, fan) in scans.items():
        folder = root / name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        write_nifti(folder / f"{name}.nii.gz", frame.image)
        write_nifti(folder / f"{name}_gt.nii.gz", frame.label)
        values, _ = sector_on_grid(fan, Grid((1, 1), SPACING))
        row, col, left, right, near, far = (float(value) for value in values)
        degrees = np.degrees([left, right])
        lines.append(f"{name},{row:.6f},{col:.6f},{degrees[0]},{degrees[1]},{near},{far}")
    table = root / "fans.csv"
    table.write_text("\n".join(lines))
    dataset = with_fans(open_dataset(root), table)
    plan = build_plan(dataset, dataset.keys, CONFIG, (GRID.image_size, GRID.resize), 1)
    return PlannedDataset(dataset, dataset.keys, plan)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> list[PlannedDataset]:
    """Two frames, cropped and as two kinds of screenshots."""
    made = []
    for margins in MARGINS:
        scans = {
            f"patient000{n}_4CH_ED": screenshot(margins, n) if any(margins) else tight_scan(n)
            for n in (1, 2)
        }
        made.append(written(tmp_path_factory.mktemp("scans"), scans))
    return made


def test_moves_spacing_and_fans_are_the_same_and_the_crop_is_recorded(
    planned: list[PlannedDataset],
) -> None:
    tight, *screens = (columns(source.plan) for source in planned)
    height, width = tight["crop"][0, 2:]
    for margins, columns_there in zip(MARGINS[1:], screens, strict=True):
        for name, there in columns_there.items():
            if name == "crop":
                expected = np.add([0, 0, height, width], [margins[0], margins[2]] * 2)
                np.testing.assert_array_equal(there, np.tile(expected, (8, 1)))
            elif there.dtype.kind == "f":
                np.testing.assert_allclose(there, tight[name], rtol=1e-4, atol=1e-4)
            else:
                np.testing.assert_array_equal(there, tight[name])
    assert (tight["tries"][tight["copy"] > 0] > 0).all()


def test_rendered_samples_are_the_same_and_hold_no_letter(planned: list[PlannedDataset]) -> None:
    tight, *screens = (list(source.render(source.plan.rows)) for source in planned)
    for source in planned[1:]:
        image = source.dataset.read(source.keys[0]).image
        assert (image == WHITE).sum() > 1000
    for there in screens:
        for a, b in zip(there, tight, strict=True):
            assert isinstance(a, Sample)
            assert isinstance(b, Sample)
            assert a.image.max() < BRIGHTEST
            # the table's rounded numbers may put a pixel on the other side of an edge
            assert (a.keep != b.keep).mean() < 0.002
            assert (a.label != b.label).mean() < 0.002
            same = a.keep == b.keep
            assert (np.abs(a.image.astype(int) - b.image)[same] > 1).mean() < 0.002


def test_what_a_model_learns_of_a_screenshot_is_what_it_learns_of_the_scan(
    planned: list[PlannedDataset],
) -> None:
    tight, *screens = (
        prepare_frames(source.dataset, source.keys, GRID, workers=1).pixels for source in planned
    )
    originals = [
        sample.image
        for row, sample in zip(
            planned[0].plan.rows, planned[0].render(planned[0].plan.rows), strict=True
        )
        if row.copy == 0 and isinstance(sample, Sample)
    ]
    np.testing.assert_array_equal(tight, originals)
    for there in screens:
        assert (np.abs(there.astype(int) - tight) > 1).mean() < 0.002
