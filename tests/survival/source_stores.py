"""Plans, stores and what is exported from them, as the commands make them; each function fills a
folder.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tests.support.hearts import write_dataset
from tests.survival.children import command

QUICK = (
    "--copies 1 --no-judge --device cpu --checkpoint {tiny} --sampler dpm --set sampler.steps=2 "
    "--set engine.workers=1 --set engine.precision=fp32"
)
EXPAND = "expand --in data --out {store} --labels-on-paint keep --set store.shard_size=2 " + QUICK


def run_command(root: Path, text: str) -> None:
    """Run a command in a source's folder; it must end well."""
    os.chdir(root)
    words = text.replace("{tiny}", str(root.parent / "base" / "tiny")).split()
    try:
        command(*words)()
    except SystemExit as end:
        if end.code:
            raise


def plan(root: Path) -> None:
    write_dataset(root / "data", 1)
    dry_run = f"{EXPAND} --dry-run --plan plan.json"
    run_command(root, dry_run.replace("{store}", "x.zarr"))


def expanded(suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write_dataset(root / "data", 1)
        run_command(root, EXPAND.replace("{store}", f"made{suffix}"))

    return make


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


def exported(to: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        expanded(".h5")(root)
        (root / "data").rename(root / "original")
        run_command(root, f"export made.h5 --to {to} --out files --workers 1")
        (next((root / "files").glob("Dataset*"), root / "files")).rename(root / "data")

    return make
