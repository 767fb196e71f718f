"""Train the judge: the small networks that tell a heart where the label says background.

    python benchmarks/judge_network.py --data CAMUS --work DIR

reads the frames once (kept in DIR) and trains one network a fold on the patients of the other one.
`judge_calibration.py` makes a judge of them. Seeded, one thread, about a quarter of an hour of one
core; interrupted, it goes on where it was.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from judge_frames import FOLDS, Frames, labelled_frames
from judge_pictures import CLASSES, Pool, batch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor

WIDTHS = (16, 32, 48, 64, 96)
BATCH, RATE, WARM_UP = 24, 4e-3, 60
SAVE_EVERY = 50


def network() -> UNet:
    """MONAI's U-Net on 128 x 128: 0.2 million weights, 0.4 MB in float16."""
    strides = (2,) * (len(WIDTHS) - 1)
    return UNet(2, 2, 1 + CLASSES, WIDTHS, strides, num_res_units=0, act="relu", norm="batch")


def trained(
    frames: Frames, fold: int, steps: int, highest: float, file: Path, start: Path | None
) -> dict[str, Tensor]:
    """The averaged weights of a network that has seen no patient of `fold`."""
    torch.manual_seed(fold)
    pool = Pool(frames, np.flatnonzero((frames.folds >= 0) & (frames.folds != fold)))
    model = network().to(memory_format=torch.channels_last)
    if start is not None:
        begin = torch.load(start, weights_only=True)["mean"]
        first = begin["model.0.conv.weight"]
        if first.shape[1] == 1:  # of a network that was shown no label
            begin["model.0.conv.weight"] = torch.cat([first, torch.zeros_like(first)], 1)
        model.load_state_dict(begin)
    optimizer = torch.optim.AdamW(model.parameters(), lr=highest, weight_decay=1e-2)
    mean = {name: value.detach().clone() for name, value in model.state_dict().items()}
    begun = 0
    if file.exists():
        kept = torch.load(file, weights_only=True)
        begun, mean = kept["step"], kept["mean"]
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    began = time.monotonic()
    for step in range(begun, steps):
        g = torch.Generator().manual_seed(1_000_003 * (fold + 1) + step)
        x, truth = batch(pool, torch.randint(len(pool), (BATCH,), generator=g), g)
        falling = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        rate = highest * min(1, (step + 1) / WARM_UP) * falling
        for group in optimizer.param_groups:
            group["lr"] = rate + 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            answer = model(x.contiguous(memory_format=torch.channels_last))
        loss = loss_of(answer.float(), truth[:, None])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    mean[name].lerp_(value, 1 - keep)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            print(fold, step + 1, f"{time.monotonic() - began:.0f} s", float(loss), flush=True)
            state = {"step": step + 1, "mean": mean, "model": model.state_dict()}
            torch.save({**state, "optimizer": optimizer.state_dict()}, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1_600)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--start", type=Path, help="folder of an earlier run, to go on from")
    parser.add_argument("--fold", type=int, nargs="*", default=list(range(FOLDS)))
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = labelled_frames(options.data, options.work / "frames.npz")
    for fold in options.fold:
        name = f"fold{fold}_{options.steps}.pt"
        start = options.start and next(options.start.glob(f"fold{fold}_*.pt"))
        trained(frames, fold, options.steps, options.rate, options.work / name, start)


if __name__ == "__main__":
    main()
