"""Label files of many kinds: what they mean is told, or asked for with the line that answers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echogen.config import DatasetConfig
from echogen.datasets.advice import advised
from echogen.errors import DatasetError, UsageError
from tests.support.pictures import (
    SIDE,
    corners,
    heart,
    opened,
    save,
    save_json,
    speckle,
)

COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images, no label."""
    for seed, name in enumerate("abc"):
        save(tmp_path / "images" / f"{name}.png", speckle(seed))
    return tmp_path


def label(root: Path, array: np.ndarray, ending: str = ".png", **options: object) -> None:
    for name in "abc":
        save(root / "labels" / f"{name}{ending}", array, **options)


def refused(root: Path, **settings: object) -> str:
    with pytest.raises((DatasetError, UsageError)) as caught:
        opened(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(root: Path, **settings: object) -> np.ndarray:
    dataset = opened(root, **settings)
    return dataset.read(dataset.keys[0]).label


def pasted(message: str) -> dict[str, object]:
    """The setting that a refusal names, read as a file of settings would be."""
    import tomllib

    line = advised(message)
    assert line, message
    return dict(DatasetConfig(**tomllib.loads(line)).model_dump(include=set(tomllib.loads(line))))


def in_colours() -> np.ndarray:
    picture = np.zeros((*SIDE, 3), np.uint8)
    for one, colour in COLOURS.items():
        picture[heart() == one] = colour
    return picture


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".jpg"])
def test_black_and_white_is_one_class_and_said(root: Path, ending: str) -> None:
    mask = np.where(heart() == 1, np.uint8(255), np.uint8(0))
    label(root, mask, ending)
    dataset = opened(root)
    assert "labels as 0/255 of one class 'LV cavity'" in dataset.describe()
    assert dataset.provenance.labels == {0: "background", 1: "LV cavity"}
    agreed = (read(root) == (heart() == 1)).mean()
    assert agreed == 1 if ending != ".jpg" else agreed > 0.98
    atrium = opened(root, labels={3: "left atrium"})
    assert "one class 'left atrium'" in atrium.describe()
    assert set(np.unique(atrium.read(atrium.keys[0]).label)) == {0, 3}


def test_a_frame_with_two_label_files_is_left_out(root: Path) -> None:
    label(root, heart())
    save(root / "masks" / "b.png", heart())
    save(root / "labels" / "LV" / "c.png", heart())
    save(root / "images" / "a.jpg", speckle(7))
    dataset = opened(root)
    assert [key.frame_id for key in dataset.keys] == ["a", "c"]
    assert dataset.keys[0].paths[0].name == "a.png"
    (problem,) = dataset.problems()
    assert problem.reason == "two label files: labels/b.png and masks/b.png; keep one."
    assert any("1 label file of another kind, such as labels/LV/c.png" in n for n in dataset.notes)


def test_black_and_white_of_one_bit(root: Path) -> None:
    for name in "abc":
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(heart() == 1).save(root / "labels" / f"{name}.png")
    np.testing.assert_array_equal(read(root), heart() == 1)


def test_white_that_could_be_several_classes_is_asked_for(root: Path) -> None:
    label(root, np.where(heart() == 1, np.uint8(255), np.uint8(0)))
    message = refused(root, labels={1: "LV cavity", 2: "myocardium"})
    assert pasted(message) == {"label_map": {"255": 1}}
    both = read(root, labels={1: "LV cavity", 2: "myocardium"}, label_map={"255": 2})
    np.testing.assert_array_equal(both, 2 * (heart() == 1))


def test_white_in_some_files_and_more_in_others_is_not_guessed(root: Path) -> None:
    label(root, np.where(heart() == 1, np.uint8(255), np.uint8(0)))
    save(root / "labels" / "b.png", heart() * 85)
    assert pasted(refused(root)) == {"label_map": {"85": 1, "170": 2, "255": 3}}


def test_grey_levels_are_asked_for_and_the_answer_is_read(root: Path) -> None:
    label(root, heart() * 85)
    message = refused(root)
    assert "label files hold 85, 170, 255; the classes are 1 LV cavity" in message
    dataset = opened(root, **pasted(message))
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).label, heart())
    assert "labels as grey levels of LV cavity, myocardium, left atrium" in dataset.describe()


def test_colours_are_asked_for_and_the_answer_is_read(root: Path) -> None:
    label(root, in_colours())
    message = refused(root)
    assert pasted(message) == {"label_map": {"#0000ff": 1, "#00ff00": 2, "#ff0000": 3}}
    chosen = {"#FF0000": 1, "#00ff00": 2, "#0000ff": 3}
    np.testing.assert_array_equal(read(root, label_map=chosen), heart())
    with pytest.raises(DatasetError, match=r"labels/a.png: holds #0000ff, which no class has"):
        read(root, label_map={"#ff0000": 1, "#00ff00": 2})


def test_a_palette_holds_class_ids_or_colours(root: Path) -> None:
    picture = Image.fromarray(heart(), "P")
    picture.putpalette([0, 0, 0, *(v for one in COLOURS.values() for v in one)])
    (root / "labels").mkdir()
    for name in "abc":
        picture.save(root / "labels" / f"{name}.png")
    np.testing.assert_array_equal(read(root), heart())
    by_colour = {"#ff0000": 3, "#00ff00": 2, "#0000ff": 1}
    assert read(root, label_map=by_colour)[heart() == 1].tolist() == [3] * (heart() == 1).sum()


@pytest.mark.parametrize("place", ["labels/{}.png", "labels/LV/{}.png"])
@pytest.mark.parametrize("method", [Image.Quantize.MEDIANCUT, Image.Quantize.FASTOCTREE])
def test_a_palette_that_begins_with_white_does_not_turn_a_mask_over(
    root: Path, place: str, method: Image.Quantize
) -> None:
    mask = Image.fromarray(np.where(heart() == 1, np.uint8(255), np.uint8(0)))
    for name in "abc":
        path = root / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.convert("RGB").quantize(2, method=method).save(path)
    np.testing.assert_array_equal(read(root), heart() == 1)


def test_a_palette_whose_background_is_not_the_darkest_is_asked_for(root: Path) -> None:
    picture = Image.fromarray(np.where(heart() == 1, np.uint8(0), np.uint8(1)), "P")
    picture.putpalette([255, 0, 0, 0, 0, 0])
    (root / "labels").mkdir()
    for name in "abc":
        picture.save(root / "labels" / f"{name}.png")
    np.testing.assert_array_equal(read(root, **pasted(refused(root))), heart() == 1)


def test_more_class_ids_than_camus_has_need_names(root: Path) -> None:
    five = heart()
    five[36:38] = 4
    label(root, five)
    names = {1: "LV cavity", 2: "myocardium", 3: "left atrium", 4: "class 4"}
    message = refused(root)
    assert pasted(message) == {"labels": names}
    np.testing.assert_array_equal(read(root, **pasted(message)), five)


def test_smoothed_labels_are_no_label_map(root: Path) -> None:
    label(root, heart() * 80, ".jpg", quality=60)
    assert "not a label map, or one smoothed or stored as JPEG" in refused(root)


def test_class_ids_in_jpeg_are_refused(root: Path) -> None:
    label(root, heart(), ".jpg", quality=95)
    dataset = opened(root)
    with pytest.raises(DatasetError, match=r"a.jpg: a label stored as JPEG, which smears"):
        dataset.read(dataset.keys[0])


def test_what_is_transparent_in_a_label_is_background(root: Path) -> None:
    picture = np.dstack([in_colours(), np.where(heart() > 0, 255, 0).astype(np.uint8)])
    picture[heart() == 0, :3] = 255
    label(root, picture)
    chosen = {"#ff0000": 1, "#00ff00": 2, "#0000ff": 3}
    np.testing.assert_array_equal(read(root, label_map=chosen), heart())


def test_one_undeclared_value_in_one_file_costs_that_frame_alone(root: Path) -> None:
    label(root, heart())
    save(root / "labels" / "b.png", np.where(heart() == 1, np.uint8(77), heart()))
    dataset = opened(root)
    with pytest.raises(DatasetError, match=r"labels/b.png: class ids 77 are not declared"):
        dataset.read(dataset.keys[1])
    assert dataset.read(dataset.keys[0]).label.max() == 3


def test_a_label_map_needs_names_for_its_classes(root: Path) -> None:
    label(root, heart() * 85)
    message = refused(root, label_map={85: 1, 170: 7})
    assert pasted(message) == {"labels": {1: "LV cavity", 7: "class 7"}}
    assert "class 7 has no name in dataset.labels" in refused(
        root, labels={1: "LV"}, label_map={85: 1, 170: 7}
    )


@pytest.mark.parametrize("wrong", [{"#ff00": 1}, {"255": 255}])
def test_an_impossible_map_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"class ids lie in|six digits"):
        DatasetConfig(label_map=wrong)


@pytest.mark.parametrize("place", ["labels/{name}/{x}.png", "labels/{x}_{name}.png",
                                   "{name}_masks/{x}.png", "images/{x}_{name}.png"])  # fmt: skip
def test_one_file_a_class_wherever_it_lies(root: Path, place: str) -> None:
    for x in "abc":
        for one, name in ((1, "LV"), (2, "Myo"), (3, "LA")):
            mask = heart() == one
            if name == "Myo":
                mask |= heart() == 1  # an outer outline holds the cavity
            save(root / place.format(x=x, name=name), mask.astype(np.uint8) * 255)
    dataset = opened(root)
    assert [key.frame_id for key in dataset.keys] == ["a", "b", "c"]
    assert "one label file for each class of LV cavity, myocardium, left atrium" in (
        dataset.describe()
    )
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).label, heart())


def test_a_class_without_a_file_is_absent_from_that_frame(root: Path) -> None:
    for x in "abc":
        save(root / "labels" / "LV" / f"{x}.png", (heart() == 1).astype(np.uint8))
    save(root / "labels" / "RV" / "a.png", (heart() == 3).astype(np.uint8) * 255)
    message = refused(root)
    assert pasted(message) == {"labels": {1: "LV", 4: "RV"}}
    dataset = opened(root, **pasted(message))
    assert [len(np.unique(dataset.read(key).label)) for key in dataset.keys] == [3, 2, 2]
    assert pasted(refused(root, labels={1: "LV"})) == {"label_map": {"RV": 0}}
    alone = opened(root, labels={1: "LV"}, label_map={"RV": 0})
    assert set(np.unique(alone.read(alone.keys[0]).label)) == {0, 1}


def labelme(*shapes: tuple[str, list[list[float]]], kind: str = "polygon") -> dict[str, object]:
    drawn = [{"label": name, "points": points, "shape_type": kind} for name, points in shapes]
    return {"shapes": drawn, "imageHeight": SIDE[0], "imageWidth": SIDE[1], "imageData": None}


HEART = (
    ("LV", corners(8, 12, 20, 20)),
    ("myocardium", corners(4, 8, 20, 24)),
    ("LA", corners(24, 10, 34, 22)),
)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_polygons_of_labelme(root: Path, folder: str) -> None:
    for name in "abc":
        save_json(root / folder / f"{name}.json", labelme(*HEART))
    dataset = opened(root)
    assert "labelme polygons of LV cavity, myocardium, left atrium" in dataset.describe()
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).label, heart())
    before = dataset.fingerprint(dataset.keys[0])
    save_json(root / folder / "a.json", labelme(*HEART[:1]))
    assert dataset.fingerprint(dataset.keys[0]) != before


def test_shapes_that_are_no_outline(root: Path) -> None:
    for name in "abc":
        save_json(root / "images" / f"{name}.json", labelme(*HEART))
    save_json(root / "images" / "a.json", labelme(("LV", [[3, 3], [9, 3]]), kind="circle"))
    save_json(root / "images" / "b.json", labelme(("LV", [[1, 1]]), kind="point"))
    save_json(root / "images" / "c.json", {**labelme(*HEART), "imageWidth": 99})
    dataset = opened(root)
    for key, reason in zip(
        dataset.keys,
        ("shape 0 is a circle; expected a polygon", "all background", "polygons drawn on"),
        strict=True,
    ):
        with pytest.raises(DatasetError, match=reason):
            dataset.read(key)


def coco(file: str = "{}.png") -> dict[str, object]:
    names = [name for name, _ in HEART]
    return {
        "images": [
            {"id": i, "file_name": file.format(x), "height": SIDE[0], "width": SIDE[1]}
            for i, x in enumerate("abc")
        ],
        "categories": [{"id": i + 10, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "image_id": i,
                "category_id": 10 + j,
                "segmentation": [[v for point in points for v in point]],
            }
            for i in range(2)
            for j, (_, points) in enumerate(HEART)
        ],
    }


@pytest.mark.parametrize("file", ["{}.png", "images/{}.png", "/home/someone/set/{}.png"])
def test_polygons_of_coco(root: Path, file: str) -> None:
    save_json(root / "annotations.json", coco(file))
    dataset = opened(root)
    assert "COCO polygons of LV cavity, myocardium, left atrium: 2 frames" in dataset.describe()[
        :999
    ].replace(", cases by file name)", "")
    np.testing.assert_array_equal(dataset.read(dataset.keys[0]).label, heart())
    (lacking,) = dataset.problems()
    assert lacking.frame_id == "c"
    assert lacking.reason.endswith("c.png: no label, expected a polygon in annotations.json.")
    prints = [dataset.fingerprint(key) for key in dataset.keys]
    changed = coco(file)
    changed["annotations"] = changed["annotations"][1:]  # type: ignore[index]
    save_json(root / "annotations.json", changed)
    again = opened(root)
    assert [again.fingerprint(key) == old for key, old in zip(again.keys, prints, strict=True)] == [
        False,
        True,
    ]


def test_coco_that_cannot_be_filled_is_told_a_frame(root: Path) -> None:
    content = coco()
    content["annotations"][0]["segmentation"] = {"counts": "abc", "size": SIDE}  # type: ignore[index]
    save_json(root / "annotations.json", content)
    reasons = {problem.frame_id: problem.reason for problem in opened(root).problems()}
    assert "a.png: its LV is run-length coded; expected polygons" in reasons["a"]


def test_a_class_that_none_knows_is_told_with_its_file(root: Path) -> None:
    content = coco()
    content["categories"][2]["name"] = "lung"  # type: ignore[index]
    save_json(root / "annotations.json", content)
    assert "which class 'lung' is (in annotations.json) has to be said" in refused(root)
    assert "no class is called 'lung' (in annotations.json): give" in refused(
        root, labels={1: "LV", 2: "myocardium"}
    )
    (root / "annotations.json").unlink()
    save_json(root / "images" / "b.json", labelme(*HEART[:1], ("lung", HEART[1][1])))
    assert "'lung' is (in images/b.json) has to be said" in refused(root)


def test_a_table_that_is_neither_is_named(root: Path) -> None:
    save_json(root / "transforms.json", {"frames": []})
    assert "transforms.json is neither labelme's nor COCO's" in refused(root)


def test_a_stray_table_beside_label_files_is_not_looked_at(root: Path) -> None:
    label(root, heart())
    (root / "notes.json").write_text("{broken")
    np.testing.assert_array_equal(read(root), heart())
    for name in "abc":
        (root / "labels" / f"{name}.png").unlink()
    assert refused(root).startswith("notes.json: is not valid JSON")
