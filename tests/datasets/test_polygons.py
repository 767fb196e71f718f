"""Which pixels a polygon holds, and files that cannot be read as polygons."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contourpy import contour_generator

from echogen.datasets import polygons
from echogen.datasets.polygons import (
    Drawing,
    Outline,
    coco_drawings,
    drawing_of,
    read_coco,
    read_labelme,
)
from echogen.errors import DatasetError
from echogen.phantom import make_frame
from tests.support.pictures import save_json


def test_the_outline_of_a_label_is_filled_by_the_label() -> None:
    label = make_frame(3, "4CH", "ED", spacing_mm=(0.6, 0.6)).label
    for one in (1, 3):
        mask = label == one
        contour = max(contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5), key=len)
        corners = tuple((contour - 1 + 0.5).ravel().tolist())  # from pixel centres to corners
        np.testing.assert_array_equal(Outline("x", (corners,)).fill(mask.shape), mask)


@pytest.mark.parametrize(
    ("corners", "pixels"),
    [
        ((0, 0, 2, 0, 2, 2, 0, 2), [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((0.6, 0.6, 2, 0.6, 2, 2, 0.6, 2), [(1, 1)]),
        ((0.4, 0.4, 1.4, 0.4, 1.4, 1.4, 0.4, 1.4), [(0, 0)]),
        ((-9, -9, 90, -9, 90, 1, -9, 1), [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ((-9, -9, -1, -9, -1, -1), []),
    ],
)
def test_a_pixel_belongs_where_its_centre_does(
    corners: tuple[float, ...], pixels: list[tuple[int, int]]
) -> None:
    filled = Outline("x", (corners,)).fill((3, 4))
    assert [tuple(at) for at in np.argwhere(filled).tolist()] == pixels


def test_parts_are_one_region_and_a_drawing_is_text() -> None:
    parts = ((0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0), (2.0, 2.0, 3.0, 2.0, 3.0, 3.0, 2.0, 3.0))
    drawing = Drawing((3, 3), (Outline("LV", parts), Outline("müde", parts[:1])))
    assert drawing_of(drawing.text()) == drawing
    assert drawing.outlines[0].fill((3, 3)).sum() == 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": [[10**400, 1], [2, 3], [4, 5]]}, "is not valid JSON .a number of 401 digits"),
        ({"points": [[1e999, 1], [2, 3], [4, 5]]}, "shape 0: expected the x and y of 3 corners"),
        ({"points": [[10**18, 1], [2, 3], [4, 5]]}, "shape 0: a corner lies outside"),
        ({"shape_type": ["polygon"]}, "shape 0 is a .*; expected a polygon"),
    ],
)
def test_a_shape_of_the_wrong_type_is_told(
    tmp_path: Path, shape: dict[str, Any], message: str
) -> None:
    path = save_json(tmp_path / "a.json", {"shapes": [{"label": "LV", **shape}]})
    with pytest.raises(DatasetError, match=f"a.json: {message}"):
        read_labelme(tmp_path, path)


@pytest.mark.parametrize("category", [[1], {"id": 1}, None, 2])
def test_a_category_of_the_wrong_type_is_told(category: object) -> None:
    content = {
        "images": [{"id": 0, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "LV"}],
        "annotations": [{"image_id": 0, "category_id": category}],
    }
    ((file, reason),) = coco_drawings(content, "x.json")
    assert file == "a.png"
    assert "is not among the categories" in str(reason)


SQUARE = [[1, 1], [3, 1], [3, 3], [1, 3]]


def a_labelme(root: Path, **more: Any) -> Path:
    shape = {"label": "LV", "points": SQUARE, "score": float("nan")}
    path = root / "a.json"
    path.write_text(json.dumps({"shapes": [shape], "imageHeight": 5, "imageWidth": 5, **more}))
    return path


def a_coco(root: Path, polygon: list[float]) -> Path:
    drawn = {"image_id": 1, "category_id": 1, "segmentation": [polygon], "score": float("nan")}
    found = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "LV"}],
        "annotations": [drawn],
    }
    path = root / "coco.json"
    path.write_text(json.dumps(found))
    return path


def test_nan_where_nothing_is_read_is_none(tmp_path: Path) -> None:
    flat = [float(value) for point in SQUARE for value in point]
    assert read_labelme(tmp_path, a_labelme(tmp_path)).outlines[0].parts == (tuple(flat),)
    images = {"a": tmp_path / "a.png"}
    drawn, lost, _ = read_coco(tmp_path, [a_coco(tmp_path, flat)], images)
    assert (list(drawn), lost) == (["a"], {})
    drawn, lost, _ = read_coco(tmp_path, [a_coco(tmp_path, [*flat[:-1], float("nan")])], images)
    assert not drawn
    assert "expected the x and y of 3 corners" in lost["a"]


def test_a_table_that_is_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"a": tmp_path / "a.png"}
    table = a_coco(tmp_path, [1, 1, 3, 1, 3, 3])
    with table.open("ab") as file:
        file.write(b" " * 2**25)
    assert list(read_coco(tmp_path, [table], images)[0]) == ["a"]
    monkeypatch.setattr(polygons, "MOST_TABLE_BYTES", 100)
    monkeypatch.setattr(polygons, "MOST_BYTES", 100)
    for read in (
        lambda: read_coco(tmp_path, [table], images),
        lambda: read_labelme(tmp_path, a_labelme(tmp_path)),
    ):
        with pytest.raises(DatasetError, match=r"json: too large"):
            read()
