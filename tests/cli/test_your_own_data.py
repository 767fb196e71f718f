"""docs/your-own-data.md: each example, run as it is written on data of its kind."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from echogen.cli import app
from echogen.phantom import make_frame
from tests.support.chambers import write_videos
from tests.support.hearts import fan_frame, write_dataset
from tests.support.pictures import save, save_json

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)(?: (\S+))?\n(.*?)```", re.DOTALL)
FRAMES = {"a1": 1, "b7": 2}


def pairs(
    label_of: Callable[[np.ndarray], np.ndarray],
    image_of: Callable[[np.ndarray], np.ndarray],
    root: str,
) -> None:
    for name, seed in FRAMES.items():
        image, label = fan_frame(seed)
        save(Path(root, "images", f"{name}.png"), image_of(image))
        save(Path(root, "labels", f"{name}.png"), label_of(label))


def white(label: np.ndarray) -> np.ndarray:
    return np.where(label == 1, np.uint8(255), np.uint8(0))


def painted(label: np.ndarray) -> np.ndarray:
    return np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[label]


def same(image: np.ndarray) -> np.ndarray:
    return image


def images_and_masks() -> None:
    pairs(white, same, "pairs")
    pairs(painted, same, "painted")
    pairs(same, lambda image: image.astype(np.uint16) * 16, "deep")


def polygons() -> None:
    for name, seed in FRAMES.items():
        image, _ = fan_frame(seed)
        save(Path("drawn", f"{name}.png"), image)
        shapes = [
            {"label": "ventricle", "points": [[44, 34], [66, 34], [66, 70], [44, 70]]},
            {"label": "atrium", "points": [[44, 76], [66, 76], [66, 98], [44, 98]]},
        ]
        save_json(Path("drawn", f"{name}.json"), {"shapes": shapes})


def screenshot(image: np.ndarray) -> np.ndarray:
    """In colours, in the middle of a black screen."""
    screen = np.zeros((240, 320, 3), np.uint8)
    top, left = 30, (320 - image.shape[1]) // 2
    screen[top : top + image.shape[0], left : left + image.shape[1]] = image[..., None]
    return screen


def screens() -> None:
    for name, index in FRAMES.items():
        made = make_frame(index, "4CH", "ED", spacing_mm=(0.9, 0.9))
        screen = screenshot(made.image)
        screen[4:12, 4:90:3] = 200  # text
        screen[232:234, 20:200] = (0, 220, 0)  # an ECG
        save(Path("screens", f"{name}.png"), screen)
        save(Path("screens", f"{name}_mask.png"), screenshot(white(made.label))[..., 0])


def clip() -> None:
    for number, seed in ((1, 3), (2, 4)):
        image, label = fan_frame(seed)
        save(Path("clip", "frames", f"f{number:03d}.png"), image)
        save(Path("clip", "masks", f"f{number:03d}.png"), label)


def dicom() -> None:
    pytest.importorskip("pydicom")
    from tests.support.dicoms import an_ultrasound
    from tests.support.dicoms import save as save_dicom

    image, label = fan_frame(1)
    Path("export").mkdir()
    save_dicom(an_ultrasound(image[None]), Path("export", "IM_0001"))
    save(Path("export", "IM_0001.png"), label)


def settled() -> None:
    images_and_masks()
    (settings,) = (text for _, file, text in BLOCK.findall(PAGE) if file == "run.toml")
    Path("run.toml").write_text(settings)


def echonet() -> None:
    pytest.importorskip("av")
    from tests.datasets.test_pediatric import write_pediatric
    from tests.support import echonet as made

    write_pediatric(Path("pediatric_echo_avi"))

    root = Path("EchoNet-Dynamic")
    made.write_video(root / "Videos" / "0X1A.avi", made.pictures(1))
    made.write_table(root / "FileList.csv", [made.listed("0X1A")])
    phases = [made.traced("0X1A", made.phantom(1, p)[1], at) for p, at in made.AT.items()]
    made.write_table(root / "VolumeTracings.csv", [row for rows in phases for row in rows])


def unlabelled() -> None:
    for number in range(3):
        save(Path("unlabelled", f"p{number}", "x.png"), fan_frame(number)[0])


MADE = {
    "Images and masks": images_and_masks,
    "Say what the files do not": images_and_masks,
    "Polygons": polygons,
    "Screenshots": screens,
    "Frames of a clip": clip,
    "DICOM": dicom,
    "EchoNet": echonet,
    "CardiacUDA": lambda: write_videos(Path("cardiacUDC_dataset")),
    "CAMUS and nnU-Net": lambda: write_dataset(Path("camus")),
    "Look at the fans": images_and_masks,
    "Make the store": settled,
    "No labels": unlabelled,
}
REFUSED = {"echogen validate painted/": "label_map = {"}
"""Commands that the page says are refused, with what is printed."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> int:
    """How many commands the shell blocks of a text hold."""
    blocks = [block for language, _, block in BLOCK.findall(text) if language == "bash"]
    return sum(len(re.findall("^echogen ", block, re.MULTILINE)) for block in blocks)


@pytest.mark.parametrize("title", MADE)
def test_the_examples_of_a_section_work(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    MADE[title]()
    ran = 0
    for language, file, text in BLOCK.findall(section(title)):
        if file:
            Path(file).write_text(text)
        for line in text.splitlines() if language == "bash" else ():
            command = shlex.split(line)
            if command[0] != "echogen":
                assert command[:2] == ["pip", "install"]
                continue
            more = ["--checkpoint", str(checkpoint), "--device", "cpu"]
            done = CliRunner().invoke(app, command[1:] + more * (command[1] == "expand"))
            ran += 1
            if line in REFUSED:
                assert done.exit_code == 3
                assert REFUSED[line] in done.output
            else:
                assert done.exit_code == 0, (line, done.output, done.exception)
    assert ran == commands(section(title)) > 0


def test_every_example_is_in_a_section_that_is_run() -> None:
    assert sum(commands(section(title)) for title in MADE) == commands(PAGE) > 12


def test_the_line_that_is_shown_is_the_one_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images_and_masks()
    done = CliRunner().invoke(app, ["validate", "pairs/"])
    (shown,) = re.findall("^folder layout .*", PAGE, re.MULTILINE)
    assert shown in done.output


def test_every_setting_of_the_table_is_one() -> None:
    from echogen.config import DatasetConfig

    table = section("Say what the files do not").split("| setting |")[1]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) <= set(DatasetConfig.model_fields)
