"""How well and how fast the fan is found: on clean frames, damaged ones, other scanners', and none.

    python benchmarks/sector_fit.py --data DIR [--external NAME=DIR ...] [--negative DIR]

- `clean`: CAMUS (`camus/database_nifti`: 4CH native, 2CH stretched to 224 x 224), its MetaImage
  layout (`camus_mhd/training`) and a video (`e95/*.mp4`), each frame alone: IoU with the filled
  foreground.
- `damage`: CAMUS 4CH frames under each kind of `damage.py`, drawn combinations of several, and
  clips of such; the truth is the fan of the undamaged frame, moved along.
- `external`: folders of pictures and clips without a truth. Pictures and two frames of each clip
  (the first, and the one that differs most from it) alone; these two joined; the same two with the
  whole clip, whose fan the others' is compared with. `--sheets DIR` writes what was found as pages
  to look at. Sheets show patients: never commit them.
- `negative`: drawn pictures without a fan (`negatives.py`), CAMUS frames upside down and turned a
  quarter, and a folder's pictures.

The record grows group by group and goes on where it was interrupted, as long as the code of the
fit and the arguments are the same. `--only` names groups by how they begin; with it nothing is
written but to `--out`.
"""

import argparse
import hashlib
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fan_sheets import Shown, write_sheets
from fan_trials import CLEAN, Grey, Load, Spacing, Trial, fit, groups
from measures.fans import FanError, fan_error, foreground_iou
from record import Record
from scipy import optimize

import echogen.geometry.recording as fitted_by
from echogen.geometry.sector import Sector

BARS = {"apex": 0.015, "angle": 1.0, "accepted": 0.98, "wrong": 1 / 200}
"""Apex error (share of the depth) and angle error (degrees) at the 95th percentile; shares."""


@dataclass(frozen=True)
class Row:
    """What came of a trial: a fan, or a reason; and how sure, how near, how fast."""

    name: str
    sector: Sector | None
    confidence: float
    reason: str
    ms: float
    iou: float | None = None
    error: FanError | None = None
    rounder: tuple[float, float] | None = None
    shown: Shown | None = None


# Fitting.


def tried(load: Load, iou: bool = False, shown: bool = False) -> Row | None:
    trial = load()
    if trial is None:
        return None
    start = time.process_time()
    sector, sure, reason = fit(trial.images, trial.spacing, trial.clip)
    ms = 1e3 * (time.process_time() - start)
    row = Row(trial.name, sector, sure, reason, ms)
    if sector is not None and trial.truth is not None:
        row = replace(row, error=fan_error(sector, trial.truth))
    if iou:
        covered = foreground_iou(sector, trial.images[0], trial.spacing) if sector else 0.0
        rounder = rounded(trial.images[0], trial.spacing) if covered < 0.98 else None
        row = replace(row, iou=covered, rounder=rounder)
    if shown:
        row = replace(row, shown=picture(trial, row))
    return row


def picture(trial: Trial, row: Row) -> Shown:
    said = f"{row.confidence:.2f} " + (row.reason or "")
    if row.error is not None:
        said += f"apex {row.error.apex:.1%} angle {row.error.angle:.2f}"
    order = -row.error.apex if row.error is not None else row.confidence
    title = f"{trial.name[-58:]}\n{said[:58]}"
    return Shown(title, trial.images[0], trial.spacing, row.sector, trial.truth, order)


def rounded(image: Grey, spacing: Spacing) -> tuple[float, float]:
    """(factor on the row spacing, IoU) where the fan is roundest.

    A stretched copy whose estimated spacing is wrong shows an ellipse in its millimetres, which no
    fan fits.
    """

    def loss(log_factor: float) -> float:
        scaled = (spacing[0] * float(np.exp(log_factor)), spacing[1])
        sector, _, _ = fit([image], scaled)
        return -foreground_iou(sector, image, scaled) if sector else 0.0

    found = optimize.minimize_scalar(
        loss, bounds=(-0.4, 0.4), method="bounded", options={"xatol": 1e-2}
    )
    return float(np.exp(found.x)), -float(found.fun)


# Summaries.


def percentiles(values: Iterable[float], digits: int) -> dict[str, float]:
    found = np.array(list(values))
    if not len(found):
        return {}
    return {f"p{rank}": round(float(np.percentile(found, rank)), digits) for rank in (50, 95)}


def summary(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    accepted = [row for row in rows if row.sector is not None]
    found: dict[str, Any] = {
        "tried": len(rows),
        "accepted": len(accepted),
        "share": round(len(accepted) / len(rows), 4),
        "cpu_ms": round(float(np.mean([row.ms for row in rows])), 1),
        "cpu_ms_max": round(max(row.ms for row in rows), 1),
    }
    if name.startswith("clean"):
        target = CLEAN[name][1]
        iou = np.array([row.iou or 0.0 for row in rows])
        worst = sorted(rows, key=lambda row: row.iou or 0.0)[: max(10, int((iou < target).sum()))]
        found |= {
            "target": target,
            "below_target": int((iou < target).sum()),
            "iou_min": round(float(iou.min()), 5),
            "iou_median": round(float(np.median(iou)), 5),
            "worst": [
                {"frame": row.name, "iou": round(row.iou or 0.0, 4)}
                | ({"round": [round(v, 3) for v in row.rounder]} if row.rounder else {})
                for row in worst
            ],
        }
    errors = [row.error for row in accepted if row.error is not None]
    if errors:
        found |= {
            "apex": percentiles((e.apex for e in errors), 4),
            "angle_deg": percentiles((e.angle for e in errors), 3),
            "far": percentiles((e.far for e in errors), 4),
        }
    if name.startswith("damage"):
        found["rows"] = [[round(e.apex, 5), round(e.angle, 4)] for e in errors]
    elif not name.startswith("clean"):
        found["confidence"] = percentiles((row.confidence for row in accepted), 3)
        found["refused_for"] = dict(
            Counter(re.sub(r"[\d.]+", "#", row.reason) for row in rows if row.sector is None)
        )
    return found


def overall(stages: dict[str, Any]) -> dict[str, Any]:
    """The figures that have bars."""
    results = {name: entry["result"] for name, entry in stages.items() if "result" in entry}
    said: dict[str, Any] = {}
    damaged = [r for name, r in results.items() if name.startswith("damage")]
    rows = [row for r in damaged for row in r.pop("rows")]
    if rows:
        said["damage"] = {
            "tried": sum(r["tried"] for r in damaged),
            "share": round(
                sum(r["accepted"] for r in damaged) / sum(r["tried"] for r in damaged), 4
            ),
            "apex": percentiles((row[0] for row in rows), 4),
            "angle_deg": percentiles((row[1] for row in rows), 3),
        }
    for name, r in results.items():
        if name.startswith("external"):
            said[name] = f"{r['accepted']} of {r['tried']}"
    wrong = [r for name, r in results.items() if name.startswith("negative")]
    if wrong:
        said["negative"] = (
            f"{sum(r['accepted'] for r in wrong)} of {sum(r['tried'] for r in wrong)}"
        )
    for name, r in results.items():
        if name.startswith("clean"):
            said[name] = {key: r[key] for key in ("tried", "accepted", "iou_min", "iou_median")}
    return said | {"bars": BARS}


def line(name: str, result: dict[str, Any]) -> str:
    parts = [f"{name:34} {result['accepted']:4} of {result['tried']:4} {result['share']:7.1%}"]
    if "iou_min" in result:
        parts.append(f"IoU min {result['iou_min']:.4f} median {result['iou_median']:.4f}")
    if result.get("apex"):
        apex, angle = result["apex"], result["angle_deg"]
        parts.append(f"apex {apex['p50']:6.2%} {apex['p95']:6.2%}")
        parts.append(f"angle {angle['p50']:5.2f} {angle['p95']:6.2f}")
        parts.append(f"far {result['far']['p95']:6.2%}")
    return "  ".join([*parts, f"{result['cpu_ms']:.0f} ms"])


def code() -> str:
    """Of the fit: a record of other code is not gone on with."""
    folder = Path(fitted_by.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.*")):
        if file.suffix != ".pyc":
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def measured(name: str, loads: list[Load], options: argparse.Namespace) -> dict[str, Any]:
    run = partial(tried, iou=name.startswith("clean"), shown=options.sheets is not None)
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers) as pool:
            found = list(
                pool.map(run, loads, chunksize=max(1, len(loads) // (8 * options.workers)))
            )
    else:
        found = [run(load) for load in loads]
    rows = [row for row in found if row is not None]
    if options.sheets is not None and not name.startswith("clean"):
        write_sheets(options.sheets, name, [row.shown for row in rows if row.shown])
    return summary(name, rows)


def named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER with an existing folder: {text}")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with camus, camus_mhd, e95")
    parser.add_argument("--external", type=named_folder, nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--negative", type=Path, help="pictures without a fan")
    parser.add_argument("--only", nargs="*", default=[""], help="groups, by how they begin")
    parser.add_argument("--every", type=int, default=1, help="every nth trial of each group")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheets", type=Path, help="where pages to look at are written")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    whole = options.only == [""] and options.every == 1
    out = options.out or (Path(__file__).parent / "results" / "sector_fit.json" if whole else None)
    chosen = {
        name: loads
        for name, loads in groups(
            options.data, options.external, options.negative, options.every
        ).items()
        if any(name.startswith(begin) for begin in options.only)
    }
    if out is None:
        for name, loads in chosen.items():
            print(line(name, measured(name, loads, options)), flush=True)
        return
    settings = {
        "code": code(),
        "every": options.every,
        "tried": {n: len(v) for n, v in chosen.items()},
    }
    record = Record(
        out, "python " + shlex.join(["benchmarks/sector_fit.py", *shown_arguments()]), settings
    )
    for name, loads in chosen.items():
        result = record.stage(name, partial(measured, name, loads, options))
        if result:
            print(line(name, result), file=sys.stderr, flush=True)
    record.finish(overall(record.content["stages"]))


def shown_arguments() -> list[str]:
    """The arguments, without this machine's folders."""
    return [re.sub(r"(^|=)(?:/[^/=]+)+/?$", r"\1DIR", argument) for argument in sys.argv[1:]]


if __name__ == "__main__":
    main()
