"""A tiny valid sample of everything that echogen reads, and the commands that read it deepest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.survival.source_datasets import (
    camus,
    cardiacuda,
    coco,
    dicom,
    echonet,
    flags,
    folder_of,
    labelme,
    metaimages,
    nnunet,
    pediatric,
    settings,
    with_fans,
)
from tests.survival.source_models import (
    TRAIN,
    cards,
    checkpoint,
    finished_run,
    guided,
    judge,
    recipe,
    run,
)
from tests.survival.source_stores import (
    EXPAND,
    QUICK,
    expanded,
    exported,
    manifest,
    plan,
    unfinished,
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


@dataclass(frozen=True)
class Source:
    """Something that is read.

    Attributes:
        name: of the source.
        make: fills a folder.
        commands: run in that folder; where nothing is changed, each exits with 0, but what verifies
            a model that nobody trained, or exports a part of a store.
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


MEASURED = ("(denoising|known pixels|sees hearts) +FAILED",)
"""What `checkpoint verify` tells of an untrained model, whatever else is damaged."""
UNDECLARED = ("class ids [0-9, ]+ are not declared",)
"""What is told of label maps where the list of classes, in another file, lost one."""

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
    Source("exported-nnunet", exported("nnunet"), names=UNDECLARED),
    Source("exported-folder", exported("folder"), names=UNDECLARED),
    Source("exported-nifti", exported("nifti"), names=UNDECLARED),
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
    ), ("model/**/*",), MEASURED),
    Source("judge", judge, (
        "checkpoint info judge", "checkpoint verify judge",
        "expand --in data --out out.zarr --judge judge " + QUICK.replace("--no-judge ", ""),
    ), ("judge/**/*",), MEASURED),
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
    ), ("run/**/*",), ("checkpoint run: ", *MEASURED)),
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
