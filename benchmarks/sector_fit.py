"""How well and how fast the sector is fitted on real recordings.

    python benchmarks/sector_fit.py --data DIR

reads CAMUS (`camus/database_nifti`: 4CH native, 2CH stretched to 224 x 224), its MetaImage layout
(`camus_mhd/training`) and an E95 video (`e95/a4c.mp4`, needs imageio-ffmpeg), fits each frame
alone, and writes IoU with the filled foreground, processor times and the worst ten as JSON.

A stretched copy whose estimated spacing is wrong shows an ellipse in its millimetres, which no fan
fits. For every frame below 0.98 the row spacing is therefore also scaled by the factor that makes
the fan round, and the IoU after that is written beside it.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import optimize

from echogen.errors import DatasetError
from echogen.geometry.fit import agreement, fit_sector

Image = npt.NDArray[np.uint8]
Spacing = tuple[float, float]
GROUPS = {
    "camus_4ch_native": ("camus/database_nifti/*/*_4CH_E[DS].nii.gz", 0.998),
    "camus_2ch_stretched": ("camus/database_nifti/*/*_2CH_E[DS].nii.gz", 0.98),
    "camus_mhd": ("camus_mhd/training/*/*_E[DS].mhd", 0.998),
    "e95_video": ("e95/*.mp4", 0.99),
}


def frames(path: Path) -> Iterator[tuple[str, Image, Spacing]]:
    if path.suffix != ".mp4":
        read = sitk.ReadImage(str(path))
        col, row = read.GetSpacing()[:2]
        yield path.name, np.squeeze(sitk.GetArrayFromImage(read)).astype(np.uint8), (row, col)
        return
    try:
        import imageio_ffmpeg
    except ImportError:
        print(f"{path.name} left out: imageio-ffmpeg is not installed", file=sys.stderr)
        return
    stream = imageio_ffmpeg.read_frames(str(path), pix_fmt="gray", bits_per_pixel=8)
    width, height = next(stream)["size"]
    for number, raw in enumerate(stream):
        yield f"{path.name}#{number}", np.frombuffer(raw, np.uint8).reshape(height, width), (1, 1)


def fitted(image: Image, spacing: Spacing) -> float:
    try:
        return agreement(fit_sector([image], spacing), image, spacing)
    except DatasetError:
        return 0.0


def rounded(image: Image, spacing: Spacing) -> tuple[float, float]:
    """(factor on the row spacing, IoU) where the fan is roundest."""

    def loss(log_factor: float) -> float:
        return -fitted(image, (spacing[0] * float(np.exp(log_factor)), spacing[1]))

    found = optimize.minimize_scalar(
        loss, bounds=(-0.4, 0.4), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x)), -float(found.fun)


def measure(paths: list[Path], target: float) -> dict[str, Any]:
    rows = []
    for path in paths:
        for name, image, spacing in frames(path):
            start = time.process_time()
            try:
                sector = fit_sector([image], spacing)
            except DatasetError as error:
                rows.append({"frame": name, "iou": 0.0, "ms": 0.0, "error": str(error)})
                continue
            seconds = time.process_time() - start
            row = {"frame": name, "iou": agreement(sector, image, spacing), "ms": 1e3 * seconds}
            if row["iou"] < 0.98:
                factor, iou = rounded(image, spacing)
                row |= {"round_factor": round(factor, 3), "round_iou": round(iou, 4)}
            rows.append(row)
    if not rows:
        return {"frames": 0}
    iou = np.array([row["iou"] for row in rows])
    ms = np.array([row["ms"] for row in rows])
    rows.sort(key=lambda row: row["iou"])
    below = [row | {"iou": round(row["iou"], 4), "ms": round(row["ms"], 1)} for row in rows]
    return {
        "frames": len(rows),
        "target": target,
        "below_target": int((iou < target).sum()),
        "iou_min": round(float(iou.min()), 5),
        "iou_median": round(float(np.median(iou)), 5),
        "cpu_ms_mean": round(float(ms.mean()), 1),
        "cpu_ms_max": round(float(ms.max()), 1),
        "worst": below[: max(10, int((iou < target).sum()))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "sector_fit.json"
    )
    options = parser.parse_args()
    report: dict[str, Any] = {
        "command": "python " + shlex.join(sys.argv),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    for name, (pattern, target) in GROUPS.items():
        report[name] = measure(sorted(options.data.glob(pattern)), target)
        print(name, {k: v for k, v in report[name].items() if k != "worst"}, file=sys.stderr)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
