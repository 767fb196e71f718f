"""How often a model paints a second, unlabelled heart beside the real one.

    python benchmarks/second_hearts.py --data CAMUS --work DIR [--count 1000] \\
        --setting old=benchmarks/checkpoints/unconditional:balanced:before \\
        --setting new=builtin:balanced:before --setting default=builtin:balanced

Each setting is a checkpoint and a preset of `expand`, which makes copies of the frames of held-out
patients in DIR, and goes on where it was when it is interrupted; "before" is without a judge, and
with moves that leave holes of any size. Then the judge looks at what was kept.
DIR/NAME.png shows what it condemns, or where that is nothing, what comes nearest to it, with the
painted part in violet and the labelled heart in green; it shows patients, so keep it to yourself.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import machine

import echogen
from echogen.cli.console import ConsoleReporter
from echogen.diffusion.checkpoint import read_info
from echogen.geometry.sector import fan_mask
from echogen.judging.judge import Judge, open_judge
from echogen.models.resolve import resolve_judge
from echogen.store import Status, StoreReader, open_store
from echogen.types import IGNORE, LV_CAVITY

SHOWN, ACROSS = 48, 8
LEAST = (0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
BEFORE: dict[str, Any] = {"judge": "none", "transforms": {"max_hole": 1.0}}
HOLES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)  # of the fan, upper ends
LABELS = (0.6, 0.7, 0.8, 0.9, 1.0)  # of the label inside of the fan
VENTRICLE = 0.05  # of a cavity, as a share of the labelled heart's area


def expanded(data: Path, store: Path, setting: str, count: int) -> None:
    """Copies of held-out patients' frames in a store, at least `count` of them."""
    checkpoint, preset, before = (*setting.split(":"), "", "")[:3]
    if not preset or before not in ("", "before"):
        raise SystemExit(f"--setting: expected NAME=MODEL:PRESET[:before], got {setting}")
    held_out = read_info("builtin").training["held_out_cases"]
    frames = 4 * len(held_out) - 2
    echogen.expand(
        input=data,
        output=store,
        checkpoint=checkpoint,
        preset=preset,
        copies=math.ceil(count / frames),
        originals=False,
        **(BEFORE if before else {}),
        dataset={"cases": tuple(held_out), "limit": min(count, frames)},
        reporter=ConsoleReporter(),
    )


def chosen_of(store: StoreReader, count: int) -> list[int]:
    """`count` rows that were painted, at random but always the same."""
    rows = np.flatnonzero(store.columns["status"] != Status.REJECTED)
    return sorted(np.random.default_rng(0).permutation(rows)[:count].tolist())


def found_in(
    store: StoreReader, judge: Judge, rows: Sequence[int]
) -> dict[int, Mapping[int, float]]:
    """{row: the parts that the judge finds} of copies that were kept."""
    found: dict[int, Mapping[int, float]] = {}
    for row in rows:
        ids = [int(one) for one in str(store.columns["cut_ids"][row]).split()]
        case = str(store.columns["case_id"][row])
        pixels = (store.images[row], store.masks[row], store.keep[row])
        found[row] = judge.look(*pixels, case, ids).parts
    return found


def shares_of(store: StoreReader, row: int) -> tuple[float, float]:
    """Of a copy: how much of its fan was painted, and how much of its label lies in the fan."""
    fan = fan_mask(store.columns["sector"][row], store.columns["aspect"][row], store.image_shape)
    label = (store.masks[row] > 0) & (store.masks[row] < IGNORE)
    return float((fan & ~store.keep[row]).sum() / fan.sum()), float(fan[label].mean())


def by_share(
    values: Sequence[float], hits: Sequence[bool], ends: Sequence[float]
) -> dict[str, Any]:
    """{upper end: [copies, hits]} of shares above the end before and up to this one."""
    place = np.searchsorted(ends, values)
    hit = np.array(hits, bool)
    return {str(end): [int((place == k).sum()), int((hit & (place == k)).sum())]
            for k, end in enumerate(ends)}  # fmt: skip


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    half /= 1 + z * z / count
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def sheet(store: StoreReader, rows: list[int], file: Path) -> None:
    """Each as it is, and below with its painted part and its label."""
    columns = []
    for row in rows[:SHOWN]:
        grey = np.repeat(store.images[row][..., None], 3, 2).astype(int)
        shown = grey.copy()
        shown[~store.keep[row]] += (50, 0, 50)
        shown[(store.masks[row] > 0) & (store.masks[row] < 255)] += (0, 60, 0)
        columns.append(np.concatenate([grey, shown]).clip(0, 255).astype(np.uint8))
    while len(columns) % ACROSS:
        columns.append(np.zeros_like(columns[0]))
    lines = [np.concatenate(columns[i : i + ACROSS], 1) for i in range(0, len(columns), ACROSS)]
    Image.fromarray(np.concatenate(lines)).save(file)


def measured(store: StoreReader, judge: Judge, count: int, file: Path) -> dict[str, Any]:
    """Counts of a setting, and its sheet."""
    rows = chosen_of(store, count)
    kept = [row for row in rows if store.columns["status"][row] == Status.DONE]
    repaints = store.columns["repaints"][rows]
    parts = found_in(store, judge, kept)
    found = {row: sum(each.values()) for row, each in parts.items()}
    worst = sorted(found, key=lambda row: -found[row])
    condemned = [row for row in worst if found[row] > judge.info.threshold]
    sheet(store, condemned or worst, file)
    shares = [shares_of(store, row) for row in kept]
    holes, labels = [hole for hole, _ in shares], [label for _, label in shares]
    hits = [found[row] > judge.info.threshold for row in kept]
    return {
        "checkpoint": store.record.checkpoint.name,
        "checkpoint_sha256": store.record.checkpoint.sha256,
        "sampler": store.record.sampler.recorded,
        "transforms": store.record.config.transforms.recorded,
        "copies": len(rows),
        "painted_again": int((repaints > 0).sum()),
        "repaints": int(repaints.sum()),
        "failed": len(rows) - len(kept),
        "kept": len(found),
        "condemned": len(condemned),
        "share": round(len(condemned) / max(len(found), 1), 4),
        "interval_95": interval(len(condemned), len(found)),
        "by_least_share": {
            str(least): sum(share > least for share in found.values()) for least in LEAST
        },
        "copies_and_condemned_by_painted_share_of_fan": by_share(holes, hits, HOLES),
        "copies_and_condemned_by_label_inside": by_share(labels, hits, LABELS),
        "condemned_with_a_ventricle": sum(parts[row][LV_CAVITY] > VENTRICLE for row in condemned),
        "largest": [round(found[row], 3) for row in worst[:10]],
    }


def main() -> None:
    root = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--judge", default="builtin")
    parser.add_argument(
        "--setting", action="append", required=True, metavar="NAME=MODEL:PRESET[:before]"
    )
    parser.add_argument("--out", type=Path, default=root / "results" / "second_hearts.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for setting in options.setting:
        name, _, what = setting.partition("=")
        path = options.work / f"{name}.zarr"
        expanded(options.data, path, what, options.count)
        with open_store(path) as store:
            judge = open_judge(resolve_judge(options.judge), store.record.labels, print)
            if judge is None:
                raise SystemExit(f"{path}: the judge does not apply to these labels")
            results[name] = measured(store, judge, options.count, options.work / f"{name}.png")
            about = {**judge.info.record, "threshold": judge.info.threshold}
        print(name, json.dumps(results[name]), flush=True)
    record = {"machine": machine(), "judge": about, "settings": results}
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
