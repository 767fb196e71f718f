"""A tiny valid sample of everything that echogen reads, and the commands that read it deepest."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.support.hearts import FAN, SHAPE, SPACING, fan_frame, write_dataset, write_nifti

QUICK = (
    "--copies 1 --no-judge --device cpu --checkpoint {tiny} --sampler dpm --set sampler.steps=2 "
    "--set engine.workers=1 --set engine.precision=fp32"
)
DATA_COMMANDS = (
    "validate data --workers 1",
    "validate data --json --workers 1",
    "expand --in data --out out.zarr --dry-run " + QUICK,
    "expand --in data --out out.zarr --labels-on-paint keep " + QUICK,
    "stats data --workers 1",
    "preview data --out sheet.png --n 2",
    "preview data --fans --out sheet.png",
    "train --in data --out run --pack frames.zip --config {recipe} --workers 1",
)
STORE_COMMANDS = (
    "validate {store} --workers 1",
    "validate {store} --json --workers 1",
    "validate {store} --repair --workers 1",
    "stats {store} --workers 1",
    "preview {store} --out sheet.png --n 2",
    "export {store} --to folder --out files --workers 1",
    "export {store} --to h5 --out part.h5 --workers 1",
    "export {store} --to nnunet --out nn --workers 1",
)
SPECKLED = [fan_frame(seed, 88.0 - seed) for seed in range(4)]


@dataclass(frozen=True)
class Source:
    """Something that is read.

    Attributes:
        name: of the source.
        make: fills a folder.
        commands: run in that folder; each exits with 0 where nothing is changed.
        files: patterns of the files that are changed.
        names: patterns of what names any of them in a message, beside their own names.
        env: of the environment; `{here}` is the folder.
    """

    name: str
    make: Callable[[Path], object]
    commands: tuple[str, ...] = DATA_COMMANDS
    files: tuple[str, ...] = ("data/**/*",)
    names: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


# Datasets


def camus(root: Path) -> None:
    from tests.support.chambers import write_volume

    write_dataset(root / "data", 2)
    folder = root / "data" / "patient0001"
    for tail, part in (("", 0), ("_gt", 1)):
        planes = np.stack([frame[part] for frame in SPECKLED])
        write_volume(folder / f"patient0001_4CH_half_sequence{tail}.nii.gz", planes)
    (folder / "Info_4CH.cfg").write_text("ED: 1\nES: 4\nNbFrame: 4\nSex: F\nAge: 56\nEF: 52\n")
    splits = root / "data" / "database_split"
    splits.mkdir()
    (splits / "subgroup_training.txt").write_text("patient0001\n")
    (splits / "subgroup_testing.txt").write_text("patient0002\n")


def metaimages(root: Path) -> None:
    import SimpleITK

    folder = root / "data" / "patient0001"
    folder.mkdir(parents=True)
    for name, seed in (("ED", 0), ("ES", 1)):
        for tail, plane in zip(("", "_gt"), SPECKLED[seed], strict=True):
            image = SimpleITK.GetImageFromArray(plane)
            image.SetSpacing((SPACING[1], SPACING[0]))
            path = folder / f"patient0001_4CH_{name}{tail}.mhd"
            SimpleITK.WriteImage(image, str(path), useCompression=name == "ED")


def folder_of(image_ending: str, label_ending: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        import SimpleITK
        from PIL import Image

        for number in range(2):
            for kind, ending, array in zip(
                ("images", "labels"), (image_ending, label_ending), SPECKLED[number], strict=True
            ):
                path = root / "data" / kind / f"heart{number}_4CH_ED{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if ending in (".nii", ".nii.gz", ".mha"):
                    image = SimpleITK.GetImageFromArray(array)
                    image.SetSpacing((0.9, 1.0))
                    SimpleITK.WriteImage(image, str(path))
                else:
                    Image.fromarray(array).save(path)
        (root / "data" / "classes.csv").write_text(
            "class_id,name\n0,background\n1,LV cavity\n2,myocardium\n3,left atrium\n"
        )
        (root / "data" / "cases.csv").write_text(
            "frame,case,view,phase,split,recording,spacing_mm\n"
            "heart0_4CH_ED,one,4CH,ED,train,r1,0.9\nheart1_4CH_ED,two,4CH,ED,test,r2,0.9\n"
        )

    return make


def labelme(root: Path) -> None:
    from tests.support.pictures import corners, save, save_json

    for number in range(2):
        name = f"heart{number}_4CH_ED"
        save(root / "data" / f"{name}.png", SPECKLED[number][0])
        shapes = [
            {"label": "LV cavity", "points": corners(28, 40, 76, 60), "shape_type": "polygon"},
            {"label": "left atrium", "points": corners(80, 40, 90, 60), "shape_type": "polygon"},
        ]
        save_json(
            root / "data" / f"{name}.json",
            {"version": "5.0", "imagePath": f"{name}.png", "imageData": None,
             "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "shapes": shapes},
        )  # fmt: skip


def coco(root: Path) -> None:
    from tests.support.pictures import corners, save, save_json

    names = [f"heart{number}_4CH_ED.png" for number in range(2)]
    for number, name in enumerate(names):
        save(root / "data" / "images" / name, SPECKLED[number][0])
    polygon = [value for corner in corners(28, 40, 76, 60) for value in corner]
    save_json(
        root / "data" / "annotations.json",
        {
            "images": [
                {"id": i, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]}
                for i, name in enumerate(names)
            ],
            "categories": [{"id": 1, "name": "LV cavity"}, {"id": 2, "name": "left atrium"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "segmentation": [polygon], "iscrowd": 0}
                for i in range(2)
            ],
        },
    )


def nnunet(root: Path) -> None:
    data = root / "data"
    names = [f"patient000{number}_4CH_ED" for number in (1, 2)]
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for number, name in enumerate(names):
        write_nifti(data / "imagesTr" / f"{name}_0000.nii.gz", SPECKLED[number][0])
        write_nifti(data / "labelsTr" / f"{name}.nii.gz", SPECKLED[number][1])
    labels = {"background": 0, "LV cavity": 1, "myocardium": 2, "left atrium": 3}
    (data / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "ultrasound"}, "labels": labels, "numTraining": 2,
        "file_ending": ".nii.gz", "name": "hearts", "licence": "own",
    }))  # fmt: skip
    splits = [{"train": [names[0]], "val": [names[1]]}, {"train": [names[1]], "val": [names[0]]}]
    (data / "splits_final.json").write_text(json.dumps(splits))


def exported(to: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        expanded(".h5")(root)
        (root / "data").rename(root / "original")
        _command(root, f"export made.h5 --to {to} --out files --workers 1")
        (next((root / "files").glob("Dataset*"), root / "files")).rename(root / "data")

    return make


def echonet(root: Path) -> None:
    from tests.support.echonet import (
        AT,
        PHASES,
        listed,
        phantom,
        pictures,
        traced,
        write_table,
        write_video,
    )

    videos = {"0X1A": 1, "0X2B": 1}
    for video, index in videos.items():
        write_video(root / "data" / "Videos" / f"{video}.avi", pictures(index))
    write_table(root / "data" / "FileList.csv", [listed(video) for video in videos])
    rows = [
        row
        for video, index in videos.items()
        for phase in PHASES
        for row in traced(video, phantom(index, phase)[1], AT[phase])
    ]
    write_table(root / "data" / "VolumeTracings.csv", rows)


def pediatric(root: Path) -> None:
    from tests.datasets.test_pediatric import write_pediatric

    write_pediatric(root / "data")


def cardiacuda(root: Path) -> None:
    from tests.support.chambers import write_videos

    write_videos(root / "data", 2, 4, (1, 2))


def dicom(root: Path) -> None:
    from PIL import Image

    from tests.support.dicoms import a_region, a_segmentation, an_ultrasound, as_jpeg, save

    data = root / "data"
    clip, labels = (np.stack(arrays) for arrays in zip(*SPECKLED, strict=True))
    region = [a_region((0, 0, SHAPE[0] - 1, SHAPE[1] - 1))]
    save(an_ultrasound(clip[:1], regions=region, instance="1.1"), data / "still.dcm")
    save(an_ultrasound(clip, regions=region, instance="1.2", patient="12"), data / "clip.dcm")
    colours = np.repeat(clip[:1, ..., None], 3, axis=3)
    packed = as_jpeg(an_ultrasound(colours, "RGB", regions=region, instance="1.3"), colours)
    save(packed, data / "jpeg.dcm")
    for name in ("still", "jpeg"):
        Image.fromarray(labels[0]).save(data / f"{name}.png")
    masks = [(labels[0] == one).astype(np.uint8) for one in (1, 2, 3)]
    of = [(number, "1.2", 1) for number in (1, 2, 3)]
    save(a_segmentation(masks, of), data / "seg.dcm")
    (data / "salt.txt").write_text("a secret of more than sixteen letters\n")


def with_fans(root: Path) -> None:
    write_dataset(root / "data", 2)
    head = ("recording,rows,cols,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,"
            "radius_far,confidence,how,reason\n")  # fmt: skip
    values = f"{FAN.apex_row - 0.5},{FAN.apex_col / 0.9 - 0.5},-35.5,37.8,3,114,0.9,fitted,"
    (root / "fans.csv").write_text(
        head + "".join(f"patient000{n}/4CH,{SHAPE[0]},{SHAPE[1]},{values}\n" for n in (1, 2))
    )


# Settings and plans


def settings(root: Path) -> None:
    write_dataset(root / "data", 1)
    (root / "settings.toml").write_text(
        'copies = 1\nseed = 3\njudge = "none"\n\n[dataset]\nformat = "camus"\nviews = ["4CH"]\n'
        "spacing_mm = [1.0, 0.9]\nwindow = [0, 255]\n\n[transforms]\ndepth = [0.9, 1.1]\n"
        'tilt_deg = [-5, 5]\nlabels_on_paint = "keep"\n\n[sampler]\nname = "dpm"\nsteps = 2\n\n'
        '[engine]\ndevice = "cpu"\nprecision = "fp32"\nbatch_size = 2\nworkers = 1\n\n'
        "[store]\nshard_size = 4\n"
    )


def flags(root: Path) -> None:
    write_dataset(root / "data", 1)
    (root / "set.txt").write_text(
        "copies=1\nseed=3\nsampler.name=dpm\nsampler.steps=2\nengine.workers=1\n"
        "engine.device=cpu\nengine.precision=fp32\ntransforms.depth=[0.9,1.1]\n"
        "dataset.spacing_mm=0.5\nstore.shard_size=2\n"
    )
    (root / "data.txt").write_text(
        "dataset.spacing_mm=[1.0,0.9]\ndataset.window=[0,255]\ndataset.flip=none\n"
    )
    (root / "recipe.txt").write_text("optimiser.learning_rate=1e-3\naugment.zoom=[0.9,1.1]\n")


def plan(root: Path) -> None:
    write_dataset(root / "data", 1)
    dry_run = f"{EXPAND} --dry-run --plan plan.json"
    _command(root, dry_run.replace("{store}", "x.zarr"))


# Models and training


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
    _command(root, TRAIN.format(steps=2) + "--frames frames.zip --stop-after 0.000001")


def finished_run(root: Path) -> None:
    recipe(root)
    _command(root, TRAIN.format(steps=2) + "--frames frames")
    shutil.copytree(root / "frames", root / "run" / "frames")


# Stores and what is made from them


EXPAND = "expand --in data --out {store} --labels-on-paint keep --set store.shard_size=2 " + QUICK


def expanded(suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write_dataset(root / "data", 1)
        _command(root, EXPAND.replace("{store}", f"made{suffix}"))

    return make


def _command(root: Path, text: str) -> None:
    """Run a command in a source's folder; it must end well."""
    from tests.survival.children import command

    os.chdir(root)
    words = text.replace("{tiny}", str(root.parent / "base" / "tiny")).split()
    try:
        command(*words)()
    except SystemExit as end:
        if end.code:
            raise


def unfinished(suffix: str) -> Callable[[Path], None]:
    """Half of the rows are still to be made; of an `.h5`, in its working store."""

    def make(root: Path) -> None:
        from echogen.store.repair import mark_pending

        expanded(suffix)(root)
        mark_pending(root / f"made{suffix}", [0, 1])
        for aside in root.glob("*.damaged"):
            aside.unlink()

    return make


def manifest(root: Path) -> None:
    from echogen.commands.export import export
    from tests.support.export_stores import cohort

    store = cohort(2, copies=1).put(root / "made.zarr")
    export(store, to="folder", output=root / "files", workers=1)


def _of_store(store: str) -> tuple[str, ...]:
    commands = (*STORE_COMMANDS, EXPAND, "validate {store} --source data --workers 1")
    return tuple(each.replace("{store}", store) for each in commands)


def _of_unfinished(output: str, store: str) -> tuple[str, ...]:
    return (
        EXPAND.replace("{store}", output),
        f"validate {store} --workers 1",
        f"validate {output} --repair --workers 1",
        f"export {store} --to zarr --out part.zarr --allow-unfinished --workers 1",
    )


SOURCES = (
    Source("camus", camus, (
        *DATA_COMMANDS, "validate data --frames all --workers 1",
        "expand --in data --out out.zarr --frames all --dry-run " + QUICK,
    ), names=("patient0001_4CH", "patient0002_4CH")),
    Source("metaimages", metaimages),
    Source("png", folder_of(".png", ".png")),
    Source("jpeg", folder_of(".jpg", ".png"), files=("data/images/*", "data/*.csv")),
    Source("tiff", folder_of(".tif", ".tif")),
    Source("bmp", folder_of(".bmp", ".bmp")),
    Source("mha", folder_of(".mha", ".mha")),
    Source("nii", folder_of(".nii", ".nii.gz")),
    Source("labelme", labelme),
    Source("coco", coco),
    Source("nnunet", nnunet),
    Source("exported-nnunet", exported("nnunet")),
    Source("exported-folder", exported("folder")),
    Source("exported-nifti", exported("nifti")),
    Source("echonet", echonet),
    Source("pediatric", pediatric),
    Source("cardiacuda", cardiacuda),
    Source("dicom", dicom, (
        *DATA_COMMANDS, "validate data --case-salt data/salt.txt --workers 1",
        "validate data --case-map map.csv --workers 1",
    ), names=(r"\b(p|damaged_)[0-9a-f]{8}",)),  # no message holds a file's name
    Source("images", folder_of(".png", ".png"), (
        "train --in data --out run --format images --pack frames.zip --config {recipe} --workers 1",
    ), ("data/images/*",)),
    Source("fans", with_fans, (
        "validate data --fans fans.csv --workers 1",
        "expand --in data --out out.zarr --fans fans.csv --dry-run " + QUICK,
        "preview data --fans fans.csv --out sheet.png",
    ), ("fans.csv",)),
    Source("settings", settings, (
        "expand --in data --out out.zarr --config settings.toml --dry-run --checkpoint {tiny}",
        "expand --in data --out out.zarr --config settings.toml --checkpoint {tiny}",
        "expand --in data --out out.zarr --config settings.toml --print-config",
        "validate data --config settings.toml", "stats data --config settings.toml",
    ), ("settings.toml",), (r"--[a-z-]+ .*: (not in this|no such)",)),  # what there is not
    Source("set", flags, (
        "expand --in data --out out.zarr --dry-run --checkpoint {tiny} --no-judge @set.txt",
        "expand --in data --out out.zarr --checkpoint {tiny} --no-judge @set.txt",
        "validate data @data.txt", "stats data @data.txt",
        "train --in data --out run --pack frames.zip --config {recipe} --workers 1 @recipe.txt",
    ), ("*.txt",), ("--set", "settings", "--config")),
    Source("plan", plan, (
        "preview data --plan plan.json --out sheet.png",
        "preview data --plan plan.json --out sheet.png --by depth",
    ), ("plan.json",)),
    Source("checkpoint", checkpoint, (
        "checkpoint info model", "checkpoint info model --json", "checkpoint verify model",
        "sample --out s.zarr --n 1 --checkpoint model --steps 2 --device cpu --precision fp32",
        "expand --in data --out out.zarr " + QUICK.replace("{tiny}", "model"),
        "expand --in data --out out.zarr --dry-run " + QUICK.replace("{tiny}", "model"),
    ), ("model/*",)),
    Source("judge", judge, (
        "checkpoint info judge", "checkpoint verify judge",
        "expand --in data --out out.zarr --judge judge " + QUICK.replace("--no-judge ", ""),
    ), ("judge/**/*",)),
    Source("guided", guided, (
        "checkpoint import model.pt --out made --noise-schedule linear --steps 100 --num-heads 4",
    ), ("model.pt",)),
    Source("cards", cards, (
        "checkpoint list", "checkpoint list --json", "checkpoint info mine",
    ), ("home/models.toml",), ("mine: no such checkpoint",),
           {"ECHOGEN_HOME": "{here}/home", "HF_HUB_OFFLINE": "1"}),
    Source("recipe", recipe, (TRAIN.format(steps=1) + "--frames frames",), ("recipe.toml",)),
    Source("frames", recipe, (
        TRAIN.format(steps=1) + "--frames frames", TRAIN.format(steps=1) + "--frames frames.zip",
    ), ("frames/*", "frames.zip")),
    Source("run", run, (TRAIN.format(steps=2) + "--frames frames.zip",), ("run/**/*",)),
    Source("finished-run", finished_run, (
        TRAIN.format(steps=2) + "--frames frames", "checkpoint info run", "checkpoint verify run",
        "train --out run --report --device cpu",
    ), ("run/**/*",)),
    Source("zarr", expanded(".zarr"), _of_store("made.zarr"), ("made.zarr/**/*",),
           ("made.zarr", "failed: patient")),
    Source("h5", expanded(".h5"), _of_store("made.h5"), ("made.h5",),
           ("made.h5", "failed: patient")),
    Source("unfinished-zarr", unfinished(".zarr"), _of_unfinished("made.zarr", "made.zarr"),
           ("made.zarr/**/*",), ("made.zarr",)),
    Source("unfinished-h5", unfinished(".h5"), _of_unfinished("made.h5", "made.h5.partial.zarr"),
           ("made.h5.partial.zarr/**/*",), ("made.h5",)),
    Source("manifest", manifest, (
        "export made.zarr --to folder --out files --workers 1",
        "export made.zarr --to folder --out files --overwrite --workers 1",
    ), ("files/.echogen-export.json", "files/*.csv", "files/**/*"), ("files",)),
)  # fmt: skip


def write_base(folder: Path) -> None:
    """What sources share: a tiny model and a recipe."""
    from tests.conftest import save_tiny
    from tests.support import tiny_training as tiny

    folder.mkdir(parents=True)
    save_tiny(folder / "tiny", "known")
    tiny.write_recipe(folder / "recipe.toml", tiny.recipe())
