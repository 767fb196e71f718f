"""Draws the figures in docs/images, of simulated frames alone.

    python docs/make_figure.py [overview] [phantoms] [schedules]

overview.png: a sheet of original, moved, painted, with the moved mask. schedules.png: the same
moved frames painted with RePaint schedules of growing length, the published one last (minutes on
two cores). The built-in model's card gets phantoms.png: frames with the hole of a move hidden, and
painted.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from echogen.config import AugmentationConfig, EngineConfig
from echogen.datasets import open_frames
from echogen.diffusion.checkpoint import read_info
from echogen.models.resolve import load_with_model
from echogen.painting.devices import open_engine
from echogen.painting.engine import Canvas
from echogen.pictures.colours import MISSING, colours_of
from echogen.pictures.entries import Entry, Picture, facts_of, headings, legend
from echogen.pictures.files import save_png
from echogen.pictures.sheet import Line, Sheet, draw
from echogen.planning.dataset import PlannedDataset, plan_dataset
from echogen.planning.plan import Row
from echogen.report import Quiet
from echogen.types import Sample

Rgb = npt.NDArray[np.uint8]

HERE = Path(__file__).parent
SAMPLE_DATA = HERE.parent / "sample_data" / "camus"
BUILTIN = HERE.parent / "echogen" / "models" / "builtin"
UNCONDITIONAL = str(HERE.parent / "benchmarks" / "checkpoints" / "unconditional")
SHOWN = ("patient0002_2CH_ED_copy2", "patient0005_4CH_ED_copy2", "patient0006_2CH_ED_copy4")
SCHEDULES = ((10, 1, 1), (25, 5, 3), (25, 5, 5), (100, 10, 1), (250, 10, 10))


GAP = 4  # pixels between pictures


def grey(image: npt.NDArray[np.uint8]) -> Rgb:
    """(H, W) grey levels as (H, W, 3)."""
    return np.repeat(image[..., None], 3, axis=2)


def join(pictures: list[Rgb], axis: int) -> Rgb:
    """Pictures of one size in a row (axis 1) or a column (axis 0), with white gaps."""
    spaced: list[Rgb] = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[axis] = GAP
        spaced += [picture, np.full(shape, 255, np.uint8)]
    return np.concatenate(spaced[:-1], axis=axis)


def configuration(**settings: Any) -> AugmentationConfig:
    cases = sorted({name.partition("_")[0] for name in SHOWN})
    return load_with_model(AugmentationConfig, {"dataset": {"cases": cases}, **settings})[0]


def repaint(steps: int, jump_length: int, resamplings: int) -> dict[str, Any]:
    walk = {"steps": steps, "jump_length": jump_length, "resamplings": resamplings}
    return {"name": "repaint", **walk}


def rows_of(source: PlannedDataset, names: list[str]) -> list[Row]:
    return [row for row in source.plan.rows if row.sample_id in names]


def rendered(source: PlannedDataset, rows: list[Row]) -> list[Sample]:
    return [item for item in source.render(rows) if isinstance(item, Sample)]


def paint(config: AugmentationConfig, rows: list[Row], samples: list[Sample]) -> list[Sample]:
    engine = open_engine(config.checkpoint, config.sampler, EngineConfig(), Quiet().tell)
    canvases = [
        Canvas(row.sample_id, row.seed, sample.image, sample.keep)
        for row, sample in zip(rows, samples, strict=True)
    ]
    return [
        dataclasses.replace(sample, image=image)
        for sample, image in zip(samples, engine.run(canvases), strict=True)
        if image is not None
    ]


def moved(sample: Sample) -> Rgb:
    picture = grey(sample.image)
    picture[~sample.keep] = MISSING
    return picture


def hidden(whole: Sample, copy: Sample) -> Sample:
    """The unmoved frame, with what the move would leave empty hidden."""
    image = np.where(copy.keep, whole.image, np.uint8(0))
    return dataclasses.replace(copy, image=image, label=whole.label)


def card_figure(
    wholes: list[Sample], rows: list[Row], copies: list[Sample], config: AugmentationConfig
) -> Rgb:
    """One column a frame: the frame, what was hidden of it, what was painted instead."""
    holed = [hidden(whole, copy) for whole, copy in zip(wholes, copies, strict=True)]
    columns = [
        join([grey(whole.image), moved(sample), grey(sample.image)], axis=0)
        for whole, sample in zip(wholes, paint(config, rows, holed), strict=True)
    ]
    return join(columns, axis=1)


def entry(row: Row, before: Sample, after: Sample, source: PlannedDataset) -> Entry:
    grid = source.plan.grid_of(source.frames[row.frame_id])
    aspect = grid.spacing_mm[1] / grid.spacing_mm[0]
    return Entry(
        row.sample_id,
        facts_of(row.params, float((~after.keep).mean())).rpartition(" · ")[0],
        Picture(before.image, before.label, aspect),
        Picture(after.image, after.label, aspect),
        ~after.keep,
        painted=True,
        colours=colours_of(source.dataset.provenance.labels),
    )


def overview(
    rows: list[Row], befores: list[Sample], afters: list[Sample], source: PlannedDataset
) -> Image.Image:
    """A sheet as `echogen preview` draws it."""
    entries = [entry(*parts, source) for parts in zip(rows, befores, afters, strict=True)]
    names = headings(entries)
    lines = tuple(Line(one.panels(names, 220), one.name, one.facts) for one in entries)
    sheet = Sheet(
        title="camus_aug.zarr",
        subtitle=("simulated frames of the sample data, painted by the built-in model",),
        headings=names,
        lines=lines,
        legend=legend(entries, source.dataset.provenance.labels),
        footer=(),
        columns=1,
    )
    return draw(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", default=["overview", "phantoms", "schedules"])
    wanted = parser.parse_args().figures
    config = configuration()
    frames = open_frames(SAMPLE_DATA, config.dataset)
    source = plan_dataset(*frames, config, read_info("builtin"), Quiet())
    rows = rows_of(source, list(SHOWN))
    copies = rendered(source, rows)
    before = rendered(source, rows_of(source, [name[:-1] + "0" for name in SHOWN]))
    after = paint(config, rows, copies)
    if "overview" in wanted:
        save_png(overview(rows, before, after, source), HERE / "images" / "overview.png")
    if "phantoms" in wanted:
        figure = Image.fromarray(card_figure(before, rows, copies, config))
        save_png(figure, BUILTIN / "phantoms.png")
    if "schedules" in wanted:
        columns = [join([moved(sample) for sample in after], axis=0)]
        for schedule in SCHEDULES:
            other = configuration(sampler=repaint(*schedule), checkpoint=UNCONDITIONAL)
            samples = paint(other, rows, copies)
            columns.append(join([grey(sample.image) for sample in samples], axis=0))
        save_png(Image.fromarray(join(columns, axis=1)), HERE / "images" / "schedules.png")


if __name__ == "__main__":
    main()
