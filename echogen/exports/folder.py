"""`--to folder`: `images/X.png` with `labels/X.png`, labels as raw class ids.

echogen's own reader `folder` and EchoGAINS read it back. PNG files carry no spacing: it is in
`samples.csv`.
"""

from echogen.exports.naming import sample_names
from echogen.exports.selection import Excerpt
from echogen.exports.writing import FilePlan, SampleFiles

LAYOUT = (
    "`images/X.png` are grey levels, `labels/X.png` class ids as they are in the store (255: to be "
    "ignored). PNG files carry no millimetres: see the columns `spacing_mm_row` and "
    "`spacing_mm_col` of the table."
)
IMAGES_ONLY = "`images/X.png` are generated images; they have no labels."


def plan_folder(excerpt: Excerpt) -> FilePlan:
    """Which file holds which sample; generated images come without labels."""
    labelled = excerpt.kind != "generated"
    items = tuple(
        SampleFiles(
            row=int(row),
            name=name,
            image=f"images/{name}.png",
            label=f"labels/{name}.png" if labelled else "",
            sha256=str(digest),
            spacing_mm=(1.0, 1.0),
        )
        for row, name, digest in zip(
            excerpt.rows, sample_names(excerpt.columns), excerpt.columns["sha256"], strict=True
        )
    )
    return FilePlan(items, "png", layout=LAYOUT if labelled else IMAGES_ONLY)
