"""Labels drawn as polygons: labelme's JSON, one file an image, and COCO's, one file for many.

Corners are (x, y) in pixels from the image's outer corner, so that the first pixel's centre is at
(0.5, 0.5). A pixel belongs to a polygon where its centre lies in it or on its edge.

Sources: https://github.com/wkentaro/labelme, https://cocodataset.org/#format-data.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echogen.datasets.base import LONGEST_ID, relative
from echogen.datasets.tracings import fill_polygon
from echogen.errors import DatasetError
from echogen.support.reading import read_json, reason
from echogen.support.words import one_line

FARTHEST = 1e5
MOST_BYTES = 2**25
"""Of labelme's file of one image, with the picture in it."""
MOST_TABLE_BYTES = 2**28
"""Of COCO's table of many images; it takes less than 2 GB of memory."""
PER_PIXEL = 64  # corners are rounded to this part of a pixel
MARKS = frozenset({"point", "points", "line", "linestrip"})

Corners = tuple[float, ...]


@dataclass(frozen=True)
class Outline:
    """One drawn region.

    Attributes:
        name: of its class.
        parts: each a polygon, x, y, x, y, ...; together they are the region.
    """

    name: str
    parts: tuple[Corners, ...]

    def fill(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(H, W) True in any of its parts."""
        inside = np.zeros(shape, np.bool_)
        for part in self.parts:
            points = np.array(part).reshape(-1, 2)[:, ::-1] - 0.5
            inside |= fill_polygon(np.rint(points * PER_PIXEL), shape, PER_PIXEL)
        return inside


@dataclass(frozen=True)
class Drawing:
    """What is drawn on one image of (rows, cols), where that is told."""

    size: tuple[int, int] | None
    outlines: tuple[Outline, ...]

    def text(self) -> str:
        """All of it on one line: what `drawing_of` reads."""
        outlines = [[one.name, [list(part) for part in one.parts]] for one in self.outlines]
        return json.dumps([self.size, outlines], separators=(",", ":"))


def drawing_of(text: str) -> Drawing:
    """The inverse of `Drawing.text`."""
    size, outlines = json.loads(text)
    return Drawing(
        None if size is None else (size[0], size[1]),
        tuple(Outline(name, tuple(map(tuple, parts))) for name, parts in outlines),
    )


def load_json(path: Path, name: str, most: int) -> Any:
    """What a JSON file of at most so many bytes holds, NaN and infinity as None.

    Raises:
        DatasetError: it cannot be read as such.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise DatasetError(f"{name}: too large, {size:,} bytes; expected at most {most:,}.")
        return read_json(path, DatasetError, name, most=most, foreign=True)
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({reason(error)}).") from error


def read_labelme(root: Path, path: Path) -> Drawing:
    """What a file of labelme draws; points and lines are left out.

    Raises:
        DatasetError: it is none, or draws a shape that is no polygon.
    """
    name = relative(root, path)
    content = load_json(path, name, MOST_BYTES)
    if not (isinstance(content, dict) and isinstance(content.get("shapes"), list)):
        raise DatasetError(f"{name}: expected labelme's list of shapes, found none.")
    outlines = []
    for number, shape in enumerate(content["shapes"]):
        kind = shape.get("shape_type", "polygon") if isinstance(shape, dict) else "none"
        if isinstance(kind, str) and kind in MARKS:
            continue
        if kind != "polygon":
            raise DatasetError(
                f"{name}: shape {number} is a {one_line(kind, 40)}; expected a polygon, draw its "
                "outline."
            )
        points = shape.get("points")
        flat = [v for point in points for v in point] if _is_points(points) else []
        where = f"{name}: shape {number}"
        outlines.append(Outline(_name(shape.get("label")), (_corners(flat, where),)))
    size = content.get("imageHeight"), content.get("imageWidth")
    known = all(isinstance(side, int) and side > 0 for side in size)
    return Drawing((int(size[0]), int(size[1])) if known else None, tuple(outlines))  # type: ignore[arg-type]


def _name(label: Any) -> str:
    return one_line(label, LONGEST_ID)


def _is_points(points: Any) -> bool:
    return isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 2 for point in points
    )


def _corners(values: Sequence[Any], where: str) -> Corners:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if len(values) < 6 or len(values) % 2 or not numbers:
        raise DatasetError(f"{where}: expected the x and y of 3 corners or more.")
    if not all(abs(v) <= FARTHEST for v in values):  # which NaN and infinity are not
        raise DatasetError(f"{where}: a corner lies outside of any image.")
    return tuple(float(value) for value in values)


def is_coco(content: Any) -> bool:
    """Whether a JSON file is one of COCO's for segmentation."""
    return isinstance(content, dict) and all(
        isinstance(content.get(part), list) for part in ("images", "annotations", "categories")
    )


def coco_drawings(content: Mapping[str, Any], name: str) -> Iterator[tuple[str, Drawing | str]]:
    """(file name of an image, what is drawn on it or why that cannot be read) of each image.

    Raises:
        DatasetError: images or categories lack what names them.
    """
    try:
        classes = {one["id"]: _name(one["name"]) for one in content["categories"]}
        images = {one["id"]: one for one in content["images"]}
        files = [(key, str(one["file_name"])) for key, one in images.items()]
        drawn: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            drawn[one["image_id"]].append(one)
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{name}: not COCO's format; an image, annotation or category lacks "
            f"{one_line(error, 80)}."
        ) from error
    for key, file in files:
        size = images[key].get("height"), images[key].get("width")
        known = all(isinstance(side, int) and side > 0 for side in size)
        try:
            outlines = tuple(
                _coco_outline(one, classes, f"{name}: {one_line(file)}") for one in drawn[key]
            )
            yield file, Drawing((size[0], size[1]) if known else None, outlines)
        except DatasetError as error:
            yield file, str(error)


def _coco_outline(annotation: Mapping[str, Any], classes: Mapping[Any, str], where: str) -> Outline:
    category = annotation.get("category_id")
    name = classes.get(category) if isinstance(category, (int, str)) else None
    if name is None:
        raise DatasetError(
            f"{where}: category {one_line(category, 40)!r} is not among the categories."
        )
    parts = annotation.get("segmentation")
    if isinstance(parts, dict):
        raise DatasetError(
            f"{where}: its {name} is run-length coded; expected polygons, export them as such or "
            "as one label file for each image."
        )
    if not isinstance(parts, list) or not parts:
        raise DatasetError(f"{where}: its {name} has no polygon, only a box; expected an outline.")
    flat = parts if all(isinstance(part, list) for part in parts) else [parts]
    return Outline(name, tuple(_corners(part, f"{where}: its {name}") for part in flat))


def read_coco(
    root: Path, tables: Sequence[Path], images: Mapping[str, Path]
) -> tuple[dict[str, Drawing], dict[str, str], dict[str, str]]:
    """{frame id: what a COCO file draws on it}, {frame id: why that cannot be read}, and
    {frame id: the name of the file that draws on it}.

    Args:
        root: messages name files relative to it.
        tables: JSON files; others than COCO's are passed over.
        images: {frame id: its file}.

    Raises:
        DatasetError: a table is damaged, or two of them draw on one image.
    """
    drawn: dict[str, Drawing] = {}
    lost: dict[str, str] = {}
    drawn_in: dict[str, str] = {}
    by_file: dict[str, list[str]] = {}
    for frame_id, path in images.items():
        by_file.setdefault(path.name, []).append(frame_id)
    for table in tables:
        if not table.is_file():
            continue
        name = relative(root, table)
        content = load_json(table, name, MOST_TABLE_BYTES)
        if not is_coco(content):
            continue
        for file, drawing in coco_drawings(content, name):
            frame_id = _frame_of(root, table, file, by_file, images)
            if not frame_id:
                continue
            if frame_id in drawn or frame_id in lost:
                raise DatasetError(
                    f"{name}: {one_line(file)} is drawn in {drawn_in[frame_id]} as well; keep one "
                    "of them."
                )
            drawn_in[frame_id] = name
            if isinstance(drawing, str):
                lost[frame_id] = drawing
            elif drawing.outlines:
                drawn[frame_id] = drawing
    return drawn, lost, drawn_in


def _frame_of(
    root: Path,
    table: Path,
    file: str,
    by_file: Mapping[str, Sequence[str]],
    images: Mapping[str, Path],
) -> str:
    """The frame that a table means: by its path, else by a file name that one frame alone has;
    empty where there is none.
    """
    ids = by_file.get(Path(file).name, [])
    exact = [one for one in ids if images[one] in (table.parent / file, root / file)]
    if not exact and len(ids) > 1:
        exact = [one for one in ids if images[one].is_relative_to(table.parent)]
    chosen = exact or ids
    return chosen[0] if len(chosen) == 1 else ""
