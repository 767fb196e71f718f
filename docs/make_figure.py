"""Draws docs/images/overview.png: simulated frames, moved, painted, with the moved mask.

python docs/make_figure.py
"""

import tempfile
from pathlib import Path

import numpy as np

from echogen.config import load_config
from echogen.generate import expand
from echogen.preview import contact_sheet, save_png
from echogen.store import open_store

HERE = Path(__file__).parent
SHOWN = ("patient0001_4CH_ED_copy4", "patient0003_2CH_ED_copy2", "patient0005_4CH_ED_copy1")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "figure.zarr"
        cases = sorted({name.partition("_")[0] for name in SHOWN})
        settings = {
            "input": HERE.parent / "sample_data" / "camus",
            "output": output,
            "dataset": {"cases": cases, "phases": ["ED"]},
        }
        expand(load_config(None, {}, settings))
        with open_store(output) as store:
            names = store.columns["sample_id"]
            rows = [int(np.flatnonzero(names == name)[0]) for name in SHOWN]
            save_png(contact_sheet(store, rows), HERE / "images" / "overview.png")


if __name__ == "__main__":
    main()
