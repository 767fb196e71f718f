"""Tiny models, recipes and training runs; each function fills a folder."""

import shutil
from pathlib import Path

from tests.support.hearts import write_dataset
from tests.survival.source_stores import run_command


def write_base(folder: Path) -> None:
    """What sources share: a tiny model and a recipe."""
    from tests.conftest import save_tiny
    from tests.support import tiny_training as tiny

    folder.mkdir(parents=True)
    save_tiny(folder / "tiny", "known")
    tiny.write_recipe(folder / "recipe.toml", tiny.recipe())


def checkpoint(root: Path) -> None:
    shutil.copytree(root.parent / "base" / "tiny", root / "model")
    write_dataset(root / "data", 1)


def judge(root: Path) -> None:
    from tests.support.judges import write_judge

    write_judge(root / "judge", seen=(("patient0001",), ()))
    write_dataset(root / "data", 1)


def guided(root: Path) -> None:
    import torch

    from tests.support.guided_network import random_state

    torch.manual_seed(0)
    torch.save(random_state((32,)), root / "model.pt")


CARD = """[[model]]
name = "mine"
kind = "guided"
what_for = "tests"
architecture = "small"
training_data = "none"
licence = "CC0-1.0"
citation = "none"
repo = "owner/name"
file = "model.pt"
revision = "abc"
sha256 = ""
size = 100
image_size = 64

[model.guided]
noise_schedule = "linear"
steps = 1000
num_heads = 4
"""


def cards(root: Path) -> None:
    (root / "home").mkdir()
    (root / "home" / "models.toml").write_text(CARD)


def recipe(root: Path) -> None:
    from tests.support import tiny_training as tiny

    tiny.write_recipe(root / "recipe.toml", tiny.recipe())
    tiny.write_frames(root / "frames", tiny.tiny_frames())
    from echogen.training.frames import pack_frames

    pack_frames(root / "frames", root / "frames.zip")


TRAIN = (
    "train --out run --config recipe.toml --steps {steps} --device cpu --precision fp32 "
    "--evaluations 1 --hold-out 2 --samples 1 --sample-steps 2 --inpainted 0 "
    "--border-images 0 --compared 0 --log-every 1 --workers 1 "
)


def run(root: Path) -> None:
    recipe(root)
    run_command(root, TRAIN.format(steps=2) + "--frames frames.zip --stop-after 0.000001")


def finished_run(root: Path) -> None:
    recipe(root)
    run_command(root, TRAIN.format(steps=2) + "--frames frames")
    shutil.copytree(root / "frames", root / "run" / "frames")
